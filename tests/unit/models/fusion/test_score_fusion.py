"""Fused scores, pair by pair and strand by strand, against inner products of the concatenated vectors."""

import numpy as np
import pytest
import torch
from fusion_oracles import draw
from torch import Tensor

from braidrec.models.fusion.attention import StrandAttention
from braidrec.models.fusion.scores import fuse_scores, item_scale, score_rows
from braidrec.models.fusion.strands import Strands

DIMS = {"id": 4, "text": 3, "image": 2}
NAMES = sorted(DIMS)
USERS, _ = draw(DIMS, rows=5, seed=1)
ITEMS, PRESENT = draw(DIMS, rows=6, seed=2)
WEIGHTS = {"id": 1.0, "text": -0.5, "image": 2.0}
EVERYWHERE = {name: torch.ones(6, dtype=torch.bool) for name in DIMS}


def by_hand(combine: str, present: dict[str, Tensor], item_alpha: np.ndarray, user_alpha: np.ndarray) -> np.ndarray:
    """`[U, I]`, in loops."""
    scores = np.zeros((5, 6))
    for user in range(5):
        for item in range(6):
            mine = [name for name in NAMES if present[name][item]]
            for name in mine:
                score = sum(float(a * b) for a, b in zip(USERS[name][user], ITEMS[name][item], strict=True))
                place = NAMES.index(name)
                score *= item_alpha[item, place] * user_alpha[user, place]
                score *= {"sum": 1.0, "mean": 1 / len(mine), "weighted": WEIGHTS[name]}[combine]
                scores[user, item] += score
    return scores


@pytest.mark.parametrize("combine", ["sum", "mean", "weighted"])
@pytest.mark.parametrize("with_presence", [False, True])
@pytest.mark.parametrize("attends", ["", "item", "user", "item user"])
def test_the_inner_product_is_the_fused_score(combine: str, with_presence: bool, attends: str) -> None:
    generator = torch.Generator().manual_seed(3)
    alphas = {
        side: torch.rand(count, 3, generator=generator, dtype=torch.float64).softmax(-1)
        for side, count in (("item", 6), ("user", 5))
    }
    users, items = fuse_scores(
        USERS,
        dict(reversed(ITEMS.items())),
        combine=combine,
        weights=WEIGHTS if combine == "weighted" else None,
        item_present=PRESENT if with_presence else None,
        item_attention=alphas["item"] if "item" in attends else None,
        user_attention=alphas["user"] if "user" in attends else None,
    )
    assert users.shape == (5, 9) and items.shape == (6, 9)
    used = [
        alphas[side].numpy() if side in attends else np.ones((count, 3)) for side, count in (("item", 6), ("user", 5))
    ]
    wanted = by_hand(combine, PRESENT if with_presence else EVERYWHERE, *used)
    np.testing.assert_allclose((users @ items.T).numpy(), wanted, rtol=1e-10, atol=1e-12)


def test_attention_over_the_items_own_strands_stays_an_inner_product() -> None:
    """Absent strands have a weight of zero, an item without any a score of zero; gradients reach all."""
    dims = dict.fromkeys(NAMES, 4)
    users, _ = draw(dims, rows=5, seed=4)
    items, present = draw(dims, rows=6, seed=5)
    torch.manual_seed(1)
    attention = StrandAttention(4).double()
    given = {name: rows.requires_grad_() for name, rows in items.items()}
    alpha = attention(Strands.of(given, present, dims))
    left, right = fuse_scores(users, given, item_present=present, item_attention=alpha)
    scores = left @ right.T
    wanted = sum(alpha[:, place] * (users[name] @ given[name].T) * present[name] for place, name in enumerate(NAMES))
    torch.testing.assert_close(scores, wanted, rtol=1e-10, atol=1e-12)
    assert not scores[:, 0].any()
    (scores**2).sum().backward()
    assert all(rows.grad.any() and not rows.grad[0].any() for rows in given.values())
    assert all(parameter.grad.any() for parameter in (attention.inner.weight, attention.query.weight))


def test_mixed_rows_of_users_and_items() -> None:
    """As a model encodes the seeds of a batch: users have a scale of one."""
    rows = {name: torch.cat([USERS[name], ITEMS[name]]) for name in NAMES}
    scale = item_scale(ITEMS, combine="mean", present=PRESENT)
    mixed = score_rows(rows, torch.cat([scale.new_ones(5, 3), scale]))
    users, items = fuse_scores(USERS, ITEMS, combine="mean", item_present=PRESENT)
    torch.testing.assert_close(mixed, torch.cat([users, items]), rtol=0, atol=0)


def test_a_strand_without_presence_is_everywhere() -> None:
    some = {"text": PRESENT["text"]}
    scale = item_scale(ITEMS, combine="mean", present=some)
    counts = 2 + PRESENT["text"].double()
    torch.testing.assert_close(scale[:, NAMES.index("id")], 1 / counts)
    torch.testing.assert_close(scale[:, NAMES.index("text")], PRESENT["text"] / counts)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"combine": "max"}, "combine='max': the largest of several scores is no inner product"),
        ({"combine": "concat"}, "combine='concat': scores are combined by 'sum', 'mean' or 'weighted'"),
        ({"combine": "weighted"}, "weights=None with combine='weighted'"),
        ({"combine": "sum", "weights": WEIGHTS}, "with combine='sum'"),
        ({"combine": "weighted", "weights": {"id": 1.0}}, r"weights of \['id'\]: wanted one for each of"),
        ({"item_present": {"audio": PRESENT["id"]}}, r"presence of \['audio'\], but the strands are"),
        ({"item_attention": torch.ones(6, 2)}, r"attention of 2 columns for 3 strands"),
        ({"user_attention": torch.ones(5, 4)}, r"a scale of 4 columns for 3 strands"),
    ],
)
def test_what_is_no_inner_product_is_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fuse_scores(USERS, ITEMS, **settings)


def test_sides_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"users have strands of widths .*; wanted the same, and at least one"):
        fuse_scores({"id": USERS["id"]}, ITEMS)
    with pytest.raises(ValueError, match="at least one"):
        fuse_scores({}, {})
