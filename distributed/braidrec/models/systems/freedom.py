"""FREEDOM."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from braidrec.graph.propagate import propagate_to_last, propagate_to_readout
from braidrec.graph.relation import INTERACTIONS, PRUNED
from braidrec.models.contract import Batch, Branch, Encoded, Inputs, LossTerm, StepContext, TableSpec
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
        batch = step.batch
        if batch.negatives is None:
            raise ValueError(
                "FREEDOM compares positives with negatives: set objective.loss.kind to one that draws them"
            )
        users = encoded.vectors.index_select(0, step.places[: batch.size])
        found = {}
        for name, modality, projector in zip(self.term_names, self.modalities, self.projectors, strict=True):
            if batch.negatives.shape[1] == 1:
                differences, both = _of_pairs(inputs, modality, batch)
                worse = (projector(differences) * users).sum(-1, keepdim=True)
            else:
                worse, both = _by_item(inputs, modality, batch, users, projector)
            counted = batch.weight.unsqueeze(1) * both.to(worse.dtype) / batch.negatives.shape[1]
            total = (softplus(worse) * counted).sum()
            found[name] = LossTerm(total=total, weight=counted.sum(), coefficient=self.modality_weight)
        return found


def _of_pairs(inputs: Inputs, modality: str, batch: Batch) -> tuple[Tensor, Tensor]:
    """`[B, F]` x_j − x_i of a positive i and its one negative j, and `[B, 1]` whether both have the modality.

    The projector is linear, so that one map of the difference gives the difference of two scores.
    """
    assert batch.negatives is not None
    positive, has_positive = inputs.features(modality, batch.items)
    negative, has_negative = inputs.features(modality, batch.negatives.squeeze(1))
    return negative - positive, (has_positive & has_negative).unsqueeze(1)


def _by_item(inputs: Inputs, modality: str, batch: Batch, users: Tensor, projector: nn.Module) -> tuple[Tensor, Tensor]:
    """`[B, n]` r̂_uj − r̂_ui, and whether both items have the modality: with several negatives, of which many are the
    same, every distinct item is projected once."""
    assert batch.negatives is not None
    distinct, places = torch.unique(torch.cat([batch.items.unsqueeze(1), batch.negatives], dim=1), return_inverse=True)
    values, present = inputs.features(modality, distinct)
    rows = projector(values).index_select(0, places.reshape(-1)).view(*places.shape, -1)
    scores, has = (rows * users.unsqueeze(1)).sum(-1), present[places]
    return scores[:, 1:] - scores[:, :1], has[:, 1:] & has[:, :1]
