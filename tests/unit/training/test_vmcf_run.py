"""VMCF trained: at its limit it is plain matrix factorisation step by step, and its pairs and ratings are learnt."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from design_points import build, small_folder, two_steps, values_of

import braidrec
from braidrec.config.load import ConfigError, load_config
from braidrec.config.run import RunConfig
from braidrec.data.description import ProtocolDescription
from braidrec.data.errors import DatasetError
from braidrec.data.folder import DatasetFolder
from braidrec.data.planted import generate_planted
from braidrec.data.writer import DatasetWriter
from braidrec.runs.finished import open_run
from braidrec.training.local_worker import LocalWorker

VMCF = Path(__file__).parents[3] / "configs" / "models" / "vmcf.yaml"
PLAIN = ("model.encoder.visual=false", "model.modalities.use=[]", "model.encoder.relation_weight=0.0")


def config_of(data: Path, *overrides: str, preset: Path | None = VMCF) -> RunConfig:
    place = data.parent
    common = [
        f"data.path={data}", f"storage={place / 'runs'}", f"cache={place / 'cache'}", "workers.num=0",
        "workers.threads=1", "tracking.enabled=false", "model.dim=6",
    ]  # fmt: skip
    return load_config(RunConfig, [preset] if preset else [], [*common, *overrides])


def worker() -> LocalWorker:
    return LocalWorker(torch.device("cpu"), lambda event: None)


@pytest.mark.parametrize("link", ["identity", "sigmoid"])
def test_without_its_halves_it_trains_as_matrix_factorisation(link: str, tmp_path: Path) -> None:
    """From the same rows, the same rows after two steps."""
    data = small_folder(tmp_path / "data")
    common = (
        "training.batch_size=64", "evaluation.monitor=null", "evaluation.patience=null", "objective.regulariser=0.1",
        f"objective.loss={{kind: rating_mse, link: {link}}}", "training.optimizer={kind: sgd, learning_rate: 0.3}",
    )  # fmt: skip
    ours_config = config_of(data, *PLAIN, *common)
    theirs_config = config_of(data, "model.encoder.kind=mf", *common, preset=None)
    ours, theirs = build(ours_config, worker()), build(theirs_config, worker())
    with torch.no_grad():
        start = torch.cat([ours.tables["user"].weight, ours.tables["item"].weight])
        theirs.tables["id"].weight.copy_(start)
    losses = [
        two_steps(config, parts, worker(), tmp_path, alike=True)
        for config, parts in ((ours_config, ours), (theirs_config, theirs))
    ]
    assert losses[0] == losses[1]
    found, wanted = values_of(ours), values_of(theirs)["table id"]
    assert torch.equal(torch.cat([found["table user"], found["table item"]]), wanted)
    assert (wanted - start).abs().max() > 1e-3


@pytest.fixture(scope="module")
def rated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Planted data: users rate the topics that they like higher, by two of five stars, beside noise."""
    path = tmp_path_factory.mktemp("rated") / "data"
    generate_planted(
        str(path), num_users=150, num_items=120, num_interactions=4_000, num_topics=5, feature_noise=0.5, noise=0.4,
        coverage=1.0,
    )  # fmt: skip
    return path


RUN = (
    "training.epochs=60", "training.batch_size=256", "evaluation.every=5", "evaluation.patience=null",
    "training.optimizer.learning_rate=0.01", "objective.regulariser=0.1",
)  # fmt: skip


@pytest.mark.slow
def test_ratings_are_predicted_within_their_scale(rated: Path) -> None:
    """Better than the mean of the train ratings, and never outside of what was given."""
    result = braidrec.train(config_of(rated, "name=rated", *RUN))
    folder = DatasetFolder.open(str(rated))
    train, test = (folder.column(split, "rating") for split in ("train", "test"))
    of_mean = float(np.sqrt(np.mean((test - train.mean()) ** 2)))
    assert result.metrics["test/rmse"] < 0.95 * of_mean
    run = open_run("rated", str(rated.parent / "runs"))
    users, items = folder.edges("test")
    scores = run.ranker.score(torch.arange(folder.num_users)).numpy()[users, items].astype(np.float64)
    predicted = train.min() + (train.max() - train.min()) / (1 + np.exp(-scores))
    assert result.metrics["test/rmse"] == pytest.approx(float(np.sqrt(np.mean((predicted - test) ** 2))), rel=1e-5)
    assert result.metrics["test/mae"] == pytest.approx(float(np.mean(np.abs(predicted - test))), rel=1e-5)


def write_with_pairs(path: Path, pairs: list[tuple[int, int]], between: str = "items") -> Path:
    """A few ratings, and a relation `also_viewed`."""
    writer = DatasetWriter.begin(str(path), seed=0)
    writer.write_users(pa.array(["a", "b", "c"]))
    writer.write_items(pa.array(["p", "q", "r", "s"]))
    rng = np.random.default_rng(0)
    for split in ("train", "valid", "test"):
        users, items = np.repeat(np.arange(3), 2), np.array([0, 1, 1, 2, 2, 3])
        ratings = rng.integers(1, 6, 6).astype(np.float32)
        writer.write_split(split, {"user": users, "item": items, "rating": ratings})
    writer.write_relation("also_viewed", *np.array(pairs, dtype=np.int32).T, between=between)
    writer.finish(name="pairs", protocol=ProtocolDescription(kind="given", seed=0), options={})
    return path


NO_FEATURES = ("model.encoder.visual=false", "model.modalities.use=[]")


def test_pairs_come_from_the_data_set(tmp_path: Path) -> None:
    data = write_with_pairs(tmp_path / "data", [(0, 2), (3, 1), (2, 2)])
    folder = DatasetFolder.open(str(data))
    sources, destinations, weights = folder.relation("also_viewed")
    assert (sources.tolist(), destinations.tolist(), weights) == ([0, 3, 2], [2, 1, 2], None)
    assert folder.description.relations["also_viewed"].rows == 3
    config = config_of(data, *NO_FEATURES, "model.encoder.relation=also_viewed", "training.batch_size=4")
    relation = build(config, worker()).world.relations.fixed["related"]
    assert relation.num_edges == 2
    assert relation.edge_ids(np.array([3 + 2, 3 + 1]), np.array([3 + 0, 3 + 3])).min() >= 0


def test_pairs_that_are_not_there_are_asked_for(tmp_path: Path) -> None:
    data = write_with_pairs(tmp_path / "data", [(0, 2)], between="users")
    with pytest.raises(ConfigError, match=r"relation=also_viewed: .* has no such relation between items, but \[\]"):
        build(config_of(data, *NO_FEATURES, "model.encoder.relation=also_viewed"), worker())
    with pytest.raises(DatasetError, match=r"no relation 'bought'; it has \['also_viewed'\]"):
        DatasetFolder.open(str(data)).relation("bought")
    damaged = write_with_pairs(tmp_path / "damaged", [(0, 2), (4, 1)])
    with pytest.raises(DatasetError, match=r"relations/also_viewed, row 1: src=4 is outside 0…3"):
        DatasetFolder.open(str(damaged)).relation("also_viewed")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("model.encoder={relation_weight: 0.0, relation: also_viewed}",), "relation has no effect"),
        (("model.encoder={relation: also_viewed, neighbours: 3}",), "neighbours has no effect"),
        (("model.encoder={visual: false, content_dim: 4}",), "content_dim has no effect"),
    ],
)
def test_what_has_no_effect_is_refused_on_sight(overrides: tuple[str, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        config_of(tmp_path / "data", *overrides)


def test_what_has_no_effect_on_the_run_is_refused(tmp_path: Path) -> None:
    data = write_with_pairs(tmp_path / "data", [(0, 2)])
    with pytest.raises(ConfigError, match=r"precision=bf16 has no effect"):
        build(config_of(data, *NO_FEATURES, "training.propagation.precision=bf16"), worker())
    with pytest.raises(ConfigError, match="looks at modalities"):
        build(config_of(data, "model.modalities.use=[]"), worker())


def test_ratings_without_a_scale_are_refused(tmp_path: Path) -> None:
    writer = DatasetWriter.begin(str(tmp_path / "data"), seed=0)
    writer.write_users(pa.array(["a", "b"]))
    writer.write_items(pa.array(["p", "q", "r"]))
    for split in ("train", "valid", "test"):
        writer.write_split(split, {
            "user": np.array([0, 1]), "item": np.array([0, 1]), "rating": np.full(2, 3, np.float32),
        })  # fmt: skip
    writer.finish(name="flat", protocol=ProtocolDescription(kind="given", seed=0), options={})
    with pytest.raises(ConfigError, match="all train ratings are 3"):
        build(config_of(tmp_path / "data", *PLAIN), worker())
