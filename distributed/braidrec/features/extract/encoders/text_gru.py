"""Texts through a GRU over words that is trained on the items' texts, without labels."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pack_padded_sequence

from braidrec.config.base import ConfigError
from braidrec.config.encoders import GruTextConfig
from braidrec.config.extract import LimitsConfig
from braidrec.features.extract.encoders.contract import FittedEncoder, Prepared, State, Vectors
from braidrec.features.extract.encoders.training import minibatches, seeded, state_arrays, with_arrays
from braidrec.features.extract.texts import checked_text, words_of

PADDING, UNKNOWN, START, END = range(4)
SPECIAL = 4
CLIP = 5.0


class WordGru(nn.Module):
    """Reads word numbers; its state after the last word is the text's vector.

    autoencoder: a second GRU starts at that state and writes the text anew, each word from the true one before it.
    next_token: the reader's own state at each word predicts the next.
    """

    def __init__(self, num_words: int, word_dim: int, dim: int, is_autoencoder: bool) -> None:
        super().__init__()
        self.words = nn.Embedding(num_words, word_dim, padding_idx=PADDING)
        self.reader = nn.GRU(word_dim, dim, batch_first=True)
        self.writer = nn.GRU(word_dim, dim, batch_first=True) if is_autoencoder else None
        self.scores = nn.Linear(dim, num_words)

    def state(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """`[n, length]` words, `[n]` lengths → `[n, dim]`; what stands after a text's end has no effect."""
        packed = pack_padded_sequence(self.words(tokens), lengths.cpu(), batch_first=True, enforce_sorted=False)
        _, last = self.reader(packed)
        found: Tensor = last[0]
        return found

    def loss(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Mean cross-entropy of the words of `START … END`, in nats a word."""
        if self.writer is None:
            states, _ = self.reader(self.words(tokens[:, :-1]))
        else:
            read = self.state(tokens, lengths)
            states, _ = self.writer(self.words(tokens[:, :-1]), read[None].contiguous())
        targets = tokens[:, 1:]
        return cross_entropy(self.scores(states).flatten(0, 1), targets.flatten(), ignore_index=PADDING)


class GruTextEncoder(FittedEncoder):
    medium = "text"
    libraries = ("torch",)

    def __init__(self, config: GruTextConfig, limits: LimitsConfig) -> None:
        self.config = config
        self.limits = limits
        self.batch = config.batch
        self.fit_items, self.seed = config.fit_items, config.seed
        self.places: dict[str, int] = {}
        self.network: WordGru | None = None
        self.device = torch.device("cpu")

    def facts(self) -> dict[str, Any]:
        return {"preprocessing": {"words": "case-folded runs of letters and digits"}, "layer": "last state"}

    def prepare(self, raw: bytes | str) -> Prepared:
        return checked_text(raw, self.limits)

    def fit(self, corpus: Sequence[Prepared]) -> State:
        texts = [words_of(str(text)) for text in corpus]
        counts = Counter(word for text in texts for word in text)
        if not counts:
            raise ConfigError(f"encoder.kind=gru_text: none of {len(corpus)} texts of train items holds a word")
        # the most frequent ones; of equally frequent ones, in the order of the alphabet
        words = sorted(counts, key=lambda word: (-counts[word], word))[: self.config.max_words]
        self.places = {word: SPECIAL + place for place, word in enumerate(words)}
        numbers = [self._numbers(text) for text in texts if text]
        with seeded(self.seed):
            network = self._network(len(words))
            optimizer = torch.optim.Adam(network.parameters(), self.config.learning_rate)
            for rows in minibatches(len(numbers), self.config.train_batch, self.config.epochs, self.seed):
                tokens, lengths = _padded([numbers[row] for row in rows])
                loss = network.loss(tokens, lengths)
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                nn.utils.clip_grad_norm_(network.parameters(), CLIP)
                optimizer.step()
        return State(arrays=state_arrays(network), info={"words": words})

    def load(self, device: torch.device) -> None:
        words = self.learnt().info["words"]
        self.places = {word: SPECIAL + place for place, word in enumerate(words)}
        self.network = with_arrays(self._network(len(words)), self.learnt().arrays).eval().to(device)
        self.device = device

    @torch.inference_mode()
    def encode(self, prepared: Sequence[Prepared]) -> Vectors:
        assert self.network is not None
        texts = [words_of(str(text)) for text in prepared]
        vectors = np.zeros((len(texts), self.config.dim), np.float32)
        known = [row for row, text in enumerate(texts) if any(word in self.places for word in text)]
        order = sorted(known, key=lambda row: len(texts[row]))
        for start in range(0, len(order), self.batch):
            rows = order[start : start + self.batch]
            tokens, lengths = _padded([self._numbers(texts[row]) for row in rows])
            vectors[rows] = self.network.state(tokens.to(self.device), lengths).cpu().numpy()
        return vectors

    def _numbers(self, text: list[str]) -> list[int]:
        return [START, *(self.places.get(word, UNKNOWN) for word in text[: self.config.max_tokens]), END]

    def _network(self, num_words: int) -> WordGru:
        config = self.config
        return WordGru(SPECIAL + num_words, config.word_dim, config.dim, config.objective == "autoencoder")


def _padded(numbers: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(each) for each in numbers])
    tokens = torch.full((len(numbers), int(lengths.max())), PADDING)
    for row, each in enumerate(numbers):
        tokens[row, : len(each)] = torch.tensor(each)
    return tokens, lengths
