"""DVBPR through the one loop on generated pictures: unseen items, broken files, two workers, broken off, a sweep."""

import sys
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from picture_world import PRESETS, picture_config, write_picture_folder
from process_pair import Pair, both
from safetensors.torch import load_file
from torch import nn
from two_process_models import train_two_steps

import braidrec
from braidrec.config.load import ConfigError, validate
from braidrec.config.sweep import SweepConfig
from braidrec.data.folder import DatasetFolder
from braidrec.runs.evaluate import evaluate
from braidrec.runs.recommend import recommend
from braidrec.search.runs import Runs
from braidrec.training.check import check_run
from braidrec.training.local_worker import LocalWorker
from braidrec.training.result import TrainResult
from braidrec.training.step import TrainStep, running_means

LEARNING = (
    "training.epochs=30", "evaluation.every=30", "model.encoder.initial_range=0.5",
    "model.encoder.network_decay=0.0001",
    "training.batch_size=32", "training.optimizer.learning_rate=0.003",
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "data"
    write_picture_folder(path, without=[5])
    return path


def order_of_unseen(data: Path, result: TrainResult) -> float:
    """How often an unseen item of the user's colour is scored above an unseen one of another; by chance 0.5."""
    output = recommend(result.folder, output=str(data.parent / "all"), k=60, exclude="train", data_path=str(data))
    rows = pq.read_table(output.recommendations)
    folder = DatasetFolder.open(str(data))
    users, items = folder.edges("test")
    assert len(np.unique(items)) == 18 and not np.isin(items, folder.edges("train")[1]).any()
    shares = []
    for user in range(folder.num_users):
        own = rows.filter(pc.equal(rows.column("user_id"), f"user-{user}"))
        ids = [int(name.removeprefix("item-")) for name in own.column("item_id").to_pylist()]
        score = dict(zip(ids, own.column("score").to_pylist(), strict=True))
        liked = items[users == user]
        others = np.setdiff1d(np.unique(items), liked)
        shares += [np.mean([(np.sign(score[item] - score[other]) + 1) / 2 for other in others]) for item in liked]
    return float(np.mean(shares))


@pytest.mark.slow
def test_unseen_items_are_scored_by_what_their_pictures_show(data: Path) -> None:
    result = braidrec.train(picture_config(data, "name=learns", *LEARNING))
    assert order_of_unseen(data, result) > 0.9
    names = load_file(Path(result.checkpoint) / "tensors.safetensors").keys()
    assert [name for name in names if name.startswith("table")] == ["table:user"], "items have nothing of their own"


@pytest.mark.slow
def test_pictures_of_other_items_tell_nothing(tmp_path: Path) -> None:
    """What was learnt came from the pictures: dealt out at random, the unseen ones are in no order."""
    path = tmp_path / "data"
    write_picture_folder(path, shuffled=True)
    result = braidrec.train(picture_config(path, "name=shuffled", *LEARNING))
    assert abs(order_of_unseen(path, result) - 0.5) < 0.2


class BrokenOffError(Exception):
    pass


@pytest.mark.slow
def test_broken_off_resumed_evaluated_and_recommended_from(
    data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In mid-epoch, with crops, mirror images and dropout; then all is as if nothing had been."""
    drawn = ("model.encoder.flip=true", "model.encoder.margin=4", "model.encoder.network.dropout=0.3")
    whole = braidrec.train(picture_config(data, "name=whole", *drawn))
    original, left = TrainStep.run, [5]

    def run(step: TrainStep, *arguments: object) -> object:
        if not left[0]:
            raise BrokenOffError
        left[0] -= 1
        return original(step, *arguments)

    broken = picture_config(data, "name=broken", *drawn)
    monkeypatch.setattr(TrainStep, "run", run)
    with pytest.raises(BrokenOffError):
        braidrec.train(broken)
    monkeypatch.setattr(TrainStep, "run", original)
    resumed = braidrec.train(broken, resume="broken")
    assert dict(resumed.metrics) == dict(whole.metrics)
    tensors = [load_file(Path(result.checkpoint) / "tensors.safetensors") for result in (whole, resumed)]
    assert all(torch.equal(tensors[0][key], value) for key, value in tensors[1].items())
    storage = str(data.parent / "runs")
    again = evaluate("whole", storage=storage, split="test", output=str(tmp_path))
    for metric in ("recall@10", "ndcg@10"):
        assert again.result.metrics[metric] == pytest.approx(whole.metrics[f"test/{metric}"], rel=1e-6)
    assert {"picture", "none"} >= whole.slices["item_modalities"].keys() >= {"picture"}


@pytest.mark.slow
def test_two_learn_what_one_does(pair: Pair, data: Path) -> None:
    config = picture_config(
        data, "training.batch_size=16", "evaluation.monitor=null", "model.initial_std=0.3",
        "training.optimizer={kind: sgd, learning_rate: 0.5}", "model.encoder.initial_range=1.0",
        "objective.regulariser=0.1", "model.encoder.network_decay=0.01",
    )  # fmt: skip
    alone = train_two_steps(LocalWorker(torch.device("cpu"), lambda event: None), config, data.parent)
    ranks = pair.run(train_two_steps, both(config), both(data.parent))
    assert not [rank for rank in ranks if isinstance(rank, Exception)], ranks
    for step, wanted in enumerate(alone["losses"]):
        assert wanted.keys() >= {"loss", "regulariser", "network"}
        for term, value in wanted.items():
            np.testing.assert_allclose(ranks[0]["losses"][step][term], value, rtol=1e-6, atol=1e-9, err_msg=term)
    assert max(alone["moved"].values()) > 1e-4
    for key, value in alone["after"].items():
        np.testing.assert_array_equal(ranks[0]["after"][key], ranks[1]["after"][key], err_msg=key)
        np.testing.assert_allclose(ranks[0]["after"][key], value, rtol=1e-5, atol=1e-7, err_msg=key)


def test_running_means_are_those_of_normalisations_alone() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Sequential(nn.BatchNorm2d(2)), nn.LayerNorm(4))
    model.register_buffer("constant", torch.ones(9))
    assert [len(buffer) for buffer in running_means(model)] == [4, 4, 2, 2]


@pytest.mark.slow
def test_a_sweep_takes_it_as_a_base(data: Path) -> None:
    settings = {
        "base": [str(PRESETS / "dvbpr.yaml")], "run": {"data": {"path": str(data)}}, "algorithm": {"kind": "grid"},
        "space": {"model.encoder.network.dropout": {"choice": [0.2, 0.5]}, "model.encoder.side": {"choice": [32, 64]}},
    }  # fmt: skip
    sweep = validate(SweepConfig, settings, "test")
    assert Runs.of(sweep).check(sweep).path == str(data)


@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        ("model.encoder.images.media=photo", r"media=photo, but the data set .* has images in \['image'\]"),
        ("model.encoder.network={kind: torchvision, model: resnet19}", r"no such classifier; near it: .*resnet18"),
        ("objective={loss: {kind: none}, negatives: {kind: uniform, exponent: 0.75}}", "has no loss of its own"),
        ("model.modalities.use=['*']", "the data set .* has no item modality|looks at none"),
        ("model.encoder.network={kind: torchvision, model: vit_b_16}", "side=24"),
        ("evaluation.inference=tiled", "dvbpr propagates over no graph.*set evaluation.inference=whole"),
    ],
)
def test_what_could_not_run_is_refused_before(data: Path, override: str, wanted: str) -> None:
    folder = DatasetFolder.open(str(data))
    check_run(picture_config(data), folder)
    with pytest.raises(ConfigError, match=wanted):
        check_run(picture_config(data, override), folder)


def test_without_torchvision_the_extra_is_named(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ConfigError, match=r"pip install 'braidrec\[extract\]'"):
        check_run(picture_config(data), DatasetFolder.open(str(data)))


def test_a_network_of_torchvision_and_its_weights(data: Path, tmp_path: Path) -> None:
    """Weights of a thousand classes fill all but the last layer; those of another network are refused."""
    import torchvision

    from braidrec.training.picture_networks import build_picture_network

    torch.manual_seed(0)
    published = torchvision.models.get_model("resnet18", weights=None)
    torch.save(published.state_dict(), tmp_path / "resnet.pth")

    def network(model: str, *, pretrained: bool = True) -> nn.Module:
        wanted = f"model.encoder.network={{kind: torchvision, model: {model}, weights: {tmp_path / 'resnet.pth'}}}"
        encoder = picture_config(data, wanted).model.encoder
        scaled = build_picture_network(encoder, 8, pretrained=pretrained)  # type: ignore[arg-type]
        assert scaled.mean == (0.485, 0.456, 0.406) and scaled.std == (0.229, 0.224, 0.225)
        return scaled.network

    found = network("resnet18").state_dict()
    assert found["fc.weight"].shape == (8, 512)
    same = [name for name, value in published.state_dict().items() if torch.equal(value, found[name])]
    assert set(published.state_dict()) - set(same) == {"fc.weight", "fc.bias"}
    assert not torch.equal(network("resnet18", pretrained=False).state_dict()["conv1.weight"], found["conv1.weight"])
    with pytest.raises(ConfigError, match=r"model\.encoder\.network\.weights=.*do not fit resnet34"):
        network("resnet34")


@pytest.mark.slow
def test_a_network_with_batch_normalisation_trains(data: Path, pair: Pair) -> None:
    """Its parameters are the same on both ranks, whose pictures are not."""
    overrides = ("model.encoder.network={kind: torchvision, model: shufflenet_v2_x0_5}", "evaluation.monitor=null")
    config = picture_config(data, "training.batch_size=16", *overrides)
    ranks = pair.run(train_two_steps, both(config), both(data.parent))
    assert not [rank for rank in ranks if isinstance(rank, Exception)], ranks
    for key, value in ranks[0]["after"].items():
        np.testing.assert_array_equal(ranks[1]["after"][key], value, err_msg=key)
    moved = [value for key, value in ranks[0]["moved"].items() if not key.startswith("table")]
    assert len(moved) > 100 and max(moved) > 1e-4, "the network learnt"
