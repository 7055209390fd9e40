"""Settings of DVBPR."""

from typing import Annotated, Literal

from pydantic import Field

from braidrec.config.base import Strict
from braidrec.config.extract import DatasetSourceConfig, ExtractSourceConfig, ImageLimitsConfig
from braidrec.config.scalars import NonNegative, Positive, PositiveFloat, Rate, Share
from braidrec.config.systems.own_input import OwnInputConfig


class PaperNetworkConfig(Strict):
    """The paper's network: five convolutions, three poolings that halve, three fully connected layers."""

    kind: Literal["paper"] = "paper"
    channels: Annotated[tuple[Positive, ...], Field(min_length=5, max_length=5)] = Field(
        default=(64, 256, 256, 256, 256), description="Of the five convolutions."
    )
    kernel: Positive = Field(default=11, description="Side of the first convolution's kernels, pixels.")
    stride: Positive = Field(default=4, description="Pixels from one place of the first convolution to the next.")
    hidden: Annotated[tuple[Positive, ...], Field(min_length=2, max_length=2)] = Field(
        default=(4096, 4096), description="Widths of the first two fully connected layers; the last has model.dim."
    )
    dropout: Rate = Field(default=0.5, description="Share of these two layers' outputs zeroed while training.")


class TorchvisionNetworkConfig(Strict):
    """A classifier of torchvision, whose last layer is one with `model.dim` outputs; pixels are scaled as it was
    published. All of it is trained."""

    kind: Literal["torchvision"] = "torchvision"
    model: str = Field(default="resnet18", description="Its name, such as resnet18, convnext_tiny or vit_b_16.")
    weights: str | None = Field(
        default=None,
        description="What it starts from, but for the last layer: a file with the state dict (its whole path), "
        "`package:NAME/file`, or `torchvision:NAME` for published ones. Null: from scratch, as in the paper.",
    )


NetworkConfig = Annotated[PaperNetworkConfig | TorchvisionNetworkConfig, Field(discriminator="kind")]


class DVBPRConfig(OwnInputConfig):
    """DVBPR (Kang et al., ICDM 2017): tastes in what a network, trained with them, makes of an item's image. Items
    have nothing of their own beside it."""

    kind: Literal["dvbpr"] = "dvbpr"
    images: ExtractSourceConfig = Field(
        default=DatasetSourceConfig(media="image"),
        description="Where the images are: media of the data set (media/<name>.parquet), or a table with the items' "
        "ids and their files, whose relative paths start at the data set's folder.",
    )
    side: Annotated[int, Field(ge=8, le=2048)] = Field(default=224, description="Pixels of an image's side.")
    fit: Literal["crop", "stretch"] = Field(
        default="crop",
        description="How an image that is no square becomes one: its middle, or the whole of it, out of proportion.",
    )
    margin: Annotated[int, Field(ge=0, le=1024)] = Field(
        default=0,
        description="While training, a square of `side` is cut at random out of one that is so many pixels larger; "
        "otherwise its middle.",
    )
    flip: bool = Field(default=False, description="While training, mirror every other image at random.")
    network: NetworkConfig = Field(default=PaperNetworkConfig(), description="From pixels to model.dim numbers.")
    network_decay: NonNegative = Field(
        default=1e-3, description="λ of the network: the loss gets λ · ½‖W‖² of all its weights but the biases."
    )
    initial_range: PositiveFloat = Field(default=0.01, description="The users' tastes θ start as U(0, this).")
    tile: Positive = Field(default=64, description="Images that are encoded together at evaluation.")
    limits: ImageLimitsConfig = ImageLimitsConfig()
    max_failed: Share = Field(
        default=0.05, description="Share of the images that may be broken; beyond it the run is refused."
    )
