"""Learned hypergraphs: a few hyperedges per modality, to which every item and user belongs by degrees.

Guo et al., LGMRec (AAAI 2024). With X the items' features in a modality, V the K hyperedges' vectors, A the user–item
interactions and Z the items' representations:

    H_I = softmax((X Vᵀ + noise) / τ),   H_U = softmax((A X Vᵀ + noise) / τ)     (over the hyperedges, row by row)
    Z_I^{(l+1)} = H_I H_Iᵀ Z_I^{(l)},    Z_U^{(l+1)} = H_U H_Iᵀ Z_I^{(l)}

There is no further normalisation; LGMRec brings the result to length one before it adds it to other representations.

`H_Iᵀ Z` is a sum over *all* items, so H_I and Z must be there in full: a sampled neighbourhood cannot give it. But what
comes back from the hyperedges needs only the rows that are wanted, and further layers only the small matrix `H_Iᵀ H_I`:
with S = H_Iᵀ Z, the states that layer L gives to its rows are `(H_Iᵀ H_I)^{L−1} S`.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, softmax

from braidrec.graph.hop import Neighbourhood
from braidrec.models.contract import Inputs
from braidrec.models.fusion.strands import parameter_name

IncidenceNoise = Literal["none", "logistic", "gumbel"]


class LearnedIncidence(nn.Module):
    """The hyperedges of one modality and how much items and users belong to them.

    Args:
        feature_dim: F.
        num_hyperedges: K (LGMRec: 4).
        temperature: τ; the lower, the closer each row comes to one hyperedge.
        noise: added to the logits while training, δ uniform: "logistic" `log δ − log(1 − δ)` as in the paper's formula,
            "gumbel" `−log(−log δ)` as in its published program, or "none".
    Raises:
        ValueError: a number out of range or an unknown noise.
    """

    def __init__(
        self, feature_dim: int, num_hyperedges: int, *, temperature: float = 0.2, noise: IncidenceNoise = "gumbel"
    ) -> None:
        super().__init__()
        if feature_dim < 1 or num_hyperedges < 1:
            raise ValueError(f"wanted at least 1 feature and 1 hyperedge, not {feature_dim} and {num_hyperedges}")
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, not {temperature}")
        if noise not in ("none", "logistic", "gumbel"):
            raise ValueError(f"noise must be 'none', 'logistic' or 'gumbel', not {noise!r}")
        self.temperature = temperature
        self.noise = noise
        self.hyperedges = nn.Parameter(torch.empty(num_hyperedges, feature_dim))
        nn.init.xavier_uniform_(self.hyperedges)

    def logits(self, features: Tensor) -> Tensor:
        """`X Vᵀ`.

        Args:
            features: `[num_items, F]`; zero rows (absent features) belong to all hyperedges alike.
        Returns:
            `[num_items, K]`. Users' logits are sums of those of their items: a hop over the interactions with
            normalise="sum".
        """
        return features @ self.hyperedges.T

    def forward(self, logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Incidence of items or users.

        Args:
            logits: `[n, K]`.
            generator: of the noise, on the device of the logits; None: torch's own.
        Returns:
            `[n, K]`, rows that add up to one.
        """
        if self.training and self.noise != "none":
            logits = logits + _noise(logits, self.noise, generator)
        return softmax(logits / self.temperature, dim=-1)


class LearnedHypergraph(nn.Module):
    """`α · normalise(Σ_m H^m (H_I^mᵀ H_I^m)^{L−1} H_I^mᵀ Z)`, a row for items and users alike, from all modalities.

    Z are the items' ID embeddings; LGMRec sends what their own user–item propagation gives, which a sampled
    neighbourhood has for the seeds alone. Workers draw the noise and the dropout each for itself, as they do any other
    dropout. Features are looked at as they were extracted, also where a strand trains its own.

    Args:
        dims: F, by modality.
        num_hyperedges: K, of each modality.
        layers: L, times that rows go to the hyperedges and back.
        weight: α.
        temperature, noise: as for `LearnedIncidence`.
        dropout: share of the incidences left out while training.
    Raises:
        ValueError: a number out of range, or no modality.
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        *,
        num_hyperedges: int = 4,
        layers: int = 1,
        weight: float = 0.3,
        temperature: float = 0.2,
        noise: IncidenceNoise = "gumbel",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if not dims:
            raise ValueError("a hypergraph is learned from features: name at least one modality")
        if layers < 1 or not 0 <= dropout < 1:
            raise ValueError(f"layers={layers} must be at least 1, dropout={dropout} within [0, 1)")
        self.modalities = tuple(sorted(dims))
        self.incidences = nn.ModuleDict(
            {
                parameter_name(name): LearnedIncidence(dims[name], num_hyperedges, temperature=temperature, noise=noise)
                for name in self.modalities
            }
        )
        self.layers, self.weight, self.dropout = layers, weight, dropout

    def forward(self, inputs: Inputs, neighbourhood: Neighbourhood, item_rows: Tensor) -> Tensor:
        """`[num_seeds, d]` in the order of the seeds.

        Args:
            neighbourhood: one hop over the interactions, with every neighbour.
            item_rows: `[num_items, d]` Z, of all items.
        """
        total = None
        for name in self.modalities:
            incidence = self.incidences[parameter_name(name)]
            assert isinstance(incidence, LearnedIncidence)
            logits = incidence.logits(inputs.features(name, None)[0])
            of_items = self._drawn(incidence, logits)
            states = hyperedge_states(of_items, item_rows, num_layers=self.layers)
            of_users = self._drawn(incidence, self._user_logits(inputs, neighbourhood, logits))
            seeds = inputs.sides(inputs.seeds)
            wanted = of_items if seeds.items is None else of_items.index_select(0, seeds.items)
            rows = from_hyperedges(seeds.join(of_users, wanted), states)
            total = rows if total is None else total + rows
        assert total is not None
        return self.weight * normalize(total, dim=-1)

    def _drawn(self, incidence: LearnedIncidence, logits: Tensor) -> Tensor:
        drawn: Tensor = incidence(logits)
        return drop_incidence(drawn, self.dropout) if self.training else drawn

    def _user_logits(self, inputs: Inputs, neighbourhood: Neighbourhood, of_items: Tensor) -> Tensor:
        """`A X Vᵀ` of the users among the seeds."""
        (hop,) = neighbourhood.hops
        sides = inputs.sides(neighbourhood.input_nodes)
        mine = of_items if sides.items is None else of_items.index_select(0, sides.items)
        rows = sides.join(mine.new_zeros(sides.num_rows - len(mine), mine.shape[1]), mine)
        received = neighbourhood.at_seeds(hop.aggregate(rows, normalise="sum"), 1)
        return inputs.sides(inputs.seeds).of_users(received, inputs.num_users)


def hyperedge_states(item_incidence: Tensor, item_rows: Tensor, *, num_layers: int = 1) -> Tensor:
    """What the hyperedges hold after `num_layers` layers: `(HᵀH)^{L−1} Hᵀ Z`.

    Args:
        item_incidence: `[num_items, K]` H, of all items.
        item_rows: `[num_items, d]` Z, of all items.
        num_layers: L, at least 1.
    Returns:
        `[K, d]`.
    Raises:
        ValueError: no layer, or rows that are not those of the same items.
    """
    if num_layers < 1:
        raise ValueError(f"num_layers must be at least 1, not {num_layers}")
    if len(item_incidence) != len(item_rows):
        raise ValueError(
            f"incidence of {len(item_incidence)} items, but rows of {len(item_rows)}: all items are needed"
        )
    states = item_incidence.T @ item_rows
    if num_layers > 1:
        between = item_incidence.T @ item_incidence
        for _ in range(num_layers - 1):
            states = between @ states
    return states


def from_hyperedges(incidence: Tensor, states: Tensor) -> Tensor:
    """The rows that items or users get from the hyperedges: `H S`.

    Args:
        incidence: `[n, K]` of the wanted rows, any of them.
        states: `[K, d]`.
    Returns:
        `[n, d]`.
    """
    return incidence @ states


def drop_incidence(incidence: Tensor, rate: float, generator: torch.Generator | None = None) -> Tensor:
    """Entries set to zero with probability `rate`, the others divided by 1 − rate, as LGMRec does while training.

    Args:
        incidence: `[n, K]`.
        rate: within [0, 1).
        generator: on the incidence's device.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"rate must be within [0, 1), not {rate}")
    if rate == 0:
        return incidence
    kept = torch.rand(incidence.shape, generator=generator, device=incidence.device) >= rate
    return incidence * kept / (1 - rate)


def _noise(like: Tensor, kind: IncidenceNoise, generator: torch.Generator | None) -> Tensor:
    smallest = torch.finfo(torch.float32).tiny
    drawn = torch.rand(like.shape, generator=generator, device=like.device).clamp_(smallest, 1 - 2**-24)
    if kind == "logistic":
        return torch.logit(drawn).to(like.dtype)
    return -torch.log(-torch.log(drawn)).to(like.dtype)
