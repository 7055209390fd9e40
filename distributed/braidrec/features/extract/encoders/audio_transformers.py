"""Sounds through a model of the transformers library: wav2vec 2.0, AST, CLAP, the encoder of Whisper, …"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from braidrec.config.encoders import TransformersAudioConfig
from braidrec.config.extract import LimitsConfig
from braidrec.features.extract.encoders.contract import Encoder, Prepared, Vectors
from braidrec.features.extract.encoders.huggingface import features_of, load_model
from braidrec.features.extract.sounds import decode_sound
from braidrec.features.extract.weights import model_folder

DEFAULT_SECONDS = 10.0
LEAST_SECONDS = 0.5
"""A shorter rest at the end of a sound is left out, unless it is all there is: convolutions need some length."""


class TransformersAudioEncoder(Encoder):
    """The sound is cut into windows, each encoded by itself with the model's own pre-processing; the mean counts.

    A window's vector is the model's own audio vector (CLAP), its pooled output (AST), or the mean of the states of
    its (audio) encoder. Windows are never padded to each other, so that a vector does not depend on its neighbours.
    """

    medium = "audio"
    libraries = ("transformers", "torch", "soundfile", "scipy")

    def __init__(self, config: TransformersAudioConfig, limits: LimitsConfig) -> None:
        import transformers

        self.config = config
        self.limits = limits
        self.batch = config.batch
        self.weights = model_folder(config.weights)
        self.extractor: Any = transformers.AutoFeatureExtractor.from_pretrained(
            str(self.weights.path), local_files_only=True, trust_remote_code=False
        )
        self.sample_rate = int(self.extractor.sampling_rate)
        own = getattr(self.extractor, "chunk_length", None) or getattr(self.extractor, "max_length_s", None)
        self.seconds = config.window_seconds or float(own or DEFAULT_SECONDS)
        self.model: Any = None
        self.device = torch.device("cpu")

    def facts(self) -> dict[str, Any]:
        return {
            "weights": self.weights.facts(),
            "pooling": "mean over windows",
            "preprocessing": {"sample_rate": self.sample_rate, "window_seconds": self.seconds},
        }

    def prepare(self, raw: bytes | str) -> Prepared:
        return decode_sound(raw, self.sample_rate, self.limits)

    def load(self, device: torch.device) -> None:
        from transformers import AutoModel

        self.model = load_model(AutoModel, self.weights, device)
        self.device = device

    @torch.inference_mode()
    def encode(self, prepared: Sequence[Prepared]) -> Vectors:
        windows = [self._windows(np.asarray(sound)) for sound in prepared]
        flat = [(owner, window) for owner, own in enumerate(windows) for window in own]
        order = sorted(range(len(flat)), key=lambda place: len(flat[place][1]))
        found: dict[int, NDArray[np.float32]] = {}
        start = 0
        while start < len(order):
            length = len(flat[order[start]][1])
            alike = [place for place in order[start : start + self.batch] if len(flat[place][1]) == length]
            vectors = self._vectors([flat[place][1] for place in alike]).float().cpu().numpy()
            found.update(zip(alike, vectors, strict=True))
            start += len(alike)
        owners = np.array([owner for owner, _ in flat])
        stacked = np.stack([found[place] for place in range(len(flat))])
        return np.stack([stacked[owners == owner].mean(0) for owner in range(len(prepared))]).astype(np.float32)

    def _windows(self, samples: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        size = max(1, int(self.seconds * self.sample_rate))
        windows = [samples[start : start + size] for start in range(0, len(samples), size)]
        least = int(LEAST_SECONDS * self.sample_rate)
        kept = [window for window in windows if len(window) >= min(least, size)]
        return kept or [np.pad(windows[0], (0, least - len(windows[0])))]

    def _vectors(self, windows: list[NDArray[np.float32]]) -> Tensor:
        inputs = self.extractor(windows, sampling_rate=self.sample_rate, return_tensors="pt")
        inputs = {name: value.to(self.device) for name, value in inputs.items()}
        inputs.pop("attention_mask", None)  # windows of one length have nothing to mask
        if hasattr(self.model, "get_audio_features"):
            return features_of(self.model.get_audio_features(**inputs))
        encoder = self.model.get_encoder() if getattr(self.model.config, "is_encoder_decoder", False) else self.model
        output = encoder(**inputs)
        pooled = getattr(output, "pooler_output", None)
        if pooled is not None:
            return pooled.flatten(1)  # type: ignore[no-any-return]
        return output.last_hidden_state.mean(1)  # type: ignore[no-any-return]
