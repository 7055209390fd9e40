"""GRCN against loops over nodes and their neighbours."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from dense_oracles import ITEMS, USERS
from item_graph_world import (
    CPU,
    DIM,
    DIMS,
    NUM_ITEMS,
    NUM_NODES,
    NUM_USERS,
    PRESENT,
    TOLERANCE,
    assert_everything_learns,
    assert_modes_agree,
    assert_seeds_are_rows_of_all,
    fill,
    inputs_of,
    make_features,
    make_relations,
    make_tables,
    source_over,
)

from braidrec.graph.neighbourhood import FullGraph, SampledSubgraph, hop_specs
from braidrec.models.systems.grcn import GRCN

FEATURES = make_features()
RELATIONS = make_relations(FEATURES)
NAMES = sorted(DIMS)
CONTENT_DIM = 2
EDGES = [(int(user), int(NUM_USERS + item)) for user, item in zip(USERS, ITEMS, strict=True)]
NEIGHBOURS = {
    node: [other for edge in EDGES for other in edge if node in edge and other != node] for node in range(NUM_NODES)
}


def make_model(**options) -> GRCN:
    model = GRCN(dim=DIM, initial_std=0.1, **{"dims": DIMS, "content_dim": CONTENT_DIM, **options}).double()
    fill(model)
    return model


def unit(row: np.ndarray) -> np.ndarray:
    return row / np.linalg.norm(row)


def shares(node: int, c: list[np.ndarray]) -> dict[int, float]:
    """By neighbour of the node."""
    raised = {other: np.exp(c[other] @ c[node]) for other in NEIGHBOURS[node]}
    return {other: value / sum(raised.values()) for other, value in raised.items()}


def routed(own: dict[str, np.ndarray], preference: np.ndarray, place: int, routing: int) -> list[np.ndarray]:
    """c of every node in one modality."""
    name = NAMES[place]
    items = []
    for item in range(NUM_ITEMS):
        row = own[f"content.missing.{place}.token"]
        if PRESENT[name][item]:
            prefix = f"content.projectors.{place}.layers.0"
            row = own[f"{prefix}.weight"] @ FEATURES[name][0][item].numpy() + own[f"{prefix}.bias"]
        items.append(unit(np.where(row > 0, row, 0.01 * row)))
    users = [unit(row[place * CONTENT_DIM : (place + 1) * CONTENT_DIM]) for row in preference]
    for _ in range(routing):
        moved = []
        for user in range(NUM_USERS):
            of_items = shares(user, users + items)
            moved.append(unit(users[user] + sum(s * items[node - NUM_USERS] for node, s in of_items.items())))
        users = moved
    return users + items


def edge_weight(by_modality: list[float], b: np.ndarray | None, weighting: str, pruning: str) -> float:
    if weighting == "mean":
        return sum(by_modality) / len(by_modality)
    if weighting == "max":
        return max(by_modality)
    weight = max(s * b[place] for place, s in enumerate(by_modality))
    return max(weight, 0.0) if pruning == "hard" else weight


def by_hand(
    model: GRCN,
    tables: dict[str, torch.Tensor],
    *,
    routing: int = 3,
    weighting: str = "confidence",
    pruning: str = "hard",
) -> np.ndarray:
    own = {name: value.detach().numpy() for name, value in model.named_parameters()}
    rows = {name: value.detach().numpy() for name, value in tables.items()}
    content = [routed(own, rows["preference"], place, routing) for place in range(len(NAMES))]
    e = [unit(row) for row in rows["id"]]
    total = np.stack(e)
    for _ in range(model.layers):
        following = [np.zeros(DIM) for _ in range(NUM_NODES)]
        for node in range(NUM_NODES):
            of = [shares(node, c) for c in content]
            for other in NEIGHBOURS[node]:
                b = rows["confidence"][other] if weighting == "confidence" else None
                following[node] += edge_weight([share[other] for share in of], b, weighting, pruning) * e[other]
        e = following
        total = total + np.stack(e)
    parts = [
        np.stack([c[node] + sum(s * c[other] for other, s in shares(node, c).items()) for node in range(NUM_NODES)])
        for c in content
    ]
    return np.concatenate([total, *parts], axis=1)


@pytest.mark.parametrize("kernel", ["dgl", "torch"])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize(
    "options",
    [{}, {"pruning": "soft"}, {"weighting": "max"}, {"weighting": "mean"}, {"routing": 1}],
    ids=lambda options: "-".join(map(str, options.values())) or "published",
)
def test_vectors(options: dict, layers: int, kernel: str) -> None:
    model = make_model(layers=layers, **options)
    tables = make_tables(model)
    source = FullGraph(RELATIONS, device=CPU, kernel=kernel)
    encoded = model.encode(inputs_of(model, source, tables, FEATURES, None))
    np.testing.assert_allclose(encoded.vectors.detach(), by_hand(model, tables, **options), **TOLERANCE)


def test_every_part_counts() -> None:
    """Routing, confidences and pruning each change these vectors: without one the test above would fail."""
    model = make_model()
    tables = make_tables(model)
    published = by_hand(model, tables)
    for ablated in ({"routing": 0}, {"pruning": "soft"}, {"weighting": "max"}):
        assert np.abs(published - by_hand(model, tables, **ablated)).max() > 0.05


def test_cut_edges_carry_nothing() -> None:
    """No confidence in anything that users show: items receive nothing, and users do as before."""
    model = make_model(layers=1)
    tables = make_tables(model)
    with torch.no_grad():
        tables["confidence"][:NUM_USERS] = -tables["confidence"][:NUM_USERS].abs()
    vectors = model.encode(inputs_of(model, source_over(RELATIONS), tables, FEATURES, None)).vectors[:, :DIM].detach()
    start = torch.nn.functional.normalize(tables["id"].detach(), dim=-1)
    assert torch.allclose(vectors[NUM_USERS:], start[NUM_USERS:])
    assert not torch.allclose(vectors[:NUM_USERS], start[:NUM_USERS])


def test_users_are_drawn_to_their_items() -> None:
    """A user's prototype comes closer to an item that it has alone; with more routing more so."""
    user, item = 4, 5
    assert NEIGHBOURS[user] == [NUM_USERS + item]
    cosines = []
    for routing in (1, 2, 3):
        model = make_model(routing=routing)
        tables = make_tables(model)
        own = {name: value.detach().numpy() for name, value in model.named_parameters()}
        vectors = model.encode(inputs_of(model, source_over(RELATIONS), tables, FEATURES, None)).vectors.detach()
        c_item = routed(own, tables["preference"].detach().numpy(), 0, 0)[NUM_USERS + item]
        # Its only neighbour has the whole share, so that the last step adds exactly c of the item.
        prototype = vectors[user, DIM : DIM + CONTENT_DIM].numpy() - c_item
        cosines.append(float(unit(prototype) @ c_item))
    assert cosines[0] < cosines[1] < cosines[2]


def test_few_seeds_and_what_the_regulariser_sees_of_them() -> None:
    model = make_model()
    tables = make_tables(model)
    seeds = torch.tensor([1, 4, 7])
    encoded = model.encode(inputs_of(model, source_over(RELATIONS), tables, FEATURES, seeds))
    ego = encoded.ego
    # Of so few seeds the last hop is cut out of the whole graph.
    np.testing.assert_allclose(encoded.vectors.detach(), by_hand(model, tables)[seeds], **TOLERANCE)
    assert torch.equal(ego[:, :DIM], tables["id"][seeds])
    assert torch.equal(ego[:2, DIM:], tables["preference"][seeds[:2]])
    assert not ego[2, DIM:].any()


@pytest.mark.parametrize("pruning", ["hard", "soft"])
@pytest.mark.parametrize("layers", [1, 2])
def test_full_and_sampled_agree(pruning: str, layers: int) -> None:
    assert_modes_agree(make_model(pruning=pruning, layers=layers), RELATIONS, FEATURES)


@pytest.mark.parametrize("weighting", ["confidence", "max", "mean"])
def test_everything_learns(weighting: str) -> None:
    assert_everything_learns(make_model(weighting=weighting), RELATIONS, FEATURES)


def test_half_precision_is_for_training_only() -> None:
    model = make_model(dtype=torch.bfloat16)
    tables = {name: rows.detach() for name, rows in make_tables(model).items()}
    exact = by_hand(model, tables)
    for training in (True, False):
        encoded = model.train(training).encode(inputs_of(model, source_over(RELATIONS), tables, FEATURES, None))
        assert encoded.vectors.dtype == torch.float64
        error = np.abs(encoded.vectors.detach().numpy() - exact).max()
        assert (1e-4 < error < 0.1) if training else error < 1e-5


def test_seeds_are_rows_of_all() -> None:
    assert_seeds_are_rows_of_all(make_model(), RELATIONS, FEATURES)


def test_a_row_of_zeros_has_no_direction() -> None:
    """Preferences and embeddings that are zero stay finite, and so do their gradients."""
    model = make_model()
    tables = {name: torch.zeros_like(rows).requires_grad_() for name, rows in make_tables(model).items()}
    vectors = model.encode(inputs_of(model, source_over(RELATIONS), tables, FEATURES, None)).vectors
    vectors.square().sum().backward()
    assert torch.isfinite(vectors).all()
    assert all(torch.isfinite(rows.grad).all() for rows in tables.values() if rows.grad is not None)


def test_a_few_neighbours_share_everything() -> None:
    """With one drawn neighbour a hop, its share is 1 whatever the degree: shares are not scaled like plain sums."""
    model = make_model(layers=1, weighting="max")
    tables = make_tables(model)
    source = SampledSubgraph({"interactions": RELATIONS["interactions"]}, device=CPU, kernel="dgl")
    seeds = torch.tensor([2])
    inputs = inputs_of(model, source, tables, FEATURES, seeds)
    drawn = source.neighbourhood(hop_specs(("interactions",) * 2, (1,)), seeds, step_seed=3)
    last = drawn.hops[-1]
    assert last.structure.num_edges == 1 and len(NEIGHBOURS[2]) == 4
    vectors = model.encode(replace(inputs, neighbourhoods={"graph": drawn})).vectors
    (neighbour,) = last.src_nodes[last.structure.indices.long()].tolist()
    start = torch.nn.functional.normalize(tables["id"], dim=-1)
    assert torch.allclose(vectors[0, :DIM], start[2] + start[neighbour])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": 0}, "layers=0 must be at least 1"),
        ({"routing": 0}, "routing=0 must be at least 1"),
        ({"dims": {}}, "dims is empty"),
    ],
)
def test_what_it_refuses(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_model(**options)
