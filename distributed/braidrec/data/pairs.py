"""The pairs of some splits as sets of items per user: what is masked, and what was held out."""

from collections.abc import Sequence

import numpy as np

from braidrec.data.description import Split
from braidrec.data.folder import DatasetFolder
from braidrec.evaluation.held_out import UserItems


def pairs_of(folder: DatasetFolder, splits: Sequence[Split], *, with_ratings: bool = False) -> UserItems:
    """The pairs of all `splits` together, with their ratings if asked for."""
    if not splits:
        return UserItems.empty(num_users=folder.num_users, num_items=folder.num_items)
    edges = [folder.edges(split) for split in splits]
    values = [folder.column(split, "rating") for split in splits] if with_ratings else []
    return UserItems.from_edges(
        np.concatenate([users for users, _ in edges]),
        np.concatenate([items for _, items in edges]),
        num_users=folder.num_users,
        num_items=folder.num_items,
        values=np.concatenate([column for column in values if column is not None]) if values else None,
    )
