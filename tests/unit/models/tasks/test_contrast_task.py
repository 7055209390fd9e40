"""Two views of the final vectors, against dense propagation and a double loop."""

import numpy as np
import pytest
import torch
from composed_oracle import FEATURES, RELATIONS, build, vectors_of
from dense_oracles import NUM_USERS
from item_graph_world import assert_everything_learns, assert_modes_agree, dense_unweighted
from task_world import BATCHES, ITEMS_OF, USERS_OF, WEIGHT, assert_term, info_nce, terms_of, with_task

from braidrec.config.load import ConfigError
from braidrec.config.model import FusionConfig, LightGCNConfig, MatrixFactorisationConfig, NGCFConfig
from braidrec.config.self_supervision import (
    BootstrapConfig,
    ContrastConfig,
    EdgeDropoutConfig,
    EdgeMaskConfig,
    GaussianNoiseConfig,
    InfoNCEConfig,
    JensenShannonConfig,
    LayerNoiseConfig,
    MLPViewConfig,
    MomentsConfig,
    NodeDropoutConfig,
    PlainViewConfig,
)
from braidrec.graph.relation import INTERACTIONS, Relation
from braidrec.graph.views import drop_edges
from braidrec.training.relations import view_name


def drawn_view(layer: int, place: int = 1) -> Relation:
    relation = drop_edges(RELATIONS[INTERACTIONS], 0.4, seed=5 + layer + 10 * place)
    relation.name = view_name("extra", place, layer)
    return relation


VIEWS = [drawn_view(layer, place) for place in (1, 2) for layer in (0, 1)]
WITH_VIEWS = {**RELATIONS, **{view.name: view for view in VIEWS}}
ACROSS = InfoNCEConfig(across_workers=True)
PLAIN, MLP, DROPOUT = PlainViewConfig(), MLPViewConfig(hidden=4), EdgeDropoutConfig(per_layer=True)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("target", ["users", "items", "both"])
@pytest.mark.parametrize("mode", ["full", "sampled"])
@pytest.mark.parametrize("per_layer", [False, True])
def test_infonce_between_a_perturbed_graph_and_the_whole(mode: str, target: str, batch: str, per_layer: bool) -> None:
    view = EdgeDropoutConfig(per_layer=per_layer)
    model = with_task(ContrastConfig(first=view, second=PLAIN, target=target, weight=WEIGHT))
    tables, terms = terms_of(model, BATCHES[batch], mode, WITH_VIEWS)
    config = FusionConfig()
    graphs = [dense_unweighted(VIEWS[layer if per_layer else 0]) for layer in (0, 1)]
    first, second = vectors_of(model, config, tables, graphs=graphs), vectors_of(model, config, tables)
    rows = {"users": USERS_OF[batch], "items": [NUM_USERS + item for item in ITEMS_OF[batch]]}
    sides = {"extra/users": "users", "extra/items": "items"} if target == "both" else {"extra": target}
    assert set(terms) == set(sides) == set(model.term_names)
    for name, side in sides.items():
        assert_term(terms[name], info_nce(first, second, rows[side]))


def test_a_view_of_rows_perturbs_the_final_vectors() -> None:
    model = with_task(ContrastConfig(first=PLAIN, second=MLP, target="items", weight=WEIGHT))
    tables, terms = terms_of(model, BATCHES["six rows"])
    vectors = vectors_of(model, FusionConfig(), tables)
    other = model.tasks["of_extra"].second.output(torch.from_numpy(vectors)).detach().numpy()
    assert_term(terms["extra"], info_nce(vectors, other, [NUM_USERS + item for item in ITEMS_OF["six rows"]]))


LEARNING = {
    "edge dropout": ContrastConfig(first=DROPOUT, second=DROPOUT, weight=WEIGHT),
    "mlp, jensen-shannon": ContrastConfig(
        first=MLP, second=PLAIN, loss=JensenShannonConfig(bilinear=True, across_workers=True)
    ),
    "bootstrap": ContrastConfig(first=EdgeDropoutConfig(), second=PLAIN, loss=BootstrapConfig()),
    "moments": ContrastConfig(first=EdgeDropoutConfig(), second=MLP, loss=MomentsConfig()),
    "across workers": ContrastConfig(first=EdgeDropoutConfig(), second=MLP, loss=ACROSS),
}
RANDOM = {
    "layer noise": ContrastConfig(first=LayerNoiseConfig(), second=LayerNoiseConfig()),
    "edge mask": ContrastConfig(first=EdgeMaskConfig(hidden=4), second=PLAIN),
    "gaussian noise": ContrastConfig(first=GaussianNoiseConfig(), second=PLAIN),
}


@pytest.mark.parametrize("timing", ["early", "late"])
@pytest.mark.parametrize("name", LEARNING)
def test_everything_learns_alike_on_a_sample(name: str, timing: str) -> None:
    model = with_task(LEARNING[name], FusionConfig(timing=timing))
    assert_everything_learns(model, WITH_VIEWS, FEATURES)
    assert_modes_agree(model, WITH_VIEWS, FEATURES)


@pytest.mark.parametrize("name", RANDOM)
@pytest.mark.parametrize("encoder", [LightGCNConfig(layers=2, readout="concat"), NGCFConfig(layers=2, dropout=0.0)])
@pytest.mark.parametrize(
    "fusion",
    [
        FusionConfig(),
        FusionConfig(combine="concat"),
        FusionConfig(timing="late", combine="mean"),
        FusionConfig(timing="late", of="scores"),
    ],
    ids=["sum", "concat", "late", "scores"],
)
def test_random_views_fit_every_width_and_learn(name: str, encoder: object, fusion: FusionConfig) -> None:
    """Concatenated levels and strands make vectors wider: the views have that width."""
    assert_everything_learns(with_task(RANDOM[name], fusion, encoder=encoder), RELATIONS, FEATURES)


def test_aggregated_users_take_the_view_too() -> None:
    fusion = FusionConfig(timing="late", user_side="aggregated")
    model = with_task(LEARNING["across workers"], fusion)
    assert model.branches()["extra.1"].training == (view_name("extra", 1),) * 3
    assert_modes_agree(model, WITH_VIEWS, FEATURES)


@pytest.mark.parametrize("name", ["items", "keys", "type", "train"])
def test_a_task_may_have_any_name(name: str) -> None:
    model = build(FusionConfig(), self_supervision={name: LEARNING["bootstrap"]}, encoder=LightGCNConfig(layers=1))
    assert model.term_names == (f"{name}/users", f"{name}/items")


@pytest.mark.parametrize(
    ("task", "encoder", "message"),
    [
        (ContrastConfig(first=PLAIN, second=PLAIN), LightGCNConfig(), "both views are plain"),
        *[
            (ContrastConfig(first=view, second=PLAIN), MatrixFactorisationConfig(), "has none")
            for view in (EdgeDropoutConfig(), NodeDropoutConfig(), EdgeMaskConfig(), LayerNoiseConfig())
        ],
    ],
)
def test_views_that_perturb_nothing_are_refused(task: ContrastConfig, encoder: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        with_task(task, encoder=encoder)


@pytest.mark.parametrize("name", ["loss", "regulariser", "a b", "a/b", ""])
def test_names_that_would_be_confused_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="name a task"):
        build(FusionConfig(), self_supervision={name: LEARNING["bootstrap"]}, encoder=LightGCNConfig(layers=1))


def test_padding_alone_gives_zero_with_finite_gradients() -> None:
    model = with_task(LEARNING["across workers"])
    tables, terms = terms_of(model, BATCHES["padding only"], relations=WITH_VIEWS)
    sum(term.total for term in terms.values()).backward()
    gradients = [rows.grad for rows in tables.values()] + [each.grad for each in model.parameters()]
    assert all(np.isfinite(gradient.numpy()).all() for gradient in gradients if gradient is not None)
