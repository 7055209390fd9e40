"""Features that are trained: a table of their own takes the place of the extracted vectors, presence stays."""

import numpy as np
import pytest
import torch
from composed_oracle import FEATURES, RELATIONS, build
from item_graph_world import DIMS, TOLERANCE, assert_modes_agree, inputs_of, make_tables, source_over

from braidrec.config.model import FusionConfig, LightGCNConfig, ModalitiesConfig

TRAINED = ModalitiesConfig(use=("*",), trainable=("image",))
FROZEN = ModalitiesConfig(use=("*",))
POINTS = {
    "early": {"weighting": "attention"},
    "late": {"timing": "late"},
    "aggregated": {"timing": "late", "user_side": "aggregated"},
}


def make(point: str, modalities: ModalitiesConfig):
    return build(FusionConfig(**POINTS[point]), encoder=LightGCNConfig(layers=1), modalities=modalities)


@pytest.mark.parametrize("point", POINTS)
def test_the_table_takes_the_place_of_the_features(point: str) -> None:
    """A model with frozen features that happen to be the table's rows gives the same vectors."""
    trained, frozen = make(point, TRAINED), make(point, FROZEN)
    tables = make_tables(trained)
    spec = trained.tables()["features/image"]
    assert (spec.width, spec.side, spec.starts_as) == (DIMS["image"], "items", "image")
    assert set(trained.tables()) - set(frozen.tables()) == {"features/image"}
    rows, present = tables["features/image"], FEATURES["image"][1]
    others = {name: values for name, values in tables.items() if name != "features/image"}
    as_features = {**FEATURES, "image": (rows.detach(), present)}
    found = trained.encode(inputs_of(trained, source_over(RELATIONS), tables, FEATURES, None))
    wanted = frozen.encode(inputs_of(frozen, source_over(RELATIONS), others, as_features, None))
    np.testing.assert_allclose(found.vectors.detach(), wanted.vectors.detach(), **TOLERANCE)
    (gradient,) = torch.autograd.grad(found.vectors.square().sum(), [rows])
    # What stands in an absent row is no vector of the item, so nothing is learnt there.
    assert (gradient.abs().sum(1) > 0).tolist() == present.tolist()


@pytest.mark.parametrize("point", POINTS)
def test_sampled_equals_full(point: str) -> None:
    assert_modes_agree(make(point, TRAINED), RELATIONS, FEATURES)


def test_they_are_never_propagated_ahead() -> None:
    model = make("aggregated", TRAINED).eval()
    inputs = inputs_of(model, source_over(RELATIONS), {}, FEATURES, None, training=False)
    with torch.no_grad():
        assert model.propagate_ahead(inputs, 1 << 30) == ("text",)
