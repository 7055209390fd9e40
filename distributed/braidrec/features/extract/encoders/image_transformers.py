"""Images through a model of the transformers library: CLIP (Radford et al., 2021), SigLIP, ViT, DINOv2, …"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from braidrec.config.encoders import TransformersImageConfig
from braidrec.config.extract import LimitsConfig
from braidrec.features.extract.encoders.contract import Encoder, Prepared, Vectors
from braidrec.features.extract.encoders.huggingface import features_of, load_model
from braidrec.features.extract.images import decode_image
from braidrec.features.extract.weights import model_folder


class TransformersImageEncoder(Encoder):
    """The model's own pre-processing (`preprocessor_config.json`) and, where it has one, its own image vector."""

    medium = "image"
    libraries = ("transformers", "torch", "pillow")

    def __init__(self, config: TransformersImageConfig, limits: LimitsConfig) -> None:
        from transformers import AutoImageProcessor

        self.config = config
        self.limits = limits
        self.batch = config.batch
        self.weights = model_folder(config.weights)
        self.processor: Any = AutoImageProcessor.from_pretrained(
            str(self.weights.path), local_files_only=True, trust_remote_code=False
        )
        self.model: Any = None
        self.device = torch.device("cpu")

    def facts(self) -> dict[str, Any]:
        return {"weights": self.weights.facts(), "preprocessing": "the model's own"}

    def prepare(self, raw: bytes | str) -> Prepared:
        return self.pixels_from(decode_image(raw, self.limits))

    def pixels_from(self, image: Image.Image) -> Prepared:
        """`[3, height, width]` float32, as the model wants it."""
        pixels: Prepared = np.asarray(self.processor(images=image, return_tensors="np")["pixel_values"][0], np.float32)
        return pixels

    def load(self, device: torch.device) -> None:
        from transformers import AutoModel

        self.model = load_model(AutoModel, self.weights, device)
        self.device = device

    @torch.inference_mode()
    def encode(self, prepared: Sequence[Prepared]) -> Vectors:
        found = []
        for start in range(0, len(prepared), self.batch):
            stacked = np.stack([np.asarray(each) for each in prepared[start : start + self.batch]])
            pixels = torch.from_numpy(stacked).to(self.device)
            found.append(self._vectors(pixels).float().cpu().numpy())
        return np.concatenate(found)

    def _vectors(self, pixels: torch.Tensor) -> torch.Tensor:
        if self.config.pooling == "auto" and hasattr(self.model, "get_image_features"):
            return features_of(self.model.get_image_features(pixel_values=pixels))
        output = self.model(pixel_values=pixels)
        pooled = getattr(output, "pooler_output", None)
        if self.config.pooling == "auto" and pooled is not None:
            vectors: torch.Tensor = pooled.flatten(1)
            return vectors
        states: torch.Tensor = output.last_hidden_state
        return states.mean(1) if self.config.pooling == "mean" else states[:, 0]
