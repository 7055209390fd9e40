"""Texts through a Sentence-Transformers model (Reimers and Gurevych, EMNLP 2019)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from braidrec.config.encoders import SentenceTransformersConfig
from braidrec.config.extract import LimitsConfig
from braidrec.features.extract.encoders.contract import Encoder, Prepared, Vectors
from braidrec.features.extract.texts import checked_text
from braidrec.features.extract.weights import model_folder

CHARACTERS_PER_TOKEN = 40
"""A tokeniser is not given more of a text than its model can read."""


class SentenceEncoder(Encoder):
    """The model's own pooling and normalisation; texts of a batch are encoded by length."""

    medium = "text"
    libraries = ("sentence-transformers", "transformers", "torch")

    def __init__(self, config: SentenceTransformersConfig, limits: LimitsConfig) -> None:
        import sentence_transformers  # noqa: F401 - a missing library is said before any work

        self.config = config
        self.limits = limits
        self.batch = config.batch
        self.weights = model_folder(config.weights)
        self.model: Any = None

    def facts(self) -> dict[str, Any]:
        return {
            "weights": self.weights.facts(),
            "pooling": "the model's own",
            "preprocessing": {"max_tokens": self.config.max_tokens or "the model's own"},
        }

    def prepare(self, raw: bytes | str) -> Prepared:
        return checked_text(raw, self.limits)

    def load(self, device: torch.device) -> None:
        from sentence_transformers import SentenceTransformer

        self.model = SentenceTransformer(
            str(self.weights.path), device=str(device), local_files_only=True, trust_remote_code=False
        )
        if self.config.max_tokens is not None:
            self.model.max_seq_length = self.config.max_tokens

    def encode(self, prepared: Sequence[Prepared]) -> Vectors:
        longest = (self.model.max_seq_length or 8192) * CHARACTERS_PER_TOKEN
        texts = [str(text)[:longest] for text in prepared]
        vectors = self.model.encode(
            texts, batch_size=self.batch, convert_to_numpy=True, show_progress_bar=False, normalize_embeddings=False
        )
        return np.asarray(vectors, np.float32)
