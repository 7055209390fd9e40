"""What a fusion is given for absent rows, and modalities that are lost on purpose."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from braidrec.models.missing import MISSING, AsStored, MissingMask, MissingToken, MissingZeros, ModalityDropout

H = torch.tensor([[1.0, 2.0], [9.0, 9.0], [3.0, -4.0], [8.0, 8.0]], dtype=torch.float64)
PRESENT = torch.tensor([True, False, True, False])
ALL = torch.ones(4, dtype=torch.bool)


def test_a_token_takes_the_place_of_absent_rows_and_learns_from_them() -> None:
    policy = MissingToken(2).double()
    with torch.no_grad():
        policy.token.copy_(torch.tensor([0.5, -0.5]))
    h = H.clone().requires_grad_()
    filled, present = policy(h, PRESENT)
    assert filled.tolist() == [[1, 2], [0.5, -0.5], [3, -4], [0.5, -0.5]]
    assert torch.equal(present, ALL)
    (filled * torch.tensor([[1.0], [2.0], [3.0], [4.0]])).sum().backward()
    assert policy.token.grad.tolist() == [6, 6]
    assert h.grad.tolist() == [[1, 1], [0, 0], [3, 3], [0, 0]]


def test_a_token_starts_small_and_random() -> None:
    torch.manual_seed(1)
    token = MissingToken(20_000, initial_std=0.3).token.detach()
    assert abs(float(token.std()) - 0.3) < 0.01
    assert abs(float(token.mean())) < 0.013


@pytest.mark.parametrize(("policy", "counts"), [(MissingZeros(), ALL), (MissingMask(), PRESENT)])
def test_zeros_count_and_a_mask_does_not(policy, counts: Tensor) -> None:
    h = H.clone().requires_grad_()
    filled, present = policy(h, PRESENT)
    assert filled.tolist() == [[1, 2], [0, 0], [3, -4], [0, 0]]
    assert torch.equal(present, counts)
    filled.sum().backward()
    assert h.grad.tolist() == [[1, 1], [0, 0], [1, 1], [0, 0]]


def test_filled_tables_are_taken_as_they_are() -> None:
    filled, present = AsStored()(H, PRESENT)
    assert torch.equal(filled, H)
    assert torch.equal(present, ALL)


@pytest.mark.parametrize("name", MISSING)
def test_every_policy_leaves_present_rows_alone(name: str) -> None:
    """Also where all or none are present, or there are no rows; in the rows' own number format."""
    policy = MISSING[name](2)
    for present in (ALL, PRESENT, ~ALL):
        filled, allowed = policy(H, present)
        assert torch.equal(filled[present], H[present])
        assert filled.dtype == H.dtype and allowed.dtype == torch.bool
        assert torch.isfinite(filled).all()
        assert not (present & ~allowed).any()
    assert policy(H[:0], ALL[:0])[0].shape == (0, 2)


def presence(rows: int, names: str, seed: int, rate: float = 0.6) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(rows, generator=generator) < rate for name in names}


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(0, 20),
    names=st.sampled_from(["a", "ab", "abcd"]),
    rate=st.floats(0, 0.99),
    seed=st.integers(0, 99),
)
def test_dropout_takes_some_but_never_the_last(rows: int, names: str, rate: float, seed: int) -> None:
    had = presence(rows, names, seed)
    torch.manual_seed(seed)
    left = ModalityDropout(rate)(had)
    assert list(left) == list(had) == list(names)
    for name in names:
        assert not (left[name] & ~had[name]).any()
    some_before, some_after = (torch.stack(list(each.values())).any(0) for each in (had, left))
    assert torch.equal(some_before, some_after)


def test_dropout_is_for_training_only() -> None:
    had = presence(500, "abc", 1)
    dropout = ModalityDropout(0.9)
    for left in (dropout.eval()(had), ModalityDropout(0.0).train()(had)):
        assert all(torch.equal(left[name], had[name]) for name in had)
    assert not all(torch.equal(left, had[name]) for name, left in dropout.train()(had).items())


def test_dropout_rates() -> None:
    """Of three present ones each goes with r = .4 unless all would go: r − r³/3. Within four standard errors."""
    rows, rate = 100_000, 0.4
    torch.manual_seed(2)
    left = torch.stack(
        list(ModalityDropout(rate)({name: torch.ones(rows, dtype=torch.bool) for name in "abc"}).values())
    )
    lost = (~left).double().mean(1)
    assert lost.tolist() == pytest.approx([rate - rate**3 / 3] * 3, abs=0.0065)
    # Exactly one is left: two of three go (3 r² (1 − r)), or all three would have gone (r³); which one is even.
    alone = left[:, left.sum(0) == 1]
    assert alone.shape[1] / rows == pytest.approx(3 * rate**2 * (1 - rate) + rate**3, abs=0.0065)
    assert alone.double().mean(1).tolist() == pytest.approx([1 / 3] * 3, abs=0.011)


def test_the_order_of_names_changes_nothing() -> None:
    had = presence(200, "abc", 3)
    torch.manual_seed(4)
    one = ModalityDropout(0.5)(had)
    torch.manual_seed(4)
    other = ModalityDropout(0.5)(dict(reversed(had.items())))
    assert all(torch.equal(one[name], other[name]) for name in had)


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_a_rate_is_below_one(rate: float) -> None:
    with pytest.raises(ValueError, match=rf"rate={rate} must be at least 0 and below 1"):
        ModalityDropout(rate)
