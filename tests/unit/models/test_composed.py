"""The composed recommender against dense matrices: fusion points, users, graphs, missing modalities, cold items."""

from itertools import product

import numpy as np
import pytest
import torch
from composed_oracle import COLD, FEATURES, RELATIONS, build, vectors_of
from dense_oracles import NUM_NODES, NUM_USERS
from item_graph_world import (
    DIM,
    TOLERANCE,
    assert_everything_learns,
    assert_modes_agree,
    assert_seeds_are_rows_of_all,
    inputs_of,
    make_tables,
    source_over,
)

from braidrec.config.load import ConfigError
from braidrec.config.model import (
    FusionConfig,
    ItemGraphConfig,
    LayerGCNConfig,
    LightGCNConfig,
    MatrixFactorisationConfig,
    ModalitiesConfig,
    UserGraphConfig,
)
from braidrec.graph.relation import INTERACTIONS, PRUNED
from braidrec.models.composed import ComposedRecommender
from braidrec.models.encoders.contract import PropagationView

WEIGHTS = {"id": 0.5, "image": -1.0, "text": 2.0}
EIGHT = {
    f"{timing}, {combine}, {weighting}": {"timing": timing, "combine": combine, "weighting": weighting}
    for timing, combine, weighting in product(("early", "late"), ("sum", "concat"), ("none", "attention"))
}
OTHERS = {
    f"{timing}, {name}": {"timing": timing, **settings}
    for timing in ("early", "late")
    for name, settings in {
        "mean": {"combine": "mean"},
        "max": {"combine": "max"},
        "weighted": {"combine": "weighted", "weights": WEIGHTS},
        "gate": {"weighting": "gate"},
        "gate by id, concat": {"weighting": "gate", "gate_by": "id", "combine": "concat"},
        "concat, linear": {"combine": "concat", "map": "linear"},
        "attention, perceptron": {"weighting": "attention", "map": "mlp"},
        "without id": {"use_id": False, "combine": "mean"},
    }.items()
}
SCORES = {
    f"scores, {name}": {"timing": "late", "of": "scores", **settings}
    for name, settings in {
        "sum": {},
        "mean": {"combine": "mean"},
        "weighted": {"combine": "weighted", "weights": WEIGHTS},
        "attention": {"weighting": "attention"},
    }.items()
}
AGGREGATED = {
    "aggregated": {"timing": "late", "user_side": "aggregated"},
    "aggregated, without id": {"timing": "late", "user_side": "aggregated", "use_id": False, "combine": "concat"},
    "aggregated, scores": {"timing": "late", "user_side": "aggregated", "of": "scores", "combine": "mean"},
}
POINTS = {**EIGHT, **OTHERS, **SCORES, **AGGREGATED}
LIGHTGCN = LightGCNConfig(layers=2)
ENCODERS = {
    "lightgcn": LIGHTGCN,
    "concat": LightGCNConfig(layers=2, readout="concat"),
    "mf": MatrixFactorisationConfig(),
}
GRAPHS = {
    "item graph": ({}, {"item_graph": ItemGraphConfig(layers=1)}),
    "item graph, two hops, late": ({"timing": "late"}, {"item_graph": ItemGraphConfig(layers=2)}),
    "item graph, fused": ({"combine": "concat"}, {"item_graph": ItemGraphConfig(of="fused")}),
    "item graph, id is no strand": ({"use_id": False}, {"item_graph": ItemGraphConfig()}),
    "user graph": ({}, {"user_graph": UserGraphConfig(layers=2)}),
    "user graph, concat": ({"combine": "concat"}, {"user_graph": UserGraphConfig()}),
    "both": ({"weighting": "attention"}, {"user_graph": UserGraphConfig(), "item_graph": ItemGraphConfig(of="fused")}),
}
MISSING = ("token", "zeros", "mask", "mean")


def assert_right(model: ComposedRecommender, config: FusionConfig, *, training: bool = True) -> None:
    """All nodes, some seeds, and a sample with every neighbour, against the dense formulas."""
    tables, seeds = make_tables(model), torch.tensor([0, 3, 4, 6, 8, 10, 11])
    wanted = vectors_of(model.train(training), config, tables, training=training)
    assert np.isfinite(wanted).all()
    for mode, nodes in (("full", None), ("full", seeds), ("sampled", seeds)):
        inputs = inputs_of(model, source_over(RELATIONS, mode), tables, FEATURES, nodes, training=training)
        vectors = model.encode(inputs).vectors
        np.testing.assert_allclose(vectors.detach(), wanted if nodes is None else wanted[nodes], **TOLERANCE)


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("point", POINTS)
def test_vectors(point: str, encoder: str) -> None:
    config = FusionConfig(**POINTS[point])
    model = build(config, encoder=ENCODERS[encoder])
    assert_right(model, config)
    assert_right(model, config, training=False)


@pytest.mark.parametrize("point", POINTS)
def test_every_table_and_parameter_learns_and_modes_agree(point: str) -> None:
    """The gradients of a sampled chain with every neighbour are those of the whole graph."""
    model = build(FusionConfig(**POINTS[point]), encoder=LIGHTGCN)
    assert_everything_learns(model, RELATIONS, FEATURES)
    assert_modes_agree(model, RELATIONS, FEATURES)
    assert_seeds_are_rows_of_all(model, RELATIONS, FEATURES)


@pytest.mark.parametrize("case", GRAPHS)
def test_item_and_user_graphs(case: str) -> None:
    fusion, settings = GRAPHS[case]
    config = FusionConfig(**fusion)
    model = build(config, encoder=LIGHTGCN, **settings)
    assert_right(model, config)
    assert_right(model, config, training=False)
    assert_everything_learns(model, RELATIONS, FEATURES)
    assert_modes_agree(model, RELATIONS, FEATURES)


@pytest.mark.parametrize("missing", MISSING)
@pytest.mark.parametrize("point", ["early, mean", "late, mean", "early, concat, attention", "scores, attention"])
def test_what_stands_for_a_missing_modality(point: str, missing: str) -> None:
    """One item lacks the text, one has nothing: also without an ID nothing becomes NaN, nor do gradients."""
    for use_id in (True, False):
        config = FusionConfig(**{**POINTS[point], "use_id": use_id})
        modalities = ModalitiesConfig(use=("*",), missing=missing, missing_in={"text": missing})
        model = build(config, encoder=LIGHTGCN, modalities=modalities)
        assert_right(model, config)
        assert_right(model, config, training=False)
        assert_everything_learns(model, RELATIONS, FEATURES)


@pytest.mark.parametrize("timing", ["early", "late"])
def test_the_untrained_id_of_a_cold_item_is_left_out_at_evaluation_alone(timing: str) -> None:
    cold, warm = NUM_USERS + int(np.flatnonzero(COLD)[0]), NUM_USERS + 1
    for cold_id, training, counts in (("drop", False, False), ("drop", True, True), ("keep", False, True)):
        model = build(FusionConfig(timing=timing, cold_id=cold_id), encoder=LIGHTGCN).train(training)
        vectors = []
        for value in (1.0, 100.0):
            tables = {name: rows.detach().clone() for name, rows in make_tables(model).items()}
            tables["item"][[cold - NUM_USERS, warm - NUM_USERS]] = value
            inputs = inputs_of(model, source_over(RELATIONS), tables, FEATURES, None, training=training)
            vectors.append(model.encode(inputs).vectors)
        assert torch.equal(vectors[0][cold], vectors[1][cold]) is not counts
        assert not torch.equal(vectors[0][warm], vectors[1][warm])


@pytest.mark.parametrize("point", ["early, sum, attention", "late, concat, attention", "scores, mean", "aggregated"])
def test_the_order_of_the_modalities_changes_nothing(point: str) -> None:
    config = FusionConfig(**POINTS[point])
    models = [build(config, encoder=LIGHTGCN, dims=dims) for dims in ({"text": 3, "image": 4}, {"image": 4, "text": 3})]
    found = [
        model.eval().encode(
            inputs_of(model, source_over(RELATIONS), make_tables(model), FEATURES, None, training=False)
        )
        for model in models
    ]
    assert torch.equal(found[0].vectors, found[1].vectors)
    assert torch.equal(found[0].ego, found[1].ego)


@pytest.mark.parametrize("point", ["early, sum, attention", "late, sum, attention", "scores, attention"])
@pytest.mark.parametrize("mode", ["full", "sampled"])
def test_attention_is_given_for_the_items_among_the_seeds(point: str, mode: str) -> None:
    model = build(FusionConfig(**POINTS[point]), encoder=LIGHTGCN)
    tables, seeds = make_tables(model), torch.tensor([0, 3, 6, 8, 10, 11])
    # Nobody reads it while training.
    assert "attention" not in model.encode(inputs_of(model, source_over(RELATIONS), tables, FEATURES, None)).outputs
    model.eval()
    everything = model.encode(inputs_of(model, source_over(RELATIONS), tables, FEATURES, None))
    some = model.encode(inputs_of(model, source_over(RELATIONS, mode), tables, FEATURES, seeds))
    wanted = everything.outputs["attention"]
    assert wanted.shape == (NUM_NODES - NUM_USERS, 3) and model.attention_names == ("id", "image", "text")
    np.testing.assert_allclose(wanted.sum(1).detach(), 1.0, rtol=1e-9)
    np.testing.assert_allclose(some.outputs["attention"].detach(), wanted[seeds[2:] - NUM_USERS].detach(), **TOLERANCE)


@pytest.mark.parametrize("mode", ["full", "sampled"])
@pytest.mark.parametrize("timing", ["early", "late"])
def test_a_dropped_modality_is_not_counted_by_a_mean(timing: str, mode: str) -> None:
    """Whatever dropout takes from an item, a mean is over what is left; so constant strands have a constant mean."""
    modalities = ModalitiesConfig(use=("*",), missing="mask", dropout=0.6)
    model = build(
        FusionConfig(timing=timing, combine="mean", use_id=False), encoder=MatrixFactorisationConfig(),
        modalities=modalities,
    )  # fmt: skip
    with torch.no_grad():
        for projector in model.strands.projectors.values():
            projector.layers[0].weight.zero_()
            projector.layers[0].bias.fill_(2.0)
    tables, seeds, patterns = make_tables(model), torch.arange(NUM_NODES), set()
    for seed in range(8):
        torch.manual_seed(seed)
        inputs = inputs_of(model, source_over(RELATIONS, mode), tables, FEATURES, seeds)
        vectors = model.encode(inputs).vectors[NUM_USERS:]
        has_any = torch.stack([has for _, has in FEATURES.values()]).any(0)
        assert torch.equal(vectors, torch.where(has_any.unsqueeze(-1), 2.0, 0.0).expand(-1, DIM))
        torch.manual_seed(seed)
        patterns.add(tuple(model.strands(inputs, None)[1]["image"].tolist()))
    assert len(patterns) > 1


@pytest.mark.parametrize(
    ("fusion", "settings", "names"),
    [
        ({"of": "scores"}, {}, "timing=late"),
        ({"user_side": "aggregated"}, {}, "timing=late"),
        ({"timing": "late"}, {"user_graph": UserGraphConfig()}, "user_graph"),
        ({"timing": "late"}, {"item_graph": ItemGraphConfig(of="fused")}, "item_graph"),
        ({"combine": "concat"}, {"item_graph": ItemGraphConfig()}, "item_graph"),
        ({}, {"encoder": ENCODERS["concat"], "item_graph": ItemGraphConfig(of="fused")}, "item_graph"),
        ({}, {"encoder": ENCODERS["concat"], "user_graph": UserGraphConfig()}, "user_graph"),
        ({"timing": "late", "of": "scores", "combine": "weighted"}, {}, "weights"),
        ({"timing": "late", "of": "scores", "weights": WEIGHTS}, {}, "weights"),
        ({"timing": "late", "of": "scores", "gate_by": "id"}, {}, "gate_by"),
        ({"combine": "weighted", "weights": {"id": 1.0}}, {}, "weights"),
        ({}, {"encoder": MatrixFactorisationConfig(biases=True)}, "biases"),
    ],
)
def test_parts_that_do_not_fit_are_refused(fusion: dict, settings: dict, names: str) -> None:
    with pytest.raises(ConfigError, match=names):
        build(FusionConfig(**fusion), **settings)


def test_a_modality_must_not_take_the_name_of_the_id() -> None:
    with pytest.raises(ConfigError, match="'id'"):
        build(FusionConfig(), dims={"id": 3})


def test_settings_without_effect_on_ids_alone_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.fusion"):
        build(FusionConfig(combine="mean"), modalities=ModalitiesConfig())
    with pytest.raises(ConfigError, match=r"model\.modalities"):
        build(FusionConfig(), modalities=ModalitiesConfig(missing="mask"))


def test_nothing_is_computed_twice_in_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Items are fused once for the user–item and the item graph, and a view keeps what the item graph added."""
    model = build(FusionConfig(), encoder=LIGHTGCN, item_graph=ItemGraphConfig(of="fused"))
    inputs = inputs_of(model, source_over(RELATIONS), make_tables(model), FEATURES, torch.arange(NUM_NODES))
    counts = {"fuse": 0, "item graph": 0}
    fuse, spread = model.strands.forward, model._on_item_graph

    def counted_fuse(*arguments, **options):
        counts["fuse"] += 1
        return fuse(*arguments, **options)

    def counted_spread(*arguments):
        counts["item graph"] += 1
        return spread(*arguments)

    monkeypatch.setattr(model.strands, "forward", counted_fuse)
    monkeypatch.setattr(model, "_on_item_graph", counted_spread)
    encoded = model.encode(inputs)
    assert counts == {"fuse": 1, "item graph": 1}
    same = model.view_of(encoded, inputs, None, PropagationView(after_hop=lambda h: h))
    assert counts == {"fuse": 2, "item graph": 1}
    np.testing.assert_allclose(same.detach(), encoded.vectors.detach(), **TOLERANCE)


def test_layergcn_is_trained_on_what_pruning_leaves_and_evaluated_on_all() -> None:
    model = build(FusionConfig(), encoder=LayerGCNConfig(layers=2))
    main = model.branches()["main"]
    assert main.relations(training=True) == (PRUNED,) * 2
    assert main.relations(training=False) == (INTERACTIONS,) * 2
    assert build(FusionConfig(), encoder=LIGHTGCN).branches()["main"].relations(training=True)[0] == INTERACTIONS


@pytest.mark.parametrize(
    ("fusion", "settings"),
    [
        ({"combine": "mean"}, {"item_graph": ItemGraphConfig(of="fused")}),
        ({"combine": "mean"}, {}),
        ({"timing": "late", "combine": "mean"}, {"item_graph": ItemGraphConfig()}),
    ],
)
def test_an_item_loses_the_same_modalities_wherever_it_is_asked_for(fusion: dict, settings: dict) -> None:
    """Sampled, the item graph fuses its own input items: another draw there would give other vectors than the whole."""
    modalities = ModalitiesConfig(use=("*",), missing="mask", dropout=0.5)
    model = build(FusionConfig(**fusion), encoder=LIGHTGCN, modalities=modalities, **settings)
    assert_modes_agree(model, RELATIONS, FEATURES)
    tables, source = make_tables(model), source_over(RELATIONS)
    vectors = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        vectors.append(model.encode(inputs_of(model, source, tables, FEATURES, None)).vectors)
    assert torch.equal(vectors[0], vectors[1]) and not torch.allclose(vectors[0], vectors[2])
