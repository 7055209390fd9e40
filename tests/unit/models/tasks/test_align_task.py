"""Two representations of an item brought together, an item at a time."""

import numpy as np
import pytest
import torch
from composed_oracle import FEATURES, RELATIONS, item_strands, vectors_of
from dense_oracles import NUM_USERS
from item_graph_world import assert_everything_learns, assert_modes_agree
from task_world import (
    BATCHES,
    HAS,
    ITEMS_OF,
    WEIGHT,
    assert_term,
    cosine,
    info_nce,
    linear,
    terms_of,
    with_task,
)

from braidrec.config.load import ConfigError
from braidrec.config.model import FusionConfig, ModalitiesConfig
from braidrec.config.self_supervision import (
    AlignConfig,
    BootstrapConfig,
    CosineConfig,
    InfoNCEConfig,
    MLPViewConfig,
    MomentsConfig,
)

WIDE = FusionConfig(combine="concat")
PAIRS = [("image", "text"), ("id", "text"), ("fused", "image"), ("id", "fused")]


def have_both(items: list[int], *names: str) -> list[int]:
    return [item for item in items if all(item in HAS.get(name, set(range(7))) for name in names)]


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("missing", ["token", "mask"])
@pytest.mark.parametrize("fusion", [FusionConfig(), WIDE], ids=["sum", "concat"])
@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_items_with_both_count(first: str, second: str, fusion: FusionConfig, missing: str, batch: str) -> None:
    """A stand-in for what is missing is no second view; item 5 has neither modality, item 2 no text."""
    modalities = ModalitiesConfig(use=("*",), missing=missing)
    task = {"kind": "align", "first": first, "second": second, "weight": WEIGHT}
    model = with_task(AlignConfig(**task, loss=CosineConfig()), fusion, modalities=modalities)
    tables, terms = terms_of(model, BATCHES[batch])
    rows, _ = item_strands(model, tables, training=True)
    rows["fused"] = vectors_of(model, fusion, tables)[NUM_USERS:]
    if fusion is WIDE and "fused" in (first, second):
        rows["fused"] = linear(model.tasks["of_extra"].map, rows["fused"])
    items = have_both(ITEMS_OF[batch], first, second)
    assert_term(terms["extra"], [1 - cosine(rows[first][item], rows[second][item]) for item in items])


def test_views_and_negatives() -> None:
    task = AlignConfig(first="image", second="text", second_view=MLPViewConfig(hidden=4), weight=WEIGHT)
    model = with_task(task)
    tables, terms = terms_of(model, BATCHES["six rows"])
    rows, _ = item_strands(model, tables, training=True)
    view = model.tasks["of_extra"].second_view
    other = view(torch.from_numpy(rows["text"])).detach().numpy()
    assert not np.allclose(other, rows["text"])
    items = have_both(ITEMS_OF["six rows"], "image", "text")
    assert_term(terms["extra"], info_nce(rows["image"], other, items))


@pytest.mark.parametrize("loss", [InfoNCEConfig(across_workers=True), BootstrapConfig(), MomentsConfig()])
@pytest.mark.parametrize("timing", ["early", "late"])
def test_everything_learns_alike_on_a_sample(timing: str, loss: object) -> None:
    task = AlignConfig(first="fused", second="text", first_view=MLPViewConfig(hidden=4), loss=loss)
    model = with_task(task, FusionConfig(timing=timing, combine="concat"))
    assert_everything_learns(model, RELATIONS, FEATURES)
    assert_modes_agree(model, RELATIONS, FEATURES)


def test_what_cannot_be_aligned_is_refused() -> None:
    with pytest.raises(ConfigError, match="no strand 'sound'"):
        with_task(AlignConfig(first="image", second="sound"))
    with pytest.raises(ConfigError, match="no strand 'id'"):
        with_task(AlignConfig(first="image", second="id"), FusionConfig(use_id=False))
    with pytest.raises(ConfigError, match="nothing to align"):
        with_task(AlignConfig(first="image", second="image"))


def test_nobody_has_both() -> None:
    """A batch of items without the modality: weight 0, finite gradients."""
    model = with_task(AlignConfig(first="image", second="text"))
    tables, terms = terms_of(model, BATCHES["padding only"])
    terms["extra"].total.backward()
    gradients = [rows.grad for rows in tables.values()] + [each.grad for each in model.parameters()]
    assert terms["extra"].weight == 0 and terms["extra"].total == 0
    assert all(np.isfinite(gradient.numpy()).all() for gradient in gradients if gradient is not None)
