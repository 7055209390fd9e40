"""A small multimodal data set with a known answer, which every correct recommender must find.

Items belong to hidden topics and users like one or two of them. Interactions come from the liked topics, but for a
little noise. The vectors of the informative modalities lie around one centre a topic, those of the others are noise.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from braidrec.data.description import SPLITS, ProtocolDescription
from braidrec.data.folder import DatasetFolder
from braidrec.data.splits import TEST, TRAIN, VALID, held_out_shares, label_tail, ranks_within_users
from braidrec.data.writer import DatasetWriter

FIRST_TIMESTAMP = 1_600_000_000
SPAN_SECONDS = 100 * 86_400
POPULARITY_EXPONENT = 0.4
OVERDRAW = 1.6
MIN_PER_USER = 5

DEFAULT_MODALITIES: Mapping[str, int] = {"image": 32, "text": 24}


@dataclass(frozen=True, kw_only=True)
class PlantedDataset:
    """The data set and its hidden truth, for oracles."""

    folder: DatasetFolder
    item_topics: npt.NDArray[np.int32]
    """Topic of each item [items]."""
    user_likes: npt.NDArray[np.bool_]
    """Whether a user likes a topic [users, topics]."""


@dataclass(frozen=True, kw_only=True)
class _World:
    random: np.random.Generator
    item_topics: npt.NDArray[np.int32]
    user_likes: npt.NDArray[np.bool_]
    popularity: npt.NDArray[np.float64]
    noise: float


def generate_planted(
    path: str,
    *,
    num_users: int = 600,
    num_items: int = 400,
    num_interactions: int = 12_000,
    num_topics: int = 8,
    seed: int = 0,
    modalities: Mapping[str, int] = DEFAULT_MODALITIES,
    informative: tuple[str, ...] | None = None,
    coverage: float = 0.9,
    noise: float = 0.1,
    feature_noise: float = 1.0,
    cold_items: float = 0.0,
    overwrite: bool = False,
) -> PlantedDataset:
    """Write a planted dataset folder to `path`.

    Args:
        num_interactions: drawn at most; a user who runs out of liked items gets fewer.
        modalities: dim of each modality.
        informative: modalities whose vectors reveal the topic; None means all. The others are pure noise.
        coverage: share of the items that have a modality, drawn for each modality on its own.
        noise: share of the interactions that ignore the user's topics.
        feature_noise: standard deviation of the vectors around their topic's centre, whose own is 1.
        cold_items: share of the items that are held out of train altogether (half validate, half test): nothing but
            an informative modality can rank them.
    Raises:
        ValueError: sizes that leave a topic without items, or an informative modality that does not exist.
        DatasetError: `path` may not be written.
    """
    revealing = tuple(modalities) if informative is None else informative
    unknown = [name for name in revealing if name not in modalities]
    if unknown:
        raise ValueError(f"informative={unknown}: not among the modalities {sorted(modalities)}")
    if not 2 <= num_topics <= num_items:
        raise ValueError(f"num_topics={num_topics}: must be from 2 to num_items ({num_items})")
    world = _make_world(num_users, num_items, num_topics, noise, seed)
    users, items = _draw_interactions(world, num_interactions)
    labels = _split(world, users, items, cold_items)
    writer = DatasetWriter.begin(path, seed=seed, overwrite=overwrite)
    writer.write_users(_names("user", num_users))
    writer.write_items(_names("item", num_items))
    columns = _columns(world, users, items)
    for label, split in enumerate(SPLITS):
        writer.write_split(split, {name: values[labels == label] for name, values in columns.items()})
    for name, dim in modalities.items():
        _write_modality(writer, world, name, dim, name in revealing, coverage, feature_noise)
    options = {
        "interactions": num_interactions, "topics": num_topics, "noise": noise, "informative": list(revealing),
        "coverage": coverage, "feature_noise": feature_noise, "cold_items": cold_items,
    }  # fmt: skip
    writer.finish(
        name="planted",
        protocol=ProtocolDescription(
            kind="random", seed=seed, options={"valid": 0.1, "test": 0.1, "cold_items": cold_items}
        ),
        options={"kind": "planted", **options},
    )
    folder = DatasetFolder.open(path)
    return PlantedDataset(folder=folder, item_topics=world.item_topics, user_likes=world.user_likes)


def _make_world(num_users: int, num_items: int, num_topics: int, noise: float, seed: int) -> _World:
    random = np.random.default_rng(seed)
    item_topics = random.permutation(np.arange(num_items, dtype=np.int32) % num_topics)
    user_likes = np.zeros((num_users, num_topics), np.bool_)
    rows = np.arange(num_users)
    user_likes[rows, random.integers(num_topics, size=num_users)] = True
    has_second = random.random(num_users) < 0.5
    user_likes[rows[has_second], random.integers(num_topics, size=int(has_second.sum()))] = True
    popularity = np.power(1.0 + random.permutation(num_items), -POPULARITY_EXPONENT, dtype=np.float64)
    return _World(random=random, item_topics=item_topics, user_likes=user_likes, popularity=popularity, noise=noise)


def _draw_interactions(world: _World, num_interactions: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Distinct (user, item) pairs: draw too many, forget repetitions, keep each user's first ones."""
    num_users, num_topics = world.user_likes.shape
    random = world.random
    spare = max(0, num_interactions - MIN_PER_USER * num_users)
    wanted = MIN_PER_USER + random.multinomial(spare, np.full(num_users, 1.0 / num_users))
    users = np.repeat(np.arange(num_users), np.ceil(wanted * OVERDRAW).astype(int))
    preference = world.user_likes + random.random(world.user_likes.shape) * 1e-9
    cumulated = np.cumsum(preference / preference.sum(1, keepdims=True), axis=1)
    liked = (random.random(len(users))[:, None] > cumulated[users, :-1]).sum(1)
    any_topic = random.integers(num_topics, size=len(users))
    topics = np.where(random.random(len(users)) < world.noise, any_topic, liked)
    items = _draw_items(world, topics)
    _, first = np.unique(users * len(world.item_topics) + items, return_index=True)
    first.sort()
    pairs = users[first].astype(np.int32), items[first].astype(np.int32)
    ranks, _ = ranks_within_users(pairs[0], np.arange(len(first)))
    kept = ranks < wanted[pairs[0]]
    return pairs[0][kept], pairs[1][kept]


def _draw_items(world: _World, topics: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.integer[Any]]:
    """One item of each topic, in proportion to popularity, by inverting the cumulated weights of the sorted items."""
    by_topic = np.argsort(world.item_topics, kind="stable")
    ends = np.cumsum(world.popularity[by_topic])
    num_topics = world.user_likes.shape[1]
    last = np.cumsum(np.bincount(world.item_topics, minlength=num_topics)) - 1
    upper = ends[last]
    lower = np.r_[0.0, upper[:-1]]
    targets = lower[topics] + world.random.random(len(topics)) * (upper - lower)[topics]
    drawn: npt.NDArray[np.integer[Any]] = by_topic[
        np.minimum(np.searchsorted(ends, targets, side="right"), last[topics])
    ]
    return drawn


def _split(
    world: _World, users: npt.NDArray[np.int32], items: npt.NDArray[np.int32], cold_items: float
) -> npt.NDArray[np.int8]:
    """80/10/10 a user at random; rows of cold items leave train. Rows of users left without train are labelled −1."""
    order = np.lexsort((world.random.random(len(users)), users))
    ranks, sizes = ranks_within_users(users, order)
    labels = label_tail(ranks, sizes, *held_out_shares(sizes, 0.1, 0.1))
    num_cold = int(cold_items * len(world.item_topics))
    cold = world.random.permutation(len(world.item_topics))[:num_cold]
    if num_cold:
        held_out = np.full(len(world.item_topics), TRAIN, np.int8)
        held_out[cold[: num_cold // 2]] = VALID
        held_out[cold[num_cold // 2 :]] = TEST
        labels = held_out[items]
    trained = np.bincount(users[labels == TRAIN], minlength=len(world.user_likes)) > 0
    return np.where(trained[users], labels, np.int8(-1))


def _columns(world: _World, users: npt.NDArray[np.int32], items: npt.NDArray[np.int32]) -> dict[str, npt.NDArray[Any]]:
    """Liked topics are rated 3 to 5, others 1 to 3; times are uniform."""
    liked = world.user_likes[users, world.item_topics[items]]
    ratings = world.random.integers(1, 4, size=len(users)) + 2 * liked
    times = FIRST_TIMESTAMP + world.random.integers(SPAN_SECONDS, size=len(users))
    return {"user": users, "item": items, "timestamp": times, "rating": ratings.astype(np.float32)}


def _write_modality(
    writer: DatasetWriter,
    world: _World,
    name: str,
    dim: int,
    revealing: bool,
    coverage: float,
    feature_noise: float,
) -> None:
    num_items = len(world.item_topics)
    present = np.sort(world.random.permutation(num_items)[: max(1, round(coverage * num_items))])
    centres = world.random.standard_normal((world.user_likes.shape[1], dim))
    own = centres[world.item_topics] if revealing else world.random.standard_normal((num_items, dim))
    vectors = own + feature_noise * world.random.standard_normal((num_items, dim))
    writer.write_features(
        name, present, vectors[present].astype(np.float32), {"kind": "planted", "informative": revealing}
    )


def _names(kind: str, count: int) -> Any:
    width = len(str(count - 1))
    return pa.array([f"{kind}-{index:0{width}d}" for index in range(count)])
