"""Runs of recommenders that are not trained: against plain loops, and evaluated and recommended from like any run."""

import sqlite3
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from training_runs import popularity_recall

import braidrec
from braidrec.config.load import ConfigError, load_config
from braidrec.config.run import RunConfig
from braidrec.data.folder import DatasetFolder
from braidrec.data.planted import generate_planted
from braidrec.training.result import TrainResult

PRESETS = Path(__file__).parents[3] / "configs" / "models"
ALL = ("popularity", "item_knn", "itemknncbf")
K, SHRINKAGE = 7, 2.0
SETTINGS = {
    "popularity": (),
    "item_knn": (f"model.encoder.neighbours={K}", f"model.encoder.shrinkage={SHRINKAGE}"),
    "itemknncbf": (f"model.encoder.neighbours={K}",),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted(tmp_path_factory.mktemp("planted") / "data", cold_items=0.0)


def planted(path: Path, *, cold_items: float) -> Path:
    """Small; a fifth of the items lack a modality."""
    sizes = {"num_users": 70, "num_items": 50, "num_interactions": 700, "num_topics": 4}
    generate_planted(str(path), **sizes, coverage=0.8, cold_items=cold_items)
    return path


def train(data: Path, place: Path, preset: str, *overrides: str) -> TrainResult:
    here = (f"data.path={data}", f"storage={place / 'runs'}", f"cache={place / 'cache'}", "workers.threads=1")
    off = () if "tracking.enabled=true" in overrides else ("tracking.enabled=false",)
    return braidrec.train(load_config(RunConfig, [PRESETS / f"{preset}.yaml"], [*here, *off, *overrides]))


def similarity_of(preset: str, folder: DatasetFolder) -> np.ndarray:
    """`[items, items]`, an item at a time: its K nearest, lower indices first among equals."""
    size, (users, items) = folder.num_items, folder.edges("train")
    had = [set(users[items == item].tolist()) for item in range(size)]
    if preset == "item_knn":
        close = np.zeros((size, size))
        for i in range(size):
            for j in range(size):
                if had[i] and had[j]:
                    close[i, j] = len(had[i] & had[j]) / (np.sqrt(len(had[i]) * len(had[j])) + SHRINKAGE)
    else:
        rows = np.zeros((size, 0))
        for name in ("image", "text"):
            of_modality = np.zeros((size, folder.modality(name).dim))
            for item, vector in zip(*folder.features(name), strict=True):
                of_modality[item] = vector / np.linalg.norm(vector)
            rows = np.concatenate([rows, of_modality], axis=1)
        length = np.linalg.norm(rows, axis=1, keepdims=True)
        unit = np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
        close = unit @ unit.T
    kept = np.zeros((size, size))
    for i in range(size):
        others = [j for j in range(size) if j != i and close[i, j] != 0]
        for j in sorted(others, key=lambda j: (-close[i, j], j))[:K]:
            kept[i, j] = close[i, j]
    return kept


def expected_scores(preset: str, folder: DatasetFolder, histories: list[list[int]]) -> np.ndarray:
    if preset == "popularity":
        degree = np.bincount(folder.edges("train")[1], minlength=folder.num_items)
        return np.tile(degree.astype(float), (len(histories), 1))
    close = similarity_of(preset, folder)
    return np.array([[sum(close[item, j] for j in mine) for item in range(folder.num_items)] for mine in histories])


def assert_lists(file: str, expected: np.ndarray, hidden: list[list[int]], folder: DatasetFolder, k: int) -> None:
    """Each list holds the k best scores among what is not hidden. Of equal scores any item may be there."""
    found = pq.read_table(file.removeprefix("file://")).to_pydict()
    items = {name: index for index, name in enumerate(folder.item_ids().to_pylist())}
    users = list(dict.fromkeys(found["user_id"]))
    assert len(users) == len(expected)
    for place, user in enumerate(users):
        mine = [row for row, name in enumerate(found["user_id"]) if name == user]
        scores = np.array([found["score"][row] for row in mine])
        picked = [items[found["item_id"][row]] for row in mine]
        allowed = np.setdiff1d(np.arange(folder.num_items), hidden[place])
        assert not set(picked) & set(hidden[place]) and len(set(picked)) == k
        np.testing.assert_allclose(scores, expected[place][picked], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(scores, np.sort(expected[place][allowed])[::-1][:k], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("preset", ALL)
def test_recommendations_and_evaluation(data: Path, tmp_path: Path, preset: str) -> None:
    result, folder = train(data, tmp_path, preset, *SETTINGS[preset]), DatasetFolder.open(str(data))
    users, items = folder.edges("train")
    histories = [items[users == user].tolist() for user in range(folder.num_users)]
    lists = braidrec.recommend(result.folder, k=5, exclude="train")
    assert_lists(lists.recommendations, expected_scores(preset, folder, histories), histories, folder, 5)
    again = braidrec.evaluate(result.folder, split="test")
    for name in ("recall@20", "ndcg@10"):
        assert again.result.metrics[name] == pytest.approx(result.metrics[f"test/{name}"], abs=1e-12)
    assert {"valid/recall@20", "test/recall@20"} <= set(result.metrics)
    if preset == "popularity":
        assert result.metrics["test/recall@20"] == pytest.approx(popularity_recall(data))
    else:
        name = folder.item_ids().to_pylist()
        (tmp_path / "new.csv").write_text(f"user_id,item_id\nann,{name[3]}\nann,{name[8]}\nbob,{name[0]}\n")
        new = braidrec.recommend(result.folder, k=4, new_users=str(tmp_path / "new.csv"))
        assert_lists(new.recommendations, expected_scores(preset, folder, [[3, 8], [0]]), [[3, 8], [0]], folder, 4)
        with pytest.raises(ConfigError, match="has no vectors"):
            braidrec.recommend(result.folder, vectors=True)


def test_content_finds_items_that_train_never_shows(tmp_path: Path) -> None:
    """All held-out items are cold; one of four topics is liked, or two."""
    data = planted(tmp_path / "data", cold_items=0.2)
    content, behaviour = (train(data, tmp_path, preset) for preset in ("itemknncbf", "item_knn"))
    assert content.slices["item_warmth"]["cold"]["recall@10"] > 0.2
    assert behaviour.slices["item_warmth"]["cold"]["recall@10"] == 0


def test_what_is_taken_away_at_evaluation_is_no_neighbour(data: Path, tmp_path: Path) -> None:
    result = train(data, tmp_path, "itemknncbf", "model.encoder.neighbours=20")
    kept, gone = (
        braidrec.evaluate(result.folder, split="test", drop_modality=rates).result.metrics["recall@20"]
        for rates in ({}, {"image": 0.9, "text": 0.9})
    )
    assert kept == pytest.approx(result.metrics["test/recall@20"], abs=1e-12)
    assert gone < 0.8 * kept


@pytest.mark.slow
def test_it_is_a_tracked_run(data: Path, tmp_path: Path) -> None:
    result = train(data, tmp_path, "item_knn", "tracking.enabled=true", "tracking.system_metrics=false", "name=knn")
    with sqlite3.connect(tmp_path / "runs" / "mlflow.db") as database:
        ((status,),) = database.execute("select status from runs where run_uuid = ?", [result.mlflow_run_id]).fetchall()
        logged = dict(database.execute("select key, value from latest_metrics").fetchall())
    assert status == "FINISHED"
    assert logged["test/recall_at_20"] == pytest.approx(result.metrics["test/recall@20"]) and result.best_epoch == 1
    again = braidrec.train(
        load_config(RunConfig, [Path(result.folder.removeprefix("file://")) / "config.yaml"], []), resume="knn"
    )
    assert again.metrics == result.metrics


@pytest.mark.parametrize(
    ("preset", "overrides", "names"),
    [
        ("popularity", ("workers.num=2",), "workers.num=2"),
        ("popularity", ("model.modalities.use=[image]",), r"model\.modalities"),
        ("item_knn", ("training.epochs=3",), "training has no effect"),
        ("popularity", ("evaluation.watch_test=true",), r"evaluation\.watch_test has no effect"),
        ("item_knn", ("evaluation.patience=3",), r"evaluation\.patience has no effect"),
        ("item_knn", ("data.delivery=stream",), r"data\.delivery has no effect"),
        ("popularity", ("workers.gpu=true",), r"workers\.gpu has no effect"),
        ("popularity", ("workers.num=2", "workers.least=1"), r"workers\.least has no effect"),
        ("item_knn", ("objective.loss.kind=hinge",), "objective has no effect"),
        ("item_knn", ("tracking.registered_model=knn",), "no vectors to register"),
        ("itemknncbf", ("model.modalities.missing=zeros",), r"model\.modalities"),
        ("itemknncbf", ("model.modalities.use=[]",), "item_knn_cbf compares content"),
        ("itemknncbf", ("model.fusion.timing=late",), r"model\.fusion"),
        ("item_knn", ("model.encoder.neighbors=3",), "neighbours"),
    ],
)
def test_what_has_no_effect_is_refused(
    data: Path, tmp_path: Path, preset: str, overrides: tuple[str, ...], names: str
) -> None:
    with pytest.raises(ConfigError, match=names):
        train(data, tmp_path, preset, *overrides)
