"""ACF."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, relu

from braidrec.graph.histories import Histories
from braidrec.models.components import ComponentAttention, Content, masked_softmax
from braidrec.models.contract import Batch, Branch, Encoded, Inputs, TableSpec, WithoutTerms
from braidrec.models.in_parts import in_parts
from braidrec.models.projectors import Projector

USERS_AT_ONCE = 8192
"""Users whose histories are laid out together at evaluation."""
BLOCK_NUMBERS = 1 << 24
"""Numbers of the largest intermediate result of a block of users."""


class ACF(WithoutTerms, nn.Module):
    """Attentive collaborative filtering (Chen et al., ACF, SIGIR 2017): a user is his embedding and what he looks at.

        r̂_ij = ⟨u_i + Σ_{l ∈ R(i)} α(i, l) p_l, v_j⟩
        α(i, l) = softmax_l(w₁ᵀ relu(W₁ᵤ u_i + W₁ᵥ v_l + W₁ₚ p_l + W₁ₓ x̄(i, l) + b₁))

    R(i) are the user's train items, x̄(i, l) what he sees of the components of item l (`ComponentAttention`); with
    several modalities x̄ is one beside the other. An item has two embeddings: v as a target, p in a history.

    While training, each row of a batch leaves its own positive out of R(i): otherwise α learns to find the target there
    and the label leaks. A history longer than `history` is drawn anew in each step; at evaluation it is whole, or as
    many items as `evaluation_history` says in even steps. The regulariser sees u, and v and p of the batch's items.

    Args:
        dim: size of u, v and p.
        initial_std: they start as N(0, std²).
        dims: numbers per item, by modality.
        shapes: by modality, `(components, numbers)`, or `(numbers,)` for one vector an item.
        histories: the users' train items; None: for a model that is only looked at.
        attention_dim: hidden layer of both attentions.
        history, evaluation_history: most items of a history that are looked at, in a step and at evaluation.
    Raises:
        ValueError: no modality.
    """

    def __init__(
        self,
        *,
        dim: int,
        initial_std: float,
        dims: Mapping[str, int],
        shapes: Mapping[str, Sequence[int]],
        histories: Histories | None,
        attention_dim: int = 64,
        history: int = 50,
        evaluation_history: int = 500,
    ) -> None:
        super().__init__()
        if not dims:
            raise ValueError("dims is empty: ACF needs at least one modality with features")
        self.histories, self.history, self.evaluation_history = histories, history, evaluation_history
        self.users = TableSpec(width=dim, std=initial_std, side="users")
        self.items = TableSpec(width=dim, std=initial_std, side="items")
        self.modalities = tuple(sorted(dims))
        self.components = nn.ModuleList(
            ComponentAttention(
                name,
                components=dims[name] // shapes[name][-1],
                in_dim=shapes[name][-1],
                user_dim=dim,
                attention_dim=attention_dim,
                out_dim=attention_dim,
                initial_std=initial_std,
            )
            for name in self.modalities
        )
        self.of_user = Projector(dim, attention_dim)
        self.of_target = Projector(dim, attention_dim, bias=False)
        self.of_history = Projector(dim, attention_dim, bias=False)
        self.weight = Projector(attention_dim, 1, bias=False)
        self.widest = attention_dim * max(dims[name] // shapes[name][-1] for name in dims)

    def tables(self) -> Mapping[str, TableSpec]:
        return {"user": self.users, "item": self.items, "history": self.items}

    def branches(self) -> Mapping[str, Branch]:
        return {"own": Branch(chain=())}

    def encode(self, inputs: Inputs) -> Encoded:
        sides = inputs.sides(inputs.neighbourhoods["own"].input_nodes)
        users, items = inputs.table("user", sides.users), inputs.table("item", sides.items)
        past = inputs.table("history", sides.items)
        ego = sides.join(pad(users, (0, past.shape[1])), torch.cat([items, past], dim=-1))
        if not self.training:  # while training, it depends on the row: `users_of_rows`
            numbers = torch.arange(inputs.num_users, device=users.device) if sides.users is None else sides.users
            near = self._near(inputs, torch.arange(inputs.num_items, device=users.device))
            blocks = zip(torch.split(users, USERS_AT_ONCE), torch.split(numbers, USERS_AT_ONCE), strict=True)
            users = users + torch.cat([self._whole(block, near, of_block) for block, of_block in blocks])
        return Encoded(vectors=sides.join(users, items), ego=ego)

    def users_of_rows(self, users: Tensor, inputs: Inputs, batch: Batch) -> Tensor:
        """`[B, d]` u and what is looked at in the history without the row's own positive."""
        drawn = self._histories().drawn(batch.users, self.history, without=batch.items)
        # Also where no user has a history: with tables dealt out over workers, all have to ask for rows alike.
        distinct, places = torch.unique(drawn.items, return_inverse=True)
        return users + self._looked_at(users, self._near(inputs, distinct), places, drawn.real)

    def _histories(self) -> Histories:
        assert self.histories is not None, "the model was made without histories, only to be looked at"
        return self.histories

    def _whole(self, users: Tensor, near: "_Items", numbers: Tensor) -> Tensor:
        """What users see of their whole histories."""
        history = self._histories().spread(numbers, self.evaluation_history)
        return self._looked_at(users, near, history.items, history.real)

    def _near(self, inputs: Inputs, items: Tensor) -> "_Items":
        past, targets = inputs.table("history", items), inputs.table("item", items)
        return _Items(
            past=past,
            mapped=self.of_target(targets) + self.of_history(past),
            contents=[attention.content(inputs.features, items) for attention in self.attentions()],
        )

    def _looked_at(self, users: Tensor, near: "_Items", places: Tensor, real: Tensor) -> Tensor:
        """`[n, d]` Σ_l α(i, l) p_l, a few users at a time.

        Args:
            near: the items.
            places: `[n, c]` which of them are in each user's history.
            real: `[n, c]` bool, where there is one.
        """
        size = max(1, BLOCK_NUMBERS // (self.widest * max(1, places.shape[1])))
        return torch.cat(in_parts(partial(self._attend, near=near), (users, places, real), size))

    def attentions(self) -> list[ComponentAttention]:
        """One a modality, in alphabetical order."""
        return [module for module in self.components if isinstance(module, ComponentAttention)]

    def _attend(self, users: Tensor, places: Tensor, real: Tensor, near: "_Items") -> Tensor:
        hidden = self.of_user(users)[:, None] + near.mapped[places]
        for attention, content in zip(self.attentions(), near.contents, strict=True):
            hidden = hidden + attention(users, content, places)
        shares = masked_softmax(self.weight(relu(hidden)).squeeze(-1), real)
        return (shares.unsqueeze(-2) @ near.past[places]).squeeze(-2)


@dataclass(frozen=True, kw_only=True)
class _Items:
    """Items that are looked at.

    Attributes:
        past: `[n, d]` p.
        mapped: `[n, h]` W₁ᵥ v + W₁ₚ p.
        contents: one a modality.
    """

    past: Tensor
    mapped: Tensor
    contents: Sequence[Content]
