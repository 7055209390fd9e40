"""A look at features: what a person needs to see whether they mean anything."""

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from braidrec.config.extract import LimitsConfig, QualityConfig
from braidrec.data.folder import DatasetFolder
from braidrec.features.extract.assemble import SHEET_FILE, home_of
from braidrec.features.extract.manifest import Manifest
from braidrec.features.extract.media import MediaError, read_medium
from braidrec.features.extract.probe import Probe, content_probe
from braidrec.features.extract.sheet import Card, render
from braidrec.graph.knn import content_neighbours

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


def look_at(folder: DatasetFolder, modality: str, config: QualityConfig, manifest: Manifest) -> Quality:
    """Measure, and write `extracted/<modality>/sheet.html`."""
    items, vectors = _sample(folder, modality, config.max_items)
    lengths = np.linalg.norm(vectors, axis=1)
    norms = (float(lengths.min()), float(np.median(lengths)), float(lengths.max()))
    _, which, counts = np.unique(vectors, axis=0, return_inverse=True, return_counts=True)
    twins = counts[which.reshape(-1)] > 1
    probe = content_probe(folder, items, vectors)
    sheet = home_of(folder, modality).child(SHEET_FILE)
    quality = Quality(norms=norms, same=int(twins.sum()), compared=len(items), probe=probe, sheet=sheet.uri)
    chosen, near, cosine = _examples(vectors, config)
    cards = _cards(folder, manifest, items, np.concatenate([chosen, near.reshape(-1)]))
    rows = [
        (
            cards[int(items[place])],
            [(cards[int(items[other])], float(value)) for other, value in zip(*found, strict=True)],
        )
        for place, *found in zip(chosen, near, cosine, strict=True)
    ]
    coverage = {name: entry.coverage for name, entry in folder.description.modalities.items()}
    sheet.write_bytes(render(modality, coverage, list(quality.lines()), lengths, rows).encode())
    return quality


def _sample(folder: DatasetFolder, modality: str, most: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    items, vectors = folder.features(modality)
    rows = np.arange(len(items))
    if len(items) > most:
        rows = np.sort(np.random.default_rng(0).choice(len(items), most, replace=False))
    return items[rows], vectors[rows].astype(np.float32).reshape(len(rows), -1)


def _examples(vectors: NDArray[np.float32], config: QualityConfig) -> tuple[Any, Any, Any]:
    """Places of a few items, and of their nearest ones with cosines."""
    count, k = min(config.examples, len(vectors)), min(config.neighbours, len(vectors) - 1)
    chosen = np.sort(np.random.default_rng(1).choice(len(vectors), count, replace=False))
    if k < 1:
        return chosen, np.zeros((count, 0), np.int64), np.zeros((count, 0))
    found = content_neighbours(vectors, np.ones(len(vectors), np.bool_), k, device=torch.device("cpu"), method="auto")
    return chosen, np.maximum(found.indices[chosen], 0), found.similarity[chosen]


def _cards(folder: DatasetFolder, manifest: Manifest, items: NDArray[np.int32], places: Any) -> dict[int, Card]:
    """What a person is shown of each item: its id, and its picture or text."""
    wanted = np.unique(items[places])
    ids = dict(zip(wanted.tolist(), folder.item_ids().take(wanted).to_pylist(), strict=True))
    lookup = {identity: item for item, identity in ids.items()}
    cards = {item: Card(title=identity) for item, identity in ids.items()}
    for number in range(len(manifest.files)):
        for _, table in manifest.batches(number, ROWS_AT_ONCE):
            own = table.column(manifest.id_column).to_pylist()
            if not any((identity in ids) if manifest.by_index else (str(identity) in lookup) for identity in own):
                continue
            for identity, value in zip(own, manifest.values(table)[0].to_pylist(), strict=True):
                item = identity if manifest.by_index else lookup.get(str(identity))
                if item in cards and value is not None and cards[item].is_bare:
                    cards[item] = _card(cards[item].title, value, manifest)
    return cards


def _card(title: str, value: bytes | str, manifest: Manifest) -> Card:
    if manifest.form == "text":
        return Card(title=title, text=str(value))
    try:
        limits = LimitsConfig()
        content = value if isinstance(value, bytes) else read_medium(value, manifest.base, limits.max_bytes)
        from braidrec.features.extract.images import decode_image

        image = decode_image(content, limits)
        image.thumbnail((THUMBNAIL, THUMBNAIL))
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=80)
        return Card(title=title, image=base64.b64encode(stream.getvalue()).decode())
    except (MediaError, ImportError):  # a sound or a video, which a sheet of paper cannot show
        return Card(title=title, text=value.rpartition("/")[2] if isinstance(value, str) else "")
