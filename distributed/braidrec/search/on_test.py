"""What is tested when the search is over: the highest figure of any trial, and finalists without a modality.

The first is what a table chosen on test would print. It is no result. It is worked out when the winner has been chosen
and written down, for comparison with published tables that were made so, and goes neither to the runs of trials nor
into what a search that goes on would read.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

from braidrec.config.run import RunConfig
from braidrec.data.errors import DatasetError
from braidrec.data.folder import DatasetFolder
from braidrec.data.storage import Location
from braidrec.evaluation.metrics import higher_is_better
from braidrec.runs.evaluate import evaluate
from braidrec.search.folder import SweepFolder
from braidrec.search.records import TrialRecord
from braidrec.search.without import stored_tests, tests_without
from braidrec.tracking.naming import first_line
from braidrec.training.features import modalities_of
from braidrec.training.run_folder import RunFolder

Inform = Callable[[str], None]


def best_on_test(
    folder: SweepFolder, trials: Sequence[TrialRecord], base: RunConfig, inform: Inform
) -> dict[str, float]:
    """Metric → best value, over the best epochs (by validation) of all trials that finished.

    What was evaluated in an earlier session is read.

    Args:
        folder: of the sweep; what is found out goes to on_test/ there, and not to the runs of the trials.
        trials: of the search.
        base: says where the data set is, where cut-offs are and what is masked.
        inform: told of a trial that cannot be evaluated, which is left out.
    """
    best: dict[str, float] = {}
    for record in trials:
        if record.state != "finished":
            continue
        place = folder.location.child(f"on_test/{record.name}")
        try:
            known = [metrics for dropped, metrics in stored_tests(place, base.evaluation.mask) if not dropped]
            figures = known[0] if known else _on_test(folder.runs.child(record.name), base, output=place.uri)
        except Exception as error:  # its run may have been removed; the others have their figures
            inform(f"best_on_test leaves {record.name} out: {first_line(error)}")
            continue
        for name, value in figures.items():
            choose = max if higher_is_better(name) else min
            best[name] = choose(value, best.get(name, value))
    return best


def without_modalities(
    folder: SweepFolder, finals: Sequence[TrialRecord], base: RunConfig, shares: Sequence[float], inform: Inform
) -> None:
    """Test every finished run of a finalist again with each modality taken from some of its items, for the report.

    What was evaluated in an earlier session stays as it is. The files are where `jobs/evaluate.py` would put them.

    Args:
        folder, base: as above.
        finals: the runs.
        shares: of the items that have a modality.
        inform: told what is going on, and of what cannot be evaluated.
    """
    try:
        data = DatasetFolder.open(base.data.path)
    except DatasetError as error:
        inform(f"nothing was tested without its modalities: {first_line(error)}")
        return
    said = False
    for record in finals:
        run = folder.runs.child(record.name)
        try:
            known = tests_without(run, base.evaluation.mask)
            used = _modalities(run, data) if record.state == "finished" else ()
            wanted = [(name, share) for name in used for share in shares if (name, share) not in known]
            if wanted and not said:
                inform("the finalists are tested once more, without their modalities")
                said = True
            for name, share in wanted:
                _on_test(run, base, drop_modality={name: share})
        except Exception as error:  # the finalists have their results
            inform(f"{record.name} was not tested without its modalities: {first_line(error)}")


def _modalities(run: Location, data: DatasetFolder) -> tuple[str, ...]:
    wanted = RunFolder(run).config().model.modalities
    return modalities_of(wanted, data) if wanted.use else ()


def _on_test(run: Location, base: RunConfig, **more: Any) -> dict[str, float]:
    """Metrics that are defined; on the data set where it is now, which the run need not know."""
    done = evaluate(
        run.uri,
        data_path=base.data.path,
        split="test",
        mask=base.evaluation.mask,
        at=list(base.evaluation.at),
        slices=False,
        **more,
    )
    return {name: value for name, value in done.result.metrics.items() if math.isfinite(value)}
