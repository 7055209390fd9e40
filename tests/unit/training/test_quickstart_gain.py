"""What the quickstart claims: on its data, fused modalities beat IDs alone by far; and that it trains on these data."""

from pathlib import Path

import pytest

import braidrec
from braidrec.config.load import ConfigError, load_config
from braidrec.config.run import RunConfig

QUICKSTART = Path(__file__).parents[3] / "configs" / "quickstart.yaml"
IDS_ALONE = ("model.modalities.use=[]", "model.fusion.weighting=none")


def train(place: Path, *overrides: str) -> float:
    here = (f"data.path={place / 'data'}", f"storage={place / 'runs'}", f"cache={place / 'cache'}")
    alone = ("workers.num=0", "workers.threads=1", "tracking.enabled=false", "evaluation.every=4")
    config = load_config(RunConfig, [str(QUICKSTART)], [*here, *alone, *overrides])
    return braidrec.train(config).metrics["test/recall@20"]


@pytest.mark.slow
def test_modalities_add_half_as_much_again(tmp_path: Path) -> None:
    """Three seeds gave .30 against .20; chance would be .05."""
    fused, alone = train(tmp_path), train(tmp_path, *IDS_ALONE)
    assert fused > 1.25 * alone > 0.15


@pytest.mark.parametrize("key", ["users", "interactions", "seed"])
def test_another_data_set_at_its_place_is_not_taken_for_it(tmp_path: Path, key: str) -> None:
    train(tmp_path, "training.epochs=1", "name=first")
    with pytest.raises(
        ConfigError, match=r"holds another data set \(600 users, 400 items, 3000 interactions, seed 0\)"
    ):
        train(tmp_path, f"data.planted.{key}=650", "name=second")
