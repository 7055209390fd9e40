"""An objective as a part of a module, whether it has parameters or not."""

from torch import Tensor, nn

from braidrec.objectives.self_supervised.contract import ViewLoss


class HeldLoss(nn.Module):
    """Registers the parameters of an objective that has some (a predictor, a bilinear discriminator)."""

    def __init__(self, loss: ViewLoss) -> None:
        super().__init__()
        self.parts = nn.ModuleList([loss] if isinstance(loss, nn.Module) else [])
        self._loss = [loss]  # in a list, so that it is not registered twice

    def rows(self, first: Tensor, second: Tensor, weight: Tensor, ids: Tensor) -> Tensor:
        """As the objective's."""
        return self._loss[0].rows(first, second, weight, ids)
