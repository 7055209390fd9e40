"""configs/models/simgcl.yaml: its contrast against dense propagation with the same noise, and plain loops."""

import numpy as np
import pytest
import torch
from contrast_oracle import expected_terms, model_of, preset
from dense_oracles import ITEMS, NUM_ITEMS, NUM_NODES, NUM_USERS, USERS, propagation_matrix
from item_graph_world import TOLERANCE, make_batch, make_step, make_tables, run_step, source_over

from braidrec.config.load import ConfigError
from braidrec.graph.build import build_interactions
from braidrec.graph.relation import INTERACTIONS

CONFIG = preset("simgcl")
DIM, LAYERS = CONFIG.model.dim, 3
SEED_OF_RUN_STEP = 17


def dense_views(embeddings: np.ndarray, *, norm: float = 0.1, ego: bool = False) -> list[np.ndarray]:
    """Two propagations, with the noise that the model draws: for the first view hop by hop, then for the second."""
    torch.manual_seed(SEED_OF_RUN_STEP)
    views = []
    for _ in range(2):
        z, levels = embeddings, [embeddings] if ego else []
        for _ in range(LAYERS):
            z = propagation_matrix() @ z
            drawn = torch.rand(NUM_NODES, DIM, dtype=torch.float64).numpy()
            for node in range(NUM_NODES):
                direction = drawn[node] * np.sign(z[node])
                length = np.linalg.norm(direction)
                z[node] += norm * direction / length if length > 0 else 0.0
            levels.append(z)
        views.append(sum(levels) / len(levels))
    return views


def run(*overrides: str):
    model = model_of(preset("simgcl", *overrides))
    tables, step = make_tables(model), make_step(make_batch())
    source = source_over({INTERACTIONS: build_interactions(USERS, ITEMS, NUM_USERS, NUM_ITEMS)})
    encoded, terms = run_step(model, source, tables, {}, step)
    embeddings = np.concatenate([tables["user"].detach().numpy(), tables["item"].detach().numpy()])
    means = {name: (float((term.total / term.weight).detach()), term.coefficient) for name, term in terms.items()}
    return encoded, means, embeddings, step


def test_the_published_settings() -> None:
    task, encoder = CONFIG.model.self_supervision["simgcl"], CONFIG.model.encoder
    assert (task.weight, task.loss.temperature, task.first.norm, task.second.norm) == (0.5, 0.2, 0.1, 0.1)
    assert (encoder.layers, encoder.readout, encoder.ego) == (LAYERS, "mean", False)


def test_vectors_are_without_noise_and_without_level_zero() -> None:
    encoded, _, embeddings, step = run()
    levels = [np.linalg.matrix_power(propagation_matrix(), level) @ embeddings for level in range(1, LAYERS + 1)]
    np.testing.assert_allclose(encoded.vectors.detach(), (sum(levels) / LAYERS)[step.seeds], **TOLERANCE)
    np.testing.assert_array_equal(encoded.ego.detach(), embeddings[step.seeds])


@pytest.mark.parametrize("ego", [False, True])
def test_the_contrast_of_both_sides(ego: bool) -> None:
    """With level 0 in the readout, views have it as well."""
    _, terms, embeddings, step = run(f"model.encoder.ego={str(ego).lower()}")
    wanted = expected_terms("simgcl", *dense_views(embeddings, ego=ego), step, temperature=0.2)
    assert set(terms) == set(wanted) == {"simgcl/users", "simgcl/items"}
    for name, (mean, coefficient) in terms.items():
        assert coefficient == 0.5
        assert mean == pytest.approx(wanted[name], abs=1e-5)


@pytest.mark.parametrize("ablation", [{"norm": 0.0}, {"norm": 0.2}, {"ego": True}], ids=str)
def test_without_its_parts_it_is_another_loss(ablation: dict) -> None:
    _, terms, embeddings, step = run()
    ablated = expected_terms("simgcl", *dense_views(embeddings, **ablation), step, temperature=0.2)
    assert max(abs(mean - ablated[name]) for name, (mean, _) in terms.items()) > 1e-3


def test_the_last_level_has_no_level_zero_to_leave_out() -> None:
    with pytest.raises(ConfigError, match="ego=false has no effect on readout=last"):
        preset("simgcl", "model.encoder.readout=last")
