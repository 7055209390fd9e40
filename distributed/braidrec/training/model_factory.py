"""The configured model as a module, without its tables."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from braidrec.config.load import ConfigError
from braidrec.config.model import (
    GATConfig,
    GraphSAGEConfig,
    LayerGCNConfig,
    LightGCNConfig,
    MatrixFactorisationConfig,
    ModelConfig,
    NGCFConfig,
    ProjectorConfig,
    SystemConfig,
    UserModalitiesConfig,
)
from braidrec.config.systems.acf import ACFConfig
from braidrec.config.systems.addvae import ADDVAEConfig
from braidrec.config.systems.dvbpr import DVBPRConfig
from braidrec.models.composed import ComposedRecommender
from braidrec.models.contract import Recommender
from braidrec.models.encoders.contract import Encoder
from braidrec.models.encoders.dgl_layers import DGLEncoder
from braidrec.models.encoders.identity import IdentityEncoder
from braidrec.models.encoders.layergcn import LayerGCNEncoder
from braidrec.models.encoders.lightgcn import LightGCNEncoder
from braidrec.models.encoders.ngcf import NGCFEncoder
from braidrec.models.fusion.fusion import Fusion
from braidrec.models.hypergraph import LearnedHypergraph
from braidrec.models.learned_item_graph import LearnedItemGraph
from braidrec.models.lightgcn import LightGCN
from braidrec.models.matrix_factorisation import MatrixFactorisation
from braidrec.models.missing import MISSING, MissingPolicy, ModalityDropout
from braidrec.models.projectors import Projector
from braidrec.models.score_fusion import ScoreFusion
from braidrec.models.strands import ItemStrands
from braidrec.models.systems.dvbpr import Share
from braidrec.models.tasks.contract import Task
from braidrec.models.user_features import UserFeatures
from braidrec.training.features import FILLED, policy_of
from braidrec.training.picture_networks import build_picture_network
from braidrec.training.relations import trained_on
from braidrec.training.surrounding import Surrounding
from braidrec.training.system_factory import build_system
from braidrec.training.task_factory import build_tasks


def build_model(config: ModelConfig, surrounding: Surrounding) -> Recommender:
    """The recommender that the configuration describes.

    Raises:
        ConfigError: parts that do not fit each other.
    """
    try:
        if isinstance(config.encoder, SystemConfig):
            return build_system(config, surrounding.dims, surrounding.dtype, _beside(config, surrounding))
        if is_plain(config):
            return _plain(config, surrounding)
        return _composed(config, surrounding)
    except ValueError as error:
        raise ConfigError(f"model: {error}") from None


def _beside(config: ModelConfig, surrounding: Surrounding) -> dict[str, Any]:
    """What only some systems are given."""
    if isinstance(config.encoder, ACFConfig):
        shapes = {name: surrounding.shapes.get(name, (dim,)) for name, dim in surrounding.dims.items()}
        return {"shapes": shapes, "histories": surrounding.histories}
    if isinstance(config.encoder, ADDVAEConfig):
        return {"histories": surrounding.histories, "words": surrounding.words}
    if isinstance(config.encoder, DVBPRConfig):
        scaled = build_picture_network(config.encoder, config.dim, pretrained=surrounding.pretrained)
        share = Share(rank=surrounding.rank, world_size=surrounding.world_size, gather=surrounding.gather)
        return {**vars(scaled), "pictures": surrounding.pictures, "share": share}
    return {}


def is_plain(config: ModelConfig) -> bool:
    """Whether the model is one of IDs alone, without anything beside its encoder."""
    kinds = (MatrixFactorisationConfig, LightGCNConfig)
    looked_at = (config.modalities.use, config.user_modalities.use)
    graphs = (config.item_graph, config.user_graph, config.hypergraph)
    beside = (*looked_at, *graphs, config.self_supervision)
    return isinstance(config.encoder, kinds) and not any(beside)


def _plain(config: ModelConfig, surrounding: Surrounding) -> Recommender:
    _refuse_ignored(config)
    encoder = config.encoder
    if isinstance(encoder, MatrixFactorisationConfig):
        return MatrixFactorisation(dim=config.dim, initial_std=config.initial_std, biases=encoder.biases)
    assert isinstance(encoder, LightGCNConfig)
    return LightGCN(
        dim=config.dim,
        layers=encoder.layers,
        readout=encoder.readout,
        initial_std=config.initial_std,
        dtype=surrounding.dtype,
        ego=encoder.ego,
    )


def _refuse_ignored(config: ModelConfig) -> None:
    """Settings that have no effect on a model of IDs alone."""
    plain = ModelConfig()
    for key in ("fusion", "modalities", "user_modalities"):
        if getattr(config, key) != getattr(plain, key):
            raise ConfigError(
                f"model.{key} has no effect on IDs alone: name modalities in model.modalities.use, or ['*'], or remove "
                "these keys"
            )


def _composed(config: ModelConfig, surrounding: Surrounding) -> Recommender:
    encoder = config.encoder
    if isinstance(encoder, MatrixFactorisationConfig) and encoder.biases:
        raise ConfigError("model.encoder.biases=true is for IDs alone, without modalities, graphs and self-supervision")
    if surrounding.dtype is not None and not isinstance(
        encoder, LightGCNConfig | LayerGCNConfig | MatrixFactorisationConfig
    ):
        raise ConfigError(
            f"training.propagation.precision=bf16: model.encoder.kind={encoder.kind} propagates in fp32; use lightgcn "
            "or layergcn"
        )
    strands = _strands(config, surrounding.dims)
    build = _early if config.fusion.timing == "early" else _late
    return build(config, surrounding, strands)


def _early(config: ModelConfig, surrounding: Surrounding, strands: ItemStrands) -> Recommender:
    if config.fusion.of == "scores" or config.fusion.user_side == "aggregated":
        raise ConfigError("model.fusion.of=scores and user_side=aggregated need model.fusion.timing=late")
    fusion = _fusion(config, dict.fromkeys(strands.names, config.dim))
    encoder = _encoder(config, surrounding, fusion.out_dim)
    width = encoder.width(fusion.out_dim)
    _check_graphs(config, width, fused=fusion.out_dim)
    return ComposedRecommender(
        strands=strands,
        encoder=_module(encoder),
        fusion=fusion,
        user_std=config.initial_std,
        user_features=_user_features(config, surrounding, fusion.out_dim),
        item_graph=config.item_graph.layers if config.item_graph else 0,
        learned_items=_learned_items(config, surrounding),
        item_graph_on_id=config.item_graph is None or config.item_graph.of == "id",
        user_graph=config.user_graph.layers if config.user_graph else 0,
        hypergraph=_hypergraph(config, surrounding),
        matches_cold_length=config.fusion.cold_length == "match",
        trained_on=trained_on(config),
        tasks=_tasks(config, surrounding, width),
    )


def _late(config: ModelConfig, surrounding: Surrounding, strands: ItemStrands) -> Recommender:
    if config.fusion.user_side == "aggregated" and not strands.modalities:
        raise ConfigError("model.fusion.user_side=aggregated has no effect without model.modalities.use")
    aggregated = config.fusion.user_side == "aggregated"
    embedded = len(strands.names) - aggregated * len(strands.modalities)
    first, *others = strands.names
    encoder = _encoder(config, surrounding, config.dim)
    widths = dict.fromkeys(strands.names, encoder.width(config.dim))
    encoders: nn.Module | dict[str, nn.Module] = _module(encoder)
    if not encoder.stackable:
        own = {name: _module(_encoder(config, surrounding, config.dim)) for name in others}
        encoders = {first: _module(encoder), **own}
    by_score = _score_fusion(config, widths) if config.fusion.of == "scores" else None
    by_vector = None if by_score is not None else _fusion(config, widths)
    width = by_score.out_dim if by_vector is None and by_score is not None else by_vector.out_dim  # type: ignore[union-attr]
    _check_graphs(config, width, fused=None)
    return ComposedRecommender(
        strands=strands,
        encoder=encoders,
        fusion=by_vector,
        early=False,
        user_fusion=None if by_vector is None else _fusion(config, widths),
        score_fusion=by_score,
        user_std=config.initial_std,
        user_features=_user_features(config, surrounding, config.dim * embedded),
        aggregated_users=aggregated,
        hypergraph=_hypergraph(config, surrounding),
        matches_cold_length=config.fusion.cold_length == "match",
        item_graph=config.item_graph.layers if config.item_graph else 0,
        learned_items=_learned_items(config, surrounding),
        trained_on=trained_on(config),
        tasks=_tasks(config, surrounding, width),
    )


def _tasks(config: ModelConfig, surrounding: Surrounding, width: int) -> dict[str, Task]:
    return build_tasks(
        config, surrounding.dims, width=width, gather=surrounding.gather, interactions=surrounding.interactions
    )


def _module(encoder: Encoder) -> nn.Module:
    assert isinstance(encoder, nn.Module)
    return encoder


def _strands(config: ModelConfig, dims: Mapping[str, int]) -> ItemStrands:
    wanted, dim = config.modalities, config.dim
    projector = wanted.projector
    policies = {name: policy_of(wanted, name) for name in sorted(dims)}
    return ItemStrands(
        dim=dim,
        use_id=config.fusion.use_id,
        initial_std=config.initial_std,
        projectors={name: _projector(projector, features, dim) for name, features in sorted(dims.items())},
        missing={name: _missing(policy, dim) for name, policy in policies.items()},
        dropout=ModalityDropout(wanted.dropout) if wanted.dropout else None,
        cold_id=config.fusion.cold_id,
        trainable={name: dims[name] for name in wanted.trainable},
    )


def _user_features(config: ModelConfig, surrounding: Surrounding, width: int) -> UserFeatures | None:
    wanted, dims = config.user_modalities, surrounding.user_dims
    if not dims:
        if wanted != UserModalitiesConfig():
            raise ConfigError("model.user_modalities has no effect: name modalities of the users in its key `use`")
        return None
    if not width:
        raise ConfigError(
            "model.user_modalities are added to the users' embeddings, and there are none: use "
            "model.fusion.use_id=true, or user_side=learned"
        )
    policies = {name: policy_of(wanted, name) for name in sorted(dims)}
    return UserFeatures(
        projectors={name: _projector(wanted.projector, features, width) for name, features in sorted(dims.items())},
        missing={name: _missing(policy, width) for name, policy in policies.items()},
    )


def _hypergraph(config: ModelConfig, surrounding: Surrounding) -> LearnedHypergraph | None:
    wanted = config.hypergraph
    if wanted is None:
        return None
    return LearnedHypergraph(
        surrounding.dims,
        num_hyperedges=wanted.hyperedges,
        layers=wanted.layers,
        weight=wanted.weight,
        temperature=wanted.temperature,
        noise=wanted.noise,
        dropout=wanted.dropout,
    )


def _learned_items(config: ModelConfig, surrounding: Surrounding) -> LearnedItemGraph | None:
    graph = config.item_graph
    if graph is None or graph.learned is None:
        return None
    return LearnedItemGraph(
        dims=surrounding.dims,
        neighbours=graph.neighbours,
        frozen_share=graph.learned.frozen_share,
        feature_dim=graph.learned.feature_dim,
        method=graph.method,
    )


def _projector(wanted: ProjectorConfig, in_dim: int, out_dim: int) -> Projector:
    return Projector(
        in_dim,
        out_dim,
        depth=wanted.depth,
        hidden=wanted.hidden,
        activation=wanted.activation,
        dropout=wanted.dropout,
        layer_norm=wanted.layer_norm,
        bias=wanted.bias,
    )


def _missing(policy: str, dim: int) -> MissingPolicy:
    return MISSING["as_stored" if policy in FILLED else policy](dim)


def _fusion(config: ModelConfig, dims: Mapping[str, int]) -> Fusion:
    wanted = config.fusion
    return Fusion(
        dims,
        combine=wanted.combine,
        weights=wanted.weights,
        weighting=wanted.weighting,
        gate_by=wanted.gate_by,
        map=wanted.map,
        out_dim=config.dim if wanted.map != "none" else None,
    )


def _score_fusion(config: ModelConfig, dims: Mapping[str, int]) -> ScoreFusion:
    wanted = config.fusion
    if wanted.weighting == "gate" or wanted.map != "none" or wanted.combine == "max" or wanted.combine == "concat":
        raise ConfigError(
            "model.fusion.of=scores: scores are combined by sum, mean or weighted, with weighting none or attention "
            f"and without a map; not combine={wanted.combine}, weighting={wanted.weighting}, map={wanted.map}"
        )
    if wanted.gate_by is not None:
        raise ConfigError(f"model.fusion.gate_by={wanted.gate_by} has no effect on scores: they have no gates")
    return ScoreFusion(dims, combine=wanted.combine, weights=wanted.weights, weighting=wanted.weighting)


def _encoder(config: ModelConfig, surrounding: Surrounding, dim: int) -> Encoder:
    wanted = config.encoder
    builders: dict[type, Callable[[], Encoder]] = {
        MatrixFactorisationConfig: IdentityEncoder,
        LightGCNConfig: lambda: LightGCNEncoder(
            layers=wanted.layers,  # type: ignore[union-attr]
            readout=wanted.readout,  # type: ignore[union-attr]
            dtype=surrounding.dtype,
            ego=wanted.ego,  # type: ignore[union-attr]
        ),
        NGCFConfig: lambda: _ngcf(wanted, dim),
        GraphSAGEConfig: lambda: _dgl(wanted, dim),
        GATConfig: lambda: _dgl(wanted, dim),
        LayerGCNConfig: lambda: LayerGCNEncoder(layers=wanted.layers, dtype=surrounding.dtype),  # type: ignore[union-attr]
    }
    return builders[type(wanted)]()


def _ngcf(wanted: object, dim: int) -> Encoder:
    assert isinstance(wanted, NGCFConfig)
    return NGCFEncoder(
        dim=dim,
        layers=wanted.layers,
        readout=wanted.readout,
        interaction=wanted.interaction,
        dropout=wanted.dropout,
    )


def _dgl(wanted: object, dim: int) -> Encoder:
    assert isinstance(wanted, GraphSAGEConfig | GATConfig)
    heads = wanted.heads if isinstance(wanted, GATConfig) else 1
    return DGLEncoder(
        kind=wanted.kind,
        dim=dim,
        layers=wanted.layers,
        heads=heads,
        readout=wanted.readout,
        dropout=wanted.dropout,
    )


def _check_graphs(config: ModelConfig, width: int, *, fused: int | None) -> None:
    """What item graph, user graph and hypergraph add must be as wide as what it is added to.

    Args:
        width: columns of the final vectors.
        fused: columns of the rows that go into the encoder, a user's embedding among them; None: late.
    """
    mend = "use model.fusion.map=linear or another readout or combination"
    if config.item_graph is not None:
        on_id = config.item_graph.of == "id"
        if not on_id and fused is None:
            raise ConfigError(
                "model.item_graph.of=fused needs model.fusion.timing=early: late, nothing is fused before"
            )
        added = config.dim if on_id else fused
        if added != width:
            raise ConfigError(f"model.item_graph.of={config.item_graph.of} adds {added} columns to {width}: {mend}")
    if config.hypergraph is not None and config.dim != width:
        raise ConfigError(f"model.hypergraph adds {config.dim} columns to {width}: {mend}")
    if config.user_graph is not None:
        if fused is None:
            raise ConfigError("model.user_graph needs model.fusion.timing=early: late, a user has a row a strand")
        if fused != width:
            raise ConfigError(f"model.user_graph adds {fused} columns to {width}: use another model.encoder.readout")
