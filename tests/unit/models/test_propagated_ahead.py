"""Strands that are propagated once equal those that are propagated in every step: values, gradients, presence."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from composed_oracle import FEATURES, RELATIONS, build
from dense_oracles import NUM_NODES, NUM_USERS
from item_graph_world import (
    TOLERANCE,
    gradients_of,
    inputs_of,
    make_batch,
    make_step,
    make_tables,
    run_step,
    source_over,
)

from braidrec.config.model import (
    FusionConfig,
    LightGCNConfig,
    MatrixFactorisationConfig,
    ModalitiesConfig,
    NGCFConfig,
    ProjectorConfig,
)
from braidrec.config.self_supervision import AlignConfig, ContrastConfig, LayerNoiseConfig
from braidrec.graph.relation import INTERACTIONS
from braidrec.models.composed import ComposedRecommender

AGGREGATED = {"timing": "late", "user_side": "aggregated"}
BOTH = ("image", "text")
EVERYTHING = 1 << 30
ENCODERS = {
    "lightgcn": LightGCNConfig(layers=2),
    "concat": LightGCNConfig(layers=2, readout="concat"),
    "without ego": LightGCNConfig(layers=2, ego=False),
    "mf": MatrixFactorisationConfig(),
}
FUSIONS = {
    "sum": {},
    "attention": {"weighting": "attention"},
    "without id": {"use_id": False, "combine": "mean"},
    "scores": {"of": "scores", "combine": "mean"},
}


def make(fusion: Mapping[str, object], **settings: object) -> ComposedRecommender:
    settings = {"encoder": ENCODERS["lightgcn"], **settings}
    return build(FusionConfig(**{**AGGREGATED, **fusion}), **settings)


def go_ahead(model: ComposedRecommender, max_bytes: int = EVERYTHING) -> tuple[str, ...]:
    with torch.no_grad():
        model.eval()
        inputs = inputs_of(model, source_over(RELATIONS), {}, FEATURES, None, training=False)
        names = model.propagate_ahead(inputs, max_bytes)
    model.train()
    return names


def assert_same(long: ComposedRecommender, short: ComposedRecommender) -> None:
    step = make_step(make_batch())
    for mode in ("full", "sampled"):
        found = []
        for model in (long, short):
            tables = make_tables(model)
            encoded, terms = run_step(model, source_over(RELATIONS, mode), tables, FEATURES, step)
            found.append((encoded, gradients_of(model, tables, encoded, terms)))
        np.testing.assert_allclose(found[1][0].vectors.detach(), found[0][0].vectors.detach(), **TOLERANCE)
        np.testing.assert_allclose(found[1][0].ego.detach(), found[0][0].ego.detach(), **TOLERANCE)
        assert found[0][1].keys() == found[1][1].keys()
        for name, gradient in found[0][1].items():
            np.testing.assert_allclose(found[1][1][name], gradient, err_msg=name, rtol=1e-5, atol=1e-5)
    whole = [
        model.eval().encode(
            inputs_of(model, source_over(RELATIONS), make_tables(model), FEATURES, None, training=False)
        )
        for model in (long, short)
    ]
    np.testing.assert_allclose(whole[1].vectors.detach(), whole[0].vectors.detach(), **TOLERANCE)
    assert whole[0].outputs.keys() == whole[1].outputs.keys()
    for name, values in whole[0].outputs.items():
        np.testing.assert_allclose(whole[1].outputs[name].detach(), values.detach(), **TOLERANCE)


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("fusion", FUSIONS)
def test_values_and_gradients_are_those_of_the_long_way(fusion: str, encoder: str) -> None:
    long, short = (make(FUSIONS[fusion], encoder=ENCODERS[encoder]) for _ in range(2))
    assert go_ahead(short) == BOTH
    assert_same(long, short)


@pytest.mark.parametrize("missing", ["token", "zeros", "mask", "mean"])
@pytest.mark.parametrize("bias", [True, False])
def test_a_bias_and_what_stands_for_absent_rows_are_propagated_too(missing: str, bias: bool) -> None:
    """One item lacks the text, one both; the graph spreads biases and stand-ins unevenly."""
    modalities = ModalitiesConfig(use=("*",), missing=missing, projector=ProjectorConfig(bias=bias))
    long, short = (make({"combine": "mean"}, modalities=modalities) for _ in range(2))
    assert go_ahead(short) == BOTH
    assert_same(long, short)


def test_a_strand_that_does_not_fit_is_propagated_in_every_step() -> None:
    """The image's basis is wider than the text's, and comes first."""
    bytes_of = {name: NUM_NODES * 2 * (FEATURES[name][0].shape[1] + 2) * 8 for name in BOTH}
    for space, wanted in ((bytes_of["image"], ("image",)), (bytes_of["text"], ("text",)), (0, ())):
        long, short = make({}), make({})
        assert go_ahead(short, space) == wanted
        assert_same(long, short)


def test_the_graph_is_left_out_where_every_strand_is_ahead() -> None:
    model = make(FUSIONS["without id"])
    assert model.branches()["main"].chain == (INTERACTIONS,) * 3
    go_ahead(model)
    assert model.branches()["main"].relations(training=True) == ()
    seeds = torch.tensor([0, 3, NUM_USERS, 11])
    inputs = inputs_of(model, source_over(RELATIONS, "sampled"), {}, FEATURES, seeds)
    assert torch.equal(inputs.neighbourhoods["main"].input_nodes, seeds)
    # An ID remains: its users are embedded, so the hop that aggregates them is left out as well.
    with_id = make({})
    go_ahead(with_id)
    assert with_id.branches()["main"].chain == (INTERACTIONS,) * 2


ALIGN = {"task": AlignConfig(first="image", second="text")}
NOISE = {"task": ContrastConfig(first=LayerNoiseConfig(), second=LayerNoiseConfig())}


@pytest.mark.parametrize(
    ("fusion", "settings"),
    [
        ({"user_side": "learned"}, {}),
        ({"timing": "early", "user_side": "learned"}, {}),
        ({}, {"encoder": NGCFConfig(layers=1)}),
        ({}, {"self_supervision": NOISE}),
        ({}, {"modalities": ModalitiesConfig(use=("*",), dropout=0.2)}),
        ({}, {"modalities": ModalitiesConfig(use=("*",), projector=ProjectorConfig(depth=2))}),
        ({}, {"modalities": ModalitiesConfig(use=("*",), projector=ProjectorConfig(dropout=0.1))}),
        ({}, {"modalities": ModalitiesConfig(use=("*",), projector=ProjectorConfig(layer_norm=True))}),
    ],
)
def test_not_where_it_is_not_exact(fusion: dict, settings: dict) -> None:
    model = make(fusion, **settings)
    before = model.branches()
    assert go_ahead(model) == ()
    assert model.branches() == before


def test_a_task_that_leaves_the_propagation_alone_does_not_rule_it_out() -> None:
    long, short = (make({}, self_supervision=ALIGN) for _ in range(2))
    assert go_ahead(short) == BOTH
    assert_same(long, short)
