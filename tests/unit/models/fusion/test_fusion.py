"""Every fusion against a loop over rows and strands; presence, order and gradients."""

from itertools import permutations, product

import numpy as np
import pytest
import torch
from fusion_oracles import draw, fuse, parameters_of
from torch import Tensor, nn

from braidrec.models.fusion.combinations import COMBINATIONS
from braidrec.models.fusion.fusion import Fusion

WIDTH = 4
WEIGHTS = {"id": 0.7, "image": -0.2, "text": 1.5}
WEIGHTINGS = ({"weighting": "none"}, {"weighting": "attention"}, {"weighting": "attention", "attention_dim": 3},
              {"weighting": "gate"}, {"weighting": "gate", "gate_by": "id"})  # fmt: skip
STRANDS = (("id",), ("id", "text"), ("image", "id", "text"))


def make(names, combine: str, weighting: dict, **more) -> tuple[Fusion, dict]:
    settings = {"combine": combine, **weighting}
    if combine == "weighted":
        settings["weights"] = {name: WEIGHTS[name] for name in names}
    torch.manual_seed(11)
    fusion = Fusion(dict.fromkeys(names, WIDTH), **settings, **more).double()
    with torch.no_grad():
        for parameter in fusion.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.5)
    return fusion, settings


def numpy_of(tensors: dict[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy() for name, value in tensors.items()}


CASES = [case for case in product(STRANDS, COMBINATIONS, WEIGHTINGS)]  # noqa: C416


@pytest.mark.parametrize(("names", "combine", "weighting"), CASES)
@pytest.mark.parametrize("everywhere", [False, True])
def test_formula(names, combine: str, weighting: dict, everywhere: bool) -> None:
    fusion, settings = make(names, combine, weighting)
    strands, present = draw(dict.fromkeys(names, WIDTH))
    if everywhere:
        present = {name: torch.ones_like(mask) for name, mask in present.items()}
    wanted, weights = fuse(fusion, numpy_of(strands), numpy_of(present), **settings)
    for told in (present, {}) if everywhere else (present,):
        fused = fusion(strands, told)
        np.testing.assert_allclose(fused.vectors.detach().numpy(), wanted, rtol=1e-10, atol=1e-12)
        assert fused.vectors.shape[1] == fusion.out_dim
        if weighting["weighting"] == "none":
            assert fused.weights is None
        else:
            np.testing.assert_allclose(fused.weights.detach().numpy(), weights, rtol=1e-10, atol=1e-12)
    assert fusion.names == tuple(sorted(names))


@pytest.mark.parametrize(("combine", "weighting"), list(product(COMBINATIONS, WEIGHTINGS)))
def test_a_row_without_any_strand_is_zero(combine: str, weighting: dict) -> None:
    for more in ({}, {"map": "linear", "out_dim": 3}, {"map": "mlp", "out_dim": 3}):
        fusion, _ = make(STRANDS[2], combine, weighting, **more)
        strands, present = draw(dict.fromkeys(STRANDS[2], WIDTH))
        given = {name: rows.requires_grad_() for name, rows in strands.items()}
        fused = fusion(given, present)
        assert not fused.vectors[0].any()
        assert torch.equal(fused.vectors.any(1), torch.stack(list(present.values())).any(0))
        if fused.weights is not None:
            assert not fused.weights[0].any()
        fused.vectors.sum().backward()
        for name, rows in given.items():
            assert torch.isfinite(rows.grad).all()
            assert not rows.grad[0].any()
            if weighting.get("gate_by") != name:  # an absent ID still opens gates, as zeros: its own rows do not matter
                assert not rows.grad[~present[name]].any()
        assert all(torch.isfinite(parameter.grad).all() for parameter in fusion.parameters())


@pytest.mark.parametrize(("combine", "weighting"), list(product(COMBINATIONS, WEIGHTINGS)))
def test_what_stands_in_an_absent_row_does_not_matter(combine: str, weighting: dict) -> None:
    fusion, _ = make(STRANDS[2], combine, weighting)
    strands, present = draw(dict.fromkeys(STRANDS[2], WIDTH))
    other = {name: torch.where(present[name].unsqueeze(-1), rows, 1e3) for name, rows in strands.items()}
    assert torch.equal(fusion(strands, present).vectors, fusion(other, present).vectors)


@pytest.mark.parametrize(("combine", "weighting"), list(product(COMBINATIONS, WEIGHTINGS)))
def test_the_order_of_strands_changes_nothing(combine: str, weighting: dict) -> None:
    """Neither that in which the fusion was told of them, nor that in which they arrive: not a bit."""
    strands, present = draw(dict.fromkeys(STRANDS[2], WIDTH))
    found = []
    for names in permutations(STRANDS[2]):
        fusion, _ = make(names, combine, weighting, map="linear", out_dim=2)
        for order in permutations(STRANDS[2]):
            fused = fusion({name: strands[name] for name in order}, {name: present[name] for name in reversed(order)})
            found.append((fused.vectors, fused.weights, *fusion.parameters()))
    for other in found[1:]:
        for one, another in zip(found[0], other, strict=True):
            assert one is another is None or torch.equal(one, another)


@pytest.mark.parametrize(("combine", "weighting"), list(product(("sum", "mean", "max"), WEIGHTINGS[:3])))
def test_renamed_strands_fuse_alike(combine: str, weighting: dict) -> None:
    """Element-wise fusion with shared parameters does not know which strand is which."""
    fusion, _ = make(STRANDS[2], combine, weighting)
    strands, present = draw(dict.fromkeys(STRANDS[2], WIDTH))
    turned = dict(zip(STRANDS[2], (*STRANDS[2][1:], STRANDS[2][0]), strict=True))
    before = fusion(strands, present)
    after = fusion(*({new: given[old] for new, old in turned.items()} for given in (strands, present)))
    torch.testing.assert_close(after.vectors, before.vectors, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("combine", "weighting"), list(product(COMBINATIONS, WEIGHTINGS)))
@pytest.mark.parametrize("map_", ["none", "linear", "mlp"])
def test_gradients(combine: str, weighting: dict, map_: str) -> None:
    """Of strands and parameters, by finite differences; and every strand and parameter has one."""
    fusion, _ = make(STRANDS[2], combine, weighting, map=map_, out_dim=None if map_ == "none" else 3)
    strands, present = draw(dict.fromkeys(STRANDS[2], WIDTH), rows=4)
    names = sorted(strands)

    def run(*rows: Tensor) -> Tensor:
        return fusion(dict(zip(names, rows, strict=True)), present).vectors

    inputs = tuple(strands[name].requires_grad_() for name in names)
    assert torch.autograd.gradcheck(run, inputs)
    (run(*inputs) ** 2).sum().backward()
    assert all(rows.grad.any() for rows in inputs)
    parameters = list(fusion.named_parameters())
    assert (len(parameters) > 0) == (weighting["weighting"] != "none" or map_ != "none")
    for name, parameter in parameters:
        assert parameter.grad.any(), name


def test_equal_maxima_share_the_gradient() -> None:
    fusion, _ = make(("id", "text"), "max", {"weighting": "none"})
    strands = {name: torch.zeros(1, WIDTH, dtype=torch.float64, requires_grad=True) for name in ("id", "text")}
    fusion(strands, {}).vectors.sum().backward()
    assert strands["id"].grad.tolist() == strands["text"].grad.tolist() == [[0.5] * WIDTH]


@pytest.mark.parametrize(
    "weighting", [{"weighting": "none"}, {"weighting": "gate"}, {"weighting": "gate", "gate_by": "id"}]
)
def test_strands_of_different_widths_are_concatenated(weighting: dict) -> None:
    dims = {"text": 2, "id": 5, "image": 3}
    torch.manual_seed(1)
    fusion = Fusion(dims, combine="concat", **weighting).double()
    strands, present = draw(dims)
    wanted, _ = fuse(fusion, numpy_of(strands), numpy_of(present), combine="concat", **weighting)
    np.testing.assert_allclose(fusion(strands, present).vectors.detach().numpy(), wanted, rtol=1e-10, atol=1e-12)
    assert fusion.out_dim == 10


@pytest.mark.parametrize("combine", ["sum", "concat"])
@pytest.mark.parametrize(("map_", "depth"), [("linear", 1), ("mlp", 2)])
def test_maps(combine: str, map_: str, depth: int) -> None:
    fusion, settings = make(STRANDS[2], combine, {"weighting": "attention"}, map=map_, out_dim=6)
    strands, present = draw(dict.fromkeys(STRANDS[2], WIDTH))
    h, _ = fuse(fusion, numpy_of(strands), numpy_of(present), **settings)
    linears = [module for module in fusion.map.modules() if isinstance(module, nn.Linear)]
    assert len(linears) == depth and fusion.out_dim == 6
    for place, linear in enumerate(linears):
        h = h @ linear.weight.detach().numpy().T + linear.bias.detach().numpy()
        h = np.where(h > 0, h, 0.01 * h) if place < depth - 1 else h
    h[~np.any(list(numpy_of(present).values()), axis=0)] = 0
    np.testing.assert_allclose(fusion(strands, present).vectors.detach().numpy(), h, rtol=1e-10, atol=1e-12)


def test_parameters_carry_the_names_of_strands() -> None:
    """Also names that torch's modules use themselves."""
    names = ("forward", "items", "text")
    fusion = Fusion(dict.fromkeys(names, 2), combine="sum", weighting="gate", gate_by="items")
    assert sorted(parameters_of(fusion)) == [
        "gate.gates.of_forward.bias",
        "gate.gates.of_forward.weight",
        "gate.gates.of_text.bias",
        "gate.gates.of_text.weight",
    ]
    shared = Fusion(dict.fromkeys(names, 2), combine="concat", weighting="attention")
    assert sorted(parameters_of(shared)) == ["attention.inner.bias", "attention.inner.weight", "attention.query.weight"]
    assert not list(Fusion({"id": 2}, combine="weighted", weights={"id": 2.0}).state_dict())


def test_attention_of_very_large_logits_and_half_precision() -> None:
    fusion, _ = make(("id", "text"), "sum", {"weighting": "attention"})
    with torch.no_grad():
        fusion.attention.query.weight.mul_(1e6)
    strands, present = draw({"id": WIDTH, "text": WIDTH})
    fused = fusion(strands, present)
    assert torch.isfinite(fused.vectors).all()
    torch.testing.assert_close(fused.weights.sum(-1)[1:], torch.stack(list(present.values())).any(0)[1:].double())
    half = make(("id", "text"), "max", {"weighting": "attention"})[0].bfloat16()
    fused = half({name: rows.bfloat16() for name, rows in strands.items()}, present)
    assert fused.vectors.dtype == torch.bfloat16 and torch.isfinite(fused.vectors).all()
    assert not fused.vectors[0].any()


def test_no_rows() -> None:
    for combine, weighting in product(COMBINATIONS, WEIGHTINGS):
        fusion, _ = make(("id", "text"), combine, weighting)
        empty = {name: torch.zeros(0, WIDTH, dtype=torch.float64) for name in ("id", "text")}
        assert fusion(empty, {"id": torch.zeros(0, dtype=torch.bool)}).vectors.shape == (0, fusion.out_dim)


TWO = {"a": 2, "b": 2}


@pytest.mark.parametrize(
    ("dims", "settings", "message"),
    [
        ({}, {"combine": "sum"}, "at least one strand"),
        ({"a.b": 2}, {"combine": "sum"}, r"strand 'a\.b': a name must not be empty nor hold a dot"),
        (TWO, {"combine": "product"}, "combine='product': choose one of"),
        (TWO, {"combine": "sum", "weighting": "learned"}, "weighting='learned': choose one of"),
        (TWO, {"combine": "sum", "map": "conv"}, "map='conv': choose one of"),
        ({"a": 2, "b": 3}, {"combine": "sum"}, r"combine='sum' needs strands of equal width, not \{'a': 2, 'b': 3\}"),
        (
            {"a": 2, "b": 3},
            {"combine": "concat", "weighting": "attention"},
            "weighting='attention' needs strands of equal",
        ),
        (TWO, {"combine": "weighted"}, "weights=None with combine='weighted'"),
        (TWO, {"combine": "sum", "weights": {"a": 1, "b": 1}}, "with combine='sum'"),
        (TWO, {"combine": "weighted", "weights": {"a": 1}}, r"wanted one finite number for each of \['a', 'b'\]"),
        (TWO, {"combine": "weighted", "weights": {"a": 1, "b": float("nan")}}, "wanted one finite number"),
        (TWO, {"combine": "sum", "attention_dim": 3}, "attention_dim=3 has no effect without weighting='attention'"),
        (TWO, {"combine": "sum", "weighting": "attention", "attention_dim": 0}, "hidden=0 must be at least 1"),
        (TWO, {"combine": "sum", "weighting": "attention", "gate_by": "a"}, "gate_by='a' has no effect without"),
        (TWO, {"combine": "sum", "weighting": "gate", "gate_by": "c"}, r"gate_by='c': choose one of the strands"),
        (TWO, {"combine": "sum", "out_dim": 3}, "out_dim=3 has no effect without a map"),
        (TWO, {"combine": "sum", "map": "linear"}, "map='linear' needs out_dim"),
    ],
)
def test_settings_that_do_not_fit_are_refused(dims: dict, settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Fusion(dims, **settings)


def test_other_strands_are_refused() -> None:
    fusion = Fusion(TWO, combine="sum")
    rows = torch.zeros(3, 2)
    with pytest.raises(ValueError, match=r"strands \['a'\] with presence of \[\] were given; wanted \['a', 'b'\]"):
        fusion({"a": rows}, {})
    with pytest.raises(ValueError, match=r"with presence of \['c'\]"):
        fusion({"a": rows, "b": rows}, {"c": torch.ones(3, dtype=torch.bool)})
    with pytest.raises(ValueError, match=r"strand 'b' has width 3; wanted 2"):
        fusion({"a": rows, "b": torch.zeros(3, 3)}, {})
