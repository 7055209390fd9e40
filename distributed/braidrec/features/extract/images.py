"""Image files → RGB pixels."""

import io
import warnings
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from braidrec.config.extract import ImageLimitsConfig
from braidrec.features.extract.media import MediaError, checked_size

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO", "PSD", "DDS", "QOI")
"""What a catalogue's pictures come in. Not all that Pillow knows: EPS runs Ghostscript on the file, others read as
pictures what is none."""
Image.MAX_IMAGE_PIXELS = None
"""The limit is ours: it is configured, checked on the header, and says which image it was."""


def decode_image(content: bytes | str, limits: ImageLimitsConfig) -> Image.Image:
    """An upright RGB image.

    The format is told by the content, never by the name. EXIF orientation is applied; palettes, CMYK, grey of 1, 8 and
    16 bits become RGB; transparency is laid over white; of an animation the first frame is taken.

    Raises:
        MediaError: no image that Pillow reads, cut off, too many pixels, or too small to be one.
    """
    if isinstance(content, str):
        raise MediaError("not an image", "the manifest gives a text here")
    checked_size(content, limits.max_bytes)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(content), formats=_formats())
            checked_shape(*image.size, limits)
            image.seek(0)
            image.load()
            return _to_rgb(ImageOps.exif_transpose(image))
    except UnidentifiedImageError:
        raise MediaError("not an image", f"no known image format; it begins with {content[:8]!r}") from None
    except MediaError:
        raise
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, …
        raise MediaError("corrupt image", f"{type(error).__name__}: {error}") from None


@cache
def _formats() -> tuple[str, ...]:
    """Those that this Pillow was built with."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def checked_shape(width: int, height: int, limits: ImageLimitsConfig) -> None:
    """Refuse what is too large, too small or too long to be a picture.

    Raises:
        MediaError: it is.
    """
    if width * height > limits.max_pixels:
        raise MediaError("too many pixels", f"{width} × {height} pixels; limits.max_pixels is {limits.max_pixels:,}")
    if min(width, height) < limits.min_side:
        raise MediaError("too small", f"{width} × {height} pixels; limits.min_side is {limits.min_side}")
    if max(width, height) > limits.max_aspect * min(width, height):
        raise MediaError("too long", f"{width} × {height} pixels; limits.max_aspect is {limits.max_aspect:g}")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return _sixteen_bits(image)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        ground = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(ground, rgba).convert("RGB")
    return image.convert("RGB")


def _sixteen_bits(image: Image.Image) -> Image.Image:
    """Pillow cuts off at 255 what it should divide by 257. Values beyond 16 bits are brought to their own range."""
    values: NDArray[np.float64] = np.asarray(image, np.float64)
    low, high = (0.0, 65535.0) if values.min() >= 0 and values.max() <= 65535 else (values.min(), values.max())
    grey = np.round((values - low) / max(high - low, 1e-12) * 255).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")
