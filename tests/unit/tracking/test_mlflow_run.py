"""A whole run in a real SQLite store, read back with MLflow's own client."""

import json
import os
import shutil
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from braidrec.tracking import DatasetLineage, MlflowRun
from braidrec.tracking.outbox_file import read_outbox
from braidrec.tracking.replay import main as replay
from braidrec.tracking.source import library_revision
from braidrec.tracking.store import connect
from braidrec.tracking.system import SystemSampler
from braidrec.training.events import EpochEnd, Finished, Note, Progress, Started

Start = Callable[..., MlflowRun]
CONFIG = {"seed": 42, "model": {"dim": 64, "encoder": {"kind": "lightgcn"}}, "evaluation": {"at": [10, 20]}}


def epoch(number: int, loss: float, recall: float, *, best: bool = False) -> EpochEnd:
    return EpochEnd(epoch=number, metrics={"train/loss": loss, "valid/recall@20": recall}, best=best)


def artefacts(client: Any, run_id: str, folder: str = "") -> set[str]:
    found = set()
    for entry in client.list_artifacts(run_id, folder or None):
        found |= artefacts(client, run_id, entry.path) if entry.is_dir else {entry.path}
    return found


def history(client: Any, run_id: str, name: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in client.get_metric_history(run_id, name)]


def test_everything_is_logged(started: Start, client: Any, tmp_path: Path, said: list[str]) -> None:
    ids: list[str] = []
    run = started(begin={"config": CONFIG, "config_yaml": "seed: 42\n"}, tags={"team": "a"}, on_run_id=ids.append)
    run.handle(
        Started(first_epoch=1, epochs=2, steps_per_epoch=3, interactions_per_epoch=9, facts={"propagation": "full"})
    )
    run.handle(Progress(stage="train", epoch=1, done=1, total=9, rate=1.0))
    run.handle(epoch(1, 0.5, 0.1, best=True))
    run.handle(Note(message="a checkpoint was broken", level="warning"))
    run.handle(epoch(2, 0.25, 0.05))
    run.handle(Finished(best_epoch=1, epochs_run=2, metrics={"test/recall@20": 0.09}))
    (tmp_path / "per_user.parquet").write_bytes(b"x" * 100)
    run.log_artifact(str(tmp_path / "per_user.parquet"), "per_user")
    run.log_plots(tmp_path)
    outcome = run.finish("FINISHED")

    assert (outcome.unsent, outcome.outbox, said) == (0, None, [])
    assert ids == [outcome.run_id]
    stored = client.get_run(outcome.run_id)
    assert stored.info.status == "FINISHED"
    assert stored.info.run_name == "first"
    experiment = client.get_experiment(stored.info.experiment_id)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    assert stored.info.end_time >= stored.info.start_time
    assert stored.data.params == {
        "seed": "42",
        "model.dim": "64",
        "model.encoder.kind": "lightgcn",
        "evaluation.at": "[10, 20]",
    }
    assert history(client, outcome.run_id, "train/loss") == [(1, 0.5), (2, 0.25)]
    assert history(client, outcome.run_id, "valid/recall_at_20") == [(1, 0.1), (2, 0.05)]
    assert history(client, outcome.run_id, "test/recall_at_20") == [(1, 0.09)]
    assert history(client, outcome.run_id, "epochs_run") == [(1, 2.0)]
    _check_tags(stored.data.tags)
    _check_lineage(stored.inputs.dataset_inputs)
    found = artefacts(client, outcome.run_id)
    (note,) = (path for path in found if path.startswith("notes/"))
    assert found == {"config.yaml", note, "per_user/per_user.parquet", "plots/curves.html"}
    root = Path(stored.info.artifact_uri.removeprefix("file://"))
    assert (root / "config.yaml").read_text() == "seed: 42\n"
    assert (root / note).read_text().endswith("warning: a checkpoint was broken\n")
    assert root.is_relative_to(tmp_path), "artefacts lie beside the database, whatever the working directory"


def _check_tags(tags: dict[str, str]) -> None:
    revision = library_revision()
    assert tags["team"] == "a"
    assert tags["braidrec.version"] == version("braidrec")
    assert tags["braidrec.pid"] == str(os.getpid())
    assert tags["braidrec.choice.propagation"] == "full"
    assert tags["braidrec.end_reason"] == "FINISHED"
    assert tags["mlflow.source.git.commit"] == revision.commit
    assert tags["braidrec.dataset.digest"] == "0123456789abcdef" * 4


def _check_lineage(inputs: list[Any]) -> None:
    (entry,) = inputs
    assert (entry.dataset.name, entry.dataset.digest) == ("planted", ("0123456789abcdef" * 4)[:36])
    assert json.loads(entry.dataset.source) == {"uri": "/data/planted"}
    assert [(tag.key, tag.value) for tag in entry.tags] == [("mlflow.data.context", "training")]


def test_where_the_vectors_come_from_is_an_input_of_the_run(started: Start, client: Any) -> None:
    features = {"image": {"encoder": "torchvision", "weights": {"sha256": "ab"}}, "text": {"kind": "imported"}}
    lineage = DatasetLineage(name="d", path="/d", digest="0" * 64, features=features)
    outcome = started(begin={"dataset": lineage}).finish("FINISHED")
    (entry,) = client.get_run(outcome.run_id).inputs.dataset_inputs
    assert json.loads(entry.dataset.profile) == {"features": features}


def test_failure_keeps_its_reason(started: Start, client: Any) -> None:
    outcome = started().finish("FAILED", "loss is NaN at step 7")
    stored = client.get_run(outcome.run_id)
    assert stored.info.status == "FAILED"
    assert stored.data.tags["braidrec.end_reason"] == "loss is NaN at step 7"


def test_finishing_twice_or_before_the_start(started: Start, make_run: Start, client: Any) -> None:
    run = started()
    outcome = run.finish("FINISHED")
    assert run.finish("KILLED", "too late") == outcome
    assert client.get_run(outcome.run_id).info.status == "FINISHED"
    assert make_run().finish("FAILED").run_id is None
    with pytest.raises(RuntimeError, match="start was not called"):
        make_run().log_tags({"a": "b"})


def test_large_and_remote_artefacts_become_tags(started: Start, client: Any, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "weights").write_bytes(b"x" * 60)
    (folder / "manifest").write_bytes(b"x" * 60)
    run = started()
    run.log_artifact(str(folder), "small", max_bytes=120)
    run.log_artifact(str(folder), "large", max_bytes=119)
    run.log_artifact("s3://me:secret@bucket/runs/per_user")
    with pytest.raises(FileNotFoundError, match="missing: cannot be logged"):
        run.log_artifact(str(tmp_path / "missing"))
    run_id = run.finish("FINISHED").run_id
    assert {"small/deep/weights", "small/manifest", "config.yaml"} == artefacts(client, run_id)
    tags = client.get_run(run_id).data.tags
    assert tags["braidrec.artifact.checkpoint"] == str(folder)
    assert tags["braidrec.artifact.per_user"] == "s3://me:***@bucket/runs/per_user"


def test_a_resumed_run_goes_on_in_the_same_mlflow_run(started: Start, client: Any, tmp_path: Path) -> None:
    first = started(run_key="/runs/a", begin={"config": {"seed": 42, "training": {"epochs": 2}}})
    first.handle(epoch(1, 0.5, 0.1))
    run_id = first.finish("KILLED", "stopped by its user").run_id
    # The id was not stored anywhere: the key finds the run.
    second = started(
        run_key="/runs/a",
        begin={"config": {"seed": 42, "training": {"epochs": 4}}, "previous": [(1, {"train/loss": 0.5})]},
    )
    second.handle(epoch(2, 0.25, 0.2))
    page = second.log_plots(tmp_path)
    assert second.finish("FINISHED").run_id == run_id
    stored = client.get_run(run_id)
    assert stored.info.status == "FINISHED"
    assert stored.data.params["training.epochs"] == "2", "MLflow's parameters cannot change"
    assert stored.data.tags["braidrec.resumed.training.epochs"] == "4"
    assert "braidrec.resumed.seed" not in stored.data.tags
    assert history(client, run_id, "train/loss") == [(1, 0.5), (2, 0.25)]
    assert '"x":[1,2]' in page.read_text().replace(" ", ""), "the plots show the epochs before the resume too"
    assert started(run_key="/runs/b").finish("FINISHED").run_id != run_id


def test_a_resumed_run_sends_what_got_lost_with_a_killed_driver(started: Start, client: Any) -> None:
    first = started(run_key="/runs/a")
    first.handle(epoch(1, 0.5, 0.1))
    run_id = first.finish("KILLED").run_id
    earlier = [(1, {"train/loss": 0.5}), (2, {"train/loss": 0.25, "valid/recall@20": 0.2}), (3, {"train/loss": 0.125})]
    second = started(run_key="/runs/a", begin={"previous": earlier})
    second.handle(epoch(4, 0.0625, 0.4))
    second.finish("FINISHED")
    assert history(client, run_id, "train/loss") == [(1, 0.5), (2, 0.25), (3, 0.125), (4, 0.0625)]
    assert history(client, run_id, "valid/recall_at_20") == [(1, 0.1), (2, 0.2), (4, 0.4)]


def test_a_resumed_run_that_mlflow_has_lost(started: Start, client: Any, said: list[str]) -> None:
    gone = started().finish("FINISHED").run_id
    client.delete_run(gone)
    for lost in (gone, "0" * 32):
        run_id = started(existing_run_id=lost).finish("FINISHED").run_id
        assert run_id != lost
        assert client.get_run(run_id).info.status == "FINISHED"
    assert [f"MLflow has no run {lost}" in line for line, lost in zip(said, (gone, "0" * 32), strict=True)] == [
        True,
        True,
    ]


def test_a_running_run_is_taken_over_by_its_id(started: Start, client: Any) -> None:
    run_id = started().finish("KILLED").run_id
    run = started(existing_run_id=run_id)
    run.handle(epoch(1, 0.5, 0.1))
    assert run.finish("FINISHED").run_id == run_id


def test_a_model_is_logged_registered_and_found(started: Start, client: Any, uri: str, tmp_path: Path) -> None:
    import mlflow
    import numpy as np

    from braidrec.tracking.model import save_recommender

    one = np.ones((1, 2), dtype=np.float32)
    save_recommender(tmp_path / "model", user_vectors=one, item_vectors=one, user_ids=["u"], item_ids=["i"])
    run = started(run_key="/runs/a")
    run.log_model(tmp_path / "model", registered_name="shop")
    run_id = run.finish("FINISHED").run_id
    again = started(run_key="/runs/a")
    again.log_model(tmp_path / "model", registered_name="shop")
    assert again.finish("FINISHED").unsent == 0
    (found,) = client.search_model_versions("name = 'shop'")
    assert found.run_id == run_id
    (output,) = client.get_run(run_id).outputs.model_outputs
    assert output.model_id in found.source
    mlflow.set_tracking_uri(uri)
    assert mlflow.pyfunc.load_model("models:/shop/1").predict({"user_id": "u"})["item_id"].tolist() == ["i"]


def test_system_metrics_count_seconds_of_the_run(started: Start, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("braidrec.tracking.run.SystemSampler", lambda emit: SystemSampler(emit, period=0.6))
    run = started(system_metrics=True)
    time.sleep(1.6)
    run_id = run.finish("FINISHED").run_id
    start = client.get_run(run_id).info.start_time
    points = client.get_metric_history(run_id, "system/cpu_utilization_percentage")
    assert points
    assert [point.step for point in points] == [(point.timestamp - start) // 1000 for point in points]
    assert client.get_run(run_id).data.metrics["system/system_memory_usage_megabytes"] > 0


def test_what_the_store_refuses_is_kept_and_can_be_sent_later(
    started: Start, client: Any, tmp_path: Path, said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "results.parquet"
    file.write_bytes(b"1")
    run = started(flush_seconds=20)
    run.log_artifact(str(file), "late")
    # Gone before its turn comes (or after: then there is nothing to keep).
    file.unlink()
    run.handle(epoch(1, 0.5, 0.1))
    outcome = run.finish("FINISHED")
    if outcome.unsent == 0:
        pytest.skip("the file was sent before it was deleted")
    assert outcome.outbox is not None
    _, (entry,) = read_outbox(outcome.outbox)
    assert entry.reason == f"{file} no longer exists"
    assert history(client, outcome.run_id, "train/loss") == [(1, 0.5)], "the rest went on"
    assert any("send them later" in line and str(outcome.outbox) in line for line in said)

    assert replay([str(outcome.outbox)]) == 1
    assert "no longer exists" in capsys.readouterr().out
    file.write_bytes(b"1")
    assert replay([str(outcome.outbox)]) == 0
    assert "late/results.parquet" in artefacts(client, outcome.run_id)
    assert not outcome.outbox.exists()
    assert outcome.outbox.with_name("outbox.jsonl.sent").exists()
    assert client.get_run(outcome.run_id).info.status == "FINISHED"


def test_a_database_away_at_the_start_does_not_stop_the_training(
    started: Start, tmp_path: Path, said: list[str], uri: str
) -> None:
    # As with a file system that is not mounted yet: what should be the folder is none.
    folder = tmp_path / "mounted"
    away = f"sqlite:///{folder}/mlflow.db"
    folder.write_text("not a folder")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("braidrec.tracking.run.absolute_tracking_uri", lambda given: given)
        run = started(uri=away)
    run.handle(epoch(1, 0.5, 0.1))
    deadline = time.monotonic() + 100
    while not any("cannot be used now" in line for line in said):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    folder.unlink()
    folder.mkdir()
    shutil.copy(uri.removeprefix("sqlite:///"), folder)
    run_id = run.finish("FINISHED").run_id
    assert history(connect(away), run_id, "train/loss") == [(1, 0.5)]


def test_an_unusable_uri_is_refused_before_anything_starts(make_run: Start) -> None:
    with pytest.raises(ValueError, match="no tracking store for 'htp'"):
        make_run(uri="htp://host")


@pytest.mark.slow
def test_nothing_is_written_to_the_working_directory_or_printed(
    started: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    run = started(uri=f"sqlite:///{tmp_path}/new/mlflow.db")
    run.handle(epoch(1, 0.5, 0.1))
    assert run.finish("FINISHED").unsent == 0
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert capfd.readouterr() == ("", "")
