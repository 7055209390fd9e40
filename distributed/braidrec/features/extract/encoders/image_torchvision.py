"""Images through a network of torchvision, cut at a layer."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from braidrec.config.base import ConfigError
from braidrec.config.encoders import TorchvisionConfig
from braidrec.config.extract import LimitsConfig
from braidrec.features.extract.encoders.contract import Encoder, Prepared, Vectors
from braidrec.features.extract.encoders.image_networks import (
    EXTRA,
    averaged,
    build_network,
    cut,
    fixed_values,
    pixels_of,
    with_published_input,
)
from braidrec.features.extract.encoders.training import seeded
from braidrec.features.extract.images import decode_image
from braidrec.features.extract.weights import Weights, state_dict, torchvision_weights, weights_file

PUBLISHED = "torchvision:"
"""Before the names of torchvision's own weights."""
_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


class TorchvisionEncoder(Encoder):
    """Any classifier of torchvision, CaffeNet, or EfficientNet-Lite0."""

    medium = "image"
    libraries = ("torchvision", "torch", "pillow")

    def __init__(self, config: TorchvisionConfig, limits: LimitsConfig) -> None:
        self.config = config
        self.limits = limits
        self.batch = config.batch
        self.weights = _find(config.weights)
        given = {name: value for name, value in config.preprocessing.to_plain().items() if value is not None}
        self.pixels = replace(pixels_of(config.model, _published(config.weights)), **given)
        if self.pixels.crop > self.pixels.resize:
            raise ConfigError(
                f"encoder.preprocessing: crop={self.pixels.crop} is larger than resize={self.pixels.resize}; set both"
            )
        with torch.device("meta"):  # a layer that does not exist is refused before any work
            network = build_network(config.model, self.pixels.crop)
        if config.model not in EXTRA and config.layer is not None:
            cut(network, config.model, config.layer)
        self.network: nn.Module | None = None
        self.device = torch.device("cpu")

    def facts(self) -> dict[str, Any]:
        return {
            "weights": None if self.weights is None else self.weights.facts(),
            "preprocessing": asdict(self.pixels),
            "pooling": "mean over places",
        }

    def prepare(self, raw: bytes | str) -> Prepared:
        """`[3, crop, crop]` uint8."""
        return self.pixels_from(decode_image(raw, self.limits))

    def pixels_from(self, image: Image.Image) -> Prepared:
        pixels = self.pixels
        scale = pixels.resize / min(image.size)
        size = tuple(max(pixels.crop, round(side * scale)) for side in image.size)
        # Only what is kept is made: a strip of 50,000 × 2 pixels, enlarged whole, would fill the memory.
        starts = [(side - pixels.crop) // 2 for side in size]
        steps = [own / side for own, side in zip(image.size, size, strict=True)]
        corners = [start * step for start, step in zip(starts, steps, strict=True)]
        ends = [
            min(own, (start + pixels.crop) * step) for own, start, step in zip(image.size, starts, steps, strict=True)
        ]
        square = image.resize(
            (pixels.crop, pixels.crop),
            _RESAMPLING[pixels.interpolation],
            box=(corners[0], corners[1], ends[0], ends[1]),
        )
        return np.ascontiguousarray(np.asarray(square, np.uint8).transpose(2, 0, 1))

    def load(self, device: torch.device) -> None:
        with seeded(self.config.seed):
            network = build_network(self.config.model, self.pixels.crop)
        if self.weights is None:
            fixed_values(network, self.config.seed)
        else:
            try:
                with_published_input(network).load_state_dict(state_dict(self.weights.path))
            except RuntimeError as error:
                raise ConfigError(
                    f"encoder.weights={self.weights.name}: they do not fit {self.config.model}: "
                    f"{' '.join(str(error).split())[:300]}"
                ) from None
        self.network = cut(network, self.config.model, self.config.layer).eval().to(device)
        self.device = device

    @torch.inference_mode()
    def encode(self, prepared: Sequence[Prepared]) -> Vectors:
        assert self.network is not None
        mean, std = (
            torch.tensor(values, device=self.device).view(3, 1, 1) for values in (self.pixels.mean, self.pixels.std)
        )
        found = []
        for start in range(0, len(prepared), self.batch):
            batch = torch.from_numpy(np.stack([np.asarray(each) for each in prepared[start : start + self.batch]]))
            pixels = (batch.to(self.device).float() / 255 - mean) / std
            found.append(averaged(self.network(pixels)).float().cpu().numpy())
        return np.concatenate(found)


def _find(name: str | None) -> Weights | None:
    if name is None:
        return None
    published = _published(name)
    return weights_file(name) if published is None else torchvision_weights(published)


def _published(name: str | None) -> str | None:
    """The name by which torchvision knows the weights."""
    return None if name is None or not name.startswith(PUBLISHED) else name.removeprefix(PUBLISHED)
