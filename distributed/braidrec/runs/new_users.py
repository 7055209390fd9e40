"""Users whom training never saw, from a few interactions: scored without training anything again."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, normalize

from braidrec.config.load import ConfigError
from braidrec.data.readers import read_rows, table_files
from braidrec.evaluation.held_out import UserItems
from braidrec.evaluation.neighbour_ranker import ItemNeighbourRanker
from braidrec.evaluation.ranker import Ranker, VectorRanker

USER_ID, ITEM_ID = "user_id", "item_id"


@dataclass(frozen=True, kw_only=True, eq=False)
class NewUsers:
    """What a file says of users.

    Attributes:
        ids: pyarrow strings, in the order of the file; those without a known item are not among them.
        items: their items, each once.
        unknown_items: distinct item ids of the file that the data set does not have.
        without_items: users who are left out because none of their items is known.
    """

    ids: Any
    items: UserItems
    unknown_items: int
    without_items: int


def read_new_users(file: str, item_ids: Any) -> NewUsers:
    """Read the columns `user_id` and `item_id` of a CSV, TSV, JSON-lines or Parquet file.

    Args:
        item_ids: the data set's own, in index order.
    Raises:
        DatasetError: no such file, or a damaged one, or one without these columns.
        ConfigError: a row without an id, or no user with a known item.
    """
    users, items = _columns(file)
    place = pc.index_in(items, value_set=item_ids)
    known = place.is_valid()
    unknown = pc.count_distinct(items.filter(pc.invert(known))).as_py()
    all_users = pc.count_distinct(users).as_py()
    coded = users.filter(known).combine_chunks().dictionary_encode()
    ids = coded.dictionary
    if not len(ids):
        raise ConfigError(
            f"new_users {file}: none of its {unknown} item ids is one of this data set, such as {item_ids[0].as_py()!r}"
        )
    pairs = UserItems.from_edges(
        coded.indices.to_numpy().astype(np.int64),
        place.filter(known).to_numpy().astype(np.int64),
        num_users=len(ids),
        num_items=len(item_ids),
    )
    return NewUsers(ids=ids, items=pairs, unknown_items=unknown, without_items=all_users - len(ids))


def new_user_ranker(ranker: Ranker, users: NewUsers, *, cosine: bool = False) -> Ranker:
    """Scores for new users by the mean of their items' vectors, or by their items' neighbours if these are the model.

    `z_u = 1/|N(u)| · Σ_{i ∈ N(u)} z_i`, whatever the model, fused early or late: it needs nothing but final vectors. In
    LightGCN this is a user's last hop but for a factor, which changes no order. Columns in which all users, or all
    items, agree are no directions of taste but the 1 beside a bias, or the bias beside a 1: there a new user has what
    users have on average.

    Args:
        ranker: of the trained model.
        cosine: the model ranks by cosine.
    """
    if isinstance(ranker, ItemNeighbourRanker):
        return ranker.with_histories(users.items)
    assert isinstance(ranker, VectorRanker)
    every_item = ranker.item_vectors()
    every_user = ranker.user_vectors(torch.arange(ranker.num_users))
    start = torch.from_numpy(users.items.indptr[:-1]).to(ranker.device)
    items = torch.from_numpy(users.items.items.astype(np.int64)).to(ranker.device)
    vectors = embedding_bag(items, every_item, start, mode="mean")
    of_bias = _constant(every_user) | _constant(every_item)
    vectors = torch.where(of_bias, every_user.mean(0), vectors)
    return VectorRanker(normalize(vectors, dim=-1) if cosine else vectors, every_item, ranker.offset)


def _constant(vectors: Tensor) -> Tensor:
    """`[dim]` whether all rows, of which there are several, have the same there."""
    return (vectors == vectors[:1]).all(0) & (len(vectors) > 1)


def _columns(file: str) -> tuple[Any, Any]:
    """User ids and item ids, row by row, as pyarrow strings."""
    parts = []
    for table in table_files([file]):
        for rows in read_rows(table, [USER_ID, ITEM_ID]):
            ids = [rows.table.column(name).cast(pa.string()) for name in (USER_ID, ITEM_ID)]
            for name, column in zip((USER_ID, ITEM_ID), ids, strict=True):
                blank = pc.equal(pc.fill_null(column, ""), "").to_numpy()
                if blank.any():
                    where = table.row_name(int(rows.numbers[blank.argmax()]))
                    raise ConfigError(f"new_users: {where}: no {name}; give it one, or leave the row out")
            parts.append(pa.table(ids, names=[USER_ID, ITEM_ID]))
    whole = pa.concat_tables(parts) if parts else None
    if whole is None or not whole.num_rows:
        raise ConfigError(f"new_users {file}: has no rows; wanted the columns {USER_ID} and {ITEM_ID}")
    return whole.column(USER_ID), whole.column(ITEM_ID)
