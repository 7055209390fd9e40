"""What a training run is. Every key can be set in YAML, by `--set`, and later by a search space."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from braidrec.config.base import Strict
from braidrec.config.model import ModelConfig
from braidrec.config.scalars import Positive, PositiveFloat, Seed, Share


class PlantedConfig(Strict):
    """A generated data set with a known answer: users like topics, and the items' modalities reveal them."""

    users: Positive = Field(default=600, description="Number of users.")
    items: Positive = Field(default=400, description="Number of items.")
    interactions: Positive = Field(default=12_000, description="Number of interactions, over all splits.")
    seed: Seed = Field(default=0, description="Decides the data set.")


class DataConfig(Strict):
    """Where the interactions come from."""

    path: str = Field(description="Dataset folder written by jobs/prepare.py: a local path or any pyarrow URI.")
    planted: PlantedConfig | None = Field(
        default=None, description="Generate this data set at `path` first, unless one is there."
    )
    delivery: Literal["auto", "memory", "stream"] = Field(
        default="auto",
        description="memory: a worker keeps its shard after reading it once; stream: Ray Data delivers it anew each "
        "epoch; auto: memory while a shard is smaller than `memory_limit_mb`.",
    )
    memory_limit_mb: Positive = Field(default=2048, description="Largest shard that `auto` keeps, MiB per worker.")
    shuffle_buffer: Positive = Field(default=1_000_000, description="Rows mixed at a time when streaming.")


class BPRConfig(Strict):
    """−log σ(score of the positive − score of the negative)."""

    kind: Literal["bpr"] = "bpr"


class ImplicitMSEConfig(Strict):
    """(1 − score of the positive)² + (score of the negative)²."""

    kind: Literal["mse"] = "mse"


class CrossEntropyConfig(Strict):
    """Binary cross-entropy of the positive and the negative."""

    kind: Literal["cross_entropy"] = "cross_entropy"


class HingeConfig(Strict):
    """max(0, margin − (score of the positive − score of the negative))."""

    kind: Literal["hinge"] = "hinge"
    margin: PositiveFloat = Field(default=1.0, description="By how much the positive must win.")


class PointwiseHingeConfig(Strict):
    """max(0, 1 − y · score), y = 1 for the positive and −1 for the negative."""

    kind: Literal["pointwise_hinge"] = "pointwise_hinge"


class SampledSoftmaxConfig(Strict):
    """Softmax over the positive and its `negatives.per_positive` negatives, corrected for how these were drawn."""

    kind: Literal["sampled_softmax"] = "sampled_softmax"
    temperature: PositiveFloat = Field(default=1.0, description="τ, by which scores are divided.")
    log_q: bool = Field(default=True, description="Correct for the probability with which negatives are drawn.")


class InBatchSoftmaxConfig(Strict):
    """Softmax over the items of the batch; items of the same user are no negatives."""

    kind: Literal["in_batch_softmax"] = "in_batch_softmax"
    temperature: PositiveFloat = Field(default=0.2, description="τ, by which scores are divided.")
    cosine: bool = Field(default=True, description="Scores are cosines, in training and in ranking.")
    log_q: bool = Field(default=True, description="Correct for the popularity with which items get into a batch.")
    across_workers: bool = Field(default=False, description="Items in other workers' batches are negatives as well.")


class OwnTermsConfig(Strict):
    """No loss but the model's own terms, for systems that bring theirs (bm3, selfcf, slmrec)."""

    kind: Literal["none"] = "none"


class RatingMSEConfig(Strict):
    """(rating − score)² on the real ratings of the data set, the score being offset by their mean."""

    kind: Literal["rating_mse"] = "rating_mse"
    link: Literal["identity", "sigmoid"] = Field(
        default="identity",
        description="What makes a rating of a score; sigmoid: predictions stay between the lowest and the highest "
        "rating of the train split. RMSE and MAE are of ratings; ranking and recommending use the score.",
    )


class NegativesConfig(Strict):
    """Negative items for pairwise losses; a user's own train items are never drawn."""

    kind: Literal["uniform", "popularity"] = Field(
        default="uniform", description="uniform: every item is as likely; popularity: by its number of interactions."
    )
    exponent: Share = Field(default=0.75, description="popularity: items are drawn in proportion to degree^exponent.")
    per_positive: Positive = Field(default=1, description="Negatives drawn for each interaction.")
    shared: Positive | None = Field(
        default=None,
        description="Items that are drawn for a worker's batch and from which all its interactions take their "
        "negatives, so that fewer rows are read; null: each draws from all items.",
    )


LossConfig = Annotated[
    BPRConfig
    | ImplicitMSEConfig
    | CrossEntropyConfig
    | HingeConfig
    | PointwiseHingeConfig
    | SampledSoftmaxConfig
    | InBatchSoftmaxConfig
    | RatingMSEConfig
    | OwnTermsConfig,
    Field(discriminator="kind"),
]


class ObjectiveConfig(Strict):
    """What is minimised: loss + regulariser · ½(‖e_u‖² + ‖e_i‖² + ‖e_j‖²)/B over the batch's own embeddings."""

    loss: LossConfig = BPRConfig()
    regulariser: Annotated[float, Field(ge=0)] = Field(default=1e-4, description="λ of the L2 regulariser.")
    negatives: NegativesConfig = NegativesConfig()
    use_weights: bool = Field(default=False, description="Multiply each row's loss by the data set's `weight` column.")


class PropagationConfig(Strict):
    """How an encoder's hops are computed while training. Evaluation is always exact."""

    mode: Literal["auto", "full", "sampled"] = Field(
        default="auto", description="full: the whole graph; sampled: fan-outs per hop; auto: the cheaper one."
    )
    fan_outs: tuple[int, ...] = Field(
        default=(10,),
        description="Neighbours drawn per node, from the seed nodes outwards; −1 takes all. "
        "The last value is repeated for further hops.",
    )
    sampler: Literal["neighbour", "labor"] = Field(
        default="neighbour",
        description="neighbour: each node draws for itself; labor: a batch shares its draws, so that fewer "
        "neighbours are needed (Balin and Çatalyürek, NeurIPS 2023).",
    )
    exclude_targets: bool = Field(
        default=False, description="Remove the batch's own interactions from the sampled neighbourhood."
    )
    kernel: Literal["auto", "dgl", "torch"] = Field(default="auto", description="auto: DGL where it has a kernel.")
    precision: Literal["fp32", "bf16"] = Field(default="fp32", description="Number format inside the propagation.")

    @model_validator(mode="after")
    def _fan_outs_make_sense(self) -> "PropagationConfig":
        if not self.fan_outs or any(fan_out == 0 or fan_out < -1 for fan_out in self.fan_outs):
            raise ValueError(f"fan_outs={list(self.fan_outs)}: each must be a positive count or −1 for all neighbours")
        return self


class MirrorGradientConfig(Strict):
    """In some steps the update is followed by a smaller one in the other direction, on the same batch, which leads to
    flatter minima (Mirror Gradient, Zhong et al., WWW 2024)."""

    down: PositiveFloat = Field(default=1.0, description="α₁, factor on the gradient of the update.")
    up: PositiveFloat = Field(
        default=0.5, description="α₂, factor on the gradient of the update against it; below `down`."
    )
    every: Positive = Field(default=3, description="β: it is every β-th step of an epoch, the first included.")

    @model_validator(mode="after")
    def _leads_down(self) -> "MirrorGradientConfig":
        if self.up >= self.down:
            raise ValueError(f"up={self.up} must be below down={self.down}: the way has to lead downwards")
        return self


class AdversarialConfig(Strict):
    """The loss counts a second time where what the model reads is moved by ε to where the loss rises (AMR, Tang et al.,
    IEEE TKDE 2020; on embeddings APR, He et al., SIGIR 2018)."""

    target: Literal["features", "embeddings"] = Field(
        default="features",
        description="What is moved: the items' feature vectors in each modality, or the rows of the embedding tables.",
    )
    epsilon: PositiveFloat = Field(
        default=0.1, description="ε, by how much each row is moved, in its own units: see the length of the vectors."
    )
    weight: PositiveFloat = Field(default=1.0, description="λ of the loss there.")
    start_epoch: Positive = Field(default=1, description="The first epoch with it; those before train without.")


class OptimizerConfig(Strict):
    """adam is dense and exact; the others touch only a batch's rows, row_adagrad with one number of state a row."""

    kind: Literal["adam", "sparse_adam", "adagrad", "row_adagrad", "sgd"] = Field(
        default="adam", description="The algorithm."
    )
    learning_rate: Annotated[float, Field(gt=0)] = Field(default=1e-3, description="Its highest value.")
    schedule: Literal["constant", "cosine", "linear"] = Field(
        default="constant", description="Course of the learning rate from the end of the warm-up to the last epoch."
    )
    warmup_steps: Annotated[int, Field(ge=0)] = Field(default=0, description="Steps of linear warm-up from zero.")
    gradient_clip: Annotated[float, Field(gt=0)] | None = Field(default=None, description="Largest gradient norm.")
    mirror_gradient: MirrorGradientConfig | None = Field(default=None, description="Null: updates lead down only.")


class TrainingConfig(Strict):
    """The loop."""

    epochs: Positive = Field(default=100, description="Most epochs; fewer where validation stops gaining.")
    batch_size: Positive = Field(default=2048, description="Interactions per step over all workers together.")
    order: Literal["permutation", "uniform_users", "users"] = Field(
        default="permutation",
        description="permutation: each interaction once an epoch; uniform_users: LightGCN's official sampler, a user "
        "uniformly with replacement and then one of its items; users: each user once an epoch, with one of its items, "
        "for models that look at whole users.",
    )
    propagation: PropagationConfig = PropagationConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    tables: Literal["auto", "replicated", "sharded"] = Field(
        default="auto",
        description="Where embedding rows live: a copy on each worker, or each row with its optimizer state on one; "
        "auto: sharded where copies would take more than half of a worker's memory. The results are the same.",
    )
    wire: Literal["fp32", "bf16"] = Field(
        default="fp32",
        description="Number format in which sharded rows and their gradients travel between workers; the rows "
        "themselves are kept in fp32.",
    )
    adversarial: AdversarialConfig | None = Field(default=None, description="Null: training without an adversary.")
    prepare_ahead: bool = Field(
        default=True,
        description="With `propagation.sampler: labor`, draw the next batch's negatives and neighbours on a thread "
        "while this batch is computed; the results are the same. Not done where workers tell each other what to "
        "exclude (`propagation.exclude_targets`), nor with other samplers, whose draws depend on the thread.",
    )
    checkpoint_every: Positive = Field(default=1, description="Epochs between two checkpoints of the last state.")


class EvaluationConfig(Strict):
    """Full ranking over all items."""

    every: Positive = Field(default=1, description="Epochs between validations.")
    at: tuple[Positive, ...] = Field(default=(10, 20), description="Cut-offs k.")
    monitor: str | None = Field(
        default="recall@20", description="Validation metric that selects the best epoch; null: the last epoch is kept."
    )
    patience: Positive | None = Field(
        default=20, description="Validations without a gain before stopping; null: never."
    )
    mask: Literal["train", "train+valid"] = Field(
        default="train", description="Items of which splits are taken out of the candidates when testing."
    )
    test: bool = Field(
        default=True,
        description="Test the best epoch at the end. False: the test split is never looked at, as in a search.",
    )
    watch_test: bool = Field(
        default=False, description="Also test at every validation, for curves. Never used to select anything."
    )
    auc: bool = Field(default=False, description="Also the exact AUC per user (slower).")
    slices: bool = Field(
        default=True,
        description="At the end, also by user activity, item popularity, cold and warm items, and their modalities.",
    )
    tile_mb: Positive = Field(
        default=256, description="Memory for one tile of scores, or of nodes that are encoded in tiles, MiB."
    )
    inference: Literal["auto", "whole", "tiled"] = Field(
        default="auto",
        description="How all nodes are encoded, with the same result. whole: each worker, at once in its memory; "
        "tiled: layer by layer in tiles, by all workers of a machine, in mapped files in `cache` (CPU only); auto: "
        "tiled where whole would take more than a quarter of what a worker may use.",
    )


class WorkersConfig(Strict):
    """Who trains."""

    num: Annotated[int, Field(ge=0)] = Field(default=2, description="Ray Train workers; 0 trains in this process.")
    least: Positive | None = Field(
        default=None,
        description="Workers with which the run goes on while nodes are lost, up to `num` again when they are back; "
        "null: it waits for `num`.",
    )
    cpus: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="CPUs reserved per worker; null: what the cluster has, less one for Ray Data."
    )
    gpu: bool = Field(default=False, description="Give every worker one GPU.")
    threads: Positive | None = Field(default=None, description="Compute threads per worker; null: its share of CPUs.")
    backend: Literal["auto", "gloo", "nccl"] = Field(
        default="auto", description="Collectives between workers; auto: nccl on GPUs, gloo otherwise."
    )
    max_failures: Annotated[int, Field(ge=0)] = Field(
        default=3, description="Worker failures survived before giving up."
    )
    timeout_seconds: Positive = Field(default=600, description="A collective waiting longer than this has failed.")
    allocator: Literal["tuned", "system"] = Field(
        default="tuned",
        description="tuned: freed memory is kept, in huge pages, which is faster on CPUs; system: as the machine does. "
        "GLIBC_TUNABLES or LD_PRELOAD in the environment wins.",
    )


class TrackingConfig(Strict):
    """MLflow."""

    enabled: bool = Field(default=True, description="Log to MLflow at all.")
    uri: str | None = Field(default=None, description="Tracking URI; null: sqlite in the storage folder.")
    experiment: str = Field(default="braidrec", description="Name of the MLflow experiment.")
    system_metrics: bool = Field(default=True, description="Also the machine's load: CPU, memory, disk, network, GPU.")
    artifacts: str | None = Field(
        default=None, description="Where a new experiment keeps artefacts; null: beside SQLite, or as the server likes."
    )
    registered_model: str | None = Field(
        default=None, description="Log the best epoch as a pyfunc model that answers top-k, and register it as this."
    )
    tags: dict[str, str] = Field(default_factory=dict, description="Tags of the MLflow run.")
    flush_seconds: Annotated[float, Field(ge=0)] = Field(
        default=60.0, description="How long to go on trying at the end to send what a lost server did not take."
    )


class RunConfig(Strict):
    """One training run."""

    name: str | None = Field(default=None, description="Run name; null: made up and unique.")
    seed: Seed = Field(default=42, description="Decides initial values, batches, negatives and samples.")
    storage: str = Field(default="runs", description="Folder or URI under which every run gets its own folder.")
    cache: str | None = Field(
        default=None, description="Folder for graphs shared between workers; null: in the home cache."
    )
    data: DataConfig
    model: ModelConfig = ModelConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    workers: WorkersConfig = WorkersConfig()
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="after")
    def _consistent(self) -> "RunConfig":
        workers = max(1, self.workers.num)
        size = self.training.batch_size
        if size % workers:
            raise ValueError(
                f"training.batch_size={size} is not divisible by workers.num ({workers}): "
                f"use {size - size % workers or workers} or {size - size % workers + workers}"
            )
        if self.workers.least is not None and self.workers.least > self.workers.num:
            raise ValueError(
                f"workers.least={self.workers.least} is more than workers.num ({self.workers.num}): these are the "
                "fewest and the most workers"
            )
        return self
