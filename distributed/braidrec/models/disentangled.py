"""One side of a disentangled variational autoencoder: what a user has, divided among a few prototypes."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, embedding_bag, gumbel_softmax, normalize

from braidrec.graph.histories import Ragged
from braidrec.models.in_parts import in_parts
from braidrec.models.projectors import Projector

BLOCK_NUMBERS = 1 << 24
"""Numbers of the largest intermediate result of a block of columns or of pairs."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The things that users have, items or words.

    Attributes:
        embeddings: `[n, d]` of length one.
        log_shares: `[n, K]` log c, by how much each belongs to each prototype; the shares of a row add up to 1.
    """

    embeddings: Tensor
    log_shares: Tensor


@dataclass(frozen=True, kw_only=True)
class Posterior:
    """What a user is thought to be like in each prototype.

    Attributes:
        z: `[n, K, d]` drawn while training, otherwise the mean; of length one.
        log_variance: `[n, K, d]`.
    """

    z: Tensor
    log_variance: Tensor

    def kl_divergence(self) -> Tensor:
        """`[n]` `½ Σ_k Σ_d (σ² − log σ² − 1)`; means have length one and are left out, as in Ma et al."""
        return 0.5 * (self.log_variance.exp() - self.log_variance - 1).sum((-1, -2))


class Disentangled(nn.Module):
    """MacridVAE (Ma et al., Learning Disentangled Representations for Recommendation, NeurIPS 2019).

        c_i = softmax_k(cos(h_i, m_k)/τ),    x_k = (x ⊙ c_k)/‖x ⊙ c_k‖,
        (μ_k, −log σ_k²) = W₂ tanh(W₁ x_k + b₁) + b₂,    μ_k ← μ_k/‖μ_k‖,    z_k = μ_k + σ_k σ₀ ε, then length one
        p(i | z) ∝ Σ_k c_ik exp(⟨z_k, h_i⟩/τ)

    The encoder is the same for all prototypes. W₁ has a row a column of x, which comes from outside: as many as a user
    has are looked at, never a dense vector of all.

    Args:
        dim: d.
        hidden: columns of W₁.
        dropout: share of the entries of x_k that are zeroed while training.
        std: σ₀.
        temperature: τ.
        gumbel: draw c while training (Gumbel-softmax with temperature 1, on the logits) instead of taking its mode.
    """

    def __init__(self, *, dim: int, hidden: int, dropout: float, std: float, temperature: float, gumbel: bool) -> None:
        super().__init__()
        self.dropout, self.std, self.temperature, self.gumbel = dropout, std, temperature, gumbel
        self.bias = nn.Parameter(torch.zeros(hidden))
        self.heads = Projector(hidden, 2 * dim)

    def columns(self, embeddings: Tensor, prototypes: Tensor) -> Columns:
        """All columns and what they belong to.

        Args:
            embeddings: `[n, d]`.
            prototypes: `[K, d]`.
        """
        unit = normalize(embeddings, dim=-1)
        logits = unit @ normalize(prototypes, dim=-1).t() / self.temperature
        if self.training and self.gumbel:
            drawn = gumbel_softmax(logits, tau=1.0, dim=-1)
            return Columns(embeddings=unit, log_shares=drawn.clamp(min=torch.finfo(drawn.dtype).tiny).log())
        return Columns(embeddings=unit, log_shares=torch.log_softmax(logits, dim=-1))

    def posterior(self, given: Ragged, columns: Columns, first_layer: Tensor) -> Posterior:
        """What users with `given` are like.

        Args:
            given: their entries; its columns are rows of `columns` and of `first_layer`.
            first_layer: `[n, hidden]` W₁ᵀ.
        """
        rows, taken = given.rows, columns.log_shares.index_select(0, given.columns).exp()
        entries = given.weights.to(taken.dtype).unsqueeze(-1) * taken
        squares = entries.new_zeros(given.num_rows, entries.shape[1]).index_add(0, rows, entries.square())
        lengths = squares.clamp(min=torch.finfo(squares.dtype).tiny).sqrt()
        entries = dropout(entries / lengths[rows], self.dropout, self.training)
        hidden = torch.stack(
            [
                embedding_bag(given.columns, first_layer, given.offsets[:-1], mode="sum", per_sample_weights=weights)
                for weights in entries.t().contiguous()
            ],
            dim=1,
        )
        mean, negative_log_variance = self.heads(torch.tanh(hidden + self.bias)).chunk(2, dim=-1)
        mean, log_variance = normalize(mean, dim=-1), -negative_log_variance
        if not self.training:
            return Posterior(z=mean, log_variance=log_variance)
        noise = torch.randn_like(mean) * self.std
        return Posterior(z=normalize(mean + noise * (0.5 * log_variance).exp(), dim=-1), log_variance=log_variance)

    def cross_entropy(self, z: Tensor, given: Ragged, columns: Columns) -> Tensor:
        """`[n]` `−Σ_i x_i log p(i | z)`. Columns and pairs are gone through in blocks, so that nothing of rows × all
        columns × K has to be kept for the gradients."""
        columns_at_once = max(1, BLOCK_NUMBERS // max(1, len(z) * z.shape[1]))
        pairs_at_once = max(1, BLOCK_NUMBERS // (z.shape[1] * z.shape[2]))
        every = (columns.embeddings, columns.log_shares)
        total = torch.logsumexp(torch.stack(in_parts(partial(self._block, z), every, columns_at_once)), dim=0)
        rows = given.rows
        found = torch.cat(in_parts(partial(self._pairs, z, *every), (rows, given.columns), pairs_at_once))
        weighted = (found - total[rows]) * given.weights.to(found.dtype)
        return -z.new_zeros(len(z)).index_add(0, rows, weighted)

    def _block(self, z: Tensor, embeddings: Tensor, log_shares: Tensor) -> Tensor:
        """`[n]` log Σ over a block of columns and all prototypes."""
        logits = torch.einsum("nkd,bd->nkb", z, embeddings) / self.temperature + log_shares.t()
        return torch.logsumexp(logits.flatten(1), dim=-1)

    def _pairs(self, z: Tensor, embeddings: Tensor, log_shares: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """`[pairs]` unnormalised log p."""
        inner = (z[rows] * embeddings[columns].unsqueeze(1)).sum(-1) / self.temperature
        return torch.logsumexp(inner + log_shares[columns], dim=-1)
