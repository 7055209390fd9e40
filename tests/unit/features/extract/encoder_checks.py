"""What every encoder must do, and the media that tests give it."""

import io

import numpy as np
import pytest
import torch

from braidrec.config.extract import ExtractConfig, LimitsConfig
from braidrec.config.load import validate
from braidrec.features.extract.encoders import build_encoder
from braidrec.features.extract.encoders.contract import Encoder, FittedEncoder

TEXTS = [
    "A green train crosses the old bridge",
    "The old train is slow",
    "Ein grüner Zug fährt über die Brücke",
    "звук старого поезда",
    "green green green",
    "A bridge, a train & a boat: 2 boats!",
    "boats under the green bridge at night " * 12,
    "the",
]


def make(limits: LimitsConfig | None = None, /, **encoder) -> Encoder:
    """An encoder as a configuration names it."""
    plain = {"data": "d", "modality": "m", "encoder": encoder}
    return build_encoder(validate(ExtractConfig, plain, "test").encoder, limits or LimitsConfig())


def ready(encoder: Encoder, raw) -> tuple[Encoder, list]:
    """Fitted where it has to be, loaded, with the prepared media."""
    prepared = [encoder.prepare(each) for each in raw]
    if isinstance(encoder, FittedEncoder):
        encoder.use(encoder.fit(prepared))
    encoder.load(torch.device("cpu"))
    return encoder, prepared


def check_contract(make_one, raw, dim: int, tolerance: float = 2e-5) -> np.ndarray:
    """Shape, type, determinism over two encoders made alike, and independence of how items are cut into batches."""
    encoder, prepared = ready(make_one(), raw)
    vectors = encoder.encode(prepared)
    assert vectors.shape == (len(raw), dim)
    assert vectors.dtype == np.float32
    assert np.isfinite(vectors).all()
    scale = np.abs(vectors).max()
    assert scale > 0
    alone = np.concatenate([encoder.encode([each]) for each in prepared])
    np.testing.assert_allclose(alone, vectors, atol=tolerance * scale)
    backwards = encoder.encode(prepared[::-1])[::-1]
    np.testing.assert_allclose(backwards, vectors, atol=tolerance * scale)
    again, prepared = ready(make_one(), raw)
    np.testing.assert_allclose(again.encode(prepared), vectors, atol=1e-6 * scale)
    assert len({row.tobytes() for row in vectors.round(6)}) == len({str(each) for each in raw}), "items are told apart"
    return vectors


def png(width: int = 40, height: int = 30, seed: int = 0, **save) -> bytes:
    from PIL import Image

    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, **{"format": "PNG", **save})
    return stream.getvalue()


def tone(frequency: float, seconds: float = 0.6, rate: int = 16_000, format: str = "WAV", channels: int = 1) -> bytes:
    import soundfile

    times = np.arange(int(seconds * rate)) / rate
    samples = 0.4 * np.sin(2 * np.pi * frequency * times).astype(np.float32)
    stream = io.BytesIO()
    soundfile.write(stream, np.stack([samples] * channels, 1), rate, format=format)
    return stream.getvalue()


def video(colours, seconds_each: float = 0.5, rate: int = 8, with_sound: bool = False, first: int = 0) -> bytes:
    """One colour after the other; MPEG-4 in MPEG-TS where the first frame has a number, else in Matroska."""
    av = pytest.importorskip("av")
    stream = io.BytesIO()
    count = first
    with av.open(stream, "w", format="mpegts" if first else "matroska") as container:
        picture = container.add_stream("mpeg4", rate=rate)
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream("pcm_s16le", rate=16_000, layout="mono") if with_sound else None
        for colour in colours:
            for _ in range(int(seconds_each * rate)):
                frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), colour, np.uint8), format="rgb24")
                frame.pts, count = count, count + 1
                container.mux(picture.encode(frame))
        container.mux(picture.encode(None))
        if sound is not None:
            samples = (8000 * np.sin(np.arange(16_000) * 0.2)).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
            frame.sample_rate = 16_000
            container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
    return stream.getvalue()
