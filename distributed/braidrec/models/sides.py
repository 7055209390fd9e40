"""Rows of joint nodes, divided into users and items and put together again."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Sides:
    """Which rows of a list of nodes are users and which are items.

    Attributes:
        users, items: indices on either side, from 0, in the order of the rows; None stands for all in order.
        user_rows, item_rows: where these stand among the rows; None: the users stand first, then the items, as among
            seeds, which are in increasing order.
        num_rows: of both.
    """

    users: Tensor | None
    items: Tensor | None
    user_rows: Tensor | None
    item_rows: Tensor | None
    num_rows: int

    @classmethod
    def of(cls, nodes: Tensor | None, num_users: int, num_items: int) -> "Sides":
        """Divide `nodes`, or all of them in order (None)."""
        if nodes is None:
            return cls(users=None, items=None, user_rows=None, item_rows=None, num_rows=num_users + num_items)
        is_user = nodes < num_users
        found = int(is_user.sum())
        if bool(is_user[:found].all()):
            users, items = nodes[:found], nodes[found:] - num_users
            return cls(users=users, items=items, user_rows=None, item_rows=None, num_rows=len(nodes))
        user_rows, item_rows = is_user.nonzero().squeeze(-1), (~is_user).nonzero().squeeze(-1)
        return cls(
            users=nodes[user_rows],
            items=nodes[item_rows] - num_users,
            user_rows=user_rows,
            item_rows=item_rows,
            num_rows=len(nodes),
        )

    def join(self, of_users: Tensor, of_items: Tensor) -> Tensor:
        """`[num_rows, …]` from the users' and the items' values, each in the order of its side."""
        if self.user_rows is None or self.item_rows is None:
            return torch.cat([of_users, of_items])
        joined = of_users.new_zeros(self.num_rows, *of_users.shape[1:])
        return joined.index_copy(0, self.user_rows, of_users).index_copy(0, self.item_rows, of_items)

    def of_users(self, rows: Tensor, num_users: int) -> Tensor:
        """The users' values among `rows`."""
        return rows[: self.leading_users(num_users)] if self.user_rows is None else rows.index_select(0, self.user_rows)

    def of_items(self, rows: Tensor, num_users: int) -> Tensor:
        """The items' values among `rows`."""
        return rows[self.leading_users(num_users) :] if self.item_rows is None else rows.index_select(0, self.item_rows)

    def leading_users(self, num_users: int) -> int:
        """How many users stand before the items, where the rows are in increasing order of their nodes."""
        return num_users if self.users is None else len(self.users)
