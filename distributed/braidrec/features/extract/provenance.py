"""Where vectors come from: what stands in `dataset.json` and in every file of vectors."""

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from braidrec.config.extract import DatasetSourceConfig, ExtractConfig
from braidrec.features.extract.encoders.contract import Encoder

FORMAT = 1
METADATA_KEY = b"braidrec.provenance"
_WITHOUT_EFFECT = ("kind", "batch", "weights")
"""Of an encoder's settings; of the weights the hash counts, not where they lie."""


def provenance(config: ExtractConfig, encoder: Encoder, fitted_on: Mapping[str, Any] | None) -> dict[str, Any]:
    """All that decides the vectors beside the media themselves. It holds no path, no time and no machine."""
    return {
        "kind": "extracted",
        "encoder": config.encoder.kind,
        "medium": encoder.medium,
        "settings": _settings(config.encoder.to_plain()),
        **encoder.facts(),
        "fitted_on": None if fitted_on is None else dict(fitted_on),
        "libraries": encoder.versions(),
        "limits": config.limits.to_plain(),
        "dtype": config.dtype,
        "format": FORMAT,
    }


def key_of(facts: Mapping[str, Any]) -> str:
    """The identity of an encoder with its settings: items are current that were encoded under the same."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


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


def braidrec_version() -> str:
    return version("braidrec")


def _settings(plain: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _settings(value) if isinstance(value, Mapping) else value
        for name, value in plain.items()
        if name not in _WITHOUT_EFFECT
    }
