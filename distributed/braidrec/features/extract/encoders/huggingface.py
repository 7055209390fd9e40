"""What the encoders of the transformers library share."""

import os
from typing import Any

import torch
from torch import Tensor

from braidrec.features.extract.weights import Weights


def load_model(kind: Any, weights: Weights, device: torch.device) -> Any:
    """A pretrained model from a local folder: no network, no code of the folder's own, fp32."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # threads of the tokeniser, forked, are a known deadlock
    model = kind.from_pretrained(str(weights.path), local_files_only=True, trust_remote_code=False, dtype=torch.float32)
    return model.eval().to(device)


def masked_mean(states: Tensor, mask: Tensor) -> Tensor:
    """`[n, tokens, dim]`, `[n, tokens]` → the mean over the tokens that are there."""
    weights = mask.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1).clamp(min=1e-9)


def features_of(output: Any) -> Tensor:
    """The vectors in what a model's `get_…_features` gives, which is a tensor or an output that holds one."""
    if isinstance(output, Tensor):
        return output
    pooled: Tensor = output.pooler_output
    return pooled
