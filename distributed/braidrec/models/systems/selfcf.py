"""SelfCF."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from braidrec.graph.propagate import propagate_to_readout
from braidrec.graph.relation import INTERACTIONS, TARGETS
from braidrec.models.contract import Branch, Encoded, Inputs, LossTerm, StepContext, TableSpec
from braidrec.models.projectors import Projector
from braidrec.objectives.self_supervised.bootstrap import distance_to_target

TargetView = Literal["dropout", "edge_dropout"]


class SelfCF(nn.Module):
    """Bootstrapped views without negatives, of IDs alone (Zhou et al., SelfCF, ACM TORS 2023).

        h = mean_l Â^l E,    q(h) = W h + b,    loss(u, i) = ½ C(q(h_u), h′_i) + ½ C(q(h_i), h′_u)

    with C(a, b) = 1 − cos(a, stop-gradient(b)). The target h′ is another view of what the encoder gives, without a
    second encoder: h with a share of its entries dropped out, or h on interactions of which a share is left out (an
    epoch's draw, the relation `interactions~targets`, normalised by its own degrees). It is the whole loss, so the
    objective's own has to be "none". The score takes both directions,

        ⟨q(h_u), h_i⟩ + ⟨h_u, q(h_i)⟩,

    which is the inner product of [q(h_u) ‖ h_u] and [h_i ‖ q(h_i)]. The regulariser shrinks the embeddings.

    Args:
        dim: size of an embedding.
        initial_std: embeddings start as N(0, std²).
        layers: hops on the user–item graph.
        view: how targets differ: "dropout" of their entries, "edge_dropout" of the interactions they come over.
        rate: share of the entries that are dropped out; with "edge_dropout" it is the relation's business.
        dtype: number format inside the hops while training, None: that of the embeddings.
    """

    term_names: tuple[str, ...] = ("bootstrap",)

    def __init__(
        self,
        *,
        dim: int,
        initial_std: float,
        layers: int = 2,
        view: TargetView = "dropout",
        rate: float = 0.5,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.spec = TableSpec(width=dim, std=initial_std)
        self.layers, self.view, self.dtype = layers, view, dtype
        self.predictor = Projector(dim, dim)
        self.dropout = nn.Dropout(rate if view == "dropout" else 0.0)

    def tables(self) -> Mapping[str, TableSpec]:
        return {"id": self.spec}

    def branches(self) -> Mapping[str, Branch]:
        online = {"interactions": Branch(chain=(INTERACTIONS,) * self.layers)}
        if self.view == "dropout":
            return online
        return online | {"targets": Branch(chain=None, training=(TARGETS,) * self.layers)}

    def encode(self, inputs: Inputs) -> Encoded:
        propagated, ego = self._propagated(inputs, "interactions")
        predicted = self.predictor(propagated)
        sides, num_users = inputs.sides(inputs.seeds), inputs.num_users
        of_users = torch.cat([sides.of_users(predicted, num_users), sides.of_users(propagated, num_users)], dim=-1)
        of_items = torch.cat([sides.of_items(propagated, num_users), sides.of_items(predicted, num_users)], dim=-1)
        outputs = {"propagated": propagated, "predicted": predicted}
        return Encoded(vectors=sides.join(of_users, of_items), ego=ego, outputs=outputs)

    def terms(self, encoded: Encoded, inputs: Inputs, step: StepContext) -> Mapping[str, LossTerm]:
        users, items, _ = step.rows(encoded.outputs["predicted"])
        user_targets, item_targets, _ = step.rows(self._targets(encoded, inputs))
        both = distance_to_target(users, item_targets) + distance_to_target(items, user_targets)
        weight = step.batch.weight
        return {"bootstrap": LossTerm(total=(0.5 * both * weight).sum(), weight=weight.sum(), coefficient=1.0)}

    def _targets(self, encoded: Encoded, inputs: Inputs) -> Tensor:
        """`[num_seeds, d]` h′, without gradient."""
        if self.view == "dropout":
            dropped: Tensor = self.dropout(encoded.outputs["propagated"].detach())
            return dropped
        with torch.no_grad():
            return self._propagated(inputs, "targets")[0]

    def _propagated(self, inputs: Inputs, branch: str) -> tuple[Tensor, Tensor]:
        """h and E at the seeds."""
        neighbourhood = inputs.neighbourhoods[branch]
        rows = inputs.table("id", neighbourhood.input_nodes)
        return propagate_to_readout(neighbourhood, rows, "mean", dtype=self.dtype if self.training else None)
