"""Transforms against numpy formulas over the train rows alone; held-out rows must leave no trace."""

from pathlib import Path

import numpy as np
import pytest
from feature_folders import table_of

from braidrec.features import table as table_module
from braidrec.features import transform as transform_module
from braidrec.features.table import FeatureTable
from braidrec.features.transform import L2Norm, PrincipalComponents, Standardise, transform_table

N, DIM = 60, 6
RANDOM = np.random.default_rng(5)
DENSE = (RANDOM.standard_normal((N, DIM)) @ RANDOM.standard_normal((DIM, DIM)) + 3).astype(np.float32)
PRESENT = np.flatnonzero(np.arange(N) % 5 != 2)
TRAIN = np.arange(N) < 40
LEARNT = np.intersect1d(PRESENT, np.flatnonzero(TRAIN))
X = DENSE.astype(np.float64)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven rows at a time."""
    monkeypatch.setattr(table_module, "BLOCK_BYTES", 7 * DIM * 4)


def apply(cache: Path, *transforms, dense=DENSE, present=PRESENT, fit_on=TRAIN) -> FeatureTable:
    return transform_table(table_of(cache, dense, present), transforms, fit_on=fit_on, cache=cache)


def assert_values(table: FeatureTable, wanted: np.ndarray, present=PRESENT, tolerance: float = 2e-6) -> None:
    absent = np.setdiff1d(np.arange(table.num_rows), present)
    np.testing.assert_allclose(table.values[present], wanted[present], rtol=tolerance, atol=tolerance)
    assert not table.values[absent].any()
    assert np.flatnonzero(table.present).tolist() == list(present)
    assert table.values.dtype == np.float32


def standardised() -> np.ndarray:
    return (X - X[LEARNT].mean(0)) / X[LEARNT].std(0)


def principal(matrix: np.ndarray, rows: np.ndarray, dim: int, *, whiten: bool = False) -> np.ndarray:
    """Eigenvectors of the train rows' covariance, the largest first; the sign of each is free."""
    mean = matrix[rows].mean(0)
    values, vectors = np.linalg.eigh(np.cov(matrix[rows].T))
    chosen = vectors[:, ::-1][:, :dim]
    projected = (matrix - mean) @ chosen
    return projected / np.sqrt(values[::-1][:dim]) if whiten else projected


def same_signs(table: FeatureTable, wanted: np.ndarray) -> np.ndarray:
    signs = np.sign((table.values[PRESENT] * wanted[PRESENT]).sum(0))
    assert (signs != 0).all()
    return wanted * signs


def test_standardise(tmp_path: Path) -> None:
    assert_values(apply(tmp_path, Standardise()), standardised())


def test_a_dimension_that_does_not_vary_is_centred(tmp_path: Path) -> None:
    dense = DENSE.copy()
    dense[:, 2] = 0.1
    dense[50, 2] = 4.1  # in a held-out item
    table = apply(tmp_path, Standardise(), dense=dense)
    assert np.abs(table.values[LEARNT, 2]).max() < 1e-6
    assert table.values[50, 2] == pytest.approx(4.0, rel=1e-6)


def test_unit_length(tmp_path: Path) -> None:
    dense = DENSE.copy()
    dense[[0, 1, 3]] = [[0.0], [1e-30], [1e30]]
    table = apply(tmp_path, L2Norm(), dense=dense)
    norms = np.linalg.norm(dense.astype(np.float64), axis=1, keepdims=True)
    wanted = np.divide(dense, norms, out=np.zeros((N, DIM)), where=norms > 0)
    assert_values(table, wanted)
    assert not table.values[0].any() and table.present[0]


@pytest.mark.parametrize("solver", ["auto", "exact", "incremental"])
@pytest.mark.parametrize("whiten", [False, True])
def test_all_principal_components(tmp_path: Path, solver: str, whiten: bool) -> None:
    """With every direction kept the incremental solver is exact too."""
    table = apply(tmp_path, PrincipalComponents(dim=DIM, whiten=whiten, solver=solver))
    wanted = principal(X, LEARNT, DIM, whiten=whiten)
    assert_values(table, same_signs(table, wanted), tolerance=1e-5)
    if whiten:
        np.testing.assert_allclose(np.cov(table.values[LEARNT].T), np.eye(DIM), atol=1e-5)
    assert table.provenance["learnt"][0]["explained_variance"] == pytest.approx(1.0)


def test_some_principal_components(tmp_path: Path) -> None:
    table = apply(tmp_path, PrincipalComponents(dim=3))
    assert (table.dim, table.shape) == (3, (3,))
    assert_values(table, same_signs(table, principal(X, LEARNT, 3)), tolerance=1e-5)
    spectrum = np.linalg.eigvalsh(np.cov(X[LEARNT].T))[::-1]
    wanted = {"solver": "exact", "train_vectors": len(LEARNT)}
    wanted["explained_variance"] = pytest.approx(spectrum[:3].sum() / spectrum.sum(), abs=1e-6)
    assert table.provenance["learnt"] == [wanted]


def test_what_does_not_fit_into_memory_is_incremental(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The incremental approximation loses hardly any variance, and no batch may be smaller than the dimension."""
    monkeypatch.setattr(transform_module, "EXACT_BYTES", 8 * DIM * (len(LEARNT) - 1))
    table = apply(tmp_path, PrincipalComponents(dim=5))
    assert table.provenance["learnt"][0]["solver"] == "incremental"
    kept = table.values[LEARNT].astype(np.float64).var(0).sum()
    best = principal(X, LEARNT, 5)[LEARNT].var(0).sum()
    assert 0.99 * best < kept < best * (1 + 1e-6)


def test_a_chain_learns_from_what_came_before(tmp_path: Path) -> None:
    table = apply(tmp_path, Standardise(), PrincipalComponents(dim=2), L2Norm())
    projected = principal(standardised(), LEARNT, 2)
    wanted = projected / np.linalg.norm(projected, axis=1, keepdims=True)
    assert_values(table, same_signs(table, wanted), tolerance=1e-5)
    kinds = [each["kind"] for each in table.provenance["recipe"]["transforms"]]
    assert kinds == ["standardise", "pca", "l2_norm"]


def test_held_out_rows_leave_no_trace(tmp_path: Path) -> None:
    changed = DENSE.copy()
    changed[~TRAIN] = changed[~TRAIN] * 100 - 7
    for transforms in ([Standardise()], [PrincipalComponents(dim=2)], [Standardise(), PrincipalComponents(dim=2)]):
        tables = [apply(tmp_path, *transforms, dense=dense) for dense in (DENSE, changed)]
        np.testing.assert_array_equal(tables[0].values[LEARNT], tables[1].values[LEARNT])
        assert (tables[0].values[41] != tables[1].values[41]).all()


def test_components_are_transformed_one_by_one(tmp_path: Path) -> None:
    """[items, 2, 3] like twice as many vectors of three numbers."""
    table = apply(tmp_path, Standardise(), PrincipalComponents(dim=2), dense=DENSE.reshape(N, 2, 3))
    rows = X[LEARNT].reshape(-1, 3)
    scaled = ((X.reshape(-1, 3) - rows.mean(0)) / rows.std(0)).reshape(-1, 3)
    learnt = np.stack([LEARNT * 2, LEARNT * 2 + 1], 1).reshape(-1)
    wanted = principal(scaled, learnt, 2).reshape(N, 2, 2)
    assert (table.shape, table.dim) == ((2, 2), 4)
    found = table.values.reshape(N, 2, 2)
    signs = np.sign((found[PRESENT] * wanted[PRESENT]).sum((0, 1)))
    np.testing.assert_allclose(found[PRESENT], (wanted * signs)[PRESENT], atol=1e-5)


def test_the_key_is_that_of_source_settings_and_train_rows(tmp_path: Path) -> None:
    other = TRAIN.copy()
    other[0] = False
    tables = [
        apply(tmp_path, Standardise()),
        apply(tmp_path, Standardise(), fit_on=other),
        apply(tmp_path, Standardise(), L2Norm()),
        apply(tmp_path, L2Norm(), Standardise()),
        apply(tmp_path, PrincipalComponents(dim=2)),
        apply(tmp_path, PrincipalComponents(dim=3)),
        apply(tmp_path, PrincipalComponents(dim=2, whiten=True)),
        apply(tmp_path, Standardise(), dense=DENSE + 1),
    ]
    assert len({table.content_key for table in tables}) == len(tables)
    assert apply(tmp_path, L2Norm()).content_key == apply(tmp_path, L2Norm(), fit_on=other).content_key
    plain = apply(tmp_path)
    assert plain.content_key == table_of(tmp_path, DENSE, PRESENT).content_key


def test_a_transform_is_calculated_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = apply(tmp_path, Standardise())
    monkeypatch.setattr(Standardise, "fit", None)
    np.testing.assert_array_equal(apply(tmp_path, Standardise()).values, first.values)


def test_filled_and_hidden_rows(tmp_path: Path) -> None:
    """What a policy filled is transformed though absent; what is hidden is neither learnt from nor transformed."""
    source = table_of(tmp_path, DENSE, PRESENT)
    source.values[2] = DENSE[2]  # absent, and filled
    table = transform_table(source.without(np.arange(N) == 3), [Standardise()], fit_on=TRAIN, cache=tmp_path)
    learnt = LEARNT[LEARNT != 3]
    wanted = (X - X[learnt].mean(0)) / X[learnt].std(0)
    np.testing.assert_allclose(table.values[[0, 1, 2]], wanted[[0, 1, 2]], rtol=1e-5, atol=1e-6)
    assert not table.values[3].any()
    assert not table.present[2] and not table.present[3]


FLAT = np.zeros((N, DIM), np.float32)
FLAT[:, :2] = DENSE[:, :2]
ONE = np.arange(N) == 0


@pytest.mark.parametrize(
    ("transforms", "more", "message"),
    [
        ([Standardise()], {"fit_on": np.arange(N) % 5 == 2}, r"of its 12 rows none has modality 'image' \(48 rows"),
        ([L2Norm(), PrincipalComponents(dim=1)], {"present": []}, "so there is nothing that pca could learn from"),
        ([PrincipalComponents(dim=7)], {}, r"pca\.dim=7: 32 train vectors of 6 numbers vary in 6 directions at most"),
        ([PrincipalComponents(dim=0)], {}, "use a dim from 1 to 6"),
        ([PrincipalComponents(dim=1)], {"fit_on": ONE}, "1 train vectors of 6 numbers vary in 0 directions"),
        ([PrincipalComponents(dim=3, whiten=True)], {"dense": FLAT}, "vary in 2 directions only"),
        ([PrincipalComponents(dim=1, whiten=True)], {"dense": FLAT * 0 + 2}, "vary in 0 directions only"),
        ([Standardise()], {"fit_on": TRAIN[:5]}, r"fit_on: bool of shape \(5,\); wanted bool of shape \(60,\)"),
        ([Standardise()], {"fit_on": TRAIN.astype(int)}, "fit_on: int64 of shape"),
    ],
)
def test_what_cannot_be_done_is_refused(tmp_path: Path, transforms, more, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        apply(tmp_path, *transforms, **more)


def test_equal_vectors_have_no_principal_direction(tmp_path: Path) -> None:
    table = apply(tmp_path, PrincipalComponents(dim=1), dense=FLAT * 0 + 2)
    assert not table.values.any()
    assert table.provenance["learnt"][0]["explained_variance"] == 0.0


def test_numbers_beyond_fp32_are_refused(tmp_path: Path) -> None:
    dense = DENSE * np.float32(1e-20)
    dense[50] = 1e30
    with pytest.raises(ValueError, match=r"item 50: modality 'image' .* beyond fp32 \(1 such rows\)"):
        apply(tmp_path, Standardise(), dense=dense)
