"""`index=ann` of finished runs: the exact lists where every cell is searched, its recall said, and what refuses it."""

import json
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from finished_runs import NUM_USERS, Finished

import braidrec
from braidrec.config.load import ConfigError
from braidrec.config.runs import RecommendConfig
from braidrec.display.results import print_evaluate_result
from braidrec.evaluation.mixture_ranker import MixtureRanker
from braidrec.models.contract import Mixture
from braidrec.runs.search import search_of

pytest.importorskip("faiss", reason="the extra braidrec[ann] is not installed")

ALL_CELLS = {"index": "ann", "n_list": 3, "n_probe": 3}


def lists(file: str) -> list[tuple[str, int, str]]:
    return [(row["user_id"], row["rank"], row["item_id"]) for row in pq.read_table(file).to_pylist()]


def test_recommendations_are_the_exact_ones_and_the_recall_is_said(lightgcn: Finished, tmp_path: Path) -> None:
    done = {}
    for name, options in (("exact", {}), ("ann", ALL_CELLS)):
        done[name] = braidrec.recommend(
            "lightgcn", storage=lightgcn.storage, k=7, exclude="train", output=str(tmp_path / name), **options
        )
    assert lists(done["ann"].recommendations) == lists(done["exact"].recommendations)
    assert done["exact"].approximate is None
    report = done["ann"].approximate
    assert report is not None
    assert (report.recall, report.recall_users, report.n_list, report.n_probe) == (1.0, NUM_USERS, 3, 3)


def test_metrics_are_the_exact_ones_and_the_recall_is_in_the_file(
    lightgcn: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exact = braidrec.evaluate("lightgcn", storage=lightgcn.storage, output=str(tmp_path))
    found = braidrec.evaluate("lightgcn", storage=lightgcn.storage, output=str(tmp_path), **ALL_CELLS)
    assert found.result.metrics == pytest.approx(exact.result.metrics, nan_ok=True)
    assert found.metrics_file != exact.metrics_file
    written = json.loads((tmp_path / "test-mask-train-ann-cells-3-searched-3.json").read_text(encoding="utf-8"))
    assert written["approximate"]["recall"] == 1.0
    print_evaluate_result(found)
    assert "approximate (n_list=3, n_probe=3): recall@20 1.0000 of the exact lists" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_probe": 3}, "n_probe has no effect with index=exact"),
        ({"index": "ann", "n_list": 4_000}, "index=ann: n_list=4000, n_probe=.*: wanted n_probe ≤ n_list ≤ 45"),
    ],
)
def test_settings_that_make_no_sense_are_refused(lightgcn: Finished, options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        braidrec.recommend("lightgcn", storage=lightgcn.storage, **options)


def test_what_needs_all_scores_is_refused(lightgcn: Finished, ratings: Finished) -> None:
    with pytest.raises(ConfigError, match="index=ann: auc=true needs the scores of all items; set index=exact"):
        braidrec.evaluate("lightgcn", storage=lightgcn.storage, auc=True, index="ann")
    with pytest.raises(ConfigError, match="index=ann: a model of ratings"):
        braidrec.evaluate("ratings", storage=ratings.storage, index="ann")


def test_a_score_that_is_no_inner_product_is_refused() -> None:
    ranker = MixtureRanker(torch.ones(2, 4), torch.ones(3, 4), Mixture(components=2, dim=2, temperature=1.0))
    config = RecommendConfig(run="vae", index="ann")
    with pytest.raises(ConfigError, match=r"index=ann: the scores of vae are no inner products .* set index=exact"):
        search_of(config, ranker, config.run, tile_mb=8)


def test_without_faiss_the_extra_is_named(lightgcn: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ConfigError, match=r"index=ann needs FAISS: pip install 'braidrec\[ann\]'"):
        braidrec.recommend("lightgcn", storage=lightgcn.storage, index="ann")
