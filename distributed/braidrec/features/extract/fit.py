"""Fitting an encoder to items of the train split, once for a corpus and settings."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from braidrec.config.base import ConfigError
from braidrec.config.extract import ExtractConfig
from braidrec.data.folder import DatasetFolder
from braidrec.data.storage import Location
from braidrec.distinct import distinct
from braidrec.features.extract.encoders.contract import FittedEncoder, State
from braidrec.features.extract.manifest import Plan
from braidrec.features.extract.pipeline import Work, hash_some, load_some, plan_reference
from braidrec.features.extract.provenance import key_of


def fit(
    encoder: FittedEncoder, work: Work, plan: Plan, config: ExtractConfig, folder: DatasetFolder, home: Location,
    facts: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """Let `encoder` learn from train items, or take what it learnt from the same ones before; say from which.

    `items` counts the media that can be read, whether or not they turn out to be broken.

    Raises:
        ConfigError: no train item has a usable medium, or nothing can be learnt from them.
    """
    chosen = train_sample(folder, plan, encoder.fit_items, encoder.seed)
    mask = [np.where(np.isin(rows, chosen), rows, np.int32(-1)) for rows in plan.items]
    only = replace(plan, items=tuple(mask))
    work = replace(work, places=plan_reference(only), current=None)
    # Media are decoded only where something is to be learnt from them.
    hashes = sorted(hash_some(work, config))
    fitted_on = {"split": "train", "items": len(hashes), "sha256": _corpus_hash(hashes)}
    wanted = key_of({**facts, "fitted_on": fitted_on})
    file = home.child(state_name(wanted))
    state = read_state(file)
    if state is None:
        found = sorted(load_some(work, config), key=lambda row: row[0])
        if not found:
            raise ConfigError(
                f"encoder.kind={config.encoder.kind} learns from items of the train split, and none of {len(chosen)} "
                "has a usable medium; look at source"
            )
        state = encoder.fit([medium for _, medium in found])
        write_state(file, state)
    encoder.use(state)
    return fitted_on


def train_sample(folder: DatasetFolder, plan: Plan, most: int, seed: int) -> NDArray[np.int32]:
    """Items with a medium that someone interacted with in the train split, at most `most` of them, ascending."""
    train = np.intersect1d(distinct(folder.edges("train")[1]), plan.wanted, assume_unique=True)
    if len(train) > most:
        train = np.sort(np.random.default_rng(seed).choice(train, most, replace=False))
    return train.astype(np.int32)


def state_name(key: str) -> str:
    """The key stands for settings and corpus, so that what was learnt otherwise is never taken for it."""
    return f"encoder-{key[:16]}.safetensors"


def write_state(file: Location, state: State) -> None:
    """Arrays as safetensors, plain data as its metadata."""
    arrays = {name: np.ascontiguousarray(value) for name, value in state.arrays.items()}
    info = {"info": json.dumps(dict(state.info), ensure_ascii=False)}
    file.write_bytes(save_arrays(arrays, metadata=info))


def read_state(file: Location) -> State | None:
    """What `write_state` wrote, if anything."""
    if not file.is_file():
        return None
    content = file.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return State(arrays=load_arrays(content), info=json.loads(header["__metadata__"]["info"]))


def _corpus_hash(hashes: list[tuple[int, bytes]]) -> str:
    digest = hashlib.sha256()
    for item, source in hashes:
        digest.update(item.to_bytes(4, "little") + source)
    return digest.hexdigest()
