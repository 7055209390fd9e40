"""The feature tables of a run: read once a node, transformed, filled; and as models ask for them."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from braidrec.config.load import ConfigError
from braidrec.config.model import ModalitiesConfig, TransformConfig, UserModalitiesConfig
from braidrec.data.description import Side
from braidrec.data.folder import DatasetFolder
from braidrec.features.impute import Surroundings, fill_by_propagation, fill_with_mean, fill_with_neighbours
from braidrec.features.reading import load_feature_table
from braidrec.features.table import FeatureTable
from braidrec.features.transform import L2Norm, PrincipalComponents, Standardise, Transform, transform_table
from braidrec.graph.relation import Relation
from braidrec.mapped import once_per_node
from braidrec.models.components import COMPONENTS
from braidrec.models.user_features import USER_SIDE
from braidrec.training.context import Collectives

RESIDENT_BYTES = 2 << 30
READ_BY_RAY_BYTES = 64 << 20
"""Vectors that take less are read sooner than Ray Data starts."""
"""A table that is smaller than this as fp32 is kept whole on the worker's device."""
_KEYS: Mapping[Side, str] = {"item": "model.modalities", "user": "model.user_modalities"}
FILLED = ("mean", "neighbours", "propagation")
"""Policies for missing modalities that fill the table, before any model sees it."""


class FeatureSet:
    """Features by modality.

    Args:
        tables: of the items, by modality.
        device: where rows are wanted.
        users: of the users, by modality.
    """

    def __init__(
        self, tables: Mapping[str, FeatureTable], device: torch.device, users: Mapping[str, FeatureTable] | None = None
    ) -> None:
        self.tables, self.users = dict(tables), dict(users or {})
        self._all = {**self.tables, **{f"{USER_SIDE}{name}": table for name, table in self.users.items()}}
        self._device = device
        self._resident: dict[str, tuple[Tensor, Tensor]] = {}

    @property
    def dims(self) -> dict[str, int]:
        """Numbers per vector, by modality."""
        return {name: table.dim for name, table in self.tables.items()}

    @property
    def user_dims(self) -> dict[str, int]:
        """The same of the users' modalities."""
        return {name: table.dim for name, table in self.users.items()}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of one vector, or of an item's components, by modality."""
        return {name: table.shape for name, table in self.tables.items()}

    def fetch(self, modality: str, items: Tensor | None) -> tuple[Tensor, Tensor]:
        """`[n, F]` fp32 rows and `[n]` bool presence of some items, or of all in order; not to be written to.

        A modality of the users is called `user/<name>`, and then these are users. `components/<name>` are the numbers
        of components, `[n, 1]`.
        """
        if modality.startswith(COMPONENTS):
            return self._counts(modality.removeprefix(COMPONENTS), items)
        table = self._all[modality]
        if items is not None and not self._fits(table):
            return table.rows(items)
        values, present = self._whole(modality)
        return (values, present) if items is None else (values.index_select(0, items), present.index_select(0, items))

    def _counts(self, modality: str, items: Tensor | None) -> tuple[Tensor, Tensor]:
        table = self._all[modality]
        places = slice(None) if items is None else items.cpu().numpy()
        counts = torch.from_numpy(table.component_counts[places]).float().unsqueeze(-1)
        present = torch.from_numpy(table.present[places])
        device = self._device if items is None else items.device
        return counts.to(device), present.to(device)

    def _fits(self, table: FeatureTable) -> bool:
        return 4 * table.num_rows * table.dim <= RESIDENT_BYTES

    def _whole(self, modality: str) -> tuple[Tensor, Tensor]:
        if modality not in self._resident:
            values, present = self._all[modality].rows()
            self._resident[modality] = (values.to(self._device), present.to(self._device))
        return self._resident[modality]


def modalities_of(config: ModalitiesConfig | UserModalitiesConfig, folder: DatasetFolder) -> tuple[str, ...]:
    """The modalities of the items, or of the users, that a run uses, in alphabetical order.

    Raises:
        ConfigError: one that the data set does not have, or a setting for one that is not used.
    """
    side = _side(config)
    key = _KEYS[side]
    known = sorted(folder.description.modalities_of(side))
    used = known if config.use == ("*",) else sorted(set(config.use))
    for name in used:
        if name not in known:
            raise ConfigError(f"{key}.use: the data set {folder.path} has no {side} modality {name!r}; it has {known}")
    if config.use == ("*",) and not known:
        raise ConfigError(f"{key}.use=['*']: the data set {folder.path} has no {side} modality")
    for name in config.missing_in:
        if name not in used:
            raise ConfigError(f"{key}.missing_in: modality {name!r} is not used; used are {used}")
    if isinstance(config, ModalitiesConfig):
        _check_trainable(config, used)
    return tuple(used)


def _side(config: ModalitiesConfig | UserModalitiesConfig) -> Side:
    return "user" if isinstance(config, UserModalitiesConfig) else "item"


def _check_trainable(config: ModalitiesConfig, used: Sequence[str]) -> None:
    for name in config.trainable:
        if name not in used:
            raise ConfigError(f"model.modalities.trainable: modality {name!r} is not used; used are {used}")
        if policy_of(config, name) in FILLED:
            raise ConfigError(
                f"model.modalities.trainable: {name!r} has missing={policy_of(config, name)}, which fills in vectors "
                "once, from frozen ones; use token, zeros or mask for it (model.modalities.missing_in)"
            )


def policy_of(config: ModalitiesConfig | UserModalitiesConfig, modality: str) -> str:
    """What stands for the vector of an item (a user) without the modality."""
    return config.missing_in.get(modality, config.missing)


def load_features(
    config: ModalitiesConfig,
    folder: DatasetFolder,
    interactions: Relation,
    context: Collectives,
    cache: Path,
    hidden: Mapping[str, NDArray[np.bool_]] | None = None,
    users: UserModalitiesConfig | None = None,
) -> FeatureSet:
    """The tables of the used modalities.

    Args:
        users: which of the users' are used; None: none.
        interactions: the train graph: its items are learnt from, its edges fill what is missing.
        cache: the node's cache folder.
        hidden: by modality, items that are treated as if they did not have it (robustness at evaluation).
    Raises:
        ConfigError: modalities that there are not, or a transform that the vectors cannot satisfy.
        DatasetError: vectors that cannot be used.
    """

    def tables_of(wanted: ModalitiesConfig | UserModalitiesConfig) -> dict[str, FeatureTable]:
        tables = {}
        for name in modalities_of(wanted, folder):
            without = (hidden or {}).get(name) if wanted is config else None
            make = partial(_table, name, wanted, folder, interactions, context, cache, without)
            tables[name] = once_per_node(make, local_rank=context.local_rank, barrier=context.barrier)
        return tables

    return FeatureSet(tables_of(config), context.device, {} if users is None else tables_of(users))


def _table(
    name: str,
    config: ModalitiesConfig | UserModalitiesConfig,
    folder: DatasetFolder,
    interactions: Relation,
    context: Collectives,
    cache: Path,
    hidden: NDArray[np.bool_] | None,
) -> FeatureTable:
    side = _side(config)
    first_node = folder.num_users if side == "item" else 0
    nodes = slice(first_node, None) if side == "item" else slice(folder.num_users)
    in_train = (interactions.in_degree[nodes] > 0).numpy()
    use_ray = context.uses_ray and context.local_rank == 0 and _stored_bytes(folder, name, side) >= READ_BY_RAY_BYTES
    table = load_feature_table(folder, name, cache=cache, side=side, use_ray=use_ray)
    try:
        # Learnt from all vectors that training saw, and only then taken away: the transform must not change with it.
        table = transform_table(table, _transforms(config.transform), fit_on=in_train, cache=cache)
    except ValueError as error:
        raise ConfigError(f"{_KEYS[side]}.transform on modality {name!r}: {error}") from None
    if hidden is not None:
        table = table.without(hidden)
    policy = policy_of(config, name)
    surroundings = Surroundings(relation=interactions, first_node=first_node)
    try:
        if policy == "mean":
            return fill_with_mean(table, fit_on=in_train, cache=cache)
        if policy == "neighbours":
            return fill_with_neighbours(table, surroundings, hops=2, fit_on=in_train, cache=cache)
    except ValueError as error:
        raise ConfigError(f"{_KEYS[side]}.missing={policy} on modality {name!r}: {error}") from None
    if policy == "propagation":
        return fill_by_propagation(table, surroundings, cache=cache)
    return table


def _stored_bytes(folder: DatasetFolder, name: str, side: Side) -> int:
    described = folder.modality(name, side)
    return described.num_vectors * math.prod(described.shape) * np.dtype(described.dtype).itemsize


def _transforms(config: TransformConfig) -> list[Transform]:
    chosen: list[Transform] = []
    if config.standardise:
        chosen.append(Standardise())
    if config.pca is not None:
        chosen.append(PrincipalComponents(dim=config.pca, whiten=config.whiten))
    if config.l2_norm:
        chosen.append(L2Norm())
    return chosen
