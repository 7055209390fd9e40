"""What stands for the ID of an item that training never showed, against loops and scikit-learn."""

import numpy as np
import pytest
import torch
from composed_oracle import COLD, FEATURES, RELATIONS, build
from dense_oracles import NUM_ITEMS
from item_graph_world import inputs_of, make_tables, source_over
from sklearn.linear_model import Ridge

from braidrec.config.model import FusionConfig, ModalitiesConfig
from braidrec.models.cold_id import COLD_IDS, RIDGE
from braidrec.models.strands import ID


def ids_and_content() -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    random = np.random.default_rng(4)
    cold = torch.from_numpy(random.random(50) < 0.3)
    return (
        torch.from_numpy(random.normal(size=(50, 6))),
        cold,
        [torch.from_numpy(random.normal(size=(50, width))) for width in (3, 4)],
    )


@pytest.mark.parametrize("kind", COLD_IDS)
def test_items_of_train_keep_theirs(kind: str) -> None:
    ids, cold, content = ids_and_content()
    before = ids.clone()
    filled = COLD_IDS[kind](ids, cold, content)
    assert torch.equal(filled[~cold], before[~cold]) and torch.equal(ids, before)
    assert not torch.isclose(filled[cold], before[cold]).any()


def test_zero_and_mean() -> None:
    ids, cold, content = ids_and_content()
    assert not COLD_IDS["zero"](ids, cold, content)[cold].any()
    mean = np.mean([row for row, is_cold in zip(ids.numpy(), cold.tolist(), strict=True) if not is_cold], axis=0)
    np.testing.assert_allclose(COLD_IDS["mean"](ids, cold, content)[cold], np.tile(mean, (int(cold.sum()), 1)))


def test_generated_is_the_ridge_regression_of_scikit_learn() -> None:
    ids, cold, content = ids_and_content()
    x = np.concatenate([np.ones((len(ids), 1)), *(part.numpy() for part in content)], axis=1)
    warm = x[~cold.numpy()]
    strength = RIDGE * np.mean(np.square(warm).sum(0))
    model = Ridge(alpha=strength, fit_intercept=False).fit(warm, ids.numpy()[~cold.numpy()])
    np.testing.assert_allclose(
        COLD_IDS["generated"](ids, cold, content)[cold], model.predict(x)[cold.numpy()], rtol=1e-9
    )


def test_generated_finds_an_id_that_is_a_function_of_the_content() -> None:
    _, cold, content = ids_and_content()
    truth = torch.cat(content, dim=1) @ torch.from_numpy(np.random.default_rng(1).normal(size=(7, 6)))
    ids = torch.where(cold.unsqueeze(1), torch.randn(6, dtype=truth.dtype), truth)
    found = COLD_IDS["generated"](ids, cold, content)
    assert (found - truth).norm() < 0.2 * truth.norm() < (ids - truth).norm()


@pytest.mark.parametrize("kind", COLD_IDS)
@pytest.mark.parametrize("asked", [None, [6, 2, 0]])
def test_in_a_model_at_evaluation_alone(kind: str, asked: list[int] | None) -> None:
    model = build(FusionConfig(cold_id=kind), modalities=ModalitiesConfig(use=("*",), missing="token"))
    tables = make_tables(model)
    items = None if asked is None else torch.tensor(asked)
    plain = tables["item"].detach() if items is None else tables["item"].detach()[items]
    cold = torch.from_numpy(COLD) if items is None else torch.from_numpy(COLD)[items]
    assert 0 < int(cold.sum()) < NUM_ITEMS
    for training in (True, False):
        model.train(training)
        inputs = inputs_of(model, source_over(RELATIONS), tables, FEATURES, None, training=training)
        rows, counted = model.strands(inputs, items)
        assert counted[ID].all()
        assert torch.equal(rows[ID][~cold], plain[~cold])
        assert torch.equal(rows[ID][cold], plain[cold]) is training
