"""VMCF against loops over nodes and pairs in numpy, and at its limits against models that are there without it."""

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
    TOLERANCE,
    assert_everything_learns,
    assert_modes_agree,
    assert_seeds_are_rows_of_all,
    fill,
    inputs_of,
    make_batch,
    make_features,
    make_relations,
    make_step,
    make_tables,
    run_step,
    source_over,
)

from braidrec.graph.related import RELATED, co_related, listed_relation
from braidrec.graph.relation import INTERACTIONS, Relation
from braidrec.models.matrix_factorisation import MatrixFactorisation
from braidrec.models.systems.vbpr import VBPR
from braidrec.models.systems.vmcf import VMCF

CONTENT = 2
PAIRS = [(0, 3), (0, 1), (2, 0), (3, 6), (5, 5), (0, 3), (4, 2), (6, 0), (5, 1)]
"""One is of an item with itself, one is listed twice; item 6 is no positive of the batch."""
FEATURES = make_features()
RELATIONS = make_relations(FEATURES)
RELATIONS[RELATED] = listed_relation(*np.array(PAIRS, dtype=np.int32).T, NUM_USERS, NUM_ITEMS)


def make_model(**options) -> VMCF:
    settings = {"non_edges": 0, "relation_weight": 0.7, "relation_regulariser": 0.2, "content_dim": CONTENT, **options}
    model = VMCF(dim=DIM, initial_std=0.1, dims=DIMS, **settings).double()
    fill(model)
    return model


def neighbours(relation: Relation) -> dict[int, list[int]]:
    """By item, the items that it receives from."""
    return {
        item: [
            int(node) - NUM_USERS
            for node in relation.indices[relation.indptr[NUM_USERS + item] : relation.indptr[NUM_USERS + item + 1]]
        ]
        for item in range(NUM_ITEMS)
    }


def test_pairs_as_they_are_listed() -> None:
    assert neighbours(RELATIONS[RELATED]) == {0: [1, 3], 1: [], 2: [0], 3: [6], 4: [2], 5: [1], 6: [0]}
    assert not np.diff(RELATIONS[RELATED].indptr[: NUM_USERS + 1]).any()
    assert RELATIONS[RELATED].num_nodes == NUM_NODES


def test_pairs_by_shared_users() -> None:
    """Of each item the two that share most users, of equal ones the first."""
    takers = [set(USERS[item == ITEMS].tolist()) for item in range(NUM_ITEMS)]
    wanted = {}
    for item in range(NUM_ITEMS):
        counts = [(-len(takers[item] & takers[other]), other) for other in range(NUM_ITEMS) if other != item]
        wanted[item] = sorted(other for count, other in sorted(counts)[:2] if count)
    assert neighbours(co_related(RELATIONS[INTERACTIONS], NUM_USERS, 2)) == wanted


def content_of(model: VMCF, item: int) -> list[np.ndarray]:
    found = []
    for place, name in enumerate(model.content.modalities):
        values, present = FEATURES[name]
        (layer,) = model.content.projectors[place].layers
        row = layer.weight.detach().numpy() @ values[item].numpy()
        found.append(row if present[item] else model.content.missing[place].token.detach().numpy())
    return found


def score(model: VMCF, tables: dict[str, torch.Tensor], user: int, item: int, *, visual: bool = True) -> float:
    u, v = tables["user"].detach().numpy()[user], tables["item"].detach().numpy()[item]
    total = float(u[:DIM] @ v)
    if visual:
        for place, content in enumerate(content_of(model, item)):
            start = DIM + place * CONTENT
            total += float(u[start : start + CONTENT] @ content)
    return total


@pytest.mark.parametrize("visual", [True, False])
def test_scores(visual: bool) -> None:
    model = make_model(visual=visual)
    tables = make_tables(model)
    vectors = model.encode(inputs_of(model, source_over(RELATIONS), tables, FEATURES, None)).vectors.detach().numpy()
    for user in range(NUM_USERS):
        for item in range(NUM_ITEMS):
            wanted = score(model, tables, user, item, visual=visual)
            assert vectors[user] @ vectors[NUM_USERS + item] == pytest.approx(wanted, abs=1e-10)
            if visual:
                assert abs(wanted - score(model, tables, user, item, visual=False)) > 1e-6


def pair_terms(tables: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Means over the pairs of the positive items of the batch, each item once."""
    batch = make_batch()
    positives = sorted({int(item) for item, real in zip(batch.items, batch.real, strict=True) if real})
    errors, norms = [], []
    for i, j in sorted({pair for pair in PAIRS if pair[0] != pair[1]}):
        if i in positives:
            v, z = tables["item"][i], tables["partner"][j]
            errors.append((1 - torch.sigmoid(v @ z)) ** 2)
            norms.append(0.5 * z @ z)
    assert len(errors) == 6 and 6 not in positives
    return {"pairs": torch.stack(errors).mean(), "partners": torch.stack(norms).mean()}


def test_terms_and_their_gradients() -> None:
    model = make_model()
    tables, step = make_tables(model), make_step(make_batch())
    _, terms = run_step(model, source_over(RELATIONS), tables, FEATURES, step)
    wanted = pair_terms(tables)
    assert set(wanted) == set(model.term_names)
    assert (terms["pairs"].coefficient, terms["partners"].coefficient) == (0.7, 0.2)
    found = sum(term.coefficient * term.total / term.weight for term in terms.values())
    by_hand = 0.7 * wanted["pairs"] + 0.2 * wanted["partners"]
    for name, value in wanted.items():
        assert (terms[name].total / terms[name].weight).item() == pytest.approx(value.item(), rel=1e-9)
    for name in ("item", "partner"):
        (a,), (b,) = (torch.autograd.grad(loss, tables[name], retain_graph=True) for loss in (found, by_hand))
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9)
        assert a.abs().max() > 1e-3


def test_a_step_without_pairs_counts_none() -> None:
    """Its items are 1 alone, of which none is listed."""
    batch = make_batch()
    batch.items.fill_(1)
    model = make_model(non_edges=2)
    _, terms = run_step(model, source_over(RELATIONS), make_tables(model), FEATURES, make_step(batch))
    assert all(float(term.total.detach()) == 0.0 and float(term.weight) == 0.0 for term in terms.values())


def test_items_that_are_drawn_are_pushed_away() -> None:
    """Each pair counts one mean of squares more, of items that are none of this module's choice."""
    model, without = make_model(non_edges=3), make_model()
    tables, step = make_tables(model), make_step(make_batch())
    _, terms = run_step(model, source_over(RELATIONS), tables, FEATURES, step)
    _, plain = run_step(without, source_over(RELATIONS), tables, FEATURES, step)
    torch.manual_seed(17)
    drawn = torch.randint(NUM_ITEMS, (6 * 3,)).reshape(6, 3)
    relation = neighbours(RELATIONS[RELATED])
    firsts = [i for i in range(NUM_ITEMS) if i in {0, 2, 3, 4, 5} for _ in relation[i]]
    extra = sum(
        np.mean([1 / (1 + np.exp(-float(tables["item"][i].detach() @ tables["partner"][j].detach()))) ** 2
                 for j in drawn[row]])
        for row, i in enumerate(firsts)
    )  # fmt: skip
    difference = (terms["pairs"].total - plain["pairs"].total).item()
    assert terms["pairs"].weight == plain["pairs"].weight == 6
    # Which of the draws falls to which pair is the hop's order: items ascending.
    assert difference == pytest.approx(extra, rel=1e-6)


@pytest.mark.parametrize("options", [{}, {"visual": False}, {"relation_weight": 0.0}, {"non_edges": 2}])
def test_contract(options: dict[str, object]) -> None:
    """Sampled with every neighbour is the whole relation; everything learns; evaluation is exact."""
    model = make_model(**options)
    assert_modes_agree(model, RELATIONS, FEATURES)
    assert_everything_learns(model, RELATIONS, FEATURES)
    assert_seeds_are_rows_of_all(model, RELATIONS, FEATURES)


def test_sampled_pairs_are_estimates_without_bias() -> None:
    """Item 0 has two partners: one drawn of them counts twice, and the number of pairs stays."""
    from braidrec.graph.neighbourhood import SampledSubgraph, hop_specs

    model = make_model()
    tables, step = make_tables(model), make_step(make_batch())
    source = SampledSubgraph({RELATED: RELATIONS[RELATED]}, device=torch.device("cpu"), kernel="dgl")
    whole = inputs_of(model, source_over(RELATIONS), tables, FEATURES, step.seeds)
    encoded = model.encode(whole)
    exact = model.terms(encoded, whole, step.context)["pairs"]
    totals = []
    for seed in range(60):
        drawn = source.neighbourhood(hop_specs((RELATED,), (1,)), step.seeds, step_seed=seed)
        inputs = type(whole)(**{**whole.__dict__, "neighbourhoods": {**whole.neighbourhoods, RELATED: drawn}})
        term = model.terms(encoded, inputs, step.context)["pairs"]
        assert term.weight == exact.weight
        totals.append(term.total.item())
    assert len({round(total, 9) for total in totals}) == 2
    low, high = min(totals), max(totals)
    assert (low + high) / 2 == pytest.approx(exact.total.item(), rel=1e-9)


def test_without_pairs_it_is_vbpr_without_biases() -> None:
    """Visual matrix factorisation: the same numbers in both."""
    model = make_model(relation_weight=0.0)
    assert not model.term_names and set(model.tables()) == {"user", "item"}
    tables = make_tables(model)
    vbpr = VBPR(dim=DIM, initial_std=0.1, dims=DIMS, content_dim=CONTENT).double()
    vbpr.content.load_state_dict(model.content.state_dict())
    item = torch.cat([tables["item"], torch.zeros(NUM_ITEMS, 1, dtype=torch.float64)], dim=1)
    source = source_over(RELATIONS)
    ours = model.encode(inputs_of(model, source, tables, FEATURES, None)).vectors
    theirs = vbpr.encode(inputs_of(vbpr, source, {"user": tables["user"], "item": item}, FEATURES, None)).vectors
    np.testing.assert_allclose(
        (ours[:NUM_USERS] @ ours[NUM_USERS:].T).detach(),
        (theirs[:NUM_USERS] @ theirs[NUM_USERS:].T).detach(),
        **TOLERANCE,
    )


def test_without_both_it_is_matrix_factorisation() -> None:
    model = make_model(relation_weight=0.0, visual=False)
    assert not list(model.parameters())
    tables = make_tables(model)
    plain = MatrixFactorisation(dim=DIM, initial_std=0.1)
    source = source_over(RELATIONS)
    ours = model.encode(inputs_of(model, source, tables, {}, None))
    joint = {"id": torch.cat([tables["user"], tables["item"]])}
    theirs = plain.encode(inputs_of(plain, source, joint, {}, None))
    assert torch.equal(ours.vectors, theirs.vectors) and torch.equal(ours.ego, theirs.ego)


def test_it_needs_a_modality() -> None:
    with pytest.raises(ValueError, match="dims is empty"):
        VMCF(dim=DIM, initial_std=0.1, dims={})
