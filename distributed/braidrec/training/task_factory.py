"""The configured self-supervised tasks as modules."""

from collections.abc import Callable, Mapping

from torch import nn

from braidrec.config.load import ConfigError
from braidrec.config.model import ModelConfig
from braidrec.config.self_supervision import (
    AlignConfig,
    BootstrapConfig,
    ContrastConfig,
    CosineConfig,
    EdgeDropoutConfig,
    EdgeMaskConfig,
    EdgeNoiseConfig,
    EdgePredictionConfig,
    FeatureDropoutConfig,
    GaussianNoiseConfig,
    InfoNCEConfig,
    JensenShannonConfig,
    LayerNoiseConfig,
    MLPViewConfig,
    MomentsConfig,
    NeighbourhoodSimilarityConfig,
    NodeDropoutConfig,
    PlainViewConfig,
    ReconstructConfig,
    ViewConfig,
    ViewLossConfig,
)
from braidrec.graph.relation import Relation
from braidrec.models.projectors import Projector
from braidrec.models.strands import ID
from braidrec.models.tasks.align import FUSED, Align
from braidrec.models.tasks.contract import Task
from braidrec.models.tasks.contrast import Contrast, ViewOfVectors
from braidrec.models.tasks.match_neighbourhoods import MatchNeighbourhoods
from braidrec.models.tasks.predict_edges import PredictEdges
from braidrec.models.tasks.reconstruct import Reconstruct, ReconstructionLoss
from braidrec.models.views.edge_mask import EdgeMask
from braidrec.models.views.feature_dropout import FeatureDropout
from braidrec.models.views.gaussian_noise import GaussianNoise
from braidrec.models.views.mlp_view import MLPView
from braidrec.models.views.simgcl_noise import SimGCLNoise
from braidrec.objectives.gather import Gather, own_rows
from braidrec.objectives.self_supervised.bootstrap import Bootstrap
from braidrec.objectives.self_supervised.contract import ViewLoss
from braidrec.objectives.self_supervised.cosine_alignment import CosineAlignment
from braidrec.objectives.self_supervised.info_nce import InfoNCE
from braidrec.objectives.self_supervised.jensen_shannon import JensenShannon
from braidrec.objectives.self_supervised.moment_alignment import MomentAlignment
from braidrec.objectives.self_supervised.reconstruction import ReconstructionCosine, ReconstructionMSE
from braidrec.training.relations import layers_of, view_name

STRUCTURE_VIEWS = (EdgeDropoutConfig, NodeDropoutConfig, EdgeNoiseConfig, EdgeMaskConfig, LayerNoiseConfig)

RESERVED = ("loss", "regulariser", "adversarial")
"""Names of other summands of the loss."""


def build_tasks(
    config: ModelConfig,
    dims: Mapping[str, int],
    *,
    width: int,
    gather: Gather,
    interactions: Relation | None = None,
) -> dict[str, Task]:
    """The tasks by name.

    Args:
        dims: numbers per feature vector, by modality.
        width: columns of the final vectors.
        gather: brings the rows of all ranks.
        interactions: the train graph; None where the model is only looked at.
    Raises:
        ConfigError: a strand that there is not, or a view that has nothing to perturb.
    """
    return {name: _task(name, config, dims, width, gather, interactions) for name in sorted(config.self_supervision)}


def _task(
    name: str,
    config: ModelConfig,
    dims: Mapping[str, int],
    width: int,
    gather: Gather,
    interactions: Relation | None,
) -> Task:
    wanted = config.self_supervision[name]
    key = f"model.self_supervision.{name}"
    if not name.isidentifier() or name in RESERVED:
        raise ConfigError(f"{key}: name a task in letters, digits and underscores, but not {list(RESERVED)}")
    if isinstance(wanted, ContrastConfig):
        return _contrast(name, wanted, config, dims, width, gather)
    if isinstance(wanted, AlignConfig):
        for strand in (wanted.first, wanted.second):
            _check_strand(key, strand, config, dims, fused=True)
        if wanted.first == wanted.second and wanted.first_view == wanted.second_view == PlainViewConfig():
            raise ConfigError(f"{key}: first and second are both {wanted.first!r}, so there is nothing to align")
        return Align(
            first=wanted.first,
            second=wanted.second,
            loss=_loss(wanted.loss, config.dim, gather),
            coefficient=wanted.weight,
            fused_width=width,
            dim=config.dim,
            first_view=_row_view(wanted.first_view, config.dim),
            second_view=_row_view(wanted.second_view, config.dim),
        )
    if isinstance(wanted, ReconstructConfig):
        return _reconstruct(key, wanted, config, dims)
    if isinstance(wanted, NeighbourhoodSimilarityConfig):
        return MatchNeighbourhoods(target=wanted.target, interactions=interactions, coefficient=wanted.weight)
    assert isinstance(wanted, EdgePredictionConfig)
    return PredictEdges(negatives=wanted.negatives, coefficient=wanted.weight)


def _contrast(
    name: str, wanted: ContrastConfig, config: ModelConfig, dims: Mapping[str, int], width: int, gather: Gather
) -> Task:
    layers = layers_of(config)
    for place, view in (("first", wanted.first), ("second", wanted.second)):
        if isinstance(view, STRUCTURE_VIEWS) and not layers:
            raise ConfigError(
                f"model.self_supervision.{name}.{place}.kind={view.kind} perturbs the propagation, and "
                f"model.encoder.kind={config.encoder.kind} has none: use a view of rows, or a graph encoder"
            )
    if isinstance(wanted.first, PlainViewConfig) and isinstance(wanted.second, PlainViewConfig):
        raise ConfigError(
            f"model.self_supervision.{name}: both views are plain, so there is nothing to learn from them"
        )
    columns = config.dim * _strands_side_by_side(config, len(dims))
    first, second = (
        _view(name, place, view, config, width, columns) for place, view in ((1, wanted.first), (2, wanted.second))
    )
    return Contrast(
        name=name,
        first=first,
        second=second,
        loss=_loss(wanted.loss, width, gather),
        target=wanted.target,
        coefficient=wanted.weight,
    )


def _view(task: str, place: int, wanted: ViewConfig, config: ModelConfig, width: int, propagated: int) -> ViewOfVectors:
    """
    Args:
        width: columns of the final vectors.
        propagated: columns of the rows that are propagated.
    """
    layers = layers_of(config)
    if isinstance(wanted, EdgeDropoutConfig):
        drawn = range(layers if wanted.per_layer else 1)
        return ViewOfVectors(relations=[view_name(task, place, layer) for layer in drawn])
    if isinstance(wanted, NodeDropoutConfig | EdgeNoiseConfig):
        return ViewOfVectors(relations=[view_name(task, place)])
    if isinstance(wanted, EdgeMaskConfig):
        return ViewOfVectors(edge_mask=EdgeMask(dim=propagated, hidden=wanted.hidden, temperature=wanted.temperature))
    if isinstance(wanted, LayerNoiseConfig):
        return ViewOfVectors(after_hop=SimGCLNoise(norm=wanted.norm))
    return ViewOfVectors(output=_row_view(wanted, width))


def _strands_side_by_side(config: ModelConfig, modalities: int) -> int:
    """How many times model.dim the rows that are propagated have."""
    strands = modalities + config.fusion.use_id
    if config.fusion.timing == "late":
        return strands if config.encoder.kind in ("mf", "lightgcn") else 1
    return strands if config.fusion.combine == "concat" and config.fusion.map == "none" else 1


def _row_view(wanted: object, dim: int) -> nn.Module | None:
    builders: dict[type, Callable[[], nn.Module | None]] = {
        PlainViewConfig: lambda: None,
        GaussianNoiseConfig: lambda: GaussianNoise(std=wanted.std),  # type: ignore[attr-defined]
        FeatureDropoutConfig: lambda: FeatureDropout(rate=wanted.rate, rescale=wanted.rescale),  # type: ignore[attr-defined]
        MLPViewConfig: lambda: MLPView(dim=dim, hidden=wanted.hidden),  # type: ignore[attr-defined]
    }
    return builders[type(wanted)]()


def _loss(wanted: ViewLossConfig, dim: int, gather: Gather) -> ViewLoss:
    if isinstance(wanted, InfoNCEConfig):
        among = gather if wanted.across_workers else own_rows
        return InfoNCE(temperature=wanted.temperature, negatives_from=wanted.negatives_from, gather=among)
    if isinstance(wanted, JensenShannonConfig):
        among = gather if wanted.across_workers else own_rows
        transform = nn.Linear(dim, dim, bias=False) if wanted.bilinear else None
        return JensenShannon(negatives=wanted.negatives, transform=transform, gather=among)
    if isinstance(wanted, BootstrapConfig):
        return Bootstrap(Projector(dim, dim))
    if isinstance(wanted, CosineConfig):
        return CosineAlignment()
    assert isinstance(wanted, MomentsConfig)
    return MomentAlignment(per_dimension=wanted.per_dimension, gather=gather)


def _reconstruct(key: str, wanted: ReconstructConfig, config: ModelConfig, dims: Mapping[str, int]) -> Task:
    if wanted.modality not in dims:
        raise ConfigError(f"{key}.modality={wanted.modality!r} is not used by the model; used are {sorted(dims)}")
    for strand in wanted.sources:
        _check_strand(key, strand, config, dims, fused=False)
    if wanted.modality in wanted.sources:
        raise ConfigError(f"{key}.sources: {wanted.modality!r} would be predicted from itself; leave it out")
    if not wanted.sources and wanted.modality in config.modalities.trainable:
        raise ConfigError(
            f"{key}: {wanted.modality!r} is trained from its extracted vectors on, so these are not what its projector "
            "reads any more; give sources, or leave it out of model.modalities.trainable"
        )
    if not wanted.sources and not wanted.rate:
        raise ConfigError(f"{key}.rate=0 hides nothing, so that there is nothing to predict; give sources, or a rate")
    loss: ReconstructionLoss = ReconstructionMSE() if wanted.loss == "mse" else ReconstructionCosine(exponent=2.0)
    return Reconstruct(
        modality=wanted.modality,
        features=dims[wanted.modality],
        dim=config.dim,
        sources=wanted.sources,
        rate=wanted.rate,
        loss=loss,
        coefficient=wanted.weight,
    )


def _check_strand(key: str, strand: str, config: ModelConfig, dims: Mapping[str, int], *, fused: bool) -> None:
    known = [*([ID] if config.fusion.use_id else []), *sorted(dims), *([FUSED] if fused else [])]
    if strand not in known:
        raise ConfigError(f"{key}: there is no strand {strand!r}; there are {known}")
