"""A training on two Ray workers whose tables are dealt out: learnt, saved by both, gone on with by one, read back."""

import pytest
from finished_session import SESSION_SECONDS, Session
from test_ray_training import recall_of_popularity
from training_session import EPOCHS

from braidrec.config.load import load_config
from braidrec.config.runs import EvaluateConfig
from braidrec.data.folder import DatasetFolder
from braidrec.runs.evaluate import evaluate_config

pytestmark = [pytest.mark.slow, pytest.mark.timeout(SESSION_SECONDS + 60)]


def test_two_workers_learn_what_is_planted(training_session: Session) -> None:
    step = training_session.step("sharded")
    popularity = recall_of_popularity(DatasetFolder.open(str(training_session.folder / "planted")), 20)
    assert step["result"]["metrics"]["test/recall@20"] > 2 * popularity
    losses = [epoch["train/loss"] for epoch in training_session.epochs("sharded")]
    assert losses[EPOCHS - 1] < 0.8 * losses[0]
    assert not step["workers_left"] and step["groups_left"] == []


def test_each_worker_saved_its_rows(training_session: Session) -> None:
    parts = training_session.step("sharded")["parts"]
    assert parts == [f"rows-0000{rank}-of-00002.safetensors" for rank in range(2)]


def test_one_process_goes_on_with_what_two_workers_saved(training_session: Session) -> None:
    step = training_session.step("sharded")
    assert step["ends"] == list(range(1, EPOCHS + 1))
    assert step["ends_alone"] == [EPOCHS + 1]
    losses = [epoch["train/loss"] for epoch in training_session.epochs("sharded")]
    assert len(losses) == EPOCHS + 1 and losses[-1] < losses[-2]


def test_the_run_is_evaluated_as_any_other(training_session: Session) -> None:
    runs = training_session.folder / "runs"
    wanted = [f"run={runs / 'sharded'}", f"output={training_session.folder / 'evaluation'}"]
    found = evaluate_config(load_config(EvaluateConfig, [], wanted), lambda done, total: None)
    told = training_session.step("sharded")["alone"]["metrics"]
    assert found.result.metrics["recall@20"] == pytest.approx(told["test/recall@20"], rel=1e-6)
