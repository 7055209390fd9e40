"""Texts as TF-IDF, reduced by a truncated SVD."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from braidrec.config.base import ConfigError
from braidrec.config.encoders import TfidfConfig
from braidrec.config.extract import LimitsConfig
from braidrec.features.extract.encoders.contract import FittedEncoder, Prepared, State, Vectors
from braidrec.features.extract.texts import checked_text, words_of


class TfidfEncoder(FittedEncoder):
    """`tf · (1 + ln((1 + n) / (1 + df)))`, rows of length one (scikit-learn's definition), times the right singular
    vectors of the train items' matrix: latent semantic analysis (Deerwester et al., 1990)."""

    medium = "text"
    libraries = ("scikit-learn",)

    def __init__(self, config: TfidfConfig, limits: LimitsConfig) -> None:
        self.config = config
        self.limits = limits
        self.batch = config.batch
        self.fit_items, self.seed = config.fit_items, config.seed
        self.vectorizer: TfidfVectorizer | None = None

    def facts(self) -> dict[str, Any]:
        return {"preprocessing": {"words": "case-folded runs of letters and digits"}}

    def prepare(self, raw: bytes | str) -> Prepared:
        return checked_text(raw, self.limits)

    def fit(self, corpus: Sequence[Prepared]) -> State:
        vectorizer = self._vectorizer(max_features=self.config.max_words, min_df=self.config.min_items)
        try:
            matrix = vectorizer.fit_transform([str(text) for text in corpus])
        except ValueError as error:
            raise ConfigError(
                f"encoder.kind=tfidf: {len(corpus)} texts of train items have no word in common ({error}); lower "
                f"encoder.min_items={self.config.min_items}"
            ) from None
        vocabulary = {str(word): int(place) for word, place in vectorizer.vocabulary_.items()}
        arrays: dict[str, Any] = {"idf": vectorizer.idf_}
        if self.config.dim is not None:
            most = min(matrix.shape) - 1
            if self.config.dim > most:
                raise ConfigError(
                    f"encoder.dim={self.config.dim}: {matrix.shape[0]} texts with {matrix.shape[1]} words allow "
                    f"at most {most} components; lower it"
                )
            reduction = TruncatedSVD(self.config.dim, algorithm="randomized", n_iter=7, random_state=self.seed % 2**32)
            arrays["components"] = reduction.fit(matrix).components_
        return State(arrays=arrays, info={"vocabulary": vocabulary})

    def load(self, device: torch.device) -> None:
        vectorizer = self._vectorizer(vocabulary=dict(self.learnt().info["vocabulary"]))
        vectorizer.idf_ = np.asarray(self.learnt().arrays["idf"])
        self.vectorizer = vectorizer

    def encode(self, prepared: Sequence[Prepared]) -> Vectors:
        assert self.vectorizer is not None
        matrix = self.vectorizer.transform([str(text) for text in prepared])
        components = self.learnt().arrays.get("components")
        dense = matrix.toarray() if components is None else matrix @ np.asarray(components).T
        return np.asarray(dense, np.float32)

    def _vectorizer(self, **options: Any) -> TfidfVectorizer:
        return TfidfVectorizer(
            tokenizer=words_of, token_pattern=None, lowercase=False, ngram_range=(1, self.config.ngrams),
            sublinear_tf=self.config.sublinear, **options,
        )  # fmt: skip
