"""`braidrec.attack`: directions against finite differences, and what adversarial training is worth."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from finished_runs import Finished

import braidrec
from braidrec.config.load import ConfigError, load_config
from braidrec.config.run import RunConfig
from braidrec.data.planted import generate_planted
from braidrec.display.results import print_attack_result
from braidrec.evaluation import attack as attack_module
from braidrec.evaluation.attack import Triples, moved_features, random_directions, worst_directions
from braidrec.evaluation.scoring import encode_exactly
from braidrec.runs.attack import AttackResult, _graph, _triples
from braidrec.runs.finished import TrainedModel, open_trained

PRESETS = Path(__file__).parents[3] / "configs" / "models"


def opened(run: Finished) -> TrainedModel:
    return open_trained(run.result.name, run.storage)


def some_triples(trained: TrainedModel, number: int = 40) -> Triples:
    every = _triples(trained, 3)
    return Triples(users=every.users[:number], items=every.items[:number], negatives=every.negatives[:number])


def directions_of(trained: TrainedModel, triples: Triples, *, cosine: bool = False) -> dict[str, torch.Tensor]:
    world = trained.world
    return worst_directions(
        trained.model, trained.tables, _graph(trained), world.features.fetch, ["image", "text"], triples,
        num_users=world.num_users, cold=world.cold, cosine=cosine,
    )  # fmt: skip


def bpr(trained: TrainedModel, triples: Triples, directions: dict[str, torch.Tensor], epsilon: float) -> float:
    """Triple by triple, under features that are moved."""
    world = trained.world
    fetch = moved_features(world.features.fetch, directions, epsilon)
    vectors = encode_exactly(trained.model, trained.tables, _graph(trained), fetch, world.num_users, world.cold).vectors
    total = 0.0
    for user, item, other in zip(triples.users, triples.items, triples.negatives, strict=True):
        u, i, j = (vectors[n].double() for n in (user, world.num_users + item, world.num_users + other))
        total += float(torch.log1p(torch.exp(-(u @ (i - j)))))
    return total


@pytest.mark.parametrize("kind", ["fused", "attending"])
def test_directions_are_the_steepest(kind: str, request: pytest.FixtureRequest) -> None:
    """The loss's slope along them, by finite differences, against that along others; an item at a time too."""
    trained = opened(request.getfixturevalue(kind))
    triples = some_triples(trained)
    found = directions_of(trained, triples)
    other = random_directions(trained.world.features.fetch, ["image", "text"], seed=1)

    def slope(directions: dict[str, torch.Tensor]) -> float:
        return (bpr(trained, triples, directions, 1e-2) - bpr(trained, triples, directions, -1e-2)) / 2e-2

    steepest = slope(found)
    assert steepest > 0
    assert all(abs(slope(random_directions(trained.world.features.fetch, ["image", "text"], seed=s))) < steepest / 2
               for s in range(3))  # fmt: skip
    item = int(triples.items[0])
    for name, rows in found.items():
        alone, drawn = {name: torch.zeros_like(rows)}, {name: torch.zeros_like(rows)}
        present = trained.world.features.fetch(name, None)[1]
        item = int(next(i for i in triples.items if present[i]))
        alone[name][item], drawn[name][item] = rows[item], other[name][item]
        assert slope(alone) > abs(slope(drawn))
        lengths = rows.norm(dim=1)
        assert not lengths[~present].any()
        assert torch.allclose(lengths[lengths > 0], torch.ones(()), atol=1e-5)


def test_pieces_of_the_triples_add_up(fused: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = opened(fused)
    triples = some_triples(trained)
    whole = directions_of(trained, triples)
    monkeypatch.setattr(attack_module, "TRIPLES_AT_ONCE", 7)
    for name, rows in directions_of(trained, triples).items():
        torch.testing.assert_close(rows, whole[name], rtol=1e-3, atol=1e-4)


def test_cosine_scores_have_other_directions(fused: Finished) -> None:
    trained = opened(fused)
    triples = some_triples(trained)
    plain, cosine = directions_of(trained, triples), directions_of(trained, triples, cosine=True)
    assert (plain["image"] - cosine["image"]).abs().max() > 0.05


def test_no_length_is_the_run_as_it_is(fused: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    done = braidrec.attack("fused", storage=fused.storage, at=(5, 20), epsilons=(0.5, 2.0))
    wanted = braidrec.evaluate("fused", storage=fused.storage, at=(5, 20)).result.metrics
    first, *others = done.points
    assert (first.epsilon, first.direction) == (0.0, "none")
    assert first.metrics == {name: wanted[name] for name in first.metrics}
    assert [(point.epsilon, point.direction) for point in others] == [
        (0.5, "worst"), (0.5, "random"), (2.0, "worst"), (2.0, "random"),
    ]  # fmt: skip
    written = json.loads(Path(done.curve_file).read_text())
    assert [point["metrics"] for point in written["points"]] == [point.metrics for point in done.points]
    print_attack_result(done)
    shown = capsys.readouterr().out
    assert "attack on image, text" in shown and "worst" in shown and f"{first.metrics['recall@20']:.4f}" in shown


def test_one_modality_alone(fused: Finished) -> None:
    one = braidrec.attack("fused", storage=fused.storage, at=(20,), epsilons=(1.0,), modalities=("image",))
    both = braidrec.attack("fused", storage=fused.storage, at=(20,), epsilons=(1.0,))
    assert one.modalities == ("image",) and both.modalities == ("image", "text")
    assert one.points[0].metrics == both.points[0].metrics
    assert one.points[1].metrics != both.points[1].metrics


def test_what_cannot_be_attacked_is_refused(fused: Finished, lightgcn: Finished) -> None:
    with pytest.raises(ConfigError, match="looks at no features of items"):
        braidrec.attack("lightgcn", storage=lightgcn.storage)
    with pytest.raises(ConfigError, match=r"does not look at features 'audio'; it looks at \['image', 'text'\]"):
        braidrec.attack("fused", storage=fused.storage, modalities=("audio",))
    with pytest.raises(ConfigError, match="epsilons"):
        braidrec.attack("fused", storage=fused.storage, epsilons=(-1.0,))


@pytest.fixture(scope="module")
def curves(tmp_path_factory: pytest.TempPathFactory) -> dict[str, AttackResult]:
    """Plain and hardened, all else equal, on data whose features decide: most of the score hangs on them."""
    place = tmp_path_factory.mktemp("hardened")
    generate_planted(
        str(place / "data"), num_users=200, num_items=150, num_interactions=4_000, num_topics=6, feature_noise=0.5,
        coverage=1.0,
    )  # fmt: skip
    common = [
        f"data.path={place / 'data'}", f"storage={place / 'runs'}", f"cache={place / 'cache'}", "workers.num=0",
        "workers.threads=1", "tracking.enabled=false", "model.dim=16", "training.epochs=30", "training.batch_size=512",
        "training.optimizer.learning_rate=0.01", "evaluation.patience=null", "evaluation.every=5",
        "evaluation.monitor=null",
    ]  # fmt: skip
    found = {}
    adversary = "training.adversarial={epsilon: 0.3, weight: 1.0, start_epoch: 11}"
    for name, own in (("plain", "training.adversarial=null"), ("hardened", adversary)):
        braidrec.train(load_config(RunConfig, [PRESETS / "amr.yaml"], [f"name={name}", *common, own]))
        found[name] = braidrec.attack(name, storage=str(place / "runs"), epsilons=(0.1, 0.3, 0.6))
    return found


def recalls(curve: AttackResult, direction: str) -> np.ndarray:
    return np.array([point.metrics["recall@20"] for point in curve.points if point.direction == direction])


@pytest.mark.slow
def test_a_hardened_model_loses_less_at_equal_clean_quality(curves: dict[str, AttackResult]) -> None:
    clean = {name: float(recalls(curve, "none")[0]) for name, curve in curves.items()}
    assert abs(clean["hardened"] - clean["plain"]) < 0.05 * clean["plain"]
    lost = {name: 1 - recalls(curve, "worst") / clean[name] for name, curve in curves.items()}
    assert lost["plain"][-1] > 0.1
    assert (lost["hardened"] < 0.8 * lost["plain"])[1:].all()


@pytest.mark.slow
def test_it_is_the_direction_that_hurts(curves: dict[str, AttackResult]) -> None:
    plain = curves["plain"]
    assert (recalls(plain, "worst") < recalls(plain, "random") - 0.01)[1:].all()
