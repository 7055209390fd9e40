"""YAML files and dotted overrides → one validated configuration, with errors that say the mend."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from braidrec.config.base import ConfigError, Strict
from braidrec.config.explain import explain
from braidrec.config.shape import with_default_kinds
from braidrec.config.yaml_text import MAX_DEPTH, YamlError, dump_yaml, parse_yaml

__all__ = ["ConfigError", "load_config", "to_yaml", "validate"]

ConfigType = TypeVar("ConfigType", bound=Strict)

MAX_CONFIG_BYTES = 1_000_000
_KEY = re.compile(r"[^.=\s\[\]]+(\.[^.=\s\[\]]+)*")


def load_config(kind: type[ConfigType], files: Sequence[str | Path], overrides: Sequence[str] = ()) -> ConfigType:
    """Read `files` from left to right, apply `overrides`, validate.

    Later files win: their mappings are merged into the earlier ones', their lists and scalars replace them.

    Args:
        kind: the configuration type wanted.
        files: YAML files. None is allowed when the overrides say everything.
        overrides: `a.b=value`, the value being YAML; elements of a list in the files are addressed as `a.0.b`.
    Raises:
        ConfigError: unreadable file, malformed override, unknown key or a value that its type refuses.
    """
    source = ", ".join(str(file) for file in files) or "--set"
    return validate(kind, read_plain(files, overrides), source)


def read_plain(files: Sequence[str | Path], overrides: Sequence[str] = ()) -> dict[str, Any]:
    """What files and overrides say together, not yet validated: no default is filled in.

    Raises:
        ConfigError: unreadable file or malformed override.
    """
    everything = OmegaConf.create({})
    for file in files:
        everything.merge_with(_read_yaml(Path(file)))
    for override in overrides:
        _apply_override(everything, override)
    return _plain(everything)


def with_overrides(plain: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """`a.b=value` over a plain configuration.

    Raises:
        ConfigError: malformed override.
    """
    everything = OmegaConf.create(plain)
    for override in overrides:
        _apply_override(everything, override)
    return _plain(everything)


def merged(plain: dict[str, Any], later: dict[str, Any]) -> dict[str, Any]:
    """`later` over `plain`, as a later file is merged."""
    everything = OmegaConf.create(plain)
    everything.merge_with(later)
    return _plain(everything)


def validate(kind: type[ConfigType], plain: Any, source: str) -> ConfigType:
    """Validate plain data as `kind`. JSON is the carrier so that lists become tuples under strict types.

    Raises:
        ConfigError: names `source` and has one line for each problem.
    """
    try:
        text = json.dumps(with_default_kinds(kind, plain))
    except TypeError as error:
        raise ConfigError(f"{source}: {error}; use strings, numbers, booleans, lists and mappings only") from None
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        problems = "\n  ".join(explain(kind, error))
        raise ConfigError(f"{source} is not a valid {kind.__name__}:\n  {problems}") from None


def to_yaml(config: Strict) -> str:
    """The resolved configuration as YAML, every default written out."""
    return dump_yaml(config.to_plain())


def _plain(everything: DictConfig) -> dict[str, Any]:
    container = OmegaConf.to_container(everything, resolve=False)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def _read_yaml(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise ConfigError(f"{file}: no such configuration file (looked in {Path.cwd()})")
    if file.stat().st_size > MAX_CONFIG_BYTES:
        raise ConfigError(f"{file}: {file.stat().st_size} bytes; a configuration has at most {MAX_CONFIG_BYTES}")
    try:
        content = parse_yaml(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not UTF-8 ({error.reason} at byte {error.start})") from None
    except YamlError as error:
        raise ConfigError(f"{file}: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: the top level must be a mapping of keys, not {content!r:.80}")
    return content


def _apply_override(config: DictConfig, override: str) -> None:
    key, separator, text = override.partition("=")
    key = key.strip()
    if not separator or not _KEY.fullmatch(key):
        raise ConfigError(f"--set {override!r}: expected key=value, as in --set training.epochs=20")
    if key.count(".") >= MAX_DEPTH:
        raise ConfigError(f"--set {key}: nested deeper than {MAX_DEPTH} levels")
    try:
        value = parse_yaml(text)
    except YamlError as error:
        raise ConfigError(f"--set {override!r}: the value at {error}") from None
    try:
        OmegaConf.update(config, key, value, merge=isinstance(value, dict), force_add=True)
    except (OmegaConfBaseException, IndexError, TypeError, ValueError):
        raise ConfigError(
            f"--set {override!r}: there is no such list element in what was read so far; "
            "an element is addressed by its number from 0, or give the whole list as key=[…]"
        ) from None
