"""Texts through a model of the transformers library, such as BERT (Devlin et al., NAACL 2019)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from braidrec.config.encoders import TransformersTextConfig
from braidrec.config.extract import LimitsConfig
from braidrec.features.extract.encoders.contract import Encoder, Prepared, Vectors
from braidrec.features.extract.encoders.huggingface import load_model, masked_mean
from braidrec.features.extract.encoders.text_sentence import CHARACTERS_PER_TOKEN
from braidrec.features.extract.texts import checked_text
from braidrec.features.extract.weights import model_folder


class TransformersTextEncoder(Encoder):
    """The last layer's states: that of the first token, or the mean over all tokens."""

    medium = "text"
    libraries = ("transformers", "torch")

    def __init__(self, config: TransformersTextConfig, limits: LimitsConfig) -> None:
        import transformers  # noqa: F401 - a missing library is said before any work

        self.config = config
        self.limits = limits
        self.batch = config.batch
        self.weights = model_folder(config.weights)
        self.tokenizer: Any = None
        self.model: Any = None
        self.device = torch.device("cpu")

    def facts(self) -> dict[str, Any]:
        return {"weights": self.weights.facts(), "layer": "last"}

    def prepare(self, raw: bytes | str) -> Prepared:
        return checked_text(raw, self.limits)

    def load(self, device: torch.device) -> None:
        from transformers import AutoModel, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(
            str(self.weights.path), local_files_only=True, trust_remote_code=False
        )
        self.model = load_model(AutoModel, self.weights, device)
        self.device = device

    @torch.inference_mode()
    def encode(self, prepared: Sequence[Prepared]) -> Vectors:
        limit = min(
            self.config.max_tokens, getattr(self.model.config, "max_position_embeddings", self.config.max_tokens)
        )
        texts = [str(text)[: limit * CHARACTERS_PER_TOKEN] for text in prepared]
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        vectors = np.empty((len(texts), self.model.config.hidden_size), np.float32)
        for start in range(0, len(order), self.batch):
            rows = order[start : start + self.batch]
            tokens = self.tokenizer(
                [texts[row] for row in rows], padding=True, truncation=True, max_length=limit, return_tensors="pt"
            ).to(self.device)
            states = self.model(**tokens).last_hidden_state
            mean = self.config.pooling == "mean"
            pooled = masked_mean(states, tokens["attention_mask"]) if mean else states[:, 0]
            vectors[rows] = pooled.float().cpu().numpy()
        return vectors
