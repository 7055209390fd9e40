"""A composed model whose item graph is learned, against the dense matrix of that graph."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from composed_oracle import FEATURES, build, vectors_of
from item_graph_world import (
    NUM_USERS,
    TOLERANCE,
    K,
    assert_everything_learns,
    assert_modes_agree,
    inputs_of,
    make_relations,
    make_tables,
    source_over,
)
from learned_graph_oracle import dense_graph
from model_inputs import fetch_from

from braidrec.config.model import FusionConfig, ItemGraphConfig, LearnedGraphConfig, LightGCNConfig
from braidrec.graph.relation import Relation
from braidrec.models.composed import ComposedRecommender
from braidrec.models.contract import LearnsRelations

RELATIONS = make_relations(FEATURES, weight="similarity")
CASES = {
    "of the ids": ({}, {}),
    "two hops, late": ({"timing": "late"}, {"layers": 2}),
    "of the fused rows": ({"weighting": "attention"}, {"of": "fused"}),
    "all learned": ({}, {"learned": LearnedGraphConfig(frozen_share=0.0, feature_dim=5)}),
    "all frozen": ({}, {"learned": LearnedGraphConfig(frozen_share=1.0, feature_dim=5)}),
}


def build_with_graph(fusion: Mapping[str, object], graph: Mapping[str, object]) -> ComposedRecommender:
    settings = {"neighbours": K, "learned": LearnedGraphConfig(frozen_share=0.4, feature_dim=5), **graph}
    model = build(FusionConfig(**fusion), encoder=LightGCNConfig(layers=2), item_graph=ItemGraphConfig(**settings))
    assert isinstance(model, LearnsRelations)
    return model


def with_learned(model: ComposedRecommender) -> Mapping[str, Relation]:
    fixed = {name: relation for name, relation in RELATIONS.items() if name.startswith("content/")}
    return {**RELATIONS, **model.learned_relations(fetch_from(FEATURES), fixed, num_users=NUM_USERS)}


@pytest.mark.parametrize("case", CASES)
def test_vectors_are_those_of_the_dense_graph(case: str) -> None:
    fusion, graph = CASES[case]
    model = build_with_graph(fusion, graph)
    tables, relations = make_tables(model), with_learned(model)
    learned = dense_graph(model.learned_items, FEATURES).detach().numpy()
    wanted = vectors_of(model, FusionConfig(**fusion), tables, content=learned)
    frozen = vectors_of(model, FusionConfig(**fusion), tables)
    assert np.abs(wanted - frozen).max() > 1e-3, "a frozen graph with equal weights gives other vectors"
    some = torch.tensor([0, 3, 4, 6, 8, 10, 11])
    for mode, nodes in (("full", None), ("full", some), ("sampled", some)):
        inputs = inputs_of(model, source_over(relations, mode), tables, FEATURES, nodes)
        found = model.encode(inputs).vectors.detach()
        np.testing.assert_allclose(found, wanted if nodes is None else wanted[nodes], **TOLERANCE)


@pytest.mark.parametrize("case", ["of the ids", "of the fused rows"])
def test_projections_learn_and_modes_agree(case: str) -> None:
    model = build_with_graph(*CASES[case])
    relations = with_learned(model)
    assert_everything_learns(model, relations, FEATURES)
    assert_modes_agree(model, relations, FEATURES)


def test_a_model_with_a_frozen_graph_learns_no_relation() -> None:
    assert not isinstance(build(FusionConfig(), item_graph=ItemGraphConfig()), LearnsRelations)
