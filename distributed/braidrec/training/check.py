"""What can be refused before any work starts: settings that do not fit each other or the data set."""

import difflib

import torch

from braidrec.config.load import ConfigError
from braidrec.config.model import ItemGraphConfig, ModelConfig, SystemConfig
from braidrec.config.run import (
    InBatchSoftmaxConfig,
    NegativesConfig,
    ObjectiveConfig,
    OwnTermsConfig,
    PropagationConfig,
    RatingMSEConfig,
    RunConfig,
    TrainingConfig,
)
from braidrec.config.systems.addvae import ADDVAEConfig
from braidrec.config.systems.dvbpr import DVBPRConfig
from braidrec.config.systems.vmcf import VMCFConfig
from braidrec.config.untrained import ItemKNNCBFConfig, PopularityConfig
from braidrec.data.folder import DatasetFolder
from braidrec.evaluation.metrics import metric_names
from braidrec.training.features import modalities_of
from braidrec.training.optimizers import ROWS_ONLY
from braidrec.training.picture_networks import build_picture_network
from braidrec.training.pictures import check_pictures
from braidrec.training.relations import relations_of
from braidrec.training.system_factory import looks_at_modalities
from braidrec.training.untrained import is_untrained

_OF_TRAINING = {
    "data": ("delivery", "memory_limit_mb", "shuffle_buffer"),
    "evaluation": ("every", "patience", "watch_test"),
    "workers": ("least", "cpus", "gpu", "backend", "max_failures", "timeout_seconds"),
}
"""Keys beside those of `training` that say something of epochs, or of several workers."""


def check_run(config: RunConfig, folder: DatasetFolder) -> None:
    """Refuse a run that could not end well.

    Raises:
        ConfigError: naming the key, its value and the mend.
    """
    _check_cut_offs(config)
    _check_monitor(config, folder)
    _check_columns(config, folder)
    if is_untrained(config):
        _check_untrained(config)
    else:
        _check_nothing_is_ignored(config)
        _check_adversarial(config, folder)
    check_model(config, folder)
    rows = folder.num_rows("train")
    if rows == 0:
        raise ConfigError(
            f"data.path: the train split of {folder.path} is empty; prepare it with another split protocol"
        )
    if rows < config.workers.num:
        raise ConfigError(
            f"workers.num={config.workers.num}: the train split of {folder.path} has only {rows} rows; use "
            f"workers.num={rows} or fewer"
        )


def check_model(config: RunConfig, folder: DatasetFolder) -> None:
    """Refuse a model that does not fit the data, or parts of it that would have no effect.

    Raises:
        ConfigError: naming the key, its value and the mend.
    """
    model = config.model
    if isinstance(model.encoder, ADDVAEConfig):
        _check_words(config, folder)
    if isinstance(model.encoder, DVBPRConfig):
        _check_pictures(config, folder)
    used = modalities_of(model.modalities, folder)
    modalities_of(model.user_modalities, folder)
    relations = relations_of(model)
    system = isinstance(model.encoder, SystemConfig)
    if system and looks_at_modalities(model) and not used:
        raise ConfigError(
            f"model.encoder.kind={model.encoder.kind} looks at modalities: name them in model.modalities.use, or ['*']"
        )
    if system and not looks_at_modalities(model) and used:
        raise ConfigError(
            f"model.modalities.use={list(model.modalities.use)} has no effect: model.encoder.kind={model.encoder.kind} "
            "looks at none; remove it"
        )
    if system:
        _check_system(config)
        _check_related(config, folder)
    graph = model.item_graph
    if graph is not None:
        if not used:
            raise ConfigError(
                "model.item_graph: neighbours are those by content; name modalities in model.modalities.use"
            )
        if graph.weights is not None and sorted(graph.weights) != list(used):
            raise ConfigError(
                f"model.item_graph.weights={graph.weights}: give one for each used modality, {list(used)}"
            )
        _check_item_graph_of_system(config)
        if graph.learned is not None and graph.weights is not None:
            raise ConfigError(
                f"model.item_graph.weights={graph.weights} has no effect: with model.item_graph.learned what each "
                "modality counts is learned; remove one of them"
            )
    elif any(name.startswith("content") for name in relations):
        raise ConfigError(
            f"model.encoder.kind={model.encoder.kind} propagates over an item graph: set model.item_graph.neighbours"
        )
    if "co_interaction" in relations and model.user_graph is None:
        raise ConfigError(
            f"model.encoder.kind={model.encoder.kind} propagates over a user graph: set model.user_graph.neighbours"
        )
    if model.hypergraph is not None:
        if not used:
            raise ConfigError("model.hypergraph is learned from features; name modalities in model.modalities.use")
        kind = config.training.optimizer.kind
        if kind in ROWS_ONLY:
            raise ConfigError(
                f"training.optimizer.kind={kind} updates the rows of the batch, but model.hypergraph gives every "
                f"item's embedding a gradient: use {ROWS_ONLY[kind]}"
            )
    if not used and not model.fusion.use_id:
        raise ConfigError("model.fusion.use_id=false: without modalities there is nothing but the ID")


def _check_words(config: RunConfig, folder: DatasetFolder) -> None:
    """A model of whole users and their words."""
    encoder = config.model.encoder
    assert isinstance(encoder, ADDVAEConfig)
    if config.training.order != "users":
        raise ConfigError(
            f"training.order={config.training.order}: batches of model.encoder.kind=addvae are of users; set "
            "training.order=users"
        )
    if not isinstance(config.objective.loss, OwnTermsConfig):
        raise ConfigError(
            f"objective.loss.kind={config.objective.loss.kind}: model.encoder.kind=addvae brings its whole loss; set "
            "objective.loss={kind: none}"
        )
    texts = sorted(name for name, medium in folder.description.media.items() if medium.column == "text")
    if encoder.text not in texts:
        raise ConfigError(
            f"model.encoder.text={encoder.text!r}: the data set {folder.path} has no such texts; it has {texts}. "
            "jobs/prepare.py keeps them from a catalogue (source.catalogue, with text)"
        )
    if config.tracking.registered_model is not None:
        raise ConfigError("tracking.registered_model: model.encoder.kind=addvae has no vectors to register; remove it")


def _check_pictures(config: RunConfig, folder: DatasetFolder) -> None:
    """A model of raw images."""
    encoder = config.model.encoder
    assert isinstance(encoder, DVBPRConfig)
    check_pictures(encoder, folder)
    if isinstance(config.objective.loss, OwnTermsConfig):
        raise ConfigError(
            "objective.loss.kind=none: model.encoder.kind=dvbpr has no loss of its own but the decay of its network; "
            "use bpr"
        )
    if config.evaluation.inference == "tiled":
        raise ConfigError(
            "evaluation.inference=tiled: model.encoder.kind=dvbpr propagates over no graph, and encodes its images "
            "model.encoder.tile at a time, each worker a part, anyway; set evaluation.inference=whole"
        )
    with torch.device("meta"):  # a network that does not exist, or fit the images, costs nothing here
        build_picture_network(encoder, config.model.dim, pretrained=False)


def _check_untrained(config: RunConfig) -> None:
    """Nothing is trained, so whatever says how to train has no effect."""
    encoder, plain = config.model.encoder, ModelConfig()
    looks = isinstance(encoder, ItemKNNCBFConfig)
    if looks and not config.model.modalities.use:
        raise ConfigError(
            "model.encoder.kind=item_knn_cbf compares content: name modalities in model.modalities.use, or ['*']"
        )
    kept = {"use": (), "transform": plain.modalities.transform} if looks else {}
    model = config.model.model_copy(
        update={"encoder": plain.encoder, "modalities": config.model.modalities.model_copy(update=kept)}
    )
    changed = [f"model.{key}" for key in ModelConfig.model_fields if getattr(model, key) != getattr(plain, key)]
    if config.objective != ObjectiveConfig():
        changed.append("objective")
    if config.training != TrainingConfig():
        changed.append("training")
    for part, keys in _OF_TRAINING.items():
        given = getattr(config, part)
        changed += [f"{part}.{key}" for key in keys if getattr(given, key) != type(given).model_fields[key].default]
    if changed:
        raise ConfigError(
            f"{changed[0]} has no effect: model.encoder.kind={encoder.kind} trains nothing; remove these keys"
        )
    if config.workers.num:
        raise ConfigError(
            f"workers.num={config.workers.num}: model.encoder.kind={encoder.kind} trains nothing, so there is nothing "
            "to share; set workers.num=0"
        )
    if config.tracking.registered_model is not None and not isinstance(encoder, PopularityConfig):
        raise ConfigError(
            f"tracking.registered_model: model.encoder.kind={encoder.kind} has no vectors to register; remove it"
        )


def _check_system(config: RunConfig) -> None:
    """A system does its own fusing: what a composed model would be made of must be left alone."""
    model, plain = config.model, ModelConfig()
    kept = model.modalities.model_copy(update={"use": (), "transform": plain.modalities.transform})
    alone = {
        "fusion": model.fusion == plain.fusion,
        "user_modalities": model.user_modalities == plain.user_modalities,
        "user_graph": model.user_graph is None or "co_interaction" in relations_of(model),
        "hypergraph": model.hypergraph is None,
        "self_supervision": not model.self_supervision,
        "modalities (but for use and transform)": kept == plain.modalities,
        "item_graph": model.item_graph is None or any(name.startswith("content") for name in relations_of(model)),
    }
    for key, untouched in alone.items():
        if not untouched:
            raise ConfigError(
                f"model.{key} has no effect: model.encoder.kind={model.encoder.kind} brings its own; remove these "
                "keys, or use a general encoder (mf, lightgcn, ngcf, graphsage, gat)"
            )


def _check_related(config: RunConfig, folder: DatasetFolder) -> None:
    """The pairs of items must be there. They are looked at, not propagated over."""
    encoder = config.model.encoder
    if not isinstance(encoder, VMCFConfig):
        return
    if config.training.propagation.precision != "fp32":
        raise ConfigError(
            f"training.propagation.precision={config.training.propagation.precision} has no effect: model.encoder.kind="
            "vmcf propagates nothing; remove it"
        )
    known = folder.description.relations
    between_items = sorted(name for name, described in known.items() if described.between == "items")
    if encoder.relation is not None and encoder.relation not in between_items:
        raise ConfigError(
            f"model.encoder.relation={encoder.relation}: {folder.path} has no such relation between items, but "
            f"{between_items}; give null for the items that share most users"
        )


def _check_item_graph_of_system(config: RunConfig) -> None:
    model = config.model
    graph, kind = model.item_graph, model.encoder.kind
    if graph is None or not isinstance(model.encoder, SystemConfig):
        return
    for key in ("of", "learned"):
        if getattr(graph, key) != getattr(ItemGraphConfig(), key):
            raise ConfigError(f"model.item_graph.{key} has no effect on model.encoder.kind={kind}; remove it")
    if graph.weights is not None and "content/*" in relations_of(model):
        raise ConfigError(
            f"model.item_graph.weights={graph.weights} has no effect: model.encoder.kind={kind} keeps a graph for each "
            "modality; remove it"
        )


def _check_adversarial(config: RunConfig, folder: DatasetFolder) -> None:
    """What it moves must be there, and its epochs must come."""
    wanted = config.training.adversarial
    if wanted is None:
        return
    if wanted.start_epoch > config.training.epochs:
        raise ConfigError(
            f"training.adversarial.start_epoch={wanted.start_epoch} comes after the last epoch, "
            f"training.epochs={config.training.epochs}: give an earlier one, or remove training.adversarial"
        )
    modalities = config.model.modalities
    frozen = set(modalities_of(modalities, folder)) - set(modalities.trainable)
    if wanted.target == "features" and not frozen:
        raise ConfigError(
            "training.adversarial.target=features: the model looks at no frozen features; name modalities in "
            "model.modalities.use that are not in model.modalities.trainable, or use target=embeddings"
        )


def _check_cut_offs(config: RunConfig) -> None:
    at = config.evaluation.at
    if not at or len(set(at)) < len(at):
        raise ConfigError(f"evaluation.at={list(at)}: give at least one cut-off k, and each once")


def _check_monitor(config: RunConfig, folder: DatasetFolder) -> None:
    monitor = config.evaluation.monitor
    rating = isinstance(config.objective.loss, RatingMSEConfig)
    if monitor is None:
        if config.evaluation.patience is not None:
            raise ConfigError("evaluation.monitor=null: without a monitored metric set evaluation.patience=null too")
        return
    names = metric_names(config.evaluation.at, config.evaluation.auc, rating)
    if monitor not in names:
        nearest = difflib.get_close_matches(monitor, names, n=1)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
        raise ConfigError(
            f"evaluation.monitor={monitor!r} is not computed with evaluation.at={list(config.evaluation.at)}.{hint} "
            f"There are: {names}"
        )
    if folder.num_rows("valid") == 0:
        raise ConfigError(
            f"evaluation.monitor={monitor!r}: the data set {folder.path} has no validation interactions; prepare it "
            "with a split protocol that makes some, or set evaluation.monitor=null and evaluation.patience=null to "
            "keep the last epoch"
        )


def _check_columns(config: RunConfig, folder: DatasetFolder) -> None:
    train = folder.description.splits["train"]
    if isinstance(config.objective.loss, RatingMSEConfig):
        for split, described in folder.description.splits.items():
            if described.rows and not described.has_rating:
                raise ConfigError(
                    f"objective.loss.kind=rating_mse: the {split} split of {folder.path} has no ratings; prepare the "
                    "data set with a rating column, or use bpr"
                )
        if config.training.order != "permutation":
            raise ConfigError(
                f"training.order={config.training.order} draws pairs without their ratings: use order=permutation"
            )
    if config.objective.use_weights:
        if not train.has_weight:
            raise ConfigError(f"objective.use_weights=true: the train split of {folder.path} has no column 'weight'")
        if config.training.order != "permutation":
            raise ConfigError(
                f"training.order={config.training.order} draws pairs without their weights: use order=permutation"
            )


def _check_nothing_is_ignored(config: RunConfig) -> None:
    """A setting that would have no effect is more likely a mistake than a wish."""
    training = config.training
    if training.order != "permutation" and config.data.delivery != "auto":
        raise ConfigError(
            f"data.delivery={config.data.delivery}: training.order={training.order} draws from the graph, nothing is "
            "delivered; leave it at auto, or use training.order=permutation"
        )
    graphs = config.model.item_graph or config.model.user_graph or config.model.hypergraph
    beside = graphs or config.model.self_supervision
    system = isinstance(config.model.encoder, SystemConfig)
    aggregates = config.model.modalities.use and config.model.fusion.user_side == "aggregated"
    propagates = relations_of(config.model) if system else config.model.encoder.kind != "mf" or beside or aggregates
    if not propagates and training.propagation != PropagationConfig():
        raise ConfigError(
            f"training.propagation: model.encoder.kind={config.model.encoder.kind} does not propagate; remove these "
            "keys, or use lightgcn"
        )
    without = (RatingMSEConfig, InBatchSoftmaxConfig, OwnTermsConfig)
    if isinstance(config.objective.loss, without) and config.objective.negatives != NegativesConfig():
        raise ConfigError(
            f"objective.negatives: objective.loss.kind={config.objective.loss.kind} uses no negatives; remove these "
            "keys, or use bpr"
        )
    loss = config.objective.loss
    if config.model.fusion.cold_length == "match" and isinstance(loss, InBatchSoftmaxConfig) and loss.cosine:
        raise ConfigError(
            "model.fusion.cold_length=match has no effect: objective.loss.cosine=true ranks by cosine, whatever a "
            "vector's length; leave it at keep"
        )
    if config.evaluation.watch_test and not config.evaluation.test:
        raise ConfigError("evaluation.watch_test=true has no effect with evaluation.test=false: remove one of them")
    kind = training.optimizer.kind
    if kind in ROWS_ONLY and training.propagation.mode == "full":
        raise ConfigError(
            f"training.optimizer.kind={kind} updates the rows of the batch, but with full propagation every row gets "
            f"a gradient: use {ROWS_ONLY[kind]}, or training.propagation.mode=sampled"
        )
    if training.wire != "fp32" and (training.tables == "replicated" or config.workers.num <= 1):
        raise ConfigError(
            f"training.wire={training.wire} has no effect: rows travel only where tables are sharded over several "
            f"workers, here training.tables={training.tables} and workers.num={config.workers.num}; leave it at fp32"
        )
    if training.propagation.exclude_targets and training.propagation.mode == "full":
        raise ConfigError(
            "training.propagation.exclude_targets=true needs mode=sampled: the full graph is shared by all batches"
        )
    if config.workers.backend == "nccl" and not config.workers.gpu:
        raise ConfigError("workers.backend=nccl is for GPUs: set workers.gpu=true, or backend=auto")
