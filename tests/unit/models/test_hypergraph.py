"""Learned hypergraphs against loops over items and hyperedges."""

import math

import pytest
import torch
from scipy import stats

from braidrec.models.hypergraph import LearnedIncidence, drop_incidence, from_hyperedges, hyperedge_states

ITEMS, USERS, FEATURES, EDGES, DIM = 12, 7, 5, 3, 4
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(ITEMS, FEATURES, generator=GENERATOR)
Z = torch.randn(ITEMS, DIM, generator=GENERATOR)
A = (torch.rand(USERS, ITEMS, generator=GENERATOR) < 0.4).float()


def incidence_module(**options) -> LearnedIncidence:
    torch.manual_seed(1)
    return LearnedIncidence(FEATURES, EDGES, **{"noise": "none", "temperature": 0.5, **options})


def test_incidence_is_a_softmax_of_inner_products() -> None:
    module = incidence_module()
    found = module(module.logits(X)).tolist()
    vectors = module.hyperedges.tolist()
    for item, row in enumerate(X.tolist()):
        raised = [math.exp(sum(x * v for x, v in zip(row, vector, strict=True)) / 0.5) for vector in vectors]
        assert found[item] == pytest.approx([value / sum(raised) for value in raised], rel=1e-5)


@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_layers_are_the_papers_recursion(num_layers: int) -> None:
    module = incidence_module()
    item_incidence = module(module.logits(X)).double()
    user_incidence = module(A @ module.logits(X)).double()
    items, users = Z.double(), torch.zeros(USERS, DIM)
    for _ in range(num_layers):
        of_edges = [sum(item_incidence[i, e] * items[i] for i in range(ITEMS)) for e in range(EDGES)]
        users = torch.stack([sum(user_incidence[u, e] * of_edges[e] for e in range(EDGES)) for u in range(USERS)])
        items = torch.stack([sum(item_incidence[i, e] * of_edges[e] for e in range(EDGES)) for i in range(ITEMS)])
    states = hyperedge_states(item_incidence, Z.double(), num_layers=num_layers)
    torch.testing.assert_close(from_hyperedges(user_incidence, states), users)
    torch.testing.assert_close(from_hyperedges(item_incidence, states), items)
    some = torch.tensor([4, 0, 9])
    torch.testing.assert_close(from_hyperedges(item_incidence[some], states), items[some])


def test_gradients_reach_features_rows_and_hyperedges() -> None:
    module = incidence_module().double()

    def output(features: torch.Tensor, rows: torch.Tensor, hyperedges: torch.Tensor) -> torch.Tensor:
        incidence = torch.softmax(features @ hyperedges.T / module.temperature, dim=-1)
        return from_hyperedges(incidence[:3], hyperedge_states(incidence, rows, num_layers=2))

    leaves = [X.double().requires_grad_(), Z.double().requires_grad_(), module.hyperedges.detach().requires_grad_()]
    assert torch.autograd.gradcheck(output, leaves)
    incidence = module(module.logits(X.double()))
    from_hyperedges(incidence, hyperedge_states(incidence, Z.double())).sum().backward()
    assert module.hyperedges.grad.isfinite().all() and module.hyperedges.grad.abs().sum() > 0


def test_items_without_features_belong_to_all_alike() -> None:
    module = incidence_module()
    assert module(module.logits(torch.zeros(2, FEATURES))).tolist() == [[pytest.approx(1 / 3)] * 3] * 2


@pytest.mark.parametrize(("noise", "distribution"), [("gumbel", "gumbel_r"), ("logistic", "logistic")])
def test_noise_while_training(noise: str, distribution: str) -> None:
    module = incidence_module(noise=noise, temperature=1.0)
    logits = torch.zeros(20_000, 2)
    one, same = (module(logits, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, same)
    assert not torch.equal(one, module(logits, torch.Generator().manual_seed(4)))
    torch.testing.assert_close(one.sum(1), torch.ones(20_000))
    # The log-odds of two entries are the difference of two draws.
    rng = torch.Generator().manual_seed(5)
    difference = torch.log(one[:, 0] / one[:, 1]).double().numpy()
    draws = getattr(stats, distribution).rvs(size=(20_000, 2), random_state=6)
    assert stats.ks_2samp(difference, draws[:, 0] - draws[:, 1]).pvalue > 1e-3
    assert module(logits.double(), rng).dtype == torch.float64


def test_no_noise_when_evaluated() -> None:
    module = incidence_module(noise="gumbel").eval()
    logits = module.logits(X)
    assert torch.equal(module(logits), torch.softmax(logits / 0.5, dim=-1))


@pytest.mark.parametrize("extreme", [1e4, -1e4])
def test_extreme_logits_and_low_temperatures_stay_finite(extreme: float) -> None:
    module = incidence_module(noise="logistic", temperature=0.01)
    logits = torch.tensor([[extreme, 0.0, 0.0]], requires_grad=True)
    out = module(logits, torch.Generator().manual_seed(0))
    out.square().sum().backward()
    assert out.isfinite().all() and logits.grad.isfinite().all()


def test_dropped_incidence_keeps_its_mean() -> None:
    ones = torch.ones(10_000, 4)
    dropped = drop_incidence(ones, 0.3, torch.Generator().manual_seed(0))
    assert dropped.unique().tolist() == pytest.approx([0.0, 1 / 0.7])
    share = (dropped == 0).float().mean().item()
    assert abs(share - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 40_000)
    assert drop_incidence(ones, 0.0) is ones


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature must be above 0, not 0.0"),
        ({"noise": "normal"}, "noise must be 'none', 'logistic' or 'gumbel', not 'normal'"),
    ],
)
def test_bad_settings(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        incidence_module(**options)


def test_other_bad_input() -> None:
    with pytest.raises(ValueError, match="not 5 and 0"):
        LearnedIncidence(5, 0)
    with pytest.raises(ValueError, match="num_layers must be at least 1, not 0"):
        hyperedge_states(torch.ones(3, 2), torch.ones(3, 2), num_layers=0)
    with pytest.raises(ValueError, match="incidence of 3 items, but rows of 4: all items are needed"):
        hyperedge_states(torch.ones(3, 2), torch.ones(4, 2))
    with pytest.raises(ValueError, match=r"rate must be within \[0, 1\), not 1.0"):
        drop_incidence(torch.ones(3, 2), 1.0)
