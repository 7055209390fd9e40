"""Prototypes of a planted data set: they tell its topics, by their items and by their words."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import homogeneity_score

import braidrec
from braidrec.config.load import ConfigError, load_config
from braidrec.config.run import RunConfig
from braidrec.data.planted import PlantedDataset
from braidrec.models.disentangled import Columns
from braidrec.models.systems.addvae import ADDVAE
from braidrec.runs.finished import open_trained
from braidrec.runs.prototypes import Prototype, PrototypesResult, as_page, as_table, prototypes
from braidrec.training.result import TrainResult

sys.path.append(str(Path(__file__).parents[1] / "training"))

from history_world import TOPICS, WORDS, history_config, write_history_folder

pytestmark = pytest.mark.slow

PROTOTYPES = 8


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> PlantedDataset:
    return write_history_folder(tmp_path_factory.mktemp("prototypes") / "data", users=120, interactions=1_500)


@pytest.fixture(scope="module")
def trained(planted: PlantedDataset) -> TrainResult:
    data = Path(planted.folder.path)
    config = history_config(
        "addvae", data, "name=one", "seed=1", "model.dim=16", "training.optimizer.learning_rate=0.01",
        "training.batch_size=24", "training.epochs=40", "evaluation.every=40", "evaluation.patience=null",
        f"model.encoder.prototypes={PROTOTYPES}",
    )  # fmt: skip
    return braidrec.train(config)


@pytest.fixture(scope="module")
def found(trained: TrainResult, tmp_path_factory: pytest.TempPathFactory) -> PrototypesResult:
    return prototypes(trained.folder, top=6, output=str(tmp_path_factory.mktemp("told")))


def test_planted_groups_are_recovered(planted: PlantedDataset, trained: TrainResult) -> None:
    """Prototypes are more than topics, and hardly any has items, or words, of two. Homogeneity is 1 where they tell
    the topic; what chance makes of it is seen by shuffling."""
    model = open_trained(trained.folder)
    assert isinstance(model.model, ADDVAE) and model.model.words is not None
    items, words = model.model.columns(model.tables["item"])
    topics, of_items = planted.item_topics, items.log_shares.argmax(-1).numpy()
    told = {name: int(name[1]) for name in model.model.words.vocabulary if re.fullmatch(r"t\dw\d", name)}
    places = [model.model.words.vocabulary.index(name) for name in told]
    of_words = words.log_shares.argmax(-1).numpy()[places]
    assert len(told) == TOPICS * WORDS
    for truth, found in ((topics, of_items), (list(told.values()), of_words)):
        assert homogeneity_score(truth, found) > 0.75
        shuffled = [homogeneity_score(truth, np.random.default_rng(seed).permutation(found)) for seed in range(20)]
        assert max(shuffled) < 0.65
    some = Columns(embeddings=words.embeddings[places], log_shares=words.log_shares[places])
    # Items and words of a topic belong to the same prototypes, for these are shared.
    shares = [
        [side.log_shares.exp()[np.flatnonzero(np.asarray(truth) == topic)].mean(0) for topic in range(TOPICS)]
        for side, truth in ((items, topics), (some, list(told.values())))
    ]
    same = torch.stack(shares[0]) @ torch.stack(shares[1]).t()
    assert torch.equal(same.argmax(-1), torch.arange(TOPICS))


def test_a_prototype_is_told_by_what_is_nearest_to_it(
    planted: PlantedDataset, trained: TrainResult, found: PrototypesResult
) -> None:
    """Cosines with each prototype, sorted by hand, of train items and of words."""
    model = open_trained(trained.folder)
    assert isinstance(model.model, ADDVAE) and model.model.words is not None
    unit = torch.nn.functional.normalize
    ids = planted.folder.item_ids().to_pylist()
    warm = set(planted.folder.edges("train")[1].tolist())
    embeddings = {
        "items": {ids[item]: unit(model.tables["item"][item], dim=0) for item in warm},
        "words": dict(zip(model.model.words.vocabulary, unit(model.model.word_embeddings, dim=-1), strict=True)),
    }
    assert len(found.prototypes) == PROTOTYPES
    for number, one in enumerate(found.prototypes):
        prototype = unit(model.model.prototypes[number], dim=0)
        for side, told in (("items", one.items), ("words", one.words)):
            cosines = {name: float((prototype @ vector).detach()) for name, vector in embeddings[side].items()}
            best = sorted(cosines, key=cosines.__getitem__, reverse=True)[:6]
            assert [name for name, _ in told] == best
            assert [cosine for _, cosine in told] == pytest.approx([cosines[name] for name in best], abs=1e-5)
    for share in ("item_share", "word_share"):
        assert sum(getattr(one, share) for one in found.prototypes) == pytest.approx(1, abs=1e-5)


def test_the_files_say_the_same(found: PrototypesResult) -> None:
    rows = Path(found.table_file).read_text().splitlines()
    assert len(rows) == 2 + PROTOTYPES and all(row.count("|") == 6 for row in rows)
    pages = [row.split("<td>")[3:] for row in Path(found.page_file).read_text().split("<tr><td>")[1:]]
    assert len(pages) == PROTOTYPES
    for cells, one in zip(pages, found.prototypes, strict=True):
        for cell, side in zip(cells, (one.items, one.words), strict=True):
            shown = cell.split("</table>")[0].split(", ")
            assert shown == [f"{name}&nbsp;<small>{cosine:.2f}</small>" for name, cosine in side]
    plain = json.loads(Path(found.json_file).read_text())
    for row, one, written in zip(rows[2:], found.prototypes, plain, strict=True):
        assert all(name in row for name, _ in (*one.items, *one.words))
        assert [name for name, _ in written["items"]] == [name for name, _ in one.items]


def test_a_training_ends_with_them(planted: PlantedDataset, tmp_path: Path) -> None:
    """In the run's folder and in its MLflow run, with the defaults of jobs/prototypes.py."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    config = history_config("addvae", Path(planted.folder.path), "name=told", "training.epochs=1")
    tracking = config.tracking.model_copy(update={"enabled": True, "uri": uri, "artifacts": str(tmp_path / "kept")})
    result = braidrec.train(config.model_copy(update={"tracking": tracking, "storage": str(tmp_path / "runs")}))
    prototypes(result.folder, output=str(tmp_path / "again"))
    for name in ("md", "html", "json"):
        written = (Path(result.folder) / f"prototypes.{name}").read_bytes()
        assert written == (tmp_path / "again" / f"prototypes.{name}").read_bytes()
    assert {file.name for file in tmp_path.glob("kept/**/prototypes.*")} == {"prototypes.html", "prototypes.json"}


def test_names_are_no_markup() -> None:
    one = Prototype(item_share=1.0, word_share=1.0, items=(("<b>&", 0.5),), words=(("a|b", 0.25),))
    page = as_page((one,), "<run>")
    assert "&lt;b&gt;&amp;" in page and "&lt;run&gt;" in page and "<b>" not in page
    assert "a\\|b" in as_table((one,))


def test_what_cannot_be_told(planted: PlantedDataset, trained: TrainResult, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"label='title': items.parquet of run 'one' has the columns \['item', 'item_id'\]"
    ):
        prototypes(trained.folder, label="title")
    data = planted.folder.path
    config = load_config(
        RunConfig, [], [f"data.path={data}", f"storage={tmp_path}", f"cache={tmp_path / 'cache'}", "name=other",
        "model.encoder.kind=mf", "training.epochs=1", "workers.num=0", "tracking.enabled=false"],
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"run 'other' is of model.encoder.kind=mf, which has no prototypes"):
        prototypes(braidrec.train(config).folder)
    users = tmp_path / "new.csv"
    users.write_text(f"user_id,item_id\nsomebody,{planted.folder.item_ids()[0].as_py()}\n")
    with pytest.raises(ConfigError, match=r"model.encoder.kind=addvae, whose users are no mean of their items"):
        braidrec.recommend(trained.folder, new_users=str(users))
    with pytest.raises(ConfigError, match=r"model.encoder.kind=addvae, which has no vectors"):
        braidrec.recommend(trained.folder, vectors=True)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.order=permutation", "batches of model.encoder.kind=addvae are of users; set training.order=users"),
        ("objective.loss={kind: bpr}", "brings its whole loss"),
        ("model.encoder.text=plot", r"model.encoder.text='plot': the data set .* it has \['text'\]"),
        ("tracking.registered_model=mine", "has no vectors to register"),
        ("training.optimizer.kind=sparse_adam", "every row gets a gradient: use adam"),
        ("model.encoder.min_items=40", r"47 texts|4\d texts of train items have no word in common"),
    ],
)
def test_settings_that_do_not_fit(planted: PlantedDataset, override: str, message: str) -> None:
    config = history_config("addvae", Path(planted.folder.path), "name=bad", "training.epochs=1", override)
    with pytest.raises(ConfigError, match=message):
        braidrec.train(config)


def test_the_seed_decides(planted: PlantedDataset) -> None:
    """No random number comes from anywhere else: not from the order of words, nor from the process."""
    results = [
        braidrec.train(history_config("addvae", Path(planted.folder.path), f"name=same-{run}", "training.epochs=2"))
        for run in range(2)
    ]
    assert dict(results[0].metrics) == dict(results[1].metrics)
    assert np.isfinite(list(results[0].metrics.values())).all()
