"""InfoNCE."""

from typing import Literal

from torch import Tensor

from braidrec.objectives.arguments import above_zero
from braidrec.objectives.cosine import unit_rows
from braidrec.objectives.gather import Gather, own_rows
from braidrec.objectives.log_sum import log_sum_exp_products
from braidrec.objectives.self_supervised.candidates import are_negatives, gather_candidates
from braidrec.objectives.softmax import minus_log_share


class InfoNCE:
    """`−log [exp(s(z_i, z'_i)/τ) / (exp(s(z_i, z'_i)/τ) + Σ_j exp(s(z_i, z'_j)/τ))]`, s a similarity.

    The negatives j are the other nodes' rows of the batch (van den Oord, Li & Vinyals, 2018). In the second view alone
    (Wu et al., SIGIR 2021), or in both, which adds `Σ_j exp(s(z_i, z_j)/τ)` to the denominator (Zhu et al., GRACE,
    2020). The symmetric loss is the mean of the two orders of the views.

    Memory: `[n, N]` for N rows of all ranks, twice that for both views.

    Args:
        temperature: τ.
        negatives_from: "second" view or "both".
        cosine: s is the cosine of the vectors, as nearly everywhere; else their inner product (the alignment of
            SLMRec, Tao et al., IEEE TMM 2022).
        gather: brings the rows of all ranks, so that they are negatives as well.
    Raises:
        ValueError: `temperature` is not above 0.
    """

    def __init__(
        self,
        *,
        temperature: float,
        negatives_from: Literal["second", "both"] = "second",
        cosine: bool = True,
        gather: Gather = own_rows,
    ) -> None:
        self.temperature = above_zero("temperature", temperature)
        self.negatives_from = negatives_from
        self.cosine = cosine
        self.gather = gather

    def rows(self, first: Tensor, second: Tensor, weight: Tensor, ids: Tensor, counts: Tensor | None = None) -> Tensor:
        """Loss of every row: `[n]`; see `ViewLoss`.

        Args:
            counts: `[n]` how many equal rows each stands for (0 where `weight` is): as a negative it counts as many
                times. None: one.
        """
        if self.cosine:
            first, second = unit_rows(first), unit_rows(second)
        all_ids, taking_part = gather_candidates(weight, ids, self.gather)
        views = [second] if self.negatives_from == "second" else [second, first]
        scaled = first / self.temperature
        times = None if counts is None else self.gather(counts).clamp(min=1).to(first.dtype).log()

        def negative(rows: slice) -> Tensor:
            return are_negatives(ids[rows], all_ids, taking_part)

        others = [log_sum_exp_products(scaled, self.gather(view), negative, times) for view in views]
        return minus_log_share((scaled * second).sum(-1), *others)
