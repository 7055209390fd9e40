"""Image files → squares of one size in one mapped file, for networks that are trained on the pixels themselves."""

import hashlib
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from braidrec.config.extract import ImageLimitsConfig
from braidrec.data.errors import DatasetError
from braidrec.display.text import duration, rate
from braidrec.features.extract.encoders.contract import Medium, Prepared
from braidrec.features.extract.images import decode_image
from braidrec.features.extract.ledger import TRANSIENT
from braidrec.features.extract.manifest import NO_MEDIUM, Manifest, Plan
from braidrec.features.extract.media import stamp_of
from braidrec.features.extract.pipeline import Loaded, Reading, load_all, load_here, plan_reference
from braidrec.mapped import DamagedError, Draft, Mapped, shared_arrays

FORMAT = "braidrec-pictures-1"
MANIFEST, PIXELS, PLACE = "pictures.json", "pixels.npy", "place.npy"
SECONDS_BETWEEN_LINES = 10.0
MEMORY_MB = 512
"""Decoded pictures that may wait to be written, about."""
Tell = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Squares:
    """How an image becomes a square: a `Preparer`.

    Attributes:
        side: of the square, pixels.
        fit: "crop": the middle of the image; "stretch": all of it, out of proportion.
        limits: what counts as broken.
    """

    side: int
    fit: Literal["crop", "stretch"]
    limits: ImageLimitsConfig

    @property
    def medium(self) -> Medium:
        return "image"

    def prepare(self, raw: bytes | str) -> Prepared:
        """`[side, side, 3]` uint8, RGB; bilinear.

        Raises:
            MediaError: broken or refused, with its reason.
        """
        image = decode_image(raw, self.limits)
        width, height = image.size
        left, top = 0.0, 0.0
        if self.fit == "crop":
            shorter = min(width, height)
            left, top = (width - shorter) / 2, (height - shorter) / 2
        box = (left, top, width - left, height - top)
        return np.asarray(image.resize((self.side, self.side), Image.Resampling.BILINEAR, box=box), np.uint8)


@dataclass(frozen=True, kw_only=True)
class PictureTable:
    """The squares of a data set's items.

    Attributes:
        pixels: `[rows, side, side, 3]` uint8, mapped from the disk.
        place: `[num_items]` int32 which row is the item's; −1: it has no picture.
        failed: images that could not be used, by reason.
        folder: where it lies.
    """

    pixels: NDArray[np.uint8]
    place: NDArray[np.int32]
    failed: Mapping[str, int]
    folder: Path

    @property
    def fact(self) -> str:
        """One line for the log."""
        without = "".join(f", {count:,} {reason}" for reason, count in sorted(self.failed.items()))
        size, have = self.pixels.shape[1], int((self.place >= 0).sum())
        stored = f"{self.pixels.nbytes / 2**20:,.0f} MiB"
        return f"{have:,} of {len(self.place):,} items have one{without}; {size} × {size}, {stored} in {self.folder}"


def picture_table(
    manifest: Manifest,
    plan: Plan,
    num_items: int,
    squares: Squares,
    *,
    cache: Path,
    max_failed: float,
    threads: int = 1,
    use_ray: bool = False,
    tell: Tell = lambda sentence: None,
) -> PictureTable:
    """The node's table: mapped if it is there, else every image decoded once and written.

    The table takes `3 · side²` bytes an image on the node's disk, and no memory but what the system keeps of it: 10⁶
    images of 224² are 150 GB. A local file that was replaced is told by its size and time, and the table made again;
    of one behind a URI only the URI is looked at.

    Args:
        manifest, plan: which images there are, and whose.
        cache: the node's cache folder.
        max_failed: share of the images that may be broken.
        threads: that decode, without Ray.
        use_ray: decode by Ray Data, in the session that this process is connected to.
        tell: is told how far it is, every few seconds.
    Raises:
        DatasetError: more broken images, some that exist but could not be read twice (a table without them would be
            kept after their disk is well again), or no room for the table.
    Warns:
        UserWarning: the stored table is damaged. It is made again.
    """
    wanted = plan.wanted

    def build(draft: Draft) -> Mapping[str, Any]:
        _check_room(cache, len(wanted), squares.side)
        place = np.full(num_items, -1, np.int32)
        reading = Reading(manifest=manifest, limits=squares.limits, encoder=squares, places=None, current=None)
        with draft.create(PIXELS, np.dtype(np.uint8), (len(wanted), squares.side, squares.side, 3)) as pixels:
            if use_ray:
                found = load_all(replace(reading, places=plan_reference(plan)), MEMORY_MB)
            else:
                found = load_here(reading, plan.items, threads)
            failed, passing = _fill(pixels, place, wanted, found, max_failed, tell)
            if passing:
                _try_again(pixels, place, reading, plan, passing, failed)
                _check_failed(failed, len(wanted), max_failed, "")
        draft.save(PLACE, place)
        return {"failed": failed}

    def read(mapped: Mapped) -> PictureTable:
        try:
            pixels, place = mapped.arrays[PIXELS], mapped.arrays[PLACE]
            failed = mapped.facts["failed"]
        except KeyError as error:
            raise DamagedError(f"{mapped.folder} is damaged ({error})") from error
        if place.shape != (num_items,) or pixels.shape != (len(wanted), squares.side, squares.side, 3):
            raise DamagedError(f"{mapped.folder}: its files do not belong together")
        if any(reason in failed for reason in TRANSIENT):
            raise DamagedError(f"{mapped.folder} lacks images that could not be read when it was made")
        _check_failed(failed, len(wanted), max_failed, "")
        return PictureTable(pixels=pixels, place=place, failed=failed, folder=mapped.folder)

    key = f"{FORMAT}:{_identity(manifest, plan, squares)}:{num_items}"
    return shared_arrays(cache, key, build, read, manifest=MANIFEST, what="table of pictures")


def _fill(
    pixels: NDArray[np.uint8],
    place: NDArray[np.int32],
    wanted: NDArray[np.int32],
    found: Iterator[Loaded],
    max_failed: float,
    tell: Tell,
) -> tuple[dict[str, int], list[int]]:
    """Write what comes to where it belongs.

    Returns:
        images that cannot be used, by reason; items whose image could not be read, which may pass: not among these.
    """
    failed: Counter[str] = Counter()
    passing: list[int] = []
    start = told = time.monotonic()
    for done, loaded in enumerate(found, 1):
        if isinstance(loaded.prepared, np.ndarray):
            row = int(np.searchsorted(wanted, loaded.item))
            pixels[row], place[loaded.item] = loaded.prepared, row
        else:
            failed[str(loaded.reason)] += 1
            _check_failed(failed, len(wanted), max_failed, f" (such as item {loaded.item}: {loaded.error})")
            if loaded.reason in TRANSIENT:
                passing.append(loaded.item)
        now = time.monotonic()
        if now - told > SECONDS_BETWEEN_LINES:
            told = now
            speed = done / (now - start)
            left = duration((len(wanted) - done) / speed)
            tell(f"decoding images: {done:,} of {len(wanted):,}, {rate(speed)}/s, ETA {left}")
    return {reason: count for reason, count in failed.items() if reason not in TRANSIENT}, passing


def _try_again(
    pixels: NDArray[np.uint8],
    place: NDArray[np.int32],
    reading: Reading,
    plan: Plan,
    passing: list[int],
    failed: dict[str, int],
) -> None:
    """Read once more, by this process, what could not be read.

    Raises:
        DatasetError: it still cannot.
    """
    left = [np.where(np.isin(rows, passing), rows, -1).astype(np.int32) for rows in plan.items]
    for loaded in load_here(reading, left, 1):
        if loaded.reason in TRANSIENT:
            raise DatasetError(
                f"item {loaded.item}: its image could not be read twice ({loaded.error}); {len(passing):,} such: "
                "make it readable, or take its row out of the table of images, and start again"
            )
        if isinstance(loaded.prepared, np.ndarray):
            row = int(np.searchsorted(plan.wanted, loaded.item))
            pixels[row], place[loaded.item] = loaded.prepared, row
        else:
            failed[str(loaded.reason)] = failed.get(str(loaded.reason), 0) + 1


def _check_failed(failed: Mapping[str, int], total: int, max_failed: float, example: str) -> None:
    """What the manifest itself says that it has no medium for is not broken."""
    broken = sum(count for reason, count in failed.items() if reason != NO_MEDIUM)
    if broken > max_failed * total:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in failed.items())
        raise DatasetError(
            f"of {total:,} images {broken:,} so far are broken{example}: {reasons}; max_failed={max_failed:g} allows "
            f"{int(max_failed * total):,}. Mend the images, widen the limits, or set max_failed higher"
        )


def _check_room(cache: Path, num_images: int, side: int) -> None:
    need = num_images * side * side * 3
    cache.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache).free
    if need > free:
        raise DatasetError(
            f"{num_images:,} images of {side} × {side} pixels take {need / 1e9:,.1f} GB, {cache} has {free / 1e9:,.1f} "
            "GB free: set `cache` to a larger disk of the machine, or use smaller images"
        )


def _identity(manifest: Manifest, plan: Plan, squares: Squares) -> str:
    """Hash of which images there are, of local files' sizes and times, and of how they become squares."""
    digest = hashlib.sha256(json.dumps([squares.side, squares.fit, squares.limits.to_plain()]).encode())
    for number, places in enumerate(plan.items):
        for first, table in manifest.batches(number, 1024):
            values = manifest.values(table)[0].to_pylist()
            for item, value in zip(places[first : first + len(values)].tolist(), values, strict=True):
                if item < 0:
                    continue
                content = value if isinstance(value, bytes) else str(value).encode(errors="surrogatepass")
                stamp = stamp_of(value, manifest.bases[number]) if isinstance(value, str) else ""
                digest.update(f"{item} {len(content)} {stamp} ".encode())
                digest.update(content)
    return digest.hexdigest()
