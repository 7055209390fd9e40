"""From a feature's space into the model's."""

from collections.abc import Callable

from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


class Projector(nn.Module):
    """`h = W_L σ(… σ(W_1 x + b_1) …) + b_L`: one linear map (depth 1), or a perceptron.

    Weights start as Xavier's uniform ones (Glorot & Bengio, AISTATS 2010), biases at zero. An absent row's zeros come
    out as what the biases make of them, so a policy of `models.missing` follows.

    Args:
        in_dim: F.
        out_dim: d.
        depth: L, linear maps.
        hidden: width between them; None: d. Only with a depth of 2 or more.
        activation: σ, a key of ACTIVATIONS; None: "leaky_relu". Only with a depth of 2 or more.
        dropout: share of the numbers that are left out of the input of each linear map while training.
        layer_norm: normalise the output of each linear map, before the activation where there is one (Ba, Kiros &
            Hinton, 2016).
        bias: the linear maps have one.
    Raises:
        ValueError: a width or depth below 1, a dropout outside [0, 1), an unknown activation, or a setting for what
            lies between linear maps where there is only one.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        depth: int = 1,
        hidden: int | None = None,
        activation: str | None = None,
        dropout: float = 0.0,
        layer_norm: bool = False,
        bias: bool = True,
    ) -> None:
        super().__init__()
        for name, value in (("in_dim", in_dim), ("out_dim", out_dim), ("depth", depth), ("hidden", hidden)):
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout} must be at least 0 and below 1")
        for name, setting in (("hidden", hidden), ("activation", activation)):
            if depth == 1 and setting is not None:
                raise ValueError(f"{name}={setting!r} has no place in a projector of depth 1: use a depth of 2 or more")
        if activation is not None and activation not in ACTIVATIONS:
            raise ValueError(f"activation={activation!r}: choose one of {sorted(ACTIVATIONS)}")
        self.in_dim, self.out_dim = in_dim, out_dim
        widths = [in_dim, *[hidden or out_dim] * (depth - 1), out_dim]
        layers: list[nn.Module] = []
        for place in range(depth):
            layers += [nn.Dropout(dropout)] if dropout else []
            layers.append(_linear(widths[place], widths[place + 1], bias=bias))
            layers += [nn.LayerNorm(widths[place + 1])] if layer_norm else []
            layers += [ACTIVATIONS[activation or "leaky_relu"]()] if place < depth - 1 else []
        self.layers = nn.Sequential(*layers)

    @property
    def linear_map(self) -> nn.Linear | None:
        """The projector, where it is one linear map and nothing else."""
        only = self.layers[0] if len(self.layers) == 1 else None
        return only if isinstance(only, nn.Linear) else None

    def forward(self, features: Tensor) -> Tensor:
        """`[n, d]` from `[n, F]`."""
        h: Tensor = self.layers(features)
        return h


def _linear(in_dim: int, out_dim: int, *, bias: bool) -> nn.Linear:
    linear = nn.Linear(in_dim, out_dim, bias=bias)
    nn.init.xavier_uniform_(linear.weight)
    if bias:
        nn.init.zeros_(linear.bias)
    return linear
