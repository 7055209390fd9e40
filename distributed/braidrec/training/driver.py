"""`braidrec.train`: checks, the run's folder and listeners, the loop here or on Ray, an end that is always recorded."""

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from braidrec.config.load import ConfigError
from braidrec.config.run import RunConfig
from braidrec.config.systems.addvae import ADDVAEConfig
from braidrec.data.description import DESCRIPTION_FILE
from braidrec.data.errors import DatasetError
from braidrec.data.folder import DatasetFolder
from braidrec.data.planted import generate_planted
from braidrec.data.storage import Location
from braidrec.display.progress import ProgressDisplay
from braidrec.errors import EndedEarly, RunError, Stopped
from braidrec.places import absolute_place
from braidrec.training.check import check_run
from braidrec.training.environment import use_threads
from braidrec.training.events import Listener, Note
from braidrec.training.lease import Lease
from braidrec.training.listeners import FanOut, MetricsFile, Seconds
from braidrec.training.local_worker import LocalWorker
from braidrec.training.loop import Loop
from braidrec.training.result import Example, LoopResult, TrainResult
from braidrec.training.run_folder import RunFolder
from braidrec.training.signals import StopSignals
from braidrec.training.timing import forget_peaks
from braidrec.training.tracked import Tracked
from braidrec.training.untrained import is_untrained, run_untrained

KILLED_FLUSH_SECONDS = 2.0


def train(
    config: RunConfig,
    *,
    resume: str | None = None,
    listeners: tuple[Listener, ...] = (),
    tags: Mapping[str, str] | None = None,
) -> TrainResult:
    """Train, validate, keep the best, test it. Everything of the run is in `<storage>/<name>/`.

    Args:
        config: the run.
        resume: the name of a run in `config.storage` to continue; the result equals that of an uninterrupted run.
        listeners: told every event, beside the display, MLflow and metrics.jsonl.
        tags: of the MLflow run, beside those of the configuration.
    Raises:
        ConfigError, DatasetError: refused before any work is lost; the message names key or file and the mend.
        RunError, DivergedError: the run failed; its folder and its MLflow run stay, with the reason.
        EndedEarly: raised by a listener and passed on; the MLflow run has ended as FINISHED.
        Stopped: SIGTERM or SIGINT arrived; the MLflow run has ended as KILLED.
    """
    config = with_absolute_places(config)
    folder = open_dataset(config)
    check_run(config, folder)
    run_folder = RunFolder.new(config) if resume is None else RunFolder.existing(config.storage, resume)
    lease = Lease(run_folder.location)
    with lease, StopSignals(may_save=lambda: not lease.is_lost) as signals:
        if resume is None:
            run_folder.begin(config)
        else:
            run_folder.check_resumable(config)
        try:
            run_folder.check_same_data(folder.digest)
            return _run(config, folder, run_folder, listeners, tags or {}, signals)
        except (ConfigError, DatasetError):
            if resume is None and not run_folder.checkpoints.is_folder():
                run_folder.location.remove()  # refused: its name is free again
            raise


def open_dataset(config: RunConfig) -> DatasetFolder:
    """The data set of a run, generated first where the configuration says so and none is there.

    Raises:
        DatasetError: there is none, or it is damaged.
        ConfigError: what is there is not the one that would have been generated.
    """
    planted = config.data.planted
    if planted is not None and not Location.of(config.data.path).child(DESCRIPTION_FILE).is_file():
        generate_planted(
            config.data.path,
            num_users=planted.users,
            num_items=planted.items,
            num_interactions=planted.interactions,
            seed=planted.seed,
            overwrite=True,  # what is there, if anything, was not finished
        )
    folder = DatasetFolder.open(config.data.path)
    interactions = folder.description.options.get("interactions", "other")
    described = (folder.num_users, folder.num_items, interactions, folder.description.protocol.seed)
    if planted is not None and described != (planted.users, planted.items, planted.interactions, planted.seed):
        raise ConfigError(
            f"data.planted: {config.data.path} holds another data set ({described[0]} users, {described[1]} items, "
            f"{described[2]} interactions, seed {described[3]}): name another data.path, remove that folder, or remove "
            "data.planted to train on what it holds"
        )
    return folder


def with_absolute_places(config: RunConfig) -> RunConfig:
    """The configuration with local paths made absolute."""
    data = config.data.model_copy(update={"path": absolute_place(config.data.path)})
    changed: dict[str, Any] = {"data": data, "storage": absolute_place(config.storage)}
    if config.cache is not None:
        changed["cache"] = absolute_place(config.cache)
    return config.model_copy(update=changed)


def _run(
    config: RunConfig,
    folder: DatasetFolder,
    run_folder: RunFolder,
    listeners: tuple[Listener, ...],
    tags: Mapping[str, str],
    signals: StopSignals,
) -> TrainResult:
    metrics_file = MetricsFile(run_folder.location.child("metrics.jsonl"))
    seconds = Seconds()
    display = ProgressDisplay(monitor=config.evaluation.monitor)
    tracked = Tracked(
        config, run_folder, lambda sentence: display.handle(Note(message=sentence, level="warning")), tags
    )
    everyone = FanOut([metrics_file, seconds, display, *tracked.listeners, *listeners])
    run_folder.location.child("result.json").remove()  # a run that goes on has none until it ends again
    try:
        tracked.start(folder, [(end.epoch, end.metrics) for end in metrics_file.history()])
        with signals.told_apart(), display:
            outcome = _loop(config, folder, run_folder, everyone, signals, tracked)
        result = _result(folder, run_folder, outcome, tracked, seconds)
        run_folder.write_json("result.json", result.to_plain())
        _tell_prototypes(config, result, everyone)
        tracked.log_results(result)
        tracked.log_model(result, folder)
    except Stopped as stop:
        tracked.finish("KILLED", str(stop), KILLED_FLUSH_SECONDS)
        raise
    except EndedEarly as end:
        tracked.finish("FINISHED", str(end))
        raise
    except BaseException as error:
        tracked.finish("FAILED", f"{type(error).__name__}: {error}")
        raise
    tracked.finish("FINISHED")
    return replace(result, mlflow_run_id=tracked.run_id)  # of a run that was shorter than MLflow's start


def _tell_prototypes(config: RunConfig, result: TrainResult, listener: Listener) -> None:
    """What the prototypes of a disentangled model stand for, into the run's folder.

    The run has ended well by then, and remains so where the page cannot be written.
    """
    if not isinstance(config.model.encoder, ADDVAEConfig):
        return
    from braidrec.runs.prototypes import prototypes

    try:
        prototypes(result.folder)
    except (OSError, RunError, ConfigError, DatasetError) as error:
        again = f"jobs/prototypes.py --set run={result.folder} writes it"
        listener.handle(Note(message=f"no page of the prototypes ({error}); {again}", level="warning"))


def _loop(
    config: RunConfig,
    folder: DatasetFolder,
    run_folder: RunFolder,
    listener: Listener,
    signals: StopSignals,
    tracked: Tracked,
) -> LoopResult:
    if is_untrained(config):
        use_threads(config.workers.threads or len(os.sched_getaffinity(0)))
        return run_untrained(config, folder, LocalWorker(_local_device(config), listener.handle), run_folder.location)
    if config.workers.num:
        from braidrec.training.ray_runner import run_on_ray

        def stopped() -> bool:
            # First of all: who sent the signal may not wait until the workers have saved.
            tracked.finish("KILLED", str(signals.stop()), KILLED_FLUSH_SECONDS)
            return signals.may_save()

        return run_on_ray(config, folder, run_folder.location, listener.handle, stopped)
    from braidrec.training.build import build_parts

    use_threads(config.workers.threads or len(os.sched_getaffinity(0)))
    context = LocalWorker(_local_device(config), listener.handle, signals)
    forget_peaks(context.device)  # of what this process has trained before
    return Loop(config, build_parts(config, folder, context, run_folder), context, run_folder.location).run()


def _local_device(config: RunConfig) -> torch.device:
    if not config.workers.gpu:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigError("workers.gpu=true, but torch sees no CUDA device here: set workers.gpu=false")
    return torch.device("cuda")


def _result(
    folder: DatasetFolder, run_folder: RunFolder, outcome: LoopResult, tracked: Tracked, seconds: Seconds
) -> TrainResult:
    item_ids = folder.item_ids()
    example = Example(
        user_id=folder.user_ids()[outcome.example_user].as_py(),
        items=tuple((item_ids[item].as_py(), score) for item, score in outcome.example_items),
    )
    return TrainResult(
        name=run_folder.name,
        folder=run_folder.uri,
        checkpoint=run_folder.checkpoints.child(f"epoch-{outcome.best_epoch:05d}").uri,
        best_epoch=outcome.best_epoch,
        epochs_run=outcome.epochs_run,
        metrics=outcome.metrics,
        slices=outcome.slices,
        seconds=seconds.phases,
        example=example,
        mlflow_run_id=tracked.run_id,
        tracking_uri=tracked.uri,
    )
