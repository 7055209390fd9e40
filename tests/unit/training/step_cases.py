"""One training step on twelve nodes, and what it must compute, written out row by row in numpy."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, log1p

import numpy as np
import torch
from torch import nn

from braidrec.config.run import OptimizerConfig
from braidrec.data.delivery import Rows
from braidrec.graph.build import build_interactions
from braidrec.graph.neighbourhood import FullGraph, SampledSubgraph, hop_specs
from braidrec.graph.relation import INTERACTIONS
from braidrec.models.contract import Encoded, Inputs
from braidrec.models.lightgcn import LightGCN
from braidrec.models.matrix_factorisation import MatrixFactorisation
from braidrec.objectives.bpr import BPR
from braidrec.objectives.rating_mse import RatingMSE
from braidrec.training.context import SingleProcess
from braidrec.training.optimizers import build_optimizers
from braidrec.training.partition import RowPartition
from braidrec.training.sharded_table import ShardedTable
from braidrec.training.step import Position, TrainStep
from braidrec.training.tables import ReplicatedTable
from braidrec.training.timing import PhaseTimer

NUM_USERS, NUM_ITEMS = 5, 7
NUM_NODES = NUM_USERS + NUM_ITEMS
TRAIN_USERS = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 4])
TRAIN_ITEMS = np.array([0, 1, 2, 1, 3, 0, 3, 4, 5, 5])
DIM, MEAN = 3, 2.75
FIRST = Position(epoch=1, step=0, global_step=0)


@dataclass(frozen=True, kw_only=True)
class Case:
    """What a step is made of."""

    model: str = "mf"
    """ "mf", "mf_biases", "mf_scaled" (with a parameter of its own), or "lightgcn" (two layers, mean)."""
    mode: str = "full"
    """ "full", or "sampled" with every neighbour taken."""
    loss: str = "bpr"
    per_positive: int = 2
    regulariser: float = 0.3
    optimizer: str = "sgd"
    gradient_clip: float | None = None
    exclude_targets: bool = False
    sharded: bool = False
    wire: torch.dtype | None = None

    @property
    def sparse(self) -> bool:
        return self.optimizer != "adam" and not (self.model == "lightgcn" and self.mode == "full")


STEPS = {
    "mf": Case(),
    "mf, one negative": Case(per_positive=1),
    "mf with biases": Case(model="mf_biases", per_positive=3),
    "mf with biases on ratings": Case(model="mf_biases", loss="rating_mse"),
    "lightgcn, full": Case(model="lightgcn"),
    "lightgcn, sampled": Case(model="lightgcn", mode="sampled"),
    "lightgcn on ratings": Case(model="lightgcn", loss="rating_mse"),
}


class ScaledFactors(MatrixFactorisation):
    """A model with a parameter beside its table: every dimension of the vectors has a learned factor."""

    def __init__(self) -> None:
        super().__init__(dim=DIM, initial_std=1.0)
        self.factor = nn.Parameter(torch.tensor([1.0, -0.5, 2.0], dtype=torch.float64))

    def encode(self, inputs: Inputs) -> Encoded:
        encoded = super().encode(inputs)
        return Encoded(vectors=encoded.vectors * self.factor, ego=encoded.ego)


class FixedNegatives:
    """Negatives that depend on nothing but the row's user, whoever asks and whatever else is in the batch."""

    def draw(self, users: np.ndarray, per_positive: int, rng: np.random.Generator) -> np.ndarray:
        return (users[:, None] * 3 + 1 + np.arange(per_positive)) % NUM_ITEMS


def make_table(case: Case, context: SingleProcess | None = None) -> ReplicatedTable | ShardedTable:
    spec = make_model(case).tables()["id"]
    context = context or SingleProcess()
    whole = ReplicatedTable(spec, NUM_NODES, seed=11, sparse=case.sparse).double()
    if not case.sharded:
        return whole
    degree = torch.from_numpy(np.bincount(np.concatenate([TRAIN_USERS, NUM_USERS + TRAIN_ITEMS]), minlength=NUM_NODES))
    return ShardedTable(
        RowPartition.balanced(degree, context.world_size),
        context,
        initial=lambda held: whole.all_rows()[held.start : held.stop].clone(),
        sparse=case.sparse,
        wire=case.wire,
    )


def make_model(case: Case) -> MatrixFactorisation | LightGCN:
    if case.model == "lightgcn":
        return LightGCN(dim=DIM, layers=2, initial_std=1.0)
    if case.model == "mf_scaled":
        return ScaledFactors()
    return MatrixFactorisation(dim=DIM, initial_std=1.0, biases=case.model == "mf_biases")


def make_step(case: Case, context: SingleProcess | None = None) -> tuple[TrainStep, ReplicatedTable | ShardedTable]:
    """A step with learning rate 1 in fp64, and the table that it trains."""
    relation = build_interactions(TRAIN_USERS, TRAIN_ITEMS, NUM_USERS, NUM_ITEMS)
    context = context or SingleProcess()
    model, table = make_model(case), make_table(case, context)
    source_type = FullGraph if case.mode == "full" else SampledSubgraph
    step = TrainStep(
        model=model,
        tables={"id": table},
        objective=BPR() if case.loss == "bpr" else RatingMSE(mean=MEAN),
        regulariser=case.regulariser,
        source=source_type({INTERACTIONS: relation}, device=torch.device("cpu"), kernel="dgl"),
        chains={name: hop_specs(branch.chain, (-1,)) for name, branch in model.branches().items()},
        negatives=FixedNegatives() if case.loss == "bpr" else None,
        per_positive=case.per_positive,
        exclude_from={INTERACTIONS: relation} if case.exclude_targets else {},
        num_users=NUM_USERS,
        num_items=NUM_ITEMS,
        features=lambda modality, items: (torch.empty(0), torch.empty(0)),
        cold=None,
        optimizers=build_optimizers(
            OptimizerConfig(kind=case.optimizer, learning_rate=1.0),
            [table.weight],
            list(model.parameters()),
            sparse=case.sparse,
        ),
        gradient_clip=case.gradient_clip,
        seed=5,
        context=context,
        timer=PhaseTimer(context.device),
    )
    return step, table


def some_rows(seed: int = 0, *, real: int = 7, padding: int = 3) -> Rows:
    """Interactions with ratings and uneven weights, one of them zero; then padding."""
    rng = np.random.default_rng(seed)
    size = real + padding
    chosen = rng.integers(0, len(TRAIN_USERS), size)
    is_real = (np.arange(size) < real).astype(np.float32)
    weight = rng.integers(1, 24, size).astype(np.float32) / 8  # sums of eighths are exact in fp32
    weight[1] = 0.0
    return {
        "user": np.where(is_real == 1, TRAIN_USERS[chosen], 0),
        "item": np.where(is_real == 1, TRAIN_ITEMS[chosen], 0),
        "rating": (rng.uniform(1, 5, size) * is_real).astype(np.float32),
        "weight": weight * is_real,
        "real": is_real,
    }


def propagation_matrix() -> np.ndarray:
    """`D^{-1/2} A D^{-1/2}`, edge by edge."""
    degree = np.bincount(np.concatenate([TRAIN_USERS, NUM_USERS + TRAIN_ITEMS]), minlength=NUM_NODES)
    matrix = np.zeros((NUM_NODES, NUM_NODES))
    for user, item in zip(TRAIN_USERS.tolist(), (NUM_USERS + TRAIN_ITEMS).tolist(), strict=True):
        matrix[user, item] = matrix[item, user] = 1 / np.sqrt(degree[user] * degree[item])
    return matrix


def mixing_matrix(case: Case, propagation: np.ndarray | None = None) -> np.ndarray:
    """What takes the embeddings to the vectors: `(I + P + P²) / 3`, or I."""
    if case.model != "lightgcn":
        return np.eye(NUM_NODES)
    matrix = propagation_matrix() if propagation is None else propagation
    return (np.eye(NUM_NODES) + matrix + matrix @ matrix) / 3


def by_hand(
    case: Case, table: np.ndarray, rows: Rows, mixing: np.ndarray | None = None
) -> tuple[dict[str, float], np.ndarray]:
    """Losses and weights of a step, and its gradient on the table, one row of the batch after the other."""
    mixing = mixing_matrix(case) if mixing is None else mixing
    embeddings, biases = (table[:, :DIM], table[:, DIM:]) if case.model == "mf_biases" else (table, None)
    vectors = mixing @ embeddings
    on_vectors, gradient = np.zeros_like(vectors), np.zeros_like(table)
    kept = [row for row in range(len(rows["user"])) if rows["real"][row]]
    total_weight = sum(float(rows["weight"][row]) for row in kept)
    sums = {"loss": 0.0, "regulariser": 0.0, "weight": total_weight, "real": float(len(kept))}

    def add(user: int, item: int, slope: float) -> None:
        on_vectors[user] += slope * vectors[item]
        on_vectors[item] += slope * vectors[user]
        if biases is not None:
            gradient[user, DIM] += slope
            gradient[item, DIM] += slope

    def score(user: int, item: int) -> float:
        bias = 0.0 if biases is None else float(biases[user, 0] + biases[item, 0])
        return float(vectors[user] @ vectors[item]) + bias

    for row in kept:
        weight = float(rows["weight"][row])
        user, item = int(rows["user"][row]), NUM_USERS + int(rows["item"][row])
        nodes = [user, item]
        if case.loss == "bpr":
            for number in range(case.per_positive):
                other = NUM_USERS + (user * 3 + 1 + number) % NUM_ITEMS
                nodes.append(other)
                difference = score(user, item) - score(user, other)
                sums["loss"] += weight * log1p(exp(-difference)) / case.per_positive
                slope = -weight / total_weight / case.per_positive / (1 + exp(difference))
                add(user, item, slope)
                add(user, other, -slope)
        else:
            error = score(user, item) + MEAN - float(rows["rating"][row])
            sums["loss"] += weight * error**2
            add(user, item, 2 * error * weight / total_weight)
        for node in nodes:
            sums["regulariser"] += case.regulariser * 0.5 * float(table[node] @ table[node])
            gradient[node] += case.regulariser * table[node] / len(kept)
    gradient[:, : vectors.shape[1]] += mixing.T @ on_vectors
    return sums, gradient


def shares(rows: Rows, num_ranks: int) -> list[Rows]:
    """The rows of some ranks, in order and as evenly as can be."""
    cut = {name: np.array_split(values, num_ranks) for name, values in rows.items()}
    return [{name: parts[rank] for name, parts in cut.items()} for rank in range(num_ranks)]


def halves(rows: Rows) -> list[Rows]:
    """The rows of two ranks: the first half and the second, which has all the padding."""
    middle = len(rows["user"]) // 2
    return [
        {name: values[:middle] for name, values in rows.items()},
        {name: values[middle:] for name, values in rows.items()},
    ]


def train(case: Case, batches: list[Rows], context: SingleProcess | None = None) -> Mapping[str, list[np.ndarray]]:
    """Some steps: what each reports, the gradient that its optimizer saw, the table and own parameters after it.

    Of a sharded table it is this rank's rows.
    """
    step, table = make_step(case, context)
    names = ("losses", "weights", "gradients", "tables", "parameters")
    seen: Mapping[str, list[np.ndarray]] = {name: [] for name in names}
    step.optimizers[0].register_step_pre_hook(
        lambda *_: seen["gradients"].append(table.weight.grad.to_dense().numpy().copy())
    )
    for number, rows in enumerate(batches):
        result = step.run(rows, Position(epoch=1, step=number, global_step=number))
        seen["losses"].append(result.losses.numpy().copy())
        seen["weights"].append(result.weights.numpy().copy())
        seen["tables"].append(table.weight.detach().numpy().copy())
        seen["parameters"] += [parameter.detach().numpy().copy() for parameter in step.own_parameters]
    return seen
