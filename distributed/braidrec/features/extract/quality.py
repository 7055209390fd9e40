"""A look at features: what a person needs to see whether they mean anything."""

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from braidrec.config.extract import LimitsConfig, QualityConfig
from braidrec.data.folder import DatasetFolder
from braidrec.features.extract.assemble import SHEET_FILE, home_of
from braidrec.features.extract.encoders.contract import Medium
from braidrec.features.extract.manifest import Manifest, Plan
from braidrec.features.extract.media import MediaError, read_medium
from braidrec.features.extract.probe import Probe, content_probe, sampled_features
from braidrec.features.extract.sheet import Card, render
from braidrec.features.extract.texts import checked_text

THUMBNAIL = 112
ROWS_AT_ONCE = 1 << 14


@dataclass(frozen=True, kw_only=True)
class Quality:
    """What was found.

    Attributes:
        norms: least, median and greatest length of a vector.
        same: items that share their vector with another item, to the last bit.
        compared: items that were looked at.
        probe: do the vectors belong to these items; None: the data set cannot tell.
        sheet: where the sheet is.
    """

    norms: tuple[float, float, float]
    same: int
    compared: int
    probe: Probe | None
    sheet: str

    def lines(self) -> Iterator[tuple[str, str]]:
        """For a summary."""
        yield "norms", "least {:.4g}, median {:.4g}, greatest {:.4g}".format(*self.norms)
        if self.same:
            yield "duplicates", f"{self.same:,} of {self.compared:,} items share their vector with another item"
        if self.probe is not None:
            told = "" if self.probe.is_meaningful else " — no better than chance: are these the right items?"
            yield (
                "probe",
                f"Recall@20 by content alone {self.probe.recall:.4f}, vectors shuffled {self.probe.shuffled:.4f} "
                f"({self.probe.users:,} users, {self.probe.split}){told}",
            )


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What a person is shown of the items: the media that the features were made from."""

    manifest: Manifest
    plan: Plan
    medium: Medium
    limits: LimitsConfig


def look_at(folder: DatasetFolder, modality: str, config: QualityConfig, shown: Shown, token: str) -> Quality:
    """Measure, and write `extracted/<modality>/sheet.html`.

    Args:
        token: of the features, for the sheet to say which ones it shows.
    """
    items, vectors = sampled_features(folder, modality, config.max_items)
    lengths = np.linalg.norm(vectors, axis=1)
    norms = (float(lengths.min()), float(np.median(lengths)), float(lengths.max()))
    _, which, counts = np.unique(vectors, axis=0, return_inverse=True, return_counts=True)
    twins = counts[which.reshape(-1)] > 1
    probe = content_probe(folder, items, vectors)
    sheet = home_of(folder, modality).child(SHEET_FILE)
    quality = Quality(norms=norms, same=int(twins.sum()), compared=len(items), probe=probe, sheet=sheet.uri)
    chosen, near, cosine = _examples(vectors, config)
    cards = _cards(folder, shown, np.unique(items[np.concatenate([chosen, near.reshape(-1)])]))
    rows = [
        (
            cards[int(items[place])],
            [(cards[int(items[other])], float(value)) for other, value in zip(*found, strict=True)],
        )
        for place, *found in zip(chosen, near, cosine, strict=True)
    ]
    coverage = {name: entry.coverage for name, entry in folder.description.modalities.items()}
    sheet.write_bytes(render(modality, token, coverage, list(quality.lines()), lengths, rows).encode())
    return quality


def _examples(vectors: NDArray[np.float32], config: QualityConfig) -> tuple[Any, Any, Any]:
    """Places of a few items, and of their nearest ones with cosines."""
    count, k = min(config.examples, len(vectors)), min(config.neighbours, len(vectors) - 1)
    chosen = np.sort(np.random.default_rng(1).choice(len(vectors), count, replace=False))
    if k < 1:
        return chosen, np.zeros((count, 0), np.int64), np.zeros((count, 0))
    unit = torch.from_numpy(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))
    cosine = unit[chosen] @ unit.T
    cosine[torch.arange(count), torch.from_numpy(chosen)] = -torch.inf
    best = cosine.topk(k, dim=1)
    return chosen, best.indices.numpy(), best.values.numpy()


def _cards(folder: DatasetFolder, shown: Shown, wanted: NDArray[np.int32]) -> dict[int, Card]:
    """What a person is shown of each item: its id, and its picture or text."""
    titles = folder.item_ids().take(pa.array(wanted)).to_pylist()
    cards = {item: Card(title=title) for item, title in zip(wanted.tolist(), titles, strict=True)}
    for number in range(len(shown.manifest.files)):
        rows = shown.plan.rows_of(number, wanted)
        for first, table in shown.manifest.batches(number, ROWS_AT_ONCE, rows):
            own = rows[(rows >= first) & (rows < first + table.num_rows)]
            if not len(own):
                continue
            values, _ = shown.manifest.values(table.take(pa.array(own - first)))
            for row, value in zip(own, values.to_pylist(), strict=True):
                item = int(shown.plan.items[number][row])
                if value is not None:
                    cards[item] = _card(cards[item].title, value, shown, number)
    return cards


def _card(title: str, value: bytes | str, shown: Shown, number: int) -> Card:
    if shown.manifest.form == "text":
        return Card(title=title, text=str(value))
    name = Card(title=title, text=value.rpartition("/")[2] if isinstance(value, str) else "")
    if shown.medium in ("audio", "video"):  # which a sheet of paper cannot show
        return name
    try:
        limits, base = shown.limits, shown.manifest.bases[number] if shown.manifest.bases else None
        content = value if isinstance(value, bytes) else read_medium(value, base, limits.max_bytes)
        if shown.medium == "text":
            return Card(title=title, text=checked_text(content, limits))
        from braidrec.features.extract.images import decode_image

        image = decode_image(content, shown.limits)
        image.thumbnail((THUMBNAIL, THUMBNAIL))
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=80)
        return Card(title=title, image=base64.b64encode(stream.getvalue()).decode())
    except MediaError:  # it was there, and is not any more
        return name
