"""All nodes encoded in tiles, layer by layer: what encoding them at once gives, for every model, on any number of
workers, with no file left."""

import errno
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from design_points import build, small_folder
from process_pair import Pair, both
from tiled_tasks import both_ways, encoded_as
from two_process_tasks import train_whole

from braidrec.config.load import ConfigError, load_config
from braidrec.config.run import RunConfig
from braidrec.errors import RunError
from braidrec.graph.tiles import cut_into_tiles
from braidrec.models.lightgcn import LightGCN
from braidrec.training.inference import choose_inference
from braidrec.training.local_worker import LocalWorker
from braidrec.training.validation import encode_all

PRESETS = Path(__file__).parents[3] / "configs" / "models"
USE = "model.modalities.use=['*']"
LATE = "model.fusion.timing=late"
MODELS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        (
            "lightgcn", "vbpr", "vbpr_mm", "mmgcn", "grcn", "slmrec", "bm3", "freedom", "mgcn", "lattice", "mmgcf",
            "layergcn", "selfcf", "dragon", "dualgnn",
        ),
        (),
    ),
    "vmcf": (USE, "model.encoder={kind: vmcf, content_dim: 16}"),
    "mf": ("model.encoder={kind: mf, biases: true}",),
    "lightgcn of three layers side by side": ("model.encoder={kind: lightgcn, layers: 3, readout: concat}",),
    "early": (USE,),
    "early, attention, concat": (USE, "model.fusion={combine: concat, weighting: attention}"),
    "late": (USE, LATE, "model.fusion.weighting=attention"),
    "late, scores": (USE, "model.fusion={timing: late, of: scores, weighting: attention}"),
    "late, aggregated": (USE, "model.fusion={timing: late, user_side: aggregated, combine: mean}"),
    "ngcf": (USE, "model.encoder={kind: ngcf, layers: 2}"),
    "ngcf, late": (USE, LATE, "model.encoder={kind: ngcf, layers: 2}"),
    "graphsage": (USE, "model.encoder={kind: graphsage}"),
    "gat": (USE, "model.encoder={kind: gat, layers: 2}"),
    "item and user graph": (USE, "model.item_graph={of: fused}", "model.user_graph={layers: 2}"),
    "learned item graph": (USE, "model.item_graph={learned: {}}"),
    "hypergraph": (USE, "model.hypergraph={}"),
    "cold items' length": (USE, "model.fusion.cold_length=match"),
}  # fmt: skip
OF_PRESETS = tuple(name for name, settings in MODELS.items() if not settings)
IN_TWO_PROCESSES = ("lightgcn", "grcn", "mgcn", "gat", "lattice", "late", "hypergraph")
DEALT_OUT = ("workers.num=2", "training.tables=sharded", "training.wire=bf16")
"""Rows that no rank can read where they are."""
NUM_NODES = 400


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_folder(tmp_path_factory.mktemp("tiled") / "data")


def config_of(name: str, data: Path, place: Path, *overrides: str) -> RunConfig:
    common = (
        f"data.path={data}", f"storage={place / 'runs'}", f"cache={place / 'cache'}", "workers.num=0",
        "workers.threads=1", "tracking.enabled=false", "model.dim=8", "model.initial_std=0.1",
    )  # fmt: skip
    presets = [PRESETS / f"{name}.yaml"] if name in OF_PRESETS else []
    return load_config(RunConfig, presets, [*common, *MODELS[name], *overrides])


def assert_equal(tiled: np.ndarray, whole: np.ndarray) -> None:
    np.testing.assert_allclose(tiled, whole, rtol=1e-5, atol=1e-6 * np.abs(whole).max())
    assert np.abs(whole).max() > 0


@pytest.mark.parametrize("name", MODELS)
def test_tiles_give_what_all_nodes_at_once_give(name: str, data: Path, tmp_path: Path) -> None:
    parts = build(config_of(name, data, tmp_path), LocalWorker(torch.device("cpu"), lambda event: None))
    whole, attention = encoded_as(parts, "whole", 17, tmp_path / "files")
    tiled, attention_in_tiles = encoded_as(parts, "tiled", 17, tmp_path / "files")
    assert_equal(tiled, whole)
    assert attention_in_tiles == pytest.approx(attention)
    assert bool(attention) == (name in ("early, attention, concat", "late", "late, scores"))
    assert not list((tmp_path / "files").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("rows_at_most", [1_000, 9])
@pytest.mark.parametrize("name", IN_TWO_PROCESSES)
def test_two_workers_share_the_work(name: str, rows_at_most: int, pair: Pair, data: Path, tmp_path: Path) -> None:
    """With one tile each, which wait for each other; and with many, which begin again after every hop."""
    config = config_of(name, data, tmp_path, *DEALT_OUT)
    results = pair.run(both_ways, both(config), both(rows_at_most), both(tmp_path / "files"))
    for whole, tiled, nothing_left in results:
        assert_equal(tiled, whole)
        assert nothing_left
    np.testing.assert_array_equal(results[0][1], results[1][1])


@pytest.mark.slow
def test_machines_that_share_no_folder_compute_for_themselves(pair: Pair, data: Path, tmp_path: Path) -> None:
    config = config_of("lightgcn", data, tmp_path, *DEALT_OUT)
    for rows_at_most in (1_000, 9):
        folders = (tmp_path / f"first-{rows_at_most}", tmp_path / f"second-{rows_at_most}")
        for whole, tiled, nothing_left in pair.run(both_ways, both(config), both(rows_at_most), folders):
            assert_equal(tiled, whole)
            assert nothing_left


def test_a_run_ends_the_same_in_tiles(data: Path, tmp_path: Path) -> None:
    worker, ends = LocalWorker(torch.device("cpu"), lambda event: None), []
    for kind in ("whole", "tiled"):
        config = config_of("lightgcn", data, tmp_path, f"evaluation.inference={kind}", "training.epochs=2")
        ends.append(train_whole(worker, config, str(data), tmp_path / kind))
    assert ends[0]["metrics"] == ends[1]["metrics"]
    assert ends[0]["example"] == ends[1]["example"]
    assert ends[0]["metrics"]["test/recall@20"] > 0


def test_every_node_is_in_one_tile() -> None:
    degree = np.random.default_rng(0).zipf(1.6, NUM_NODES).clip(max=300)
    for workers in (1, 2, 3, 7):
        for rows_at_most in (1_000, 100, 13, 1):
            dealt = cut_into_tiles(degree, workers=workers, rows_at_most=rows_at_most)
            assert len(dealt) == workers and all(dealt)
            nodes = sorted(node for tiles in dealt for rows in tiles for node in rows)
            assert nodes == list(range(NUM_NODES))
            assert max(len(rows) for tiles in dealt for rows in tiles) <= rows_at_most
    halves = cut_into_tiles(degree, workers=2, rows_at_most=NUM_NODES)
    work = [sum(degree[node] + 8 for rows in tiles for node in rows) for tiles in halves]
    assert [len(tiles) for tiles in halves] == [1, 1]
    assert abs(work[0] - work[1]) <= degree.max() + 8


def test_workers_without_a_node_are_refused() -> None:
    with pytest.raises(ValueError, match=r"2 nodes are fewer than 3 workers.*evaluation\.inference=whole"):
        cut_into_tiles(np.ones(2), workers=3, rows_at_most=10)


@pytest.mark.parametrize(
    ("wanted", "device", "memory_bytes", "kind"),
    [
        ("auto", "cpu", 2**40, "whole"),
        ("auto", "cpu", 10**6, "tiled"),
        ("auto", "cuda", 10**6, "whole"),
        ("whole", "cpu", 10**6, "whole"),
        ("tiled", "cpu", 2**40, "tiled"),
    ],
)
def test_memory_decides(wanted: str, device: str, memory_bytes: int, kind: str, tmp_path: Path) -> None:
    def choose(wanted: str) -> str:
        return choose_inference(
            LightGCN(dim=16, layers=2), 10_000, 0, wanted=wanted, tile_mb=64, memory_bytes=memory_bytes, world_size=1,
            device=torch.device(device), cache=tmp_path,
        ).kind  # fmt: skip

    assert choose(wanted) == kind
    if device == "cuda":
        with pytest.raises(ConfigError, match=r"evaluation\.inference=tiled .* computes on cuda: set .*whole"):
            choose("tiled")


@pytest.mark.parametrize("fit", [0, 1])
def test_a_full_disk_is_said(fit: int, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether at the first file or, with one that fits, at the second; and it is no fuller afterwards."""
    parts = build(config_of("lightgcn", data, tmp_path), LocalWorker(torch.device("cpu"), lambda event: None))

    allocate, asked = os.posix_fallocate, []

    def full(descriptor: int, offset: int, length: int) -> None:
        asked.append(length)
        if len(asked) > fit:
            raise OSError(errno.ENOSPC, "No space left on device")
        allocate(descriptor, offset, length)

    monkeypatch.setattr("os.posix_fallocate", full)
    wanted = replace(parts.inference, kind="tiled", cache=tmp_path / "files")
    with pytest.raises(RunError, match=r"no room for 2,240 bytes .*No space left.*evaluation\.inference=whole"):
        encode_all(replace(parts, inference=wanted))
    assert len(asked) == fit + 1
    assert list((tmp_path / "files").iterdir()) == []


def test_what_killed_workers_left_is_swept(data: Path, tmp_path: Path) -> None:
    parts = build(config_of("lightgcn", data, tmp_path), LocalWorker(torch.device("cpu"), lambda event: None))
    old, young = (tmp_path / "files" / f"inference-{name}" for name in ("old", "young"))
    for folder in (old, young):
        folder.mkdir(parents=True)
        (folder / "vectors").write_bytes(bytes(8))
    os.utime(old, (0, 0))
    encode_all(replace(parts, inference=replace(parts.inference, kind="tiled", cache=tmp_path / "files")))
    assert list((tmp_path / "files").iterdir()) == [young]


def test_a_model_that_asks_differently_in_another_tile_is_refused(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = build(config_of("lightgcn", data, tmp_path), LocalWorker(torch.device("cpu"), lambda event: None))
    encode = parts.model.encode

    def differently(inputs):
        if inputs.seeds[0] == 0:
            return encode(inputs)
        return replace(encode(replace(inputs, neighbourhoods={"id": without_hops(inputs.neighbourhoods["id"])})))

    def without_hops(neighbourhood):
        return replace(neighbourhood, hops=neighbourhood.hops[:1])

    monkeypatch.setattr(parts.model, "encode", differently)
    with pytest.raises(RuntimeError, match=r"LightGCN asks for other rows in one tile.*evaluation\.inference=whole"):
        encoded_as(parts, "tiled", 40, tmp_path / "files")
