"""Hidden features predicted from what is left, or from other strands, an item at a time."""

import numpy as np
import pytest
import torch
from composed_oracle import FEATURES, RELATIONS, item_strands
from dense_oracles import NUM_ITEMS
from item_graph_world import assert_everything_learns, assert_modes_agree, assert_ranks_add_up
from task_world import BATCHES, HAS, ITEMS_OF, WEIGHT, assert_term, cosine, linear, perceptron, terms_of, with_task

from braidrec.config.load import ConfigError
from braidrec.config.model import ModalitiesConfig
from braidrec.config.self_supervision import ReconstructConfig


def judged(loss: str, predicted: np.ndarray, target: np.ndarray) -> float:
    if loss == "mse":
        return float(np.mean((predicted - target) ** 2))
    return (1 - cosine(predicted, target)) ** 2


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("missing", ["token", "mask"])
@pytest.mark.parametrize("loss", ["mse", "cosine"])
@pytest.mark.parametrize("sources", [("image",), ("image", "id")])
def test_text_from_other_strands(sources: tuple[str, ...], loss: str, missing: str, batch: str) -> None:
    task = ReconstructConfig(modality="text", sources=sources, loss=loss, weight=WEIGHT)
    model = with_task(task, modalities=ModalitiesConfig(use=("*",), missing=missing))
    tables, terms = terms_of(model, BATCHES[batch])
    rows, _ = item_strands(model, tables, training=True)
    predicted = perceptron(model.tasks["of_extra"].decoder, np.concatenate([rows[name] for name in sources], axis=1))
    target = FEATURES["text"][0].numpy()
    items = [item for item in ITEMS_OF[batch] if item in HAS["text"] & HAS["image"]]
    assert_term(terms["extra"], [judged(loss, predicted[item], target[item]) for item in items])


@pytest.mark.parametrize("loss", ["mse", "cosine"])
@pytest.mark.parametrize("mode", ["full", "sampled"])
def test_image_from_what_is_not_hidden(loss: str, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = with_task(ReconstructConfig(modality="image", loss=loss, weight=WEIGHT))
    task, projector = model.tasks["of_extra"], model.strands.projectors["of_image"].layers[0]
    mask = np.random.default_rng(3).random((NUM_ITEMS, 4)) < 0.5
    mask[3] = False  # nothing hidden: nothing to predict
    rows = [0, 2, 3, 4, 5]
    monkeypatch.setattr(task.hide, "dropped", lambda target: torch.from_numpy(mask[rows]))
    _, terms = terms_of(model, BATCHES["six rows"], mode)
    target = FEATURES["image"][0].numpy()
    predicted = perceptron(task.decoder, linear(projector, np.where(mask, 0.0, target)))
    wanted = [judged(loss, predicted[item][mask[item]], target[item][mask[item]]) for item in (0, 2, 4)]
    assert_term(terms["extra"], wanted)


def test_the_share_of_hidden_entries() -> None:
    hidden = (
        with_task(ReconstructConfig(modality="image", rate=0.3)).tasks["of_extra"].hide.dropped(torch.ones(500, 40))
    )
    # 20,000 draws: the standard error is 0.0032; five of them.
    assert abs(float(hidden.float().mean()) - 0.3) < 0.016


@pytest.mark.parametrize("sources", [(), ("image", "id")])
def test_whole_and_sampled_and_ranks(sources: tuple[str, ...]) -> None:
    model = with_task(ReconstructConfig(modality="text", sources=sources, rate=0.5))
    assert_everything_learns(model, RELATIONS, FEATURES)
    assert_modes_agree(model, RELATIONS, FEATURES)
    if sources:
        assert_ranks_add_up(model, RELATIONS, FEATURES)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"modality": "sound"}, "'sound' is not used"),
        ({"modality": "text", "sources": ("sound",)}, "no strand 'sound'"),
        ({"modality": "text", "sources": ("fused",)}, "no strand 'fused'"),
        ({"modality": "text", "sources": ("text", "id")}, "from itself"),
        ({"modality": "text", "rate": 0.0}, "hides nothing"),
    ],
)
def test_what_cannot_be_reconstructed_is_refused(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        with_task(ReconstructConfig(**settings))
