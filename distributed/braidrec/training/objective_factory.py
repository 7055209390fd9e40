"""The configured loss as an object."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from braidrec.config.load import ConfigError
from braidrec.config.run import (
    BPRConfig,
    CrossEntropyConfig,
    HingeConfig,
    ImplicitMSEConfig,
    InBatchSoftmaxConfig,
    OwnTermsConfig,
    PointwiseHingeConfig,
    RatingMSEConfig,
    RunConfig,
    SampledSoftmaxConfig,
)
from braidrec.data.folder import DatasetFolder
from braidrec.data.negatives import NegativeSampler
from braidrec.graph.relation import Relation
from braidrec.objectives.bpr import BPR
from braidrec.objectives.contract import RowLoss
from braidrec.objectives.cross_entropy import CrossEntropy
from braidrec.objectives.gather import Gather, own_rows
from braidrec.objectives.hinge import PairwiseHinge
from braidrec.objectives.implicit_mse import ImplicitMSE
from braidrec.objectives.in_batch_softmax import InBatchSoftmax
from braidrec.objectives.own_terms import OwnTerms
from braidrec.objectives.pointwise_hinge import PointwiseHinge
from braidrec.objectives.rating_mse import RatingMSE
from braidrec.objectives.sampled_softmax import SampledSoftmax


def build_objective(
    config: RunConfig, folder: DatasetFolder, interactions: Relation, gather: Gather = own_rows
) -> RowLoss:
    """The supervised loss of a run.

    Args:
        interactions: the train graph, for how popular items are.
        gather: brings the rows of all ranks.
    """
    loss = config.objective.loss
    builders: dict[type, Callable[[], RowLoss]] = {
        BPRConfig: BPR,
        ImplicitMSEConfig: ImplicitMSE,
        CrossEntropyConfig: CrossEntropy,
        HingeConfig: lambda: PairwiseHinge(margin=loss.margin),  # type: ignore[union-attr]
        PointwiseHingeConfig: PointwiseHinge,
        SampledSoftmaxConfig: lambda: _sampled_softmax(config, folder, interactions),
        InBatchSoftmaxConfig: lambda: _in_batch_softmax(config, folder, interactions, gather),
        RatingMSEConfig: lambda: _rating_mse(config, folder),
        OwnTermsConfig: OwnTerms,
    }
    return builders[type(loss)]()


def negative_sampler(config: RunConfig, folder: DatasetFolder, interactions: Relation) -> NegativeSampler:
    """What draws the negatives of a run."""
    wanted = config.objective.negatives
    return NegativeSampler(
        interactions, folder.num_users, kind=wanted.kind, exponent=wanted.exponent, shared=wanted.shared
    )


def _rating_mse(config: RunConfig, folder: DatasetFolder) -> RowLoss:
    ratings = folder.column("train", "rating")
    assert ratings is not None, "checked before the run started"
    mean = float(np.mean(ratings, dtype=np.float64))
    loss = config.objective.loss
    assert isinstance(loss, RatingMSEConfig)
    if loss.link == "identity":
        return RatingMSE(mean=mean)
    low, high = float(ratings.min()), float(ratings.max())
    if low == high:
        raise ConfigError(
            f"objective.loss.link=sigmoid: all train ratings are {low:g}, and there is nothing between the lowest and "
            "the highest; use link=identity, or bpr"
        )
    return RatingMSE(mean=mean, bounds=(low, high))


def _sampled_softmax(config: RunConfig, folder: DatasetFolder, interactions: Relation) -> RowLoss:
    loss = config.objective.loss
    assert isinstance(loss, SampledSoftmaxConfig)
    log_q = torch.from_numpy(negative_sampler(config, folder, interactions).log_probabilities()) if loss.log_q else None
    return SampledSoftmax(temperature=loss.temperature, log_q=log_q)


def _in_batch_softmax(config: RunConfig, folder: DatasetFolder, interactions: Relation, gather: Gather) -> RowLoss:
    loss = config.objective.loss
    assert isinstance(loss, InBatchSoftmaxConfig)
    return InBatchSoftmax(
        temperature=loss.temperature,
        cosine=loss.cosine,
        log_popularity=_log_popularity(folder, interactions) if loss.log_q else None,
        gather=gather if loss.across_workers else own_rows,
    )


def _log_popularity(folder: DatasetFolder, interactions: Relation) -> Tensor:
    return interactions.in_degree[folder.num_users :].clamp(min=1).double().log()
