"""A preparation in dicts and loops: the oracle of test_prepare.py. A row is a dict; times are seconds."""


def deduplicate(rows, which):
    if which == "none":
        return list(rows)
    pairs = {}
    for position, row in enumerate(rows):
        pairs.setdefault((row["user"], row["item"]), []).append((row.get("timestamp", 0), position))
    choose = min if which == "first" else max
    return [rows[position] for position in sorted(choose(found)[1] for found in pairs.values())]


def k_core(rows, least_user_rows, least_item_rows):
    """Remove one poor user or item at a time until there is none."""
    rows = list(rows)
    while True:
        for name, least in (("user", least_user_rows), ("item", least_item_rows)):
            counts = {}
            for row in rows:
                counts[row[name]] = counts.get(row[name], 0) + 1
            poor = next((key for key, count in counts.items() if count < least), None)
            if poor is not None:
                rows = [row for row in rows if row[name] != poor]
                break
        else:
            return rows


def by_user(rows):
    users = {}
    for row in rows:
        users.setdefault(row["user"], []).append(row)
    return users


def user_tails(rows, held_out):
    """The last rows by time, then by order; held_out(n) → (valid, test)."""
    splits = {"train": [], "valid": [], "test": []}
    for mine in by_user(rows).values():
        ordered = sorted(mine, key=lambda row: row["timestamp"])
        num_valid, num_test = held_out(len(ordered))
        first_test = len(ordered) - num_test
        splits["train"] += ordered[: first_test - num_valid]
        splits["valid"] += ordered[first_test - num_valid : first_test]
        splits["test"] += ordered[first_test:]
    return splits


def global_tail(rows, valid, test):
    ordered = sorted(row["timestamp"] for row in rows)
    num_test, num_valid = int(len(rows) * test + 0.5), int(len(rows) * valid + 0.5)
    test_from = ordered[len(rows) - num_test]
    valid_from = ordered[len(rows) - num_test - num_valid]
    return moments(rows, valid_from, test_from)


def moments(rows, valid_from, test_from):
    return {
        "train": [row for row in rows if row["timestamp"] < valid_from],
        "valid": [row for row in rows if valid_from <= row["timestamp"] < test_from],
        "test": [row for row in rows if row["timestamp"] >= test_from],
    }


def drop_unknown_users(splits):
    known = {row["user"] for row in splits["train"]}
    return {name: [row for row in rows if row["user"] in known] for name, rows in splits.items()}
