"""DVBPR."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from braidrec.models.contract import Branch, Encoded, Inputs, LossTerm, StepContext, TableSpec
from braidrec.models.missing import MissingToken
from braidrec.models.pictures import ItemPictures, scaled
from braidrec.objectives.gather import Gather, own_rows


@dataclass(frozen=True, kw_only=True)
class Share:
    """This rank's part of what all ranks do together at evaluation."""

    rank: int = 0
    world_size: int = 1
    gather: Gather = own_rows

    def of(self, rows: Tensor) -> Tensor:
        """Its stretch of some rows, which the ranks divide in order."""
        first, last = (len(rows) * place // self.world_size for place in (self.rank, self.rank + 1))
        return rows[first:last]


class DVBPR(nn.Module):
    """Tastes in pictures, and the network that sees them, trained together (Kang et al., DVBPR, ICDM 2017).

        x̂_ui = ⟨θ_u, Φ(X_i)⟩

    Φ is a network from pixels to K numbers. An item has nothing of its own beside its picture, so that one that nobody
    has seen yet is scored like any other. Items without a picture have one learned vector in common, which stands where
    Φ(X_i) does; it takes part in training like any other, and nobody is shown a black picture.

    A step encodes each picture of its batch once. At evaluation all are encoded, `tile` at a time, each rank a part.

    The loss gets `λ · ½‖W‖²` over the network's weights but its biases; the regulariser sees θ alone.

    Args:
        dim: K, size of θ.
        initial_std: the vector of items without a picture starts as N(0, std²).
        network: Φ, `[n, 3, S, S]` → `[n, K]`.
        pictures: of the items; None: for a model that is only looked at.
        mean, std: what is taken from a pixel of 0…1, and what it is then divided by, in red, green, blue. The
            paper's are a half each: (x − 127.5) / 127.5.
        flip: mirror every other picture while training.
        network_decay: λ.
        initial_range: θ starts as U(0, this).
        tile: pictures that are encoded together at evaluation.
        share: which of them this rank encodes.
    """

    def __init__(
        self,
        *,
        dim: int,
        initial_std: float,
        network: nn.Module,
        pictures: ItemPictures | None,
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.5, 0.5, 0.5),
        flip: bool = False,
        network_decay: float = 1e-3,
        initial_range: float = 0.01,
        tile: int = 64,
        share: Share = Share(),
    ) -> None:
        super().__init__()
        self.network, self.pictures, self.share = network, pictures, share
        self.mean, self.std = tuple(mean), tuple(std)
        self.flip, self.network_decay, self.tile = flip, network_decay, tile
        self.missing = MissingToken(dim, initial_std=initial_std)
        self.users = TableSpec(width=dim, std=initial_range, uniform=True, side="users")
        self.term_names: tuple[str, ...] = ("network",) if network_decay else ()

    def tables(self) -> Mapping[str, TableSpec]:
        return {"user": self.users}

    def branches(self) -> Mapping[str, Branch]:
        return {"own": Branch(chain=())}

    def encode(self, inputs: Inputs) -> Encoded:
        sides = inputs.sides(inputs.neighbourhoods["own"].input_nodes)
        users = inputs.table("user", sides.users)
        items = torch.arange(inputs.num_items, device=users.device) if sides.items is None else sides.items
        of_items = self._seen(items) if self.training else self._seen_in_tiles(items, whole=sides.items is None)
        ego = sides.join(users, users.new_zeros(len(items), users.shape[1]))
        return Encoded(vectors=sides.join(users, of_items), ego=ego)

    def terms(self, encoded: Encoded, inputs: Inputs, step: StepContext) -> Mapping[str, LossTerm]:
        if not self.network_decay:
            return {}
        # Matrices and kernels: what has one dimension are biases, and scales of normalisations.
        weights = [parameter for parameter in self.network.parameters() if parameter.dim() > 1]
        norm = torch.stack([weight.square().sum() for weight in weights]).sum() / 2
        rows = step.batch.real.sum()
        # A rank's share of the norm is that of the rows that it has: over all ranks it counts once.
        return {"network": LossTerm(total=norm * rows, weight=rows, coefficient=self.network_decay)}

    def _seen_in_tiles(self, items: Tensor, *, whole: bool) -> Tensor:
        """The same as `_seen`, a few items at a time; all of them (`whole`) are what all ranks ask for, and share."""
        own = self.share.of(items) if whole else items
        seen = torch.cat([self._seen(tile) for tile in torch.split(own, self.tile)])
        return self.share.gather(seen) if whole else seen

    def _seen(self, items: Tensor) -> Tensor:
        """`[n, K]` what the network makes of items' pictures, and the common vector of those without one."""
        assert self.pictures is not None, "the model was made without pictures, only to be looked at"
        rows = self.missing.token.expand(len(items), -1)
        with_picture = self.pictures.has(items).nonzero().squeeze(-1)
        if not len(with_picture):
            return rows
        shown = items[with_picture]
        pixels = self.pictures.drawn(shown, flip=self.flip) if self.training else self.pictures.middle(shown)
        if self.training and len(shown) == 1:  # batch normalisation refuses to normalise one alone
            pixels = pixels.expand(2, -1, -1, -1)
        found = self.network(scaled(pixels, self.mean, self.std).to(rows.dtype))[: len(shown)]
        return rows.index_copy(0, with_picture, found)
