"""Evaluation of a split by all ranks together: each ranks its share of the users, the sums are added."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import nn

from braidrec.config.load import ConfigError
from braidrec.config.run import EvaluationConfig
from braidrec.data.description import Split
from braidrec.data.folder import DatasetFolder
from braidrec.data.pairs import pairs_of
from braidrec.data.storage import Location
from braidrec.errors import DivergedError
from braidrec.evaluation.ann import AnnSearch
from braidrec.evaluation.evaluator import Evaluator
from braidrec.evaluation.metrics import higher_is_better
from braidrec.evaluation.ranker import Ranker
from braidrec.evaluation.scoring import ranker_of
from braidrec.evaluation.slices import Slice, item_modalities, item_popularity, item_warmth, user_activity
from braidrec.evaluation.state import EvaluationResult, EvaluationState
from braidrec.evaluation.tiled_encoding import ROWS_AT_ONCE
from braidrec.graph.relation import Relation
from braidrec.models.contract import Encoded
from braidrec.models.fusion.summary import attention_summary
from braidrec.models.strands import ID
from braidrec.training.build import Parts
from braidrec.training.context import Collectives


@dataclass(frozen=True, kw_only=True)
class SplitResult:
    """What all ranks know of the whole split, and the rank's own users' values."""

    result: EvaluationResult
    own_users: pa.Table | None

    @property
    def metrics(self) -> Mapping[str, float]:
        """ "recall@20": …; undefined metrics are left out."""
        return {name: value for name, value in self.result.metrics.items() if not np.isnan(value)}

    def write_per_user(self, target: Location) -> None:
        """Write the rank's users as Parquet."""
        assert self.own_users is not None, "made with detail=True"
        buffer = pa.BufferOutputStream()
        pq.write_table(self.own_users, buffer)
        target.write_bytes(buffer.getvalue())


class SplitEvaluation:
    """Full ranking of one split.

    Args:
        folder: the data set.
        interactions: its train graph, for degrees.
        config: cut-offs, AUC, tile size, slices.
        split: "valid" or "test".
        mask: "train" or "train+valid": items taken out of the candidates.
        rating: also RMSE and MAE.
        detail: also slices and per-user values.
        present: by modality, `[num_items]` who has it: one more slice.
    Raises:
        ConfigError: nothing is left to evaluate, or a cut-off that makes no sense.
    """

    def __init__(
        self,
        folder: DatasetFolder,
        interactions: Relation,
        config: EvaluationConfig,
        split: Split,
        *,
        mask: str,
        rating: bool,
        detail: bool,
        present: Mapping[str, NDArray[np.bool_]] | None = None,
    ) -> None:
        degree = np.diff(interactions.indptr)
        users, items = degree[: folder.num_users], degree[folder.num_users :]
        slices: list[Slice] = []
        if detail and config.slices:
            slices = [user_activity(users), item_popularity(items), item_warmth(items)]
            slices += [item_modalities(present)] if present else []
        self._detail = detail
        held_out = pairs_of(folder, [split], with_ratings=rating)
        masked = pairs_of(folder, ["train", "valid"] if mask == "train+valid" else ["train"])
        try:
            self._evaluator = Evaluator(
                held_out=held_out,
                mask=masked,
                train_item_degree=items,
                train_user_degree=users,
                at=config.at,
                auc=config.auc,
                rating=rating,
                slices=slices,
                per_user=detail,
                tile_mb=config.tile_mb,
            )
        except ValueError as error:
            raise ConfigError(f"the {split} split of {folder.path} with mask={mask}: {error}") from None

    def run(
        self,
        ranker: Ranker,
        context: Collectives,
        progress: Callable[[int, int], None],
        *,
        search: AnnSearch | None = None,
    ) -> SplitResult:
        """Rank this rank's users and add up over all ranks. `progress(users done, users in all)` of the whole split.

        Args:
            search: finds the lists approximately, by the ranker's vectors; None: exactly.
        """
        shard = self._evaluator.users[context.rank :: context.world_size]
        total = len(self._evaluator.users)
        state = self._evaluator.run(
            ranker, shard, lambda done, _: progress(min(done * context.world_size, total), total), search=search
        )
        sums = context.all_reduce(torch.from_numpy(state.to_arrays()["sums"]).to(context.device)).cpu().numpy()
        whole: EvaluationState = state.from_arrays({"sums": sums, "rows": state.rows})
        return SplitResult(
            result=self._evaluator.result(whole), own_users=self._evaluator.per_user(whole) if self._detail else None
        )


def encode_all(parts: Parts) -> Encoded:
    """Final representations of all nodes by the model as it stands.

    Raises:
        DivergedError: they are not finite.
    """
    assert isinstance(parts.model, nn.Module)
    parts.model.eval()
    encoded = parts.inference.encode(parts.model, parts.tables, parts.whole_graph, parts.world, parts.context)
    parts.model.train()
    if not all(bool(torch.isfinite(part).all()) for part in torch.split(encoded.vectors, ROWS_AT_ONCE)):
        raise DivergedError(
            "the final vectors hold NaN or infinite values though every loss was finite; try a lower "
            "training.optimizer.learning_rate or set training.optimizer.gradient_clip"
        )
    return encoded


def make_ranker(parts: Parts, encoded: Encoded | None = None) -> Ranker:
    """Scores of the model as it stands, or of what it has just encoded."""
    return ranker_of(
        parts.model,
        (encode_all(parts) if encoded is None else encoded).vectors,
        parts.num_users,
        parts.objective.score_offset,
        cosine=parts.objective.ranks_by_cosine,
        rating_bounds=parts.objective.rating_bounds,
    )


def attention_metrics(parts: Parts, encoded: Encoded) -> dict[str, float]:
    """What the items' strands count in the fusion: "attention/image/mean", …; nothing where they are not weighed.

    Over the items that have the strand. A stand-in for a missing vector is weighed in the model, but not counted here.
    """
    names: tuple[str, ...] = getattr(parts.model, "attention_names", ())
    weights = encoded.outputs.get("attention")
    if not names or weights is None:
        return {}
    present = {name: torch.from_numpy(has) for name, has in parts.world.present.items()}
    if ID in names and present:
        # An ID that does not count at evaluation, since its item is cold, has no weight at all.
        present[ID] = weights[:, names.index(ID)] > 0
    return {f"attention/{name}": value for name, value in attention_summary(names, weights, present).items()}


def sign_of(monitor: str) -> int:
    """1 for a metric that should be high, −1 for one that should be low."""
    return 1 if higher_is_better(monitor) else -1
