"""Sounds through an LSTM or GRU over log-mel frames that is trained on the items' sounds, without labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.nn.utils.rnn import pack_padded_sequence

from braidrec.config.base import ConfigError
from braidrec.config.encoders import RecurrentAudioConfig
from braidrec.config.extract import LimitsConfig
from braidrec.features.extract.encoders.contract import FittedEncoder, Prepared, State, Vectors
from braidrec.features.extract.encoders.training import minibatches, seeded, state_arrays, with_arrays
from braidrec.features.extract.sounds import decode_sound, log_mel

CLIP = 5.0


class FrameNetwork(nn.Module):
    """Reads frames; its state after the last is the window's vector.

    next_frame: the state at each frame predicts the next one. reconstruction: a second network of the kind starts at
    the last state and reproduces the frames from the last to the first (Srivastava et al., ICML 2015).
    """

    def __init__(self, cell: str, mels: int, dim: int, reconstructs: bool) -> None:
        super().__init__()
        kind: Any = nn.LSTM if cell == "lstm" else nn.GRU
        self.reader = kind(mels, dim, batch_first=True)
        self.writer = kind(mels, dim, batch_first=True) if reconstructs else None
        self.frames = nn.Linear(dim, mels)

    def state(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """`[n, length, mels]`, `[n]` → `[n, dim]`; what stands after a window's end has no effect."""
        packed = pack_padded_sequence(frames, lengths.cpu(), batch_first=True, enforce_sorted=False)
        last = self.reader(packed)[1]
        found: Tensor = last[0][0] if isinstance(last, tuple) else last[0]
        return found

    def loss(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Mean squared error of whitened frames, over those that are there."""
        there = torch.arange(frames.shape[1])[None] < lengths[:, None]
        if self.writer is None:
            states, _ = self.reader(frames[:, :-1])
            return mse_loss(self.frames(states)[there[:, 1:]], frames[:, 1:][there[:, 1:]])
        packed = pack_padded_sequence(frames, lengths.cpu(), batch_first=True, enforce_sorted=False)
        last = self.reader(packed)[1]
        places = (lengths[:, None] - 1 - torch.arange(frames.shape[1])[None]).clamp(min=0)
        backwards = frames.gather(1, places[..., None].expand_as(frames))
        before = torch.cat([torch.zeros_like(backwards[:, :1]), backwards[:, :-1]], 1)
        states, _ = self.writer(before, last)
        return mse_loss(self.frames(states)[there], backwards[there])


class RecurrentAudioEncoder(FittedEncoder):
    """The mean of the states after each window of the sound."""

    medium = "audio"
    libraries = ("torch", "librosa", "soundfile", "scipy")

    def __init__(self, config: RecurrentAudioConfig, limits: LimitsConfig) -> None:
        import librosa  # noqa: F401 - a missing library is said before any work

        self.config = config
        self.limits = limits
        self.batch = config.batch
        self.fit_items, self.seed = config.fit_items, config.seed
        self.network: FrameNetwork | None = None
        self.device = torch.device("cpu")

    def facts(self) -> dict[str, Any]:
        return {"layer": "last state of a window", "pooling": "mean over windows"}

    def prepare(self, raw: bytes | str) -> Prepared:
        """`[frames, mels]`."""
        return log_mel(decode_sound(raw, self.config.mel.sample_rate, self.limits), self.config.mel)

    def fit(self, corpus: Sequence[Prepared]) -> State:
        windows = [window for sound in corpus for window in self._windows(np.asarray(sound)) if len(window) > 1]
        if not windows:
            raise ConfigError(
                f"encoder.kind=recurrent_audio: none of {len(corpus)} sounds of train items has a window of two frames "
                f"or more; raise encoder.window_frames={self.config.window_frames} or lower encoder.mel.hop_ms="
                f"{self.config.mel.hop_ms:g}"
            )
        every = np.concatenate(windows)
        mean, std = every.mean(0), np.maximum(every.std(0), 1e-3)
        with seeded(self.seed):
            network = self._network()
            optimizer = torch.optim.Adam(network.parameters(), self.config.learning_rate)
            for rows in minibatches(len(windows), self.config.train_batch, self.config.epochs, self.seed):
                frames, lengths = _padded([(windows[row] - mean) / std for row in rows])
                loss = network.loss(frames, lengths)
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                nn.utils.clip_grad_norm_(network.parameters(), CLIP)
                optimizer.step()
        arrays = {f"network.{name}": value for name, value in state_arrays(network).items()}
        return State(arrays={**arrays, "mean": mean.astype(np.float32), "std": std.astype(np.float32)})

    def load(self, device: torch.device) -> None:
        arrays = self.learnt().arrays
        own = {name.removeprefix("network."): value for name, value in arrays.items() if name.startswith("network.")}
        self.network = with_arrays(self._network(), own).eval().to(device)
        self.device = device

    @torch.inference_mode()
    def encode(self, prepared: Sequence[Prepared]) -> Vectors:
        assert self.network is not None
        mean, std = self.learnt().arrays["mean"], self.learnt().arrays["std"]
        windows = [self._windows((np.asarray(sound) - mean) / std) for sound in prepared]
        owners = np.repeat(np.arange(len(windows)), [len(own) for own in windows])
        flat = [window for own in windows for window in own]
        order = sorted(range(len(flat)), key=lambda place: len(flat[place]))
        states = np.empty((len(flat), self.config.dim), np.float32)
        for start in range(0, len(order), self.batch):
            places = order[start : start + self.batch]
            frames, lengths = _padded([flat[place] for place in places])
            states[places] = self.network.state(frames.to(self.device), lengths).cpu().numpy()
        vectors = np.zeros((len(prepared), self.config.dim), np.float32)
        np.add.at(vectors, owners, states)
        found: Vectors = (vectors / np.bincount(owners)[:, None]).astype(np.float32)
        return found

    def _windows(self, frames: NDArray[Any]) -> list[NDArray[Any]]:
        size = self.config.window_frames
        return [frames[start : start + size] for start in range(0, len(frames), size)]

    def _network(self) -> FrameNetwork:
        config = self.config
        return FrameNetwork(config.cell, config.mel.mels, config.dim, config.objective == "reconstruction")


def _padded(windows: Sequence[NDArray[Any]]) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(window) for window in windows])
    frames = torch.zeros(len(windows), int(lengths.max()), windows[0].shape[1])
    for row, window in enumerate(windows):
        frames[row, : len(window)] = torch.from_numpy(np.ascontiguousarray(window, np.float32))
    return frames, lengths
