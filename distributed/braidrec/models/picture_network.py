"""The network of DVBPR's paper."""

from collections.abc import Sequence

from torch import Tensor, nn


class PictureNetwork(nn.Module):
    """CNN-F as Kang et al. (DVBPR, ICDM 2017) have it, after Chatfield et al. (BMVC 2014):

        conv 11×11×64, stride 4 – pool – conv 5×5×256 – pool – 3 × conv 3×3×256 – pool – fc 4096 – fc 4096 – fc K

    ReLU follows every layer but the last, dropout the first two that are fully connected. Borders are filled up with
    zeros, so that a stride of s makes ⌈side / s⌉ of a side, and pooling takes the largest of 2×2: 224, 56, 28, 14, 7.
    Weights start as Xavier's uniform ones (Glorot & Bengio, AISTATS 2010), biases at zero.

    Args:
        out_dim: K.
        side: of the pictures, pixels.
        channels: of the five convolutions.
        kernel, stride: of the first convolution.
        hidden: widths of the first two fully connected layers.
        dropout: share of their outputs that is left out while training.
    """

    def __init__(
        self,
        *,
        out_dim: int,
        side: int = 224,
        channels: Sequence[int] = (64, 256, 256, 256, 256),
        kernel: int = 11,
        stride: int = 4,
        hidden: Sequence[int] = (4096, 4096),
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        kernels, pooled = (kernel, 5, 3, 3, 3), (True, True, False, False, True)
        layers: list[nn.Module] = []
        before = 3
        for place, (width, size) in enumerate(zip(channels, kernels, strict=True)):
            step = stride if place == 0 else 1
            after = -(-side // step)
            missing = max((after - 1) * step + size - side, 0)
            first, last = missing // 2, missing - missing // 2
            layers += [nn.ZeroPad2d((first, last, first, last)), nn.Conv2d(before, width, size, step), nn.ReLU()]
            before, side = width, after
            if pooled[place]:
                layers.append(nn.MaxPool2d(2, ceil_mode=True))
                side = -(-side // 2)
        self.convolutions = nn.Sequential(*layers)
        first, second = hidden
        self.connected = nn.Sequential(
            nn.Flatten(),
            *(nn.Linear(before * side**2, first), nn.ReLU(), nn.Dropout(dropout)),
            *(nn.Linear(first, second), nn.ReLU(), nn.Dropout(dropout)),
            nn.Linear(second, out_dim),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, pixels: Tensor) -> Tensor:
        """`[n, K]` from `[n, 3, side, side]`."""
        found: Tensor = self.connected(self.convolutions(pixels))
        return found
