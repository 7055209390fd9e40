"""The report: what it says without a browser, and how it opens in a real one."""

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from braidrec.evaluation.significance import PairStatistics
from braidrec.search.compare_result import Comparison, Contender, Cost, Figure, Pair, Trial
from braidrec.search.importance import Importance
from braidrec.search.report import write_comparison
from braidrec.search.report.figures import MAX_LINES, learning_curves, parallel_coordinates
from braidrec.search.report.outcome_figures import pareto_plots

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--virtual-time-budget=20000",
    "--enable-logging=stderr",
)  # fmt: skip
PLOTS = {
    "fusion-test", "fusion-validation", "parallel", "curves", "importance-0", "importance-1", "pareto-0", "pareto-1",
    "pareto-2", "missing-0", "slice-item_warmth", "slice-item_popularity",
}  # fmt: skip
EVIL = "<script>console.error('from a run name')</script>"


def contender(label: str, timing: str, level: float) -> Contender:
    return Contender(
        label=label,
        settings={"model.fusion.timing": timing, "rate": level},
        fusion=(timing, "sum"),
        run_ids=("a", "b"),
        seeds=("1", "2"),
        validation=Figure(values=(level, level + 0.01)),
        test=Figure(values=(level, level + 0.02)),
        interval=(level - 0.02, level + 0.04),
        cost=Cost(seconds=level * 100, parameters=1e4 + level, memory_mb=500.0),
        slices={
            "item_warmth": {"warm": Figure(values=(level,)), "cold": Figure(values=(0.1, 0.2))},
            "item_popularity": {"head": Figure(values=(level,)), "tail": Figure(values=(0.3,))},
        },
        without={("image", 0.5): Figure(values=(level - 0.05,)), ("image", 1.0): Figure(values=(level - 0.1,))},
    )


def trial(number: int, state: str = "finished") -> Trial:
    return Trial(
        label=f"trial {number}",
        run_id=str(number),
        state=state,  # type: ignore[arg-type]
        reason="diverged" if state == "failed" else None,
        settings={"model.fusion.timing": ("early", "late")[number % 2], "rate": number / 10}
        | ({"margin": 1e-4 * 10 ** (number % 10)} if number % 2 else {}),
        fusion=(("early", "late")[number % 2], "sum"),
        curve={epoch: 0.1 * number + epoch / 100 for epoch in range(1, 4)},
        score=0.1 * number + 0.03,
        cost=Cost(seconds=float(number)),
    )


def comparison(**changes: object) -> Comparison:
    statistics = PairStatistics(
        first=0, second=1, difference=0.1, interval=(0.05, 0.15), t_p=0.001, wilcoxon_p=0.001, t_holm=0.002,
        wilcoxon_holm=0.003, cohens_d=0.4, rank_biserial=0.5, better=30, worse=10,
    )  # fmt: skip
    pair = Pair(better="trial 1", worse=EVIL, statistics=statistics, spread=0.02, verdict="real", sentence="It is so.")
    plain = {
        "title": "fusion", "metric": "recall@20", "monitor": "recall@20", "higher_is_better": True,
        "monitor_is_high": True, "confidence": 0.95, "dataset": ("planted", "0123456789abcdef"), "num_users": 1234,
        "contenders": [contender("trial 1", "late", 0.5), contender(EVIL, "early", 0.4)], "pairs": [pair],
        "trials": [trial(1), trial(2), trial(3, "stopped_early"), trial(4, "failed")],
        "importances": [
            Importance(branch="all trials", trials=9, epochs=2, shares={"rate": 0.8, "model.fusion.timing": 0.2}),
            Importance(branch="with margin", trials=8, epochs=None, shares={"margin": 1.0}),
        ],
        "conclusions": ["trial 1 is best."], "notes": ["Left out: nothing."], "winner_yaml": "seed: 3\n",
    }  # fmt: skip
    return Comparison(**{**plain, **changes})  # type: ignore[arg-type]


def empty() -> Comparison:
    bare = replace(trial(1), fusion=None, cost=Cost(), curve={}, score=None)
    return comparison(contenders=[], pairs=[], trials=[bare], importances=[], winner_yaml=None)


def browse(page: Path, place: Path, *flags: str) -> tuple[str, list[str]]:
    """The page's elements once its script has run, and all that went to the console."""
    assert CHROMIUM is not None
    done = subprocess.run(
        [CHROMIUM, *FLAGS, f"--user-data-dir={place / 'profile'}", *flags, page.as_uri()],
        capture_output=True, text=True, timeout=250, check=True,
    )  # fmt: skip
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed to open the report in")


def plots_of(page: str) -> set[str]:
    return set(re.findall(r'id="plot-([\w-]+)"', page))


def test_the_page_has_every_section_and_needs_no_network(tmp_path: Path) -> None:
    page = write_comparison(comparison(), tmp_path / "deep" / "report.html").read_text()
    assert plots_of(page) == PLOTS
    own = page.replace(page[page.index("<script>/**") : page.index("const plots")], "")
    assert not re.findall(r'(?:src|href)="(?!#|data:)', own) and "http" not in re.sub(r"http://www.w3.org\S+", "", own)
    assert EVIL not in page and "&lt;script&gt;console" in page
    for text in ("trial 1 is best.", "Left out: nothing.", "It is so.", "1 stopped early", "diverged", "1,234 users"):
        assert text in page
    assert 'class="absent"' not in page


def test_the_winner_again_in_one_command(tmp_path: Path) -> None:
    page = write_comparison(comparison(), tmp_path / "report.html").read_text()
    file = tmp_path / "report.winner.yaml"
    assert file.read_text() == "seed: 3\n"
    assert f"python jobs/train.py --config {file} --set name=winner-again" in page


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    page = write_comparison(empty(), tmp_path / "report.html").read_text()
    assert plots_of(page) == set()
    for text in ("No run was tested", "fuse alike", "no pair to test", "Fewer than two trials", "No run has logged",
                 "at least 8 trials", "have logged what they cost", "--drop-modality", "results by groups",
                 "No configuration of a winner"):  # fmt: skip
        assert text in page
    assert page.count('class="absent"') == 10


def test_without_cold_items_the_report_says_so(tmp_path: Path) -> None:
    warm = [replace(each, slices={"item_warmth": {"warm": each.test}}) for each in comparison().contenders]
    page = write_comparison(comparison(contenders=warm), tmp_path / "report.html").read_text()
    assert "No cold item was held out" in page and "slice-item_warmth" not in page


def points(figure: object, name: str) -> Sequence[tuple[float, float]]:
    (trace,) = [trace for trace in figure.data if trace.name == name]  # type: ignore[attr-defined]
    return list(zip(trace.x, trace.y, strict=True))


def test_the_front_is_of_what_is_best_at_its_price() -> None:
    found = pareto_plots(comparison())["seconds of training"]
    assert points(found, "front") == [(40.0, pytest.approx(0.41)), (50.0, pytest.approx(0.51))]
    low = pareto_plots(comparison(higher_is_better=False))["seconds of training"]
    assert points(low, "front") == [(40.0, pytest.approx(0.41))]
    searched = pareto_plots(comparison(contenders=[]))  # then the trials that ran to their end
    assert list(searched) == ["seconds of training"] and len(points(searched["seconds of training"], "dominated")) == 2


def test_parallel_coordinates_are_to_scale_and_interrupted_where_a_key_is_missing() -> None:
    figure = parallel_coordinates(comparison())
    lines = {trace.name: trace.y for trace in figure.data}
    # margin (logarithmic between 1e-3 and 1e-1), timing, rate, score
    assert lines["trial 1"] == pytest.approx((0.0, 1.0, 0.0, 0.0))
    assert lines["trial 3"] == pytest.approx((1.0, 1.0, 1.0, 1.0))
    assert lines["trial 2"][0] is None and lines["trial 2"][1:] == pytest.approx((0.0, 0.5, 0.5))
    assert "trial 4" not in lines  # failed


def test_hundreds_of_trials_are_thinned_but_the_best_stay() -> None:
    figure = learning_curves(comparison(trials=[trial(number) for number in range(1, 1_000)]))
    names = {trace.name for trace in figure.data}
    assert len(names) == MAX_LINES and {"trial 999", "trial 990"} <= names


@pytest.mark.slow
@needs_browser
def test_in_a_browser_every_plot_is_drawn_and_nothing_is_wrong(tmp_path: Path) -> None:
    page, console = browse(write_comparison(comparison(), tmp_path / "report.html"), tmp_path, "--dump-dom")
    assert console == []
    assert f'data-ready="{len(PLOTS)}"' in page
    for name in PLOTS:
        start = page.index(f'id="plot-{name}"')
        element = page[start : page.index("<figcaption>", start)]
        assert 'data-drawn="yes"' in element and 'class="main-svg"' in element
        assert re.search(r'class="(point|trace|hm|bars|lines)|<path class="js-line"|<image', element), name


@pytest.mark.slow
@needs_browser
def test_in_the_dark_text_is_light_and_a_print_has_pages(tmp_path: Path) -> None:
    report = write_comparison(comparison(), tmp_path / "report.html")
    inks = []
    for scheme in ("0", "1"):  # dark, light
        page, console = browse(report, tmp_path, "--dump-dom", f"--blink-settings=preferredColorScheme={scheme}")
        assert console == []
        fill = re.search(r'class="xtick"><text[^>]*fill: rgb\((\d+), (\d+), (\d+)\)', page)
        assert fill is not None
        inks.append(sum(map(int, fill.groups())) / 3)
    assert inks[0] > 200 and inks[1] < 80
    browse(report, tmp_path, f"--print-to-pdf={tmp_path / 'report.pdf'}")
    pdf = (tmp_path / "report.pdf").read_bytes()
    assert pdf.startswith(b"%PDF") and 3 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 20


@pytest.mark.slow
@needs_browser
def test_the_browser_does_tell_of_errors(tmp_path: Path) -> None:
    """What the tests above rely on: a page with an error of each kind is not taken for a good one."""
    (tmp_path / "bad.html").write_text("<script>console.error('said'); undefinedName();</script>")
    _, console = browse(tmp_path / "bad.html", tmp_path, "--dump-dom")
    assert any("said" in line for line in console) and any("undefinedName" in line for line in console)
