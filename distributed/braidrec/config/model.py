"""What a recommender is: strands, their fusion, encoders, graphs."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from braidrec.config.base import Strict
from braidrec.config.scalars import Positive, PositiveFloat, Rate
from braidrec.config.self_supervision import TaskConfig
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
from braidrec.config.untrained import UntrainedConfig

UserMissingKind = Literal["token", "zeros", "mean", "neighbours", "propagation"]
Readout = Literal["mean", "sum", "last", "concat"]
Layers = Annotated[int, Field(ge=1, le=8)]
MissingKind = Literal["token", "zeros", "mask", "mean", "neighbours", "propagation"]


class MatrixFactorisationConfig(Strict):
    """No propagation: the score is ⟨user, item⟩, optionally with a bias a user and a bias an item."""

    kind: Literal["mf"] = "mf"
    biases: bool = Field(default=False, description="Learn a bias for every user and every item (without modalities).")


class LightGCNConfig(Strict):
    """LightGCN (He et al., SIGIR 2020): propagation on the user–item graph without weights or activation."""

    kind: Literal["lightgcn"] = "lightgcn"
    layers: Layers = Field(default=3, description="Number of propagation hops.")
    readout: Readout = Field(
        default="mean", description="How the representations of all layers (0 = the embedding itself) are combined."
    )
    ego: bool = Field(default=True, description="Layer 0 takes part in the readout; SimGCL leaves it out.")

    @model_validator(mode="after")
    def _consistent(self) -> "LightGCNConfig":
        if self.readout == "last" and not self.ego:
            raise ValueError("ego=false has no effect on readout=last, which has no layer 0; remove it")
        return self


class NGCFConfig(Strict):
    """Graph convolution with weights and LeakyReLU (NGCF, Wang et al., SIGIR 2019)."""

    kind: Literal["ngcf"] = "ngcf"
    layers: Layers = Field(default=3, description="Number of propagation hops.")
    readout: Readout = Field(default="concat", description="How the representations of all layers are combined.")
    interaction: bool = Field(default=True, description="With the term Â E ⊙ E; false: a plain graph convolution.")
    dropout: Rate = Field(default=0.1, description="Share of a layer's entries zeroed while training.")


class GraphSAGEConfig(Strict):
    """DGL's GraphSAGE layers with the mean aggregator (Hamilton, Ying & Leskovec, NeurIPS 2017)."""

    kind: Literal["graphsage"] = "graphsage"
    layers: Layers = Field(default=2, description="Number of propagation hops.")
    readout: Readout = Field(default="last", description="How the representations of all layers are combined.")
    dropout: Rate = Field(default=0.0, description="Share of a layer's input entries zeroed while training.")


class GATConfig(Strict):
    """DGL's graph attention layers (Veličković et al., ICLR 2018)."""

    kind: Literal["gat"] = "gat"
    layers: Layers = Field(default=2, description="Number of propagation hops.")
    heads: Positive = Field(default=1, description="Attention heads, which are averaged.")
    readout: Readout = Field(default="last", description="How the representations of all layers are combined.")
    dropout: Rate = Field(default=0.0, description="Share of a layer's input entries zeroed while training.")


class LayerGCNConfig(Strict):
    """LayerGCN (Zhou et al., ICDE 2023): layers fade as they lead away from the embeddings; a pruned graph."""

    kind: Literal["layergcn"] = "layergcn"
    layers: Layers = Field(default=4, description="Number of propagation hops.")
    prune_rate: Rate = Field(
        default=0.1,
        description="Share of the interactions that an epoch's graph is without, those between popular nodes first.",
    )


class ProjectorConfig(Strict):
    """From a modality's feature space into the model's."""

    depth: Annotated[int, Field(ge=1, le=8)] = Field(default=1, description="Linear maps; 1 is a linear projector.")
    hidden: Positive | None = Field(default=None, description="Width between linear maps; null: model.dim.")
    activation: Literal["relu", "leaky_relu", "elu", "gelu", "tanh", "sigmoid"] | None = Field(
        default=None, description="Between linear maps; null: leaky_relu."
    )
    dropout: Rate = Field(default=0.0, description="Share of a map's inputs zeroed while training.")
    layer_norm: bool = Field(default=False, description="Normalise what each linear map gives.")
    bias: bool = Field(default=True, description="Linear maps have a bias.")


class TransformConfig(Strict):
    """What is done to feature vectors once, before any training; learnt from items of the train split alone."""

    standardise: bool = Field(default=False, description="Mean 0 and standard deviation 1 in every dimension.")
    pca: Positive | None = Field(
        default=None, description="Keep this many principal components; null: all as they are."
    )
    whiten: bool = Field(default=False, description="Principal components of variance 1; needs `pca`.")
    l2_norm: bool = Field(default=False, description="Length 1 for every vector, as the last step.")

    @model_validator(mode="after")
    def _consistent(self) -> "TransformConfig":
        if self.whiten and self.pca is None:
            raise ValueError("whiten=true needs pca, the number of components")
        return self


class ModalitiesConfig(Strict):
    """Which modalities of the items the model looks at, and how."""

    use: tuple[str, ...] = Field(
        default=(), description="Names of item modalities of the data set; ['*'] stands for all of them."
    )
    projector: ProjectorConfig = ProjectorConfig()
    transform: TransformConfig = TransformConfig()
    missing: MissingKind = Field(
        default="token",
        description="What stands for the vector of an item that lacks a modality. token: learned; zeros; mask: "
        "left out of the fusion; mean: of the items in train; neighbours: mean of the items that share users; "
        "propagation: feature propagation on the interactions.",
    )
    missing_in: dict[str, MissingKind] = Field(default_factory=dict, description="The same for single modalities.")
    dropout: Rate = Field(
        default=0.0, description="While training, an item loses each of its modalities with this probability."
    )
    trainable: tuple[str, ...] = Field(
        default=(),
        description="Modalities whose vectors are trained too, from the extracted ones on; all others are frozen. "
        "They cost as much memory as embeddings of their width, with the optimizer's state.",
    )


class UserModalitiesConfig(Strict):
    """Which modalities of the users the model looks at, and how; projected, they are added to the users' embeddings."""

    use: tuple[str, ...] = Field(
        default=(), description="Names of user modalities of the data set; ['*'] stands for all of them."
    )
    projector: ProjectorConfig = ProjectorConfig()
    transform: TransformConfig = TransformConfig()
    missing: UserMissingKind = Field(
        default="token",
        description="What stands for the vector of a user who lacks a modality. token: learned; zeros; mean: of the "
        "users in train; neighbours: mean of the users who share items; propagation: feature propagation.",
    )
    missing_in: dict[str, UserMissingKind] = Field(default_factory=dict, description="The same for single modalities.")


class FusionConfig(Strict):
    """How the strands (the ID and the modalities) become one."""

    timing: Literal["early", "late"] = Field(
        default="early", description="early: fused before propagation; late: every strand is propagated on its own."
    )
    of: Literal["vectors", "scores"] = Field(default="vectors", description="What late fusion fuses.")
    combine: Literal["sum", "mean", "max", "weighted", "concat"] = Field(
        default="sum", description="How the strands are combined; weighted: by `weights`; scores: sum, mean, weighted."
    )
    weights: dict[str, float] | None = Field(default=None, description="Of each strand (`id` too), for weighted.")
    weighting: Literal["none", "attention", "gate"] = Field(
        default="none",
        description="What a strand counts: none: all alike; attention over strands; a gate a dimension.",
    )
    gate_by: str | None = Field(default=None, description="The strand that opens the gates; null: each its own.")
    map: Literal["none", "linear", "mlp"] = Field(
        default="none", description="What follows the combination: nothing, or a map to model.dim columns."
    )
    use_id: bool = Field(default=True, description="The items' ID embedding is one of the strands.")
    user_side: Literal["learned", "aggregated"] = Field(
        default="learned",
        description="late: a user's row in a modality is an embedding, or the mean of the rows of the user's items.",
    )
    cold_id: Literal["keep", "drop", "zero", "mean", "generated"] = Field(
        default="drop",
        description="Evaluation: the untrained ID embedding of an item without train interactions. drop: left out of "
        "the fusion; keep: as it is; zero; mean: that of other items; generated: from its modalities, by ridge "
        "regression.",
    )
    cold_length: Literal["keep", "match"] = Field(
        default="keep",
        description="Evaluation: vectors of items without train interactions are shorter than others, since nothing "
        "reaches them over the graph, and lose by that alone. keep: as they are; match: as long as others' on average.",
    )


class LearnedGraphConfig(Strict):
    """The latent item–item structure of Zhang et al. (LATTICE, ACM Multimedia 2021): neighbours by projected features,
    found anew each epoch, whose similarities are trained, mixed with the frozen graph."""

    frozen_share: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.9, description="λ, share of the frozen graph; the rest is that of the learned one."
    )
    feature_dim: Positive = Field(
        default=64, description="Size of the projected features whose similarities are the learned graph."
    )


class ItemGraphConfig(Strict):
    """An item–item graph of nearest neighbours by content, whose result is added to the items' vectors."""

    neighbours: Positive = Field(default=10, description="k, neighbours of an item in each modality, by cosine.")
    layers: Annotated[int, Field(ge=1, le=4)] = Field(default=1, description="Hops on it.")
    weights: dict[str, float] | None = Field(
        default=None, description="What each modality's graph counts in the sum; null: all alike, adding up to 1."
    )
    edge_weights: Literal["binary", "cosine"] = Field(default="binary", description="Before normalisation.")
    of: Literal["id", "fused"] = Field(
        default="id", description="What is propagated on it: the ID embeddings, or the fused rows (early fusion)."
    )
    method: Literal["auto", "exact", "faiss"] = Field(
        default="auto", description="How neighbours are found; auto: exactly, and by FAISS beyond a size."
    )
    learned: LearnedGraphConfig | None = Field(
        default=None, description="Null: the graph is that of the features, and stays."
    )


class UserGraphConfig(Strict):
    """A user–user graph by shared items, whose result is added to the users' vectors."""

    neighbours: Positive = Field(default=10, description="k, neighbours of a user, by number of shared items.")
    layers: Annotated[int, Field(ge=1, le=4)] = Field(default=1, description="Hops on it.")
    weighting: Literal["counts", "softmax", "cosine"] = Field(
        default="softmax",
        description="What an edge counts: shared items, their softmax, or the sets' cosine.",
    )


class HypergraphConfig(Strict):
    """A few hyperedges for each modality, to which items and users belong by degrees that are learned from features
    (LGMRec, Guo et al., AAAI 2024); what comes back over them from the items' ID embeddings is added to all vectors."""

    hyperedges: Positive = Field(default=4, description="Of each modality.")
    layers: Annotated[int, Field(ge=1, le=4)] = Field(default=1, description="Times to the hyperedges and back.")
    weight: PositiveFloat = Field(default=0.3, description="Length of the rows that are added.")
    temperature: PositiveFloat = Field(default=0.2, description="τ; the lower, the closer to one hyperedge.")
    noise: Literal["none", "logistic", "gumbel"] = Field(
        default="gumbel", description="On the degrees while training; logistic: as published; gumbel: as programmed."
    )
    dropout: Rate = Field(default=0.0, description="Share of the degrees zeroed while training.")


SystemConfig = (
    VBPRConfig
    | VBPRMMConfig
    | MMGCNConfig
    | GRCNConfig
    | SLMRecConfig
    | BM3Config
    | FreedomConfig
    | MGCNConfig
    | LatticeConfig
    | ACFConfig
    | ADDVAEConfig
    | SelfCFConfig
    | VMCFConfig
    | DualGNNConfig
    | DragonConfig
    | DVBPRConfig
)
"""Published systems with parts of their own: they do their own projecting and fusing."""

Encoder = Annotated[
    MatrixFactorisationConfig
    | LightGCNConfig
    | LayerGCNConfig
    | NGCFConfig
    | GraphSAGEConfig
    | GATConfig
    | SystemConfig
    | UntrainedConfig,
    Field(discriminator="kind"),
]


class ModelConfig(Strict):
    """The recommender."""

    dim: Positive = Field(default=64, description="Size of an ID embedding and of a projected modality.")
    initial_std: PositiveFloat = Field(default=0.1, description="Embeddings start as N(0, std²).")
    encoder: Encoder = LightGCNConfig()
    modalities: ModalitiesConfig = ModalitiesConfig()
    user_modalities: UserModalitiesConfig = UserModalitiesConfig()
    fusion: FusionConfig = FusionConfig()
    item_graph: ItemGraphConfig | None = Field(default=None, description="Null: none.")
    user_graph: UserGraphConfig | None = Field(default=None, description="Null: none.")
    hypergraph: HypergraphConfig | None = Field(default=None, description="Null: none.")
    self_supervision: dict[str, TaskConfig] = Field(
        default_factory=dict, description="Further summands of the loss, by a name of your own, which metrics bear."
    )
