"""VBPR as MMRec has it."""

from collections.abc import Mapping
from functools import reduce

import torch
from torch import Tensor, nn

from braidrec.models.contract import Branch, Encoded, Inputs, TableSpec, WithoutTerms
from braidrec.models.systems.modality_rows import ModalityRows


class VBPRMM(WithoutTerms, nn.Module):
    """The model that MMRec (Zhou, ACM Multimedia Asia Workshops 2023) reports under the name of VBPR.

        x̂_ui = ⟨p_u, [q_i ‖ W [f_i^1 ‖ … ‖ f_i^M] + b]⟩

    Unlike VBPR itself it has no biases of items or features, and all modalities share one space of tastes. The linear
    map of the concatenation is the sum of one map a modality, so that for an item without modality m the summand
    `W_m f_i^m` can be a learned vector. The regulariser takes in the mapped features, as MMRec's does: `ego` is the
    vectors.

    Args:
        dim: size of q_i, and of the mapped features; p_u has twice that.
        initial_std: p and q start as N(0, std²).
        dims: numbers per feature vector, by modality.
    Raises:
        ValueError: no modality.
    """

    def __init__(self, *, dim: int, initial_std: float, dims: Mapping[str, int]) -> None:
        super().__init__()
        self.content = ModalityRows(dims, dict.fromkeys(dims, dim), initial_std=initial_std, bias=False)
        self.bias = nn.Parameter(torch.zeros(dim))
        self.users = TableSpec(width=2 * dim, std=initial_std, side="users")
        self.items = TableSpec(width=dim, std=initial_std, side="items")

    def tables(self) -> Mapping[str, TableSpec]:
        return {"user": self.users, "item": self.items}

    def branches(self) -> Mapping[str, Branch]:
        return {"own": Branch(chain=())}

    def encode(self, inputs: Inputs) -> Encoded:
        sides = inputs.sides(inputs.neighbourhoods["own"].input_nodes)
        parts = [self.content(name, *inputs.features(name, sides.items)) for name in self.content.modalities]
        mapped: Tensor = reduce(torch.add, parts) + self.bias
        of_items = torch.cat([inputs.table("item", sides.items), mapped], dim=-1)
        vectors = sides.join(inputs.table("user", sides.users), of_items)
        return Encoded(vectors=vectors, ego=vectors)
