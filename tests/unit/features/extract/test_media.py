"""Broken and unusual files: what is read, and what is rejected with which reason."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from encoder_checks import png, tone
from pyarrow.fs import LocalFileSystem

from braidrec.config.extract import LimitsConfig
from braidrec.data.storage import Location
from braidrec.features.extract.media import MediaError, read_medium

pytest.importorskip("soundfile", reason="the extra `extract` is not installed")
from PIL import Image

from braidrec.features.extract.images import decode_image
from braidrec.features.extract.sounds import decode_sound

LIMITS = LimitsConfig()


def reason_of(function, *arguments):
    with pytest.raises(MediaError) as refused:
        function(*arguments)
    return refused.value.reason


def saved(image, format="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def huge_png(side):
    """A header that promises side × side pixels, with next to nothing behind it."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "zero bytes"),
        (b"<html>404</html>", "not an image"),
        (png()[:500], "corrupt image"),
        (saved(Image.new("RGB", (300, 300), (9, 9, 9)), "JPEG")[:700], "corrupt image"),
        (png(1, 1), "too small"),
        (huge_png(20_000), "too many pixels"),
        (png(2000, 4), "too long"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\nshowpage\n", "not an image"),
        ("a text", "not an image"),
    ],
)
def test_broken_images(content, reason):
    assert reason_of(decode_image, content, LIMITS) == reason


def test_the_name_of_a_file_says_nothing_about_its_content(tmp_path):
    (tmp_path / "poster.jpg").write_bytes(png(20, 10))
    content = read_medium("poster.jpg", Location.of(tmp_path), LIMITS.max_bytes)
    assert decode_image(content, LIMITS).size == (20, 10)


def test_exif_orientation_turns_the_image():
    image = Image.new("RGB", (30, 10), (255, 0, 0))
    image.paste((0, 0, 255), (0, 0, 10, 10))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    turned = decode_image(saved(image, "JPEG", exif=exif, quality=95), LIMITS)
    assert turned.size == (10, 30)
    assert turned.getpixel((5, 5))[2] > 200 and turned.getpixel((5, 25))[0] > 200


def test_colour_modes_become_rgb():
    red = Image.new("RGB", (8, 8), (250, 0, 0))
    grey = Image.fromarray(np.full((8, 8), 32_768, np.uint16))
    clear = Image.new("RGBA", (8, 8), (250, 0, 0, 0))
    half = Image.new("LA", (8, 8), (0, 128))
    palette = red.quantize(4)
    see_through = Image.new("P", (8, 8), 0)
    see_through.putpalette([0, 0, 0] * 256)
    cases = [
        (saved(palette), (250, 0, 0)),
        (saved(red.convert("CMYK"), "TIFF"), (250, 0, 0)),
        (saved(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95), (255, 0, 0)),
        (saved(grey), (128, 128, 128)),
        (saved(Image.new("1", (8, 8), 1)), (255, 255, 255)),
        (saved(clear), (255, 255, 255)),
        (saved(half), (127, 127, 127)),
        (saved(see_through, transparency=0), (255, 255, 255)),
    ]
    for content, expected in cases:
        image = decode_image(content, LIMITS)
        assert image.mode == "RGB"
        np.testing.assert_allclose(image.getpixel((4, 4)), expected, atol=6)


def test_of_an_animation_the_first_frame_counts():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((250, 0, 0), (0, 250, 0))]
    content = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_allclose(decode_image(content, LIMITS).getpixel((1, 1)), (250, 0, 0), atol=6)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "zero bytes"),
        (b"not a sound, only words", "corrupt sound"),
        (tone(440, 0.0), "too short"),
        (tone(440, 0.01), "too short"),
        ("a text", "not a sound"),
    ],
)
def test_broken_sounds(content, reason):
    assert reason_of(decode_sound, content, 16_000, LIMITS) == reason


def test_silence_and_a_wrong_rate_are_rejected():
    import soundfile

    silent = io.BytesIO()
    soundfile.write(silent, np.zeros(16_000), 16_000, format="WAV")
    assert reason_of(decode_sound, silent.getvalue(), 16_000, LIMITS) == "silent"
    wrong = bytearray(tone(440))
    wrong[24:28] = struct.pack("<I", 3)  # samples a second, in a WAV's header
    assert reason_of(decode_sound, bytes(wrong), 16_000, LIMITS) == "wrong sample rate"


@pytest.mark.parametrize("format", ["WAV", "FLAC", "OGG", "MP3"])
def test_formats_rates_and_channels_give_the_same_tone(format):
    samples = decode_sound(tone(440, 1.0, 44_100, format, channels=2), 16_000, LIMITS)
    assert samples.dtype == np.float32
    assert len(samples) == pytest.approx(16_000, rel=0.1)
    spectrum = np.abs(np.fft.rfft(samples))
    assert np.argmax(spectrum) * 16_000 / len(samples) == pytest.approx(440, abs=2)


def test_a_long_sound_is_read_up_to_the_limit():
    assert len(decode_sound(tone(440, 2.0), 8000, LimitsConfig(max_seconds=0.5))) == 4000


def test_files_that_cannot_be_read(tmp_path):
    base = Location.of(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "big").write_bytes(b"x" * 100)
    assert reason_of(read_medium, "nothing.png", base, 99) == "missing file"
    assert reason_of(read_medium, "folder", base, 99) == "unreadable"
    assert reason_of(read_medium, "empty", base, 99) == "zero bytes"
    assert reason_of(read_medium, "big", base, 99) == "too large"
    assert reason_of(read_medium, "nofs://bucket/x", base, 99) == "unreadable"
    assert read_medium((tmp_path / "big").as_uri(), None, 100) == b"x" * 100


def test_addresses_of_files_may_be_quoted(tmp_path):
    (tmp_path / "a b%.png").write_bytes(b"content")
    assert read_medium((tmp_path / "a b%.png").as_uri(), None, 100) == b"content"
    assert "%20" in (tmp_path / "a b%.png").as_uri()
    assert read_medium("a b%.png", Location.of(tmp_path), 100) == b"content", "a path is taken as it is"


def test_what_may_never_end_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert reason_of(read_medium, "pipe", Location.of(tmp_path), 100) == "unreadable"
    assert reason_of(read_medium, "/dev/zero", None, 100) == "unreadable"


def test_no_more_is_read_than_is_allowed(tmp_path):
    """A file that grows after its size was looked at."""
    (tmp_path / "grows").write_bytes(b"x" * 1000)
    small = LocalFileSystem().get_file_info(str(tmp_path / "grows"))
    (tmp_path / "grows").write_bytes(b"x" * 5000)

    class Growing:
        def get_file_info(self, path):
            return small

        def open_input_stream(self, path, compression):
            return Watched(path)

    class Watched(io.FileIO):
        def read(self, most=-1):
            asked.append(most)
            return super().read(most)

    asked = []
    base = Location(uri="grow://x", filesystem=Growing(), path=str(tmp_path))
    assert reason_of(read_medium, "grows", base, 2000) == "too large"
    assert asked == [2001]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_entered(tmp_path):
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed" / "a.png").write_bytes(png())
    (tmp_path / "closed").chmod(0)
    try:
        assert reason_of(read_medium, "closed/a.png", Location.of(tmp_path), 10**6) in ("unreadable", "missing file")
    finally:
        (tmp_path / "closed").chmod(0o755)
