"""Sounds as statistics of their log-mel bands."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from braidrec.config.encoders import LogMelConfig
from braidrec.config.extract import LimitsConfig
from braidrec.features.extract.encoders.contract import Encoder, Prepared, Vectors
from braidrec.features.extract.sounds import decode_sound, log_mel


class LogMelEncoder(Encoder):
    """Mean, standard deviation, least and greatest of each band over the frames, one after the other."""

    medium = "audio"
    libraries = ("librosa", "soundfile", "scipy")

    def __init__(self, config: LogMelConfig, limits: LimitsConfig) -> None:
        import librosa  # noqa: F401 - a missing library is said before any work

        self.config = config
        self.limits = limits
        self.batch = config.batch

    def facts(self) -> dict[str, Any]:
        return {"pooling": "mean, standard deviation, least and greatest over frames"}

    def prepare(self, raw: bytes | str) -> Prepared:
        frames = log_mel(decode_sound(raw, self.config.mel.sample_rate, self.limits), self.config.mel)
        return np.concatenate([frames.mean(0), frames.std(0), frames.min(0), frames.max(0)])

    def load(self, device: torch.device) -> None:
        """There are no weights."""

    def encode(self, prepared: Sequence[Prepared]) -> Vectors:
        return np.stack([np.asarray(each, np.float32) for each in prepared])
