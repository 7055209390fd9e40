"""Fusion once more, a row and a strand at a time, in plain numpy. Parameters are read out of the module checked."""

import numpy as np
import torch

from braidrec.models.fusion.fusion import Fusion

Rows = dict[str, np.ndarray]


def draw(dims: dict[str, int], rows: int = 9, seed: int = 0) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Strands and presence in fp64: the first row has none, the second all, the third the last one only."""
    generator = torch.Generator().manual_seed(seed)
    strands = {name: torch.randn(rows, width, generator=generator, dtype=torch.float64) for name, width in dims.items()}
    present = {name: torch.rand(rows, generator=generator) < 0.6 for name in dims}
    for place, name in enumerate(sorted(dims)):
        present[name][:3] = torch.tensor([False, True, place == len(dims) - 1])
    return strands, present


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def parameters_of(module: torch.nn.Module) -> Rows:
    return {name: value.detach().numpy() for name, value in module.named_parameters()}


def fuse(fusion: Fusion, strands: Rows, present: Rows, **settings) -> tuple[np.ndarray, np.ndarray]:
    """Vectors before the map, and weights, row by row."""
    found = parameters_of(fusion)
    fused = [
        fuse_row(found, {name: strands[name][row] for name in strands if present[name][row]}, strands, settings)
        for row in range(len(next(iter(strands.values()))))
    ]
    return np.stack([vector for vector, _ in fused]), np.stack([weights for _, weights in fused])


def fuse_row(found: Rows, mine: Rows, all_strands: Rows, settings: dict) -> tuple[np.ndarray, np.ndarray]:
    names = sorted(all_strands)
    weights = dict.fromkeys(names, 0.0)
    counted = dict(mine)
    if settings["weighting"] == "attention":
        inner, bias, query = (found[f"attention.{name}"] for name in ("inner.weight", "inner.bias", "query.weight"))
        logits = {name: float(query[0] @ np.tanh(inner @ h + bias)) for name, h in mine.items()}
        total = sum(np.exp(logit) for logit in logits.values())
        for name in mine:
            weights[name] = np.exp(logits[name]) / total
            counted[name] = weights[name] * mine[name]
    if settings["weighting"] == "gate":
        by = settings.get("gate_by")
        for name, h in mine.items():
            weights[name] = 1.0
            if name == by:
                continue
            decides = h if by is None else mine.get(by, np.zeros(all_strands[by].shape[1]))
            gate = sigmoid(found[f"gate.gates.of_{name}.weight"] @ decides + found[f"gate.gates.of_{name}.bias"])
            weights[name] = gate.mean()
            counted[name] = gate * h
    return combine(counted, all_strands, settings), np.array([weights[name] for name in names])


def combine(counted: Rows, all_strands: Rows, settings: dict) -> np.ndarray:
    names, how = sorted(all_strands), settings["combine"]
    if how == "concat":
        return np.concatenate([counted.get(name, np.zeros(all_strands[name].shape[1])) for name in names])
    if not counted:
        return np.zeros(all_strands[names[0]].shape[1])
    if how == "max":
        return np.max(list(counted.values()), axis=0)
    if how == "weighted":
        return np.sum([settings["weights"][name] * h for name, h in counted.items()], axis=0)
    total = np.sum(list(counted.values()), axis=0)
    return total / len(counted) if how == "mean" else total
