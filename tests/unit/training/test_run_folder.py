"""A run's folder: names, what may change on resume, and whose data it is."""

import json
from pathlib import Path

import pytest
from training_runs import run_config

from braidrec.config.load import ConfigError, load_config
from braidrec.config.run import RunConfig, TrainingConfig
from braidrec.data.storage import Location
from braidrec.training.run_folder import MAY_CHANGE, RunFolder, config_hash

HOSTILE = [
    "../x",
    "..",
    ".",
    "",
    ".hidden",
    "a/b",
    "/etc",
    "a\\b",
    "a b",
    "a\nb",
    "x;rm -rf",
    "$(id)",
    "~root",
    "a\x00b",
]


def config(tmp_path: Path, *overrides: str) -> RunConfig:
    return run_config(tmp_path / "data", tmp_path, *overrides)


def start(wanted: RunConfig) -> RunFolder:
    folder = RunFolder.new(wanted)
    folder.begin(wanted)
    return folder


def test_names_are_unique_and_say_what_they_are(tmp_path: Path) -> None:
    names = [start(config(tmp_path)).name for _ in range(20)]
    assert len(set(names)) == 20
    assert all(name.startswith("lightgcn-data-") for name in names)


def test_a_name_of_ones_own_is_taken_once(tmp_path: Path) -> None:
    folder = start(config(tmp_path, "name=mine-1.b_ä"))
    assert folder.uri == str(tmp_path / "runs" / "mine-1.b_ä")
    key = folder.key
    with pytest.raises(
        ConfigError, match=r"a run 'mine-1.b_ä' exists in .*/runs; continue it with --resume mine-1.b_ä"
    ):
        start(config(tmp_path, "name=mine-1.b_ä"))
    assert folder.key == key


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_refused(tmp_path: Path, name: str) -> None:
    wanted = config(tmp_path).model_copy(update={"name": name})
    if name:
        with pytest.raises(ConfigError, match="must consist of letters, digits"):
            start(wanted)
    # A run that lies where such a name would lead is not found by it either.
    other = start(config(tmp_path, f"storage={tmp_path}", "name=x"))
    assert other.location.child("config.yaml").is_file()
    (tmp_path / "runs").mkdir(exist_ok=True)
    with pytest.raises(ConfigError, match="no run"):
        RunFolder.existing(str(tmp_path / "runs"), name)


def test_an_unknown_run_lists_those_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no run 'one' in .*/runs; there are none"):
        RunFolder.existing(str(tmp_path / "runs"), "one")
    for name in ("two", "three"):
        start(config(tmp_path, f"name={name}"))
    (tmp_path / "runs" / "not-a-run").mkdir()
    with pytest.raises(ConfigError, match=r"no run 'one' in .*/runs; there are \['three', 'two'\]"):
        RunFolder.existing(str(tmp_path / "runs"), "one")


def test_the_configuration_is_read_back(tmp_path: Path) -> None:
    """Also strings that other readers of YAML take for something else."""
    wanted = config(tmp_path, 'name="123"', 'tracking.tags={a: "on", b: "1e-3", c: "12:30", d: "null", e: "0x1F"}',
                    "training.optimizer.learning_rate=1e-05", "seed=2147483647")  # fmt: skip
    start(wanted)
    assert RunFolder.existing(str(tmp_path / "runs"), "123").config() == wanted


def test_a_changed_key_is_refused_with_both_values(tmp_path: Path) -> None:
    folder = start(config(tmp_path, "name=one"))
    changed = config(
        tmp_path, "model.encoder.layers=3", "training.optimizer.kind=adagrad", "training.epochs=99", "seed=7"
    )
    with pytest.raises(ConfigError) as refused:
        folder.check_resumable(changed)
    message = str(refused.value)
    assert "model.encoder.layers: 2 then, 3 now" in message
    assert "training.optimizer.kind: 'adam' then, 'adagrad' now" in message
    assert "seed: 42 then, 7 now" in message
    assert "99" not in message
    assert all(key in message for key in MAY_CHANGE)


def test_another_encoder_is_refused_key_by_key(tmp_path: Path) -> None:
    folder = start(config(tmp_path, "name=one"))
    with pytest.raises(ConfigError, match=r"model.encoder.kind: 'lightgcn' then, 'mf' now"):
        folder.check_resumable(config(tmp_path, "model.encoder.kind=mf"))


MOVED = [
    "training.epochs=500",
    "workers.num=4",
    "workers.timeout_seconds=7",
    "tracking.enabled=true",
    "tracking.uri=http://127.0.0.1:5000",
    "cache=/elsewhere",
    "storage=/elsewhere",
    "data.path=/moved",
    "name=null",
]


@pytest.mark.parametrize("override", MOVED)
def test_who_computes_how_long_and_where_may_change(tmp_path: Path, override: str) -> None:
    folder = start(config(tmp_path, "name=one"))
    folder.check_resumable(config(tmp_path, override))
    assert config_hash(config(tmp_path, override)) == config_hash(config(tmp_path, "name=one"))


def test_the_hash_is_of_what_determines_the_numbers(tmp_path: Path) -> None:
    base = config_hash(config(tmp_path))
    for override in ("seed=1", "model.dim=9", "training.batch_size=128", "objective.regulariser=0.5"):
        assert config_hash(config(tmp_path, override)) != base


class LaterTraining(TrainingConfig):
    """As of a version with one more key."""

    added: float = 0.5


class LaterRun(RunConfig):
    training: LaterTraining = LaterTraining()
    more: tuple[int, ...] = ()


@pytest.mark.parametrize(
    "overrides", [(), ("model.dim=8",), ("training.batch_size=60", "model.encoder={kind: mf, biases: true}")]
)
def test_keys_that_come_later_leave_the_hash_at_their_defaults(overrides: tuple[str, ...]) -> None:
    given = ["data.path=x", *overrides]
    before = config_hash(load_config(RunConfig, [], given))
    assert config_hash(load_config(LaterRun, [], given)) == before
    assert config_hash(load_config(LaterRun, [], [*given, "training.added=0.6"])) != before
    assert config_hash(load_config(LaterRun, [], [*given, "more=[1]"])) != before


def test_the_hash_tells_kinds_apart_though_all_their_keys_are_at_their_defaults() -> None:
    contrast = "model.self_supervision.a={kind: contrast, first: {kind: %s}, loss: {kind: %s}}"
    given = [
        *(f"model.encoder={{kind: {kind}}}" for kind in ("mf", "lightgcn", "ngcf", "graphsage", "vbpr")),
        *(f"objective.loss={{kind: {kind}}}" for kind in ("hinge", "rating_mse")),
        *(contrast % kinds for kinds in (("edge_dropout", "info_nce"), ("node_dropout", "info_nce"))),
        contrast % ("edge_dropout", "jensen_shannon"),
        "model.item_graph={}",
        "model.item_graph={learned: {}}",
    ]
    hashes = [config_hash(load_config(RunConfig, [], ["data.path=x", one])) for one in given]
    assert len(set(hashes)) == len(hashes)


def test_other_data_is_refused(tmp_path: Path) -> None:
    folder = start(config(tmp_path, "name=one"))
    folder.check_same_data("a" * 64)
    folder.check_same_data("a" * 64)
    with pytest.raises(ConfigError, match=r"started on data with digest a{12}…, this data set has b{12}…"):
        folder.check_same_data("b" * 64)


@pytest.mark.parametrize(
    ("started", "now", "message"),
    [
        (["schedule=cosine"], "training.epochs=8", r"schedule 'cosine' stretches over all epochs: keep 4"),
        (["schedule=linear"], "training.epochs=2", r"schedule 'linear' stretches over all epochs: keep 4"),
        (["evaluation.every=3"], "training.epochs=9", r"epoch 4 would be validated in one case only"),
        (["evaluation.every=2"], "training.epochs=3", r"epoch 3 would be validated in one case only"),
        (["evaluation.every=2"], "training.epochs=9", None),
        ([], "training.epochs=2", None),
    ],
)
def test_epochs_that_would_change_those_that_are_over(
    tmp_path: Path, started: list[str], now: str, message: str | None
) -> None:
    keys = [key.replace("schedule", "training.optimizer.schedule") for key in started]
    folder = start(config(tmp_path, "name=one", *keys))
    changed = config(tmp_path, "name=one", *keys, now)
    if message is None:
        folder.check_resumable(changed)
    else:
        with pytest.raises(ConfigError, match=message):
            folder.check_resumable(changed)


def test_the_start_decides_and_is_remembered(tmp_path: Path) -> None:
    folder = start(config(tmp_path, "name=one"))
    key = folder.key
    assert folder.remembered("propagation", "sampled") == "sampled"
    again = RunFolder.existing(str(tmp_path / "runs"), "one")
    assert again.remembered("propagation", "full") == "sampled"
    assert again.key == key
    assert start(config(tmp_path, "name=two")).key != key


def test_a_worker_that_sees_another_disk(tmp_path: Path) -> None:
    folder = start(config(tmp_path, "name=one"))
    folder.check_reachable()
    (tmp_path / "other" / "one").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"storage: .*/other/one is not the run's folder on node"):
        RunFolder(Location.of(tmp_path / "other" / "one")).check_reachable()


def test_small_files(tmp_path: Path) -> None:
    folder = start(config(tmp_path, "name=one"))
    assert folder.read_json("result.json") is None
    folder.write_json("result.json", {"a": [1, None]})
    assert folder.read_json("result.json") == {"a": [1, None]}
    assert json.loads((tmp_path / "runs" / "one" / "result.json").read_text()) == {"a": [1, None]}
