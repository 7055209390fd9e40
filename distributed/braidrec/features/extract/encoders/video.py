"""Videos: some of their frames through an image encoder, pooled over time."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from braidrec.config.encoders import VideoConfig
from braidrec.config.extract import LimitsConfig
from braidrec.features.extract.encoders.contract import Encoder, Prepared, Vectors
from braidrec.features.extract.encoders.image_torchvision import TorchvisionEncoder
from braidrec.features.extract.encoders.image_transformers import TransformersImageEncoder
from braidrec.features.extract.images import checked_shape
from braidrec.features.extract.media import MediaError, checked_size


class VideoEncoder(Encoder):
    """Mean or maximum over frames of an image encoder's vectors; no attention, so the frames' order has no effect."""

    medium = "video"

    def __init__(self, config: VideoConfig, limits: LimitsConfig) -> None:
        import av  # noqa: F401 - a missing library is said before any work

        self.config = config
        self.limits = limits
        self.batch = config.batch
        kind: Any = TorchvisionEncoder if config.image.kind == "torchvision" else TransformersImageEncoder
        self.image: TorchvisionEncoder | TransformersImageEncoder = kind(config.image, limits)
        self.libraries = ("av", *self.image.libraries)  # type: ignore[misc]

    def facts(self) -> dict[str, Any]:
        return {**self.image.facts(), "pooling": f"{self.config.pooling} over frames"}

    def prepare(self, raw: bytes | str) -> Prepared:
        """`[frames, 3, height, width]`."""
        return np.stack([np.asarray(self.image.pixels_from(frame)) for frame in self._frames(raw)])

    def load(self, device: torch.device) -> None:
        self.image.load(device)

    def encode(self, prepared: Sequence[Prepared]) -> Vectors:
        vectors = []
        for frames in prepared:  # one video at a time: its frames are a batch
            found = self.image.encode(list(np.asarray(frames)))
            vectors.append(found.max(0) if self.config.pooling == "max" else found.mean(0))
        return np.stack(vectors)

    def _frames(self, raw: bytes | str) -> list[Image.Image]:
        import av

        if isinstance(raw, str):
            raise MediaError("not a video", "the manifest gives a text here")
        checked_size(raw, self.limits.max_bytes)
        try:
            with av.open(io.BytesIO(raw)) as container:
                if not container.streams.video:
                    raise MediaError("no picture", "the file has no picture track")
                return self._chosen(container)
        except av.FFmpegError as error:
            raise MediaError("corrupt video", f"FFmpeg does not read it: {error}") from None

    def _chosen(self, container: Any) -> list[Image.Image]:
        """The frames at the wanted moments. All are decoded in turn, since seeking finds key frames only."""
        stream = container.streams.video[0]
        checked_shape(stream.width, stream.height, self.limits)
        length = _length(container, stream)
        if 0 < length < self.limits.min_seconds:  # 0: the file does not say
            raise MediaError("too short", f"{length:.3f} s; limits.min_seconds is {self.limits.min_seconds}")
        seconds = min(length, self.limits.max_seconds)
        wanted = self._moments(seconds)
        found: list[Image.Image] = []
        last: Any = None
        start = float((stream.start_time or 0) * (stream.time_base or 0))  # of a recording cut out of a longer one
        for frame in container.decode(stream):
            moment = float(frame.time or 0.0) - start
            while len(found) < len(wanted) and wanted[len(found)] <= moment:
                found.append(frame.to_image())
            last = frame
            if len(found) == len(wanted):
                break
        if last is None:
            raise MediaError("corrupt video", "no frame in it can be decoded")
        return found or [last.to_image()]

    def _moments(self, seconds: float) -> list[float]:
        """The middles of as many equal stretches as frames are wanted; with a rate, from the start at its distances."""
        if self.config.rate is not None:
            count = max(1, min(self.config.frames, int(seconds * self.config.rate) + 1))
            return [number / self.config.rate for number in range(count)]
        return [(number + 0.5) * seconds / self.config.frames for number in range(self.config.frames)]


def _length(container: Any, stream: Any) -> float:
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return float(container.duration or 0) / 1_000_000
