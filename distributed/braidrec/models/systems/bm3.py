"""BM3."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from braidrec.graph.propagate import propagate_to_readout
from braidrec.graph.relation import INTERACTIONS
from braidrec.models.contract import Branch, Encoded, Inputs, LossTerm, StepContext, TableSpec
from braidrec.models.projectors import Projector
from braidrec.objectives.self_supervised.bootstrap import distance_to_target


class BM3(nn.Module):
    """Bootstrapped latent views, without negatives (Zhou et al., BM3, WWW 2023).

        h_u = mean_l (Â^l E)_u,    h_i = mean_l (Â^l E)_i + e_i,    h_i^m = W_m x_i^m + b_m,    q(h) = W h + b

    With a dropped-out copy h′ of each representation as target and C(a, b) = 1 − cos(a, stop-gradient(b)), the loss of
    an interaction (u, i) is

        C(q(h_u), h′_i) + C(q(h_i), h′_u) + λ Σ_m [C(q(h_i^m), h′_i) + C(q(h_i^m), h′_i^m)]:

    reconstruction of the graph, alignment between the modalities and the ID, and within each modality. It is the whole
    loss, so the objective's own has to be "none". A modality that an item lacks is left out of its sum. The score is
    ⟨q(h_u), q(h_i)⟩: the predictor q, one linear map, stays at evaluation.

    The regulariser shrinks h, not the embeddings, as published. Deviations from the published program: features are not
    trained, and the regulariser is `½ ‖h‖²` a row, as in the paper, where the program has the norm of a whole matrix.

    Args:
        dim: size of an embedding.
        initial_std: embeddings start as N(0, std²).
        dims: numbers per feature vector, by modality.
        layers: hops on the user–item graph.
        dropout: share of a target's entries that are zeroed.
        alignment_weight: λ.
        dtype: number format inside the hops while training, None: that of the embeddings.
    Raises:
        ValueError: no modality.
    """

    def __init__(
        self,
        *,
        dim: int,
        initial_std: float,
        dims: Mapping[str, int],
        layers: int = 1,
        dropout: float = 0.3,
        alignment_weight: float = 2.0,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not dims:
            raise ValueError("dims is empty: BM3 needs at least one modality with features")
        self.spec = TableSpec(width=dim, std=initial_std)
        self.layers, self.alignment_weight, self.dtype = layers, alignment_weight, dtype
        self.modalities = tuple(sorted(dims))
        self.projectors = nn.ModuleList(Projector(dims[name], dim) for name in self.modalities)
        self.predictor = Projector(dim, dim)
        self.dropout = nn.Dropout(dropout)
        self.term_names = (
            "reconstruction",
            *(f"{kind}_{name}" for name in self.modalities for kind in ("inter_modal", "intra_modal")),
        )

    def tables(self) -> Mapping[str, TableSpec]:
        return {"id": self.spec}

    def branches(self) -> Mapping[str, Branch]:
        return {"interactions": Branch(chain=(INTERACTIONS,) * self.layers)}

    def encode(self, inputs: Inputs) -> Encoded:
        dtype = self.dtype if self.training else None
        neighbourhood = inputs.neighbourhoods["interactions"]
        rows = inputs.table("id", neighbourhood.input_nodes)
        propagated, ego = propagate_to_readout(neighbourhood, rows, "mean", dtype=dtype)
        sides = inputs.sides(inputs.seeds)
        of_users = sides.of_users(propagated, inputs.num_users)
        of_items = sides.of_items(propagated, inputs.num_users) + sides.of_items(ego, inputs.num_users)
        online = sides.join(of_users, of_items)
        return Encoded(vectors=self.predictor(online), ego=online)

    def terms(self, encoded: Encoded, inputs: Inputs, step: StepContext) -> Mapping[str, LossTerm]:
        users, items, _ = step.rows(encoded.vectors)
        user_targets, item_targets, _ = step.rows(self.dropout(encoded.ego.detach()))
        both = distance_to_target(users, item_targets) + distance_to_target(items, user_targets)
        found = {"reconstruction": _weighted(both, step.batch.weight, 1.0)}
        for modality, projector in zip(self.modalities, self.projectors, strict=True):
            prediction, target, present = self._modality(inputs, step, modality, projector)
            weight = step.batch.weight * present
            for kind, towards in (("inter_modal", item_targets), ("intra_modal", target)):
                distance = distance_to_target(prediction, towards)
                found[f"{kind}_{modality}"] = _weighted(distance, weight, self.alignment_weight)
        return found

    def _modality(
        self, inputs: Inputs, step: StepContext, modality: str, projector: nn.Module
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`[B, d]` predictions, `[B, d]` targets and `[B]` presence of the modality, of the batch's items."""
        sides = inputs.sides(inputs.seeds)
        values, present = inputs.features(modality, sides.items)
        projected = projector(values)
        nobody = projected.new_zeros(sides.num_rows - len(projected), projected.shape[1])

        def of_items(rows: Tensor) -> Tensor:
            return step.rows(sides.join(nobody[:, : rows.shape[1]], rows))[1]

        target = self.dropout(projected.detach())
        has = of_items(present.to(projected.dtype).unsqueeze(-1)).squeeze(-1)
        return of_items(self.predictor(projected)), of_items(target), has


def _weighted(distance: Tensor, weight: Tensor, coefficient: float) -> LossTerm:
    return LossTerm(total=(distance * weight).sum(), weight=weight.sum(), coefficient=coefficient)
