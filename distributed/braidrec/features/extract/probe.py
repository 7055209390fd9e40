"""Do these vectors belong to these items? A number, from interactions that the vectors never saw."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array

from braidrec.data.description import Split, features_folder
from braidrec.data.folder import DatasetFolder
from braidrec.data.pairs import pairs_of
from braidrec.data.storage import read_parquet
from braidrec.evaluation.full_ranking import rank
from braidrec.evaluation.held_out import UserItems
from braidrec.evaluation.ranker import VectorRanker

AT = 20
MAX_USERS = 2_000
SHUFFLES = 3
SAMPLE_BYTES = 256 << 20
LEAST_USERS = 50
"""With fewer, chance alone may look like content, or content like chance."""


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


def sampled_features(
    folder: DatasetFolder, modality: str, most: int, seed: int = 0
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Items and vectors (`[n, dim]`) of a random sample of at most `most`, ascending; read part by part."""
    described = folder.modality(modality)
    rows = np.arange(described.num_vectors)
    if len(rows) > most:
        rows = np.sort(np.random.default_rng(seed).choice(len(rows), most, replace=False))
    items, vectors, first = [np.zeros(0, np.int32)], [np.zeros((0, described.dim), np.float32)], 0
    for part in folder.parts(features_folder("item", modality)):
        table = read_parquet(folder.location.child(part), ["item", "vector"])
        own = rows[(rows >= first) & (rows < first + table.num_rows)] - first
        first += table.num_rows
        chosen = table.take(pa.array(own))
        flat = chosen.column("vector").combine_chunks().flatten().to_numpy(zero_copy_only=False)
        items.append(chosen.column("item").to_numpy())
        vectors.append(flat.astype(np.float32).reshape(-1, described.dim))
    return np.concatenate(items), np.concatenate(vectors)


def suspicious(folder: DatasetFolder) -> dict[str, Probe]:
    """Modalities of the items whose vectors tell no more of held-out interactions than chance would, with the probe.

    A look at a sample of at most 256 MiB a modality. Data sets of a few users, vectors of which some have more
    components than others, and modalities that are there for next to no item are not judged.
    """
    found = {}
    for name, described in folder.description.modalities.items():
        if described.ragged:
            continue
        items, vectors = sampled_features(folder, name, max(2 * AT, SAMPLE_BYTES // (4 * described.dim)))
        probe = content_probe(folder, items, vectors)
        if probe is not None and probe.users >= LEAST_USERS and not probe.is_meaningful:
            found[name] = probe
    return found


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
    split: Split = "valid" if folder.num_rows("valid") else "test"
    place = np.full(folder.num_items, -1, np.int64)
    place[items] = np.arange(len(items))
    train, held = (pairs_of(folder, [name]) for name in ("train", split))
    users = np.intersect1d(train.users, held.users)
    random = np.random.default_rng(seed)
    if len(users) > MAX_USERS:
        users = np.sort(random.choice(users, MAX_USERS, replace=False))
    seen = _among(train, users, place, len(items))
    wanted = _among(held, users, place, len(items)).without(seen)
    judged = np.intersect1d(seen.users, wanted.users)
    if not len(judged) or len(items) <= AT:
        return None
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    recall = _recall(unit, judged, seen, wanted)
    dealt = [_recall(unit[random.permutation(len(unit))], judged, seen, wanted) for _ in range(SHUFFLES)]
    return Probe(recall=recall, shuffled=float(np.mean(dealt)), users=len(judged), split=split)


def _among(pairs: UserItems, users: NDArray[np.int64], place: NDArray[np.int64], num_items: int) -> UserItems:
    """The pairs of some users with items that have a vector, both counted anew from 0."""
    rows, items = pairs.rows(users)
    there = place[items] >= 0
    return UserItems.from_edges(rows[there], place[items[there]], num_users=len(users), num_items=num_items)


def _recall(unit: NDArray[np.float32], users: NDArray[np.int64], seen: UserItems, wanted: UserItems) -> float:
    """Mean over users of the share of their held-out items among the first 20."""
    shares = np.repeat(1 / np.maximum(seen.counts, 1), seen.counts).astype(np.float32)
    means = csr_array((shares, seen.items, seen.indptr), shape=(seen.num_users, len(unit))) @ unit
    ranker = VectorRanker(torch.from_numpy(means), torch.from_numpy(unit))
    best = rank(ranker, users, mask=seen, k_max=AT).items
    return float((wanted.contains(users, best).sum(1) / wanted.counts[users]).mean())
