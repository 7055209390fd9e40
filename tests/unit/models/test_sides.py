"""Rows divided into users and items, and joined again, against indexing one by one."""

import pytest
import torch

from braidrec.models.sides import Sides

NUM_USERS, NUM_ITEMS = 4, 3
LISTS = {
    "increasing": [0, 2, 3, 4, 6],
    "users first, in no order": [3, 0, 5, 4],
    "mixed": [5, 0, 4, 2],
    "users alone": [1, 3],
    "items alone": [4, 6],
    "none": [],
}


@pytest.mark.parametrize("nodes", LISTS.values(), ids=LISTS)
def test_divided_and_joined_again(nodes: list[int]) -> None:
    sides = Sides.of(torch.tensor(nodes, dtype=torch.int64), NUM_USERS, NUM_ITEMS)
    users, items = [n for n in nodes if n < NUM_USERS], [n - NUM_USERS for n in nodes if n >= NUM_USERS]
    assert sides.users.tolist() == users and sides.items.tolist() == items
    rows = torch.tensor([[10.0 + n, -n] for n in nodes]).reshape(len(nodes), 2)
    of_users, of_items = sides.of_users(rows, NUM_USERS), sides.of_items(rows, NUM_USERS)
    assert of_users[:, 1].tolist() == [-u for u in users]
    assert of_items[:, 1].tolist() == [-(i + NUM_USERS) for i in items]
    assert torch.equal(sides.join(of_users, of_items), rows)


def test_all_nodes_in_order() -> None:
    sides = Sides.of(None, NUM_USERS, NUM_ITEMS)
    rows = torch.arange(NUM_USERS + NUM_ITEMS).unsqueeze(-1)
    assert sides.users is None and sides.items is None and sides.num_rows == len(rows)
    assert sides.of_users(rows, NUM_USERS).flatten().tolist() == [0, 1, 2, 3]
    assert sides.of_items(rows, NUM_USERS).flatten().tolist() == [4, 5, 6]
