"""Which interactions train, which validate, which test: pure functions on the rows of whole users.

Every function takes arrays with one entry a row and returns int8 labels TRAIN, VALID or TEST. All rows of a user must
be present, in any order: the labels depend on the rows and the seed only, never on how the rows are laid out.
"""

import numpy as np
import numpy.typing as npt

from braidrec.distinct import distinct

TRAIN, VALID, TEST = 0, 1, 2

Labels = npt.NDArray[np.int8]
Ids = npt.NDArray[np.int32]


def ranks_within_users(users: Ids, order: npt.NDArray[np.intp]) -> tuple[Ids, Ids]:
    """Position of each row among its user's rows, and the number of those rows.

    Args:
        users: user of each row.
        order: a permutation of the rows that sorts by user and then by whatever ranks a user's rows.
    """
    rows = len(users)
    ranks = np.empty(rows, np.int32)
    sizes = np.empty(rows, np.int32)
    if not rows:
        return ranks, sizes
    ordered = users[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    counts = np.diff(np.r_[starts, rows])
    ranks[order] = np.arange(rows) - np.repeat(starts, counts)
    sizes[order] = np.repeat(counts, counts)
    return ranks, sizes


def label_tail(ranks: Ids, sizes: Ids, num_valid: Ids, num_test: Ids) -> Labels:
    """The last `num_test` rows of each user test, the `num_valid` rows before them validate (arrays [rows])."""
    labels = np.full(len(ranks), TRAIN, np.int8)
    labels[ranks >= sizes - num_test - num_valid] = VALID
    labels[ranks >= sizes - num_test] = TEST
    return labels


def held_out_mmrec(sizes: Ids) -> tuple[Ids, Ids]:
    """How many of a user's n rows validate and test, by the rule of MMRec's and LATTICE's data sets.

    n < 10: one each; otherwise ⌊n/5⌋ are held out, and half of them (rounded down) test. A user with two rows has one
    in train and one in test, a user with one row has it in train.
    """
    held_out = np.where(sizes < 10, 2, sizes // 5)
    held_out = np.minimum(held_out, sizes - 1)
    num_test = np.where(held_out == 1, 1, held_out // 2)
    return (held_out - num_test).astype(np.int32), num_test.astype(np.int32)


def held_out_shares(sizes: Ids, valid: float, test: float) -> tuple[Ids, Ids]:
    """Shares of a user's n rows, rounded half up, test first; at least one row stays in train."""
    num_test = np.minimum(np.floor(sizes * test + 0.5), sizes - 1)
    num_valid = np.minimum(np.floor(sizes * valid + 0.5), sizes - 1 - num_test)
    return num_valid.astype(np.int32), num_test.astype(np.int32)


def held_out_one(sizes: Ids) -> tuple[Ids, Ids]:
    """One row tests, one validates; a user with two rows has no validation row, one with a single row only trains."""
    return (sizes >= 3).astype(np.int32), (sizes >= 2).astype(np.int32)


def order_by_key(users: Ids, keys: npt.NDArray[np.uint64], positions: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
    """Rows by user, then by a pseudo-random key; repetitions of a pair, whose keys are equal, as in the log."""
    return np.lexsort((positions, keys, users))


def order_by_time(
    users: Ids, timestamps: npt.NDArray[np.int64], positions: npt.NDArray[np.int64]
) -> npt.NDArray[np.intp]:
    """Rows by user, then by time; what happened at one time keeps the order of the log."""
    return np.lexsort((positions, timestamps, users))


def label_by_time(timestamps: npt.NDArray[np.int64], valid_from: int, test_from: int) -> Labels:
    """Global time: rows before `valid_from` train, from `test_from` on test, those between validate."""
    labels = np.full(len(timestamps), TRAIN, np.int8)
    labels[timestamps >= valid_from] = VALID
    labels[timestamps >= test_from] = TEST
    return labels


def label_held_out_ids(keys: npt.NDArray[np.uint64], alive: npt.NDArray[np.bool_], valid: float, test: float) -> Labels:
    """Cold items or users: a label an id, of which exactly ⌊share · n + ½⌋ (n = alive ids) validate and test.

    Args:
        keys: a pseudo-random key an id, which decides who is held out.
        alive: ids that have interactions; others are TRAIN and never counted.
    """
    labels = np.full(len(keys), TRAIN, np.int8)
    candidates = np.flatnonzero(alive)
    chosen = candidates[np.argsort(keys[candidates], kind="stable")]
    num_test = int(np.floor(len(chosen) * test + 0.5))
    num_valid = int(np.floor(len(chosen) * valid + 0.5))
    labels[chosen[:num_test]] = TEST
    labels[chosen[num_test : num_test + num_valid]] = VALID
    return labels


def users_without_train(users: Ids, labels: Labels) -> npt.NDArray[np.bool_]:
    """Rows outside train whose user has no row in train."""
    trained = distinct(users[labels == TRAIN])
    unknown: npt.NDArray[np.bool_] = (labels != TRAIN) & ~np.isin(users, trained)
    return unknown
