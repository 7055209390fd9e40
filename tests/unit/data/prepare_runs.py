"""Small logs, their preparation, and what came of it in the users' own ids."""

import random

import pyarrow as pa
import pyarrow.csv as pacsv

from braidrec.config.load import load_config
from braidrec.config.prepare import PrepareConfig
from braidrec.data.folder import DatasetFolder
from braidrec.data.prepare import prepare

SPLITS = ("train", "valid", "test")


def random_log(seed, *, rows=400, users=30, items=25):
    """Rows with repetitions, unequal activity, equal times and ids of several lengths.

    The rare users and items are spread over the order of the ids, so that whoever is removed shifts the indices.
    """
    chooser = random.Random(seed)
    return [
        {
            "user": f"u{(11 * int(users * chooser.random() ** 2) + 5) % users}",
            "item": str((7 * int(items * chooser.random() ** 2) + 3) % items),
            "rating": float(chooser.randint(1, 5)),
            "timestamp": chooser.randint(1000, 1100),
        }
        for _ in range(rows)
    ]


def write_log(folder, rows, *, files=2):
    """The log as CSV files, cut into consecutive pieces."""
    folder.mkdir()
    size = -(-len(rows) // files)
    for number in range(files):
        piece = rows[number * size : (number + 1) * size]
        pacsv.write_csv(pa.Table.from_pylist(piece), str(folder / f"log-{number}.csv"))
    return folder


COLUMNS = "source.columns={user: user, item: item, rating: rating, timestamp: timestamp}"


def run(output, *overrides, log=None):
    source = [f"source={{kind: table, paths: [{log}]}}", COLUMNS] if log is not None else []
    config = load_config(PrepareConfig, [], [f"output={output}", *source, *overrides])
    return prepare(config)


def rows_of(path):
    """The prepared splits in the users' own ids, as sorted tuples."""
    folder = DatasetFolder.open(str(path))
    folder.verify()
    users, items = folder.user_ids().to_pylist(), folder.item_ids().to_pylist()
    found = {}
    for split in SPLITS:
        pairs = zip(*folder.edges(split), strict=True)
        columns = [
            folder.column(split, name) for name in ("timestamp", "rating") if folder.column(split, name) is not None
        ]
        found[split] = sorted(
            (users[user], items[item], *(column[row].item() for column in columns))
            for row, (user, item) in enumerate(pairs)
        )
    return found


def tuples(splits):
    return {
        name: sorted((row["user"], row["item"], row["timestamp"], row["rating"]) for row in rows)
        for name, rows in splits.items()
    }
