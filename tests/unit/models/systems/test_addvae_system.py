"""ADDVAE against its loss written out user by user, prototype by prototype and column by column."""

from dataclasses import replace
from math import exp, log, sqrt, tanh

import numpy as np
import pytest
import scipy.sparse
import torch
from dense_oracles import ITEMS, NUM_ITEMS, NUM_USERS, USERS
from item_graph_world import fill, inputs_of, make_batch, make_step, make_tables, source_over

from braidrec.evaluation.scoring import ranker_of
from braidrec.graph.build import build_interactions
from braidrec.graph.histories import Histories
from braidrec.graph.user_words import UserWords
from braidrec.models import disentangled
from braidrec.models.contract import Inputs, LossTerm
from braidrec.models.systems.addvae import ADDVAE

DIM, K, HIDDEN, TAU, STD = 3, 2, 4, 0.4, 0.3
NUM_WORDS = 5
COUNTS = np.random.default_rng(1).integers(0, 3, (NUM_ITEMS, NUM_WORDS))
HISTORIES = Histories(build_interactions(USERS, ITEMS, NUM_USERS, NUM_ITEMS), NUM_USERS)
WORDS = UserWords(HISTORIES, scipy.sparse.csr_matrix(COUNTS), [f"w{number}" for number in range(NUM_WORDS)])
BATCH = replace(make_batch(negatives=False), users=torch.tensor([0, 2, 1, 4, 3, 0]))
"""User 3 has nothing."""
NOISE = torch.from_numpy(np.random.default_rng(8).normal(size=(2, 6, K, DIM)))


def make_model(**options) -> ADDVAE:
    settings = {
        "dim": DIM, "initial_std": 0.1, "histories": HISTORIES, "words": WORDS, "prototypes": K, "hidden": HIDDEN,
        "dropout": 0.0, "std": STD, "temperature": TAU, "gumbel": False, **options,
    }  # fmt: skip
    model = ADDVAE(**settings).double()
    fill(model)
    return model


def terms_of(model: ADDVAE, tables: dict[str, torch.Tensor], monkeypatch, step: int = 0) -> dict[str, LossTerm]:
    """Of one training step whose random numbers are NOISE: the items' first, then the words'."""
    drawn = iter(NOISE)
    monkeypatch.setattr(torch, "randn_like", lambda like: next(drawn))
    context = make_step(BATCH)
    inputs = inputs_of(model, source_over({}), tables, {}, context.seeds)
    return model.terms(model.encode(inputs), inputs, replace(context.context, global_step=step))


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector) if vector.any() else vector


class Side:
    """One side by hand: what a column belongs to, what a user is like, how likely a column is."""

    def __init__(self, embeddings, prototypes, first, own: dict[str, np.ndarray], name: str) -> None:
        self.h = [unit(row) for row in embeddings]
        logits = [[unit(m) @ h / TAU for m in prototypes] for h in self.h]
        self.c = [[exp(x) / sum(map(exp, row)) for x in row] for row in logits]
        self.first, self.bias = first, own[f"{name}.bias"]
        self.w, self.b = own[f"{name}.heads.layers.0.weight"], own[f"{name}.heads.layers.0.bias"]

    def posterior(self, x: np.ndarray, noise: np.ndarray | None) -> tuple[list[np.ndarray], float]:
        """z of every prototype, and the sum of the divergences."""
        found, divergence = [], 0.0
        for k in range(K):
            hidden = unit(np.array([x[i] * self.c[i][k] for i in range(len(x))])) @ self.first + self.bias
            out = self.w @ np.tanh(hidden) + self.b
            mean, log_variance = unit(out[:DIM]), -out[DIM:]
            divergence += sum(-0.5 * (1 + v - exp(v)) for v in log_variance)
            if noise is not None:
                mean = unit(mean + np.sqrt(np.exp(log_variance)) * STD * noise[k])
            found.append(mean)
        return found, divergence

    def cross_entropy(self, z: list[np.ndarray], x: np.ndarray) -> float:
        likely = [sum(self.c[i][k] * exp(z[k] @ self.h[i] / TAU) for k in range(K)) for i in range(len(x))]
        return -sum(x[i] * log(likely[i] / sum(likely)) for i in range(len(x)))


def composed(query: list[np.ndarray], key: list[np.ndarray]) -> list[np.ndarray]:
    """Compositional de-attention."""
    result = []
    for q in query:
        nearness = [-np.abs(q - k).sum() / sqrt(DIM) for k in key]
        gates = [1 / (1 + exp(-(n - sum(nearness) / K))) for n in nearness]
        result.append(sum(tanh(q @ k / sqrt(DIM)) * g * k for k, g in zip(key, gates, strict=True)))
    return result


class ByHand:
    def __init__(self, model: ADDVAE, tables: dict[str, torch.Tensor]) -> None:
        own = {name: value.detach().numpy() for name, value in model.named_parameters()}
        rows = {name: value.detach().numpy() for name, value in tables.items()}
        other = own.get("word_prototypes", own["prototypes"])
        self.items = Side(rows["item"], own["prototypes"], rows["encoder"], own, "of_items")
        self.words = Side(own["word_embeddings"], other, own["word_first"], own, "of_words")

    def user(self, user: int, noise: tuple[np.ndarray, np.ndarray] | None = None):
        """What he has, his factors, both divergences, and how far the sides are apart."""
        x = np.bincount(ITEMS[user == USERS], minlength=NUM_ITEMS).astype(float)
        y = np.zeros(NUM_WORDS)
        counts = COUNTS.T @ x
        for word in range(NUM_WORDS):
            having = sum(int((COUNTS[ITEMS[one == USERS]].sum(0) > 0)[word]) for one in (0, 1, 2, 4))
            y[word] = counts[word] * (1 + log((1 + 4) / (1 + having)))
        y = unit(y).astype(np.float32)
        of_items, kl_items = self.items.posterior(x, None if noise is None else noise[0])
        of_words, kl_words = self.words.posterior(y, None if noise is None else noise[1])
        from_words, from_items = composed(of_items, of_words), composed(of_words, of_items)
        z = [a + b for a, b in zip(from_words, from_items, strict=True)]
        apart = sum(((a - b) ** 2).sum() for a, b in zip(from_words, from_items, strict=True)) / K
        return x, y, z, kl_items, kl_words, apart


@pytest.mark.parametrize("prototypes_of", ["both", "each"])
def test_the_loss_is_the_naive_one(prototypes_of: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(prototypes_of=prototypes_of)
    tables = make_tables(model)
    found = terms_of(model, tables, monkeypatch)
    by_hand = ByHand(model, tables)
    wanted = dict.fromkeys(model.term_names, 0.0)
    for row, user in enumerate(BATCH.users.tolist()):
        weight = float(BATCH.weight[row])
        x, y, z, kl_items, kl_words, apart = by_hand.user(user, (NOISE[0, row].numpy(), NOISE[1, row].numpy()))
        values = (by_hand.items.cross_entropy(z, x), kl_items, by_hand.words.cross_entropy(z, y), kl_words, apart)
        for name, value in zip(wanted, values, strict=True):
            wanted[name] += weight * value
    assert min(wanted.values()) > 0.1
    for name, value in wanted.items():
        assert found[name].total.item() == pytest.approx(value, rel=1e-6), name
        assert found[name].weight.item() == float(BATCH.weight.sum())


@pytest.mark.parametrize("prototypes_of", ["both", "each"])
def test_scores_are_those_of_both_sides_means(prototypes_of: str) -> None:
    """`log Σ_k c_ik exp(⟨z_k, h_i⟩/τ)` of all users and items, through the ranker."""
    model = make_model(prototypes_of=prototypes_of).eval()
    tables = make_tables(model)
    by_hand = ByHand(model, tables)
    vectors = model.encode(inputs_of(model, source_over({}), tables, {}, None, training=False)).vectors.detach()
    ranker = ranker_of(model, vectors, NUM_USERS)
    assert (ranker.num_users, ranker.num_items) == (NUM_USERS, NUM_ITEMS)
    scores = ranker.score(torch.arange(NUM_USERS)).numpy()
    for user in range(NUM_USERS):
        _, _, z, *_ = by_hand.user(user)
        for item in range(NUM_ITEMS):
            likely = sum(by_hand.items.c[item][k] * exp(z[k] @ by_hand.items.h[item] / TAU) for k in range(K))
            assert scores[user, item] == pytest.approx(log(likely), abs=1e-5)
    seeds = torch.tensor([0, 3, 4, 6, 8, 11])
    some = model.encode(inputs_of(model, source_over({}), tables, {}, seeds, training=False)).vectors
    torch.testing.assert_close(some.detach(), vectors[seeds])


@pytest.mark.parametrize("prototypes", [1, 2])
def test_there_is_room_for_vectors_of_both_sides(prototypes: int) -> None:
    model = make_model(prototypes=prototypes).eval()
    encoded = model.encode(inputs_of(model, source_over({}), make_tables(model), {}, None, training=False))
    assert encoded.vectors.shape == (NUM_USERS + NUM_ITEMS, max(prototypes * DIM, prototypes + DIM))


def test_the_weight_of_the_divergences_is_annealed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(beta=0.2, anneal_steps=100, text_weight=0.5, alignment_weight=0.3)
    tables = make_tables(model)
    for step, beta in ((0, 0.01), (9, 0.1), (18, 0.19), (19, 0.2), (5_000, 0.2)):
        found = terms_of(model, tables, monkeypatch, step)
        coefficients = {name: term.coefficient for name, term in found.items()}
        assert coefficients == pytest.approx(
            {"items": 1.0, "kl_items": beta, "words": 0.5, "kl_words": 0.5 * beta, "alignment": 0.3}
        )
    whole = terms_of(make_model(beta=0.2, anneal_steps=0), tables, monkeypatch)
    assert whole["kl_items"].coefficient == 0.2


def loss_of(found: dict[str, LossTerm]) -> torch.Tensor:
    return sum(term.coefficient * term.total for term in found.values())


def test_gradients_by_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each parameter and table learns from the whole loss, and where it learns most as the loss itself says."""
    model = make_model(anneal_steps=0)
    tables = make_tables(model)

    def loss() -> torch.Tensor:
        return loss_of(terms_of(model, tables, monkeypatch))

    variables = {**tables, **dict(model.named_parameters())}
    gradients = torch.autograd.grad(loss(), list(variables.values()))
    for (name, variable), gradient in zip(variables.items(), gradients, strict=True):
        place = int(gradient.abs().argmax())
        flat, step = variable.data.view(-1), 1e-6
        with torch.no_grad():
            flat[place] += step
            above = loss()
            flat[place] -= 2 * step
            below = loss()
            flat[place] += step
        slope = float(gradient.flatten()[place])
        assert abs(slope) > 1e-4, f"{name} learns nothing"
        assert float((above - below) / (2 * step)) == pytest.approx(slope, rel=1e-4), name


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model()
    results = []
    for size in (disentangled.BLOCK_NUMBERS, 1):
        monkeypatch.setattr(disentangled, "BLOCK_NUMBERS", size)
        tables = make_tables(model)
        loss = loss_of(terms_of(model, tables, monkeypatch))
        results.append([loss.detach(), *torch.autograd.grad(loss, [*tables.values(), *model.parameters()])])
    for whole, blocks in zip(*results, strict=True):
        torch.testing.assert_close(whole, blocks, rtol=1e-10, atol=1e-12)


def test_what_is_drawn_is_drawn_in_training_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gumbel noise on what belongs where, and dropout of entries; an entry that stays counts double."""
    drawn = make_model(gumbel=True, dropout=0.5)
    tables = make_tables(drawn)
    losses = {float(loss_of(terms_of(drawn, tables, monkeypatch)).detach()) for _ in range(4)}
    assert len(losses) == 4
    drawn.eval()
    inputs: Inputs = inputs_of(drawn, source_over({}), tables, {}, None, training=False)
    first, second = drawn.encode(inputs).vectors, drawn.encode(inputs).vectors
    plain = make_model().eval()
    assert torch.equal(first, second) and torch.equal(first, plain.encode(inputs).vectors)


def test_words_take_part_in_the_scores() -> None:
    """Of a user with words, not of one without."""
    model = make_model().eval()
    tables = make_tables(model)
    before = model.encode(inputs_of(model, source_over({}), tables, {}, None, training=False)).vectors.detach()
    with torch.no_grad():
        model.word_first += 1.0
    after = model.encode(inputs_of(model, source_over({}), tables, {}, None, training=False)).vectors.detach()
    moved = (after - before).abs().amax(-1)
    assert (moved[[0, 1, 2, 4]] > 1e-3).all() and moved[3] == 0 and (moved[NUM_USERS:] == 0).all()


def test_the_regulariser_sees_the_items(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model()
    tables = make_tables(model)
    ego = model.encode(inputs_of(model, source_over({}), tables, {}, None)).ego
    squares = torch.cat([torch.zeros(NUM_USERS, dtype=torch.float64), tables["item"].square().sum(-1)])
    assert torch.allclose(ego.square().sum(-1), squares)
