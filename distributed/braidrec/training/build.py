"""Configuration and data set → the objects that the loop works with. The one place where `config` meets the parts."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import psutil
import torch
from torch import nn

from braidrec.config.load import ConfigError
from braidrec.config.run import RatingMSEConfig, RunConfig
from braidrec.data.delivery import (
    Delivery,
    MemoryDelivery,
    Rows,
    ShardPlan,
    StreamDelivery,
    UniformUserDelivery,
    UserDelivery,
    local_rows,
    read_all,
)
from braidrec.data.folder import DatasetFolder
from braidrec.data.negatives import NegativeSampler
from braidrec.data.randomness import seed_for
from braidrec.evaluation.scoring import whole_inputs
from braidrec.graph.choose import PropagationChoice, choose_propagation
from braidrec.graph.kernels import choose_kernel
from braidrec.graph.neighbourhood import FullGraph, HopSpec, NeighbourhoodSource, SampledSubgraph, hop_specs
from braidrec.graph.relation import INTERACTIONS, Relation
from braidrec.models.contract import LearnsRelations, PropagatesAhead, Recommender
from braidrec.objectives.contract import RowLoss
from braidrec.objectives.gather import Gather, gather_among
from braidrec.training.context import Collectives, WorkerContext
from braidrec.training.environment import give_memory_back
from braidrec.training.events import Note
from braidrec.training.features import RESIDENT_BYTES
from braidrec.training.hardening import moves_features
from braidrec.training.inference import Inference, inference_of
from braidrec.training.model_factory import build_model
from braidrec.training.objective_factory import build_objective, negative_sampler
from braidrec.training.optimizers import ROWS_ONLY, build_optimizers
from braidrec.training.relations import RelationSet
from braidrec.training.run_folder import RunFolder
from braidrec.training.table_factory import TablesChoice, TrainedTable, build_tables, choose_tables, tables_fact
from braidrec.training.world import World, open_world, surrounding_of


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Everything that one rank trains with.

    Attributes:
        excludes_targets: the batch's own edges are taken out of what it is propagated over.
        inference: how all nodes are encoded for evaluation.
        context: this rank among the others.
    """

    world: World
    model: Recommender
    tables: Mapping[str, TrainedTable]
    objective: RowLoss
    negatives: NegativeSampler | None
    choice: PropagationChoice
    chains: Mapping[str, tuple[HopSpec, ...]]
    excludes_targets: bool
    source: NeighbourhoodSource
    whole_graph: FullGraph
    inference: Inference
    context: Collectives
    optimizers: list[torch.optim.Optimizer]
    delivery: Delivery
    rows_per_epoch: int
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def has_changing_relations(self) -> bool:
        """Whether there is something to do before an epoch."""
        return bool(self.world.relations.views) or isinstance(self.model, LearnsRelations)

    def before_epoch(self, epoch: int) -> None:
        """Draw the views of this epoch, and let the model learn the relations that it makes itself."""
        for relation in self.world.relations.drawn(epoch, self.interactions).values():
            self.source.replace(relation)
            if self.excludes_targets:
                self.excluded[relation.name] = relation
        for relation in _learned(self.model, self.world).values():
            self.source.replace(relation)

    @cached_property
    def excluded(self) -> dict[str, Relation]:
        """Relations whose edges are interactions, where those of the batch must not be propagated over."""
        return {INTERACTIONS: self.interactions} if self.excludes_targets else {}

    @property
    def folder(self) -> DatasetFolder:
        return self.world.folder

    @property
    def interactions(self) -> Relation:
        return self.world.interactions

    @property
    def num_users(self) -> int:
        return self.folder.num_users


def build_parts(
    config: RunConfig, folder: DatasetFolder, context: WorkerContext, run_folder: RunFolder | None = None
) -> Parts:
    """Build this rank's parts.

    Args:
        run_folder: remembers what `auto` settings came to, so that the run continues as it began; None: nothing to
            continue.
    Raises:
        ConfigError: settings that do not fit the data or each other.
        DatasetError: damaged data, or a user for whom no negative item exists.
    """
    world = open_world(config, folder, context, tell=lambda sentence: context.emit(Note(message=sentence)))
    interactions = world.interactions
    gather = gather_among(context)
    model = _model(config, world, context, gather)
    objective = build_objective(config, folder, interactions, gather)
    whole_graph = FullGraph(
        world.relations.fixed, device=context.device, kernel=_kernel(context.device, config.training.propagation.kernel)
    )
    ahead = _propagated_ahead(config, model, world, whole_graph)
    chains = _chains(config, model)
    choice = _choice(config, world, chains, context, run_folder, needs_negatives=objective.needs_negatives)
    sparse = _wants_sparse(config, choice, chains, model)
    placed = _place_tables(config, model, world, context, run_folder, sparse=sparse)
    tables = build_tables(
        model.tables(), world, context, config=config.training, seed=config.seed, sparse=sparse,
        placement=placed.placement,
    )  # fmt: skip
    source = _source(config, world, context, choice, whole_graph)
    inference = inference_of(config, model, world, memory_bytes=_memory_share(context), context=context)
    delivery, delivered = _delivery(config, folder, interactions, context)
    return Parts(
        world=world,
        model=model,
        tables=tables,
        objective=objective,
        negatives=negative_sampler(config, folder, interactions) if objective.needs_negatives else None,
        choice=choice,
        chains=chains,
        excludes_targets=config.training.propagation.exclude_targets,
        source=source,
        whole_graph=whole_graph,
        inference=inference,
        context=context,
        optimizers=build_optimizers(
            config.training.optimizer, [t.weight for t in tables.values()], list(_parameters(model)), sparse=sparse
        ),
        delivery=delivery,
        rows_per_epoch=epoch_rows(config, folder, interactions),
        facts={
            "propagation": f"{choice.mode} ({choice.reason}); kernel {whole_graph.kernel}, "
            f"{config.training.propagation.precision}",
            **({"tables": tables_fact(placed, tables, config.training.wire)} if tables else {}),
            **_shortcut(ahead),
            **({"evaluation": f"in tiles ({inference.reason})"} if inference.kind == "tiled" else {}),
            "interactions": delivered,
            **world.facts,
            "compute": f"{context.world_size} worker(s) × {torch.get_num_threads()} thread(s) on {context.device.type}",
        },
    )


def _chains(config: RunConfig, model: Recommender) -> dict[str, tuple[HopSpec, ...]]:
    """What training propagates over, by branch."""
    return {
        name: hop_specs(chain, (-1,) if branch.every_neighbour else config.training.propagation.fan_outs)
        for name, branch in model.branches().items()
        if (chain := branch.relations(training=True)) is not None
    }


def _choice(
    config: RunConfig,
    world: World,
    chains: Mapping[str, tuple[HopSpec, ...]],
    context: WorkerContext,
    run_folder: RunFolder | None,
    *,
    needs_negatives: bool,
) -> PropagationChoice:
    """How training propagates: what is cheaper now, or what the run began with."""
    wanted = _choose(config, world.relations, chains, context, needs_negatives=needs_negatives)
    mode = _remembered("propagation", wanted.mode, run_folder, context)
    return wanted if mode == wanted.mode else PropagationChoice(mode=mode, reason="as the run began")


def _model(config: RunConfig, world: World, context: WorkerContext, gather: Gather) -> Recommender:
    torch.manual_seed(seed_for(config.seed, "parameters"))
    precision = config.training.propagation.precision
    model = build_model(
        config.model,
        surrounding_of(
            world,
            precision=precision,
            gather=gather,
            pretrained=True,
            rank=context.rank,
            world_size=context.world_size,
        ),
    )
    assert isinstance(model, nn.Module)
    moved: Recommender = model.to(context.device)
    return moved


def _parameters(model: Recommender) -> Iterable[nn.Parameter]:
    assert isinstance(model, nn.Module)
    return model.parameters()


def _place_tables(
    config: RunConfig,
    model: Recommender,
    world: World,
    context: WorkerContext,
    run_folder: RunFolder | None,
    *,
    sparse: bool,
) -> TablesChoice:
    """`auto` stays with what the run began with, so that a resumed run adds up as it did."""
    choice = choose_tables(
        model.tables(),
        world.num_users,
        world.folder.num_items,
        optimizer=config.training.optimizer.kind,
        sparse=sparse,
        memory_bytes=_memory_share(context),
        world_size=context.world_size,
        wanted=config.training.tables,
    )
    if config.training.tables != "auto":
        return choice
    placement = _remembered("tables", choice.placement, run_folder, context)
    return choice if placement == choice.placement else TablesChoice(placement, "as the run began")


def _propagated_ahead(config: RunConfig, model: Recommender, world: World, graph: FullGraph) -> tuple[str, ...]:
    """The strands that are propagated here once. Without a batch's own edges each batch has another graph, and an
    adversary moves the features in every step."""
    if not isinstance(model, PropagatesAhead) or config.training.propagation.exclude_targets or moves_features(config):
        return ()
    assert isinstance(model, nn.Module)
    model.eval()  # in full precision, whatever the hops have in training
    with torch.no_grad():
        inputs = whole_inputs(model, {}, graph, world.features.fetch, world.num_users, world.cold)
        ahead = model.propagate_ahead(inputs, RESIDENT_BYTES)
    model.train()
    return ahead


def _shortcut(ahead: tuple[str, ...]) -> dict[str, str]:
    """What the log says of it."""
    return {"shortcut": f"{', '.join(ahead)} propagated once, before training (linear, frozen)"} if ahead else {}


def _source(
    config: RunConfig, world: World, context: WorkerContext, choice: PropagationChoice, whole_graph: FullGraph
) -> NeighbourhoodSource:
    """What training propagates over.

    Relations that are drawn or learnt anew each epoch come to them when an epoch begins.

    Args:
        whole_graph: the graph that is evaluated on.
    """
    propagation = config.training.propagation
    if choice.mode == "full":
        return whole_graph
    return SampledSubgraph(
        world.relations.fixed, device=context.device, kernel=whole_graph.kernel, sampler=propagation.sampler
    )


def _learned(model: Recommender, world: World) -> Mapping[str, Relation]:
    """The relations that the model makes from its parameters as they are."""
    if not isinstance(model, LearnsRelations):
        return {}
    return model.learned_relations(world.features.fetch, world.relations.fixed, num_users=world.num_users)


def _remembered(what: str, now: str, run_folder: RunFolder | None, context: Collectives) -> str:
    """The choice that the run began with: what memory is free today must not turn it into another run."""
    if run_folder is None:
        return now
    if context.rank == 0:
        run_folder.remembered(what, now)
    context.barrier()
    return run_folder.remembered(what, now)


def loss_columns(config: RunConfig) -> list[str]:
    """The columns of the train split that the objective reads."""
    rating = ["rating"] if isinstance(config.objective.loss, RatingMSEConfig) else []
    return ["user", "item", *rating, *(["weight"] if config.objective.use_weights else [])]


def _choose(
    config: RunConfig,
    relations: RelationSet,
    chains: Mapping[str, tuple[HopSpec, ...]],
    context: WorkerContext,
    *,
    needs_negatives: bool,
) -> PropagationChoice:
    # The longest chain decides for all; a view is as large as what it perturbs.
    hops = max(chains.values(), key=len, default=())
    rows = config.training.batch_size // context.world_size
    negatives = config.objective.negatives.shared or rows * config.objective.negatives.per_positive
    choice = choose_propagation(
        [relations.as_large_as(spec.relation) for spec in hops],
        fan_outs=[spec.fan_out for spec in reversed(hops)],
        seeds_per_step=2 * rows + (negatives if needs_negatives else 0),
        dim=config.model.dim,
        memory_bytes=_memory_share(context) // max(1, len(chains)),
        wanted=config.training.propagation.mode,
    )
    if config.training.propagation.exclude_targets and choice.mode == "full":
        if config.training.propagation.mode == "auto":
            return PropagationChoice(mode="sampled", reason="exclude_targets is possible in sampled mode only")
        raise ConfigError(
            "training.propagation.exclude_targets=true needs mode=sampled: the full graph is shared by all batches"
        )
    return choice


def _memory_share(context: WorkerContext) -> int:
    """Bytes that a worker may use: rank 0's figure, for ranks that chose differently would wait for each other."""
    share = float(psutil.virtual_memory().available / context.world_size)
    if context.device.type == "cuda":
        share = float(torch.cuda.mem_get_info(context.device)[0])
    told = torch.tensor([share if context.rank == 0 else 0.0], dtype=torch.float64, device=context.device)
    return int(context.all_reduce(told))


def _kernel(device: torch.device, wanted: str) -> str:
    try:
        return choose_kernel(device, wanted)
    except ValueError as error:
        raise ConfigError(f"training.propagation.{error}") from None


def _wants_sparse(
    config: RunConfig, choice: PropagationChoice, chains: Mapping[str, tuple[HopSpec, ...]], model: Recommender
) -> bool:
    kind = config.training.optimizer.kind
    if any(spec.every_row for spec in model.tables().values()):
        if kind in ROWS_ONLY:
            raise ConfigError(
                f"training.optimizer.kind={kind} updates the rows of the batch, but with "
                f"model.encoder.kind={config.model.encoder.kind} every row gets a gradient: use {ROWS_ONLY[kind]}"
            )
        return False
    rows_only = choice.mode == "sampled" or not any(chains.values())
    if kind in ROWS_ONLY and not rows_only:
        raise ConfigError(
            f"training.optimizer.kind={kind} updates the rows of the batch, but with full propagation every row "
            f"gets a gradient: use {ROWS_ONLY[kind]}, or training.propagation.mode=sampled"
        )
    return kind != "adam" and rows_only


def epoch_rows(config: RunConfig, folder: DatasetFolder, interactions: Relation) -> int:
    """Rows of all batches of an epoch: interactions, or users who have some."""
    if config.training.order == "users":
        return int((interactions.in_degree[: folder.num_users] > 0).sum())
    return folder.num_rows("train")


def _delivery(
    config: RunConfig, folder: DatasetFolder, interactions: Relation, context: WorkerContext
) -> tuple[Delivery, str]:
    plan = ShardPlan(total_rows=epoch_rows(config, folder, interactions), world_size=context.world_size)
    seed, rank = config.seed, context.rank
    if config.training.order == "uniform_users":
        delivery = UniformUserDelivery(interactions, folder.num_users, plan, seed=seed, rank=rank)
        return delivery, f"{plan.total_rows:,} draws an epoch, users uniformly"
    if config.training.order == "users":
        whole = UserDelivery(interactions, folder.num_users, plan, seed=seed, rank=rank)
        return whole, f"{plan.total_rows:,} users an epoch, each with all that he has"
    columns = loss_columns(config)
    shard_mb = plan.rows_per_rank * 4 * len(columns) / 2**20
    wanted = config.data.delivery
    if wanted == "stream" or (wanted == "auto" and shard_mb > config.data.memory_limit_mb):
        stream = StreamDelivery(
            lambda: _chunks(folder, columns, context), seed=seed, rank=rank, buffer_rows=config.data.shuffle_buffer
        )
        return stream, f"{plan.rows_per_rank:,} a worker, streamed each epoch"
    memory = MemoryDelivery(read_all(_chunks(folder, columns, context)), seed=seed, rank=rank)
    give_memory_back()  # sorting took more than what is kept
    return memory, f"{plan.rows_per_rank:,} a worker, kept in memory ({shard_mb:.0f} MiB)"


def _chunks(folder: DatasetFolder, columns: list[str], context: WorkerContext) -> Iterable[Rows]:
    chunks = context.train_chunks()
    return chunks if chunks is not None else [local_rows(folder, columns, context.rank, context.world_size)]
