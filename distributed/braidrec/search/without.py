"""Tests with a modality taken away, read back from the run's folder, where `jobs/evaluate.py` leaves them."""

import json
from collections.abc import Iterator

from braidrec.data.storage import Location


def tests_without(run: Location, mask: str | None) -> dict[tuple[str, float], dict[str, float]]:
    """(modality, share of its items that lost it) → test metrics; of one modality at a time.

    Args:
        run: its folder.
        mask: only evaluations with this one.
    """
    evaluations = stored_tests(run.child("evaluations"), mask)
    return {next(iter(dropped.items())): metrics for dropped, metrics in evaluations if len(dropped) == 1}


def stored_tests(place: Location, mask: str | None) -> Iterator[tuple[dict[str, float], dict[str, float]]]:
    """(modality → share of its items that lost it, test metrics) of every evaluation that a folder holds.

    Args:
        place: the folder, which need not be there.
        mask: only evaluations with this one.
    """
    for file in place.files() if place.is_folder() else ():
        plain = json.loads(place.child(file).read_bytes()) if file.endswith(".json") else {}
        if (plain.get("split"), plain.get("mask")) == ("test", mask):
            metrics = plain.get("result", {}).get("metrics", {})
            yield plain.get("drop_modality", {}), {key: value for key, value in metrics.items() if value is not None}
