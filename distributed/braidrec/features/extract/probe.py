"""Do these vectors belong to these items? A number, from interactions that the vectors never saw."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from braidrec.data.folder import DatasetFolder

AT = 20
MAX_USERS = 2_000
SHUFFLES = 3


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Recall@20 of held-out interactions, ranked by content alone.

    Attributes:
        recall: with each item's own vector.
        shuffled: the mean of three rankings with the vectors dealt out to other items at random.
        users: how many users it is the mean of.
        split: where the held-out interactions are from.
    """

    recall: float
    shuffled: float
    users: int
    split: str

    @property
    def is_meaningful(self) -> bool:
        """Whether content ranks at least half as much again better than chance."""
        return self.recall > 1.5 * self.shuffled


def content_probe(
    folder: DatasetFolder, items: NDArray[np.int32], vectors: NDArray[np.float32], seed: int = 0
) -> Probe | None:
    """Rank, for a sample of users, the items like those they have in train; see whether held-out ones are on top.

    A user's score for an item is the inner product of the item's unit vector with the mean unit vector of the user's
    train items. Ranked are the items with a vector that the user does not have in train. Validation rows are held out,
    or test rows where there is no validation; nothing is chosen by the result.

    Args:
        items: `[n]`, ascending, that have a vector.
        vectors: `[n, dim]`.
    Returns:
        None where no user has both train and held-out items among `items`.
    """
    split = "valid" if folder.num_rows("valid") else "test"
    place = np.full(folder.num_items, -1, np.int64)
    place[items] = np.arange(len(items))
    train, held = (_pairs(folder, name, place) for name in ("train", split))
    users = np.intersect1d(train[0], held[0])
    if not len(users) or len(items) <= AT:
        return None
    random = np.random.default_rng(seed)
    if len(users) > MAX_USERS:
        users = np.sort(random.choice(users, MAX_USERS, replace=False))
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    recall = _recall(unit, users, train, held)
    shuffled = np.mean([_recall(unit[random.permutation(len(unit))], users, train, held) for _ in range(SHUFFLES)])
    return Probe(recall=recall, shuffled=float(shuffled), users=len(users), split=split)


def _pairs(folder: DatasetFolder, split: str, place: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Users and places of items with a vector, by user."""
    users, items = folder.edges("train" if split == "train" else "valid" if split == "valid" else "test")
    places = place[items]
    users, places = users[places >= 0], places[places >= 0]
    order = np.argsort(users, kind="stable")
    return users[order], places[order]


def _recall(
    unit: NDArray[np.float32],
    users: NDArray[np.int32],
    train: tuple[NDArray[np.int32], NDArray[np.int64]],
    held: tuple[NDArray[np.int32], NDArray[np.int64]],
) -> float:
    """Mean over users of the share of their held-out items among the first 20."""
    recalls = []
    for user in users:  # a bounded sample
        own, wanted = (places[slice(*np.searchsorted(ids, [user, user + 1]))] for ids, places in (train, held))
        wanted = np.setdiff1d(wanted, own)
        if not len(wanted):
            continue
        scores = unit @ unit[own].mean(0)
        scores[own] = -np.inf
        top = np.argpartition(-scores, AT)[:AT]
        recalls.append(np.isin(wanted, top).mean())
    return float(np.mean(recalls)) if recalls else 0.0
