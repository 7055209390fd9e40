"""Sound files, and the sound of videos → mono samples; samples → log-mel frames."""

import io
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from braidrec.config.encoders import MelConfig
from braidrec.config.extract import LimitsConfig
from braidrec.features.extract.media import MediaError, checked_size

Samples = NDArray[np.float32]

FLOOR = 1e-10
"""Energy below which a band is silent, −100 dB."""


def decode_sound(content: bytes | str, sample_rate: int, limits: LimitsConfig) -> Samples:
    """Mono samples in −1…1 at `sample_rate`, at most `limits.max_seconds` of them.

    WAV, FLAC, Ogg and MP3 are read by libsndfile, everything else (AAC, Opus in WebM, the sound of a video) by FFmpeg.
    The rate is what the file says it is.

    Raises:
        MediaError: no sound in it, damaged, too short, or silent.
    """
    if isinstance(content, str):
        raise MediaError("not a sound", "the manifest gives a text here")
    checked_size(content, limits.max_bytes)
    try:
        samples, rate = _by_soundfile(content, limits)
    except soundfile.LibsndfileError:
        samples, rate = _by_av(content, limits)
    if len(samples) < limits.min_seconds * rate:
        raise MediaError(
            "too short", f"{len(samples) / rate:.3f} s of sound; limits.min_seconds is {limits.min_seconds}"
        )
    if not np.isfinite(samples).all():
        raise MediaError("corrupt sound", "samples that are NaN or infinite")
    peak = float(np.abs(samples).max())
    if peak <= 10 ** (limits.silence_dbfs / 20):
        raise MediaError("silent", f"its loudest sample is {peak:.1e}; limits.silence_dbfs is {limits.silence_dbfs}")
    return _resampled(samples, rate, sample_rate)


def _by_soundfile(content: bytes, limits: LimitsConfig) -> tuple[Samples, int]:
    with soundfile.SoundFile(io.BytesIO(content)) as file:
        rate = _checked_rate(file.samplerate)
        samples = file.read(frames=int(limits.max_seconds * rate), dtype="float32", always_2d=True)
    return samples.mean(1), rate


def _by_av(content: bytes, limits: LimitsConfig) -> tuple[Samples, int]:
    import av

    try:
        with av.open(io.BytesIO(content)) as container:
            if not container.streams.audio:
                raise MediaError("no sound", "the file has no sound track")
            stream = container.streams.audio[0]
            rate = _checked_rate(stream.rate)
            resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
            found: list[Any] = [np.zeros(0, np.float32)]
            count, most = 0, int(limits.max_seconds * rate)
            for frame in container.decode(stream):
                for mono in resampler.resample(frame):
                    found.append(mono.to_ndarray()[0])
                    count += len(found[-1])
                if count >= most:
                    break
            return np.concatenate(found)[:most].astype(np.float32), rate
    except av.FFmpegError as error:
        raise MediaError("corrupt sound", f"neither libsndfile nor FFmpeg reads it: {error}") from None


def _checked_rate(rate: int) -> int:
    if not 1000 <= rate <= 1_000_000:
        raise MediaError("wrong sample rate", f"the file says {rate} samples a second; wanted 1,000 to 1,000,000")
    return rate


def _resampled(samples: Samples, rate: int, wanted: int) -> Samples:
    """By a polyphase filter, which also keeps what lies above the new limit from folding back."""
    if rate == wanted:
        return np.ascontiguousarray(samples, np.float32)
    from math import gcd

    from scipy.signal import resample_poly

    common = gcd(rate, wanted)
    resampled: Samples = resample_poly(samples, wanted // common, rate // common).astype(np.float32)
    return resampled


def log_mel(samples: Samples, config: MelConfig) -> NDArray[np.float32]:
    """`[frames, mels]`: natural logarithm of the power in each band (Slaney's scale), by librosa."""
    import librosa

    window = int(config.sample_rate * config.window_ms / 1000)
    hop = max(1, int(config.sample_rate * config.hop_ms / 1000))
    size = 1 << (window - 1).bit_length()
    bands = librosa.feature.melspectrogram(
        y=np.asarray(samples, np.float32), sr=config.sample_rate, n_fft=size, win_length=window, hop_length=hop,
        n_mels=config.mels, power=2.0,
    )  # fmt: skip
    frames: NDArray[np.float32] = np.log(np.maximum(bands, FLOOR)).T.astype(np.float32)
    return np.ascontiguousarray(frames)
