"""Videos of plain colours: which frames are taken, and how they are pooled."""

import numpy as np
import pytest
from encoder_checks import check_contract, make, ready, video

from braidrec.config.extract import LimitsConfig
from braidrec.features.extract.media import MediaError

pytest.importorskip("av", reason="the extra `extract` is not installed")
pytest.importorskip("torchvision", reason="the extra `extract` is not installed")

RED, GREEN, BLUE, GREY = (200, 20, 20), (20, 180, 20), (20, 20, 200), (128, 128, 128)
IMAGE = {"kind": "torchvision", "model": "resnet18", "preprocessing": {"resize": 32, "crop": 32}}


def colours(prepared):
    return prepared.astype(float).mean((2, 3))


def test_frames_are_taken_from_the_middles_of_equal_stretches():
    prepared = make(kind="video", frames=4, image=IMAGE).prepare(video([RED, GREEN, BLUE, GREY]))
    assert prepared.shape == (4, 3, 32, 32)
    np.testing.assert_allclose(colours(prepared), [RED, GREEN, BLUE, GREY], atol=12)


def test_moments_count_from_where_a_recording_starts():
    """A stretch that was cut out of a longer recording keeps its times."""
    settings = {"kind": "video", "frames": 4, "image": IMAGE}
    late = video([RED, GREEN, BLUE, GREY], first=100)
    np.testing.assert_allclose(colours(make(**settings).prepare(late)), [RED, GREEN, BLUE, GREY], atol=12)


def test_a_video_that_is_too_short_is_rejected():
    content = video([RED], seconds_each=0.5)
    with pytest.raises(MediaError, match=r"limits.min_seconds is 2") as refused:
        make(LimitsConfig(min_seconds=2.0), kind="video", image=IMAGE).prepare(content)
    assert refused.value.reason == "too short"


def test_frames_at_a_rate_and_at_most_so_many():
    content = video([RED, GREEN, BLUE, GREY])
    prepared = make(kind="video", frames=100, rate=2.0, image=IMAGE).prepare(content)
    np.testing.assert_allclose(colours(prepared)[:4], [RED, GREEN, BLUE, GREY], atol=12)
    assert len(make(kind="video", frames=2, rate=2.0, image=IMAGE).prepare(content)) == 2


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_pooling_is_over_the_frames_vectors(pooling):
    settings = {"kind": "video", "frames": 3, "pooling": pooling, "image": IMAGE}
    raw = [video([RED, GREEN, BLUE]), video([GREY]), video([BLUE, RED])]
    found = check_contract(lambda: make(**settings), raw, 512, tolerance=1e-4)
    image, _ = ready(make(**IMAGE), [])
    frames = image.encode(list(make(**settings).prepare(raw[0])))
    expected = frames.max(0) if pooling == "max" else frames.mean(0)
    np.testing.assert_allclose(found[0], expected, rtol=1e-4, atol=1e-5)


def test_the_sound_of_a_video_goes_through_an_audio_encoder():
    encoder, prepared = ready(make(kind="log_mel"), [video([RED], seconds_each=1.0, with_sound=True)])
    assert encoder.encode(prepared).shape == (1, 256)
    with pytest.raises(MediaError) as refused:
        encoder.prepare(video([RED]))
    assert refused.value.reason == "no sound"


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "zero bytes"), (b"no video at all, but some text", "corrupt video"), (video([RED])[:300], "corrupt video")],
)
def test_broken_videos_are_rejected(content, reason):
    with pytest.raises(MediaError) as refused:
        make(kind="video", image=IMAGE).prepare(content)
    assert refused.value.reason == reason


def test_frames_with_too_many_pixels_are_rejected():
    with pytest.raises(MediaError, match="64 × 48"):
        make(LimitsConfig(max_pixels=1000), kind="video", image=IMAGE).prepare(video([RED]))
