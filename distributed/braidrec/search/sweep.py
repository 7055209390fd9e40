"""`run_sweep`: the search on validation, the finalists on test, an end that is always recorded."""

import os
from dataclasses import dataclass, field
from typing import Any

from braidrec.config.load import merged, to_yaml
from braidrec.config.sweep import SweepConfig
from braidrec.data.folder import DatasetFolder
from braidrec.data.storage import Location
from braidrec.display.quiet import quiet_ray
from braidrec.display.text import tool
from braidrec.errors import RunError, Stopped
from braidrec.search.display import SweepDisplay
from braidrec.search.folder import SweepFolder
from braidrec.search.on_test import best_on_test, without_modalities
from braidrec.search.records import Book, TrialRecord
from braidrec.search.resources import Share, cpus_to_declare, share
from braidrec.search.runs import Runs
from braidrec.search.space import extremes
from braidrec.search.tracked import TrackedSweep
from braidrec.search.winner import Candidate, candidates_of
from braidrec.tracking.reader import CHOSEN_ON_TEST
from braidrec.training.lease import Lease
from braidrec.training.ray_start import start_ray
from braidrec.training.signals import StopSignals
from braidrec.training.tracked import tracking_uri_of

KILLED_FLUSH_SECONDS = 2.0
_TUNE_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}


@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """A finished sweep.

    Attributes:
        name, folder: where everything of it is.
        metric: the objective, a validation metric.
        trials: all of the search.
        candidates: the finalists, the winner first.
        winner_file: the winner's configuration; `jobs/train.py --config` takes it.
        best_on_test: metric → the highest figure of any trial, chosen on test; empty unless it was asked for.
        mlflow_run_id, tracking_uri: of the parent run; None if tracking is off.
        report: the HTML report; None where none was written.
    """

    name: str
    folder: str
    metric: str
    trials: list[TrialRecord]
    candidates: list[Candidate]
    winner_file: str
    best_on_test: dict[str, float] = field(default_factory=dict)
    mlflow_run_id: str | None = None
    tracking_uri: str | None = None
    report: str | None = None


def run_sweep(sweep: SweepConfig, *, resume: str | None = None) -> SweepResult:
    """Search, train the finalists, name the winner. Everything is in `<run.storage>/<name>/`.

    Args:
        sweep: the sweep.
        resume: name or folder of a sweep to go on with; finished trials are not repeated.
    Raises:
        ConfigError, DatasetError: refused before anything starts; the message names key or point and the mend.
        RunError: nothing could be trained; the reasons are in trials.json and in MLflow.
        Stopped: SIGTERM or SIGINT arrived; --resume goes on.
    """
    runs = Runs.of(sweep)
    data = runs.check(sweep)
    base = runs.base
    tracking_uri_of(base, "run.")
    _judge_of(sweep, runs)
    resolved = _resolved(sweep, runs)
    folder = SweepFolder.new(base.storage, sweep.name) if resume is None else SweepFolder.existing(resume, base.storage)
    named = resolved.model_copy(update={"name": folder.name})
    folder.location.filesystem.create_dir(folder.location.path, recursive=True)
    with Lease(folder.location), StopSignals() as signals:
        if resume is None:
            folder.begin(named, runs.space.to_plain(), data.digest)
        else:
            folder.check_resumable(resolved, data.digest)
            folder.go_on_with(named)
        return Sweeper(named, runs, folder).run(data, signals)


def _resolved(sweep: SweepConfig, runs: Runs) -> SweepConfig:
    """With its base written into it, and places that mean the same wherever it goes on."""
    base = runs.base
    places: dict[str, Any] = {"storage": base.storage, "data": {"path": base.data.path}}
    if base.cache is not None:
        places["cache"] = base.cache
    return sweep.model_copy(update={"base": (), "run": merged(dict(runs.plain), places)})


def _judge_of(sweep: SweepConfig, runs: Runs) -> Any:
    """Ray Tune's scheduler; see `make_judge`."""
    from braidrec.search.judges import make_judge

    searched = runs.space.dimensions.get("training.epochs")
    longest = max(extremes(searched)) if searched is not None else runs.base.training.epochs
    return make_judge(sweep.scheduler, runs.sign, longest)


class Sweeper:
    """A sweep that is going on.

    Args:
        sweep: with its base written into it.
        runs: makes configurations.
        folder: of the sweep.
    """

    def __init__(self, sweep: SweepConfig, runs: Runs, folder: SweepFolder) -> None:
        self.sweep, self.runs, self.folder = sweep, runs, folder
        self.book = Book(folder.location)
        self.display = SweepDisplay(runs.metric, runs.sign)
        self._base = runs.base
        self.tracked = TrackedSweep(self._base, folder, self.display.inform)

    def run(self, data: DatasetFolder, signals: StopSignals) -> SweepResult:
        """To the end, or to a recorded failure."""
        try:
            with signals.told_apart():
                cluster_share = self._connect()
                self.tracked.start(self.sweep, data)
                self._settle_earlier()
                self._search(cluster_share)
                self._finals(cluster_share)
                result = self._conclude()
        except Stopped as stop:
            self._leave_off()
            self.tracked.finish("KILLED", str(stop), KILLED_FLUSH_SECONDS)
            raise
        except BaseException as error:
            self.tracked.finish("FAILED", f"{type(error).__name__}: {error}")
            raise
        finally:
            self.display.close()
            self.folder.location.child("tune").remove()
        self.tracked.finish("FINISHED")
        return result

    # The audience of every training.

    def began(self, record: TrialRecord) -> None:
        self.display.began(record)

    def saw(self, record: TrialRecord) -> None:
        self.display.saw(record)

    def ended(self, record: TrialRecord) -> None:
        self.tracked.settle(record)
        self.display.ended(record)
        best = self.book.ranked(self.runs.sign)
        if record.role == "trial" and best and best[0].score is not None:
            self.tracked.best(record.number, self.runs.metric, best[0].score)

    def _connect(self) -> Share:
        for name, setting in _TUNE_ENVIRONMENT.items():
            os.environ.setdefault(name, setting)
        quiet_ray()
        declared = cpus_to_declare(self._base, self.sweep.concurrency)
        start_ray(max(0, declared - 1), self._base.workers.allocator)
        import logging

        import ray

        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        return share(self._base, self.sweep.concurrency, nodes)

    def _search(self, cluster_share: Share) -> None:
        from braidrec.search.judges import replay
        from braidrec.search.phase import Limits, Phase
        from braidrec.search.sources import SearchSource

        source = SearchSource(self.sweep, self.runs, self.book, self._tasks(cluster_share), self)
        known = [record for record in self.book.trials() if record.state != "running"]
        judge = _judge_of(self.sweep, self.runs)
        if judge is not None:
            replay(judge, known)
        self.display.phase("search", known, source.total, cluster_share.concurrency)
        limits = Limits(share=cluster_share, worker_failures=self.sweep.worker_failures)
        Phase(source, self.book, judge, limits, self._tune_folder("search")).run()
        for record in self.book.trials():
            if record.state == "running":
                record.state, record.reason, record.cut = "stopped_early", source.is_used_up(), True
                self.tracked.settle(record)
        self.book.save()
        if not self.book.chosen(self.runs.sign):
            raise RunError(f"no trial finished; {_reasons(self.book.trials())}")
        if not self.book.ranked(self.runs.sign):
            self.display.inform(
                "no trial was trained to its end: the best are those that were stopped, by the score they had then; a "
                "larger budget would tell more"
            )

    def _finals(self, cluster_share: Share) -> None:
        from braidrec.search.phase import Limits, Phase
        from braidrec.search.sources import FinalSource

        wanted = self.sweep.finalists
        chosen = self.book.chosen(self.runs.sign)[: wanted.candidates]
        if not chosen:
            return
        seeds = [self._base.seed + offset for offset in range(1, wanted.seeds + 1)]
        source = FinalSource(chosen, seeds, self.book, self._tasks(cluster_share), self)
        known = [record for record in self.book.finals() if record.state != "running"]
        self.display.phase("finalists", known, source.total, cluster_share.concurrency)
        limits = Limits(share=cluster_share, worker_failures=self.sweep.worker_failures)
        Phase(source, self.book, None, limits, self._tune_folder("finals")).run()
        self.display.close()

    def _conclude(self) -> SweepResult:
        candidates = candidates_of(self.book, self.runs.sign, self.sweep.finalists.candidates)
        if not candidates:
            raise RunError(f"no run of a finalist finished; {_reasons(self.book.finals())}")
        winner, place = candidates[0], self.folder.location
        file, text = place.child("winner.yaml"), self._winner_text(winner)
        file.write_bytes(text.encode())
        self.folder.write_json("candidates.json", [candidate.to_plain() for candidate in candidates])
        self._settle_for_good()
        on_test = self._test_more()
        self.tracked.log(file, place.child("trials.json"), place.child("candidates.json"))
        self.tracked.log_summary(
            {
                f"winner/valid/{self.runs.metric}": winner.score,
                **{f"winner/{name}": mean for name, (mean, _) in winner.tests.items()},
                **{f"{CHOSEN_ON_TEST}{name}": value for name, value in on_test.items()},
            },
            winner.number,
        )
        return SweepResult(
            name=self.folder.name,
            folder=place.uri,
            metric=self.runs.metric,
            trials=self.book.trials(),
            candidates=candidates,
            winner_file=file.uri,
            best_on_test=on_test,
            report=self.tracked.write_report(place.child("report.html"), text, on_test),
            mlflow_run_id=self.tracked.run_id,
            tracking_uri=self.tracked.uri,
        )

    def _test_more(self) -> dict[str, float]:
        """What is tested when everything is chosen and written down; the best of all trials, if it is wanted."""
        from braidrec.training.environment import use_threads

        use_threads(len(os.sched_getaffinity(0)))  # no trial runs any more
        inform = self.display.inform
        without_modalities(self.folder, self.book.finals(), self._base, self.sweep.finalists.missing, inform)
        return best_on_test(self.folder, self.book.trials(), self._base, inform) if self.sweep.best_on_test else {}

    def _settle_earlier(self) -> None:
        """A driver that was killed may have written an end down and not yet told MLflow."""
        for record in self.book:
            if record.state != "running":
                self.tracked.settle(record)

    def _settle_for_good(self) -> None:
        """Once more at the end: MLflow may have been away when a training ended."""
        for record in self.book:
            self.tracked.settle(record, for_good=True)
        self.tracked.wait()
        self.book.save()

    def _leave_off(self) -> None:
        """End the processes of trials, and their MLflow runs, which go on when the sweep does."""
        import ray

        ray.shutdown()
        for record in self.book:
            if record.state == "running":
                self.tracked.leave_off(record)
        self.display.inform(f"go on with it:  {tool('python')} jobs/sweep.py --resume {self.folder.location.uri}")

    def _winner_text(self, winner: Candidate) -> str:
        config = self.runs.config(winner.overrides).model_copy(update={"name": None})
        command = f"python jobs/train.py --config {self.folder.location.child('winner.yaml').uri}"
        return f"# The winner of sweep {self.folder.name}, trial {winner.number}: {command}\n{to_yaml(config)}"

    def _tasks(self, cluster_share: Share) -> Any:
        from braidrec.search.sources import Tasks

        return Tasks(self.folder, self.runs, cluster_share, self.tracked.uri, self.tracked.tags_of)

    def _tune_folder(self, phase: str) -> Location:
        return self.folder.location.child(f"tune/{phase}")


def _reasons(records: list[TrialRecord]) -> str:
    counts: dict[str, int] = {}
    for record in records:
        why = record.reason or record.state
        counts[why] = counts.get(why, 0) + 1
    most = sorted(counts, key=lambda why: -counts[why])[:3]
    return "; ".join(f"{counts[why]} × {why}" for why in most) or "none was begun"
