"""A trial on its thread: what it hands over, how it is ended and continued; and that no test figure leaves it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from search_cases import Audience, keys_in, source_of, sweep_of, tasks_of

from braidrec.errors import RunError
from braidrec.search import process as process_of_trials
from braidrec.search.process import SECONDS_FOR_A_LEASE, Task, Training, TrialProcess
from braidrec.search.sources import FinalSource
from braidrec.training.events import EpochEnd, Listener
from braidrec.training.lease import LEASE_SECONDS


def all_of(training: Training) -> Iterator[dict[str, Any]]:
    while True:
        result = training.next()
        yield result
        if result.get("done"):
            return


def test_a_search_sees_validations_and_nothing_of_the_test(tmp_path: Path) -> None:
    source, _ = source_of(tmp_path)
    found = source.next()
    assert found is not None
    record, task = found
    assert task.config["evaluation"]["test"] is False and task.config["evaluation"]["watch_test"] is False
    results = list(all_of(Training(task)))
    assert [result["epoch"] for result in results[:-1]] == [1, 2, 3, 4]
    scores = [result["score"] for result in results]
    assert scores == sorted(scores), "the best so far"
    assert keys_in(results) == {"epoch", "score", "last", "finished", "seconds", "done"}
    assert [result["last"] for result in results[:-1]] == [False, False, False, True]
    metrics = json.loads(Path(task.config["storage"], task.name, "result.json").read_text())["metrics"]
    assert results[-1]["score"] == metrics["valid/recall@20"]
    assert {name.split("/")[0] for name in metrics} == {"valid"}
    lines = Path(task.config["storage"], task.name, "metrics.jsonl").read_text()
    assert "valid/" in lines and "test/" not in lines
    assert record.seed == 42


def test_a_final_run_is_tested_with_its_own_seed(tmp_path: Path) -> None:
    source, book = source_of(tmp_path)
    found = source.next()
    assert found is not None
    _, _, tasks = tasks_of(tmp_path, sweep_of(tmp_path))
    finals = FinalSource([found[0]], [43, 44], book, tasks, Audience())
    names = []
    for seed in (43, 44):
        final = finals.next()
        assert final is not None
        record, task = final
        names.append(record.name)
        assert (task.config["seed"], task.config["evaluation"]["test"], task.tested) == (seed, True, True)
        assert task.config["evaluation"]["watch_test"] is False, "though the base says so: it is tested once"
    assert finals.next() is None and len(set(names)) == 2
    *_, last = all_of(Training(task))
    assert last["finished"] and "test/recall@20" in last["metrics"]


def test_what_a_trial_dies_of_is_its_result(tmp_path: Path) -> None:
    source, _ = source_of(tmp_path)
    tasks = [found[1] for found in iter(source.next, None)]
    (result,) = all_of(Training(tasks[2]))
    assert result["done"] and "try a lower training.optimizer.learning_rate" in result["failure"]
    broken = Task(**{**tasks[0].to_plain(), "config": {**tasks[0].config, "data": {"path": str(tmp_path / "none")}}})
    (result,) = all_of(Training(broken))
    assert "no such folder" in result["failure"]


def test_a_training_that_is_ended_gives_its_run_back_and_is_continued_by_the_next(tmp_path: Path) -> None:
    source, _ = source_of(tmp_path)
    tasks = [found[1] for found in iter(source.next, None)]
    process = TrialProcess(tasks[0].to_plain())
    first = [process.step() for _ in range(2)]
    assert process.reset_config(tasks[1].to_plain())  # waits until the first has given its lease back
    assert process.step()["epoch"] == 1
    process.cleanup()
    again = list(all_of(Training(tasks[0])))
    # It was ended between the validation and the checkpoint of epoch 2, which is trained again.
    assert [result["epoch"] for result in again] == [1, 2, 2, 3, 4, 4]
    assert again[:2] == [{key: result[key] for key in ("epoch", "score", "last")} for result in first]
    config = {**tasks[0].config, "name": "undisturbed"}
    undisturbed = Task(**{**tasks[0].to_plain(), "name": "undisturbed", "config": config})
    assert [each["score"] for each in all_of(Training(undisturbed))] == [
        each["score"] for each in again[:2] + again[3:]
    ]


def test_epochs_before_the_adversary_are_neither_the_best_nor_the_last(tmp_path: Path) -> None:
    """The training's own patience decides, and starts anew with the adversary; also for epochs that are told again."""
    source, _ = source_of(tmp_path)
    found = source.next()
    assert found is not None and found[1] is not None
    config = json.loads(json.dumps(found[1].config))
    config["training"]["adversarial"] = {"target": "embeddings", "start_epoch": 4, "epsilon": 0.5}
    config["training"]["optimizer"]["learning_rate"] = 1e-30  # no epoch is better than another
    config["training"]["epochs"] = 20
    config["evaluation"]["patience"] = 2
    task = Task(**{**found[1].to_plain(), "config": config})
    *epochs, end = all_of(Training(task))
    assert [(each["epoch"], each["last"]) for each in epochs] == [(n, n == 6) for n in range(1, 7)]
    assert end["finished"] and end["epoch"] == 6
    again = all_of(Training(task))
    assert [next(again) for _ in range(6)] == epochs


def test_a_better_score_before_the_adversary_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(config: Any, *, listeners: tuple[Listener, ...], **_: Any) -> None:
        for number, value in enumerate([0.4, 0.3, 0.1, 0.2, 0.15], start=1):
            metrics = {"valid/recall@20": value}
            listeners[0].handle(EpochEnd(epoch=number, metrics=metrics, counts=number > 2, last=number == 5))
        raise RunError("no more")

    monkeypatch.setattr(process_of_trials, "train", train)
    source, _ = source_of(tmp_path)
    found = source.next()
    assert found is not None and found[1] is not None
    *epochs, _ = all_of(Training(found[1]))
    assert [each["score"] for each in epochs] == [0.4, 0.3, 0.1, 0.2, 0.2]


def test_ending_a_training_that_has_not_begun_or_is_over(tmp_path: Path) -> None:
    source, _ = source_of(tmp_path)
    tasks = [found[1] for found in iter(source.next, None)]
    training = Training(tasks[0])
    training.end()
    assert not Path(tasks[0].config["storage"], tasks[0].name).exists()
    over = Training(tasks[1])
    assert list(all_of(over))[-1]["finished"]
    over.end()


@pytest.mark.parametrize("death", [SystemExit(3), KeyboardInterrupt(), MemoryError()])
def test_whatever_ends_a_trainings_thread_is_a_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, death: BaseException
) -> None:
    """Without one the process, and Tune with it, would wait for ever."""

    def train(*_: Any, **__: Any) -> None:
        raise death

    monkeypatch.setattr(process_of_trials, "train", train)
    source, _ = source_of(tmp_path)
    found = source.next()
    assert found is not None and found[1] is not None
    (result,) = all_of(Training(found[1]))
    assert result["failure"].startswith(type(death).__name__) and result["done"]


def test_the_lease_of_a_dead_process_is_waited_for_until_it_runs_out() -> None:
    assert SECONDS_FOR_A_LEASE > LEASE_SECONDS
