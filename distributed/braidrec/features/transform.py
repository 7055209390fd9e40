"""Transforms of stored vectors, fitted on the items of train alone: standardising, unit length, principal components.

    source table → transform → … → transform → derived table on the node's disk

What a transform learns comes from rows that are present and marked by a mask, so that held-out items leave no trace in
it. Vectors with components (regions, frames) are transformed component by component.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from braidrec.features.table import FeatureTable, check_mask, derive_table, mask_digest

EXACT_BYTES = 1 << 30
"""Largest fp64 matrix that a principal component analysis holds in memory."""

Matrix = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A transform that has seen the train rows.

    Attributes:
        apply: `[n, dim]` fp64 → `[n, new dim]` fp64.
        dim: size of its output.
        facts: what it learnt, in a few plain values.
    """

    apply: Callable[[Matrix], Matrix]
    dim: int
    facts: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Transform(ABC):
    """A kind of transform; its settings are the fields of a frozen dataclass, all of them part of the table's key.

    Attributes:
        kind: its name.
        learns: whether it looks at the train rows.
    """

    kind: ClassVar[str]
    learns: ClassVar[bool] = True

    def width(self, dim: int) -> int:
        """Size of its output for vectors of `dim` numbers."""
        return dim

    @abstractmethod
    def fit(self, rows: "TrainRows") -> Fitted:
        """Learn from the train rows.

        Raises:
            ValueError: settings that the rows cannot satisfy.
        """
        ...


class TrainRows:
    """The rows that a transform may learn from, after the transforms before it."""

    def __init__(self, table: FeatureTable, marked: NDArray[np.bool_], before: Sequence[Fitted]) -> None:
        self._table = table
        self._rows = np.flatnonzero(table.present & marked)
        self._before = before
        self.dim = before[-1].dim if before else table.shape[-1]

    @property
    def count(self) -> int:
        """Vectors; one with components counts as many as it has."""
        return len(self._rows) * (self._table.dim // self._table.shape[-1])

    def batches(self, least: int = 1) -> Iterator[Matrix]:
        """All vectors, a block at a time, of at least `least` vectors each (if there are so many)."""
        from sklearn.utils import gen_batches

        components = self._table.dim // self._table.shape[-1]
        fewest = -(-least // components)
        size = max(self._table.rows_per_block, fewest)
        for stretch in gen_batches(len(self._rows), size, min_batch_size=fewest):
            yield _through(self._before, _vectors(self._table, self._rows[stretch]))

    def matrix(self) -> Matrix:
        """All vectors at once."""
        matrix = np.empty((self.count, self.dim))
        start = 0
        for batch in self.batches():
            matrix[start : start + len(batch)] = batch
            start += len(batch)
        return matrix


@dataclass(frozen=True, kw_only=True)
class Standardise(Transform):
    """`(x − μ) / σ` per dimension, μ and σ of the train rows (scikit-learn's StandardScaler, block by block).

    A dimension that does not vary is centred only.
    """

    kind: ClassVar[str] = "standardise"

    def fit(self, rows: TrainRows) -> Fitted:
        from sklearn.preprocessing import StandardScaler

        scaler = StandardScaler()
        for batch in rows.batches():
            scaler.partial_fit(batch)
        return Fitted(apply=scaler.transform, dim=rows.dim, facts={"train_vectors": rows.count})


@dataclass(frozen=True, kw_only=True)
class L2Norm(Transform):
    """`x / ‖x‖₂`; a vector of zeros stays one."""

    kind: ClassVar[str] = "l2_norm"
    learns: ClassVar[bool] = False

    def fit(self, rows: TrainRows) -> Fitted:
        return Fitted(apply=_unit_length, dim=rows.dim, facts={})


@dataclass(frozen=True, kw_only=True)
class PrincipalComponents(Transform):
    """Projection on the directions in which the train rows vary most (scikit-learn's PCA, IncrementalPCA).

    Attributes:
        dim: directions to keep.
        whiten: scale each to unit variance over the train rows.
        solver: "exact" holds the train rows in memory, "incremental" a block of them, at the price of an approximation
            (Ross et al., IJCV 77, 2008); "auto" is exact up to 1 GiB.
    """

    dim: int
    whiten: bool = False
    solver: Literal["auto", "exact", "incremental"] = "auto"

    kind: ClassVar[str] = "pca"

    def width(self, dim: int) -> int:
        return self.dim

    def fit(self, rows: TrainRows) -> Fitted:
        most = min(rows.dim, rows.count - 1)
        if not 1 <= self.dim <= most:
            raise ValueError(
                f"pca.dim={self.dim}: {rows.count} train vectors of {rows.dim} numbers vary in {most} directions at "
                f"most; use a dim from 1 to {most}"
            )
        solver = self.solver
        if solver == "auto":
            solver = "exact" if rows.count * rows.dim * 8 <= EXACT_BYTES else "incremental"
        with np.errstate(invalid="ignore"):  # vectors that are all the same explain 0 of a variance of 0
            fitted = self._exact(rows) if solver == "exact" else self._incremental(rows)
        varying = int((fitted.explained_variance_ > fitted.explained_variance_[0] * _NOISE).sum())
        if self.whiten and varying < self.dim:
            raise ValueError(
                f"pca.dim={self.dim} with whiten: the train vectors vary in {varying} directions only, and noise would "
                f"be blown up in the others; use dim={varying} or less, or no whitening"
            )
        explained = float(fitted.explained_variance_ratio_.sum()) if varying else 0.0
        facts = {"solver": solver, "train_vectors": rows.count, "explained_variance": round(explained, 6)}
        return Fitted(apply=fitted.transform, dim=self.dim, facts=facts)

    def _exact(self, rows: TrainRows) -> Any:
        from sklearn.decomposition import PCA

        # With many dimensions scikit-learn draws random directions: seeded, so that the table is a function of its key.
        return PCA(self.dim, whiten=self.whiten, copy=False, random_state=0).fit(rows.matrix())

    def _incremental(self, rows: TrainRows) -> Any:
        from sklearn.decomposition import IncrementalPCA

        fitted = IncrementalPCA(self.dim, whiten=self.whiten)
        for batch in rows.batches(least=self.dim):
            fitted.partial_fit(batch)
        return fitted


_NOISE = 1e-12
"""Variance, as a share of the largest, below which a direction is the rounding of fp32 alone."""


def transform_table(
    source: FeatureTable, transforms: Sequence[Transform], *, fit_on: NDArray[np.bool_], cache: Path
) -> FeatureTable:
    """Apply the transforms one after the other. Absent rows stay zero, those that a policy filled are transformed too.

    Args:
        source: the vectors.
        transforms: in order; none gives the source back.
        fit_on: `[num_rows]` bool: items that occur in train.
        cache: the node's cache folder.
    Returns:
        An fp32 table whose key is that of the source, the transforms and the rows that they learnt from.
    Raises:
        ValueError: no train row to learn from, a setting that the rows cannot satisfy, or values beyond fp32.
    """
    check_mask("fit_on", fit_on, source.num_rows)
    if not transforms:
        return source
    recipe: dict[str, Any] = {"transforms": [{"kind": each.kind, **asdict(each)} for each in transforms]}
    if any(each.learns for each in transforms):
        recipe["fitted_on"] = mask_digest(fit_on)
    dim = source.shape[-1]
    for each in transforms:
        dim = each.width(dim)

    def fill(values: NDArray[Any]) -> Mapping[str, Any]:
        fitted = _fit(source, transforms, fit_on)
        for start in range(0, source.num_rows, source.rows_per_block):
            rows = np.arange(start, min(start + source.rows_per_block, source.num_rows))
            _transform_rows(source, fitted, rows, values)
        return {"learnt": [dict(each.facts) for each in fitted]}

    return derive_table(source, cache, recipe, fill, shape=(*source.shape[:-1], dim))


def _fit(source: FeatureTable, transforms: Sequence[Transform], fit_on: NDArray[np.bool_]) -> list[Fitted]:
    fitted: list[Fitted] = []
    for each in transforms:
        rows = TrainRows(source, fit_on, fitted)
        if each.learns and not rows.count:
            raise ValueError(
                f"fit_on: of its {int(fit_on.sum())} rows none has modality {source.name!r} "
                f"({int(source.present.sum())} rows have it), so there is nothing that {each.kind} could learn from"
            )
        fitted.append(each.fit(rows))
    return fitted


def _transform_rows(
    source: FeatureTable, fitted: Sequence[Fitted], rows: NDArray[np.int64], values: NDArray[Any]
) -> None:
    # What is zero and absent has not been filled by a policy either.
    held = rows[source.present[rows] | (source.read(rows) != 0).any(1)]
    if not len(held):
        return
    with np.errstate(over="ignore"):
        made = _through(fitted, _vectors(source, held)).reshape(len(held), -1).astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(made).all(1))
    if len(bad):
        raise ValueError(
            f"{source.side} {held[bad[0]]}: modality {source.name!r} transforms to numbers beyond fp32 "
            f"({len(bad)} such rows); its vector lies far outside those of the train rows"
        )
    values[held] = made


def _vectors(table: FeatureTable, rows: NDArray[np.int64]) -> Matrix:
    return table.read(rows).astype(np.float64).reshape(-1, table.shape[-1])


def _unit_length(vectors: Matrix) -> Matrix:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Matrix = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
    return unit


def _through(fitted: Sequence[Fitted], vectors: Matrix) -> Matrix:
    for each in fitted:
        vectors = each.apply(vectors)
    return vectors
