"""What a model computes from, put together by hand."""

from collections.abc import Callable, Mapping

import torch

from braidrec.graph.neighbourhood import NeighbourhoodSource, hop_specs
from braidrec.models.contract import Inputs, Recommender

Features = Mapping[str, tuple[torch.Tensor, torch.Tensor]]


def inputs_for(
    model: Recommender,
    source: NeighbourhoodSource,
    tables: Mapping[str, torch.Tensor],
    seeds: torch.Tensor | None,
    *,
    num_users: int,
    num_items: int,
    training: bool = True,
    features: Features | None = None,
    cold: torch.Tensor | None = None,
    step_seed: int = 0,
) -> Inputs:
    """Inputs with all neighbours of every hop.

    Args:
        tables: all rows, by name.
        features: by modality, all items' rows and presence.
    """
    chains = {name: branch.relations(training=training) for name, branch in model.branches().items()}
    return Inputs(
        seeds=seeds,
        num_users=num_users,
        num_items=num_items,
        neighbourhoods={
            name: source.neighbourhood(hop_specs(chain, (-1,)), seeds, step_seed=step_seed)
            for name, chain in chains.items()
            if chain is not None
        },
        table=lambda name, nodes: tables[name] if nodes is None else tables[name][nodes],
        features=fetch_from(features or {}),
        cold=cold,
    )


def fetch_from(features: Features) -> Callable[[str, torch.Tensor | None], tuple[torch.Tensor, torch.Tensor]]:
    """`Inputs.features` over tables in memory."""

    def fetch(modality: str, items: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        values, present = features[modality]
        return (values, present) if items is None else (values[items], present[items])

    return fetch
