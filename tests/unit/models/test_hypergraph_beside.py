"""A learned hypergraph beside any composed model: against dense matrices, in full and in sampled mode."""

import numpy as np
import pytest
import torch
from composed_oracle import FEATURES, RELATIONS, build
from dense_oracles import ITEMS, NUM_ITEMS, NUM_NODES, NUM_USERS, USERS
from item_graph_world import (
    assert_everything_learns,
    assert_modes_agree,
    assert_seeds_are_rows_of_all,
    inputs_of,
    make_tables,
    source_over,
)

from braidrec.config.load import ConfigError
from braidrec.config.model import (
    FusionConfig,
    HypergraphConfig,
    ItemGraphConfig,
    LightGCNConfig,
    NGCFConfig,
    UserGraphConfig,
)
from braidrec.models.composed import ComposedRecommender
from braidrec.models.hypergraph import LearnedHypergraph

PLAIN = HypergraphConfig(hyperedges=3, noise="none", temperature=0.7, weight=0.4)
POINTS = {
    "early": ({}, {}),
    "late": ({"timing": "late"}, {}),
    "without id": ({"use_id": False}, {}),
    "aggregated": ({"timing": "late", "user_side": "aggregated"}, {}),
    "beside both graphs": ({}, {"item_graph": ItemGraphConfig(), "user_graph": UserGraphConfig()}),
    "ngcf": ({}, {"encoder": NGCFConfig(layers=1, readout="last", dropout=0.0)}),
}


def make(point: str, hypergraph: HypergraphConfig | None = PLAIN) -> ComposedRecommender:
    fusion, settings = POINTS[point]
    return build(FusionConfig(**fusion), **{"encoder": LightGCNConfig(layers=2), **settings, "hypergraph": hypergraph})


def softmax(rows: np.ndarray) -> np.ndarray:
    powers = np.exp(rows - rows.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def expected(model: ComposedRecommender, ids: np.ndarray, layers: int) -> np.ndarray:
    """Node by node of the bipartite graph, with every matrix written out."""
    adjacency = np.zeros((NUM_USERS, NUM_ITEMS))
    adjacency[USERS, ITEMS] = 1.0
    total = np.zeros((NUM_NODES, ids.shape[1]))
    for name, (values, _) in FEATURES.items():
        of_items = values.numpy() @ model.hypergraph.incidences[f"of_{name}"].hyperedges.detach().numpy().T
        items, users = softmax(of_items / 0.7), softmax(adjacency @ of_items / 0.7)
        rows = ids
        for _ in range(layers - 1):
            rows = items @ items.T @ rows
        total += np.concatenate([users @ items.T @ rows, items @ items.T @ rows])
    return 0.4 * total / np.linalg.norm(total, axis=1, keepdims=True)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("point", POINTS)
def test_what_it_adds(point: str, layers: int) -> None:
    model, without = make(point, PLAIN.model_copy(update={"layers": layers})), make(point, None)
    without.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("hypergraph")})
    tables = make_tables(model)
    found, plain = (
        each.encode(inputs_of(each, source_over(RELATIONS), tables, FEATURES, None)).vectors.detach()
        for each in (model, without)
    )
    wanted = expected(model, tables["item"].detach().numpy(), layers)
    np.testing.assert_allclose((found - plain).numpy(), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("point", POINTS)
def test_everything_learns_and_modes_agree(point: str) -> None:
    model = make(point)
    assert_everything_learns(model, RELATIONS, FEATURES)
    assert_modes_agree(model, RELATIONS, FEATURES)
    assert_seeds_are_rows_of_all(model, RELATIONS, FEATURES)


def test_its_hop_is_never_sampled() -> None:
    branch = make("early").branches()["hypergraph"]
    assert branch.every_neighbour and not make("early").branches()["main"].every_neighbour


def test_noise_and_dropout_are_for_training() -> None:
    model = make("early", HypergraphConfig(noise="gumbel", dropout=0.5))
    tables = make_tables(model)

    def vectors(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return model.encode(inputs_of(model, source_over(RELATIONS), tables, FEATURES, None)).vectors

    assert torch.equal(vectors(1), vectors(1)) and not torch.allclose(vectors(1), vectors(2))
    model.eval()
    assert torch.equal(vectors(1), vectors(2))


def test_refused_where_it_does_not_fit() -> None:
    with pytest.raises(ConfigError, match="hypergraph adds"):
        build(FusionConfig(combine="concat"), hypergraph=PLAIN)
    with pytest.raises(ValueError, match="modality"):
        LearnedHypergraph({})
    with pytest.raises(ValueError, match="layers=0"):
        LearnedHypergraph({"image": 2}, layers=0)
