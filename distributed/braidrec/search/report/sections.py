"""The report's sections. Where there is nothing to show, a section says so in a line, and what would change that."""

import shlex
from collections import Counter
from collections.abc import Sequence
from html import escape
from itertools import chain
from pathlib import Path

from braidrec.display.text import with_spread
from braidrec.search.compare_result import Comparison, Contender, Cost, Pair
from braidrec.search.compare_runs import short_names, shown
from braidrec.search.importance import MIN_TRIALS, Importance
from braidrec.search.report.figures import (
    heat_map_of_test,
    heat_map_of_validation,
    learning_curves,
    parallel_coordinates,
)
from braidrec.search.report.outcome_figures import (
    WARMTH,
    importance_bars,
    pareto_plots,
    robustness_lines,
    slice_bars,
)
from braidrec.search.report.page import Section, absent, details, paragraph, plot, table

SLICES = {
    WARMTH: "Cold and warm items: items that training shows (warm), and items that it never does (cold).",
    "item_popularity": "Items by popularity: head, middle and tail each take about a third of the train interactions.",
    "user_activity": "Users by their number of train interactions.",
    "item_modalities": "Items by the modalities that they have.",
}


def sections(comparison: Comparison, winner_file: Path | None) -> list[Section]:
    """All of them, in the order of the page."""
    return [
        Section(key="candidates", title="Candidates", body=_candidates(comparison)),
        Section(key="fusion", title="Timing × strategy", body=_fusion(comparison)),
        Section(key="tests", title="Is the difference real?", body=_tests(comparison)),
        Section(key="parallel", title="All trials", body=_parallel(comparison)),
        Section(key="curves", title="Learning curves", body=_curves(comparison)),
        Section(key="importance", title="What mattered", body=_importance(comparison)),
        Section(key="cost", title="Quality against cost", body=_cost(comparison)),
        Section(key="missing", title="Missing modalities", body=_missing(comparison)),
        Section(key="slices", title="Cold and warm items, and other groups", body=_slices(comparison)),
        Section(key="reproduce", title="The winner again", body=_reproduce(comparison, winner_file)),
    ]


def head(comparison: Comparison) -> str:
    """What was compared, and the conclusions."""
    states = Counter(trial.state.replace("_", " ") for trial in comparison.trials)
    counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    name, digest = comparison.dataset
    said = f"{len(comparison.trials)} trials ({counts}) on {name} (digest {digest[:12]}…)."
    if comparison.contenders:
        runs = sum(len(each.seeds) for each in comparison.contenders)
        said += f" Tested: {len(comparison.contenders)} candidates, {runs} runs, {comparison.num_users:,} users."
    told = "".join(paragraph(sentence) for sentence in comparison.conclusions)
    notes = "".join(paragraph(note, "dim") for note in comparison.notes)
    return f'{paragraph(said, "dim")}<div class="told">{told}</div>{notes}'


def _candidates(comparison: Comparison) -> str:
    if not comparison.contenders:
        return absent(
            "No run was tested: a sweep needs finalists.candidates above 0 for that, a training evaluation.test=true."
        )
    keys = sorted({key for each in comparison.contenders for key in each.settings})
    names = short_names(keys)
    columns = [
        "candidate", *(names[key] for key in keys), "seeds", f"validation {comparison.monitor}",
        f"test {comparison.metric}", f"{comparison.confidence:.0%} interval", "seconds", "parameters", "MiB",
    ]  # fmt: skip
    rows = [
        [
            each.label,
            *(shown(each.settings[key]) if key in each.settings else "–" for key in keys),
            ", ".join(each.seeds),
            with_spread(each.validation.mean, each.validation.spread),
            with_spread(each.test.mean, each.test.spread),
            f"{each.interval[0]:.4f} – {each.interval[1]:.4f}",
            *_costs(each.cost),
        ]
        for each in comparison.contenders
    ]
    numbers = range(len(keys) + 2, len(columns))
    return (
        table(columns, rows, numbers=list(numbers), marked=[0])
        + paragraph(
            f"Best on validation first. ± is the standard deviation over seeds; intervals are bootstrapped over "
            f"{comparison.num_users:,} users. Seconds are of training alone, MiB the peak while it trained.",
            "dim",
        )
        + _on_test(comparison)
    )


def _on_test(comparison: Comparison) -> str:
    """The best figures of any trial, which must not be taken for results."""
    if not comparison.best_on_test:
        return ""
    figures = ", ".join(f"{name} {figure:.4f}" for name, figure in comparison.best_on_test.items())
    return paragraph(
        f"Chosen on test, the best of any trial: {figures}. These are no results of this search: they are for "
        "comparison with published tables that were made so, and flatter."
    )


def _fusion(comparison: Comparison) -> str:
    tested, searched = heat_map_of_test(comparison), heat_map_of_validation(comparison)
    if tested is None and searched is None:
        return absent("All runs fuse alike, or not at all: vary model.fusion.timing, combine or weighting to see this.")
    parts = []
    if tested is not None:
        caption = (
            f"Test {comparison.metric}: the candidate of each point that is best on validation, with the "
            f"{comparison.confidence:.0%} bootstrap interval over the users."
        )
        parts.append(plot("fusion-test", tested, caption))
    if searched is not None:
        caption = (
            f"Validation {comparison.monitor}: the best trial of each point, and the range of the middle half of its "
            "trials. A best of many trials flatters: compare points with like numbers of them."
        )
        parts.append(plot("fusion-validation", searched, caption))
    return "".join(parts)


def _tests(comparison: Comparison) -> str:
    if not comparison.pairs:
        return absent("Fewer than two candidates were tested, so there is no pair to test.")
    columns = ["better", "worse", "difference", f"{comparison.confidence:.0%} interval", "Wilcoxon p", "t test p",
               "d", "rank r", "seed spread", "verdict"]  # fmt: skip
    rows = [
        [
            pair.better, pair.worse, f"{pair.statistics.difference:+.4f}",
            f"{pair.statistics.interval[0]:+.4f} – {pair.statistics.interval[1]:+.4f}",
            f"{pair.statistics.wilcoxon_holm:.2g}", f"{pair.statistics.t_holm:.2g}", f"{pair.statistics.cohens_d:.2f}",
            f"{pair.statistics.rank_biserial:.2f}", "–" if pair.spread is None else f"{pair.spread:.4f}", pair.verdict,
        ]
        for pair in comparison.pairs
    ]  # fmt: skip
    marked = [index for index, pair in enumerate(comparison.pairs) if pair.verdict == "real"]
    said = paragraph(
        f"Test {comparison.metric}, user by user, each user's value being the mean over the seeds: two-sided Wilcoxon "
        f"signed-rank and paired t tests, both after Holm's correction over all pairs ({len(rows)}). A difference is "
        f"called real if both corrected p are below {1 - comparison.confidence:.2g} and it exceeds the spread between "
        "seeds, √(s₁² + s₂²). d is Cohen's d_z, rank r the matched-pairs rank-biserial correlation."
    )
    sentences = "".join(f"<li>{escape(sentence)}</li>" for sentence in _winners(comparison))
    return f"{said}<ul>{sentences}</ul>{table(columns, rows, numbers=[2, 3, 4, 5, 6, 7, 8], marked=marked)}"


def _winners(comparison: Comparison) -> list[str]:
    label = comparison.contenders[0].label
    own: list[Pair] = [pair for pair in comparison.pairs if label in (pair.better, pair.worse)]
    return [pair.sentence for pair in own[:12]]


def _parallel(comparison: Comparison) -> str:
    figure = parallel_coordinates(comparison)
    if figure is None:
        return absent("Fewer than two trials with a score, or no key in which they differ.")
    return plot(
        "parallel", figure,
        "A line a trial from key to key, ending at its validation score, which also colours it. A line is interrupted "
        "where a key does not exist in its trial.",
    )  # fmt: skip


def _curves(comparison: Comparison) -> str:
    figure = learning_curves(comparison)
    if figure is None:
        return absent("No run has logged a validation value.")
    failed = [trial for trial in comparison.trials if trial.state == "failed"]
    reasons = Counter(trial.reason or "no reason given" for trial in failed)
    rows = [[str(count), reason] for reason, count in reasons.most_common()]
    caption = "The ten best in colour; a cross ends what was stopped early or failed."
    return plot("curves", figure, caption) + (table(["failed", "reason"], rows, numbers=[0]) if rows else "")


def _importance(comparison: Comparison) -> str:
    if not comparison.importances:
        return absent(
            f"fANOVA needs at least {MIN_TRIALS} trials of equal length in which a key varies, and scores that differ."
        )
    parts = [
        plot(f"importance-{index}", importance_bars(importance), _importance_caption(importance))
        for index, importance in enumerate(comparison.importances)
    ]
    return "".join(parts)


def _importance_caption(importance: Importance) -> str:
    reached = "their whole training" if importance.epochs is None else f"the best within {importance.epochs} epochs"
    return f"{importance.branch}: fANOVA over {importance.trials} trials, judged by {reached}."


def _cost(comparison: Comparison) -> str:
    plots = pareto_plots(comparison)
    if not plots:
        return absent("Fewer than two runs have logged what they cost.")
    caption = "On the line nothing is both cheaper and better. Cost: {}."
    return "".join(
        plot(f"pareto-{index}", figure, caption.format(title)) for index, (title, figure) in enumerate(plots.items())
    )


def _missing(comparison: Comparison) -> str:
    names = sorted({name for each in comparison.contenders for name, _ in each.without})
    figures = [(name, figure) for name in names if (figure := robustness_lines(comparison, name)) is not None]
    if not figures:
        return absent(
            "No run was tested with a modality taken away. For each share: python jobs/evaluate.py --set run=FOLDER "
            "--drop-modality NAME=0.5; then compare again."
        )
    return "".join(
        plot(f"missing-{index}", figure, f"{name} taken away from more and more of the items; bars: spread over seeds.")
        for index, (name, figure) in enumerate(figures)
    )


def _slices(comparison: Comparison) -> str:
    parts, groups = [], _warmth_groups(comparison.contenders)
    if comparison.contenders and "cold" not in groups:
        parts.append(absent("No cold item was held out: a split by cold items, or by time, has some."))
    for name, caption in SLICES.items():
        figure = slice_bars(comparison, name)
        if figure is not None and not (name == WARMTH and len(groups) < 2):
            parts.append(plot(f"slice-{name}", figure, f"{caption} Bars: spread over seeds."))
    return "".join(parts) or absent("No run has results by groups: they need a test and evaluation.slices=true.")


def _warmth_groups(contenders: Sequence[Contender]) -> set[str]:
    return set(chain.from_iterable(each.slices.get(WARMTH, {}) for each in contenders))


def _reproduce(comparison: Comparison, winner_file: Path | None) -> str:
    if comparison.winner_yaml is None or winner_file is None:
        return absent("No configuration of a winner is stored with these runs.")
    command = f"python jobs/train.py --config {shlex.quote(str(winner_file))} --set name=winner-again"
    return f"<pre>{escape(command)}</pre>" + details("winner.yaml", comparison.winner_yaml)


def _costs(cost: Cost) -> list[str]:
    return [
        "–" if cost.seconds is None else f"{cost.seconds:,.1f}",
        "–" if cost.parameters is None else f"{cost.parameters:,.0f}",
        "–" if cost.memory_mb is None else f"{cost.memory_mb:,.0f}",
    ]
