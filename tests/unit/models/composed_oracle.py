"""The composed recommender once more, over dense numpy matrices of twelve nodes. Parameters are read out of it."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from dense_oracles import ITEMS, NUM_ITEMS, NUM_NODES, NUM_USERS, USERS, propagation_matrix
from fusion_oracles import Rows, fuse
from item_graph_world import DIM, DIMS, edges_of, fill, make_features, make_relations

from braidrec.config.model import FusionConfig, ModalitiesConfig, ModelConfig
from braidrec.graph.co_interaction import co_interaction_relation
from braidrec.graph.relation import INTERACTIONS, Relation
from braidrec.models.composed import ComposedRecommender
from braidrec.models.contract import Recommender
from braidrec.models.fusion.fusion import Fusion
from braidrec.training.model_factory import build_model
from braidrec.training.surrounding import Surrounding

FEATURES = make_features()
RELATIONS = make_relations(FEATURES)
RELATIONS["co_interaction"] = co_interaction_relation(RELATIONS[INTERACTIONS], NUM_USERS, 2, weight="softmax")
COLD = np.array([False] * 6 + [True])


def build(fusion: FusionConfig, dims: Mapping[str, int] = DIMS, **settings: object) -> ComposedRecommender:
    """The configured model in fp64, every parameter random. Settings are those of `ModelConfig`."""
    settings.setdefault("modalities", ModalitiesConfig(use=("*",)))
    model: Recommender = build_model(
        ModelConfig(dim=DIM, fusion=fusion, **settings), Surrounding(dims=dims, interactions=RELATIONS[INTERACTIONS])
    )
    assert isinstance(model, ComposedRecommender)
    fill(model.double())
    return model


def dense_relation(relation: Relation) -> np.ndarray:
    """The weights of a relation whose weights are final, `[destination, source]`."""
    assert relation.weights_are_final
    matrix = np.zeros((NUM_NODES, NUM_NODES))
    for (source, destination), weight in zip(edges_of(relation), relation.weight.tolist(), strict=True):
        matrix[destination, source] = weight
    return matrix


def settings_of(config: FusionConfig) -> dict[str, object]:
    return {
        "combine": config.combine,
        "weighting": config.weighting,
        "weights": config.weights,
        "gate_by": config.gate_by,
    }


def map_rows(fusion: Fusion, rows: np.ndarray) -> np.ndarray:
    """Linear, leaky ReLU, linear, …"""
    if fusion.map is None:
        return rows
    linear = [each for each in fusion.map.layers if isinstance(each, torch.nn.Linear)]
    for place, each in enumerate(linear):
        rows = rows @ each.weight.detach().numpy().T + each.bias.detach().numpy()
        rows = rows if place == len(linear) - 1 else np.where(rows > 0, rows, 0.01 * rows)
    return rows


def fused_rows(fusion: Fusion, strands: Rows, present: Rows, config: FusionConfig) -> np.ndarray:
    rows, _ = fuse(fusion, strands, present, **settings_of(config))
    nothing = ~np.any([present[name] for name in strands], axis=0)
    rows = map_rows(fusion, rows)
    rows[nothing] = 0.0
    return rows


def item_strands(
    model: ComposedRecommender, tables: Mapping[str, torch.Tensor], *, training: bool
) -> tuple[Rows, Rows]:
    """Rows and presence by strand, an item at a time."""
    strands, rows, present = model.strands, {}, {}
    if strands.use_id:
        rows["id"] = tables["item"].detach().numpy()
        dropped = not training and strands.cold_id == "drop" and bool(strands.modalities)
        present["id"] = ~COLD if dropped else np.ones(NUM_ITEMS, dtype=bool)
    for name in strands.modalities:
        linear, policy = strands.projectors[f"of_{name}"].layers[0], strands.missing[f"of_{name}"]
        values, has = (part.numpy() for part in FEATURES[name])
        rows[name] = values @ linear.weight.detach().numpy().T + linear.bias.detach().numpy()
        kind = type(policy).__name__
        stand_in = {"MissingToken": getattr(policy, "token", None), "AsStored": None}.get(kind, torch.zeros(DIM))
        for item in np.flatnonzero(~has):
            if stand_in is not None:
                rows[name][item] = stand_in.detach().numpy()
        present[name] = has if kind == "MissingMask" else np.ones(NUM_ITEMS, dtype=bool)
    return rows, present


def readout_of(model: ComposedRecommender, h: np.ndarray, graphs: Sequence[np.ndarray] | None = None) -> np.ndarray:
    """LightGCN's, over the interactions or over one graph a layer."""
    encoder = next(iter(model.encoders.values()))
    levels = [h]
    for graph in graphs or [propagation_matrix()] * encoder.layers:
        levels.append(graph @ levels[-1])
    readout = getattr(encoder, "readout", "last")
    if readout == "concat":
        return np.concatenate(levels, axis=1)
    total = np.sum(levels, axis=0)
    return {"last": levels[-1], "sum": total, "mean": total / len(levels)}[readout]


def score_rows(model: ComposedRecommender, by_strand: Rows, present: Rows, config: FusionConfig) -> np.ndarray:
    """`Σ_m c_m(i) ⟨u_m, i_m⟩` as vectors: the items' strands are scaled, the users' are not."""
    names = sorted(by_strand)
    rows = np.concatenate([by_strand[name] for name in names], axis=1)
    width = next(iter(by_strand.values())).shape[1]
    for item in range(NUM_ITEMS):
        mine = [name for name in names if present[name][item]]
        scale = dict.fromkeys(mine, 1.0)
        if config.weighting == "attention":
            attention = model.score_fusion.attention
            inner, bias, query = (
                parameter.detach().numpy()
                for parameter in (attention.inner.weight, attention.inner.bias, attention.query.weight)
            )
            logits = [query[0] @ np.tanh(inner @ by_strand[name][NUM_USERS + item] + bias) for name in mine]
            scale = dict(zip(mine, np.exp(logits) / np.exp(logits).sum(), strict=True))
        for place, name in enumerate(names):
            factor = scale.get(name, 0.0)
            if config.combine == "mean":
                factor /= len(mine)
            if config.combine == "weighted":
                factor *= config.weights[name]
            rows[NUM_USERS + item, place * width : (place + 1) * width] *= factor
    return rows


def vectors_of(
    model: ComposedRecommender,
    config: FusionConfig,
    tables: Mapping[str, torch.Tensor],
    *,
    training: bool = True,
    graphs: Sequence[np.ndarray] | None = None,
    content: np.ndarray | None = None,
) -> np.ndarray:
    """`[nodes, D]` final vectors, over the interactions or over one graph a layer (early fusion only).

    `content` is the item graph; None: the frozen one.
    """
    strands, present = item_strands(model, tables, training=training)
    users = tables["user"].detach().numpy() if "user" in tables else np.zeros((NUM_USERS, 0))
    if model.early:
        fused = fused_rows(model.fusion, strands, present, config)
        vectors = readout_of(model, np.concatenate([users, fused]), graphs)
    else:
        vectors = late(model, config, strands, present, users)
    if model.item_graph:
        rows = tables["item"].detach().numpy() if model.item_graph_on_id else fused
        graph = dense_relation(RELATIONS["content"]) if content is None else content
        graph = np.linalg.matrix_power(graph, model.item_graph)
        vectors = vectors + graph @ np.concatenate([np.zeros((NUM_USERS, rows.shape[1])), rows])
    if model.user_graph:
        graph = np.linalg.matrix_power(dense_relation(RELATIONS["co_interaction"]), model.user_graph)
        vectors = vectors + graph @ np.concatenate([users, np.zeros((NUM_ITEMS, users.shape[1]))])
    return vectors


def late(
    model: ComposedRecommender, config: FusionConfig, strands: Rows, present: Rows, users: np.ndarray
) -> np.ndarray:
    aggregated = model.strands.modalities if config.user_side == "aggregated" else ()
    embedded = [name for name in strands if name not in aggregated]
    by_strand = {}
    for name, rows in strands.items():
        if name in aggregated:
            of_users = np.zeros((NUM_USERS, DIM))
            for user in range(NUM_USERS):
                if (user == USERS).any():
                    of_users[user] = rows[ITEMS[user == USERS]].mean(0)
        else:
            place = embedded.index(name) * DIM
            of_users = users[:, place : place + DIM]
        by_strand[name] = readout_of(model, np.concatenate([of_users, rows]))
    if config.of == "scores":
        return score_rows(model, by_strand, present, config)
    everything = {name: np.ones(NUM_USERS, dtype=bool) for name in strands}
    of_users = {name: rows[:NUM_USERS] for name, rows in by_strand.items()}
    of_items = {name: rows[NUM_USERS:] for name, rows in by_strand.items()}
    return np.concatenate(
        [
            fused_rows(model.user_fusion, of_users, everything, config),
            fused_rows(model.fusion, of_items, present, config),
        ]
    )
