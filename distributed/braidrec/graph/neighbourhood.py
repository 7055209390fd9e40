"""Where neighbourhoods come from: the full graph, or subgraphs sampled around the seed nodes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from braidrec.graph.hop import Hop, Neighbourhood
from braidrec.graph.relation import Relation
from braidrec.graph.sampling import SAMPLERS, Draw
from braidrec.graph.structure import Structure


@dataclass(frozen=True, kw_only=True)
class HopSpec:
    """What an encoder asks for: a step on `relation`, drawing at most `fan_out` neighbours a node (−1: all)."""

    relation: str
    fan_out: int = -1


class NeighbourhoodSource(Protocol):
    """Builds the chain that an encoder declares, from the seed nodes backwards.

    Attributes:
        draws: whether what it builds depends on `step_seed`.
    """

    draws: bool

    def neighbourhood(
        self,
        chain: Sequence[HopSpec],
        seeds: Tensor | None,
        *,
        step_seed: int = 0,
        exclude: Mapping[str, Tensor] | None = None,
    ) -> Neighbourhood: ...

    def replace(self, relation: Relation) -> None: ...


_RESTRICTED_EDGE_COST = 3
"""Cutting an edge out of the whole structure, transposed too, costs about as much as summing along it twice."""


class FullGraph:
    """Hops that span everything. The last one computes only the rows that the seeds need, where that is less work."""

    draws = False

    def __init__(self, relations: Mapping[str, Relation], *, device: torch.device, kernel: str) -> None:
        self.device = device
        self.kernel = kernel
        # Kept, and with them the degree factors that they compute on first use.
        self._whole = {name: self._hop_of(relation) for name, relation in relations.items()}

    @property
    def relations(self) -> dict[str, Relation]:
        """Those that it propagates over, by name."""
        return {name: hop.relation for name, hop in self._whole.items()}

    def hop(self, relation: str) -> Hop:
        """The whole step on a relation."""
        return self._whole[relation]

    def neighbourhood(
        self,
        chain: Sequence[HopSpec],
        seeds: Tensor | None,
        *,
        step_seed: int = 0,
        exclude: Mapping[str, Tensor] | None = None,
    ) -> Neighbourhood:
        """The exact chain. Fan-outs and `step_seed` have no meaning here: nothing is drawn.

        Args:
            chain: hops in the order of propagation.
            seeds: distinct nodes on the source's device, or None for all nodes.
        Raises:
            ValueError: `exclude` is given: removing edges from a graph that all batches share is sampling's business.
        """
        if exclude is not None and any(len(edges) for edges in exclude.values()):
            raise ValueError("target edges can be excluded in sampled mode only; set propagation.mode to 'sampled'")
        if not chain:
            return Neighbourhood(hops=(), input_nodes=seeds, seeds=seeds, seeds_first=True)
        hops = [self._whole[spec.relation] for spec in chain]
        restrict = False
        if seeds is not None and _restriction_pays(hops[-1], seeds):
            hops[-1], restrict = _restricted(hops[-1], seeds), True
        return Neighbourhood(hops=tuple(hops), input_nodes=None, seeds=seeds, seeds_first=False, ends_at_seeds=restrict)

    def replace(self, relation: Relation) -> None:
        """Use this relation from now on for the one of its name (a view that is drawn anew each epoch)."""
        self._whole[relation.name] = self._hop_of(relation)

    def _hop_of(self, relation: Relation) -> Hop:
        return Hop(relation=relation, structure=relation.structure.to(self.device), kernel=self.kernel)


def _restriction_pays(whole: Hop, seeds: Tensor) -> bool:
    """Few seeds of a large graph have few of its edges; the many seeds of a small one are served by all of it."""
    num_edges = int(whole.relation.in_degree_of(seeds).sum())
    return num_edges * _RESTRICTED_EDGE_COST < whole.structure.num_edges


def _restricted(whole: Hop, seeds: Tensor) -> Hop:
    structure, edge_ids = whole.structure.rows(seeds)
    return replace(whole, structure=structure, dst_nodes=seeds, own_rows=seeds, edge_ids=edge_ids)


class SampledSubgraph:
    """Hops drawn around the seed nodes, each level's nodes starting with the seeds.

    Sampling runs on the CPU; the finished hops move to `device`.
    """

    draws = True

    def __init__(
        self,
        relations: Mapping[str, Relation],
        *,
        device: torch.device,
        kernel: str,
        sampler: str = "neighbour",
    ) -> None:
        self.relations = dict(relations)
        self.device = device
        self.kernel = kernel
        self.draw = SAMPLERS[sampler]

    def neighbourhood(
        self,
        chain: Sequence[HopSpec],
        seeds: Tensor | None,
        *,
        step_seed: int = 0,
        exclude: Mapping[str, Tensor] | None = None,
    ) -> Neighbourhood:
        """Draw the chain.

        Args:
            chain: hops in the order of propagation; the last one is drawn first.
            seeds: distinct nodes (int64).
            step_seed: everything drawn is a function of it (with a fixed number of threads).
            exclude: by relation, edge ids (any order; −1 stands for no edge, as from `Relation.edge_ids`) that must not
                be used though they stay counted in the fan-out: the batch's own interactions and their reverse.
        Raises:
            ValueError: a seed that is no node (DGL would end the process) or repeated (its rows would be wrong).
        """
        assert seeds is not None, "sampled propagation needs seed nodes"
        destinations = seeds.cpu()
        if chain:
            _check_seeds(destinations, self.relations[chain[-1].relation].num_nodes)
        excluded = {name: edges.cpu().sort().values for name, edges in (exclude or {}).items()}
        hops: list[Hop] = []
        for distance, spec in enumerate(reversed(chain)):
            hop_seed = (step_seed + distance * 0x9E3779B1) % (2**31 - 1)
            excluded_here = excluded.get(spec.relation)
            drawn = self.draw(self.relations[spec.relation], destinations, spec.fan_out, hop_seed, excluded_here)
            hops.append(self._hop(spec, drawn, destinations))
            destinations = drawn.src_nodes
        return Neighbourhood(
            hops=tuple(reversed(hops)),
            input_nodes=destinations.to(self.device),
            seeds=seeds,
            seeds_first=True,
        )

    def replace(self, relation: Relation) -> None:
        """Draw from this relation from now on for the one of its name."""
        self.relations[relation.name] = relation

    def _hop(self, spec: HopSpec, drawn: Draw, destinations: Tensor) -> Hop:
        relation = self.relations[spec.relation]
        whole = relation.structure.weight
        weight = None if whole is None else whole[drawn.edge_ids]
        structure = Structure(drawn.indptr, drawn.indices, len(drawn.src_nodes), weight=weight).to(self.device)
        return Hop(
            relation=relation,
            structure=structure,
            kernel=self.kernel,
            src_nodes=drawn.src_nodes.to(self.device),
            dst_nodes=destinations.to(self.device),
            scale=None if drawn.scale is None else drawn.scale.to(self.device),
            edge_ids=drawn.edge_ids.to(self.device),
        )


def _check_seeds(seeds: Tensor, num_nodes: int) -> None:
    ordered = seeds.sort().values
    for extreme in ordered[:1].tolist() + ordered[-1:].tolist():
        if not 0 <= extreme < num_nodes:
            raise ValueError(f"seed node {extreme} is outside 0 … {num_nodes - 1}")
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(repeated):
        raise ValueError(f"seed node {int(repeated[0])} is given more than once: seeds must be distinct")


def hop_specs(relations: Sequence[str], fan_outs: Sequence[int]) -> tuple[HopSpec, ...]:
    """Give every hop its fan-out.

    Args:
        relations: one a hop, in the order of propagation.
        fan_outs: from the seed nodes outwards, so the first one belongs to the last hop; the last value is repeated.
    """
    outwards = [fan_outs[min(distance, len(fan_outs) - 1)] for distance in range(len(relations))]
    return tuple(
        HopSpec(relation=name, fan_out=fan_out) for name, fan_out in zip(relations, reversed(outwards), strict=True)
    )
