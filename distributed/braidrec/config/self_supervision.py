"""Self-supervised tasks: views, objectives, targets."""

from typing import Annotated, Literal

from pydantic import Field

from braidrec.config.base import Strict
from braidrec.config.scalars import NonNegative, Positive, PositiveFloat, Rate


class PlainViewConfig(Strict):
    """The model's own vectors, unperturbed."""

    kind: Literal["plain"] = "plain"


class EdgeDropoutConfig(Strict):
    """Interactions left out of the graph at random, anew each epoch (SGL's edge dropout and random walk)."""

    kind: Literal["edge_dropout"] = "edge_dropout"
    rate: Rate = Field(default=0.1, description="Probability of each edge, in both directions together.")
    per_layer: bool = Field(default=False, description="Another draw for every layer: SGL's random walk.")


class NodeDropoutConfig(Strict):
    """Nodes that lose all their edges at random, anew each epoch (SGL)."""

    kind: Literal["node_dropout"] = "node_dropout"
    rate: Rate = Field(default=0.1, description="Probability of each node.")


class EdgeNoiseConfig(Strict):
    """Edges weighted by 1 + N(0, std²), anew each epoch; weights below 0 become 0."""

    kind: Literal["edge_noise"] = "edge_noise"
    std: NonNegative = Field(default=0.1, description="Standard deviation of the weights.")


class EdgeMaskConfig(Strict):
    """A learned weight of every edge, by a perceptron on its two ends."""

    kind: Literal["edge_mask"] = "edge_mask"
    hidden: Positive = Field(default=32, description="Width of the perceptron.")
    temperature: PositiveFloat = Field(default=0.5, description="How far the relaxed mask is from 0 or 1.")


class LayerNoiseConfig(Strict):
    """SimGCL's noise after every hop, of the sign of what it is added to (Yu et al., SIGIR 2022)."""

    kind: Literal["layer_noise"] = "layer_noise"
    norm: NonNegative = Field(default=0.1, description="ε, the length of the noise in every row.")


class GaussianNoiseConfig(Strict):
    """N(0, std²) on every entry."""

    kind: Literal["gaussian_noise"] = "gaussian_noise"
    std: NonNegative = Field(default=0.1, description="Standard deviation.")


class FeatureDropoutConfig(Strict):
    """Entries set to zero at random."""

    kind: Literal["feature_dropout"] = "feature_dropout"
    rate: Rate = Field(default=0.1, description="Probability of each entry.")
    rescale: bool = Field(default=False, description="Divide what is left by 1 − rate.")


class MLPViewConfig(Strict):
    """A learned view, by a perceptron."""

    kind: Literal["mlp"] = "mlp"
    hidden: Positive = Field(default=64, description="Width of the perceptron.")


RowViewConfig = Annotated[
    PlainViewConfig | GaussianNoiseConfig | FeatureDropoutConfig | MLPViewConfig, Field(discriminator="kind")
]
ViewConfig = Annotated[
    PlainViewConfig
    | EdgeDropoutConfig
    | NodeDropoutConfig
    | EdgeNoiseConfig
    | EdgeMaskConfig
    | LayerNoiseConfig
    | GaussianNoiseConfig
    | FeatureDropoutConfig
    | MLPViewConfig,
    Field(discriminator="kind"),
]


class InfoNCEConfig(Strict):
    """−log of the share of the pair among all pairs with other nodes of the batch."""

    kind: Literal["info_nce"] = "info_nce"
    temperature: PositiveFloat = Field(default=0.2, description="τ.")
    negatives_from: Literal["second", "both"] = Field(default="second", description="The views that hold negatives.")
    across_workers: bool = Field(default=False, description="Nodes in other workers' batches are negatives as well.")


class JensenShannonConfig(Strict):
    """softplus(−D(pair)) + softplus(D(non-pair)), the Jensen–Shannon bound of mutual information."""

    kind: Literal["jensen_shannon"] = "jensen_shannon"
    negatives: Literal["all", "one"] = Field(default="all", description="All other rows of the batch, or one of them.")
    bilinear: bool = Field(default=False, description="D = ⟨T z, z'⟩ with a learned T; otherwise ⟨z, z'⟩.")
    across_workers: bool = Field(default=False, description="Nodes in other workers' batches are negatives as well.")


class BootstrapConfig(Strict):
    """1 − cos(predictor(z), stop-gradient(z')), both ways; no negatives (BM3, SelfCF)."""

    kind: Literal["bootstrap"] = "bootstrap"


class CosineConfig(Strict):
    """1 − cos(z, z')."""

    kind: Literal["cosine"] = "cosine"


class MomentsConfig(Strict):
    """Distance of the two views' means and standard deviations over the batch."""

    kind: Literal["moments"] = "moments"
    per_dimension: bool = Field(default=True, description="For every dimension, or over all dimensions together.")


ViewLossConfig = Annotated[
    InfoNCEConfig | JensenShannonConfig | BootstrapConfig | CosineConfig | MomentsConfig, Field(discriminator="kind")
]


class ContrastConfig(Strict):
    """Two views of the final vectors."""

    kind: Literal["contrast"] = "contrast"
    target: Literal["users", "items", "both"] = Field(default="both", description="Whose vectors.")
    first: ViewConfig = EdgeDropoutConfig()
    second: ViewConfig = EdgeDropoutConfig()
    loss: ViewLossConfig = InfoNCEConfig()
    weight: NonNegative = Field(default=0.1, description="Factor of the task in the loss.")


class AlignConfig(Strict):
    """Two representations of an item as two views of it: of two modalities, of the ID, of the final vector."""

    kind: Literal["align"] = "align"
    first: str = Field(description="A modality, `id`, or `fused` for the final vector.")
    second: str = Field(description="Likewise.")
    first_view: RowViewConfig = PlainViewConfig()
    second_view: RowViewConfig = PlainViewConfig()
    loss: ViewLossConfig = InfoNCEConfig()
    weight: NonNegative = Field(default=0.1, description="Factor of the task in the loss.")


class ReconstructConfig(Strict):
    """Predict features of a modality that were hidden, from what is left of it or from other strands."""

    kind: Literal["reconstruct"] = "reconstruct"
    modality: str = Field(description="Whose features are predicted.")
    sources: tuple[str, ...] = Field(
        default=(), description="Strands to predict from; empty: from the modality itself, with entries hidden."
    )
    rate: Rate = Field(default=0.3, description="Share of the entries that are hidden (without `sources`).")
    loss: Literal["mse", "cosine"] = Field(default="mse", description="Squared error or cosine of what was hidden.")
    weight: NonNegative = Field(default=0.1, description="Factor of the task in the loss.")


class EdgePredictionConfig(Strict):
    """Tell the batch's interactions from pairs that are none, by the inner product of the final vectors."""

    kind: Literal["edge_prediction"] = "edge_prediction"
    negatives: Positive = Field(default=1, description="Other items of the batch for each interaction.")
    weight: NonNegative = Field(default=0.1, description="Factor of the task in the loss.")


class NeighbourhoodSimilarityConfig(Strict):
    """The cosine of two users' (or items') vectors predicts how much of their train neighbourhoods is common."""

    kind: Literal["neighbourhood_similarity"] = "neighbourhood_similarity"
    target: Literal["users", "items", "both"] = Field(default="both", description="Whose vectors.")
    weight: NonNegative = Field(default=0.1, description="Factor of the task in the loss.")


TaskConfig = Annotated[
    ContrastConfig | AlignConfig | ReconstructConfig | EdgePredictionConfig | NeighbourhoodSimilarityConfig,
    Field(discriminator="kind"),
]
