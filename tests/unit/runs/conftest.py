"""One finished run of each kind for all tests of this folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from finished_runs import NUM_ITEMS, NUM_USERS, Finished

from braidrec.config.load import load_config
from braidrec.config.run import RunConfig
from braidrec.data.planted import generate_planted
from braidrec.graph.dgl_import import dgl
from braidrec.training.driver import train
from braidrec.training.environment import use_threads


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    before = dgl.utils.get_num_threads()
    use_threads(1)
    yield
    use_threads(before)


def _finish(folder: Path, name: str, *overrides: str) -> Finished:
    data, storage = str(folder / "data"), str(folder / "runs")
    if not Path(data).exists():
        generate_planted(
            data, num_users=NUM_USERS, num_items=NUM_ITEMS, num_interactions=800, num_topics=4, modalities={}
        )
    config = load_config(
        RunConfig,
        [],
        [
            f"name={name}", f"data.path={data}", f"storage={storage}", f"cache={folder / 'cache'}",
            "tracking.enabled=false", "workers.num=0", "workers.threads=1", "model.dim=8", "training.epochs=4",
            "training.batch_size=128", "training.optimizer.learning_rate=0.02", *overrides,
        ],
    )  # fmt: skip
    return Finished(result=train(config), storage=storage, data=data)


@pytest.fixture(scope="session")
def runs_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("finished")


@pytest.fixture(scope="session")
def lightgcn(runs_folder: Path) -> Finished:
    """LightGCN, trained by bf16 propagation, tested with train and validation masked."""
    return _finish(
        runs_folder, "lightgcn", "model.encoder.layers=2", "training.propagation.precision=bf16", "evaluation.auc=true",
        "evaluation.mask=train+valid", "evaluation.at=[5, 20]",
    )  # fmt: skip


@pytest.fixture(scope="session")
def ratings(runs_folder: Path) -> Finished:
    """Matrix factorisation with biases on ratings."""
    return _finish(
        runs_folder, "ratings", "model.encoder.kind=mf", "model.encoder.biases=true", "objective.loss.kind=rating_mse",
        "evaluation.monitor=rmse", "evaluation.at=[5, 20]",
    )  # fmt: skip


@pytest.fixture(scope="session")
def fused(runs_folder: Path) -> Finished:
    """Matrix factorisation on the sum of the ID and two modalities that some items lack; absent ones do not count."""
    return _finish(
        _multimodal(runs_folder), "fused", "model.encoder.kind=mf", "model.modalities.use=['*']",
        "model.modalities.missing=mask", "evaluation.at=[5, 20]", "evaluation.auc=true",
    )  # fmt: skip


@pytest.fixture(scope="session")
def attending(runs_folder: Path) -> Finished:
    """LightGCN after fusion by attention, on the data of `fused`."""
    return _finish(
        _multimodal(runs_folder), "attending", "model.encoder.layers=1", "model.modalities.use=['*']",
        "model.modalities.missing=mask", "model.fusion.weighting=attention", "evaluation.every=2",
    )  # fmt: skip


def _multimodal(folder: Path) -> Path:
    path = folder / "multimodal"
    if not (path / "data").exists():
        generate_planted(
            str(path / "data"), num_users=NUM_USERS, num_items=NUM_ITEMS, num_interactions=800, num_topics=4,
            modalities={"image": 6, "text": 4}, coverage=0.7,
        )  # fmt: skip
    return path
