"""Random points of the design space, as configuration, on one small planted data set; and two steps of any of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from braidrec.config.load import validate
from braidrec.config.run import RunConfig
from braidrec.data.folder import DatasetFolder
from braidrec.data.planted import generate_planted
from braidrec.data.storage import Location
from braidrec.training.build import Parts, build_parts
from braidrec.training.check import check_run
from braidrec.training.context import WorkerContext
from braidrec.training.loop import Loop
from braidrec.training.step import Position

Point = Mapping[str, Any]
Strategy = st.SearchStrategy[Any]
STRANDS = ("id", "image", "text")
LAYERS = st.integers(1, 3)
READOUTS = st.sampled_from(["mean", "mean", "sum", "last", "concat"])
RATES = st.sampled_from([0.0, 0.2])


def one_of(*values: Any) -> Strategy:
    """Values that come more than once are drawn more often."""
    return st.sampled_from(values)


def keys(**strategies: Strategy) -> Strategy:
    """All of them: optional keys of `fixed_dictionaries` are hardly ever drawn."""
    return st.fixed_dictionaries(strategies)


def kind(name: str, **strategies: Strategy) -> Strategy:
    return keys(kind=st.just(name), **strategies)


def seldom(value: Strategy) -> Strategy:
    """None three times in four."""
    return st.integers(0, 3).flatmap(lambda number: value if number == 0 else st.none())


ENCODERS = st.one_of(
    kind("mf", biases=one_of(False, False, False, True)),
    kind("lightgcn", layers=LAYERS, readout=READOUTS),
    kind("lightgcn", layers=LAYERS, readout=READOUTS),
    kind("layergcn", layers=LAYERS, prune_rate=RATES),
    kind("ngcf", layers=LAYERS, readout=READOUTS, interaction=st.booleans(), dropout=RATES),
    kind("graphsage", layers=LAYERS, readout=READOUTS, dropout=RATES),
    kind("gat", layers=LAYERS, heads=st.integers(1, 2), readout=READOUTS, dropout=RATES),
)
MISSING = one_of("token", "zeros", "mask", "mean", "neighbours", "propagation")
PROJECTORS = st.one_of(
    keys(dropout=RATES, layer_norm=st.booleans(), bias=st.booleans()),
    keys(depth=st.just(2), activation=one_of(None, "relu", "tanh"), layer_norm=st.booleans(), bias=st.booleans()),
)
TRANSFORMS = st.one_of(
    keys(standardise=st.booleans(), l2_norm=st.booleans()),
    keys(standardise=st.booleans(), l2_norm=st.booleans(), pca=one_of(3, 3, 3, 50), whiten=st.booleans()),
)


def _trainable_where_it_may_be(modalities: dict[str, Any]) -> dict[str, Any]:
    fits = modalities["use"] and modalities["missing"] in ("token", "zeros", "mask")
    return modalities if fits else {**modalities, "trainable": []}


MODALITIES = keys(
    use=one_of(*[["*"]] * 6, ["text", "image"], ["image"], []),
    projector=PROJECTORS,
    transform=TRANSFORMS,
    missing=MISSING,
    missing_in=st.one_of(st.just({}), st.just({}), keys(text=MISSING)),
    dropout=RATES,
    trainable=one_of([], [], [], ["image"]),
).map(_trainable_where_it_may_be)


@st.composite
def fusions(draw: st.DrawFn) -> dict[str, Any]:
    """Mostly settings that fit each other."""
    late, wild = draw(st.booleans()), draw(st.integers(0, 9)) == 0
    scores = (late or wild) and draw(one_of(False, False, True))
    plain = scores and not wild
    combine = draw(one_of("sum", "mean", "weighted") if plain else one_of("sum", "mean", "max", "weighted", "concat"))
    weighting = draw(one_of("none", "attention") if plain else one_of("none", "attention", "gate"))
    use_id = draw(one_of(True, True, True, False))
    weighted = wild or combine == "weighted"
    return {
        "timing": "late" if late else "early",
        "of": "scores" if scores else "vectors",
        "combine": combine,
        "weights": {name: 0.5 for name in STRANDS if use_id or name != "id"} if weighted else None,
        "weighting": weighting,
        "gate_by": draw(one_of(None, *STRANDS)) if weighting == "gate" or wild else None,
        "map": "none" if plain else draw(one_of("none", "none", "linear", "mlp")),
        "use_id": use_id,
        "user_side": draw(one_of("learned", "aggregated")) if late or wild else "learned",
        "cold_id": draw(one_of("keep", "drop", "zero", "mean", "generated")),
        "cold_length": draw(one_of("keep", "match")),
    }


ITEM_GRAPHS = keys(
    neighbours=one_of(2, 50),
    layers=st.integers(1, 2),
    weights=one_of(None, {"image": 0.2, "text": 0.8}, {"image": 0.0, "text": 1.0}, {"image": -1.0, "text": 0.5}),
    edge_weights=one_of("binary", "cosine"),
    of=one_of("id", "fused"),
    learned=one_of(None, None, {"frozen_share": 0.5, "feature_dim": 4}),
)
USER_GRAPHS = keys(neighbours=one_of(2, 100), layers=st.integers(1, 2), weighting=one_of("counts", "softmax", "cosine"))
HYPERGRAPHS = keys(
    hyperedges=one_of(1, 3), layers=st.integers(1, 2), noise=one_of("none", "logistic", "gumbel"), dropout=RATES
)
ROW_VIEWS = st.one_of(
    kind("plain"),
    kind("gaussian_noise"),
    kind("feature_dropout", rescale=st.booleans()),
    kind("mlp", hidden=st.just(4)),
)
VIEWS = st.one_of(
    ROW_VIEWS,
    kind("edge_dropout", per_layer=st.booleans()),
    kind("node_dropout"),
    kind("edge_noise"),
    kind("edge_mask", hidden=st.just(4)),
    kind("layer_noise"),
)
VIEW_LOSSES = st.one_of(
    kind("info_nce", negatives_from=one_of("second", "both"), across_workers=st.booleans()),
    kind("jensen_shannon", negatives=one_of("all", "one"), bilinear=st.booleans(), across_workers=st.booleans()),
    kind("bootstrap"),
    kind("cosine"),
    kind("moments", per_dimension=st.booleans()),
)
ALIGNED = one_of("image", "text", "image", "text", "id", "fused", "fused", "sound")
TASKS = st.one_of(
    kind("contrast", target=one_of("users", "items", "both"), first=VIEWS, second=VIEWS, loss=VIEW_LOSSES),
    kind("align", first=ALIGNED, second=ALIGNED, first_view=ROW_VIEWS, second_view=ROW_VIEWS, loss=VIEW_LOSSES),
    kind(
        "reconstruct",
        modality=one_of("image", "text"),
        sources=one_of([], ["id"], ["text"], ["image", "id"]),
        rate=one_of(0.3, 0.3, 0.0),
        loss=one_of("mse", "cosine"),
    ),
    kind("edge_prediction", negatives=st.integers(1, 2)),
    kind("neighbourhood_similarity", target=st.sampled_from(["users", "items", "both"])),
)
MODELS = keys(
    encoder=ENCODERS,
    modalities=MODALITIES,
    fusion=fusions(),
    item_graph=seldom(ITEM_GRAPHS),
    user_graph=seldom(USER_GRAPHS),
    hypergraph=seldom(seldom(HYPERGRAPHS)),
    self_supervision=st.dictionaries(one_of("one", "two", "items", "keys", "loss"), TASKS, max_size=2),
)
LOSSES = st.one_of(
    kind("bpr"),
    kind("mse"),
    kind("cross_entropy"),
    kind("hinge"),
    kind("sampled_softmax"),
    kind("in_batch_softmax", cosine=st.booleans()),
)
PROPAGATIONS = st.one_of(
    keys(mode=st.just("full"), kernel=one_of("auto", "torch"), precision=one_of("fp32", "fp32", "bf16")),
    keys(
        mode=st.just("sampled"),
        fan_outs=one_of([-1], [3], [4, 2]),
        sampler=one_of("neighbour", "labor"),
        exclude_targets=st.booleans(),
        precision=one_of("fp32", "fp32", "bf16"),
    ),
)
POINTS = keys(model=MODELS, loss=LOSSES, propagation=PROPAGATIONS)


def small_folder(path: Path) -> Path:
    """Forty users; a fifth of the items lack a modality, some lack both, a tenth have no train interactions."""
    generate_planted(
        str(path), num_users=40, num_items=30, num_interactions=400, num_topics=3, modalities={"image": 6, "text": 5},
        coverage=0.8, cold_items=0.1,
    )  # fmt: skip
    return path


def config_of(point: Point, data: Path, place: Path) -> RunConfig:
    """A run of the point. What does not propagate keeps the settings of propagation.

    Raises:
        ConfigError: settings that are refused on sight.
    """
    propagates = point["model"]["encoder"]["kind"] != "mf"
    plain = {
        "data": {"path": str(data)},
        "storage": str(place / "runs"),
        "cache": str(place / "cache"),
        "model": {"dim": 4, **point["model"]},
        "objective": {"loss": point["loss"]},
        "training": {
            "batch_size": 64,
            "optimizer": {"learning_rate": 0.01},
            **({"propagation": point["propagation"]} if propagates else {}),
        },
        "evaluation": {"monitor": None, "patience": None},
        "workers": {"num": 0},
        "tracking": {"enabled": False},
    }
    return validate(RunConfig, plain, "point")


def build(config: RunConfig, context: WorkerContext) -> Parts:
    """What the run would train with.

    Raises:
        ConfigError: settings that do not fit each other or the data.
    """
    folder = DatasetFolder.open(config.data.path)
    check_run(config, folder)
    return build_parts(config, folder, context)


class FixedNegatives:
    """Negatives that depend on nothing but the row's user, whichever rank asks."""

    def __init__(self, num_items: int) -> None:
        self.num_items = num_items

    def draw(self, users: np.ndarray, per_positive: int, rng: np.random.Generator) -> np.ndarray:
        return (users[:, None] * 3 + 1 + np.arange(per_positive)) % self.num_items


def two_steps(
    config: RunConfig, parts: Parts, context: WorkerContext, place: Path, *, alike: bool = False
) -> list[dict[str, float]]:
    """The loss terms of the first two steps of epoch 1. The last rows of a batch are padding.

    Args:
        alike: in fp64 and with `FixedNegatives`, for a comparison of different numbers of workers.
    """
    loop = Loop(config, parts, context, Location.of(str(place / "runs" / "point")))
    if alike:
        fetch = loop.step.features
        loop.step.features = lambda name, items: (fetch(name, items)[0].double(), fetch(name, items)[1])
        loop.step.negatives = FixedNegatives(parts.folder.num_items) if parts.negatives is not None else None
        for module in (parts.model, *parts.tables.values()):
            module.double()
    parts.before_epoch(1)
    assert isinstance(parts.model, torch.nn.Module)
    parts.model.train()
    users, items = parts.folder.edges("train")
    ratings = parts.folder.column("train", "rating") if parts.objective.needs_rating else None
    share = config.training.batch_size // context.world_size
    found = []
    for step in range(2):
        start = step * config.training.batch_size + context.rank * share
        place_in_batch = np.arange(share) + context.rank * share
        real = (place_in_batch < config.training.batch_size - 3).astype(np.float32)
        rows = {
            "user": np.where(real, users[start : start + share], 0).astype(np.int64),
            "item": np.where(real, items[start : start + share], 0).astype(np.int64),
            "real": real,
        }
        if ratings is not None:
            rows["rating"] = np.where(real, ratings[start : start + share], 0).astype(np.float32)
        result = loop.step.run(rows, Position(epoch=1, step=step, global_step=step))
        means = (result.losses / result.weights.clamp(min=1e-12)).tolist()
        found.append(dict(zip(loop.step.term_names, means, strict=True)))
    return found


def values_of(parts: Parts) -> dict[str, torch.Tensor]:
    """Every table and every parameter."""
    assert isinstance(parts.model, torch.nn.Module)
    tables = {f"table {name}": table.all_rows() for name, table in parts.tables.items()}
    return {name: value.detach().clone() for name, value in [*tables.items(), *parts.model.named_parameters()]}
