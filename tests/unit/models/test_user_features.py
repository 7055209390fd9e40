"""Features of users: projected and added to their embeddings, before anything is propagated."""

import numpy as np
import pytest
import torch
from composed_oracle import FEATURES, RELATIONS
from dense_oracles import NUM_USERS
from item_graph_world import (
    DIM,
    DIMS,
    TOLERANCE,
    assert_everything_learns,
    assert_modes_agree,
    fill,
    inputs_of,
    make_tables,
    source_over,
)

from braidrec.config.load import ConfigError
from braidrec.config.model import (
    FusionConfig,
    LightGCNConfig,
    ModalitiesConfig,
    ModelConfig,
    UserGraphConfig,
    UserModalitiesConfig,
)
from braidrec.models.composed import ComposedRecommender
from braidrec.training.model_factory import build_model
from braidrec.training.surrounding import Surrounding

AGE = torch.from_numpy(np.random.default_rng(5).normal(size=(NUM_USERS, 2)))
HAS_AGE = torch.tensor([True] * (NUM_USERS - 1) + [False])
WITH_USERS = {**FEATURES, "user/age": (AGE.masked_fill(~HAS_AGE.unsqueeze(-1), 0.0), HAS_AGE)}
POINTS = {
    "early": {},
    "early, concat": {"combine": "concat"},
    "late": {"timing": "late"},
    "aggregated": {"timing": "late", "user_side": "aggregated"},
}


def make(fusion: dict[str, object], users: UserModalitiesConfig | None = None, **settings: object):
    config = ModelConfig(
        dim=DIM,
        encoder=LightGCNConfig(layers=2),
        fusion=FusionConfig(**fusion),
        modalities=ModalitiesConfig(use=("*",)),
        user_modalities=users or UserModalitiesConfig(),
        **settings,
    )
    model = build_model(config, Surrounding(dims=DIMS, user_dims={"age": 2} if users else {}))
    assert isinstance(model, ComposedRecommender)
    fill(model.double())
    return model


@pytest.mark.parametrize("missing", ["token", "zeros"])
@pytest.mark.parametrize("point", POINTS)
def test_they_shift_the_embeddings(point: str, missing: str) -> None:
    """The same model without features, whose users' table holds the sums, gives the same vectors."""
    model, plain = make(POINTS[point], UserModalitiesConfig(use=("age",), missing=missing)), make(POINTS[point])
    plain.load_state_dict({name: values for name, values in model.state_dict().items() if "user_features" not in name})
    tables = make_tables(model)
    linear = model.user_features.projectors["of_age"].layers[0]
    shift = AGE @ linear.weight.detach().T + linear.bias.detach()
    stand_in = model.user_features.missing["of_age"].token.detach() if missing == "token" else 0.0
    shift[-1] = stand_in
    shifted = {**tables, "user": tables["user"].detach() + shift}
    found = model.encode(inputs_of(model, source_over(RELATIONS), tables, WITH_USERS, None))
    wanted = plain.encode(inputs_of(plain, source_over(RELATIONS), shifted, FEATURES, None))
    np.testing.assert_allclose(found.vectors.detach(), wanted.vectors.detach(), **TOLERANCE)
    np.testing.assert_allclose(found.ego.detach(), wanted.ego.detach(), **TOLERANCE)
    unshifted = plain.encode(inputs_of(plain, source_over(RELATIONS), tables, FEATURES, None))
    assert not torch.allclose(found.vectors, unshifted.vectors)


@pytest.mark.parametrize("point", POINTS)
def test_everything_learns_and_modes_agree(point: str) -> None:
    model = make(POINTS[point], UserModalitiesConfig(use=("age",)))
    assert_everything_learns(model, RELATIONS, WITH_USERS)
    assert_modes_agree(model, RELATIONS, WITH_USERS)


def test_the_user_graph_spreads_them_too() -> None:
    model = make({}, UserModalitiesConfig(use=("age",), missing="zeros"), user_graph=UserGraphConfig())
    tables, source = make_tables(model), source_over(RELATIONS)
    with_graph = model.encode(inputs_of(model, source, tables, WITH_USERS, None)).outputs["beside"]
    without = {**WITH_USERS, "user/age": (torch.zeros_like(AGE), HAS_AGE)}
    assert not torch.allclose(
        with_graph, model.encode(inputs_of(model, source, tables, without, None)).outputs["beside"]
    )


def test_refused_without_embeddings_or_names() -> None:
    users = UserModalitiesConfig(use=("age",))
    with pytest.raises(ConfigError, match="user_modalities"):
        make({"timing": "late", "user_side": "aggregated", "use_id": False}, users)
    config = ModelConfig(modalities=ModalitiesConfig(use=("*",)), user_modalities=UserModalitiesConfig(missing="zeros"))
    with pytest.raises(ConfigError, match="no effect"):
        build_model(config, Surrounding(dims=DIMS))
