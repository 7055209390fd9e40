"""MMGCN against loops over nodes and their neighbours."""

import numpy as np
import pytest
import torch
from dense_oracles import ITEMS, USERS
from item_graph_world import (
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

from braidrec.models.systems.mmgcn import MMGCN

FEATURES = make_features()
RELATIONS = make_relations(FEATURES)
NAMES = sorted(DIMS)
CONTENT_DIM = 3
"""The image has four numbers and is mapped, the text has three and is not."""
NEIGHBOURS = {
    node: [int(NUM_USERS + item) for user, item in zip(USERS, ITEMS, strict=True) if user == node]
    + [int(user) for user, item in zip(USERS, ITEMS, strict=True) if NUM_USERS + item == node]
    for node in range(NUM_NODES)
}


def make_model(**options) -> MMGCN:
    model = MMGCN(dim=DIM, initial_std=0.1, **{"dims": DIMS, "content_dim": CONTENT_DIM, **options}).double()
    fill(model)
    return model


def leaky(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, 0.01 * x)


def start_rows(model: MMGCN, own: dict[str, np.ndarray], tables: dict[str, np.ndarray], name: str) -> list[np.ndarray]:
    """A node's row before the first layer, of length 1."""
    place = NAMES.index(name)
    before = sum(model.content.widths[other] for other in NAMES[:place])
    rows = [row[before : before + model.content.widths[name]] for row in tables["preference"]]
    for item in range(NUM_ITEMS):
        f = FEATURES[name][0][item].numpy()
        if not PRESENT[name][item]:
            rows.append(own[f"content.missing.{place}.token"])
        elif DIMS[name] > CONTENT_DIM:
            prefix = f"content.projectors.{place}.layers.0"
            rows.append(own[f"{prefix}.weight"] @ f + own[f"{prefix}.bias"])
        else:
            rows.append(f)
    return [row / np.linalg.norm(row) for row in rows]


def by_hand(model: MMGCN, tables: dict[str, torch.Tensor], *, with_ids: bool = True) -> np.ndarray:
    own = {name: value.detach().numpy() for name, value in model.named_parameters()}
    rows_of = {name: value.detach().numpy() for name, value in tables.items()}
    total = np.zeros((NUM_NODES, DIM))
    for place, name in enumerate(NAMES):
        x = start_rows(model, own, rows_of, name)
        for layer in range(model.layers):
            prefix = f"convolutions.{place}.{layer}"
            x_next = []
            for node in range(NUM_NODES):
                around = [own[f"{prefix}.message.layers.0.weight"] @ x[other] for other in NEIGHBOURS[node]]
                h = leaky(sum(around) / len(around)) if around else np.zeros(len(x[node]))
                kept = leaky(own[f"{prefix}.own.layers.0.weight"] @ x[node] + own[f"{prefix}.own.layers.0.bias"])
                kept = kept + rows_of["id"][node] * with_ids
                weight, bias = own[f"{prefix}.received.layers.0.weight"], own[f"{prefix}.received.layers.0.bias"]
                if model.convolutions[place][layer].concatenates:
                    x_next.append(leaky(weight @ np.concatenate([h, kept]) + bias))
                else:
                    x_next.append(leaky(weight @ h + bias + kept))
            x = x_next
        total += np.stack(x)
    return total / len(NAMES)


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("combination", ["elementwise", "concatenation"])
def test_vectors(layers: int, combination: str) -> None:
    model = make_model(layers=layers, combination=combination)
    tables = make_tables(model)
    encoded = model.encode(inputs_of(model, source_over(RELATIONS), tables, FEATURES, None))
    np.testing.assert_allclose(encoded.vectors.detach(), by_hand(model, tables), **TOLERANCE)
    assert np.abs(by_hand(model, tables) - by_hand(model, tables, with_ids=False)).max() > 0.1


def test_one_modality_is_its_own_mean() -> None:
    """The mean of the modalities' vectors, each computed by a model of that modality alone."""
    model = make_model()
    tables = make_tables(model)
    both = model.encode(inputs_of(model, source_over(RELATIONS), tables, FEATURES, None)).vectors
    alone = []
    for place, name in enumerate(NAMES):
        single = make_model(dims={name: DIMS[name]})
        single.content.projectors[0] = model.content.projectors[place]
        single.content.missing[0] = model.content.missing[place]
        single.convolutions[0] = model.convolutions[place]
        before = sum(model.content.widths[other] for other in NAMES[:place])
        part = tables["preference"][:, before : before + model.content.widths[name]]
        rows = {"id": tables["id"], "preference": part}
        alone.append(single.encode(inputs_of(single, source_over(RELATIONS), rows, FEATURES, None)).vectors)
    assert torch.allclose(both, (alone[0] + alone[1]) / 2)


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


@pytest.mark.parametrize("combination", ["elementwise", "concatenation"])
def test_full_and_sampled_agree(combination: str) -> None:
    assert_modes_agree(make_model(combination=combination), RELATIONS, FEATURES)


@pytest.mark.parametrize("combination", ["elementwise", "concatenation"])
def test_everything_learns(combination: str) -> None:
    """The preferences and the ID embeddings too, which the published programs leave as they start."""
    assert_everything_learns(make_model(combination=combination), RELATIONS, FEATURES)


def test_seeds_are_rows_of_all() -> None:
    assert_seeds_are_rows_of_all(make_model(), RELATIONS, FEATURES)


def test_half_precision_is_for_training_only() -> None:
    model = make_model(dtype=torch.bfloat16)
    tables = {name: rows.detach() for name, rows in make_tables(model).items()}
    exact = by_hand(model, tables)
    for training in (True, False):
        encoded = model.train(training).encode(inputs_of(model, source_over(RELATIONS), tables, FEATURES, None))
        assert encoded.vectors.dtype == torch.float64
        error = np.abs(encoded.vectors.detach().numpy() - exact).max()
        assert (1e-4 < error < 0.1) if training else error < 1e-5


def test_the_order_of_modalities_means_nothing() -> None:
    model, other = make_model(), make_model(dims=dict(reversed(DIMS.items())))
    tables = make_tables(model)
    found = [each.encode(inputs_of(each, source_over(RELATIONS), tables, FEATURES, None)) for each in (model, other)]
    assert torch.equal(found[0].vectors, found[1].vectors)


@pytest.mark.parametrize(
    ("options", "message"), [({"layers": 0}, "layers=0 must be at least 1"), ({"dims": {}}, "dims is empty")]
)
def test_what_it_refuses(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_model(**options)
