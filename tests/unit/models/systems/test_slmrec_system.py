"""SLMRec against dense matrices and loops over the rows of a batch."""

from math import exp, log

import numpy as np
import pytest
import torch
from dense_oracles import layer_matrices
from item_graph_world import (
    DIMS,
    NUM_ITEMS,
    NUM_NODES,
    NUM_USERS,
    PRESENT,
    TOLERANCE,
    assert_everything_learns,
    assert_modes_agree,
    assert_ranks_add_up,
    assert_seeds_are_rows_of_all,
    fill,
    inputs_of,
    make_batch,
    make_features,
    make_relations,
    make_step,
    make_tables,
    run_step,
    source_over,
)

from braidrec.models.systems.slmrec import SLMRec

FEATURES = make_features()
RELATIONS = make_relations(FEATURES)
NAMES = sorted(DIMS)
DIM, LAYERS, TAU, TASK_TAU = 4, 2, 0.5, 0.7
BATCH = make_batch(negatives=False)
STEP = make_step(BATCH)
REAL = [row for row in range(BATCH.size) if BATCH.real[row]]


class Halve(torch.nn.Module):
    """Dropout that leaves nothing to chance."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / 2


def make_model(**options) -> SLMRec:
    wanted = {"dims": DIMS, "layers": LAYERS, "temperature": TAU, "task_temperature": TASK_TAU, "weight": 0.3}
    model = SLMRec(dim=DIM, initial_std=0.1, **{**wanted, **options}).double()
    fill(model)
    return model


def linear(own: dict[str, np.ndarray], name: str, rows: np.ndarray) -> np.ndarray:
    return rows @ own[f"{name}.layers.0.weight"].T + own.get(f"{name}.layers.0.bias", 0.0)


def arrays(model: SLMRec) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy() for name, value in model.named_parameters()}


def strands(model: SLMRec, table: np.ndarray, *, kept: float = 1.0, masked: int | None = None) -> list[np.ndarray]:
    """h of the ID and every modality; `kept` is what a hop leaves of a number."""
    own, starts = arrays(model), [table.copy()]
    for place, name in enumerate(NAMES):
        start = table.copy()
        for item in range(NUM_ITEMS):
            row = own[f"content.missing.{place}.token"]
            if PRESENT[name][item]:
                row = linear(own, f"content.projectors.{place}", FEATURES[name][0][item].numpy())
            start[NUM_USERS + item] = row
        starts.append(start)
    if masked is not None:
        starts[masked][NUM_USERS:] = 0.0
    powers = layer_matrices(model.layers)
    return [sum(kept**hop * power @ start for hop, power in enumerate(powers)) / len(powers) for start in starts]


def fused(model: SLMRec, h: list[np.ndarray]) -> np.ndarray:
    own, beside = arrays(model), np.concatenate(h, axis=1)
    of_users = linear(own, "user_map", beside[:NUM_USERS])
    return np.concatenate([of_users, linear(own, "item_map", beside[NUM_USERS:])])


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def info_nce(first, second, ids: list[int], rows: list[int], similarity) -> float:
    """Σ over the rows, negatives being the other rows of other nodes."""
    total = 0.0
    for row in rows:
        among = [row] + [other for other in rows if ids[other] != ids[row]]
        logits = [exp(similarity(first[row], second[other]) / TASK_TAU) for other in among]
        total -= log(logits[0] / sum(logits))
    return total


def first_pass(model: SLMRec):
    """A training step's outputs and the table as numpy."""
    tables = make_tables(model)
    encoded, terms = run_step(model, source_over(RELATIONS), tables, FEATURES, STEP)
    return encoded, terms, tables["id"].detach().numpy()


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_vectors(layers: int) -> None:
    model = make_model(layers=layers)
    tables = make_tables(model)
    encoded = model.encode(inputs_of(model, source_over(RELATIONS), tables, FEATURES, None))
    table = tables["id"].detach().numpy()
    h = strands(model, table)
    np.testing.assert_allclose(encoded.vectors.detach(), fused(model, h), **TOLERANCE)
    np.testing.assert_array_equal(encoded.ego.detach(), table)
    for name, rows in zip(NAMES, h[1:], strict=True):
        np.testing.assert_allclose(encoded.outputs[f"modality_{name}"].detach(), rows, **TOLERANCE)
        has = [False] * NUM_USERS + [bool(there) for there in PRESENT[name]]
        assert encoded.outputs[f"has_{name}"].tolist() == has


def test_the_ranking_loss_is_a_softmax_of_cosines_over_other_items_of_the_batch() -> None:
    model = make_model()
    _, terms, table = first_pass(model)
    z = fused(model, strands(model, table))
    users, items = BATCH.users.tolist(), BATCH.items.tolist()
    has = {(users[row], items[row]) for row in REAL}
    wanted = 0.0
    for row in REAL:
        others = [other for other in REAL if (users[row], items[other]) not in has]
        among = [items[row], *(items[other] for other in others)]
        logits = [exp(cosine(z[users[row]], z[NUM_USERS + item]) / TAU) for item in among]
        wanted -= float(BATCH.weight[row]) * log(logits[0] / sum(logits))
    assert terms["ranking"].total.item() == pytest.approx(wanted, rel=1e-5)
    assert terms["ranking"].weight.item() == float(BATCH.weight.sum())
    assert terms["ranking"].coefficient == 1.0


@pytest.mark.parametrize("order", [NAMES, NAMES[::-1]])
def test_alignment_in_ever_coarser_spaces(order: list[str]) -> None:
    model = make_model(alignment_order=order)
    _, terms, table = first_pass(model)
    own, h, items = arrays(model), strands(model, table), BATCH.items.tolist()
    coarse = h[0][[NUM_USERS + item for item in items]]
    for place, name in enumerate(order):
        coarse = linear(own, f"spaces.{place}", coarse)
        assert coarse.shape[1] == (DIM, DIM // 2)[place]
        fine = linear(own, f"entries.{place}", h[1 + NAMES.index(name)][[NUM_USERS + item for item in items]])
        rows = [row for row in REAL if PRESENT[name][items[row]]]
        assert 1 < len(rows) < len(REAL)
        wanted = info_nce(coarse, fine, items, rows, lambda a, b: float(a @ b))
        assert terms[f"alignment_{name}"].total.item() == pytest.approx(wanted, rel=1e-5)
        assert terms[f"alignment_{name}"].weight.item() == len(rows)
        assert terms[f"alignment_{name}"].coefficient == 0.3
    assert set(terms) == {"ranking", *(f"alignment_{name}" for name in order)}


def views_by_hand(model: SLMRec, table: np.ndarray, kept: float, masked: list[int | None]) -> float:
    first, second = (fused(model, strands(model, table, kept=kept, masked=place)) for place in masked)
    users = BATCH.users.tolist()
    nodes = [NUM_USERS + item for item in BATCH.items.tolist()]
    return sum(info_nce(first[ids], second[ids], ids, REAL, cosine) for ids in (users, nodes))


@pytest.mark.parametrize(
    ("task", "kept"), [("dropout", 0.5), ("dropout", 1.0), ("masking", 1.0), ("dropout_and_masking", 0.5)]
)
def test_agreement_of_two_views(task: str, kept: float) -> None:
    model = make_model(self_supervision=task, dropout=0.0)
    if kept < 1:
        model.dropout = Halve()
    _, terms, table = first_pass(model)
    torch.manual_seed(17)
    masked = torch.randperm(1 + len(NAMES))[:2].tolist() if "masking" in task else [None, None]
    wanted = views_by_hand(model, table, kept, masked)
    assert terms["views"].total.item() == pytest.approx(wanted, rel=1e-5)
    assert terms["views"].weight.item() == len(REAL)
    assert terms["views"].coefficient == 0.3
    assert set(terms) == {"ranking", "views"}
    for other_kept, other_masked in ((0.8, masked), (kept, [1, None])):
        assert abs(wanted - views_by_hand(model, table, other_kept, other_masked)) > 1e-3


def test_dropout_is_drawn_for_each_view_and_keeps_the_mean() -> None:
    """Everything up to the views is linear, so that their mean over many draws is the vectors."""
    model = make_model(self_supervision="dropout", dropout=0.4)
    tables = make_tables(model)
    inputs = inputs_of(model, source_over(RELATIONS), tables, FEATURES, None)
    with torch.no_grad():
        rows, _ = model._start(inputs)
        drawn = torch.stack([model._view(inputs, rows, None) for _ in range(3000)])
        exact = model.encode(inputs).vectors
    assert not torch.allclose(drawn[0], drawn[1])
    standard_error = drawn.std(0) / len(drawn) ** 0.5
    assert bool(((drawn.mean(0) - exact).abs() <= 6 * standard_error + 1e-9).all())
    assert float(drawn.std(0).mean()) > 0.05


def test_every_pair_of_strands_is_masked_in_time() -> None:
    model = make_model(self_supervision="masking")
    seen = set()
    table = make_tables(model)["id"].detach().numpy()
    values = {round(views_by_hand(model, table, 1.0, [a, b]), 4): (a, b) for a in range(3) for b in range(3) if a != b}
    assert len(values) == 6
    tables = make_tables(model)
    source = source_over(RELATIONS)
    torch.manual_seed(0)
    for _ in range(60):
        inputs = inputs_of(model, source, tables, FEATURES, STEP.seeds)
        seen.add(values[round(model.terms(model.encode(inputs), inputs, STEP.context)["views"].total.item(), 4)])
    assert seen == set(values.values())


def test_without_self_supervision() -> None:
    model = make_model(self_supervision="none")
    _, terms, _ = first_pass(model)
    assert set(terms) == set(model.term_names) == {"ranking"}


@pytest.mark.parametrize("task", ["alignment", "masking", "none"])
def test_full_and_sampled_agree(task: str) -> None:
    assert_modes_agree(make_model(self_supervision=task), RELATIONS, FEATURES, negatives=False)


@pytest.mark.parametrize("task", ["alignment", "dropout", "masking", "dropout_and_masking", "none"])
def test_everything_learns(task: str) -> None:
    assert_everything_learns(make_model(self_supervision=task), RELATIONS, FEATURES, negatives=False)


@pytest.mark.parametrize("task", ["alignment", "masking", "none"])
def test_ranks_add_up(task: str) -> None:
    assert_ranks_add_up(make_model(self_supervision=task), RELATIONS, FEATURES, negatives=False)


def test_seeds_are_rows_of_all() -> None:
    assert_seeds_are_rows_of_all(make_model(self_supervision="dropout_and_masking"), RELATIONS, FEATURES)


def test_a_batch_whose_items_all_lack_a_modality() -> None:
    """Its alignment is zero over zero rows, with gradients of zero."""
    absent = {name: (torch.zeros_like(values), torch.zeros_like(has)) for name, (values, has) in FEATURES.items()}
    model = make_model()
    tables = make_tables(model)
    _, terms = run_step(model, source_over(RELATIONS), tables, absent, STEP)
    for name in NAMES:
        assert terms[f"alignment_{name}"].total.item() == terms[f"alignment_{name}"].weight.item() == 0.0
    sum(term.total for term in terms.values()).backward()
    assert torch.isfinite(tables["id"].grad).all()


def test_half_precision_is_for_training_only() -> None:
    model = make_model(dtype=torch.bfloat16)
    tables = {name: rows.detach() for name, rows in make_tables(model).items()}
    exact = fused(model, strands(model, tables["id"].numpy()))
    for training in (True, False):
        encoded = model.train(training).encode(inputs_of(model, source_over(RELATIONS), tables, FEATURES, None))
        error = np.abs(encoded.vectors.detach().numpy() - exact).max()
        assert (1e-4 < error < 0.1) if training else error < 1e-5
    assert len(exact) == NUM_NODES


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dims": {}}, "dims is empty"),
        ({"alignment_order": ["text"]}, r"alignment_order=\['text'\] must name each of the modalities"),
        ({"alignment_order": ["text", "text"]}, "must name each"),
    ],
)
def test_what_it_refuses(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_model(**options)
