"""ADDVAE."""

from collections.abc import Mapping
from math import sqrt
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from braidrec.graph.histories import Histories, Ragged
from braidrec.graph.user_words import UserWords
from braidrec.models.contract import Branch, Encoded, Inputs, LossTerm, Mixture, StepContext, TableSpec
from braidrec.models.disentangled import Columns, Disentangled, Posterior
from braidrec.models.sides import Sides

USERS_AT_ONCE = 4096


class ADDVAE(nn.Module):
    """Aligned dual disentangled VAEs (Tran & Lauw, KDD 2022): one of a user's items, one of his words.

    Both sides are `Disentangled`, x being the user's train items (0 or 1) and the TF-IDF of their words. Their factors
    are aligned by compositional de-attention (Tay et al., NeurIPS 2019), from each side to the other:

        A(q, k) = tanh(q kᵀ/√d) ⊙ σ(N − mean(N)),    N = −‖q − k‖₁/√d,    over pairs of the K factors of a user
        t = A(z_items, z_words) z_words,    s = A(z_words, z_items) z_items,    z = s + t

    From z both sides are reconstructed. With β = min(β_max, step/anneal_steps), the loss of a user is

        CE_items + β KL_items + λ_text (CE_words + β KL_words) + λ_reg mean_k ‖s_k − t_k‖²

    It is the whole loss, so the objective's own has to be "none", and batches are of users (`training.order: users`).
    An item's score is `log Σ_k c_ik exp(⟨z_k, h_i⟩/τ)`, which is no inner product: see `ScoresByMixture`.

    With `prototypes_of: both` items and words belong to the same K vectors, so that a prototype is read by both.

    Args:
        dim: d.
        initial_std: items, words, prototypes and both encoders' first layers start as N(0, std²).
        histories: the users' train items; None: for a model that is only looked at, as `words`.
        words: their words.
        prototypes, prototypes_of: K; whether both sides have the same or each its own.
        hidden, dropout, std, temperature, gumbel: as for `Disentangled`.
        beta, anneal_steps: β_max, and the steps in which β would rise to 1.
        text_weight, alignment_weight: λ_text, λ_reg.
    """

    term_names: tuple[str, ...] = ("items", "kl_items", "words", "kl_words", "alignment")

    def __init__(
        self,
        *,
        dim: int,
        initial_std: float,
        histories: Histories | None,
        words: UserWords | None,
        prototypes: int = 4,
        prototypes_of: Literal["both", "each"] = "both",
        hidden: int = 200,
        dropout: float = 0.5,
        std: float = 0.075,
        temperature: float = 0.1,
        gumbel: bool = True,
        beta: float = 0.2,
        anneal_steps: int = 20_000,
        text_weight: float = 0.2,
        alignment_weight: float = 0.2,
    ) -> None:
        super().__init__()
        self.histories, self.words = histories, words
        self.dim, self.components = dim, prototypes
        self.mixture = Mixture(components=prototypes, dim=dim, temperature=temperature)
        self.beta, self.anneal_steps = beta, anneal_steps
        self.text_weight, self.alignment_weight = text_weight, alignment_weight
        self.items = TableSpec(width=dim, std=initial_std, side="items", every_row=True)
        self.first = TableSpec(width=hidden, std=initial_std, side="items")
        num_words = 1 if words is None else words.num_words
        self.word_embeddings = nn.Parameter(torch.randn(num_words, dim) * initial_std)
        self.word_first = nn.Parameter(torch.randn(num_words, hidden) * initial_std)
        self.prototypes = nn.Parameter(torch.randn(prototypes, dim) * initial_std)
        self.word_prototypes = (
            nn.Parameter(torch.randn(prototypes, dim) * initial_std) if prototypes_of == "each" else None
        )

        def side() -> Disentangled:
            return Disentangled(
                dim=dim, hidden=hidden, dropout=dropout, std=std, temperature=temperature, gumbel=gumbel
            )

        self.of_items, self.of_words = side(), side()

    def tables(self) -> Mapping[str, TableSpec]:
        return {"item": self.items, "encoder": self.first}

    def branches(self) -> Mapping[str, Branch]:
        return {"own": Branch(chain=())}

    def columns(self, embeddings: Tensor) -> tuple[Columns, Columns]:
        """Items and words, and the prototypes that they belong to.

        Args:
            embeddings: `[num_items, d]`.
        """
        other = self.prototypes if self.word_prototypes is None else self.word_prototypes
        items = self.of_items.columns(embeddings, self.prototypes)
        return items, self.of_words.columns(self.word_embeddings, other)

    def encode(self, inputs: Inputs) -> Encoded:
        """Users' vectors are their K factors one after the other; items' are h and log c, then zeros."""
        sides = inputs.sides(inputs.neighbourhoods["own"].input_nodes)
        rows = inputs.table("item", sides.items)
        if self.training:  # what training needs stands with the loss: `terms`
            users = rows.new_zeros(sides.num_rows - len(rows), self.width)
            return Encoded(vectors=sides.join(users, pad(rows, (0, self.width - self.dim))), ego=self._ego(sides, rows))
        items, words = self.columns(rows if sides.items is None else inputs.table("item", None))
        first = inputs.table("encoder", None)
        wanted = torch.arange(inputs.num_users, device=rows.device) if sides.users is None else sides.users
        factors = [
            self._aligned(*self._posteriors(block, items, words, first)[:2])[0].flatten(1)
            for block in torch.split(wanted, USERS_AT_ONCE)
        ]
        joined = torch.cat([items.embeddings, items.log_shares], dim=-1)
        joined = joined if sides.items is None else joined.index_select(0, sides.items)
        of_users = torch.cat(factors) if factors else rows.new_zeros(0, self.components * self.dim)
        vectors = sides.join(
            pad(of_users, (0, self.width - of_users.shape[1])), pad(joined, (0, self.width - joined.shape[1]))
        )
        return Encoded(vectors=vectors, ego=self._ego(sides, rows))

    def terms(self, encoded: Encoded, inputs: Inputs, step: StepContext) -> Mapping[str, LossTerm]:
        batch = step.batch
        items, words = self.columns(inputs.table("item", None))
        of_items, of_words, given, written = self._posteriors(batch.users, items, words, None, inputs)
        z, distance = self._aligned(of_items, of_words)
        beta = min(self.beta, (step.global_step + 1) / self.anneal_steps) if self.anneal_steps else self.beta
        found = {
            "items": (self.of_items.cross_entropy(z, given, items), 1.0),
            "kl_items": (of_items.kl_divergence(), beta),
            "words": (self.of_words.cross_entropy(z, written, words), self.text_weight),
            "kl_words": (of_words.kl_divergence(), self.text_weight * beta),
            "alignment": (distance, self.alignment_weight),
        }
        weight = batch.weight.sum()
        return {
            name: LossTerm(total=(values * batch.weight).sum(), weight=weight, coefficient=coefficient)
            for name, (values, coefficient) in found.items()
        }

    @property
    def width(self) -> int:
        """Columns of a vector."""
        return max(self.components * self.dim, self.components + self.dim)

    def _posteriors(
        self, users: Tensor, items: Columns, words: Columns, first: Tensor | None, inputs: Inputs | None = None
    ) -> tuple[Posterior, Posterior, Ragged, Ragged]:
        """Both sides of some users, and what they were made from.

        Args:
            first: the first layer of the items' encoder; None: of `inputs`, the rows that these users need.
        """
        assert self.histories is not None and self.words is not None, "made to be looked at only"
        given, written = self.histories.whole(users), self.words.rows(users)
        if first is None:
            assert inputs is not None
            distinct, places = torch.unique(given.columns, return_inverse=True)
            near = Ragged(columns=places, weights=given.weights, offsets=given.offsets)
            some = Columns(embeddings=items.embeddings[distinct], log_shares=items.log_shares[distinct])
            of_items = self.of_items.posterior(near, some, inputs.table("encoder", distinct))
        else:
            of_items = self.of_items.posterior(given, items, first)
        return of_items, self.of_words.posterior(written, words, self.word_first), given, written

    def _aligned(self, of_items: Posterior, of_words: Posterior) -> tuple[Tensor, Tensor]:
        """`[n, K, d]` the factors that both sides are reconstructed from, and `[n]` how far the sides are apart."""
        from_words = de_attention(of_items.z, of_words.z)
        from_items = de_attention(of_words.z, of_items.z)
        return from_items + from_words, (from_items - from_words).square().sum(-1).mean(-1)

    def _ego(self, sides: Sides, rows: Tensor) -> Tensor:
        return sides.join(rows.new_zeros(sides.num_rows - len(rows), rows.shape[1]), rows)


def de_attention(query: Tensor, key: Tensor) -> Tensor:
    """`[n, K, d]` keys composed for each query: added where they agree with it, subtracted where they oppose it, left
    out where they are far away (Tay et al., Compositional De-Attention Networks, NeurIPS 2019)."""
    scale = sqrt(query.shape[-1])
    agreement = torch.tanh(query @ key.transpose(-1, -2) / scale)
    nearness = -torch.cdist(query, key, p=1.0) / scale
    composed: Tensor = (agreement * torch.sigmoid(nearness - nearness.mean(-1, keepdim=True))) @ key
    return composed
