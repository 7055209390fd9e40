"""A planted data set with ragged regions of images and raw texts, and small runs on it of systems that look at whole
histories."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from braidrec.config.load import load_config
from braidrec.config.run import RunConfig
from braidrec.data.description import SPLITS, MediaDescription, ProtocolDescription
from braidrec.data.planted import PlantedDataset, generate_planted
from braidrec.data.writer import DatasetWriter

PRESETS = Path(__file__).parents[3] / "configs" / "models"
TOPICS = 4
WORDS = 6
"""Words that belong to one topic: "t0w0", "t0w1", …"""


def regions_of(topics: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """`[items, 4, 5]` and how many are real: one of them shows the topic, the others are noise."""
    centres = random.standard_normal((TOPICS, 5)) * 2
    regions = random.standard_normal((len(topics), 4, 5))
    lengths = random.integers(1, 5, len(topics))
    regions[np.arange(len(topics)), random.integers(0, lengths)] += centres[topics]
    return regions.astype(np.float32), lengths


def text_of(topic: int, random: np.random.Generator) -> str:
    """Five words of the topic, and three that all items share."""
    own = [f"t{topic}w{number}" for number in random.integers(0, WORDS, 5)]
    return " ".join([*own, *(f"common{number}" for number in random.integers(0, 10, 3))])


def write_history_folder(
    path: Path, *, users: int = 60, items: int = 48, interactions: int = 900, seed: int = 0
) -> PlantedDataset:
    """Users, items, splits and the vectors of `image` are those of a planted data set; item 0 has no regions."""
    planted = generate_planted(
        str(path.parent / f"{path.name}-plain"), num_users=users, num_items=items, num_interactions=interactions,
        num_topics=TOPICS, seed=seed, modalities={}, noise=0.05,
    )  # fmt: skip
    random = np.random.default_rng(seed)
    writer = DatasetWriter.begin(str(path), seed=seed)
    writer.write_users(planted.folder.user_ids())
    writer.write_items(planted.folder.item_ids())
    for split in SPLITS:
        columns = dict(zip(("user", "item"), planted.folder.edges(split), strict=True))
        writer.write_split(split, columns)
    regions, lengths = regions_of(planted.item_topics, random)
    numbers = np.arange(1, items)
    writer.write_features("regions", numbers, regions[1:], {"kind": "planted"}, lengths=lengths[1:])
    texts = [text_of(int(topic), random) for topic in planted.item_topics]
    schema = pa.schema([("item", pa.int32()), ("text", pa.string())])
    writer.add("media/text.parquet", pa.table({"item": np.arange(items - 1), "text": texts[: items - 1]}, schema))
    writer.media["text"] = MediaDescription(rows=items - 1, column="text")
    description = writer.finish(name="planted", protocol=ProtocolDescription(kind="random", seed=seed), options={})
    assert description.media
    return PlantedDataset(
        folder=type(planted.folder).open(str(path)), item_topics=planted.item_topics, user_likes=planted.user_likes
    )


def history_config(preset: str, data: Path, *overrides: str) -> RunConfig:
    """A small run in this process; everything that it writes stands beside the data."""
    place = data.parent
    common = (
        f"data.path={data}", f"storage={place / 'runs'}", f"cache={place / 'cache'}", "workers.num=0",
        "workers.threads=1", "tracking.enabled=false", "model.dim=8", "evaluation.at=[10, 20]",
    )  # fmt: skip
    return load_config(RunConfig, [PRESETS / f"{preset}.yaml"], [*common, *overrides])
