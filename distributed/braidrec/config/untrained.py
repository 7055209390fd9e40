"""Recommenders without training, which every trained one has to beat."""

from typing import Annotated, Literal

from pydantic import Field

from braidrec.config.base import Strict
from braidrec.config.scalars import Positive


class PopularityConfig(Strict):
    """Everybody is recommended what most users had; nothing is trained."""

    kind: Literal["popularity"] = "popularity"


class ItemKNNConfig(Strict):
    """What is similar to the user's items by common users (Sarwar et al., WWW 2001); nothing is trained."""

    kind: Literal["item_knn"] = "item_knn"
    neighbours: Positive = Field(default=100, description="k, neighbours an item by cosine of the sets of users.")
    shrinkage: Annotated[float, Field(ge=0)] = Field(
        default=0.0, description="h in `c_ij / (√(d_i d_j) + h)`, which takes back what stands on few common users."
    )


class ItemKNNCBFConfig(Strict):
    """What is similar to the user's items by content (ItemKNN-CBF); nothing is trained.

    The similarity is the cosine of all used modalities' vectors, each at length one, side by side.
    """

    kind: Literal["item_knn_cbf"] = "item_knn_cbf"
    neighbours: Positive = Field(default=100, description="k, neighbours an item.")
    method: Literal["auto", "exact", "faiss"] = Field(
        default="auto", description="How neighbours are found; auto: exactly, and by FAISS beyond a size."
    )


UntrainedConfig = PopularityConfig | ItemKNNConfig | ItemKNNCBFConfig
"""A run of one of them ranks, evaluates and is tracked; it has no epochs."""
