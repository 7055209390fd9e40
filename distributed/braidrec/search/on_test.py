"""What is tested when the search is over: the highest figure of any trial, and finalists without a modality.

The first is what a table chosen on test would print. It is no result. It is worked out when the winner has been chosen
and written down, for comparison with published tables that were made so, and goes neither to the runs of trials nor
into what a search that goes on would read.
"""

from collections.abc import Callable, Sequence

from braidrec.config.run import RunConfig
from braidrec.data.folder import DatasetFolder
from braidrec.data.storage import Location
from braidrec.evaluation.metrics import higher_is_better
from braidrec.runs.evaluate import evaluate
from braidrec.search.folder import SweepFolder
from braidrec.search.records import TrialRecord
from braidrec.search.without import tests_without
from braidrec.tracking.naming import first_line
from braidrec.training.features import modalities_of
from braidrec.training.run_folder import RunFolder

Inform = Callable[[str], None]


def best_on_test(
    folder: SweepFolder, trials: Sequence[TrialRecord], base: RunConfig, inform: Inform
) -> dict[str, float]:
    """Metric → best value, over the best epochs (by validation) of all trials that finished.

    Args:
        folder: of the sweep; what is found out goes to on_test/ there, and not to the runs of the trials.
        trials: of the search.
        base: says where cut-offs are and what is masked.
        inform: told of a trial that cannot be evaluated, which is left out.
    """
    best: dict[str, float] = {}
    for record in trials:
        if record.state != "finished":
            continue
        place = folder.location.child(f"on_test/{record.name}")
        try:
            done = evaluate(
                folder.runs.child(record.name).uri,
                split="test",
                mask=base.evaluation.mask,
                at=list(base.evaluation.at),
                slices=False,
                output=place.uri,
            )
        except Exception as error:  # its run may have been removed; the others have their figures
            inform(f"best_on_test leaves {record.name} out: {first_line(error)}")
            continue
        for name, value in done.result.metrics.items():
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
    said = False
    for record in finals:
        run = folder.runs.child(record.name)
        try:
            known = tests_without(run, base.evaluation.mask)
            used = _modalities(run) if record.state == "finished" else ()
            wanted = [(name, share) for name in used for share in shares if (name, share) not in known]
            if wanted and not said:
                inform("the finalists are tested once more, without their modalities")
                said = True
            _test_without(run, wanted, base)
        except Exception as error:  # the finalists have their results
            inform(f"{record.name} was not tested without its modalities: {first_line(error)}")


def _modalities(run: Location) -> tuple[str, ...]:
    config = RunFolder(run).config()
    if not config.model.modalities.use:
        return ()
    return modalities_of(config.model.modalities, DatasetFolder.open(config.data.path))


def _test_without(run: Location, missing: Sequence[tuple[str, float]], base: RunConfig) -> None:
    for name, share in missing:
        evaluate(
            run.uri,
            split="test",
            mask=base.evaluation.mask,
            at=list(base.evaluation.at),
            slices=False,
            drop_modality={name: share},
        )
