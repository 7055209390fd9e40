"""Texts as paragraph vectors (Le and Mikolov, ICML 2014), by gensim."""

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from braidrec.config.base import ConfigError
from braidrec.config.encoders import Doc2VecConfig
from braidrec.config.extract import LimitsConfig
from braidrec.features.extract.encoders.contract import FittedEncoder, Prepared, State, Vectors
from braidrec.features.extract.texts import checked_text, words_of


class Doc2VecEncoder(FittedEncoder):
    """PV-DM or PV-DBOW, learnt from the train items. Every item's vector, also a train item's, is inferred from its
    text with the words fixed, so that equal texts have equal vectors and new items are treated alike."""

    medium = "text"
    libraries = ("gensim",)

    def __init__(self, config: Doc2VecConfig, limits: LimitsConfig) -> None:
        import gensim  # noqa: F401 - a missing library is said before any work

        self.config = config
        self.limits = limits
        self.batch = config.batch
        self.fit_items, self.seed = config.fit_items, config.seed
        self.model: Any = None

    def facts(self) -> dict[str, Any]:
        return {"preprocessing": {"words": "case-folded runs of letters and digits"}}

    def prepare(self, raw: bytes | str) -> Prepared:
        return checked_text(raw, self.limits)

    def fit(self, corpus: Sequence[Prepared]) -> State:
        from gensim.models.doc2vec import TaggedDocument

        documents = [TaggedDocument(words_of(str(text)), [row]) for row, text in enumerate(corpus)]
        model = self._model()
        model.build_vocab(documents)
        if not len(model.wv):
            raise ConfigError(
                f"encoder.min_count={self.config.min_count}: no word of {len(corpus)} texts occurs so often; lower it"
            )
        model.train(documents, total_examples=len(documents), epochs=model.epochs)
        counts = {word: int(model.wv.get_vecattr(word, "count")) for word in model.wv.index_to_key}
        return State(arrays={"words": model.wv.vectors, "output": model.syn1neg}, info={"counts": counts})

    def load(self, device: torch.device) -> None:
        model = self._model()
        model.build_vocab_from_freq(dict(self.learnt().info["counts"]), corpus_count=1)
        model.dv.vectors = np.zeros((1, self.config.dim), np.float32)
        order = {word: place for place, word in enumerate(self.learnt().info["counts"])}
        rows = [order[word] for word in model.wv.index_to_key]
        model.init_weights()
        model.wv.vectors = np.ascontiguousarray(self.learnt().arrays["words"][rows])
        model.syn1neg = np.ascontiguousarray(self.learnt().arrays["output"][rows])
        self.model = model

    def encode(self, prepared: Sequence[Prepared]) -> Vectors:
        return np.stack([self._infer(words_of(str(text))) for text in prepared]).astype(np.float32)

    def _infer(self, words: list[str]) -> Any:
        words = [word for word in words if word in self.model.wv]
        if not words:
            return np.zeros(self.config.dim, np.float32)
        # Both are gensim's chance: negatives, and the start, which it takes from Python's own, changing hash.
        self.model.random = np.random.RandomState(self.seed % 2**32)
        start = np.random.default_rng([self.seed, zlib.crc32(" ".join(words).encode())])
        from gensim.models import doc2vec

        own = doc2vec.pseudorandom_weak_vector
        doc2vec.pseudorandom_weak_vector = lambda size, **_: ((start.random(size) - 0.5) / size).astype(np.float32)
        try:
            return self.model.infer_vector(words)
        finally:
            doc2vec.pseudorandom_weak_vector = own

    def _model(self) -> Any:
        from gensim.models import Doc2Vec

        config = self.config
        return Doc2Vec(
            vector_size=config.dim, window=config.window, min_count=config.min_count, epochs=config.epochs, workers=1,
            dm=int(config.algorithm == "pv_dm"), seed=self.seed % 2**31,
        )  # fmt: skip
