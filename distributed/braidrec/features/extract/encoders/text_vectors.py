"""Texts as averages of word vectors, learnt from the items' own texts or read from a file."""

import gzip
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import torch
from numpy.typing import NDArray

from braidrec.config.base import ConfigError
from braidrec.config.encoders import Word2VecConfig, WordVectorsConfig
from braidrec.config.extract import LimitsConfig
from braidrec.features.extract.encoders.contract import FittedEncoder, Prepared, State, Vectors
from braidrec.features.extract.texts import checked_text, words_of
from braidrec.features.extract.weights import weights_file

SIF_A = 1e-3
WORD_FILES = (".txt", ".vec", ".bin", ".gz")


class _AveragedWords(FittedEncoder):
    """`Σ_w weight(w) · vector(w) / number of words`, over the words that have a vector.

    weight is 1, or a / (a + p(w)) with p the word's share of the train items' words (Arora et al., ICLR 2017). The
    first principal directions of the train items' vectors can be taken out of every vector.
    """

    medium = "text"
    config: Any

    def __init__(self, config: Any, limits: LimitsConfig) -> None:
        self.config = config
        self.limits = limits
        self.batch = config.batch
        self.fit_items, self.seed = config.fit_items, config.seed
        self.places: dict[str, int] = {}

    def facts(self) -> dict[str, Any]:
        return {"preprocessing": {"words": "case-folded runs of letters and digits"}}

    def prepare(self, raw: bytes | str) -> Prepared:
        return checked_text(raw, self.limits)

    @abstractmethod
    def word_vectors(self, corpus: Sequence[list[str]]) -> tuple[list[str], NDArray[np.float32]]:
        """Words and their vectors `[words, dim]`."""

    def fit(self, corpus: Sequence[Prepared]) -> State:
        texts = [words_of(str(text)) for text in corpus]
        words, vectors = self.word_vectors(texts)
        counts = Counter(word for text in texts for word in text)
        share = np.array([counts[word] for word in words], np.float64) / max(1, sum(counts.values()))
        weights = SIF_A / (SIF_A + share) if self.config.weighting == "sif" else np.ones(len(words))
        arrays = {"vectors": vectors, "weights": weights.astype(np.float32)}
        arrays["directions"] = np.zeros((0, vectors.shape[1]), np.float32)
        if self.config.remove_components:
            places = {word: place for place, word in enumerate(words)}
            averages = _averages(texts, places, arrays["vectors"], arrays["weights"])
            _, _, right = np.linalg.svd(averages.astype(np.float64), full_matrices=False)
            arrays["directions"] = right[: self.config.remove_components].astype(np.float32)
        return State(arrays=arrays, info={"words": words})

    def load(self, device: torch.device) -> None:
        self.places = {word: place for place, word in enumerate(self.learnt().info["words"])}

    def encode(self, prepared: Sequence[Prepared]) -> Vectors:
        arrays = self.learnt().arrays
        texts = [words_of(str(text)) for text in prepared]
        vectors = _averages(texts, self.places, arrays["vectors"], arrays["weights"])
        directions = arrays["directions"]
        found: Vectors = (vectors - vectors @ directions.T @ directions).astype(np.float32)
        return found


class Word2VecEncoder(_AveragedWords):
    """Skip-gram or CBOW with negative samples (Mikolov et al., 2013), learnt from the train items' texts."""

    libraries = ("gensim",)

    def __init__(self, config: Word2VecConfig, limits: LimitsConfig) -> None:
        import gensim  # noqa: F401 - a missing library is said before any work

        super().__init__(config, limits)

    def word_vectors(self, corpus: Sequence[list[str]]) -> tuple[list[str], NDArray[np.float32]]:
        from gensim.models import Word2Vec

        config = self.config
        try:
            # One thread: with several, the order of updates, and with it the result, is chance.
            model = Word2Vec(
                list(corpus), vector_size=config.dim, window=config.window, min_count=config.min_count, workers=1,
                sg=int(config.algorithm == "skip_gram"), epochs=config.epochs, seed=self.seed % 2**31,
            )  # fmt: skip
        except RuntimeError:
            raise ConfigError(
                f"encoder.min_count={config.min_count}: no word of {len(corpus)} texts occurs so often; lower it"
            ) from None
        return list(model.wv.index_to_key), np.asarray(model.wv.vectors, np.float32)


class WordVectorsEncoder(_AveragedWords):
    """GloVe (Pennington et al., EMNLP 2014), fastText's or word2vec's files. Kept are the words that items may use:
    all, since items that come later have others than the train items."""

    libraries = ("numpy",)

    def __init__(self, config: WordVectorsConfig, limits: LimitsConfig) -> None:
        super().__init__(config, limits)
        self.weights = weights_file(config.weights, WORD_FILES)

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "weights": self.weights.facts()}

    def word_vectors(self, corpus: Sequence[list[str]]) -> tuple[list[str], NDArray[np.float32]]:
        words, rows = [], []
        for word, vector in read_word_vectors(self.weights.path, self.config.format):
            words.append(word)
            rows.append(vector)
        if not words:
            raise ConfigError(f"encoder.weights={self.weights.name}: no word in it")
        return words, np.stack(rows)


def read_word_vectors(file: Path, kind: str = "auto") -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Words and vectors, one at a time; a word that comes again in another case is left out.

    Raises:
        ConfigError: a line (or record) that is no word with as many numbers as the first one has. It says which.
    """
    binary = kind == "binary" or (kind == "auto" and file.name.removesuffix(".gz").endswith(".bin"))
    seen: set[str] = set()
    with cast(BinaryIO, gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb")) as stream:
        records: Iterable[tuple[str, NDArray[np.float32]]] = (_binary if binary else _text)(stream, file)
        for word, vector in records:
            folded = word.casefold()
            if folded not in seen:
                seen.add(folded)
                yield folded, vector


def _text(stream: BinaryIO, file: Path) -> Iterator[tuple[str, NDArray[np.float32]]]:
    dim: int | None = None
    for number, line in enumerate(stream, start=1):
        parts = line.rstrip().split(b" ")
        if number == 1 and len(parts) == 2:
            dim = int(parts[1])  # word2vec's header: number of words, numbers a word
            continue
        dim = len(parts) - 1 if dim is None else dim
        try:
            # a few words of GloVe's largest files have spaces inside
            word = b" ".join(parts[:-dim]).decode("utf-8")
            vector = np.array(parts[-dim:], np.float32)
        except (UnicodeDecodeError, ValueError):
            word, vector = "", np.zeros(0, np.float32)
        if not word or len(vector) != dim or not np.isfinite(vector).all():
            raise ConfigError(f"{file}, line {number}: no word with {dim} numbers: {line[:60]!r}")
        yield word, vector


def _binary(stream: BinaryIO, file: Path) -> Iterator[tuple[str, NDArray[np.float32]]]:
    head = stream.readline().split()
    if len(head) != 2 or not all(part.isdigit() for part in head):
        raise ConfigError(f"{file}: not word2vec's binary format (its first line says words and dim); set format=text")
    count, dim = int(head[0]), int(head[1])
    for number in range(count):
        word = bytearray()
        while (byte := stream.read(1)) not in (b" ", b""):
            word += byte
        content = stream.read(4 * dim)
        if len(content) < 4 * dim:
            raise ConfigError(f"{file}: ends at word {number} of {count}; the file is truncated: copy it again")
        yield word.lstrip(b"\n").decode("utf-8", "replace"), np.frombuffer(content, "<f4").astype(np.float32)


def _averages(
    texts: Sequence[list[str]], places: dict[str, int], vectors: NDArray[Any], weights: NDArray[Any]
) -> NDArray[np.float32]:
    found = np.zeros((len(texts), vectors.shape[1]), np.float32)
    for row, text in enumerate(texts):
        known = [place for word in text if (place := places.get(word)) is not None]
        if known:
            found[row] = (weights[known, None] * vectors[known]).mean(0)
    return found
