"""Statistics as sentences."""

from collections.abc import Sequence

from braidrec.evaluation.significance import PairStatistics
from braidrec.search.compare_result import Contender, Pair, Verdict
from braidrec.search.compare_runs import short_names, shown


def verdict_of(found: PairStatistics, spread: float | None, level: float) -> Verdict:
    """Whether a difference is real: both tests say so after correction, and it exceeds the spread between seeds."""
    if not found.better and not found.worse:
        return "equal"
    t, wilcoxon = found.t_holm < level, found.wilcoxon_holm < level
    if not t and not wilcoxon:
        return "chance"
    # Ranks may favour the candidate whose mean is lower: many small gains against a few large losses.
    if not (t and wilcoxon) or found.difference * found.rank_biserial < 0:
        return "tests disagree"
    if spread is None:
        return "one seed"
    return "real" if abs(found.difference) > spread else "within the seeds"


def sentence_of(
    better: Contender, worse: Contender, found: PairStatistics, spread: float | None, verdict: Verdict, metric: str
) -> str:
    """One pair in words."""
    low, high = found.interval
    tests = f"Wilcoxon p {p_value(found.wilcoxon_holm)}, paired t p {p_value(found.t_holm)}, both after Holm"
    start = f"{better.label} against {worse.label}: {metric} {better.test.mean:.4f} against {worse.test.mean:.4f}"
    gap = f"a difference of {found.difference:.4f} [{low:.4f}, {high:.4f}]"  # below 0 where low values are good
    match verdict:
        case "equal":
            return f"{start}; no user's value differs."
        case "real":
            return f"{start}, {gap}; it is real: {tests}, and larger than the spread between seeds ({spread:.4f})."
        case "within the seeds":
            return f"{start}, {gap}; no more than other seeds would change (spread {spread:.4f}), though {tests}."
        case "one seed":
            return f"{start}, {gap}; {tests}, but one seed cannot tell it from luck: train both with more."
        case "tests disagree":
            return f"{start}, {gap}; undecided, for the tests disagree: {tests}."
        case "chance":
            return f"{start}, {gap}; it may be chance: {tests}."


def p_value(p: float) -> str:
    """ "< .001", "= .042"."""
    return "< .001" if p < 0.001 else f"= {p:.3f}".replace("0.", ".", 1)


def conclusions(contenders: Sequence[Contender], pairs: Sequence[Pair], metric: str, monitor: str) -> list[str]:
    """The most important first: who wins, whom it beats, whom it does not, and whether test contradicts validation."""
    if not contenders:
        return []
    winner = contenders[0]
    spread = "" if winner.test.spread is None else f" ± {winner.test.spread:.4f} over {len(winner.seeds)} seeds"
    told = [
        f"{described(winner)} is best on validation ({monitor} {winner.validation.mean:.4f}) and has {metric} "
        f"{winner.test.mean:.4f}{spread} on test."
    ]
    own = [pair for pair in pairs if winner.label in (pair.better, pair.worse)]
    beaten = [pair.worse for pair in own if pair.verdict == "real" and pair.better == winner.label]
    beating = [pair.better for pair in own if pair.verdict == "real" and pair.worse == winner.label]
    open_ = [(pair.better if pair.worse == winner.label else pair.worse) for pair in own if pair.verdict != "real"]
    if beaten:
        told.append(f"It is really better than {_listed(beaten)}.")
    if open_:
        told.append(f"It cannot be told apart from {_listed(open_)}.")
    if beating:
        told.append(
            f"On test {_listed(beating)} did really better; the choice stays with validation, for a choice made on "
            "test would have no honest figure left."
        )
    single = sum(len(each.seeds) < 2 for each in contenders)
    if single and len(contenders) > 1:
        told.append(f"{single} of {len(contenders)} candidates have one seed: no difference of theirs counts as real.")
    return told


def described(contender: Contender) -> str:
    """Its label, with its settings where the label is only a number."""
    names = short_names(contender.settings)
    settings = " ".join(f"{names[key]}={shown(value)}" for key, value in contender.settings.items())
    return contender.label if not settings or settings == contender.label else f"{contender.label} ({settings})"


def _listed(names: Sequence[str]) -> str:
    shown = list(names[:6]) + ([f"{len(names) - 6} others"] if len(names) > 6 else [])
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
