"""configs/models/sgl.yaml: its contrast against dense matrices of the two views, and plain loops."""

import numpy as np
import pytest
import torch
from contrast_oracle import expected_terms, model_of, preset, views_drawn
from dense_oracles import ITEMS, NUM_ITEMS, NUM_USERS, USERS
from item_graph_world import (
    TOLERANCE,
    assert_modes_agree,
    dense_unweighted,
    edges_of,
    make_batch,
    make_step,
    make_tables,
    run_step,
    source_over,
)

from braidrec.graph.build import build_interactions
from braidrec.graph.relation import INTERACTIONS, Relation

INTERACTED = build_interactions(USERS, ITEMS, NUM_USERS, NUM_ITEMS)
CONFIG = preset("sgl")
EPOCH = 5
FIRST, SECOND = f"{INTERACTIONS}~sgl.1.0", f"{INTERACTIONS}~sgl.2.0"
RELATIONS = {INTERACTIONS: INTERACTED, **views_drawn(CONFIG, INTERACTED, epoch=EPOCH)}


def dense_lightgcn(relation: Relation, embeddings: np.ndarray) -> np.ndarray:
    """The mean of levels 0 to 3, with the relation's own degrees."""
    matrix = dense_unweighted(relation)
    return sum(np.linalg.matrix_power(matrix, level) @ embeddings for level in range(4)) / 4


def run(relations=RELATIONS):
    model = model_of(CONFIG)
    tables, step = make_tables(model), make_step(make_batch())
    encoded, terms = run_step(model, source_over(relations), tables, {}, step)
    embeddings = np.concatenate([tables["user"].detach().numpy(), tables["item"].detach().numpy()])
    return encoded, terms, embeddings, step


def test_the_published_settings() -> None:
    task = CONFIG.model.self_supervision["sgl"]
    assert (task.weight, task.loss.temperature, task.first.rate, task.second.rate) == (0.1, 0.2, 0.1, 0.1)
    assert (CONFIG.model.encoder.layers, CONFIG.model.encoder.readout, CONFIG.model.encoder.ego) == (3, "mean", True)


def test_views_are_two_and_each_epoch_has_others() -> None:
    whole = set(edges_of(INTERACTED))
    drawn = [set(edges_of(RELATIONS[name])) for name in (FIRST, SECOND)]
    again = [set(edges_of(relation)) for relation in views_drawn(CONFIG, INTERACTED, epoch=EPOCH + 1).values()]
    assert drawn[0] != drawn[1] and drawn != again
    for edges in drawn:
        assert edges < whole
        assert {(destination, source) for source, destination in edges} == edges


def test_vectors_are_those_of_the_whole_graph() -> None:
    encoded, _, embeddings, step = run()
    wanted = dense_lightgcn(INTERACTED, embeddings)[step.seeds]
    np.testing.assert_allclose(encoded.vectors.detach(), wanted, **TOLERANCE)


def test_the_contrast_of_both_sides() -> None:
    _, terms, embeddings, step = run()
    views = [dense_lightgcn(RELATIONS[name], embeddings) for name in (FIRST, SECOND)]
    wanted = expected_terms("sgl", *views, step, temperature=0.2)
    assert set(terms) == set(wanted) == {"sgl/users", "sgl/items"}
    for name, term in terms.items():
        assert term.coefficient == 0.1
        assert float((term.total / term.weight).detach()) == pytest.approx(wanted[name], abs=1e-5)


@pytest.mark.parametrize("whole", [(FIRST,), (SECOND,), (FIRST, SECOND)], ids=["first", "second", "both"])
def test_without_a_view_it_is_another_loss(whole: tuple[str, ...]) -> None:
    """The same with edges that were dropped put back; the oracle above would notice."""
    _, terms, embeddings, step = run()
    views = [dense_lightgcn(INTERACTED if name in whole else RELATIONS[name], embeddings) for name in (FIRST, SECOND)]
    ablated = expected_terms("sgl", *views, step, temperature=0.2)
    differences = [abs(float((term.total / term.weight).detach()) - ablated[name]) for name, term in terms.items()]
    assert max(differences) > 1e-3


def test_sampled_with_every_neighbour_is_the_whole_graph() -> None:
    torch.manual_seed(0)
    assert_modes_agree(model_of(CONFIG), RELATIONS, {})
