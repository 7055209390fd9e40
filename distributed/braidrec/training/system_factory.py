"""The published systems with parts of their own, by the type of their settings."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from braidrec.config.model import ModelConfig, SystemConfig
from braidrec.config.systems.acf import ACFConfig
from braidrec.config.systems.addvae import ADDVAEConfig
from braidrec.config.systems.bm3 import BM3Config
from braidrec.config.systems.dragon import DragonConfig
from braidrec.config.systems.dualgnn import DualGNNConfig
from braidrec.config.systems.dvbpr import DVBPRConfig
from braidrec.config.systems.freedom import FreedomConfig
from braidrec.config.systems.grcn import GRCNConfig
from braidrec.config.systems.lattice import LatticeConfig
from braidrec.config.systems.mgcn import MGCNConfig
from braidrec.config.systems.mmgcn import MMGCNConfig
from braidrec.config.systems.selfcf import SelfCFConfig
from braidrec.config.systems.slmrec import SLMRecConfig
from braidrec.config.systems.vbpr import VBPRConfig
from braidrec.config.systems.vbpr_mm import VBPRMMConfig
from braidrec.config.systems.vmcf import VMCFConfig
from braidrec.graph.related import RELATED
from braidrec.models.contract import Recommender
from braidrec.models.systems.acf import ACF
from braidrec.models.systems.addvae import ADDVAE
from braidrec.models.systems.bm3 import BM3
from braidrec.models.systems.dragon import Dragon
from braidrec.models.systems.dualgnn import DualGNN
from braidrec.models.systems.dvbpr import DVBPR
from braidrec.models.systems.freedom import Freedom
from braidrec.models.systems.grcn import GRCN
from braidrec.models.systems.lattice import Lattice
from braidrec.models.systems.mgcn import MGCN
from braidrec.models.systems.mmgcn import MMGCN
from braidrec.models.systems.selfcf import SelfCF
from braidrec.models.systems.slmrec import SLMRec
from braidrec.models.systems.vbpr import VBPR
from braidrec.models.systems.vbpr_mm import VBPRMM
from braidrec.models.systems.vmcf import VMCF

SYSTEMS: dict[type, Callable[..., Recommender]] = {
    VBPRConfig: VBPR,
    VBPRMMConfig: VBPRMM,
    MMGCNConfig: MMGCN,
    GRCNConfig: GRCN,
    SLMRecConfig: SLMRec,
    BM3Config: BM3,
    FreedomConfig: Freedom,
    MGCNConfig: MGCN,
    LatticeConfig: Lattice,
    ACFConfig: ACF,
    ADDVAEConfig: ADDVAE,
    SelfCFConfig: SelfCF,
    VMCFConfig: VMCF,
    DualGNNConfig: DualGNN,
    DragonConfig: Dragon,
    DVBPRConfig: DVBPR,
}
"""Their constructors take the settings by the same names."""

OF_PICTURES = {"images", "side", "fit", "margin", "network", "limits", "max_failed"}
OUTSIDE_THE_MODULE = {"kind", "prune_rate", "text", "max_words", "min_items", "relation", "neighbours", *OF_PICTURES}
"""Settings that are not the module's business: its name, what a relation is, which words and pictures there are."""


def build_system(
    config: ModelConfig, dims: Mapping[str, int], dtype: torch.dtype | None, beside: Mapping[str, Any]
) -> Recommender:
    """The configured system.

    Args:
        dims: numbers per feature vector, by modality.
        dtype: number format inside the propagation while training; None: that of the embeddings.
        beside: arguments that only this system has, beside its settings.
    """
    encoder = config.encoder
    assert isinstance(encoder, SystemConfig)
    arguments: dict[str, Any] = {**encoder.model_dump(exclude=OUTSIDE_THE_MODULE), **beside}
    if "content" in " ".join(encoder.relations):
        assert config.item_graph is not None, "checked before the run started"
        arguments["item_layers"] = config.item_graph.layers
        if isinstance(encoder, LatticeConfig):
            arguments |= {"neighbours": config.item_graph.neighbours, "method": config.item_graph.method}
    if "co_interaction" in encoder.relations:
        assert config.user_graph is not None, "checked before the run started"
        arguments["user_layers"] = config.user_graph.layers
    if set(encoder.relations) - {RELATED}:  # it is looked at, not propagated over
        arguments["dtype"] = dtype
    if looks_at_modalities(config):
        arguments["dims"] = dims
    return SYSTEMS[type(encoder)](dim=config.dim, initial_std=config.initial_std, **arguments)


def looks_at_modalities(config: ModelConfig) -> bool:
    """Whether the configured system uses features: all do that do not say otherwise."""
    return bool(getattr(config.encoder, "looks_at_modalities", True))
