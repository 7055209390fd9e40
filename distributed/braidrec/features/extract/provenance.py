"""Where vectors come from: what stands in `dataset.json` and in every file of vectors."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from braidrec.config.extract import DatasetSourceConfig, ExtractConfig
from braidrec.features.extract.encoders.contract import Encoder

FORMAT = 2
METADATA_KEY = b"braidrec.provenance"
_WITHOUT_EFFECT = ("kind", "batch", "weights")
"""Of an encoder's settings: how many items are encoded together; of the weights the hash counts, not where they lie."""
_LIMITS_WITH_EFFECT = {"audio": ("max_seconds",), "video": ("max_seconds",)}
"""By medium: limits that decide a vector. All others only decide whether there is one; the ledger keeps them for every
item."""


def provenance(config: ExtractConfig, encoder: Encoder) -> dict[str, Any]:
    """All that decides the vectors beside the media themselves and what the encoder was fitted on. It holds no path, no
    time and no machine."""
    return {
        "kind": "extracted",
        "encoder": config.encoder.kind,
        "medium": encoder.medium,
        "settings": _settings(config.encoder.to_plain()),
        **encoder.facts(),
        "fitted_on": None,
        "libraries": encoder.versions(),
        "limits": config.limits.to_plain(),
        "dtype": config.dtype,
        "format": FORMAT,
    }


def key_of(facts: Mapping[str, Any]) -> str:
    """The identity of an encoder with its settings: items are current that were encoded under the same.

    The name of the weights does not count beside their hash. What an encoder is fitted on depends on all limits.
    """
    counted = dict(facts)
    if counted.get("weights") is not None:
        counted["weights"] = counted["weights"]["sha256"]
    if counted["fitted_on"] is None:
        names = _LIMITS_WITH_EFFECT.get(counted["medium"], ())
        counted["limits"] = {name: counted["limits"][name] for name in names}
    return hashlib.sha256(json.dumps(counted, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def source_facts(config: ExtractConfig) -> dict[str, Any]:
    """What was read, paths cut to their last part."""
    source = config.source
    if isinstance(source, DatasetSourceConfig):
        read = {"text": list(source.text)} if source.text else {"media": source.media or config.modality}
        return {"kind": "dataset", **read, "fields": config.text.to_plain()}
    plain = source.to_plain()
    plain["paths"] = [path.rstrip("/").rpartition("/")[2] for path in source.paths]
    plain["folder"] = None if source.folder is None else source.folder.rstrip("/").rpartition("/")[2]
    return {**plain, "fields": config.text.to_plain()}


def _settings(plain: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _settings(value) if isinstance(value, Mapping) else value
        for name, value in plain.items()
        if name not in _WITHOUT_EFFECT
    }
