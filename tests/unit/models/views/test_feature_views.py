"""Views: how often, how large and how random a perturbation is, each by a test of its distribution."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from torch import Tensor, nn

from braidrec.models.views.feature_dropout import FeatureDropout
from braidrec.models.views.gaussian_noise import GaussianNoise
from braidrec.models.views.mlp_view import MLPView
from braidrec.models.views.simgcl_noise import SimGCLNoise

RANDOM: dict[str, Callable[[], nn.Module]] = {
    "entries": lambda: FeatureDropout(rate=0.3),
    "rescaled": lambda: FeatureDropout(rate=0.3, rescale=True),
    "rows": lambda: FeatureDropout(rate=0.3, unit="rows"),
    "gaussian": lambda: GaussianNoise(std=0.2),
    "simgcl": lambda: SimGCLNoise(norm=0.1),
}


def features(rows: int = 40, width: int = 8, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(1), dtype=dtype)


def z_score(count: int, trials: int, rate: float) -> float:
    return (count - trials * rate) / (trials * rate * (1 - rate)) ** 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("make", RANDOM.values(), ids=RANDOM.keys())
def test_a_seed_is_a_view(make: Callable[[], nn.Module], dtype: torch.dtype) -> None:
    """Also outside training mode; the input stays, and gradients pass."""
    view, given = make().eval(), features(dtype=dtype).requires_grad_()
    before = given.detach().clone()
    torch.manual_seed(5)
    first, second = view(given), view(given)
    torch.manual_seed(5)
    assert torch.equal(view(given), first)
    assert not torch.equal(first, second) and not torch.equal(first, before)
    assert torch.equal(given.detach(), before)
    assert first.shape == given.shape and first.dtype == dtype
    first.sum().backward()
    assert torch.isfinite(given.grad).all() and given.grad.any()
    assert view(features(rows=0, dtype=dtype)).shape == (0, 8)


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.9])
def test_entries_are_dropped_at_the_rate_and_independently(rate: float) -> None:
    torch.manual_seed(2)
    given = torch.ones(2000, 50)
    dropped = FeatureDropout(rate=rate)(given) == 0
    assert abs(z_score(int(dropped.sum()), dropped.numel(), rate)) < 4
    for axis, count in ((0, 2000), (1, 50)):
        spread = float(dropped.float().mean(axis).std())
        assert spread == pytest.approx((rate * (1 - rate) / count) ** 0.5, rel=0.4)


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.9])
def test_rows_are_dropped_whole(rate: float) -> None:
    torch.manual_seed(3)
    view = FeatureDropout(rate=rate, unit="rows")(torch.ones(20000, 4))
    assert torch.equal(view.amin(1), view.amax(1))
    assert abs(z_score(int((view[:, 0] == 0).sum()), 20000, rate)) < 4


@pytest.mark.parametrize("unit", ["entries", "rows"])
def test_the_mean_is_kept_where_it_is_rescaled(unit: str) -> None:
    torch.manual_seed(4)
    given = torch.full((30000, 3), 2.0)
    plain = FeatureDropout(rate=0.4, unit=unit)(given)
    assert set(plain.unique().tolist()) == {0.0, 2.0}
    rescaled = FeatureDropout(rate=0.4, unit=unit, rescale=True)(given)
    torch.testing.assert_close(rescaled.unique(), torch.tensor([0.0, 2.0 / 0.6]))
    count = 30000 if unit == "rows" else 90000
    for view, mean in ((plain, 1.2), (rescaled, 2.0)):
        assert abs(float(view.double().mean()) - mean) < 4 * float(view.std()) / count**0.5


def test_what_is_dropped_can_be_asked_for() -> None:
    """For a reconstruction to hide the same; NaN in what is dropped is gone, and so is its gradient."""
    view = FeatureDropout(rate=0.5, rescale=True)
    dropped = torch.tensor([[True, False], [False, True]])
    given = torch.tensor([[torch.nan, 1.0], [2.0, torch.nan]], requires_grad=True)
    left = view.without(given, dropped)
    assert left.tolist() == [[0.0, 2.0], [4.0, 0.0]]
    left.sum().backward()
    assert given.grad.tolist() == [[0.0, 2.0], [2.0, 0.0]]
    torch.manual_seed(6)
    drawn = view.dropped(features())
    torch.manual_seed(6)
    assert torch.equal(view(features()) == 0, drawn)
    assert FeatureDropout(rate=0.5, unit="rows").dropped(features()).shape == (40, 1)


def test_no_rate_no_noise_no_change() -> None:
    for view in (FeatureDropout(rate=0.0, rescale=True), GaussianNoise(std=0.0), SimGCLNoise(norm=0.0)):
        assert torch.equal(view(features()), features())


def test_gaussian_noise_is_normal() -> None:
    torch.manual_seed(7)
    given = features(400, 50, torch.float64)
    noise = (GaussianNoise(std=0.25)(given) - given).flatten().numpy()
    assert kstest(noise / 0.25, "norm").pvalue > 1e-3
    assert kstest(noise, "norm").pvalue < 1e-10


def test_simgcl_noise_has_its_norm_and_the_signs_of_the_input() -> None:
    torch.manual_seed(8)
    given = features(500, 16, torch.float64)
    noise = SimGCLNoise(norm=0.3)(given) - given
    torch.testing.assert_close(noise.norm(dim=-1), torch.full((500,), 0.3, dtype=torch.float64))
    assert ((noise * given) > 0).all()
    # Uniform before it is brought to its length: by the largest entry, the others are uniform below it.
    size = noise.abs().numpy()
    share = np.sort(size / size.max(1, keepdims=True), axis=1)[:, :-1].flatten()
    assert kstest(share, "uniform").pvalue > 1e-3


def test_simgcl_noise_spares_zeros() -> None:
    given = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, -1.0], [0.0, 0.0, -2.0]], requires_grad=True)
    torch.manual_seed(9)
    view = SimGCLNoise(norm=0.5)(given)
    noise = (view - given).detach()
    assert not noise[given == 0].any()
    torch.testing.assert_close(noise.norm(dim=-1), torch.tensor([0.0, 0.5, 0.5]))
    view.sum().backward()
    assert torch.equal(given.grad, torch.ones(3, 3))


def test_an_mlp_view_is_two_layers_that_learn() -> None:
    torch.manual_seed(10)
    view = MLPView(dim=4, hidden=6).double()
    given = features(7, 4, torch.float64).requires_grad_()
    inner, outer = ((layer.weight.detach().numpy(), layer.bias.detach().numpy()) for layer in (view.inner, view.outer))
    hidden = np.maximum(given.detach().numpy() @ inner[0].T + inner[1], 0.0)
    np.testing.assert_allclose(view(given).detach(), hidden @ outer[0].T + outer[1], rtol=1e-10)
    view(given).square().sum().backward()
    assert len(list(view.parameters())) == 4
    assert all(parameter.grad.any() for parameter in (given, *view.parameters()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FeatureDropout(rate=1.0), r"rate=1.0 must be at least 0 and below 1"),
        (lambda: FeatureDropout(rate=-0.1), r"rate=-0.1 must be at least 0 and below 1"),
        (lambda: FeatureDropout(rate=float("nan")), r"rate=nan must be at least 0 and below 1"),
        (lambda: GaussianNoise(std=-1.0), r"std=-1.0 must be a finite number of at least 0"),
        (lambda: SimGCLNoise(norm=float("inf")), r"norm=inf must be a finite number of at least 0"),
        (lambda: MLPView(dim=4, hidden=0), r"hidden=0 must be at least 1"),
        (lambda: MLPView(dim=0, hidden=4), r"dim=0 must be at least 1"),
    ],
)
def test_bad_arguments(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
