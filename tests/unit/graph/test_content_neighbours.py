"""Nearest items by content against a plain double loop, however they are tiled; and what FAISS finds of them."""

import importlib.util
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from graph_oracles import CPU

from braidrec.graph import knn, similarity
from braidrec.graph.knn import content_neighbours
from braidrec.graph.similarity import UnitRows, decode_keys, keys_of, pair_similarity, product_error, tree_sum

needs_faiss = pytest.mark.skipif(importlib.util.find_spec("faiss") is None, reason="FAISS is not installed")
SMALL_TILES = [20_000, 33_333, 100_000, 2**20, 2**28]


def clustered(seed: int, num_items: int, dim: int, num_clusters: int, spread: float = 0.3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(num_clusters, dim))
    return (centres[rng.integers(0, num_clusters, num_items)] + spread * rng.normal(size=(num_items, dim))).astype(
        np.float32
    )


def by_double_loop(features: np.ndarray, present: np.ndarray, k: int) -> tuple[list[list[int]], list[list[float]]]:
    """Neighbours and cosines with Python's exact summation (math.fsum) of fp64 products of the given rows."""
    rows = features.astype(np.float64)
    norms = [math.sqrt(math.fsum(row * row)) if np.isfinite(row).all() else 0.0 for row in rows]
    valid = [i for i in range(len(rows)) if present[i] and norms[i] > 0]
    # As given rows are only known to fp32, cosines are compared after rounding to 2⁻²⁴, as documented.
    units = {i: (rows[i] / norms[i]).astype(np.float32).astype(np.float64) for i in valid}
    indices, values = [], []
    for i in range(len(rows)):
        found = []
        if i in units:
            for j in valid:
                if j != i:
                    cosine = min(1.0, max(-1.0, round(math.fsum(units[i] * units[j]) * 2**24) / 2**24))
                    found.append((-cosine, j))
        best = sorted(found)[:k]
        indices.append([j for _, j in best] + [-1] * (k - len(best)))
        values.append([-negative for negative, _ in best] + [0.0] * (k - len(best)))
    return indices, values


def assert_is_double_loop(features: np.ndarray, present: np.ndarray, k: int, **options) -> None:
    indices, values = by_double_loop(features, present, k)
    found = content_neighbours(features, present, k, device=CPU, **options)
    assert found.indices.dtype == np.int32 and found.similarity.dtype == np.float32
    assert found.indices.tolist() == indices
    assert found.similarity.tolist() == values


@pytest.mark.parametrize("tile_bytes", SMALL_TILES)
@pytest.mark.parametrize("k", [1, 10])
def test_distinct_rows(k: int, tile_bytes: int) -> None:
    features = np.random.default_rng(0).normal(size=(150, 13)).astype(np.float32)
    assert_is_double_loop(features, np.ones(150, dtype=bool), k, tile_bytes=tile_bytes)


@pytest.mark.parametrize("tile_bytes", SMALL_TILES)
def test_equal_and_scaled_rows_are_ordered_by_index(tile_bytes: int) -> None:
    # 120 items with 6 different contents, some twice as long: every row has about 20 at similarity 1.
    rng = np.random.default_rng(1)
    features = rng.normal(size=(6, 17)).astype(np.float32)[rng.integers(0, 6, 120)]
    features[::3] *= 2
    present = rng.random(120) < 0.9
    assert_is_double_loop(features, present, 5, tile_bytes=tile_bytes)
    first = content_neighbours(features, present, 5, device=CPU, tile_bytes=tile_bytes)
    assert (np.diff(first.indices[present], axis=1) > 0).all()


@pytest.mark.parametrize("tile_bytes", SMALL_TILES)
def test_tags_where_nearly_everything_is_tied(tile_bytes: int) -> None:
    features = (np.random.default_rng(2).random((140, 8)) < 0.3).astype(np.float16)
    assert not features.any(1).all()  # some rows are zero
    assert_is_double_loop(features, np.ones(140, dtype=bool), 7, tile_bytes=tile_bytes)


@pytest.mark.parametrize("tile_bytes", SMALL_TILES)
def test_near_ties_beyond_fp32(tile_bytes: int) -> None:
    """Rows that differ in the last bits only: fp32 products put them in another order, fp64 ones do not."""
    rng = np.random.default_rng(3)
    base = rng.normal(size=64)
    features = (base * (1 + 2e-7 * rng.normal(size=(130, 64)))).astype(np.float32)
    assert_is_double_loop(features, np.ones(130, dtype=bool), 6, tile_bytes=tile_bytes)


def test_what_has_no_neighbours_and_is_none() -> None:
    features = clustered(4, 60, 5, 3)
    features[3] = 0.0
    features[10, 2] = np.nan
    features[11, 0] = np.inf
    features[12] = 1e-42  # below what fp32 holds in full, but a direction
    features[13] = 3e38  # whose squares overflow fp32
    present = np.ones(60, dtype=bool)
    present[[20, 59]] = False
    assert_is_double_loop(features, present, 8)
    found = content_neighbours(features, present, 8, device=CPU)
    without = [3, 10, 11, 20, 59]
    assert (found.indices[without] == -1).all() and not found.similarity[without].any()
    assert not np.isin(found.indices, without).any()
    assert (found.indices[[12, 13]] >= 0).all()
    assert not (found.indices == np.arange(60)[:, None]).any()


@pytest.mark.parametrize("num_items", [0, 1, 2, 5])
def test_fewer_than_k(num_items: int) -> None:
    features = clustered(5, num_items, 4, 2)
    assert_is_double_loop(features, np.ones(num_items, dtype=bool), 6)
    nobody = content_neighbours(features, np.zeros(num_items, dtype=bool), 6, device=CPU)
    assert (nobody.indices == -1).all()


@pytest.mark.parametrize("k", [8, 9, 30, 31, 32, 45])
def test_k_about_the_number_of_items(k: int) -> None:
    features = np.random.default_rng(6).normal(size=(32, 6)).astype(np.float32)
    assert_is_double_loop(features, np.ones(32, dtype=bool), k)


@pytest.mark.parametrize("dim", [1, 2, 3, 31, 100])
def test_any_number_of_features(dim: int) -> None:
    features = np.random.default_rng(7).normal(size=(40, dim)).astype(np.float32)
    assert_is_double_loop(features, np.ones(40, dtype=bool), 4)


def test_bits_do_not_depend_on_tiles_threads_or_the_form_of_the_table(tmp_path: Path) -> None:
    features = clustered(8, 700, 48, 20)
    features[350:400] = features[:50]
    present = np.random.default_rng(9).random(700) < 0.95
    wanted = content_neighbours(features, present, 10, device=CPU)
    np.save(tmp_path / "features.npy", features)
    forms = [features, torch.from_numpy(features), np.load(tmp_path / "features.npy", mmap_mode="r")]
    before = torch.get_num_threads()
    try:
        for threads, tile_bytes, form in [(1, 60_000, 0), (2, 250_000, 1), (2, 2**24, 2), (1, 2**28, 2)]:
            torch.set_num_threads(threads)
            bits = torch.from_numpy(present) if form == 1 else present
            found = content_neighbours(forms[form], bits, 10, device=CPU, tile_bytes=tile_bytes)
            np.testing.assert_array_equal(found.indices, wanted.indices)
            np.testing.assert_array_equal(found.similarity, wanted.similarity)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("half", [np.float16, torch.bfloat16])
def test_half_precision_tables_are_cast_exactly(half) -> None:
    features = torch.from_numpy(clustered(10, 90, 12, 4)).to(torch.float16 if half is np.float16 else torch.bfloat16)
    given = features.numpy() if half is np.float16 else features
    found = content_neighbours(given, np.ones(90, dtype=bool), 5, device=CPU)
    indices, values = by_double_loop(features.float().numpy(), np.ones(90, dtype=bool), 5)
    assert found.indices.tolist() == indices and found.similarity.tolist() == values


def test_a_low_matrix_precision_of_the_user_changes_nothing() -> None:
    features, present = clustered(11, 300, 64, 10), np.ones(300, dtype=bool)
    wanted = content_neighbours(features, present, 10, device=CPU)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        found = content_neighbours(features, present, 10, device=CPU)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    np.testing.assert_array_equal(found.indices, wanted.indices)


def test_wrong_products_would_be_noticed_up_to_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """The result stays exact when the candidates come from products that err by as much as the bound allows."""
    bound = 0.02
    rng = torch.Generator().manual_seed(0)
    original = knn._largest

    def disturbed(tile: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        return original(tile + bound * (2 * torch.rand(tile.shape, generator=rng) - 1), count)

    monkeypatch.setattr(knn, "_largest", disturbed)
    features, present = clustered(12, 200, 16, 3), np.ones(200, dtype=bool)
    indices, _ = by_double_loop(features, present, 10)
    assert content_neighbours(features, present, 10, device=CPU).indices.tolist() != indices
    monkeypatch.setattr(
        knn, "product_error", lambda dim, dtype: bound if dtype == torch.float32 else product_error(dim, dtype)
    )
    assert content_neighbours(features, present, 10, device=CPU).indices.tolist() == indices


@pytest.mark.parametrize("tied", [False, True])
def test_pairs_that_fp64_products_leave_in_doubt_are_settled(tied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row is searched in fp64, whose products are shifted by half a unit of the similarity's grid."""
    rounded = knn.quantised
    monkeypatch.setattr(knn, "quantised", lambda similarity: rounded(similarity + 2**-25))
    features, present = clustered(20, 150, 16, 3), np.ones(150, dtype=bool)
    if tied:  # so that many are in doubt just where the k-th similarity lies
        features = (features > 0.5).astype(np.float32)
    indices, values = by_double_loop(features, present, 10)
    for doubt, right in ((2**-40, False), (2**-23, True)):
        bounds = {torch.float32: 3.0, torch.float64: doubt}
        monkeypatch.setattr(knn, "product_error", lambda dim, dtype, bounds=bounds: bounds[dtype])
        found = content_neighbours(features, present, 10, device=CPU, tile_bytes=100_000)
        assert (found.similarity.tolist() == values) is right
        assert found.indices.tolist() == indices or not right


@pytest.mark.parametrize(("dtype", "kind"), [(torch.float32, np.float32), (torch.float64, np.float64)])
def test_products_stay_within_the_bound(dtype: torch.dtype, kind: type) -> None:
    rows = np.random.default_rng(13).uniform(0, 1, size=(60, 700))  # all positive: rounding errors add up
    units = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    product = (torch.from_numpy(units).to(dtype) @ torch.from_numpy(units).to(dtype).T).double().numpy()
    exact = np.array([[math.fsum(a * b) for b in units.astype(np.float64)] for a in units.astype(np.float64)])
    assert 0 < np.abs(product - exact).max() < product_error(700, dtype)
    assert product_error(700, dtype) < 1000 * np.finfo(kind).eps


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 100])
def test_tree_sum(size: int) -> None:
    terms = np.random.default_rng(14).normal(size=(5, size))
    wanted = [math.fsum(row) for row in terms]
    whole = tree_sum(torch.from_numpy(terms.copy()))
    np.testing.assert_allclose(whole.numpy(), wanted, rtol=1e-13, atol=1e-15)
    for row in range(5):
        assert tree_sum(torch.from_numpy(terms[row : row + 1].copy())) == whole[row]


def test_keys_order_by_similarity_then_place() -> None:
    pairs = [(2**24, 0), (2**24, 5), (3, 2**31 - 1), (0, 0), (0, 1), (-1, 0), (-(2**24), 7)]
    values, places = (torch.tensor(column) for column in zip(*pairs, strict=True))
    keys = keys_of(values, places)
    assert keys.tolist() == sorted(keys.tolist(), reverse=True)
    decoded = decode_keys(torch.cat([keys, torch.tensor([similarity.ABSENT])]))
    assert decoded[0].tolist() == [*places.tolist(), -1]
    assert decoded[1].tolist() == [*(values / 2**24).tolist(), 0.0]


@pytest.mark.parametrize("tied", [False, True])
def test_torch_allocates_no_more_than_the_tiles(tied: bool) -> None:
    """As torch's profiler counts it, through fp32 products and, with ties everywhere, through fp64 ones."""
    features = clustered(15, 3_000, 32, 50)
    if tied:
        features = (features > 1).astype(np.float32)
    present, budget, k = np.ones(3_000, dtype=bool), 2 * 2**20, 5
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        content_neighbours(features, present, k, device=CPU, tile_bytes=budget)
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    held = np.cumsum([event.nbytes() for event in events])
    output = 3_000 * k * (8 + 8 + 4)  # keys, places, similarities
    assert budget / 4 < held.max() < budget + output


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": np.zeros(4, dtype=np.float32)}, r"features must be \[num_items, F\] with F ≥ 1, not \(4,\)"),
        ({"features": np.zeros((4, 0), dtype=np.float32)}, r"F ≥ 1, not \(4, 0\)"),
        ({"features": np.zeros((4, 2), dtype=np.int64)}, "floating-point numbers, not int64"),
        ({"features": torch.zeros((4, 2), dtype=torch.int32)}, r"floating-point numbers, not torch\.int32"),
        ({"present": np.ones(3, dtype=bool)}, r"present must be \[4\] bool, not \[3\] bool"),
        ({"present": np.ones(4)}, r"present must be \[4\] bool, not \[4\] float64"),
        ({"k": 0}, "k must be at least 1, not 0"),
        ({"method": "fast"}, "method must be 'exact', 'faiss' or 'auto', not 'fast'"),
        ({"tile_bytes": 90}, "tile_bytes=90 is too little for rows of 2 features"),
    ],
)
def test_bad_input(changes: dict, message: str) -> None:
    arguments = {
        "features": np.ones((4, 2), dtype=np.float32),
        "present": np.ones(4, dtype=bool),
        "k": 2,
        "device": CPU,
        **changes,
    }
    with pytest.raises(ValueError, match=message):
        content_neighbours(**arguments)


def recall(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(
        np.mean([len(np.intersect1d(one, other)) / len(other) for one, other in zip(found, wanted, strict=True)])
    )


@needs_faiss
def test_faiss_finds_nearly_all_and_scores_them_alike() -> None:
    features = clustered(16, 6_000, 32, 60, spread=0.7)
    present = np.random.default_rng(17).random(6_000) < 0.97
    features[5] = np.nan
    wanted = content_neighbours(features, present, 10, device=CPU)
    found = content_neighbours(features, present, 10, device=CPU, method="faiss")
    valid = wanted.indices[:, 0] >= 0
    assert recall(found.indices[valid], wanted.indices[valid]) >= 0.95
    assert (found.indices[~valid] == -1).all()
    rows = UnitRows(features, present, device=CPU, tile_bytes=2**24)
    place = np.full(6_000, -1)
    place[rows.items] = np.arange(len(rows))
    mine, theirs = rows.take(place[valid]), rows.take(place[found.indices[valid, 3]])
    scored = (pair_similarity(mine, theirs).double() / 2**24).float()
    np.testing.assert_array_equal(scored.numpy(), found.similarity[valid, 3])
    assert (np.diff(found.similarity[valid], axis=1) <= 0).all()
    assert not (found.indices == np.arange(6_000)[:, None]).any()


@needs_faiss
@pytest.mark.parametrize("num_items", [0, 1, 30])
def test_faiss_on_hardly_any_rows(num_items: int) -> None:
    features, present = clustered(18, num_items, 6, 2), np.ones(num_items, dtype=bool)
    assert_is_double_loop(features, present, 4, method="faiss")


def test_auto_turns_to_faiss_by_the_number_of_products(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda")
    assert not knn._uses_faiss("auto", 200_000, 384, CPU)
    assert knn._uses_faiss("auto", 1_000_000, 384, CPU)
    assert not knn._uses_faiss("auto", 1_000_000, 384, cuda)
    assert knn._uses_faiss("auto", 10_000_000, 384, cuda)
    assert not knn._uses_faiss("exact", 10_000_000, 384, CPU)
    assert knn._uses_faiss("faiss", 10, 4, CPU)


def test_without_faiss_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    features, present = clustered(19, 30, 4, 2), np.ones(30, dtype=bool)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'braidrec\[ann\]'"):
        content_neighbours(features, present, 3, device=CPU, method="faiss")
    assert content_neighbours(features, present, 3, device=CPU, method="auto").indices.shape == (30, 3)
