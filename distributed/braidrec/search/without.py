"""Tests with a modality taken away, read back from the run's folder, where `jobs/evaluate.py` leaves them."""

import json

from braidrec.data.storage import Location


def tests_without(run: Location, mask: str | None) -> dict[tuple[str, float], dict[str, float]]:
    """(modality, share of its items that lost it) → test metrics; of one modality at a time.

    Args:
        run: its folder.
        mask: only evaluations with this one.
    """
    found: dict[tuple[str, float], dict[str, float]] = {}
    place = run.child("evaluations")
    if not place.is_folder():
        return found
    for file in place.files():
        plain = json.loads(place.child(file).read_bytes()) if file.endswith(".json") else {}
        dropped = plain.get("drop_modality", {})
        if len(dropped) == 1 and (plain.get("split"), plain.get("mask")) == ("test", mask):
            metrics = plain.get("result", {}).get("metrics", {})
            found[next(iter(dropped.items()))] = {key: value for key, value in metrics.items() if value is not None}
    return found
