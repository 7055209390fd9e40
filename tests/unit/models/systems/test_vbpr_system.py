"""VBPR, the paper's and MMRec's, against scores written out user by user and item by item."""

import numpy as np
import pytest
import torch
from item_graph_world import (
    DIM,
    DIMS,
    NUM_ITEMS,
    NUM_USERS,
    PRESENT,
    assert_everything_learns,
    assert_modes_agree,
    assert_seeds_are_rows_of_all,
    fill,
    inputs_of,
    make_features,
    make_tables,
    source_over,
)

from braidrec.models.systems.vbpr import VBPR
from braidrec.models.systems.vbpr_mm import VBPRMM

FEATURES = make_features()
CONTENT_DIM = 2
NAMES = sorted(DIMS)


def paper_model(dims: dict[str, int] = DIMS) -> VBPR:
    model = VBPR(dim=DIM, initial_std=0.1, dims=dims, content_dim=CONTENT_DIM).double()
    fill(model)
    return model


def mmrec_model(dims: dict[str, int] = DIMS) -> VBPRMM:
    model = VBPRMM(dim=DIM, initial_std=0.1, dims=dims).double()
    fill(model)
    return model


BOTH = pytest.mark.parametrize("make_model", [paper_model, mmrec_model])


def scores_of(model: VBPR | VBPRMM, tables: dict[str, torch.Tensor]) -> np.ndarray:
    """`[users, items]`."""
    vectors = model.encode(inputs_of(model, source_over({}), tables, FEATURES, None)).vectors.detach().numpy()
    return vectors[:NUM_USERS] @ vectors[NUM_USERS:].T


def arrays(parameters: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy() for name, value in parameters.items()}


def paper_score(own: dict[str, np.ndarray], user: np.ndarray, item: np.ndarray, features: dict, number: int) -> float:
    """`β_i + ⟨γ_u, γ_i⟩ + Σ_m ⟨θ_u^m, E_m f_i⟩ + ⟨β′_m, f_i⟩`, one multiplication at a time."""
    score = item[DIM] + sum(user[k] * item[k] for k in range(DIM))
    for place, name in enumerate(NAMES):
        taste = user[DIM + place * CONTENT_DIM :]
        if not PRESENT[name][number]:
            seen, bias = own[f"content.missing.{place}.token"], own[f"content_bias.missing.{place}.token"][0]
        else:
            f = features[name][number]
            matrix = own[f"content.projectors.{place}.layers.0.weight"]
            seen = [sum(matrix[k, c] * f[c] for c in range(len(f))) for k in range(CONTENT_DIM)]
            slope = own[f"content_bias.projectors.{place}.layers.0.weight"][0]
            bias = sum(slope[c] * f[c] for c in range(len(f)))
        score += bias + sum(taste[k] * seen[k] for k in range(CONTENT_DIM))
    return score


def test_scores_of_the_paper() -> None:
    model = paper_model()
    tables = make_tables(model)
    own, rows = arrays(dict(model.named_parameters())), arrays(tables)
    features = {name: FEATURES[name][0].numpy() for name in NAMES}
    wanted = [
        [paper_score(own, rows["user"][user], rows["item"][item], features, item) for item in range(NUM_ITEMS)]
        for user in range(NUM_USERS)
    ]
    np.testing.assert_allclose(scores_of(model, tables), wanted, rtol=1e-10)


def test_scores_of_mmrec() -> None:
    """By the concatenated features and one matrix, where an item has both modalities."""
    model = mmrec_model()
    tables = make_tables(model)
    own, rows = arrays(dict(model.named_parameters())), arrays(tables)
    matrix = np.concatenate([own[f"content.projectors.{place}.layers.0.weight"] for place in range(2)], axis=1)
    scores = scores_of(model, tables)
    for item in range(NUM_ITEMS):
        if all(PRESENT[name][item] for name in NAMES):
            f = np.concatenate([FEATURES[name][0][item].numpy() for name in NAMES])
            mapped = matrix @ f + own["bias"]
        else:
            parts = [
                own[f"content.projectors.{place}.layers.0.weight"] @ FEATURES[name][0][item].numpy()
                if PRESENT[name][item]
                else own[f"content.missing.{place}.token"]
                for place, name in enumerate(NAMES)
            ]
            mapped = parts[0] + parts[1] + own["bias"]
        wanted = rows["user"] @ np.concatenate([rows["item"][item], mapped])
        np.testing.assert_allclose(scores[:, item], wanted, rtol=1e-10)


def test_the_biases_count() -> None:
    """An item's own bias and that of its features raise its score by as much for every user."""
    model = paper_model()
    tables = make_tables(model)
    before = scores_of(model, tables)
    with torch.no_grad():
        tables["item"][3, -1] += 2.0
        for name, parameter in model.content_bias.named_parameters():
            if "projectors" in name:
                parameter += 1.0
    risen = scores_of(model, tables) - before
    total = [sum(float(FEATURES[name][0][item].sum()) for name in NAMES) for item in range(NUM_ITEMS)]
    total[3] += 2.0
    np.testing.assert_allclose(risen, np.tile(total, (NUM_USERS, 1)), atol=1e-10)
    assert np.abs(total).max() > 0.5


def test_untrained_scores_have_no_biases() -> None:
    model = VBPR(dim=DIM, initial_std=0.1, dims=DIMS, content_dim=CONTENT_DIM)
    assert all(not parameter.any() for parameter in model.content_bias.parameters())
    rows = model.tables()["item"].initialise(NUM_ITEMS, torch.Generator().manual_seed(0))
    assert not rows[:, -1].any() and rows[:, :-1].all()


def test_the_regulariser_sees_what_each_paper_shrinks() -> None:
    """Users' and items' own rows in VBPR, mapped features too in MMRec."""
    model = paper_model()
    tables = make_tables(model)
    ego = model.encode(inputs_of(model, source_over({}), tables, FEATURES, None)).ego
    own = [tables["user"].square().sum(-1), tables["item"].square().sum(-1)]
    assert torch.allclose(ego.square().sum(-1), torch.cat(own))
    other = mmrec_model()
    encoded = other.encode(inputs_of(other, source_over({}), make_tables(other), FEATURES, None))
    assert torch.equal(encoded.ego, encoded.vectors)
    assert encoded.vectors.shape[1] == 2 * DIM


@BOTH
def test_seeds_are_rows_of_all(make_model) -> None:
    assert_seeds_are_rows_of_all(make_model(), {}, FEATURES)


@BOTH
def test_full_and_sampled_agree(make_model) -> None:
    assert_modes_agree(make_model(), {}, FEATURES)


@BOTH
def test_everything_learns(make_model) -> None:
    assert_everything_learns(make_model(), {}, FEATURES)


@BOTH
def test_the_order_of_modalities_means_nothing(make_model) -> None:
    model, other = make_model(), make_model(dict(reversed(DIMS.items())))
    assert list(DIMS) != NAMES
    tables = make_tables(model)
    assert np.array_equal(scores_of(model, tables), scores_of(other, tables))


@BOTH
def test_without_a_modality(make_model) -> None:
    with pytest.raises(ValueError, match="dims is empty: at least one modality"):
        make_model({})
