"""Modalities taken away from items at evaluation: what is a model worth where they are missing?"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from braidrec.config.load import ConfigError
from braidrec.config.run import RunConfig
from braidrec.data.folder import DatasetFolder
from braidrec.data.randomness import seed_for
from braidrec.features.drop import drop
from braidrec.features.reading import load_feature_table
from braidrec.training.features import modalities_of
from braidrec.training.world import cache_folder


def hidden_items(
    config: RunConfig, data: DatasetFolder, rates: Mapping[str, float], seed: int
) -> dict[str, NDArray[np.bool_]]:
    """By modality, `[num_items]` the items that lose it.

    They depend on the data set, the rate and the seed alone, so that all runs on a data set lose the same ones, and
    those of a smaller rate are among those of a larger one. Modalities are taken away independently of each other.

    Args:
        config: of the run; its modalities are the ones that can be taken away.
        rates: by modality, the share of the items that have it.
    Raises:
        ConfigError: a modality that the run does not look at.
    """
    used = modalities_of(config.model.modalities, data)
    for name in rates:
        if name not in used:
            looks_at = f"it looks at {list(used)}" if used else "it looks at none"
            raise ConfigError(f"drop_modality: the run does not use a modality {name!r}; {looks_at}")
    cache = cache_folder(config)
    return {
        name: drop(load_feature_table(data, name, cache=cache).present, rate, seed_for(seed, f"drop {name}"))
        for name, rate in rates.items()
    }
