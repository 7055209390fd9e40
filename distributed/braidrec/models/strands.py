"""An item's strands: its ID embedding and its projected modalities, absent ones treated by a policy."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from braidrec.graph.hashing import uniform_tensor
from braidrec.models.ahead import basis, coefficients
from braidrec.models.cold_id import COLD_IDS
from braidrec.models.contract import Inputs, TableSpec
from braidrec.models.fusion.strands import check_names, parameter_name
from braidrec.models.missing import MissingPolicy, ModalityDropout
from braidrec.models.projectors import Projector

ID = "id"


def feature_table(modality: str) -> str:
    """The table of a modality's trainable features."""
    return f"features/{modality}"


class ItemStrands(nn.Module):
    """Rows `[n, dim]` and presence `[n]` of every strand.

    Args:
        dim: columns of a strand.
        use_id: whether the ID embedding is one. It comes first.
        initial_std: ID embeddings start as N(0, std²).
        projectors: by modality, `[n, F]` → `[n, dim]`.
        missing: by modality, what stands for the row of an item without it.
        dropout: while training, modalities are taken away from items at random.
        cold_id: what becomes of the ID embedding of an item that training never showed, at evaluation: "keep" it as it
            is, "drop" the strand from the fusion, or what `cold_id.COLD_IDS` puts in its place.
        trainable: numbers per vector, by modality whose features are trained: each has a table of its own, which
            starts as the extracted vectors.
    """

    def __init__(
        self,
        *,
        dim: int,
        use_id: bool,
        initial_std: float = 0.1,
        projectors: Mapping[str, nn.Module],
        missing: Mapping[str, MissingPolicy],
        dropout: ModalityDropout | None = None,
        cold_id: str = "keep",
        trainable: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        if not use_id and not projectors:
            raise ValueError("a model without ID embeddings needs at least one modality")
        if ID in projectors:
            raise ValueError(f"a modality must not be called {ID!r}: that is the name of the ID embedding's strand")
        self.dim, self.use_id, self.initial_std = dim, use_id, initial_std
        self.modalities = tuple(projectors)
        self.names = ((ID,) if use_id else ()) + self.modalities
        check_names(self.names)
        self.projectors = nn.ModuleDict({parameter_name(name): each for name, each in projectors.items()})
        self.missing = nn.ModuleDict({parameter_name(name): each for name, each in missing.items()})
        self.dropout = dropout
        self.cold_id = cold_id
        self.trainable = dict(trainable or {})
        self._dropout_key = np.uint64(0)

    def draw_dropout(self) -> None:
        """Decide which modalities items lose from now on, so that an item loses the same wherever it is asked for: in
        the user–item graph, in the item graph, in a view, whole or sampled."""
        if self.dropout is not None and self.training:
            self._dropout_key = np.uint64(torch.randint(2**62, (1,)).item())

    def tables(self) -> dict[str, TableSpec]:
        """Those of trainable features."""
        return {
            feature_table(name): TableSpec(width=width, std=0.0, side="items", starts_as=name)
            for name, width in self.trainable.items()
        }

    def forward(
        self, inputs: Inputs, items: Tensor | None, only: tuple[str, ...] | None = None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Rows and presence, by strand, of some items or of all in order (None).

        Args:
            only: names of the strands that are wanted; None: all.
        """
        wanted = self.names if only is None else only
        fetched = {name: self._features(name, inputs, items) for name in wanted if name != ID}
        present = self._dropped({name: has for name, (_, has) in fetched.items()}, items, whole=only is None)
        rows: dict[str, Tensor] = {}
        counted: dict[str, Tensor] = {}
        if ID in wanted:
            rows[ID], counted[ID] = self._ids(inputs, items)
        for name, (values, _) in fetched.items():
            rows[name], counted[name] = self._policy(name)(self.project(name, values), present[name])
        return rows, counted

    def project(self, modality: str, features: Tensor) -> Tensor:
        """`[n, dim]` from `[n, F]` features of a modality."""
        projected: Tensor = self.projectors[parameter_name(modality)](features)
        return projected

    @property
    def linear(self) -> tuple[str, ...]:
        """Modalities whose rows are a linear function of frozen features: one linear map, nothing drawn at random."""
        if self.dropout is not None:
            return ()
        frozen = (name for name in self.modalities if name not in self.trainable)
        return tuple(name for name in frozen if self._projector(name).linear_map is not None)

    def basis(self, modality: str, inputs: Inputs) -> Tensor:
        """`[num_items, F + 2]`: what the rows of a linear modality are a linear function of (`models.ahead`)."""
        return basis(*inputs.features(modality, None), self._policy(modality))

    def coefficients(self, modality: str) -> Tensor:
        """`[F + 2, dim]`: that function."""
        return coefficients(self._projector(modality), self._policy(modality))

    def counted(self, modality: str, inputs: Inputs) -> Tensor:
        """`[num_items]` bool: the items whose row the fusion may use, if dropout takes none away."""
        return self._policy(modality).counts(inputs.features(modality, None)[1])

    def _features(self, modality: str, inputs: Inputs, items: Tensor | None) -> tuple[Tensor, Tensor]:
        values, present = inputs.features(modality, items)
        if modality in self.trainable:
            values = inputs.table(feature_table(modality), items)
        return values, present

    def _policy(self, modality: str) -> MissingPolicy:
        policy = self.missing[parameter_name(modality)]
        assert isinstance(policy, MissingPolicy)
        return policy

    def _projector(self, modality: str) -> Projector:
        projector = self.projectors[parameter_name(modality)]
        assert isinstance(projector, Projector)
        return projector

    def _dropped(self, present: dict[str, Tensor], items: Tensor | None, *, whole: bool) -> dict[str, Tensor]:
        if self.dropout is None or not present or not whole or not self.training:
            return present
        some = next(iter(present.values()))
        asked = torch.arange(len(some), device=some.device) if items is None else items
        columns = torch.arange(len(present), device=some.device)
        luck = uniform_tensor(self._dropout_key, asked.unsqueeze(1) * len(present) + columns)
        return dict(self.dropout(present, luck))

    def _ids(self, inputs: Inputs, items: Tensor | None) -> tuple[Tensor, Tensor]:
        """ID rows, and which of them the fusion may use."""
        cold = inputs.cold
        # Where there is nothing but the ID, it has to do.
        if self.training or self.cold_id == "keep" or cold is None or not self.modalities or not cold.any():
            rows = inputs.table("item", items)
            return rows, torch.ones(len(rows), dtype=torch.bool, device=rows.device)
        if self.cold_id == "drop":
            return inputs.table("item", items), ~(cold if items is None else cold[items])
        rows = inputs.table("item", None)
        if not cold.all():
            content = [self._content(name, inputs) for name in self.modalities] if self.cold_id == "generated" else []
            rows = COLD_IDS[self.cold_id](rows, cold, content)
        rows = rows if items is None else rows[items]
        return rows, torch.ones(len(rows), dtype=torch.bool, device=rows.device)

    def _content(self, modality: str, inputs: Inputs) -> Tensor:
        """`[num_items, dim + 1]`: all items' projected vectors of a modality and whether they have one, else zeros."""
        values, present = self._features(modality, inputs, None)
        has = present.unsqueeze(-1).to(values.dtype)
        return torch.cat([self.project(modality, values) * has, has], dim=1)
