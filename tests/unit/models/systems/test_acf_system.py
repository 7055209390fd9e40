"""ACF against both attentions written out user by user, item by item and component by component."""

from dataclasses import replace
from math import exp

import numpy as np
import pytest
import torch
from dense_oracles import ITEMS, NUM_ITEMS, NUM_USERS, USERS
from item_graph_world import DIM, assert_seeds_are_rows_of_all, fill, inputs_of, make_batch, make_tables, source_over

from braidrec.graph.build import build_interactions
from braidrec.graph.histories import Histories
from braidrec.models import components
from braidrec.models.contract import LooksAtHistories
from braidrec.models.systems import acf
from braidrec.models.systems.acf import ACF

SHAPES = {"image": (3, 4), "text": (5,)}
DIMS = {"image": 12, "text": 5}
COUNTS = [3, 1, 2, 3, 2, 0, 3]
"""Regions of each item's image; item 5 has none, and item 2 no text."""
HIDDEN = 6


def make_features() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    rng = np.random.default_rng(4)
    image = torch.from_numpy(rng.normal(size=(NUM_ITEMS, *SHAPES["image"])))
    counts = torch.tensor(COUNTS)
    image[torch.arange(3) >= counts.unsqueeze(-1)] = 0.0
    has_text = torch.arange(NUM_ITEMS) != 2
    text = torch.from_numpy(rng.normal(size=(NUM_ITEMS, 5))) * has_text.unsqueeze(-1)
    return {
        "image": (image.view(NUM_ITEMS, -1), counts > 0),
        "components/image": (counts.double().unsqueeze(-1), counts > 0),
        "text": (text, has_text),
    }


FEATURES = make_features()
HISTORIES = Histories(build_interactions(USERS, ITEMS, NUM_USERS, NUM_ITEMS), NUM_USERS)


def make_model(**options) -> ACF:
    settings = {"attention_dim": HIDDEN, "history": 10, "evaluation_history": 10, **options}
    model = ACF(dim=DIM, initial_std=0.1, dims=DIMS, shapes=SHAPES, histories=HISTORIES, **settings).double()
    fill(model)
    return model


def softmax(scores: list[float]) -> list[float]:
    return [exp(score) / sum(exp(other) for other in scores) for score in scores]


class ByHand:
    """The formulas of the paper, one user, item and component at a time."""

    def __init__(self, model: ACF, tables: dict[str, torch.Tensor]) -> None:
        self.own = {name: value.detach().numpy() for name, value in model.named_parameters()}
        self.rows = {name: value.detach().numpy() for name, value in tables.items()}

    def seen(self, u: np.ndarray, item: int) -> np.ndarray:
        """W₁ₓ x̄ of both modalities."""
        own, total = self.own, np.zeros(HIDDEN)
        for place, name in enumerate(sorted(DIMS)):
            values, present = FEATURES[name]
            if not present[item]:
                total += own[f"components.{place}.missing.token"]
                continue
            x = values[item].view(-1, SHAPES[name][-1]).numpy()
            x = x[: COUNTS[item]] if name == "image" else x
            shares = [1.0]
            if name == "image":
                of_u = own[f"components.{place}.query.layers.0.weight"] @ u
                w, b = own[f"components.{place}.key.layers.0.weight"], own[f"components.{place}.key.layers.0.bias"]
                w2 = own[f"components.{place}.weight.layers.0.weight"][0]
                shares = softmax([float(w2 @ np.maximum(of_u + w @ one + b, 0)) for one in x])
            mean = sum(share * one for share, one in zip(shares, x, strict=True))
            total += own[f"components.{place}.value.layers.0.weight"] @ mean
        return total

    def user(self, user: int, without: int | None = None) -> np.ndarray:
        own, u = self.own, self.rows["user"][user]
        items = [item for one, item in zip(USERS.tolist(), ITEMS.tolist(), strict=True) if one == user]
        items = [item for item in items if item != without]
        if not items:
            return u
        scores = []
        for item in items:
            hidden = (
                own["of_user.layers.0.weight"] @ u
                + own["of_user.layers.0.bias"]
                + own["of_target.layers.0.weight"] @ self.rows["item"][item]
                + own["of_history.layers.0.weight"] @ self.rows["history"][item]
                + self.seen(u, item)
            )
            scores.append(float(own["weight.layers.0.weight"][0] @ np.maximum(hidden, 0)))
        shares = softmax(scores)
        return u + sum(share * self.rows["history"][item] for share, item in zip(shares, items, strict=True))


def test_scores_are_those_of_the_paper() -> None:
    """At evaluation of all users; user 3 has no history, and item 6 is in none."""
    model = make_model().eval()
    tables = make_tables(model)
    vectors = model.encode(inputs_of(model, source_over({}), tables, FEATURES, None)).vectors.detach().numpy()
    by_hand = ByHand(model, tables)
    wanted = np.array([by_hand.user(user) for user in range(NUM_USERS)]) @ by_hand.rows["item"].T
    np.testing.assert_allclose(vectors[:NUM_USERS] @ vectors[NUM_USERS:].T, wanted, rtol=1e-10)
    np.testing.assert_array_equal(vectors[3], by_hand.rows["user"][3])


def rows_of_batch(model: ACF, tables: dict[str, torch.Tensor]) -> torch.Tensor:
    batch = make_batch()
    seeds, places = torch.unique(batch.nodes(NUM_USERS), return_inverse=True)
    inputs = inputs_of(model, source_over({}), tables, FEATURES, seeds)
    users, _, _ = batch.split(model.encode(inputs).vectors.index_select(0, places))
    return model.users_of_rows(users, inputs, batch)


def test_a_row_leaves_its_own_positive_out() -> None:
    """User 2 is in two rows, and each leaves out another item."""
    model = make_model()
    assert isinstance(model, LooksAtHistories)
    tables, batch = make_tables(model), make_batch()
    by_hand = ByHand(model, tables)
    pairs = list(zip(batch.users.tolist(), batch.items.tolist(), strict=True))
    assert pairs.count((2, 3)) == pairs.count((2, 4)) == 1
    wanted = np.array([by_hand.user(user, without=item) for user, item in pairs])
    found = rows_of_batch(model, tables).detach().numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-10)
    leaking = np.array([by_hand.user(user) for user, _ in pairs])
    assert np.abs(found - leaking).max(axis=1).min() > 1e-3


def test_gradients_by_finite_differences() -> None:
    """Of a random direction of the batch's user vectors, in every table and parameter that they depend on."""
    model = make_model()
    tables = make_tables(model)
    towards = torch.randn(6, DIM, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def loss() -> torch.Tensor:
        return (rows_of_batch(model, tables) * towards).sum()

    variables = {**tables, **dict(model.named_parameters())}
    gradients = torch.autograd.grad(loss(), list(variables.values()))
    for (name, variable), gradient in zip(variables.items(), gradients, strict=True):
        place = int(gradient.abs().argmax())
        assert gradient.flatten()[place].abs() > 1e-5, f"{name} learns nothing"
        flat, step = variable.data.view(-1), 1e-6
        with torch.no_grad():
            flat[place] += step
            above = loss()
            flat[place] -= 2 * step
            below = loss()
            flat[place] += step
        assert float((above - below) / (2 * step)) == pytest.approx(float(gradient.flatten()[place]), rel=1e-5), name


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither of users nor of features, which are then read again for the gradients."""
    model = make_model()
    results = []
    evaluated = []
    for users, features, at_once in ((acf.BLOCK_NUMBERS, components.PROJECTED_BYTES, acf.USERS_AT_ONCE), (1, 1, 2)):
        monkeypatch.setattr(acf, "USERS_AT_ONCE", at_once)
        monkeypatch.setattr(acf, "BLOCK_NUMBERS", users)
        monkeypatch.setattr(components, "PROJECTED_BYTES", features)
        tables = make_tables(model)
        rows = rows_of_batch(model, tables)
        variables = [*tables.values(), *model.parameters()]
        whole = model.eval().encode(inputs_of(model, source_over({}), tables, FEATURES, None)).vectors.detach()
        evaluated.append(whole)
        model.train()
        results.append([rows.detach(), *torch.autograd.grad(rows.square().sum(), variables)])
    for whole, blocks in zip(*results, strict=True):
        torch.testing.assert_close(whole, blocks, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(*evaluated, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("level", ["item", "component"])
def test_attention_is_no_mean(level: str) -> None:
    """With the weights of a level's attention at zero all shares are equal, and users are others."""
    model = make_model().eval()
    tables = make_tables(model)

    def users() -> torch.Tensor:
        encoded = model.encode(inputs_of(model, source_over({}), tables, FEATURES, None))
        return encoded.vectors[:NUM_USERS].detach()

    before = users()
    weight = model.weight if level == "item" else model.attentions()[0].weight
    with torch.no_grad():
        for parameter in weight.parameters():
            parameter.zero_()
    changed = (users() - before).abs().amax(-1)
    assert changed[[0, 2]].min() > 1e-3 and changed[3] == 0
    if level == "item":
        plain = torch.stack([tables["history"][ITEMS[user == USERS]].mean(0) for user in (0, 1, 2, 4)]).detach()
        torch.testing.assert_close(users()[[0, 1, 2, 4]], tables["user"][[0, 1, 2, 4]].detach() + plain)


def test_padding_of_ragged_components_is_not_looked_at() -> None:
    """Whatever stands behind an item's last component."""
    model = make_model().eval()
    tables = make_tables(model)
    before = model.encode(inputs_of(model, source_over({}), tables, FEATURES, None)).vectors
    values = FEATURES["image"][0].clone().view(NUM_ITEMS, 3, 4)
    values[torch.arange(3) >= torch.tensor(COUNTS).unsqueeze(-1)] = 9.0
    other = {**FEATURES, "image": (values.view(NUM_ITEMS, -1), FEATURES["image"][1])}
    after = model.encode(inputs_of(model, source_over({}), tables, other, None)).vectors
    assert torch.equal(before, after)


def test_a_longer_history_is_sampled_in_training_and_spread_at_evaluation() -> None:
    """User 2 has four items: of two drawn ones, over many steps, the mean is taken of pairs only."""
    model = make_model(history=2, evaluation_history=2)
    with torch.no_grad():
        for parameter in model.weight.parameters():
            parameter.zero_()
    tables = make_tables(model)
    own = ITEMS[USERS == 2].tolist()
    torch.manual_seed(0)
    seen = {tuple(rows_of_batch(model, tables)[4].tolist()) for _ in range(60)}
    past, u = tables["history"].detach(), tables["user"][2].detach()
    left = [item for item in own if item != 4]
    pairs = [(a, b) for a in left for b in left if a < b]
    wanted = [u + (past[a] + past[b]) / 2 for a, b in pairs]
    assert len(seen) == len(wanted) == 3
    for vector in seen:
        assert min(float((torch.tensor(vector, dtype=torch.float64) - one).abs().max()) for one in wanted) < 1e-12
    model.eval()
    twice = [model.encode(inputs_of(model, source_over({}), tables, FEATURES, None)).vectors for _ in range(2)]
    assert torch.equal(*twice)


def test_a_batch_without_any_history() -> None:
    """Of user 3: he is his embedding alone."""
    model = make_model()
    tables, batch = make_tables(model), make_batch()
    users = torch.full_like(batch.users, 3)
    inputs = inputs_of(model, source_over({}), tables, FEATURES, torch.arange(NUM_USERS + NUM_ITEMS))
    found = model.users_of_rows(tables["user"][users], inputs, replace(batch, users=users))
    assert torch.equal(found, tables["user"][users])


def test_the_regulariser_sees_users_and_both_rows_of_items() -> None:
    model = make_model()
    tables = make_tables(model)
    ego = model.encode(inputs_of(model, source_over({}), tables, FEATURES, None)).ego
    squares = [tables["user"].square().sum(-1), (tables["item"].square() + tables["history"].square()).sum(-1)]
    assert torch.allclose(ego.square().sum(-1), torch.cat(squares))


def test_seeds_are_rows_of_all() -> None:
    assert_seeds_are_rows_of_all(make_model(), {}, FEATURES)


def test_it_needs_a_modality() -> None:
    with pytest.raises(ValueError, match="dims is empty"):
        ACF(dim=DIM, initial_std=0.1, dims={}, shapes={}, histories=HISTORIES)
