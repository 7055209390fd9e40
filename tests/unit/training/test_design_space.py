"""Any point of the design space either trains, or is refused by a message about its settings."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from design_points import POINTS, Point, build, config_of, small_folder, two_steps, values_of
from hypothesis import HealthCheck, example, given, settings

from braidrec.config.load import ConfigError, load_config
from braidrec.config.run import RunConfig
from braidrec.training.build import Parts
from braidrec.training.local_worker import LocalWorker
from braidrec.training.validation import encode_all

FULL, BPR = {"mode": "full"}, {"kind": "bpr"}
PRESETS = Path(__file__).parents[3] / "configs" / "models"
WITHOUT_TRAINING = ("popularity", "item_knn", "itemknncbf")
ON_RAW_MEDIA = ("addvae", "dvbpr")
"""Trained where the data has texts, or images: `test_history_systems.py`, `test_dvbpr_run.py`."""
WITHOUT_GRAPH = ("acf", "amr", "bpr_mf", "vbpr", "vbpr_mm")
MASKED = {"kind": "contrast", "first": {"kind": "edge_mask"}}
MOVES = ("strands.projectors", "encoders")
"""Parameters that every batch must move; others may have no part in it: the token of a modality that all items have."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_folder(tmp_path_factory.mktemp("design") / "data")


def one_thread_worker() -> LocalWorker:
    return LocalWorker(torch.device("cpu"), lambda event: None)


@pytest.fixture(scope="module")
def seen(data: Path) -> Iterator[Counter[str]]:
    """How often points were trained and refused: the strategies must not waste their draws."""
    counts: Counter[str] = Counter()
    yield counts
    assert counts["trained"] > 0.2 * counts.total(), counts


def point(loss: dict = BPR, propagation: dict = FULL, **model: object) -> Point:
    model = {"encoder": {"kind": "lightgcn", "layers": 2}, "modalities": {"use": ["*"]}, "fusion": {}, **model}
    return {"model": model, "loss": loss, "propagation": propagation}


def assert_trains(config: RunConfig, parts: Parts, worker: LocalWorker) -> None:
    before = values_of(parts)
    for losses in two_steps(config, parts, worker, Path(config.storage)):
        assert np.isfinite(list(losses.values())).all(), losses
    after = values_of(parts)
    assert all(torch.isfinite(value).all() for value in after.values())
    still = {name for name in after if torch.equal(before[name], after[name])}
    assert not [name for name in still if name.startswith(("table", *MOVES))], still
    assert torch.isfinite(encode_all(parts).vectors).all()


@pytest.mark.slow
@settings(
    max_examples=250,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(drawn=POINTS)
@example(drawn=point(fusion={"timing": "late"}, self_supervision={"one": MASKED}))
@example(drawn=point(self_supervision={"keys": {"kind": "contrast"}}))
@example(drawn=point(encoder={"kind": "lightgcn", "readout": "concat"}, user_graph={}))
@example(drawn=point(encoder={"kind": "lightgcn", "readout": "concat"}, item_graph={"of": "fused"}))
@example(drawn=point(fusion={"timing": "late", "of": "scores", "combine": "weighted"}))
@example(drawn=point(item_graph={"weights": {"image": -1.0, "text": 1.0}}))
@example(drawn=point(fusion={"timing": "late", "user_side": "aggregated", "use_id": False}, encoder={"kind": "mf"}))
def test_any_point_trains_or_is_refused(drawn: Point, data: Path, seen: Counter[str]) -> None:
    worker = one_thread_worker()
    try:
        config = config_of(drawn, data, data.parent)
        parts = build(config, worker)
    except ConfigError as error:
        seen["refused"] += 1
        refused = str(error)
    else:
        seen["trained"] += 1
        refused = ""
    if refused:
        # Which setting, and not only what some part of the model makes of it.
        assert any(key in refused for key in ("model", "training", "objective")), refused
        return
    assert_trains(config, parts, worker)


@pytest.mark.parametrize(
    ("preset", "mode"),
    [
        (path, mode)
        for path in sorted(PRESETS.glob("*.yaml"))
        if path.stem not in WITHOUT_TRAINING + ON_RAW_MEDIA
        for mode in (["auto"] if path.stem in WITHOUT_GRAPH else ["full", "sampled"])
    ],
    ids=lambda value: getattr(value, "stem", value),
)
def test_presets_train(preset: Path, mode: str, data: Path) -> None:
    """What is published for data of other sizes takes two steps here, on items that lack one modality or both."""
    place = data.parent
    overrides = [
        f"data.path={data}", f"storage={place / 'runs'}", f"cache={place / 'cache'}", "workers.num=0", "model.dim=8",
        "tracking.enabled=false", "training.batch_size=64", "evaluation.monitor=null", "evaluation.patience=null",
    ]  # fmt: skip
    overrides += [] if mode == "auto" else [f"training.propagation.mode={mode}"]
    config = load_config(RunConfig, [preset], overrides)
    worker = one_thread_worker()
    assert_trains(config, build(config, worker), worker)
