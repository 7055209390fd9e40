"""Trainings in one process and on one Ray, which takes longer to start than they take: `training_session.py FOLDER`.

A process of its own: Ray keeps the token that it found in the home as long as the process lives, and the last training
is ended with SIGINT. What each step saw goes to `FOLDER/report.json`; `test_ray_training.py` judges it.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from ray_processes import WORKER, any_left, named

from braidrec import train
from braidrec.command_line import run_job
from braidrec.config.load import load_config
from braidrec.config.run import RunConfig
from braidrec.data.delivery import CHUNK_ROWS, read_all
from braidrec.data.description import ProtocolDescription
from braidrec.data.folder import DatasetFolder
from braidrec.data.planted import generate_planted
from braidrec.data.writer import DatasetWriter
from braidrec.errors import RunError, Stopped
from braidrec.tracking.store import connect
from braidrec.training.events import EpochEnd, Event, Note, Started
from braidrec.training.ray_start import start_ray

EPOCHS = 3
KILLED_AFTER = 1
"""Who is killed dies in the epoch after this one."""
STREAMED = ("data.delivery=stream", "data.shuffle_buffer=3000")
WITHOUT_RAY_DATA = ("training.order=uniform_users", "tracking.enabled=false")
DEALT_OUT = (
    "training.tables=sharded",
    "training.propagation={mode: sampled, fan_outs: [5]}",
    "training.optimizer.kind=sparse_adam",
)
SHARD_ROWS = 10_007
"""A prime: no number of workers divides it."""

Report = dict[str, Any]


class Watch:
    """A listener that counts and acts: at the end of an epoch it calls `act` with the event."""

    def __init__(self, act: Callable[[EpochEnd], None] = lambda event: None) -> None:
        self.starts = 0
        self.ends: list[int] = []
        self.notes: list[str] = []
        self._act = act

    def handle(self, event: Event) -> None:
        if isinstance(event, Started):
            self.starts += 1
        elif isinstance(event, Note):
            self.notes.append(event.message)
        elif isinstance(event, EpochEnd):
            self.ends.append(event.epoch)
            self._act(event)


def checkpoint_after(run: Path, epoch: int) -> Path:
    """The folder that is there as soon as the epoch is saved: whoever dies from then on dies in a later epoch."""
    return run / "checkpoints" / f"epoch-{epoch:05d}"


class KillWorker:
    """Kills training workers, and measures how long the run takes to get over it.

    Args:
        after: the epoch after whose end they die,
        moment: "epoch": one of them, a third into the next; "report": all, while the first of them waits for its report
            to arrive (were it spared, it might yet save the epoch); "saving": all, while that epoch's checkpoint is
            being written.
    """

    def __init__(self, run: Path, after: int, moment: str = "epoch") -> None:
        self._run, self._after, self._moment = run, after, moment
        self._waiting = True
        self._killed_at: float | None = None
        self.recovery_seconds: float | None = None

    def __call__(self, event: EpochEnd) -> None:
        if self._waiting and event.epoch == self._after:
            self._waiting = False
            if self._moment == "report":
                self._kill(named(os.getpid(), WORKER))
            elif self._moment == "saving":
                threading.Thread(target=self._kill_while_saving, daemon=True).start()
            else:
                arguments = (event.metrics["train/seconds"] / 3,)
                threading.Thread(target=self._kill_in_mid_epoch, args=arguments, daemon=True).start()
        elif self._killed_at is not None and self.recovery_seconds is None:
            self.recovery_seconds = time.monotonic() - self._killed_at

    def _kill_in_mid_epoch(self, seconds_into_the_epoch: float) -> None:
        while not checkpoint_after(self._run, self._after).is_dir():
            time.sleep(0.005)
        time.sleep(seconds_into_the_epoch)
        self._kill(named(os.getpid(), WORKER)[:1])

    def _kill_while_saving(self) -> None:
        workers, complete = named(os.getpid(), WORKER), checkpoint_after(self._run, self._after)
        while not (list(self._run.glob("checkpoints/.saving-*")) or complete.is_dir()):
            time.sleep(0.0005)
        self._kill(workers)

    def _kill(self, workers: list[Any]) -> None:
        self._killed_at = time.monotonic()
        for worker in workers:
            worker.kill()


class Notice:
    """Tells a run that it will soon be gone, with SIGTERM, and measures how long until the next epoch is over.

    Args:
        after: the epoch in the one after which that happens, as soon as it has begun.
        to: "worker": one of them; "driver": this process.
    """

    def __init__(self, run: Path, after: int, to: str) -> None:
        self._run, self._after, self._to = run, after, to
        self._given_at: float | None = None
        self.recovery_seconds: float | None = None

    def __call__(self, event: EpochEnd) -> None:
        if event.epoch == self._after and self._given_at is None:
            threading.Thread(target=self._give, daemon=True).start()
        elif self._given_at is not None and self.recovery_seconds is None:
            self.recovery_seconds = time.monotonic() - self._given_at

    def _give(self) -> None:
        while not checkpoint_after(self._run, self._after).is_dir():
            time.sleep(0.005)
        process = os.getpid() if self._to == "driver" else named(os.getpid(), WORKER)[0].pid
        self._given_at = time.monotonic()
        os.kill(process, signal.SIGTERM)


def settings(folder: Path, data: str, name: str) -> list[str]:
    """Of every training here; all that it reads and writes is in `folder`."""
    places = [f"data.path={folder / data}", f"storage={folder / 'runs'}", f"cache={folder / 'cache'}", f"name={name}"]
    model = ["model.dim=32", "model.encoder.layers=2", "training.batch_size=256", "workers.num=2"]
    course = [f"training.epochs={EPOCHS}", "training.optimizer.learning_rate=0.01", "tracking.system_metrics=false"]
    return [*places, *model, *course]


def configured(folder: Path, data: str, name: str, *overrides: str) -> RunConfig:
    return load_config(RunConfig, [], [*settings(folder, data, name), *overrides])


def run(folder: Path, name: str, *overrides: str, data: str = "planted", watch: Watch | None = None) -> Report:
    """Train; what came of it, and what is left of it on Ray."""
    import ray

    watch = watch or Watch()
    began = time.monotonic()
    report: Report = {}
    try:
        result = train(configured(folder, data, name, *overrides), listeners=(watch,))
        report["result"] = result.to_plain()
    except RunError as error:
        report["run_error"] = str(error)
    report |= {"seconds": time.monotonic() - began, "starts": watch.starts, "ends": watch.ends}
    report["workers_left"] = any_left(os.getpid(), WORKER, seconds=60)
    groups = ray.util.placement_group_table().values()
    report["groups_left"] = [group for group in groups if group["state"] != "REMOVED"]
    return report


def killed(folder: Path, name: str, moment: str) -> Report:
    kill = KillWorker(folder / "runs" / name, KILLED_AFTER, moment)
    return run(folder, name, *STREAMED, watch=Watch(kill)) | {"recovery_seconds": kill.recovery_seconds}


def sharded(folder: Path) -> Report:
    """Two workers train with their tables dealt out; one process goes on for an epoch with what they saved."""
    report = run(folder, "sharded", *STREAMED, *DEALT_OUT)
    newest = checkpoint_after(folder / "runs" / "sharded", EPOCHS)
    report["parts"] = sorted(file.name for file in newest.glob("rows-*"))
    longer = (*STREAMED, *DEALT_OUT, "workers.num=0", f"training.epochs={EPOCHS + 1}")
    watch = Watch()
    report["alone"] = train(
        configured(folder, "planted", "sharded", *longer), resume="sharded", listeners=(watch,)
    ).to_plain()
    report["ends_alone"] = watch.ends
    return report


def noticed(folder: Path) -> Report:
    """Two workers with their tables dealt out, one of whom is sent SIGTERM."""
    notice = Notice(folder / "runs" / "noticed", KILLED_AFTER, "worker")
    watch = Watch(notice)
    report = run(folder, "noticed", *STREAMED, *DEALT_OUT, watch=watch)
    return report | {"recovery_seconds": notice.recovery_seconds, "notes": watch.notes}


def told_to_go(folder: Path) -> Report:
    """The driver is sent SIGTERM, as by `ray job stop`; then the same run is resumed."""
    notice = Notice(folder / "runs" / "told_to_go", KILLED_AFTER, "driver")
    first, second = Watch(notice), Watch(notice)
    report: Report = {}
    began = time.monotonic()
    try:
        train(configured(folder, "planted", "told_to_go", *STREAMED), listeners=(first,))
    except Stopped as stop:
        report |= {"stopped": str(stop), "seconds_to_stop": time.monotonic() - (notice._given_at or began)}
    report["workers_left"] = any_left(os.getpid(), WORKER, seconds=60)
    report["status"] = status_in_mlflow(folder, "told_to_go")
    train(configured(folder, "planted", "told_to_go", *STREAMED), resume="told_to_go", listeners=(second,))
    ends, notes = first.ends + second.ends, first.notes + second.notes
    return report | {"ends": ends, "notes": notes, "recovery_seconds": notice.recovery_seconds}


def status_in_mlflow(folder: Path, name: str) -> str:
    client = connect(f"sqlite:///{folder}/runs/mlflow.db")
    experiment = client.get_experiment_by_name("braidrec")
    (found,) = client.search_runs([experiment.experiment_id], f"attributes.run_name = '{name}'")
    return str(found.info.status)


def died_too_often(folder: Path) -> Report:
    kill = KillWorker(folder / "runs" / "died", KILLED_AFTER)
    return run(folder, "died", "workers.max_failures=0", *WITHOUT_RAY_DATA, watch=Watch(kill))


def damaged(folder: Path) -> Report:
    """Only rank 0 notices: it builds the graph that the other rank waits for."""
    generate_planted(str(folder / "damaged"), seed=1, modalities={})
    (part,) = (folder / "damaged" / "interactions" / "train").iterdir()
    content = bytearray(part.read_bytes())
    content[100:300] = bytes(200)
    part.write_bytes(content)
    return run(folder, "damaged", *WITHOUT_RAY_DATA, data="damaged")


def shards(folder: Path, num_workers: int, *overrides: str) -> Report:
    """Deal the train split out as a training does; a task a rank keeps what two passes over its shard brought."""
    import ray

    from braidrec.training.ray_shards import Shards

    @ray.remote(num_cpus=0)
    def consume(iterator: Any, target: str) -> None:
        for lap in ("first", "second"):
            chunks = list(iterator.iter_batches(batch_size=CHUNK_ROWS, batch_format="numpy"))
            np.savez(f"{target}-{lap}", arrived=sum(len(chunk["user"]) for chunk in chunks), **read_all(chunks))

    config = configured(folder, "prime", "unused", f"workers.num={num_workers}", "training.batch_size=600", *overrides)
    shards = Shards(config, DatasetFolder.open(config.data.path))
    iterators = shards.configure({"train": None}, num_workers, None, None)
    targets = [str(folder / f"shard-{rank}-of-{num_workers}") for rank in range(num_workers)]
    ray.get([consume.remote(each["train"], target) for each, target in zip(iterators, targets, strict=True)])
    return {}


def until_interrupted(folder: Path) -> None:
    """The end of the session, as `jobs/train.py` would end; draws users uniformly meanwhile."""

    def stop(event: EpochEnd) -> None:
        if event.epoch == 2:
            os.killpg(0, signal.SIGINT)  # as Ctrl-C does it: Ray's processes get it as well

    config = configured(folder, "planted", "stopped", "training.epochs=1000", "training.order=uniform_users")
    run_job(lambda: print(train(config, listeners=(Watch(stop),))))


def write_data(folder: Path) -> None:
    generate_planted(
        str(folder / "planted"), num_users=1500, num_items=800, num_interactions=30_000, seed=3, modalities={}
    )
    random = np.random.default_rng(0)
    pairs = random.permutation(400 * 300)[: SHARD_ROWS + 2]
    columns = {
        "user": (pairs // 300).astype(np.int32),
        "item": (pairs % 300).astype(np.int32),
        "rating": random.integers(1, 6, len(pairs)).astype(np.float32),
        "weight": random.random(len(pairs), dtype=np.float32),
    }
    writer = DatasetWriter.begin(str(folder / "prime"), seed=0, part_rows=3000)
    writer.write_users(pa.array([f"user-{index}" for index in range(400)]))
    writer.write_items(pa.array([f"item-{index}" for index in range(300)]))
    bounds = {"train": (0, SHARD_ROWS), "valid": (SHARD_ROWS, SHARD_ROWS + 1), "test": (SHARD_ROWS + 1, None)}
    for split, (begin, end) in bounds.items():
        writer.write_split(split, {name: values[begin:end] for name, values in columns.items()})
    writer.finish(name="prime", protocol=ProtocolDescription(kind="given", seed=0), options={})


def main(folder: Path) -> None:
    write_data(folder)
    start_ray(3)
    steps: dict[str, Callable[[], Report]] = {
        "shards of 2": partial(shards, folder, 2, "objective.loss.kind=rating_mse", "objective.use_weights=true"),
        "shards of 3": partial(shards, folder, 3),
        "whole": partial(run, folder, "whole", *STREAMED),
        "sharded": partial(sharded, folder),
        "noticed": partial(noticed, folder),
        "told_to_go": partial(told_to_go, folder),
        "killed": partial(killed, folder, "killed", "epoch"),
        "killed_in_report": partial(killed, folder, "killed_in_report", "report"),
        "killed_in_saving": partial(killed, folder, "killed_in_saving", "saving"),
        "damaged": partial(damaged, folder),
        "died": partial(died_too_often, folder),
    }
    report: Report = {}
    for name, step in steps.items():
        began = time.monotonic()
        try:
            report[name] = step()
        except Exception as error:  # the other steps are of interest all the same
            report[name] = {"unexpected": f"{type(error).__name__}: {error}"}
        print(f"step {name}: {time.monotonic() - began:.1f} s", flush=True)
        (folder / "report.json").write_text(json.dumps(report))
    until_interrupted(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
