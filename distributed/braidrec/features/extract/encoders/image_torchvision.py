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
)
from braidrec.features.extract.images import decode_image
from braidrec.features.extract.weights import Weights, state_dict, torchvision_weights, weights_file

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
        with torch.device("meta"):  # a name or layer that does not exist is refused before any work
            network = build_network(config.model)
        if config.model not in EXTRA and config.layer is not None:
            cut(network, config.model, config.layer)
        given = {name: value for name, value in config.preprocessing.to_plain().items() if value is not None}
        self.pixels = replace(pixels_of(config.model), **given)
        if self.pixels.crop > self.pixels.resize:
            raise ConfigError(
                f"encoder.preprocessing: crop={self.pixels.crop} is larger than resize={self.pixels.resize}; set both"
            )
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
        image = image.resize((size[0], size[1]), _RESAMPLING[pixels.interpolation])
        left, top = ((side - pixels.crop) // 2 for side in size)
        square = image.crop((left, top, left + pixels.crop, top + pixels.crop))
        return np.ascontiguousarray(np.asarray(square, np.uint8).transpose(2, 0, 1))

    def load(self, device: torch.device) -> None:
        network = build_network(self.config.model)
        if self.weights is None:
            fixed_values(network, self.config.seed)
        else:
            try:
                network.load_state_dict(state_dict(self.weights.path))
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
    prefix = "torchvision:"
    return torchvision_weights(name.removeprefix(prefix)) if name.startswith(prefix) else weights_file(name)
