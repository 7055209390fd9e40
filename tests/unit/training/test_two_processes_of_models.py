"""Every system and every self-supervised task: two processes with half a batch each learn what one does with it all."""

from pathlib import Path

import numpy as np
import pytest
import torch
from design_points import small_folder
from process_pair import Pair, both
from two_process_models import train_two_steps

from braidrec.config.load import load_config
from braidrec.config.run import RunConfig
from braidrec.training.local_worker import LocalWorker

pytestmark = pytest.mark.slow

PRESETS = Path(__file__).parents[3] / "configs" / "models"
# What a rank draws for its own rows is its own: here nothing is drawn.
SYSTEMS = {
    "vbpr": (),
    "vbpr_mm": (),
    "mmgcn": (),
    "grcn": (),
    "slmrec": (),
    "bm3": ("model.encoder.dropout=0.0",),
    "freedom": (),
    "mgcn": (),
    "lattice": (),
    "mmgcf": (),
    "amr": ("training.adversarial.start_epoch=1",),
    "dragon": (),
    "dualgnn": (),
    "vmcf": ("model.encoder.non_edges=0",),
    "selfcf": ("model.encoder.view=edge_dropout",),
}
WITHOUT_GRAPH = ("vbpr", "amr")
ACROSS = "loss: {kind: info_nce, across_workers: true}"
MM = "model.modalities.use=['*']"
TASKS = {
    "edge dropout": (f"model.self_supervision.a={{kind: contrast, {ACROSS}}}",),
    "random walk against perceptron": (
        MM,
        "model.fusion.timing=late",
        "model.self_supervision.a={kind: contrast, first: {kind: edge_dropout, per_layer: true}, second: {kind: mlp}, "
        "target: items, loss: {kind: jensen_shannon, bilinear: true, across_workers: true}}",
    ),
    "node dropout, bootstrap": (
        "model.encoder={kind: graphsage}",
        "model.self_supervision.a={kind: contrast, first: {kind: node_dropout}, second: {kind: edge_noise}, "
        "loss: {kind: bootstrap}}",
    ),
    "align, moments and infonce": (
        MM,
        "model.fusion.combine=concat",
        "model.self_supervision.a={kind: align, first: image, second: text, loss: {kind: moments}}",
        f"model.self_supervision.b={{kind: align, first: fused, second: text, first_view: {{kind: mlp}}, {ACROSS}}}",
    ),
    "align, cosine; reconstruct": (
        MM,
        "model.modalities.missing=mask",
        "model.fusion={timing: late, user_side: aggregated, weighting: attention}",
        "model.self_supervision.a={kind: align, first: id, second: text, loss: {kind: cosine}}",
        "model.self_supervision.b={kind: reconstruct, modality: text, sources: [image, id]}",
    ),
    "graphs": (MM, "model.item_graph.neighbours=4", "model.user_graph.neighbours=4", "model.hypergraph.noise=none"),
    "neighbourhoods; a learned item graph": (
        MM,
        "model.item_graph={neighbours: 4, edge_weights: cosine, learned: {frozen_share: 0.3, feature_dim: 5}}",
        "model.self_supervision.a={kind: neighbourhood_similarity}",
    ),
    "features of the model's own": (MM, "model.modalities.trainable=[image]"),
}
HARDENED = {
    "adversary on features": (MM, "training.adversarial={epsilon: 0.5, weight: 0.7}"),
    "adversary on features, late, graphs": (
        MM,
        "model.fusion={timing: late, weighting: attention}",
        "model.item_graph={neighbours: 4, of: id}",
        "training.adversarial={epsilon: 0.5}",
    ),
    "adversary on embeddings": ("training.adversarial={target: embeddings, epsilon: 0.5}",),
    "mirror gradient": (MM, "training.optimizer={kind: sgd, learning_rate: 0.5, mirror_gradient: {every: 1}}"),
    "mirror gradient, adversary": (
        "training.adversarial={target: embeddings, epsilon: 0.5}",
        "training.optimizer={kind: sgd, learning_rate: 0.5, mirror_gradient: {every: 2, up: 0.25}}",
    ),
}
CASES = {**{name: (PRESETS / f"{name}.yaml", more) for name, more in SYSTEMS.items()},
         **{name: (None, more) for name, more in (TASKS | HARDENED).items()}}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_folder(tmp_path_factory.mktemp("design") / "data")


def config_of(name: str, mode: str, data: Path) -> RunConfig:
    preset, more = CASES[name]
    place = data.parent
    overrides = [
        f"data.path={data}", f"storage={place / 'runs'}", f"cache={place / 'cache'}", "workers.num=0", "model.dim=6",
        "tracking.enabled=false", "training.batch_size=64", "evaluation.monitor=null", "evaluation.patience=null",
        "training.optimizer={kind: sgd, learning_rate: 0.5}", "model.initial_std=0.3", *more,
    ]  # fmt: skip
    if not name.startswith(WITHOUT_GRAPH):
        overrides.append(f"training.propagation={{mode: {mode}, fan_outs: [-1]}}")
    return load_config(RunConfig, [preset] if preset else [], overrides)


@pytest.mark.parametrize("mode", ["full", "sampled", "sampled, sharded"])
@pytest.mark.parametrize("name", CASES)
def test_two_learn_what_one_does(pair: Pair, name: str, mode: str, data: Path) -> None:
    """Full propagation, sampled with every neighbour taken, and this with the tables' rows dealt out."""
    mode, *dealt_out = mode.split(", ")
    config = config_of(name, mode, data)
    tables = {"tables": "sharded" if dealt_out else "replicated"}
    of_two = config.model_copy(update={"training": config.training.model_copy(update=tables)})
    alone = train_two_steps(LocalWorker(torch.device("cpu"), lambda event: None), config, data.parent)
    ranks = pair.run(train_two_steps, both(of_two), both(data.parent))
    assert not [rank for rank in ranks if isinstance(rank, Exception)], ranks
    for step, wanted in enumerate(alone["losses"]):
        for term, value in wanted.items():
            np.testing.assert_allclose(ranks[0]["losses"][step][term], value, rtol=1e-7, atol=1e-10, err_msg=term)
    assert max(alone["moved"].values()) > 1e-4
    for key, value in alone["after"].items():
        np.testing.assert_array_equal(ranks[0]["after"][key], ranks[1]["after"][key], err_msg=key)
        np.testing.assert_allclose(ranks[0]["after"][key], value, rtol=1e-6, atol=1e-8, err_msg=key)
