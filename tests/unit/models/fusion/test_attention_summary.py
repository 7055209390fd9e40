"""The numbers that a log shows of attention, by hand."""

import pytest
import torch

from braidrec.models.fusion.summary import attention_summary

WEIGHTS = torch.tensor([[0.5, 0.5], [1.0, 0.0], [0.2, 0.8], [0.0, 0.0]])
PRESENT = {"id": torch.tensor([True, True, True, False]), "text": torch.tensor([True, False, True, False])}


def test_distribution_over_the_rows_that_have_the_strand() -> None:
    told = attention_summary(("id", "text"), WEIGHTS, PRESENT, quantiles=(0.0, 0.5, 0.975))
    assert told["id/present"] == 0.75 and told["text/present"] == 0.5
    assert told["id/mean"] == pytest.approx(1.7 / 3)
    assert told["text/mean"] == pytest.approx(0.65)
    assert told["text/std"] == pytest.approx(0.15)
    assert (told["id/q0"], told["id/q50"]) == pytest.approx((0.2, 0.5))
    # Between the order statistics 0.5 and 0.8 of two, at 97.5 % of the way.
    assert told["text/q97.5"] == pytest.approx(0.5 + 0.975 * 0.3)
    assert len(told) == 12


def test_strands_without_rows_and_no_rows() -> None:
    nobody = {"text": torch.zeros(4, dtype=torch.bool)}
    told = attention_summary(("id", "text"), WEIGHTS, nobody)
    assert told["text/present"] == 0.0
    assert [name for name in told if name.startswith("text/")] == ["text/present"]
    assert told["id/present"] == 1.0 and told["id/mean"] == pytest.approx(0.425)
    assert sorted(name for name in told if name.startswith("id/")) == [
        "id/mean", "id/present", "id/q10", "id/q50", "id/q90", "id/std"
    ]  # fmt: skip
    assert attention_summary(("id", "text"), WEIGHTS[:0], {}) == {}


def test_weights_of_other_strands_are_refused() -> None:
    with pytest.raises(ValueError, match=r"weights of shape \(4, 2\); wanted \[n, 1\] for strands \['id'\]"):
        attention_summary(("id",), WEIGHTS, {})
