"""Late fusion of scores, kept an inner product.

A user and an item have one score a strand, `s_m = ⟨u_m, i_m⟩`. Any fused score of the form

    Σ_m a_m(u) c_m(i) ⟨u_m, i_m⟩ = ⟨[a_1 u_1 ‖ … ‖ a_M u_M], [c_1 i_1 ‖ … ‖ c_M i_M]⟩

is an inner product again, of concatenated vectors, so ranking, export and nearest-neighbour search need to know
nothing of it. Sums, fixed weights, means over the strands that an item has, and attention that looks at the item alone
or at the user alone are of that form; gates on one side's vectors are too. A maximum over the scores, or attention that
looks at the pair, is not.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

ScoreCombination = Literal["sum", "mean", "weighted"]


def fuse_scores(
    users: Mapping[str, Tensor],
    items: Mapping[str, Tensor],
    *,
    combine: ScoreCombination = "sum",
    weights: Mapping[str, float] | None = None,
    item_present: Mapping[str, Tensor] | None = None,
    item_attention: Tensor | None = None,
    user_attention: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Vectors whose inner product is the fused score.

    Args:
        users, items: `[U, d_m]` and `[I, d_m]` by strand.
        combine, weights, item_present, item_attention: as of `item_scale`.
        user_attention: `[U, M]` what each strand counts for a user; None: 1.
    Returns:
        `[U, Σ d_m]` and `[I, Σ d_m]`, strands in alphabetical order.
    Raises:
        ValueError: different strands or widths on the two sides, or as `item_scale`.
    """
    widths = [{name: rows.shape[-1] for name, rows in side.items()} for side in (users, items)]
    if not users or widths[0] != widths[1]:
        raise ValueError(
            f"users have strands of widths {widths[0]}, items {widths[1]}; wanted the same, and at least one"
        )
    scale = item_scale(items, combine=combine, weights=weights, present=item_present, attention=item_attention)
    return score_rows(users, user_attention), score_rows(items, scale)


def score_rows(strands: Mapping[str, Tensor], scale: Tensor | None = None) -> Tensor:
    """`[scale_1 h^1 ‖ … ‖ scale_M h^M]`, strands in alphabetical order.

    Rows of users and of items may be mixed: users have a scale of 1, items that of `item_scale`.

    Args:
        strands: `[n, d_m]` by name.
        scale: `[n, M]`, a column a strand in alphabetical order; None: 1.
    Raises:
        ValueError: another number of columns than of strands.
    """
    names = sorted(strands)
    if scale is None:
        return torch.cat([strands[name] for name in names], dim=-1)
    if scale.shape[-1] != len(names):
        raise ValueError(f"a scale of {scale.shape[-1]} columns for {len(names)} strands {names}")
    columns = scale.unsqueeze(-2).unbind(-1)
    return torch.cat([strands[name] * column for name, column in zip(names, columns, strict=True)], dim=-1)


def item_scale(
    items: Mapping[str, Tensor],
    *,
    combine: ScoreCombination,
    weights: Mapping[str, float] | None = None,
    present: Mapping[str, Tensor] | None = None,
    attention: Tensor | None = None,
) -> Tensor:
    """`c_m(i)`, by which the item's side of each strand is scaled.

    * sum: `p_m α_m`
    * mean: `p_m α_m / Σ_k p_k`: over the strands that the item has; 0 if it has none
    * weighted: `p_m α_m w_m`

    Args:
        items: `[I, d_m]` by strand; says names, number and type.
        combine: how the scores of the strands are combined.
        weights: w_m by strand, only for "weighted".
        present: p, `[I]` bool by strand; a strand that is not in it is there for every item.
        attention: α, `[I, M]` what each strand counts for an item, for instance of `StrandAttention` over the item's
            strands; columns in alphabetical order. None: 1.
    Returns:
        `[I, M]`, columns in alphabetical order.
    Raises:
        ValueError: a combination that is no inner product, or arguments that do not fit each other.
    """
    names = sorted(items)
    _check(names, combine, weights, present, attention)
    like = items[names[0]]
    scale = like.new_ones(len(like), len(names))
    if present is not None:
        columns = [present[name].to(like.dtype) if name in present else like.new_ones(len(like)) for name in names]
        scale = torch.stack(columns, dim=-1)
    if combine == "mean":
        scale = scale / scale.sum(-1, keepdim=True).clamp(min=1)
    if weights is not None:
        scale = scale * scale.new_tensor([float(weights[name]) for name in names])
    return scale if attention is None else scale * attention


def _check(
    names: list[str],
    combine: str,
    weights: Mapping[str, float] | None,
    present: Mapping[str, Tensor] | None,
    attention: Tensor | None,
) -> None:
    if combine == "max":
        raise ValueError(
            "combine='max': the largest of several scores is no inner product of a user's and an item's vector, so it "
            "could not be ranked by one; use 'sum', 'mean' or 'weighted', attention over the item's strands, or 'max' "
            "in a fusion of representations"
        )
    if combine not in ("sum", "mean", "weighted"):
        raise ValueError(f"combine={combine!r}: scores are combined by 'sum', 'mean' or 'weighted'")
    if (weights is not None) != (combine == "weighted"):
        raise ValueError(f"weights={weights} with combine={combine!r}: combine='weighted' needs them, others have none")
    if weights is not None and sorted(weights) != names:
        raise ValueError(f"weights of {sorted(weights)}: wanted one for each of {names}")
    if present is not None and not present.keys() <= set(names):
        raise ValueError(f"presence of {sorted(present)}, but the strands are {names}")
    if attention is not None and attention.shape[-1] != len(names):
        raise ValueError(f"attention of {attention.shape[-1]} columns for {len(names)} strands {names}")
