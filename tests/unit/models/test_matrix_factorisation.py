"""Matrix factorisation against the score written out, with and without biases."""

import numpy as np
import pytest
import torch
from dense_oracles import NUM_ITEMS, NUM_NODES, NUM_USERS
from model_inputs import inputs_for

from braidrec.graph.neighbourhood import FullGraph
from braidrec.models.contract import Encoded
from braidrec.models.matrix_factorisation import MatrixFactorisation

DIM = 4


def encode(model: MatrixFactorisation, table: torch.Tensor, seeds: torch.Tensor | None) -> Encoded:
    graph = FullGraph({}, device=torch.device("cpu"), kernel="torch")
    inputs = inputs_for(model, graph, {"id": table}, seeds, num_users=NUM_USERS, num_items=NUM_ITEMS)
    (neighbourhood,) = inputs.neighbourhoods.values()
    assert neighbourhood.hops == ()
    return model.encode(inputs)


def table_for(model: MatrixFactorisation) -> torch.Tensor:
    (spec,) = model.tables().values()
    return torch.randn(NUM_NODES, spec.width, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def scores_by_hand(table: np.ndarray, biases: bool) -> np.ndarray:
    """`[users, items]`, cell by cell."""
    scores = np.zeros((NUM_USERS, NUM_ITEMS))
    for user in range(NUM_USERS):
        for item in range(NUM_ITEMS):
            left, right = table[user], table[NUM_USERS + item]
            scores[user, item] = sum(left[d] * right[d] for d in range(DIM))
            if biases:
                scores[user, item] += left[DIM] + right[DIM]
    return scores


@pytest.mark.parametrize("biases", [False, True])
def test_scores(biases: bool) -> None:
    model = MatrixFactorisation(dim=DIM, initial_std=0.1, biases=biases)
    table = table_for(model)
    vectors = encode(model, table, None).vectors
    scores = vectors[:NUM_USERS] @ vectors[NUM_USERS:].T
    np.testing.assert_allclose(scores.numpy(), scores_by_hand(table.numpy(), biases), rtol=1e-12)


@pytest.mark.parametrize("biases", [False, True])
def test_seeds_in_any_order(biases: bool) -> None:
    """Whether a seed is a user decides which of its two extra dimensions holds the bias."""
    model = MatrixFactorisation(dim=DIM, initial_std=0.1, biases=biases)
    table = table_for(model)
    seeds = torch.tensor([9, 2, 5, 4, 0])
    everything = encode(model, table, None)
    some = encode(model, table, seeds)
    assert torch.equal(some.vectors, everything.vectors[seeds])
    assert torch.equal(some.ego, table[seeds])


def test_gradients_of_one_score() -> None:
    """d (e_u · e_i + b_u + b_i): the other's embedding, and 1 for each bias."""
    model = MatrixFactorisation(dim=DIM, initial_std=0.1, biases=True)
    table = table_for(model).requires_grad_()
    user, item = 2, NUM_USERS + 3
    vectors = encode(model, table, torch.tensor([user, item])).vectors
    (vectors[0] * vectors[1]).sum().backward()
    wanted = np.zeros((NUM_NODES, DIM + 1))
    wanted[user] = [*table.detach().numpy()[item, :DIM], 1.0]
    wanted[item] = [*table.detach().numpy()[user, :DIM], 1.0]
    np.testing.assert_allclose(table.grad.numpy(), wanted, rtol=1e-12)


def test_biases_start_at_zero() -> None:
    (spec,) = MatrixFactorisation(dim=DIM, initial_std=0.5, biases=True).tables().values()
    rows = spec.initialise(100, torch.Generator().manual_seed(0))
    assert rows.shape == (100, DIM + 1)
    assert torch.equal(rows[:, DIM], torch.zeros(100))
    assert int((rows[:, :DIM] == 0).sum()) == 0
