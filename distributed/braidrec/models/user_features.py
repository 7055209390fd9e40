"""What is known of users beside their interactions, as summands of their embeddings."""

from collections.abc import Mapping

from torch import Tensor, nn

from braidrec.models.contract import Inputs
from braidrec.models.fusion.strands import parameter_name
from braidrec.models.missing import MissingPolicy

USER_SIDE = "user/"
"""What the names of the users' modalities begin with where those of items and users are asked for alike."""


class UserFeatures(nn.Module):
    """`h_u = e_u + Σ_m P_m(x_u^m)`: a user's row before propagation, absent modalities treated by a policy.

    Args:
        projectors: by modality, `[n, F]` → as many columns as the users' table has.
        missing: by modality, what stands for the row of a user without it.
    """

    def __init__(self, *, projectors: Mapping[str, nn.Module], missing: Mapping[str, MissingPolicy]) -> None:
        super().__init__()
        self.modalities = tuple(sorted(projectors))
        self.projectors = nn.ModuleDict({parameter_name(name): projectors[name] for name in self.modalities})
        self.missing = nn.ModuleDict({parameter_name(name): missing[name] for name in self.modalities})

    def forward(self, inputs: Inputs, users: Tensor | None, embeddings: Tensor) -> Tensor:
        """`[n, width]` rows of some users, or of all in order (None), from their embeddings."""
        rows = embeddings
        for name in self.modalities:
            values, present = inputs.features(f"{USER_SIDE}{name}", users)
            filled, _ = self.missing[parameter_name(name)](self.projectors[parameter_name(name)](values), present)
            rows = rows + filled
        return rows
