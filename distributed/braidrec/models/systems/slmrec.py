"""SLMRec."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from braidrec.graph.propagate import combine_levels, propagate_to_readout
from braidrec.graph.relation import INTERACTIONS
from braidrec.models.contract import Branch, Encoded, Inputs, LossTerm, StepContext, TableSpec
from braidrec.models.projectors import Projector
from braidrec.models.systems.modality_rows import ModalityRows
from braidrec.objectives.in_batch_softmax import InBatchSoftmax
from braidrec.objectives.self_supervised.info_nce import InfoNCE

SelfSupervision = Literal["alignment", "dropout", "masking", "dropout_and_masking", "none"]
_VIEWS = ("dropout", "masking", "dropout_and_masking")


class SLMRec(nn.Module):
    """Self-supervision on modalities that are propagated each on its own (Tao et al., SLMRec, IEEE TMM 2022).

    The ID (m = 0) and each modality is propagated over the interactions, from one user embedding e_u in all of them:

        H^m = mean_l Â^l [E_U; X^m],    x_i^0 = e_i,    x_i^m = W_m f_i^m + b_m,    l = 0..L
        z_u = W_U [h_u^0 ‖ … ‖ h_u^M] + b_U,    z_i = W_I [h_i^0 ‖ … ‖ h_i^M] + b_I

    The loss of an interaction is a softmax of cosines over the items of the batch (temperature τ); the score is the
    inner product. As it is the whole supervised loss, the objective's own has to be "none". One of these goes with it:

    * **alignment** in ever coarser spaces, by InfoNCE of inner products among the batch's items, from `s_0 = h_i^0`:
      `s_k = G_k s_{k-1}` against `P_k h_i^m` for the k-th modality m. Spaces have d numbers, the last of several d/2.
      An item takes part where it has the modality.
    * **dropout**: two views of z, in both of which numbers are dropped out after every hop, by InfoNCE of cosines among
      the batch's users and items.
    * **masking**: likewise two views, each with the items' rows of another m set to zero at the start, drawn anew in
      every step from the ID and the modalities; or dropout and masking together.

    Negatives are the batch's other users or items: where the published program takes the same item in another row, or
    another item of the same user, for a negative, these are left out. Features are expected to have length 1.

    Args:
        dim: d.
        initial_std: embeddings start as N(0, std²).
        dims: numbers per feature vector, by modality.
        layers: L.
        temperature: τ.
        self_supervision: which task.
        weight: of the task in the loss.
        task_temperature: of the task's InfoNCE.
        dropout: share of the numbers that are dropped out after a hop, in views with dropout.
        alignment_order: modalities from the first to the last space; None: alphabetical. Published: visual, acoustic,
            textual.
        dtype: number format inside the hops while training, None: that of the embeddings.
    Raises:
        ValueError: no modality, or an order that does not name each once.
    """

    def __init__(
        self,
        *,
        dim: int,
        initial_std: float,
        dims: Mapping[str, int],
        layers: int = 3,
        temperature: float = 0.2,
        self_supervision: SelfSupervision = "alignment",
        weight: float = 0.1,
        task_temperature: float = 0.2,
        dropout: float = 0.3,
        alignment_order: Sequence[str] | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        order = tuple(sorted(dims) if alignment_order is None else alignment_order)
        if sorted(order) != sorted(dims):
            raise ValueError(f"alignment_order={list(order)} must name each of the modalities {sorted(dims)} once")
        self.content = ModalityRows(dims, dict.fromkeys(dims, dim), initial_std=initial_std)
        self.spec = TableSpec(width=dim, std=initial_std)
        self.layers, self.temperature, self.dtype = layers, temperature, dtype
        self.self_supervision, self.weight, self.task_temperature = self_supervision, weight, task_temperature
        width = dim * (1 + len(dims))
        self.user_map, self.item_map = Projector(width, dim), Projector(width, dim)
        self.dropout = nn.Dropout(dropout if "dropout" in self_supervision else 0.0)
        self.order = order if self_supervision == "alignment" else ()
        self.spaces, self.entries = _alignment_maps(dim, len(self.order))
        self.term_names = (
            "ranking",
            *(f"alignment_{name}" for name in self.order),
            *(("views",) if self_supervision in _VIEWS else ()),
        )

    def tables(self) -> Mapping[str, TableSpec]:
        return {"id": self.spec}

    def branches(self) -> Mapping[str, Branch]:
        return {"interactions": Branch(chain=(INTERACTIONS,) * self.layers)}

    def encode(self, inputs: Inputs) -> Encoded:
        """Vectors of the seeds; `outputs` holds h of the "id" and of every "modality_…", and who "has_…" it."""
        neighbourhood = inputs.neighbourhoods["interactions"]
        dtype = self.dtype if self.training else None
        rows, present = self._start(inputs)
        h = [propagate_to_readout(neighbourhood, start, "mean", dtype=dtype)[0] for start in rows]
        outputs = {"id": h[0]}
        for name, strand, has in zip(self.content.modalities, h[1:], present, strict=True):
            outputs |= {f"modality_{name}": strand, f"has_{name}": neighbourhood.at_seeds(has, 0)}
        ego = neighbourhood.at_seeds(rows[0], 0)
        return Encoded(vectors=self._fused(inputs, h), ego=ego, outputs=outputs)

    def terms(self, encoded: Encoded, inputs: Inputs, step: StepContext) -> Mapping[str, LossTerm]:
        users, items, _ = step.rows(encoded.vectors)
        softmax = InBatchSoftmax(temperature=self.temperature, log_popularity=None, cosine=True, gather=step.gather)
        ranking = softmax.rows(users, items, None, step.batch)
        found = {"ranking": _term(ranking, step.batch.weight, 1.0)}
        if self.self_supervision == "alignment":
            found |= self._alignment(encoded.outputs, step)
        elif self.self_supervision in _VIEWS:
            found["views"] = self._views(inputs, step)
        return found

    def _start(self, inputs: Inputs) -> tuple[list[Tensor], list[Tensor]]:
        """Level 0 of the ID and of every modality, and which rows of level 0 have that modality (users: none)."""
        nodes = inputs.neighbourhoods["interactions"].input_nodes
        sides = inputs.sides(nodes)
        ids = inputs.table("id", nodes)
        users = sides.of_users(ids, inputs.num_users)
        rows, presence = [ids], []
        for name in self.content.modalities:
            values, present = inputs.features(name, sides.items)
            rows.append(sides.join(users, self.content(name, values, present)))
            presence.append(sides.join(present.new_zeros(len(users)), present))
        return rows, presence

    def _fused(self, inputs: Inputs, h: Sequence[Tensor]) -> Tensor:
        """z of the seeds."""
        sides, beside = inputs.sides(inputs.seeds), torch.cat(list(h), dim=-1)
        of_users = self.user_map(sides.of_users(beside, inputs.num_users))
        return sides.join(of_users, self.item_map(sides.of_items(beside, inputs.num_users)))

    def _alignment(self, outputs: Mapping[str, Tensor], step: StepContext) -> dict[str, LossTerm]:
        info_nce = InfoNCE(temperature=self.task_temperature, cosine=False, gather=step.gather)
        found, coarse = {}, step.rows(outputs["id"])[1]
        for name, space, entry in zip(self.order, self.spaces, self.entries, strict=True):
            coarse = space(coarse)
            fine = entry(step.rows(outputs[f"modality_{name}"])[1])
            weight = step.batch.real * step.rows(outputs[f"has_{name}"])[1]
            rows = info_nce.rows(coarse, fine, weight, step.batch.items)
            found[f"alignment_{name}"] = _term(rows, weight, self.weight)
        return found

    def _views(self, inputs: Inputs, step: StepContext) -> LossTerm:
        info_nce = InfoNCE(temperature=self.task_temperature, gather=step.gather)
        # Projected once more than for the vectors: level 0 is no part of what `encode` may hand over.
        rows, _ = self._start(inputs)
        masked: Sequence[int | None] = (None, None)
        if "masking" in self.self_supervision:
            # The first rank's draw, so that all ranks compare views of one kind.
            masked = step.gather(torch.randperm(len(rows), device=rows[0].device)[:2])[:2].tolist()
        first, second = (step.rows(self._view(inputs, rows, place)) for place in masked)
        weight = step.batch.real
        of_users = info_nce.rows(first[0], second[0], weight, step.batch.users)
        of_items = info_nce.rows(first[1], second[1], weight, step.batch.items)
        return _term(of_users + of_items, weight, self.weight)

    def _view(self, inputs: Inputs, rows: Sequence[Tensor], masked: int | None) -> Tensor:
        """z of the seeds from the rows of level 0, those of the items zero for one m, with dropout after each hop."""
        neighbourhood = inputs.neighbourhoods["interactions"]
        sides = inputs.sides(neighbourhood.input_nodes)
        h = []
        for place, start in enumerate(rows):
            z = start
            if place == masked:
                users = sides.of_users(start, inputs.num_users)
                z = sides.join(users, users.new_zeros(sides.num_rows - len(users), users.shape[1]))
            levels, z = [neighbourhood.at_seeds(z, 0)], z.to(self.dtype or z.dtype)
            for level, hop in enumerate(neighbourhood.hops, start=1):
                z = self.dropout(hop.aggregate(z))
                levels.append(neighbourhood.at_seeds(z, level).to(start.dtype))
            h.append(combine_levels(levels, "mean"))
        return self._fused(inputs, h)


def _alignment_maps(dim: int, number: int) -> tuple[nn.ModuleList, nn.ModuleList]:
    """G_k and P_k of every space."""
    widths = [dim] * number
    if number > 1:
        widths[-1] = max(1, dim // 2)
    before = [dim, *widths[:-1]]
    spaces = [Projector(source, width) for source, width in zip(before, widths, strict=True)] if number else []
    # A bias of P_k would add the same to a row's logits, its positive's included: no softmax could see it.
    return nn.ModuleList(spaces), nn.ModuleList(Projector(dim, width, bias=False) for width in widths)


def _term(rows: Tensor, weight: Tensor, coefficient: float) -> LossTerm:
    return LossTerm(total=(rows * weight).sum(), weight=weight.sum(), coefficient=coefficient)
