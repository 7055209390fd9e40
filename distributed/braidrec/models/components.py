"""A modality of several vectors an item (regions, frames, tokens), and which of them a user looks at."""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from braidrec.models.contract import FetchFeatures
from braidrec.models.in_parts import in_parts
from braidrec.models.missing import MissingToken
from braidrec.models.projectors import Projector

COMPONENTS = "components/"
"""What stands before a modality's name where the number of each item's components is asked for, `[n, 1]`."""
PROJECTED_BYTES = 64 << 20
"""Features that are looked at together; what is made of them is an order of magnitude smaller."""


class Content:
    """The projected components of some items.

    Attributes:
        keys: `[n, M, h]` what a user's row is compared with; None where there is one component, which needs no choice.
        values: `[n, M, h′]` what is summed up.
        real: `[n, M]` bool: components that the item has.
        present: `[n]` bool.
    """

    def __init__(self, keys: Tensor | None, values: Tensor, real: Tensor, present: Tensor) -> None:
        self.keys, self.values, self.real, self.present = keys, values, real, present


class ComponentAttention(nn.Module):
    """Component-level attention (Chen et al., ACF, SIGIR 2017), and the linear map that follows its sum:

        β(i, l, m) = softmax_m(w₂ᵀ relu(W₂ᵤ u_i + W₂ₓ x_lm + b₂)),    W₁ₓ x̄(i, l) = Σ_m β(i, l, m) W₁ₓ x_lm

    The map is taken into the sum, so that a component is projected once an item, not once a pair of user and item. An
    item without the modality has a learned vector in place of `W₁ₓ x̄`.

    Args:
        modality: its name.
        components: M, of an item that has most.
        in_dim: numbers of one component.
        user_dim: size of u.
        attention_dim: h, the hidden layer of the attention.
        out_dim: h′.
        initial_std: the learned vector starts as N(0, std²).
    """

    def __init__(
        self,
        modality: str,
        *,
        components: int,
        in_dim: int,
        user_dim: int,
        attention_dim: int,
        out_dim: int,
        initial_std: float,
    ) -> None:
        super().__init__()
        self.modality, self.components, self.in_dim = modality, components, in_dim
        self.value = Projector(in_dim, out_dim, bias=False)
        self.missing = MissingToken(out_dim, initial_std=initial_std)
        self.chooses = components > 1
        if self.chooses:
            self.key = Projector(in_dim, attention_dim)
            self.query = Projector(user_dim, attention_dim, bias=False)
            self.weight = Projector(attention_dim, 1, bias=False)

    def content(self, features: FetchFeatures, items: Tensor) -> Content:
        """The projected components of `[n]` items, a block at a time: wide features are never held for all of them."""
        size = max(1, PROJECTED_BYTES // (4 * self.components * self.in_dim))
        parts = in_parts(partial(self._projected, features), (items,), size)
        keys, values, present = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        if not self.chooses:
            return Content(None, values, present.unsqueeze(-1), present)
        counts = features(f"{COMPONENTS}{self.modality}", items)[0]
        real = torch.arange(self.components, device=counts.device) < counts
        return Content(keys, values, real, present)

    def forward(self, users: Tensor, content: Content, places: Tensor) -> Tensor:
        """What users see of items.

        Args:
            users: `[n, d]`.
            places: `[n, c]` which of the items of `content` each user looks at.
        Returns:
            `[n, c, h′]` the mapped sums.
        """
        if content.keys is None:
            seen = content.values[places, 0]
        else:
            hidden = relu(self.query(users)[:, None, None] + content.keys[places])
            shares = masked_softmax(self.weight(hidden).squeeze(-1), content.real[places])
            seen = (shares.unsqueeze(-1) * content.values[places]).sum(-2)
        present = content.present[places].reshape(-1)
        filled: Tensor = self.missing(seen.reshape(-1, self.value.out_dim), present)[0]
        return filled.view_as(seen)

    def _projected(self, features: FetchFeatures, items: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Keys (or nothing), values and presence of a block; features of several are read again for gradients."""
        values, present = features(self.modality, items)
        rows = values.view(len(items), self.components, self.in_dim)
        return self.key(rows) if self.chooses else rows.new_empty(0), self.value(rows), present


def masked_softmax(scores: Tensor, real: Tensor) -> Tensor:
    """Softmax over the last dimension among what is real; zeros where nothing is."""
    hidden = scores.masked_fill(~real, torch.finfo(scores.dtype).min)
    return torch.softmax(hidden, dim=-1) * real
