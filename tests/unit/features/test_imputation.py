"""Filled vectors against dense matrices: means, means over shared users, and the harmonic solution of propagation."""

from pathlib import Path

import numpy as np
import pytest
import torch
from feature_folders import table_of

from braidrec.features import impute
from braidrec.features import table as table_module
from braidrec.features.impute import Surroundings, fill_by_propagation, fill_with_mean, fill_with_neighbours
from braidrec.features.table import FeatureTable
from braidrec.graph.build import build_interactions
from braidrec.graph.relation import Relation

U, I, DIM = 8, 12, 5  # noqa: E741
RANDOM = np.random.default_rng(7)
DENSE = RANDOM.standard_normal((I, DIM)).astype(np.float32)
ABSENT = [1, 4, 5, 10, 11]
PRESENT = [item for item in range(I) if item not in ABSENT]
TRAIN = np.arange(I) < 8
PAIRS = sorted({(int(u), int(i)) for u, i in zip(RANDOM.integers(0, U, 30), RANDOM.integers(0, 10, 30), strict=True)})
"""Nobody has items 10 and 11."""
B = np.zeros((U, I))
for user, item in PAIRS:
    B[user, item] = 1.0
INTERACTIONS = build_interactions(*map(np.array, zip(*PAIRS, strict=True)), U, I)


@pytest.fixture(autouse=True)
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two dimensions and three rows at a time."""
    monkeypatch.setattr(impute, "STRIPE_BYTES", 2 * 4 * (U + I))
    monkeypatch.setattr(table_module, "BLOCK_BYTES", 3 * DIM * 4)


def table(cache: Path, present=PRESENT) -> FeatureTable:
    return table_of(cache, DENSE, present)


def check(filled: FeatureTable, wanted: dict[int, np.ndarray], tolerance: float = 1e-6) -> None:
    """Present rows unchanged, presence too, absent ones as wanted."""
    np.testing.assert_array_equal(filled.values[PRESENT], DENSE[PRESENT])
    assert np.flatnonzero(filled.present).tolist() == PRESENT
    for row, vector in wanted.items():
        np.testing.assert_allclose(filled.values[row], vector, rtol=tolerance, atol=tolerance)
    values, present = filled.rows(torch.tensor(ABSENT))
    np.testing.assert_array_equal(values.numpy(), filled.values[ABSENT])
    assert not present.any()


def train_mean() -> np.ndarray:
    return DENSE[[row for row in PRESENT if TRAIN[row]]].astype(np.float64).mean(0)


def test_mean_of_the_present_train_rows(tmp_path: Path) -> None:
    filled = fill_with_mean(table(tmp_path), fit_on=TRAIN, cache=tmp_path)
    check(filled, dict.fromkeys(ABSENT, train_mean()))
    assert filled.provenance["filled"] == 5


def test_mean_over_shared_users(tmp_path: Path) -> None:
    """Every present item counts as often as there are users who have both: a loop over pairs of interactions."""
    surroundings = Surroundings(relation=INTERACTIONS, first_node=U)
    filled = fill_with_neighbours(table(tmp_path), surroundings, hops=2, fit_on=TRAIN, cache=tmp_path)
    wanted = {}
    for item in ABSENT:
        found = [
            DENSE[other].astype(np.float64)
            for user, mine in PAIRS
            for another, other in PAIRS
            if mine == item and another == user and other in PRESENT
        ]
        wanted[item] = np.mean(found, 0) if found else train_mean()
    assert len(wanted) == 5 and not np.allclose(wanted[1], train_mean())
    check(filled, wanted)
    assert (filled.provenance["filled"], filled.provenance["without_neighbours"]) == (5, 2)


def directed(edges: list[tuple[int, int, float]], weighted: bool) -> tuple[Relation, np.ndarray]:
    """Items' neighbours (source, destination, weight), and the dense `W[destination, source]` of the items."""
    dense = np.zeros((U + I, U + I))
    for source, destination, weight in edges:
        dense[U + destination, U + source] = weight if weighted else 1.0
    destinations, sources = np.nonzero(dense)
    indptr = np.searchsorted(destinations, np.arange(U + I + 1)).astype(np.int32)
    weight = dense[destinations, sources].astype(np.float32) if weighted else None
    relation = Relation("content/text", indptr, sources.astype(np.int32), symmetric=False, weight=weight)
    return relation, dense[U:, U:]


EDGES = [(0, 1, 0.5), (2, 1, 2.0), (4, 1, 9.0), (3, 4, 1.0), (1, 4, 1.0), (5, 10, 1.0), (6, 0, 1.0)]


@pytest.mark.parametrize("weighted", [False, True])
def test_mean_of_content_neighbours(tmp_path: Path, weighted: bool) -> None:
    """By direction and weight; an absent neighbour does not count; one whose only neighbour is absent has none."""
    relation, _ = directed(EDGES, weighted)
    filled = fill_with_neighbours(
        table(tmp_path), Surroundings(relation=relation, first_node=U), hops=1, fit_on=TRAIN, cache=tmp_path
    )
    first, second = (0.2, 0.8) if weighted else (0.5, 0.5)
    x = DENSE.astype(np.float64)
    wanted = {1: first * x[0] + second * x[2], 4: x[3], 5: train_mean(), 10: train_mean(), 11: train_mean()}
    check(filled, wanted)
    assert filled.provenance["without_neighbours"] == 3


def normalised(adjacency: np.ndarray) -> np.ndarray:
    rows, columns = adjacency.sum(1), adjacency.sum(0)
    scale = np.sqrt(np.outer(rows, columns))
    return np.divide(adjacency, scale, out=np.zeros_like(adjacency), where=scale > 0)


def joint() -> np.ndarray:
    return np.block([[np.zeros((U, U)), B], [B.T, np.zeros((I, I))]])


@pytest.mark.parametrize("iterations", [1, 2, 3, 40])
def test_propagation_step_by_step(tmp_path: Path, iterations: int) -> None:
    filled = fill_by_propagation(
        table(tmp_path), Surroundings(relation=INTERACTIONS, first_node=U), iterations=iterations, cache=tmp_path
    )
    matrix, known = normalised(joint()), np.array([U + item for item in PRESENT])
    x = np.zeros((U + I, DIM))
    x[known] = DENSE[PRESENT]
    for _ in range(iterations):
        x = matrix @ x
        x[known] = DENSE[PRESENT]
    check(filled, {item: x[U + item] for item in ABSENT}, tolerance=1e-5)
    unreached = [item for item in ABSENT if not x[U + item].any()]
    assert filled.provenance["unreached"] == len(unreached) == (5 if iterations == 1 else 2)


def test_propagation_converges_to_the_harmonic_solution(tmp_path: Path) -> None:
    """`X_u = (I − Â_uu)^{-1} Â_uk X_k` (Rossi et al., 2022), solved directly."""
    filled = fill_by_propagation(
        table(tmp_path), Surroundings(relation=INTERACTIONS, first_node=U), iterations=3000, cache=tmp_path
    )
    matrix = normalised(joint())
    known = np.array([U + item for item in PRESENT])
    connected = np.flatnonzero(joint().sum(1) > 0)
    unknown = np.setdiff1d(connected, known)
    system = np.eye(len(unknown)) - matrix[np.ix_(unknown, unknown)]
    solution = np.linalg.solve(system, matrix[np.ix_(unknown, known)] @ DENSE[PRESENT].astype(np.float64))
    wanted = {int(node) - U: solution[place] for place, node in enumerate(unknown) if node >= U}
    assert set(wanted) == {1, 4, 5}
    check(filled, wanted | {10: np.zeros(DIM), 11: np.zeros(DIM)}, tolerance=1e-4)


def test_propagation_over_content_neighbours(tmp_path: Path) -> None:
    relation, dense = directed(EDGES, True)
    filled = fill_by_propagation(
        table(tmp_path), Surroundings(relation=relation, first_node=U), iterations=2, cache=tmp_path
    )
    x = np.zeros((I, DIM))
    for _ in range(2):
        x[PRESENT] = DENSE[PRESENT]
        x = normalised(dense) @ x
    check(filled, {item: x[item] for item in ABSENT}, tolerance=1e-5)
    assert filled.provenance["unreached"] == 3  # 5 and 11 have no neighbour, and the only one of 10 is 5


def test_users_have_vectors_too(tmp_path: Path) -> None:
    """The same over the transposed graph: users are the first nodes."""
    dense = DENSE[:U]
    source = table_of(tmp_path, dense, [0, 1, 2, 3])
    everyone = np.ones(U, np.bool_)
    filled = fill_with_neighbours(
        source, Surroundings(relation=INTERACTIONS, first_node=0), hops=2, fit_on=everyone, cache=tmp_path
    )
    ways = (B @ B.T)[:, :4]
    alone = ways.sum(1) == 0
    wanted = ways @ dense[:4] / np.maximum(ways.sum(1, keepdims=True), 1)
    wanted[alone] = dense[:4].mean(0)
    np.testing.assert_allclose(filled.values[4:], wanted[4:], rtol=1e-5, atol=1e-6)


def test_hidden_rows_are_filled_and_teach_nothing(tmp_path: Path) -> None:
    hidden = np.zeros(I, np.bool_)
    hidden[0] = True
    shown = table(tmp_path).without(hidden)
    filled = fill_with_mean(shown, fit_on=TRAIN, cache=tmp_path)
    wanted = DENSE[[row for row in PRESENT if TRAIN[row] and row != 0]].mean(0)
    np.testing.assert_allclose(filled.values[[0, *ABSENT]], np.tile(wanted, (6, 1)), rtol=1e-5)
    surroundings = Surroundings(relation=INTERACTIONS, first_node=U)
    for filled in (
        fill_by_propagation(shown, surroundings, iterations=2, cache=tmp_path),
        fill_with_neighbours(shown, surroundings, hops=2, fit_on=TRAIN, cache=tmp_path),
    ):
        assert not np.allclose(filled.values[0], DENSE[0])
        np.testing.assert_array_equal(filled.values[PRESENT[1:]], DENSE[PRESENT[1:]])


def test_the_key_is_that_of_source_graph_and_settings(tmp_path: Path) -> None:
    source = table(tmp_path)
    plain, _ = directed(EDGES, False)
    weighted, _ = directed(EDGES, True)
    more, _ = directed([*EDGES, (7, 11, 1.0)], False)
    here = [Surroundings(relation=relation, first_node=U) for relation in (INTERACTIONS, plain, weighted, more)]
    keys = [fill_with_mean(source, fit_on=fit_on, cache=tmp_path).content_key for fit_on in (TRAIN, ~TRAIN)]
    for each in here:
        for hops in (1, 2):
            keys.append(fill_with_neighbours(source, each, hops=hops, fit_on=TRAIN, cache=tmp_path).content_key)
        for iterations in (1, 2):
            keys.append(fill_by_propagation(source, each, iterations=iterations, cache=tmp_path).content_key)
    assert len(set(keys)) == len(keys) == 18
    again = fill_by_propagation(source, here[0], iterations=1, cache=tmp_path)
    assert again.content_key == keys[4]


def test_nothing_absent_and_nothing_present(tmp_path: Path) -> None:
    surroundings = Surroundings(relation=INTERACTIONS, first_node=U)
    whole = table(tmp_path, range(I))
    for filled in (
        fill_with_mean(whole, fit_on=TRAIN, cache=tmp_path),
        fill_with_neighbours(whole, surroundings, hops=2, fit_on=TRAIN, cache=tmp_path),
        fill_by_propagation(whole, surroundings, cache=tmp_path),
    ):
        np.testing.assert_array_equal(filled.values, DENSE)
    nothing = fill_by_propagation(table(tmp_path, []), surroundings, cache=tmp_path)
    assert not nothing.values.any() and nothing.provenance["unreached"] == I


def test_what_cannot_be_done_is_refused(tmp_path: Path) -> None:
    source = table(tmp_path)
    surroundings = Surroundings(relation=INTERACTIONS, first_node=U)
    nobody = np.zeros(I, np.bool_)
    nobody[ABSENT] = True
    with pytest.raises(ValueError, match=r"fit_on: of its 5 rows none has modality 'image' \(7 rows have it\)"):
        fill_with_mean(source, fit_on=nobody, cache=tmp_path)
    with pytest.raises(ValueError, match="no mean to fill in"):
        fill_with_neighbours(source, surroundings, hops=2, fit_on=nobody, cache=tmp_path)
    with pytest.raises(ValueError, match="hops=0"):
        fill_with_neighbours(source, surroundings, hops=0, fit_on=TRAIN, cache=tmp_path)
    with pytest.raises(ValueError, match="iterations=0"):
        fill_by_propagation(source, surroundings, iterations=0, cache=tmp_path)
    with pytest.raises(ValueError, match=r"fit_on: bool of shape \(3,\)"):
        fill_with_mean(source, fit_on=TRAIN[:3], cache=tmp_path)
    for first in (-1, U + 1):
        with pytest.raises(ValueError, match=rf"first_node={first}: .* relation 'interactions' has nodes 0…19"):
            fill_by_propagation(source, Surroundings(relation=INTERACTIONS, first_node=first), cache=tmp_path)
