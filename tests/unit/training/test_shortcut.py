"""A run whose linear strands are propagated once: chosen by itself, said in the log, and with the same results."""

from pathlib import Path

import pytest
import torch
from training_runs import run_config

import braidrec
from braidrec.data.planted import generate_planted
from braidrec.training import build
from braidrec.training.events import Event, Started

LATE = (
    'model.modalities.use=["*"]',
    "model.fusion.timing=late",
    "model.fusion.user_side=aggregated",
    "training.epochs=3",
)


class Facts:
    """A listener that keeps the facts of the run."""

    def __init__(self) -> None:
        self.seen: dict[str, str] = {}

    def handle(self, event: Event) -> None:
        if isinstance(event, Started):
            self.seen = dict(event.facts)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("planted") / "data"
    generate_planted(str(path), num_users=80, num_items=60, num_interactions=1_000, num_topics=4, coverage=0.8)
    return path


def run(data: Path, place: Path, *overrides: str) -> tuple[dict[str, float], dict[str, str]]:
    facts = Facts()
    result = braidrec.train(run_config(data, place, *LATE, *overrides), listeners=(facts,))
    return dict(result.metrics), facts.seen


@pytest.mark.parametrize("strands", ["true", "false"])
def test_results_are_those_of_the_long_way(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strands: str
) -> None:
    overrides = (f"model.fusion.use_id={strands}", "name=one")
    short, facts = run(data, tmp_path / "short", *overrides)
    assert facts["shortcut"].startswith("image, text propagated once")
    monkeypatch.setattr(build, "RESIDENT_BYTES", 0)
    long, without = run(data, tmp_path / "long", *overrides)
    assert "shortcut" not in without
    same = [name for name in long if name.startswith(("test/", "valid/"))]
    assert len(same) > 10
    # Sums in another order; training carries the last bits on, and two items may change places.
    assert [short[name] for name in same] == pytest.approx([long[name] for name in same], abs=0.01)


def test_evaluation_again_goes_the_long_way_to_the_same(data: Path, tmp_path: Path) -> None:
    result = braidrec.train(run_config(data, tmp_path, *LATE, "name=one"))
    again = braidrec.evaluate(result.folder, split="test")
    for name in ("recall@20", "ndcg@20"):
        assert again.result.metrics[name] == pytest.approx(result.metrics[f"test/{name}"], abs=1e-3)


@pytest.mark.parametrize(
    ("overrides", "chosen"),
    [
        (("training.propagation.mode=sampled", "training.propagation.fan_outs=[3]"), True),
        (("training.propagation.mode=sampled", "training.propagation.exclude_targets=true"), False),
        (("model.modalities.projector.depth=2",), False),
    ],
)
def test_where_it_is_chosen(data: Path, tmp_path: Path, overrides: tuple[str, ...], chosen: bool) -> None:
    _, facts = run(data, tmp_path, "training.epochs=1", *overrides)
    assert ("shortcut" in facts) is chosen


def test_bf16_propagates_ahead_in_full_precision(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[torch.Tensor] = []

    original = build.build_parts

    def remembered(*arguments: object, **options: object) -> build.Parts:
        parts = original(*arguments, **options)  # type: ignore[arg-type]
        kept.extend(parts.model.ahead.tables.values())  # type: ignore[attr-defined]
        return parts

    monkeypatch.setattr(build, "build_parts", remembered)
    run(data, tmp_path / "fp32", "training.epochs=1", "name=one")
    run(data, tmp_path / "bf16", "training.epochs=1", "name=one", "training.propagation.precision=bf16")
    assert len(kept) == 4
    assert torch.equal(kept[0], kept[2]) and torch.equal(kept[1], kept[3])
