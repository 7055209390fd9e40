"""FREEDOM."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from braidrec.graph.propagate import propagate_to_last, propagate_to_readout
from braidrec.graph.relation import INTERACTIONS, PRUNED
from braidrec.models.contract import Branch, Encoded, Inputs, LossTerm, StepContext, TableSpec
from braidrec.models.projectors import Projector


class Freedom(nn.Module):
    """A frozen item–item graph and a denoised user–item graph (Zhou & Shen, FREEDOM, ACM Multimedia 2023).

        ê_u = mean_l (Â^l E)_u,    ê_i = mean_l (Â^l E)_i + (S^{L_i} E)_i,    l = 0..L

    Â is the normalised interaction graph: while training what the pruning of the epoch left of it (relation
    `interactions~pruned`, normalised by its own degrees), at evaluation the whole one. S is the relation `content`, the
    weighted sum of the modalities' normalised k-nearest-neighbour graphs, which never changes. Features do not enter
    the vectors otherwise. Beside the objective (BPR, without a regulariser) there is for each modality m

        λ · BPR(⟨ê_u, h_i^m⟩ − ⟨ê_u, h_j^m⟩),    h^m = W_m x^m.

    (The paper's b_m is the same in both scores, and without effect.) Pairs in which an item lacks the modality are left
    out of its term. Deviations from the published program: features are not trained (the paper says they are not), and
    an item is not its own neighbour.

    Args:
        dim: size of an embedding.
        initial_std: embeddings start as N(0, std²).
        dims: numbers per feature vector, by modality.
        layers: L, hops on the user–item graph.
        item_layers: L_i, hops on the item–item graph.
        modality_weight: λ.
        dtype: number format inside the hops while training, None: that of the embeddings.
    Raises:
        ValueError: no modality, or fewer than one hop on the item–item graph.
    """

    def __init__(
        self,
        *,
        dim: int,
        initial_std: float,
        dims: Mapping[str, int],
        layers: int = 2,
        item_layers: int = 1,
        modality_weight: float = 1e-3,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not dims:
            raise ValueError("dims is empty: FREEDOM needs at least one modality with features")
        if item_layers < 1:
            raise ValueError(f"item_layers={item_layers} must be at least 1")
        self.spec = TableSpec(width=dim, std=initial_std)
        self.layers, self.item_layers = layers, item_layers
        self.modality_weight = modality_weight
        self.dtype = dtype
        self.modalities = tuple(sorted(dims))
        self.projectors = nn.ModuleList(Projector(dims[name], dim, bias=False) for name in self.modalities)
        self.term_names = tuple(f"bpr_{name}" for name in self.modalities)

    def tables(self) -> Mapping[str, TableSpec]:
        return {"id": self.spec}

    def branches(self) -> Mapping[str, Branch]:
        return {
            "interactions": Branch(chain=(INTERACTIONS,) * self.layers, training=(PRUNED,) * self.layers),
            "content": Branch(chain=("content",) * self.item_layers),
        }

    def encode(self, inputs: Inputs) -> Encoded:
        dtype = self.dtype if self.training else None
        behaviour, content = inputs.neighbourhoods["interactions"], inputs.neighbourhoods["content"]
        vectors, ego = propagate_to_readout(behaviour, inputs.table("id", behaviour.input_nodes), "mean", dtype=dtype)
        # Users have no edges in the item–item graph, so that nothing is added to theirs.
        added = propagate_to_last(content, inputs.table("id", content.input_nodes), dtype=dtype)
        return Encoded(vectors=vectors + added, ego=ego)

    def terms(self, encoded: Encoded, inputs: Inputs, step: StepContext) -> Mapping[str, LossTerm]:
        sides = inputs.sides(inputs.seeds)
        users, positives, negatives = step.batch.split(step.places)
        if negatives is None:
            raise ValueError(
                "FREEDOM compares positives with negatives: set objective.loss.kind to one that draws them"
            )
        of_users = encoded.vectors.index_select(0, users)
        # Seeds are in increasing order: users first. Positives and negatives are read in one go, one after the other.
        items = torch.cat([positives.unsqueeze(1), negatives], dim=1) - sides.leading_users(inputs.num_users)
        found = {}
        for name, modality, projector in zip(self.term_names, self.modalities, self.projectors, strict=True):
            values, present = inputs.features(modality, sides.items)
            scores = _scores(of_users, projector(values), items)
            total, weight = _bpr_where_present(scores, present[items].to(scores.dtype), step.batch.weight)
            found[name] = LossTerm(total=total, weight=weight, coefficient=self.modality_weight)
        return found


def _scores(of_users: Tensor, of_items: Tensor, items: Tensor) -> Tensor:
    """`[B, 1 + n]` inner products of each user with the rows `items` `[B, 1 + n]` of `of_items`."""
    rows = of_items.index_select(0, items.reshape(-1)).view(*items.shape, -1)
    return (rows * of_users.unsqueeze(1)).sum(-1)


def _bpr_where_present(scores: Tensor, present: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """`Σ w softplus(r̂_uj − r̂_ui)` and `Σ w` over the pairs of a positive i and a negative j that both count.

    Args:
        scores: `[B, 1 + n]` of the positive and of the negatives.
        present: `[B, 1 + n]` 1 for an item that counts, otherwise 0.
        weight: `[B]` of the rows.
    """
    counted = (weight * present[:, 0]).unsqueeze(1) * present[:, 1:] / (present.shape[1] - 1)
    return (softplus(scores[:, 1:] - scores[:, :1]) * counted).sum(), counted.sum()
