"""Adversarial training against numpy: the perturbation row by row, the loss there, gradients by finite differences."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from design_points import FixedNegatives, build, small_folder, two_steps, values_of
from step_cases import halves

from braidrec.config.load import ConfigError, load_config
from braidrec.config.run import RunConfig
from braidrec.data.storage import Location
from braidrec.models import components
from braidrec.models.strands import parameter_name
from braidrec.training.adversary import Adversary, Read, _summed
from braidrec.training.build import Parts
from braidrec.training.context import SingleProcess
from braidrec.training.local_worker import LocalWorker
from braidrec.training.loop import Loop
from braidrec.training.step import Position, TrainStep

AMR = Path(__file__).parents[3] / "configs" / "models" / "amr.yaml"
EPSILON, WEIGHT, REGULARISER, BATCH = 0.4, 0.7, 0.02, 48
MODALITIES = ("image", "text")
HERE = Position(epoch=2, step=3, global_step=9)
Values = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_folder(tmp_path_factory.mktemp("adversary") / "data")


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def config_of(data: Path, *overrides: str, adversarial: str | None = None, preset: Path | None = AMR) -> RunConfig:
    adversarial = adversarial or f"{{epsilon: {EPSILON}, weight: {WEIGHT}, start_epoch: 2}}"
    place = data.parent
    return load_config(
        RunConfig,
        [] if preset is None else [preset],
        [
            f"data.path={data}", f"storage={place / 'runs'}", f"cache={place / 'cache'}", "workers.num=0",
            "tracking.enabled=false", f"training.batch_size={BATCH}", "evaluation.monitor=null",
            "evaluation.patience=null", "model.dim=4", "model.initial_std=0.6",
            f"objective.regulariser={REGULARISER}", f"training.adversarial={adversarial}",
            "training.optimizer={kind: sgd, learning_rate: 1.0}", *overrides,
        ],
    )  # fmt: skip


@dataclass(frozen=True)
class Stepped:
    """A step in fp64, and what it did."""

    parts: Parts
    rows: Values
    before: Values
    after: Values
    terms: dict[str, float]


def take_step(config: RunConfig, at: Position = HERE) -> Stepped:
    worker = LocalWorker(torch.device("cpu"), lambda event: None)
    parts = build(config, worker)
    step = loop_step(config, parts, worker)
    users, items = parts.folder.edges("train")
    real = (np.arange(BATCH) < BATCH - 5).astype(np.float32)
    rows = {
        "user": np.where(real, users[:BATCH], 0).astype(np.int64),
        "item": np.where(real, items[:BATCH], 0).astype(np.int64),
        "real": real,
    }
    before = numbers(parts)
    result = step.run(rows, at)
    means = (result.losses / result.weights.clamp(min=1e-12)).tolist()
    return Stepped(parts, rows, before, numbers(parts), dict(zip(step.term_names, means, strict=True)))


def loop_step(config: RunConfig, parts: Parts, worker: LocalWorker) -> TrainStep:
    step = Loop(config, parts, worker, Location.of(str(Path(config.storage) / "point"))).step
    fetch = step.features
    step.features = lambda name, items: (fetch(name, items)[0].double(), fetch(name, items)[1])
    step.negatives = FixedNegatives(parts.folder.num_items) if parts.negatives is not None else None
    for module in (parts.model, *parts.tables.values()):
        module.double()
    parts.model.train()
    return step


def numbers(parts: Parts) -> Values:
    return {name: value.double().numpy().copy() for name, value in values_of(parts).items()}


class ByHand:
    """`⟨p_u, q_i + Σ_m E_m c_i^m⟩` and its BPR, triple by triple."""

    def __init__(self, parts: Parts, rows: Values) -> None:
        fetch = parts.world.features.fetch
        self.features = {name: fetch(name, None)[0].double().numpy() for name in MODALITIES}
        self.present = {name: fetch(name, None)[1].numpy() for name in MODALITIES}
        self.triples = [
            (int(user), int(item), int(user * 3 + 1) % parts.folder.num_items)
            for user, item, real in zip(rows["user"], rows["item"], rows["real"], strict=True)
            if real
        ]

    def vector(self, values: Values, item: int, delta: Values) -> np.ndarray:
        vector = values["table item"][item].copy()
        for name in MODALITIES:
            if self.present[name][item]:
                c = self.features[name][item] + delta[name][item]
                vector += values[f"strands.projectors.{parameter_name(name)}.layers.0.weight"] @ c
        return vector

    def bpr(self, values: Values, delta: Values) -> float:
        total = 0.0
        for user, item, other in self.triples:
            p = values["table user"][user]
            difference = p @ self.vector(values, item, delta) - p @ self.vector(values, other, delta)
            total += np.log1p(np.exp(-difference))
        return total / len(self.triples)

    def nothing(self) -> Values:
        return {name: np.zeros_like(rows) for name, rows in self.features.items()}

    def slopes(self, values: Values) -> Values:
        """Γ of every item, summed over the triples in which it is positive or negative."""
        found, still = self.nothing(), self.nothing()
        for user, item, other in self.triples:
            p = values["table user"][user]
            difference = p @ self.vector(values, item, still) - p @ self.vector(values, other, still)
            slope = -1 / (1 + np.exp(difference)) / len(self.triples)
            for name in MODALITIES:
                back = values[f"strands.projectors.{parameter_name(name)}.layers.0.weight"].T @ p
                found[name][item] += slope * back * self.present[name][item]
                found[name][other] -= slope * back * self.present[name][other]
        return found

    def delta(self, values: Values, epsilon: float = EPSILON) -> Values:
        moved = self.nothing()
        for name, slopes in self.slopes(values).items():
            for item, slope in enumerate(slopes):
                norm = np.linalg.norm(slope)
                moved[name][item] = epsilon * slope / norm if norm else 0.0
        return moved

    def total(self, values: Values, delta: Values) -> float:
        """L(θ) + λ L(θ, Δ) + regulariser, Δ held fixed."""
        shrink = 0.0
        for user, item, other in self.triples:
            items = [self.vector(values, each, self.nothing()) for each in (item, other)]
            shrink += 0.5 * sum(float(row @ row) for row in (values["table user"][user], *items))
        regulariser = REGULARISER * shrink / len(self.triples)
        return self.bpr(values, self.nothing()) + WEIGHT * self.bpr(values, delta) + regulariser


def finite_differences(function: Callable[[Values], float], values: Values, name: str, places: list[int]) -> np.ndarray:
    """Slopes of some entries of one tensor."""
    found = []
    for place in places:
        sides = []
        for sign in (1, -1):
            moved = {key: value.copy() for key, value in values.items()}
            moved[name].flat[place] += sign * 1e-5
            sides.append(function(moved))
        found.append((sides[0] - sides[1]) / 2e-5)
    return np.array(found)


def test_loss_and_update(data: Path) -> None:
    """With learning rate 1 the update is the gradient."""
    done = take_step(config_of(data))
    hand = ByHand(done.parts, done.rows)
    delta = hand.delta(done.before)
    assert done.terms["loss"] == pytest.approx(hand.bpr(done.before, hand.nothing()), rel=1e-6)
    assert done.terms["adversarial"] == pytest.approx(WEIGHT * hand.bpr(done.before, delta), rel=1e-6)
    rng = np.random.default_rng(0)
    checked = 0
    for name, value in done.before.items():
        update = (value - done.after[name]).reshape(-1)
        moving = np.flatnonzero(update)
        places = rng.choice(moving, 12, replace=False).tolist()
        wanted = finite_differences(lambda values: hand.total(values, delta), done.before, name, places)
        np.testing.assert_allclose(update[places], wanted, rtol=1e-4, atol=1e-8, err_msg=name)
        checked += len(places)
    assert checked == 12 * 4


def test_the_perturbation_raises_the_loss_more_than_any_of_many_others(data: Path) -> None:
    """Others of the same length: random ones, the opposite, and that of positives alone."""
    done = take_step(config_of(data))
    hand = ByHand(done.parts, done.rows)
    clean, adversarial = done.terms["loss"], done.terms["adversarial"] / WEIGHT
    assert adversarial > clean + 0.05
    rng = np.random.default_rng(1)
    for _ in range(20):
        drawn = {name: rng.normal(size=rows.shape) for name, rows in hand.features.items()}
        drawn = {name: EPSILON * rows / np.linalg.norm(rows, axis=1, keepdims=True) for name, rows in drawn.items()}
        assert adversarial > hand.bpr(done.before, drawn) + 0.02
    delta = hand.delta(done.before)
    assert hand.bpr(done.before, {name: -rows for name, rows in delta.items()}) < clean
    positives = {item for _, item, _ in hand.triples}
    alone = {name: np.where(np.isin(np.arange(len(r)), list(positives))[:, None], r, 0.0) for name, r in delta.items()}
    assert hand.bpr(done.before, alone) < adversarial - 1e-3


def test_epochs_before_it_are_plain(data: Path) -> None:
    first = Position(epoch=1, step=0, global_step=0)
    with_it, without = take_step(config_of(data), first), take_step(config_of(data, "training.adversarial=null"), first)
    assert "adversarial" not in without.terms
    assert with_it.terms == {**without.terms, "adversarial": 0.0}
    for name, value in without.after.items():
        np.testing.assert_array_equal(with_it.after[name], value)
    later = take_step(config_of(data))
    assert max(np.abs(later.after[name] - with_it.after[name]).max() for name in later.after) > 1e-4


def test_embeddings_are_moved_users_and_items_alike(data: Path) -> None:
    """APR on plain factors, against its formula row by row."""
    adversarial = f"{{target: embeddings, epsilon: {EPSILON}, start_epoch: 2}}"
    done = take_step(config_of(data, "model.encoder.kind=mf", adversarial=adversarial, preset=None))
    (table,) = [value for name, value in done.before.items() if name.startswith("table")]
    num_users = done.parts.num_users
    triples = [
        (int(u), num_users + int(i), num_users + int(u * 3 + 1) % done.parts.folder.num_items)
        for u, i, real in zip(done.rows["user"], done.rows["item"], done.rows["real"], strict=True) if real
    ]  # fmt: skip

    def bpr(rows: np.ndarray) -> float:
        return float(np.mean([np.log1p(np.exp(-rows[u] @ (rows[i] - rows[j]))) for u, i, j in triples]))

    slopes = np.zeros_like(table)
    for u, i, j in triples:
        slope = -1 / (1 + np.exp(table[u] @ (table[i] - table[j]))) / len(triples)
        slopes[u] += slope * (table[i] - table[j])
        slopes[i] += slope * table[u]
        slopes[j] -= slope * table[u]
    norms = np.linalg.norm(slopes, axis=1, keepdims=True)
    delta = np.divide(EPSILON * slopes, norms, out=np.zeros_like(slopes), where=norms > 0)
    assert done.terms["loss"] == pytest.approx(bpr(table), rel=1e-6)
    assert done.terms["adversarial"] == pytest.approx(bpr(table + delta), rel=1e-6)
    assert done.terms["adversarial"] > done.terms["loss"] + 0.05


GRAPHS = {
    "early": "{kind: lightgcn, layers: 2}",
    "freedom": "{kind: freedom, prune_rate: 0.0}",
    "lattice": "{kind: lattice}",
    "bm3": "{kind: bm3, dropout: 0.0}",
}


@pytest.mark.parametrize("name", GRAPHS)
def test_whole_and_sampled_with_every_neighbour_are_one(name: str, data: Path) -> None:
    """Rows are read all in order there and by their nodes here. Features may enter by the model's own terms alone."""
    found = {}
    for mode in ("full", "sampled"):
        graph = ("model.item_graph.neighbours=4",) if name in ("freedom", "lattice") else ()
        loss = ("objective.loss.kind=none",) if name == "bm3" else ()
        config = config_of(
            data, "model.modalities.use=['*']", *graph, *loss, f"model.encoder={GRAPHS[name]}",
            f"training.propagation={{mode: {mode}, fan_outs: [-1]}}",
            adversarial=f"{{epsilon: {EPSILON}, weight: {WEIGHT}}}", preset=None,
        )  # fmt: skip
        parts = build(config, LocalWorker(torch.device("cpu"), lambda event: None))
        worker = LocalWorker(torch.device("cpu"), lambda event: None)
        losses = two_steps(config, parts, worker, data.parent, alike=True)
        found[mode] = (losses, numbers(parts))
    assert found["full"][0][0]["adversarial"] > 0
    for step, losses in enumerate(found["full"][0]):
        assert losses == pytest.approx(found["sampled"][0][step], rel=1e-6)
    for key, value in found["full"][1].items():
        np.testing.assert_allclose(found["sampled"][1][key], value, rtol=1e-5, atol=1e-8, err_msg=key)


@pytest.mark.parametrize("name", ["acf", "grcn", "mmgcn", "slmrec", "dragon", "vbpr"])
def test_systems_take_it(name: str, data: Path) -> None:
    """Their losses are higher where their features are moved, and all their numbers stay numbers."""
    config = config_of(
        data, "training.optimizer.learning_rate=0.01", "model.initial_std=0.3",
        adversarial=f"{{epsilon: {EPSILON}}}", preset=AMR.with_name(f"{name}.yaml"),
    )  # fmt: skip
    parts = build(config, LocalWorker(torch.device("cpu"), lambda event: None))
    first, second = two_steps(
        config, parts, LocalWorker(torch.device("cpu"), lambda event: None), data.parent, alike=True
    )
    clean = sum(value for term, value in first.items() if term not in ("regulariser", "adversarial"))
    assert first["adversarial"] > clean + 1e-4
    assert np.isfinite(list(second.values())).all()
    assert all(np.isfinite(value).all() for value in numbers(parts).values())


def test_features_that_are_read_again_for_gradients_are_moved_once(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ACF goes through its items in blocks: in many as in one."""
    config = config_of(data, adversarial=f"{{epsilon: {EPSILON}}}", preset=AMR.with_name("acf.yaml"))
    found = []
    for block in (components.PROJECTED_BYTES, 1):
        monkeypatch.setattr(components, "PROJECTED_BYTES", block)
        parts = build(config, LocalWorker(torch.device("cpu"), lambda event: None))
        worker = LocalWorker(torch.device("cpu"), lambda event: None)
        found.append((two_steps(config, parts, worker, data.parent, alike=True), numbers(parts)))
    (whole, numbers_of_whole), (in_blocks, numbers_in_blocks) = found
    assert whole[0]["adversarial"] > 0
    for one, other in zip(whole, in_blocks, strict=True):
        assert one == pytest.approx(other, rel=1e-6)
    for name, value in numbers_of_whole.items():
        np.testing.assert_allclose(numbers_in_blocks[name], value, rtol=1e-5, atol=1e-8, err_msg=name)


def test_an_item_that_is_read_twice_and_on_two_ranks_is_moved_once() -> None:
    """By the sum: pieces of it, in any order, on one rank or two, give the same."""
    rng = np.random.default_rng(3)
    nodes, slopes = torch.tensor([4, 0, 4, 9, 0, 4]), torch.from_numpy(rng.normal(size=(6, 3)))
    by_node = {node: slopes[nodes == node].sum(0) for node in (0, 4, 9)}

    class Other(SingleProcess):
        """Stands for two ranks: the other one has the last half of the rows."""

        def __init__(self) -> None:
            super().__init__()
            self.answers = iter([nodes[3:], slopes[3:]])

        def all_gather_rows(self, rows: torch.Tensor) -> torch.Tensor:
            return torch.cat([rows, next(self.answers)])

    def read(some: slice) -> tuple[Read, torch.Tensor]:
        return Read(nodes=nodes[some], rows=slopes[some]), slopes[some]

    alone = _summed([read(slice(0, 2)), read(slice(2, 6))], SingleProcess())
    shared = _summed([read(slice(0, 3))], Other())
    for found in (alone, shared):
        assert found.nodes.tolist() == [0, 4, 9]
        for node, delta in zip((0, 4, 9), found.delta, strict=True):
            torch.testing.assert_close(delta, by_node[node])
        asked = found.at(torch.tensor([9, 3, 0, 11]))
        torch.testing.assert_close(asked[0], found.delta[2])
        torch.testing.assert_close(asked[2], found.delta[0])
        assert not asked[1].any() and not asked[3].any()


def test_the_epoch_that_it_starts_in() -> None:
    assert Adversary(target="features", epsilon=1.0, start_epoch=4).is_active(4)
    assert not Adversary(target="features", epsilon=1.0, start_epoch=4).is_active(3)


@pytest.mark.parametrize(
    ("overrides", "adversarial", "message"),
    [
        (("model.encoder.kind=mf",), "{start_epoch: 1}", "looks at no frozen features"),
        (
            ("model.modalities.trainable=[image, text]", "model.modalities.use=[image, text]"),
            "{}",
            "no frozen features",
        ),
        (
            ("model.modalities.trainable=[image, text]", "model.modalities.use=['*']"),
            "{}",
            "no frozen features",
        ),
        (("training.epochs=5",), "{start_epoch: 6}", "start_epoch=6 comes after the last epoch, training.epochs=5"),
    ],
)
def test_what_would_have_no_effect_is_refused(
    overrides: tuple[str, ...], adversarial: str, message: str, data: Path
) -> None:
    config = config_of(data, *overrides, adversarial=adversarial, preset=None)
    with pytest.raises(ConfigError, match=message):
        build(config, LocalWorker(torch.device("cpu"), lambda event: None))


def test_padding_moves_nothing(data: Path) -> None:
    """Its rows have no slope, so that there is no direction to move in."""
    config = config_of(data)
    worker = LocalWorker(torch.device("cpu"), lambda event: None)
    parts = build(config, worker)
    step = loop_step(config, parts, worker)
    rows = {"user": np.zeros(8, np.int64), "item": np.zeros(8, np.int64), "real": np.zeros(8, np.float32)}
    before = numbers(parts)
    for half in halves(rows):
        result = step.run(half, HERE)
        assert not result.losses.any() and not result.weights.any()
    for name, value in numbers(parts).items():
        np.testing.assert_array_equal(value, before[name])
