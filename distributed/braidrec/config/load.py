"""YAML files and dotted overrides → one validated configuration, with errors that say the mend."""

import difflib
import json
import types
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from braidrec.config.base import Strict

ConfigType = TypeVar("ConfigType", bound=Strict)

MAX_CONFIG_BYTES = 1_000_000


class ConfigError(ValueError):
    """A configuration that cannot be run. The message names the key, the value seen and what was wanted."""


def load_config(kind: type[ConfigType], files: Sequence[str | Path], overrides: Sequence[str] = ()) -> ConfigType:
    """Read `files` from left to right (later ones win, mappings merge), apply `overrides`, validate.

    Args:
        kind: the configuration type wanted.
        files: YAML files. None is allowed when the overrides say everything.
        overrides: `a.b=value`, the value being YAML; list elements are addressed as `a.0.b`.
    Raises:
        ConfigError: unreadable file, malformed override, unknown key or a value that its type refuses.
    """
    merged: DictConfig = OmegaConf.create({})
    for file in files:
        merged = _merge(merged, _read_yaml(Path(file)), str(file))
    for override in overrides:
        _apply_override(merged, override)
    source = ", ".join(str(file) for file in files) or "--set"
    return validate(kind, OmegaConf.to_container(merged, resolve=False), source)


def validate(kind: type[ConfigType], plain: Any, source: str) -> ConfigType:
    """Validate plain data as `kind`. JSON is the carrier so that lists become tuples under strict types."""
    try:
        text = json.dumps(plain)
    except TypeError as error:
        raise ConfigError(f"{source}: {error}; use strings, numbers, booleans, lists and mappings only") from None
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        lines = [_explain(kind, detail) for detail in error.errors(include_url=False)]
        raise ConfigError(f"{source} is not a valid {kind.__name__}:\n  " + "\n  ".join(lines)) from None


def to_yaml(config: Strict) -> str:
    """The resolved configuration as YAML, every default written out."""
    return yaml.safe_dump(config.to_plain(), sort_keys=False, allow_unicode=True)


def _read_yaml(file: Path) -> DictConfig:
    if not file.is_file():
        raise ConfigError(f"{file}: no such configuration file (looked in {Path.cwd()})")
    if file.stat().st_size > MAX_CONFIG_BYTES:
        raise ConfigError(f"{file}: {file.stat().st_size} bytes; a configuration has at most {MAX_CONFIG_BYTES}")
    try:
        text = file.read_text(encoding="utf-8")
        _refuse_aliases(text, file)
        content = OmegaConf.create(text) if text.strip() else OmegaConf.create({})
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not UTF-8 ({error.reason} at byte {error.start})") from None
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"{file}: not readable as YAML: {error}") from None
    if not isinstance(content, DictConfig):
        raise ConfigError(f"{file}: the top level must be a mapping of keys, not {type(content).__name__}")
    return content


def _refuse_aliases(text: str, file: Path) -> None:
    """An alias can multiply a small file into gigabytes; no configuration needs one."""
    for token in yaml.scan(text, Loader=yaml.SafeLoader):
        if isinstance(token, yaml.AliasToken):
            line = token.start_mark.line + 1
            raise ConfigError(f"{file}, line {line}: YAML aliases (*name) are refused; write the value out")


def _merge(first: DictConfig, second: DictConfig, source: str) -> DictConfig:
    try:
        merged = OmegaConf.merge(first, second)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{source}: cannot be merged with the files before it: {error}") from None
    assert isinstance(merged, DictConfig)
    return merged


def _apply_override(config: DictConfig, override: str) -> None:
    key, separator, text = override.partition("=")
    key = key.strip()
    if not separator or not key:
        raise ConfigError(f"--set {override!r}: expected key=value, as in --set training.epochs=20")
    try:
        value = OmegaConf.create(f"value: {text}" if text.strip() else "value: null")["value"]
        OmegaConf.update(config, key, value, merge=not isinstance(value, ListConfig), force_add=True)
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, IndexError, TypeError, AttributeError) as error:
        raise ConfigError(f"--set {override!r}: {error}") from None


def _explain(kind: type[BaseModel], detail: Any) -> str:
    location = tuple(part for part in detail["loc"])
    key = ".".join(str(part) for part in location)
    if detail["type"] == "extra_forbidden":
        # pydantic puts the tag of a tagged union into the location; it is not a key that a user wrote.
        valid = sorted(_fields_at(kind, location[:-1]))
        nearest = difflib.get_close_matches(str(location[-1]), valid, n=1)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
        return f"{key}: unknown key.{hint} Valid keys here: {valid}"
    if detail["type"] == "missing":
        return f"{key}: is required and was not given; add it to the file or pass --set {key}=…"
    return f"{key or '(top level)'}: {detail['msg']} (got {detail.get('input')!r})"


def _fields_at(kind: type[BaseModel], location: Iterable[Any]) -> set[str]:
    candidates: list[type[BaseModel]] = [kind]
    for part in location:
        following: list[type[BaseModel]] = []
        for candidate in candidates:
            if part in candidate.model_fields:
                following += _model_types(candidate.model_fields[part].annotation)
            elif _tag_of(candidate) == part:
                following.append(candidate)
            elif isinstance(part, int):
                following.append(candidate)
        candidates = following or candidates
    return {name for candidate in candidates for name in candidate.model_fields}


def _tag_of(kind: type[BaseModel]) -> Any:
    field = kind.model_fields.get("kind")
    return get_args(field.annotation)[0] if field is not None and get_args(field.annotation) else None


def _model_types(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, types.UnionType, tuple, list, dict) or get_args(annotation):
        return [found for argument in get_args(annotation) for found in _model_types(argument)]
    return []
