"""From a file of user vectors to a run that looks at them: prepared by id, filled, trained, evaluated again."""

from pathlib import Path

import numpy as np
import pytest

import braidrec
from braidrec.config.load import ConfigError, load_config
from braidrec.config.prepare import PrepareConfig
from braidrec.config.run import RunConfig
from braidrec.data.folder import DatasetFolder
from braidrec.data.prepare import prepare

pytestmark = pytest.mark.slow  # data are prepared by Ray Data

USERS, ITEMS, TOPICS = 150, 60, 3


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Users like the items of one topic, of which each train interaction says little; a file tells the topic."""
    place = tmp_path_factory.mktemp("users")
    rng = np.random.default_rng(0)
    topic = rng.integers(TOPICS, size=USERS)
    lines = ["user_id,item_id"]
    for user in range(USERS):
        items = np.flatnonzero(np.arange(ITEMS) % TOPICS == topic[user])
        lines += [f"u{user},i{item}" for item in rng.choice(items, size=4, replace=False)]
    (place / "log.csv").write_text("\n".join(lines) + "\n")
    order = rng.permutation(USERS)[: USERS - 20]  # rows in another order than the users, and twenty without a vector
    np.save(place / "vectors.npy", np.eye(TOPICS, dtype=np.float32)[topic[order]])
    (place / "ids.txt").write_text("\n".join(f"u{user}" for user in order) + "\n")
    config = load_config(
        PrepareConfig,
        [],
        [
            f"output={place / 'set'}",
            f"source={{kind: table, paths: ['{place / 'log.csv'}']}}",
            f"user_features.profile={{vectors: '{place / 'vectors.npy'}', ids: '{place / 'ids.txt'}'}}",
        ],
    )
    prepare(config)
    folder = DatasetFolder.open(str(place / "set"))
    users, vectors = folder.features("profile", side="user")
    names = folder.user_ids().to_pylist()
    assert len(users) == USERS - 20
    for user, vector in zip(users, vectors, strict=True):
        assert vector.argmax() == topic[int(names[user].removeprefix("u"))]
    return place / "set"


def config_of(data: Path, place: Path, *overrides: str) -> RunConfig:
    return load_config(
        RunConfig,
        [],
        [
            f"data.path={data}", f"storage={place / 'runs'}", f"cache={place / 'cache'}", "workers.num=0",
            "workers.threads=1", "tracking.enabled=false", "model.dim=8", "model.encoder.layers=1",
            "training.epochs=15", "training.batch_size=128", "training.optimizer.learning_rate=0.03",
            "evaluation.patience=null", *overrides,
        ],
    )  # fmt: skip


@pytest.mark.parametrize("missing", ["token", "mean", "neighbours"])
def test_what_is_known_of_users_helps(data: Path, tmp_path: Path, missing: str) -> None:
    without = braidrec.train(config_of(data, tmp_path, "name=without"))
    looks = ("model.user_modalities.use=[profile]", f"model.user_modalities.missing={missing}")
    result = braidrec.train(config_of(data, tmp_path, "name=with", *looks))
    assert result.metrics["test/recall@10"] > without.metrics["test/recall@10"] + 0.05
    again = braidrec.evaluate(result.folder, split="test")
    assert again.result.metrics["recall@10"] == pytest.approx(result.metrics["test/recall@10"], abs=1e-6)


def test_the_users_are_those_of_their_own_graph(data: Path, tmp_path: Path) -> None:
    """A user without a vector gets the mean of the users who share items: here, of the same topic."""
    from braidrec.training.context import SingleProcess
    from braidrec.training.world import open_world

    looks = ("model.user_modalities.use=[profile]", "model.user_modalities.missing=neighbours")
    folder = DatasetFolder.open(str(data))
    world = open_world(config_of(data, tmp_path, *looks), folder, SingleProcess())
    values, present = world.features.fetch("user/profile", None)
    assert (~present).sum() == 20 and world.features.tables == {}
    items = [folder.item_ids()[int(item)].as_py() for item in folder.edges("train")[1]]
    for user in np.flatnonzero(~present.numpy()):
        own = {int(items[row].removeprefix("i")) % TOPICS for row in np.flatnonzero(folder.edges("train")[0] == user)}
        assert own == {int(values[user].argmax())}
        assert float(values[user].max()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        (("model.user_modalities.use=[profil]",), "no user modality 'profil'; it has .'profile'"),
        (("model.user_modalities={use: ['*'], missing_in: {x: zeros}}",), "missing_in"),
        (("model.user_modalities.missing=zeros",), "user_modalities"),
    ],
)
def test_refused_before_work_starts(data: Path, tmp_path: Path, overrides: tuple[str, ...], names: str) -> None:
    with pytest.raises(ConfigError, match=names):
        braidrec.train(config_of(data, tmp_path, *overrides))
