"""A model that makes a relation from its parameters (LATTICE, or a composed model with a learned item graph) gets it
anew each epoch, and before every evaluation."""

from pathlib import Path

import pytest
import torch
from training_runs import run_config

import braidrec
from braidrec.config.load import ConfigError
from braidrec.config.run import RunConfig
from braidrec.data.folder import DatasetFolder
from braidrec.data.planted import generate_planted
from braidrec.graph.relation import Relation
from braidrec.models.learned_item_graph import LEARNED, LearnedItemGraph
from braidrec.runs.finished import open_run
from braidrec.training.build import Parts, build_parts
from braidrec.training.check import check_run
from braidrec.training.checkpoint import CheckpointStore, with_prefix
from braidrec.training.local_worker import LocalWorker
from braidrec.training.step import TrainStep
from braidrec.training.validation import encode_all

LATTICE = (
    "model.encoder={kind: lattice, layers: 2, frozen_share: 0.3, feature_dim: 8}",
    "model.modalities.use=['*']",
    "model.item_graph={neighbours: 4, edge_weights: cosine}",
)
COMPOSED = (
    "model.encoder={kind: lightgcn, layers: 2}",
    "model.modalities.use=['*']",
    "model.item_graph={neighbours: 4, edge_weights: cosine, learned: {frozen_share: 0.3, feature_dim: 8}}",
)
MODELS = {"lattice": LATTICE, "composed": COMPOSED}
FULL, SAMPLED = "training.propagation={mode: full}", "training.propagation={mode: sampled, fan_outs: [4]}"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("planted") / "data"
    sizes = {"num_users": 80, "num_items": 60, "num_interactions": 1_200, "num_topics": 4}
    generate_planted(str(path), **sizes, coverage=0.8)
    return path


def config_of(data: Path, place: Path, *overrides: str, model: str = "lattice") -> RunConfig:
    return run_config(data, place, *MODELS[model], *overrides)


def parts_of(config: RunConfig) -> Parts:
    folder = DatasetFolder.open(config.data.path)
    check_run(config, folder)
    return build_parts(config, folder, LocalWorker(torch.device("cpu"), lambda event: None))


def edges(relation: Relation) -> tuple[list[int], list[int]]:
    return relation.indptr.tolist(), relation.indices.tolist()


def turn_projectors(parts: Parts) -> None:
    (graph,) = (part for part in parts.model.modules() if isinstance(part, LearnedItemGraph))
    with torch.no_grad():
        for parameter in graph.projectors.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("propagation", [FULL, SAMPLED], ids=["full", "sampled"])
def test_each_epoch_has_the_neighbours_of_its_parameters(
    data: Path, tmp_path: Path, propagation: str, model: str
) -> None:
    parts = parts_of(config_of(data, tmp_path, propagation, model=model))
    assert parts.has_changing_relations
    parts.before_epoch(1)
    first = edges(parts.source.relations[LEARNED])
    parts.before_epoch(2)
    assert edges(parts.source.relations[LEARNED]) == first, "the same parameters, the same graph"
    turn_projectors(parts)
    parts.before_epoch(3)
    assert edges(parts.source.relations[LEARNED]) != first


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("propagation", [FULL, SAMPLED], ids=["full", "sampled"])
def test_evaluation_has_the_neighbours_of_its_parameters(
    data: Path, tmp_path: Path, propagation: str, model: str
) -> None:
    parts = parts_of(config_of(data, tmp_path, propagation, model=model))
    before = encode_all(parts).vectors
    stale = edges(parts.whole_graph.relations[LEARNED])
    turn_projectors(parts)
    after = encode_all(parts).vectors
    assert edges(parts.whole_graph.relations[LEARNED]) != stale
    assert not torch.allclose(before[parts.num_users :], after[parts.num_users :], atol=1e-3)
    assert torch.equal(before[: parts.num_users], after[: parts.num_users])


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("propagation", [FULL, SAMPLED], ids=["full", "sampled"])
def test_training_and_the_finished_run(data: Path, tmp_path: Path, propagation: str, model: str) -> None:
    """The run read back ranks as it did; projections have learned, which only the learned graph teaches them."""
    config = config_of(data, tmp_path, propagation, "training.epochs=3", "name=learned", model=model)
    result = braidrec.train(config)
    again = braidrec.evaluate("learned", storage=str(tmp_path / "runs"), split="valid")
    wanted = {name.removeprefix("valid/"): v for name, v in result.metrics.items() if name.startswith("valid/")}
    assert {name: again.result.metrics[name] for name in wanted} == wanted
    start = parts_of(config).model.state_dict()
    tensors, _ = CheckpointStore(open_run("learned", str(tmp_path / "runs")).folder.checkpoints, warn=print).load(3)
    for name, learnt in with_prefix("model", tensors).items():
        assert (learnt - start[name]).abs().max() > 1e-3, name


def test_a_run_that_was_broken_off_goes_on_as_if_it_had_not_been(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The learned relation is in no checkpoint: it follows from the parameters that are."""
    whole = braidrec.train(config_of(data, tmp_path, FULL, "name=whole"))
    run, left = TrainStep.run, 10

    def step(self: TrainStep, *arguments: object) -> object:
        nonlocal left
        left -= 1
        if left < 0:
            raise InterruptedError
        return run(self, *arguments)

    with monkeypatch.context() as broken:
        broken.setattr(TrainStep, "run", step)
        with pytest.raises(InterruptedError):
            braidrec.train(config_of(data, tmp_path, FULL, "name=broken"))
    resumed = braidrec.train(config_of(data, tmp_path, FULL, "name=broken"), resume="broken")
    assert (resumed.metrics, resumed.best_epoch) == (whole.metrics, whole.best_epoch)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.item_graph={weights: {image: 0.5, text: 0.5}}", "keeps a graph for each modality"),
        ("model.item_graph={of: fused}", "item_graph.of has no effect on model.encoder.kind=lattice"),
        ("model.item_graph=null", "set model.item_graph.neighbours"),
        ("model.item_graph={learned: {}}", "learned has no effect on model.encoder.kind=lattice"),
    ],
)
def test_item_graphs_that_would_have_no_effect(data: Path, tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parts_of(config_of(data, tmp_path, override))


def test_weights_of_modalities_have_no_effect_where_they_are_learned(data: Path, tmp_path: Path) -> None:
    weights = "model.item_graph.weights={image: 0.5, text: 0.5}"
    with pytest.raises(ConfigError, match="what each modality counts is learned"):
        parts_of(config_of(data, tmp_path, weights, model="composed"))
