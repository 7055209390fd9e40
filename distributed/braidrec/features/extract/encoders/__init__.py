"""Encoders, one file a family, and the table by which a configuration finds its own."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from braidrec.config.base import ConfigError
from braidrec.config.extract import LimitsConfig
from braidrec.features.extract.encoders.contract import Encoder

_HERE = "braidrec.features.extract.encoders"
ENCODERS: dict[str, tuple[str, str]] = {
    "torchvision": ("image_torchvision", "TorchvisionEncoder"),
    "transformers_image": ("image_transformers", "TransformersImageEncoder"),
    "sentence_transformers": ("text_sentence", "SentenceEncoder"),
    "transformers_text": ("text_transformer", "TransformersTextEncoder"),
    "tfidf": ("text_tfidf", "TfidfEncoder"),
    "word2vec": ("text_vectors", "Word2VecEncoder"),
    "word_vectors": ("text_vectors", "WordVectorsEncoder"),
    "doc2vec": ("text_doc2vec", "Doc2VecEncoder"),
    "gru_text": ("text_gru", "GruTextEncoder"),
    "log_mel": ("audio_log_mel", "LogMelEncoder"),
    "recurrent_audio": ("audio_recurrent", "RecurrentAudioEncoder"),
    "transformers_audio": ("audio_transformers", "TransformersAudioEncoder"),
    "video": ("video", "VideoEncoder"),
}
"""Module and class of each kind; imported on use, because each needs other libraries."""


def build_encoder(config: Any, limits: LimitsConfig) -> Encoder:
    """The encoder that a configuration describes. Its weights are found and hashed, not loaded.

    Raises:
        ConfigError: a library of the extra `extract` is not installed, weights that are not where they should be, a
            model or layer that does not exist.
    """
    module, name = ENCODERS[config.kind]
    try:
        kind: Callable[[Any, LimitsConfig], Encoder] = getattr(import_module(f"{_HERE}.{module}"), name)
        return kind(config, limits)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("braidrec"):
            raise
        raise ConfigError(
            f"encoder.kind={config.kind} needs {error.name}, which is not installed: pip install 'braidrec[extract]'"
        ) from None
