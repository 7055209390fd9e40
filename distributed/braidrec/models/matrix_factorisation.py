"""Matrix factorisation: no graph."""

from collections.abc import Mapping

import torch
from torch import nn

from braidrec.models.contract import Branch, Encoded, Inputs, TableSpec, WithoutTerms


class MatrixFactorisation(WithoutTerms, nn.Module):
    """`r̂_ui = ⟨e_u, e_i⟩`, or `⟨e_u, e_i⟩ + b_u + b_i` (Koren, Bell & Volinsky, Computer 42(8), 2009).

    With biases the vectors carry two more dimensions, `(e_u, b_u, 1)` and `(e_i, 1, b_i)`, so that the score stays an
    inner product. Trained with BPR it is BPR-MF (Rendle et al., UAI 2009).

    Args:
        dim: size of an embedding.
        initial_std: embeddings start as N(0, std²), biases at zero.
        biases: learn one a user and one an item.
    """

    def __init__(self, *, dim: int, initial_std: float, biases: bool = False) -> None:
        super().__init__()
        self.spec = TableSpec(width=dim + biases, std=initial_std, zero_columns=int(biases))
        self.biases = biases

    def tables(self) -> Mapping[str, TableSpec]:
        return {"id": self.spec}

    def branches(self) -> Mapping[str, Branch]:
        return {"id": Branch(chain=())}

    def encode(self, inputs: Inputs) -> Encoded:
        rows = inputs.table("id", inputs.neighbourhoods["id"].input_nodes)
        if not self.biases:
            return Encoded(vectors=rows, ego=rows)
        embedding, bias = rows[:, :-1], rows[:, -1:]
        nodes = torch.arange(len(rows), device=rows.device) if inputs.seeds is None else inputs.seeds
        is_user = (nodes < inputs.num_users).unsqueeze(-1)
        one = torch.ones_like(bias)
        vectors = torch.cat([embedding, torch.where(is_user, bias, one), torch.where(is_user, one, bias)], dim=-1)
        return Encoded(vectors=vectors, ego=rows)
