"""Our names and values → what MLflow accepts: its character set, its lengths, and no password."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from braidrec.config.dotted import leaves

MAX_NAME = 250
MAX_PARAMETER = 6000
MAX_TAG = 8000
_SHORTENED = "… (shortened; the whole value is in config.yaml)"
_REFUSED_CHARACTERS = re.compile(r"[^\w.\- :/]")
_PASSWORD = re.compile(r"(://[^\s:/@]*:)[^\s/@]+@")


def metric_name(name: str) -> str:
    """The name under which MLflow keeps a metric, parameter or tag of ours.

    MLflow accepts letters, digits, "_", "-", ".", " ", ":" and "/" (so no "@"), at most 250 of them, and no name that
    is not a clean relative path. "@" becomes "_at_", every other refused character "_", empty and dot segments go:

        valid/recall@20            → valid/recall_at_20
        test/ndcg@10[cold items]   → test/ndcg_at_10_cold items_

    A name that is too long keeps its beginning and ends in ten hexadecimal digits of its own hash.

    Raises:
        ValueError: nothing is left of the name.
    """
    replaced = _REFUSED_CHARACTERS.sub("_", name.replace("@", "_at_"))
    accepted = "/".join(part for part in replaced.split("/") if part not in ("", ".", ".."))
    if not accepted:
        raise ValueError(f"{name!r} cannot name anything in MLflow: use letters, digits, '_', '-', '.', ':' or '/'")
    if len(accepted) > MAX_NAME:
        digest = hashlib.sha256(name.encode()).hexdigest()[:10]
        return f"{accepted[: MAX_NAME - 11]}-{digest}"
    return accepted


def flatten(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """A nested configuration as (dotted key, text) pairs; lists become JSON, None "null", booleans "true"/"false"."""
    for key, value in leaves(config):
        yield key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def parameters(config: Mapping[str, Any]) -> dict[str, str]:
    """The configuration as MLflow parameters: dotted keys, values of at most 6,000 characters, no passwords."""
    return {metric_name(key): shorten(redact(value), MAX_PARAMETER) for key, value in flatten(config)}


def tags(values: Mapping[str, str]) -> dict[str, str]:
    """Tags as MLflow accepts them: names like `metric_name`, values of at most 8,000 characters, no passwords."""
    return {metric_name(key): shorten(redact(value), MAX_TAG) for key, value in values.items()}


def shorten(value: str, limit: int) -> str:
    """The value itself, or its beginning and a remark that it is not the whole."""
    return value if len(value) <= limit else value[: limit - len(_SHORTENED)] + _SHORTENED


def redact(text: str) -> str:
    """The text with the password of every `scheme://user:password@host` replaced by asterisks."""
    return _PASSWORD.sub(r"\1***@", text)


def first_line(error: BaseException) -> str:
    """What an exception says, without the pages that follow it."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
