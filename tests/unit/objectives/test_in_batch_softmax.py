"""The softmax over the batch's items, against a loop over rows, candidates and what each user has."""

from math import log

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_oracles import batch_of, cosine, dot, minus_log_share, random_vectors

from braidrec.models.contract import Batch
from braidrec.objectives.in_batch_softmax import InBatchSoftmax

USERS = [3, 0, 3, 5, 0, 0, 0]
ITEMS = [1, 1, 2, 4, 2, 0, 0]
"""Rows 0 and 1 have the same item, rows 0 and 2 the same user; the last two are padding."""
REAL = [1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0]
POPULARITY = [0.0, 0.4, 0.3, 0.2, 0.1]
"""Item 0, as which padding goes, has none."""
D, TEMPERATURE = 3, 0.5


def naive(users: list, items: list, batch: Batch, popularity: list[float] | None, score) -> list[float]:
    """Of the real rows; None for padding."""
    who, what, real = batch.users.tolist(), batch.items.tolist(), batch.real.tolist()

    def logit(row: int, other: int) -> float:
        return score(users[row], items[other]) / TEMPERATURE - (log(popularity[what[other]]) if popularity else 0.0)

    losses = []
    for row in range(len(who)):
        has = {what[other] for other in range(len(who)) if real[other] and who[other] == who[row]}
        negatives = [other for other in range(len(who)) if real[other] and what[other] not in has]
        losses.append(
            minus_log_share(logit(row, row), [logit(row, other) for other in negatives]) if real[row] else None
        )
    return losses


def loss_of(corrected: bool, by_cosine: bool) -> InBatchSoftmax:
    log_popularity = torch.tensor(POPULARITY, dtype=torch.float64).log() if corrected else None
    return InBatchSoftmax(temperature=TEMPERATURE, log_popularity=log_popularity, cosine=by_cosine)


@pytest.mark.parametrize("by_cosine", [False, True])
@pytest.mark.parametrize("corrected", [False, True])
def test_value_and_gradient(corrected: bool, by_cosine: bool) -> None:
    batch = batch_of(USERS, ITEMS, real=REAL)
    users, items = random_vectors(1, len(USERS), D), random_vectors(2, len(USERS), D)
    loss = loss_of(corrected, by_cosine)
    rows = loss.rows(users, items, None, batch)
    popularity = POPULARITY if corrected else None
    wanted = naive(users.tolist(), items.tolist(), batch, popularity, cosine if by_cosine else dot)
    assert rows[:5].tolist() == pytest.approx(wanted[:5], rel=1e-10)
    assert torch.isfinite(rows).all()
    assert torch.autograd.gradcheck(lambda u, i: loss.rows(u, i, None, batch), (users, items))
    assert not loss.needs_negatives and not loss.needs_rating and loss.score_offset == 0.0


@settings(max_examples=60, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.booleans()), min_size=1, max_size=9),
    corrected=st.booleans(),
)
def test_any_batch(pairs: list[tuple[int, int, bool]], corrected: bool) -> None:
    """Users and items in all constellations; padding looks like user 0 and item 0, which may be real elsewhere."""
    who, what = [user if real else 0 for user, _, real in pairs], [item if real else 0 for _, item, real in pairs]
    batch = batch_of(who, what, real=[float(real) for _, _, real in pairs])
    users, items = random_vectors(1, len(pairs), D), random_vectors(2, len(pairs), D)
    popularity = [0.1, 0.2, 0.3, 0.4] if corrected else None
    log_popularity = torch.tensor(popularity, dtype=torch.float64).log() if popularity else None
    loss = InBatchSoftmax(temperature=TEMPERATURE, log_popularity=log_popularity, cosine=False)
    rows = loss.rows(users, items, None, batch)
    wanted = naive(users.tolist(), items.tolist(), batch, popularity, dot)
    for found, value in zip(rows.tolist(), wanted, strict=True):
        assert value is None or found == pytest.approx(value, rel=1e-9, abs=1e-12)


def test_distinct_pairs_are_a_cross_entropy() -> None:
    users, items = random_vectors(1, 8, D), random_vectors(2, 8, D)
    batch = batch_of(list(range(8)), list(range(8)))
    rows = loss_of(False, False).rows(users, items, None, batch)
    wanted = F.cross_entropy(users @ items.T / TEMPERATURE, torch.arange(8), reduction="none")
    torch.testing.assert_close(rows, wanted)


def test_padding_moves_nothing() -> None:
    """Longer padding, with any vectors, leaves values and gradients of the real rows as they are."""
    results = []
    for padding in (0, 1, 4):
        users = random_vectors(1, 5 + padding, D)
        items = random_vectors(2, 5 + padding, D)
        with torch.no_grad():
            users[:5], items[:5] = random_vectors(3, 5, D), random_vectors(4, 5, D)
        batch = batch_of(USERS[:5] + [0] * padding, ITEMS[:5] + [0] * padding, real=[1.0] * 5 + [0.0] * padding)
        rows = loss_of(True, False).rows(users, items, None, batch)
        (rows * batch.weight).sum().backward()
        assert not users.grad[5:].any() and not items.grad[5:].any()
        results.append((rows[:5].detach(), users.grad[:5], items.grad[:5]))
    for result in results[1:]:
        for found, wanted in zip(result, results[0], strict=True):
            torch.testing.assert_close(found, wanted)


def test_a_constant_on_all_popularities_changes_nothing() -> None:
    batch = batch_of(USERS, ITEMS, real=REAL)
    users, items = random_vectors(1, len(USERS), D), random_vectors(2, len(USERS), D)
    counts = torch.tensor(POPULARITY, dtype=torch.float64).log()
    rows = [
        InBatchSoftmax(temperature=1.0, log_popularity=log_popularity, cosine=False).rows(users, items, None, batch)
        for log_popularity in (counts, counts + 3.0)
    ]
    torch.testing.assert_close(rows[0][:5], rows[1][:5])


@pytest.mark.parametrize("by_cosine", [False, True])
def test_nothing_to_compare_with_is_no_loss(by_cosine: bool) -> None:
    """One user alone; zero vectors; a batch of padding; no rows at all."""
    for batch in (batch_of([2, 2], [1, 4]), batch_of([0, 0], [0, 0], real=[0.0, 0.0]), batch_of([], [])):
        batch = Batch(
            users=batch.users.long(), items=batch.items.long(), negatives=None, real=batch.real, weight=batch.weight
        )
        vectors = torch.zeros(batch.size, D, requires_grad=True)
        rows = loss_of(True, by_cosine).rows(vectors, vectors, None, batch)
        assert rows.tolist() == [0.0] * batch.size
        rows.sum().backward()
        assert not vectors.grad.any()


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"temperature=-1.0 must be a finite number above 0"):
        InBatchSoftmax(temperature=-1.0, log_popularity=None, cosine=True)
    for wrong in (torch.tensor([0.0, torch.nan]), torch.tensor([torch.inf]), torch.zeros(2, 2)):
        with pytest.raises(ValueError, match=r"log_popularity \(shape .* must be one number an item"):
            InBatchSoftmax(temperature=1.0, log_popularity=wrong, cosine=False)
