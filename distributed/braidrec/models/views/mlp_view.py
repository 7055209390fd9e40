"""A view that is learnt."""

from torch import Tensor, nn


class MLPView(nn.Module):
    """`W₂ relu(W₁ x + b₁) + b₂`, the projection head of SimCLR (Chen et al., ICML 2020) as a view.

    It is trained by the loss that compares the views. Under a loss without negatives it can make all rows alike, which
    a stop-gradient (`Bootstrap`) prevents.

    Args:
        dim: d, of rows in and out.
        hidden: width between.
    Raises:
        ValueError: a width is below 1.
    """

    def __init__(self, *, dim: int, hidden: int) -> None:
        super().__init__()
        for name, value in (("dim", dim), ("hidden", hidden)):
            if value < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        self.inner = nn.Linear(dim, hidden)
        self.outer = nn.Linear(hidden, dim)

    def forward(self, features: Tensor) -> Tensor:
        """`[n, d]` from `[n, d]`."""
        view: Tensor = self.outer(self.inner(features).relu())
        return view
