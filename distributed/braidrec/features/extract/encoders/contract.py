"""What every encoder is: prepared on any CPU, loaded and run where an actor holds it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

Medium = Literal["text", "image", "audio", "video"]
Prepared = NDArray[Any] | str
Vectors = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class State:
    """What an encoder learnt: plain arrays, and plain data that JSON holds."""

    arrays: Mapping[str, NDArray[Any]]
    info: Mapping[str, Any] = field(default_factory=dict)


class Encoder(ABC):
    """Media of one kind → vectors.

    Light until `load`: it is sent to tasks that only prepare. `prepare` and `encode` are functions of their arguments
    alone; how items are cut into batches changes a vector by no more than rounding.
    """

    medium: ClassVar[Medium]
    libraries: ClassVar[tuple[str, ...]]
    """Distributions whose versions decide what comes out."""
    batch: int
    """Items encoded together."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What decides the vectors: model, weights' hash, layer, pooling, pre-processing."""

    @abstractmethod
    def prepare(self, raw: bytes | str) -> Prepared:
        """One item's medium as what `encode` takes. Runs beside other tasks, without the weights.

        Raises:
            MediaError: broken or refused, with its reason.
        """

    @abstractmethod
    def load(self, device: torch.device) -> None:
        """Bring the weights into memory. Called once, before `encode`."""

    @abstractmethod
    def encode(self, prepared: Sequence[Prepared]) -> Vectors:
        """`[items, dim]` float32, of at least one item. A row of zeros says that nothing in the item was known."""

    def versions(self) -> dict[str, str]:
        return {name: version(name) for name in self.libraries}


class FittedEncoder(Encoder):
    """An encoder that first learns from items of the train split, without labels."""

    fit_items: int
    seed: int
    state: State | None = None

    @abstractmethod
    def fit(self, corpus: Sequence[Prepared]) -> State:
        """Learn from prepared media, in the same way for the same corpus and seed.

        Raises:
            ConfigError: nothing can be learnt from it, such as texts without a word in common.
        """

    def use(self, state: State) -> None:
        """What to encode with, from `fit` of this run or of an earlier one."""
        self.state = state

    def learnt(self) -> State:
        assert self.state is not None, "fit or use comes before load"
        return self.state
