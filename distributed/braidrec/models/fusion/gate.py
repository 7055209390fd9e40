"""Gates on strands."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from braidrec.models.fusion.strands import Strands, parameter_name


class StrandGate(nn.Module):
    """`g_m ⊙ h^m` with `g_m = σ(W_m e + b_m)`: how much of each dimension of a strand passes.

    e is one strand for all (the ID: behaviour decides what of an image matters, Yu et al., MGCN, ACM Multimedia 2023),
    which then passes its own gate unhindered; or each strand itself. Where strand e is absent, e is zero.

    Args:
        dims: d_m by strand.
        by: the strand e; None: each strand itself.
    Raises:
        ValueError: `by` is no strand.
    """

    def __init__(self, dims: Mapping[str, int], *, by: str | None = None) -> None:
        super().__init__()
        if by is not None and by not in dims:
            raise ValueError(f"gate_by={by!r}: choose one of the strands {sorted(dims)}")
        self.by = by
        self.gates = nn.ModuleDict(
            {
                parameter_name(name): nn.Linear(dims[name if by is None else by], dims[name])
                for name in sorted(dims)
                if name != by
            }
        )
        for gate in self.gates.values():
            assert isinstance(gate, nn.Linear)
            nn.init.xavier_uniform_(gate.weight)
            nn.init.zeros_(gate.bias)

    def forward(self, strands: Strands) -> tuple[Strands, Tensor]:
        """The strands behind their gates, and `[n, M]` how far each gate is open on average, 0 for an absent one."""
        passed, open_ = {}, []
        for name, rows in strands.rows.items():
            if name == self.by:
                passed[name] = rows
                open_.append(rows.new_ones(len(rows)))
                continue
            gate = self.gates[parameter_name(name)](rows if self.by is None else strands.rows[self.by]).sigmoid()
            passed[name] = gate * rows
            open_.append(gate.mean(-1))
        weights = torch.stack(open_, dim=-1)
        if strands.present is not None:
            weights = weights.masked_fill(~strands.present, 0.0)
        return Strands(rows=passed, present=strands.present), weights
