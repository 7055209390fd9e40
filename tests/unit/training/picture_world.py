"""A planted data set with pictures: users like one colour, the pictures show it in shapes and places of all kinds."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from braidrec.config.load import load_config
from braidrec.config.run import RunConfig
from braidrec.data.description import MediaDescription, ProtocolDescription
from braidrec.data.folder import DatasetFolder
from braidrec.data.writer import DatasetWriter

PRESETS = Path(__file__).parents[3] / "configs" / "models"
COLOURS = np.array([[210, 40, 40], [40, 190, 60], [50, 70, 220]])
SIDE = 24
NETWORK = (
    "model.encoder.network={kind: paper, kernel: 5, stride: 2, channels: [8, 16, 16, 16, 16], hidden: [32, 32], "
    "dropout: 0.0}"
)


def picture(colour: int, random: np.random.Generator) -> Image.Image:
    """A disc or a square of the colour, with some variation, on a grey ground with noise."""
    ground = random.integers(90, 150, (SIDE, SIDE, 3)).astype(np.uint8)
    image = Image.fromarray(ground)
    shade = tuple(int(value) for value in np.clip(COLOURS[colour] + random.integers(-30, 31, 3), 0, 255))
    left, top = random.integers(0, 10, 2).tolist()
    draw = ImageDraw.Draw(image)
    (draw.ellipse if random.random() < 0.5 else draw.rectangle)((left, top, left + 13, top + 13), fill=shade)
    return image


def write_pictures(folder: Path, colours: Sequence[int], *, seed: int = 0) -> list[str]:
    """A PNG an item, by its number; their names."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    names = [f"{item}.png" for item in range(len(colours))]
    for name, colour in zip(names, colours, strict=True):
        picture(colour, random).save(folder / name)
    return names


def write_picture_folder(
    path: Path, *, users: int = 30, items: int = 60, cold: int = 18, without: Sequence[int] = (), shuffled: bool = False
) -> NDArray[np.int64]:
    """Each user likes half of the train items of one colour, and of it one validates and the cold ones test.

    Args:
        cold: the last items, which are in no train interaction.
        without: items that have no picture.
        shuffled: pictures are dealt out to other items.
    Returns:
        the items' colours.
    """
    random = np.random.default_rng(0)
    colours = np.arange(items) % len(COLOURS)
    warm = items - cold
    shown = random.permutation(colours) if shuffled else colours
    names = write_pictures(path.parent / f"{path.name}-pictures", shown.tolist())
    rows: dict[str, list[tuple[int, int]]] = {"train": [], "valid": [], "test": []}
    for user in range(users):
        liked = random.permutation(np.flatnonzero(colours[:warm] == user % len(COLOURS)))
        rows["train"] += [(user, int(item)) for item in liked[: len(liked) // 2]]
        rows["valid"] += [(user, int(item)) for item in liked[-1:]]
        rows["test"] += [(user, item) for item in range(warm, items) if colours[item] == user % len(COLOURS)]
    writer = DatasetWriter.begin(str(path), seed=0)
    writer.write_users(pa.array([f"user-{user}" for user in range(users)]))
    writer.write_items(pa.array([f"item-{item}" for item in range(items)]))
    for split, pairs in rows.items():
        columns = np.array(pairs, np.int32)
        writer.write_split(split, {"user": columns[:, 0], "item": columns[:, 1]})
    have = [item for item in range(items) if item not in without]
    uris = [str(path.parent / f"{path.name}-pictures" / names[item]) for item in have]
    table = pa.table({"item": pa.array(have, pa.int32()), "uri": pa.array(uris, pa.string())})
    writer.add("media/image.parquet", table)
    writer.media["image"] = MediaDescription(rows=len(have), column="uri")
    writer.finish(name="pictures", protocol=ProtocolDescription(kind="given", seed=0), options={})
    assert DatasetFolder.open(str(path)).description.media
    return colours


def picture_config(data: Path, *overrides: str) -> RunConfig:
    """A small run of DVBPR in this process."""
    place = data.parent
    small = (
        f"data.path={data}", f"storage={place / 'runs'}", f"cache={place / 'cache'}", "workers.num=0",
        "workers.threads=1", "tracking.enabled=false", "model.dim=8", f"model.encoder.side={SIDE}",
        "training.batch_size=64", "training.epochs=3", "objective.regulariser=0.001",
        "training.optimizer.learning_rate=0.005", "evaluation.patience=null", "evaluation.at=[10]",
    )  # fmt: skip
    # Keys of one network are none of another, and overrides are merged.
    own = () if any(text.startswith("model.encoder.network={") for text in overrides) else (NETWORK,)
    return load_config(RunConfig, [PRESETS / "dvbpr.yaml"], [*small, *own, *overrides])
