"""The highest figure that any trial reaches on the test split: what a table chosen on test would print.

It is no result. It is worked out when the winner has been chosen and written down, for comparison with published tables
that were made so, and goes neither to the runs of trials nor into what a search that goes on would read.
"""

from collections.abc import Sequence

from braidrec.config.run import RunConfig
from braidrec.runs.evaluate import evaluate
from braidrec.search.folder import SweepFolder
from braidrec.search.records import TrialRecord


def best_on_test(folder: SweepFolder, trials: Sequence[TrialRecord], base: RunConfig) -> dict[str, float]:
    """Metric → highest value, over the best epochs (by validation) of all trials that finished.

    Args:
        folder: of the sweep.
        trials: of the search.
        base: says where cut-offs are and what is masked.
    """
    highest: dict[str, float] = {}
    for record in trials:
        if record.state != "finished":
            continue
        done = evaluate(
            folder.runs.child(record.name).uri,
            split="test",
            mask=base.evaluation.mask,
            at=list(base.evaluation.at),
            slices=False,
        )
        for name, value in done.result.metrics.items():
            highest[name] = max(value, highest.get(name, value))
    return highest
