"""What a person reads of a sweep and of a comparison."""

import io

from rich.console import Console
from search_cases import ended

from braidrec.evaluation.significance import PairStatistics
from braidrec.search.compare_result import Comparison, Contender, Cost, Figure, Pair
from braidrec.search.comparison_tables import print_comparison
from braidrec.search.display import SweepDisplay
from braidrec.search.records import TrialRecord
from braidrec.search.summary import print_sweep_result
from braidrec.search.sweep import SweepResult
from braidrec.search.winner import Candidate


def console() -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, width=160, force_terminal=False), text


def test_the_live_line_counts_states_names_the_best_and_estimates_what_is_left() -> None:
    display = SweepDisplay("recall@20", 1, console=console()[0])
    known = [ended(1, {}, 0.3), ended(2, {}, 0.2, "stopped_early")]
    display.phase("search", known, 8, 2)
    assert display.left() == float("inf"), "nothing ended in this session"
    for number, (score, seconds, state) in enumerate([(0.5, 10.0, "finished"), (None, 20.0, "failed")], start=3):
        record = ended(number, {}, score, state)
        record.seconds = seconds
        display.began(record)
        display.ended(record)
    display.began(running := TrialRecord(name="trial-5", number=5, role="trial", overrides={}, seed=1, epochs=7))
    assert display.left() == 15.0 * (8 - 4) / 2
    line = display._line().plain
    assert line.startswith("search 4/8 | 2 finished, 1 stopped early, 1 failed | running: trial-5 epoch 7 | ")
    assert "best recall@20 0.5000 (trial-3)" in line and "0:00:30 left" in line
    running.score = 0.7
    assert "best recall@20 0.7000 (trial-5)" in display._line().plain


def test_of_a_metric_that_should_be_low_the_lowest_is_best() -> None:
    display = SweepDisplay("rmse", -1, console=console()[0])
    display.phase("search", [ended(1, {}, 0.3), ended(2, {}, 0.2)], None, 1)
    assert "best rmse 0.2000 (trial-2)" in display._line().plain


def test_every_end_is_a_line_with_its_reason_and_settings() -> None:
    own, text = console()
    display = SweepDisplay("recall@20", 1, console=own)
    display.phase("search", [], 3, 1)
    failed = ended(1, {"model.dim": 8}, None, "failed")
    failed.reason = "loss=nan [step 3]"
    for record in (failed, ended(2, {"rate": 0.25}, 0.5)):
        display.ended(record)
    lines = text.getvalue().splitlines()
    assert lines[0] == "search: 3 trainings, 1 at a time"
    assert lines[1] == "1/3 trial-1 failed (loss=nan [step 3]): no score, 10 epochs, 0:00:00; model.dim=8"
    assert lines[2] == "2/3 trial-2 finished: recall@20 0.5000, 10 epochs, 0:00:00; rate=0.25"


def test_the_end_of_a_sweep_says_what_was_tried_who_won_and_where_everything_is() -> None:
    tests = {"test/recall@20": (0.4, 0.01), "test/ndcg@20": (0.3, None)}
    result = SweepResult(
        name="mine",
        folder="/runs/mine",
        metric="recall@20",
        trials=[ended(1, {}, 0.5), ended(2, {}, 0.4, "stopped_early"), ended(3, {}, None, "failed")],
        candidates=[
            Candidate(number=1, overrides={"a": 2}, seeds=(1, 2), score=0.5, spread=0.02, tests=tests),
            Candidate(number=2, overrides={"a": 3}, seeds=(1,), score=0.4, spread=None, tests={}),
        ],
        winner_file="/runs/my sweep/winner.yaml",
        best_on_test={"recall@20": 0.45},
        report="/runs/mine/report.html",
    )
    own, text = console()
    print_sweep_result(result, own)
    said = text.getvalue()
    assert "3 trials: 1 finished, 1 stopped early, 1 failed; 30 epochs. Chosen by recall@20 on the validation" in said
    assert "0.5000 ± 0.0200" in said and "0.4000 ± 0.0100" in said
    assert "winner, trial 1: a=2" in said and "trial 2: a=3" in said
    assert "best recall@20 of any trial, chosen on test" in said and "0.4500" in said
    assert "/runs/mine/report.html" in said and "jobs/train.py --config '/runs/my sweep/winner.yaml'" in said


def contender(label: str, level: float) -> Contender:
    return Contender(
        label=label, settings={}, fusion=None, run_ids=(label,), seeds=("1",), validation=Figure(values=(level,)),
        test=Figure(values=(level, level)), interval=(level - 0.1, level + 0.1), cost=Cost(),
    )  # fmt: skip


def test_a_comparison_shows_the_winners_pairs_first_and_its_conclusions_last() -> None:
    def pair(better: str, worse: str, verdict: str) -> Pair:
        statistics = PairStatistics(
            first=0, second=1, difference=0.1, interval=(0.05, 0.15), t_p=0.01, wilcoxon_p=0.02, t_holm=0.03,
            wilcoxon_holm=0.04, cohens_d=1.0, rank_biserial=0.5, better=9, worse=1,
        )  # fmt: skip
        return Pair(better=better, worse=worse, statistics=statistics, spread=None, verdict=verdict, sentence="")  # type: ignore[arg-type]

    found = Comparison(
        title="mine", metric="ndcg@5", monitor="recall@20", higher_is_better=True, monitor_is_high=True,
        confidence=0.9, dataset=("data", "0" * 64), num_users=1234,
        contenders=[contender("first", 0.5), contender("second", 0.4), contender("third", 0.3)],
        pairs=[pair("second", "third", "chance"), pair("first", "second", "real"), pair("first", "third", "one seed")],
        trials=[], importances=[], conclusions=["first is best."], notes=["Left out: one."], winner_yaml=None,
        report="/r.html",
    )  # fmt: skip
    own, text = console()
    print_comparison(found, 2, own)
    said = text.getvalue()
    assert "1,234 users" in said and "test ndcg@5" in said and "90%" in said
    assert said.index("1 than 2") < said.index("1 than 3") and "2 than 3" not in said
    assert "1 more pairs are in the report" in said
    assert said.rstrip().splitlines()[-3:] == ["Left out: one.", "first is best.", "report: /r.html"]
