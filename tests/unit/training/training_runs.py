"""Small data sets, and configurations of runs on them in this process."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from braidrec.config.load import load_config
from braidrec.config.run import RunConfig
from braidrec.data.description import SPLITS, ProtocolDescription
from braidrec.data.folder import DatasetFolder
from braidrec.data.pairs import pairs_of
from braidrec.data.planted import generate_planted
from braidrec.data.writer import DatasetWriter
from braidrec.evaluation.evaluator import Evaluator
from braidrec.evaluation.ranker import PopularityRanker

SMALL = (
    "tracking.enabled=false",
    "workers.num=0",
    "workers.threads=1",
    "model.dim=8",
    "model.encoder.layers=2",
    "training.epochs=4",
    "training.batch_size=256",
    "training.optimizer.learning_rate=0.02",
)


def planted_folder(path: Path, *, users: int = 80, items: int = 60, interactions: int = 1_200, seed: int = 0) -> Path:
    """A planted data set with a weight beside each interaction's rating; about 960 train rows."""
    generate_planted(
        str(path),
        num_users=users,
        num_items=items,
        num_interactions=interactions,
        seed=seed,
        modalities={},
        num_topics=4,
    )
    return path


def run_config(data: Path, place: Path, *overrides: str) -> RunConfig:
    """A small run in this process, with everything it writes under `place`."""
    wanted = (f"data.path={data}", f"storage={place / 'runs'}", f"cache={place / 'cache'}", *SMALL, *overrides)
    if any(override == "model.encoder.kind=mf" for override in wanted):
        wanted = tuple(override for override in wanted if not override.startswith("model.encoder.layers"))
    return load_config(RunConfig, [], wanted)


def write_folder(
    path: Path,
    splits: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    num_users: int,
    num_items: int,
) -> Path:
    """A dataset folder from the columns of its splits; a split that is not given is empty."""
    writer = DatasetWriter.begin(str(path), seed=0)
    writer.write_users(pa.array([f"user-{index}" for index in range(num_users)]))
    writer.write_items(pa.array([f"item-{index}" for index in range(num_items)]))
    types = {"user": np.int32, "item": np.int32, "rating": np.float32, "weight": np.float32}
    for split in SPLITS:
        columns = splits.get(split, {"user": [], "item": []})
        writer.write_split(split, {name: np.asarray(values, types[name]) for name, values in columns.items()})
    writer.finish(name=path.name, protocol=ProtocolDescription(kind="given", seed=0), options={})
    assert DatasetFolder.open(str(path)).num_users == num_users
    return path


def popularity_recall(data: Path) -> float:
    """Test recall@20 of recommending everyone the most popular items."""
    folder = DatasetFolder.open(str(data))
    users, items = folder.edges("train")
    degree = np.bincount(items, minlength=folder.num_items)
    evaluator = Evaluator(
        held_out=pairs_of(folder, ["test"]),
        mask=pairs_of(folder, ["train"]),
        train_item_degree=degree,
        train_user_degree=np.bincount(users, minlength=folder.num_users),
        at=(20,),
    )
    return evaluator.result(evaluator.run(PopularityRanker(degree, folder.num_users))).metrics["recall@20"]
