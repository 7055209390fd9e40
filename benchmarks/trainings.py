"""Many trainings in pieces: each in a process of its own, its result a line of a file, and none of them done twice."""

import argparse
import json
import multiprocessing
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from common import prepared, run_config

METRICS = ("recall@10", "recall@20", "ndcg@10", "ndcg@20")
WATCHED = "valid/recall@20"
MEASURED_EPOCHS = 3


@dataclass(frozen=True, kw_only=True)
class Training:
    """What is trained. Two that are equal are the same piece of work.

    Attributes:
        preset: a file in configs/models/.
        settings: what is changed in it for this training, `key=value`.
        shared: what is changed for all trainings of a table (lengths, learning rate), `key=value`.
    """

    preset: str
    settings: tuple[str, ...]
    shared: tuple[str, ...]
    seed: int


class Pieces:
    """Finished trainings of a data set, kept in `<work>/<table>_<data set>.jsonl`.

    Args:
        raw: raw folder or dataset folder.
        work: prepared data and the results; the runs themselves are removed once their results are written.
        table: what the trainings are for, which names the file.
        threads: compute threads; None: all cores.
        only_stored: start no training; those without a result are None.
        data: digest of the data set, where another one may stand under the same path: its trainings are others then.
    """

    def __init__(
        self,
        raw: str,
        work: Path,
        table: str,
        *,
        threads: int | None = None,
        only_stored: bool = False,
        data: str | None = None,
    ) -> None:
        self.data = data
        self.raw, self.work, self.threads, self.only_stored = raw, work, threads, only_stored
        self.name = Path(raw).resolve().name
        self.file = work / f"{table}_{self.name}.jsonl"
        self.found = self._stored()

    def result(self, training: Training) -> dict[str, Any] | None:
        """The training's result, after training if there is none; None: none is stored, and none is to be made."""
        of = asdict(training) | ({} if self.data is None else {"data": self.data})
        return self.piece(of, lambda: train_once(self.raw, self.work, training, self.threads))

    def piece(self, of: dict[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
        """What `make` returns in a process of its own, or what it returned once for the same `of`."""
        key = _key(of)
        if key not in self.found and not self.only_stored:
            process = multiprocessing.get_context("fork").Process(target=self._write, args=(of, make))
            process.start()
            process.join()
            if process.exitcode:
                sys.exit(f"{json.dumps(of)}: failed; its message is above. What was finished is in {self.file}")
            self.found = self._stored()  # with what others that work on the same table finished meanwhile
        return self.found.get(key)

    def _stored(self) -> dict[str, dict[str, Any]]:
        lines = self.file.read_text().splitlines() if self.file.is_file() else []
        stored = [json.loads(line) for line in lines]
        return {_key(one["of"]): one["result"] for one in stored}

    def _write(self, of: dict[str, Any], make: Callable[[], dict[str, Any]]) -> None:
        result = make()
        with self.file.open("a") as file:
            file.write(json.dumps({"of": of, "result": result}) + "\n")


def _key(of: dict[str, Any]) -> str:
    return json.dumps(of, sort_keys=True)


def train_once(raw: str, work: Path, training: Training, threads: int | None) -> dict[str, Any]:
    """Train here, and say what came out.

    Returns:
        the metrics of both splits (AUC, RMSE and MAE where the training has them), `best_epoch`, `epochs_run`,
        `seconds_per_epoch` (the median, validation left out)
        and `peak_memory_mb` of this process, libraries and data included.
    """
    import shutil
    import statistics

    from braidrec.data.storage import Location
    from braidrec.training.driver import train
    from braidrec.training.events import EpochEnd, Event
    from braidrec.training.timing import peak_memory_mb

    epochs: list[dict[str, float]] = []

    class Watch:
        def handle(self, event: Event) -> None:
            if isinstance(event, EpochEnd):
                epochs.append(dict(event.metrics))

    keys = [*training.shared, *training.settings, f"seed={training.seed}", f"cache={work / 'cache'}"]
    keys += [] if threads is None else [f"workers.threads={threads}"]
    result = train(run_config(training.preset, prepared(raw, work), work, keys), listeners=(Watch(),))
    shutil.rmtree(Location.of(result.folder).path)
    import torch

    seconds = [epoch["train/seconds"] for epoch in epochs if "train/seconds" in epoch]  # none of an untrained model
    wanted = [f"{split}/{name}" for split in ("valid", "test") for name in (*METRICS, "auc", "rmse", "mae")]
    return {
        **{name: result.metrics[name] for name in wanted if name in result.metrics},
        "best_epoch": result.best_epoch,
        "epochs_run": result.epochs_run,
        "seconds_per_epoch": statistics.median(seconds) if seconds else 0.0,
        "peak_memory_mb": peak_memory_mb(torch.device("cpu"))["memory/peak_mb"],
    }


@dataclass(frozen=True, kw_only=True)
class Search:
    """A preset at a few points, of which the first seed's validation chooses the one that is trained with all seeds.

    Attributes:
        points: the settings of each point, `key=value`; one alone is not searched.
        tried: how many of the points are trained; None: all.
        always: what is changed in the preset at all points.
        shared: lengths and the like, of all trainings.
        watched: metric of the validation split that chooses.
        lower_is_better: of it.
    """

    preset: str
    points: tuple[tuple[str, ...], ...]
    shared: tuple[str, ...]
    seeds: tuple[int, ...]
    always: tuple[str, ...] = ()
    tried: int | None = None
    watched: str = WATCHED
    lower_is_better: bool = False

    def runs(self, pieces: Pieces) -> list[dict[str, Any]]:
        """Results of the chosen point, one a seed, which name it as `settings` and `given`; []: none is finished."""
        first, *others = self.seeds
        tried = {point: self._trained(pieces, point, first) for point in self.points[: self.tried]}
        judged = {point: run for point, run in tried.items() if run is not None}
        if not judged:
            return []
        sign = -1 if self.lower_is_better else 1
        chosen = max(judged, key=lambda point: sign * judged[point][self.watched])
        further = (self._trained(pieces, chosen, seed) for seed in others)
        runs = [run for run in (judged[chosen], *further) if run is not None]
        points, seeds = len(self.points), len(self.seeds)
        looked = "" if len(judged) == points else f" ({len(judged)} of {points} points)"
        looked += "" if len(runs) == seeds else f" ({len(runs)} of {seeds} seeds)"
        return [{**run, "settings": readable(chosen) + looked, "given": chosen} for run in runs]

    def measured(self, pieces: Pieces, runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The runs, with the seconds and the memory of a training that had the machine to itself, if there was one."""
        if not runs:
            return runs
        every = MEASURED_EPOCHS
        course = (f"training.epochs={every}", f"evaluation.every={every}", "evaluation.slices=false")
        if self.preset == "amr":
            course += ("training.adversarial.start_epoch=1",)
        quiet = pieces.result(
            Training(
                preset=self.preset,
                settings=tuple(runs[0]["given"]),
                shared=(*self.always, *course),
                seed=self.seeds[0],
            )
        )
        if quiet is None:
            return runs
        figures = {key: quiet[key] for key in ("seconds_per_epoch", "peak_memory_mb")}
        return [{**run, **figures, "measured": True} for run in runs]

    def reported(self, pieces: Pieces, *, only_stored: bool, measure: bool) -> list[dict[str, Any]]:
        """`runs`, `measured`: either all trainings are made, or none, or (`measure`) the measured one alone."""
        pieces.only_stored = only_stored or measure
        runs = self.runs(pieces)
        pieces.only_stored = not measure
        return self.measured(pieces, runs)

    def _trained(self, pieces: Pieces, point: tuple[str, ...], seed: int) -> dict[str, Any] | None:
        shared = (*self.always, *self.shared)
        return pieces.result(Training(preset=self.preset, settings=point, shared=shared, seed=seed))


def amr_after(epochs: int) -> str:
    """The setting by which the second half of so many epochs of AMR is adversarial."""
    return f"training.adversarial.start_epoch={epochs // 2 + 1}"


def mean_and_spread(runs: Sequence[dict[str, Any]], key: str) -> str:
    """`.4284 ± .0020`: mean and standard deviation, or the one value that there is."""
    values = [run[key] for run in runs]
    mean = f"{fmean(values):.4f}".lstrip("0")
    return mean if len(values) == 1 else f"{mean} ± {f'{stdev(values):.4f}'.lstrip('0')}"


def time_and_memory(runs: Sequence[dict[str, Any]]) -> list[str]:
    """Seconds an epoch, ~ where the machine was shared, and the peak in MiB."""
    least = f"{min(run['seconds_per_epoch'] for run in runs):.2f}"  # the least disturbed one
    return [least if "measured" in runs[0] else f"~{least}", f"{max(run['peak_memory_mb'] for run in runs):,.0f}"]


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines))


def readable(settings: Sequence[str]) -> str:
    """`layers 2, regulariser 0.001`, of `model.encoder.layers=2` and the like."""
    named = [setting.partition("=") for setting in settings]
    return ", ".join(f"{key.rpartition('.')[2]} {value}" for key, _, value in named)


def add_search_arguments(parser: argparse.ArgumentParser, *, epochs: int, every: int, patience: int) -> None:
    """How points and seeds are trained; the numbers are the defaults."""
    parser.add_argument("--points", type=int, choices=range(1, 5), default=4, help="how many are searched")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--epochs", type=int, default=epochs, help="at most")
    parser.add_argument("--every", type=int, default=every, help="epochs between validations")
    parser.add_argument("--patience", type=int, default=patience, help="validations without a gain before stopping")
    parser.add_argument("--threads", type=int, help="compute threads; without it all cores")
    parser.add_argument("--only-stored", action="store_true", help="train nothing: the tables of what is finished")
    parser.add_argument("--measure", action="store_true", help="time the chosen settings, and train nothing else")
    parser.add_argument("--work", help="folder for prepared data and results")
