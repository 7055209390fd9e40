"""VBPR."""

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn.functional import pad

from braidrec.models.contract import Branch, Encoded, Inputs, TableSpec, WithoutTerms
from braidrec.models.systems.modality_rows import ModalityRows


class VBPR(WithoutTerms, nn.Module):
    """Matrix factorisation with tastes in what an item looks like (He & McAuley, VBPR, AAAI 2016).

        x̂_ui = β_i + ⟨γ_u, γ_i⟩ + Σ_m ⟨θ_u^m, E_m f_i^m⟩ + ⟨β′_m, f_i^m⟩

    The paper has one modality, the image; here each has an E, a β′ and a part of θ_u. Its offset and its bias of the
    user change no order of items and are left out. For an item without modality m, `E_m f` and `⟨β′_m, f⟩` are learned
    numbers of the modality. As in the paper, E and β′ are not regularised: `ego` is what users and items have of their
    own.

    The vectors are `(γ_u, θ_u^1, …, θ_u^M, 1)` and `(γ_i, E_1 f_i^1, …, E_M f_i^M, β_i + Σ_m ⟨β′_m, f_i^m⟩)`.

    Args:
        dim: size of γ.
        initial_std: γ and θ start as N(0, std²), β and β′ at zero.
        dims: numbers per feature vector, by modality.
        content_dim: size of θ_u^m.
    Raises:
        ValueError: no modality.
    """

    def __init__(self, *, dim: int, initial_std: float, dims: Mapping[str, int], content_dim: int = 64) -> None:
        super().__init__()
        self.content = ModalityRows(dims, dict.fromkeys(dims, content_dim), initial_std=initial_std, bias=False)
        self.content_bias = ModalityRows(dims, dict.fromkeys(dims, 1), initial_std=initial_std, bias=False)
        for parameter in self.content_bias.parameters():
            nn.init.zeros_(parameter)
        user_width = dim + content_dim * len(dims)
        self.users = TableSpec(width=user_width, std=initial_std, side="users")
        self.items = TableSpec(width=dim + 1, std=initial_std, zero_columns=1, side="items")

    def tables(self) -> Mapping[str, TableSpec]:
        return {"user": self.users, "item": self.items}

    def branches(self) -> Mapping[str, Branch]:
        return {"own": Branch(chain=())}

    def encode(self, inputs: Inputs) -> Encoded:
        sides = inputs.sides(inputs.neighbourhoods["own"].input_nodes)
        users, items = inputs.table("user", sides.users), inputs.table("item", sides.items)
        parts, bias = [items[:, :-1]], items[:, -1:]
        for name in self.content.modalities:
            values, present = inputs.features(name, sides.items)
            parts.append(self.content(name, values, present))
            bias = bias + self.content_bias(name, values, present)
        of_users = torch.cat([users, users.new_ones(len(users), 1)], dim=-1)
        of_items = torch.cat([*parts, bias], dim=-1)
        ego = sides.join(users, pad(items, (0, users.shape[1] - items.shape[1])))
        return Encoded(vectors=sides.join(of_users, of_items), ego=ego)
