"""Bootstrapping: one view predicts the other, without negatives."""

from torch import Tensor, nn

from braidrec.objectives.cosine import cosine


def distance_to_target(prediction: Tensor, target: Tensor) -> Tensor:
    """`1 − cos(prediction, target)` of every row, in [0, 2]; the target gets no gradient.

    The part that BM3 (Zhou et al., WWW 2023) puts together over users, items and modalities.

    Args:
        prediction, target: `[n, d]`.
    Returns:
        `[n]`; 1 where a row is zero.
    """
    return 1.0 - cosine(prediction, target.detach())


class Bootstrap(nn.Module):
    """`½ [1 − cos(q(z), sg(z'))] + ½ [1 − cos(q(z'), sg(z))]`, q the predictor, sg the stop-gradient.

    Of SelfCF (Zhou et al., ACM TORS 2023) and BM3, after SimSiam (Chen & He, CVPR 2021). Without predictor and
    stop-gradient all vectors would become one.

    Args:
        predictor: q, `[n, d]` → `[n, d]`, learnt with the loss. It sees rows with weight 0 too, so it must treat rows
            apart from each other: no batch normalisation.
    """

    def __init__(self, predictor: nn.Module) -> None:
        super().__init__()
        self.predictor = predictor

    def rows(self, first: Tensor, second: Tensor, weight: Tensor, ids: Tensor) -> Tensor:
        """Loss of every row: `[n]`; see `ViewLoss`."""
        forth = distance_to_target(self.predictor(first), second)
        back = distance_to_target(self.predictor(second), first)
        return 0.5 * (forth + back)
