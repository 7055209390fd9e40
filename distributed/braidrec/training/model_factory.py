"""The configured model as a module, without its tables."""

from collections.abc import Callable, Mapping

import torch

from braidrec.config.run import LightGCNConfig, MatrixFactorisationConfig, ModelConfig
from braidrec.models.contract import Recommender
from braidrec.models.lightgcn import LightGCN
from braidrec.models.matrix_factorisation import MatrixFactorisation


def build_model(config: ModelConfig, dims: Mapping[str, int], precision: str = "fp32") -> Recommender:
    """The recommender that the configuration describes.

    Args:
        dims: numbers per feature vector, by modality.
        precision: number format inside the propagation while training.
    """
    encoder = config.encoder
    builders: dict[type, Callable[[], Recommender]] = {
        MatrixFactorisationConfig: lambda: _matrix_factorisation(config),
        LightGCNConfig: lambda: _lightgcn(config, precision),
    }
    return builders[type(encoder)]()


def _matrix_factorisation(config: ModelConfig) -> Recommender:
    assert isinstance(config.encoder, MatrixFactorisationConfig)
    return MatrixFactorisation(dim=config.dim, initial_std=config.initial_std, biases=config.encoder.biases)


def _lightgcn(config: ModelConfig, precision: str) -> Recommender:
    assert isinstance(config.encoder, LightGCNConfig)
    return LightGCN(
        dim=config.dim,
        layers=config.encoder.layers,
        readout=config.encoder.readout,
        initial_std=config.initial_std,
        dtype=torch.bfloat16 if precision == "bf16" else None,
    )
