"""docs/configuration.md, generated from the configuration types: `python -m braidrec.config.reference`."""

import argparse
import inspect
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import annotated_types
from pydantic import BaseModel, JsonValue
from pydantic.fields import FieldInfo

from braidrec.config.compare import CompareConfig
from braidrec.config.extract import ExtractConfig
from braidrec.config.prepare import PrepareConfig
from braidrec.config.run import RunConfig
from braidrec.config.runs import AttackConfig, EvaluateConfig, PrototypesConfig, RecommendConfig
from braidrec.config.shape import alternatives, element_of, models_among, tags_of
from braidrec.config.sweep import SweepConfig

_HEADER = """\
# Configuration reference

Generated from the types in `distributed/braidrec/config/` by `make docs`; a test fails when it is out of date.

Every key is set in a YAML file or by `--set key=value`, the value being YAML: `--set training.epochs=20`,
`--set 'evaluation.at=[5, 10]'`, `--set 'tracking.tags={team: search}'`. Several `--config` files are merged from left
to right: mappings merge, lists and scalars are replaced. An element of a list that a file gives is addressed by its
number: `--set source.paths.0=other.csv`. Unknown keys, and values of another type ("3" for 3), are errors.

YAML here is the core schema of YAML 1.2 (`on` and `12:30` are strings, `1e-3` is a number). Aliases (`*name`), tags
(`!!name`) and interpolations (`${name}`) are refused.

Where a key has several kinds, `kind` selects one; left out, it is the default kind.
"""
_NAMES = {
    int: "integer",
    float: "number",
    str: "string",
    bool: "true or false",
    type(None): "null",
    JsonValue: "any value",
}
_BOUNDS = {
    annotated_types.Gt: ("> ", "gt"),
    annotated_types.Ge: ("≥ ", "ge"),
    annotated_types.Lt: ("< ", "lt"),
    annotated_types.Le: ("≤ ", "le"),
    annotated_types.MinLen: ("length ≥ ", "min_length"),
    annotated_types.MaxLen: ("length ≤ ", "max_length"),
}


@dataclass(frozen=True, kw_only=True)
class _Section:
    """One table: the keys of one configuration type at one place."""

    model: type[BaseModel]
    key: str
    """Dotted key of the place; empty at the top."""
    defaults: BaseModel | None
    """The default value of the place, whose fields are the defaults of its keys; None: the type's own."""
    tag: str | None = None
    """The kind that it describes, where the place is a tagged union."""
    condition: str = ""
    """What must be set for the place to exist, such as "source.kind = mmrec"; empty where it always does."""


def render() -> str:
    """The whole document."""
    lines = [_HEADER]
    for kind, job, title in (
        (RunConfig, "jobs/train.py", "A training run"),
        (SweepConfig, "jobs/sweep.py", "A sweep"),
        (PrepareConfig, "jobs/prepare.py", "A preparation"),
        (ExtractConfig, "jobs/extract.py", "An extraction of features from raw media"),
        (EvaluateConfig, "jobs/evaluate.py", "An evaluation of a finished run"),
        (AttackConfig, "jobs/attack.py", "An attack on a finished run"),
        (RecommendConfig, "jobs/recommend.py", "Recommendations of a finished run"),
        (PrototypesConfig, "jobs/prototypes.py", "The prototypes of a finished run"),
        (CompareConfig, "jobs/compare.py", "A comparison of tracked runs"),
    ):
        lines += [f"## {title} (`{job}`)", ""]
        for section in _sections(_Section(model=kind, key="", defaults=None)):
            lines += _render_section(section)
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    """Write the document to the file named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, default=Path("docs/configuration.md"))
    file = parser.parse_args().file
    file.write_text(render(), encoding="utf-8")
    print(f"wrote {file}")


def _sections(section: _Section) -> Iterator[_Section]:
    """The section, then those of the types inside it, in the order of their fields."""
    yield section
    for name, info in section.model.model_fields.items():
        place, inner = _inner_place(_join(section.key, name), info.annotation)
        default = _default_of(name, info, section.defaults)
        for each in inner:
            tag = str(tags_of(each)[0]) if len(inner) > 1 else None
            own = f"{section.key}.kind = {section.tag}" if section.tag else ""
            yield from _sections(
                _Section(
                    model=each,
                    key=place,
                    defaults=default if type(default) is each else None,
                    tag=tag,
                    condition=", ".join(filter(None, [section.condition, own])),
                )
            )


def _inner_place(key: str, annotation: Any) -> tuple[str, list[type[BaseModel]]]:
    """The types inside a field and the key of their place: `features.<name>` in a mapping, `paths.<n>` in a list."""
    places = alternatives(annotation)
    for place in places:
        if element_of(place) is not None:
            step = "<name>" if get_origin(place) is dict else "<number>"
            return _inner_place(f"{key}.{step}", element_of(place))
    return key, models_among(places)


def _default_of(name: str, info: FieldInfo, defaults: BaseModel | None) -> Any:
    return getattr(defaults, name) if defaults is not None else info.get_default(call_default_factory=True)


def _render_section(section: _Section) -> list[str]:
    lines = []
    if section.key:
        kind = f" — kind `{section.tag}`{'' if section.defaults is None else ' (default)'}" if section.tag else ""
        condition = f" — where `{section.condition}`" if section.condition else ""
        lines += [f"### `{section.key}`{kind}{condition}", ""]
    lines += [inspect.getdoc(section.model) or "", ""]
    rows = [
        _render_row(section, name, info)
        for name, info in section.model.model_fields.items()
        if not (section.tag and name == "kind")
    ]
    if rows:
        lines += ["| Key | Type | Default | Meaning |", "|---|---|---|---|", *rows, ""]
    return lines


def _render_row(section: _Section, name: str, info: FieldInfo) -> str:
    default = "*required*" if info.is_required() else _show_default(_default_of(name, info, section.defaults))
    cells = [f"`{_join(section.key, name)}`", _show_type(info.annotation, info.metadata), default, _meaning(info)]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _meaning(info: FieldInfo) -> str:
    """The field's description, else the first sentence about the type inside it."""
    _, inner = _inner_place("", info.annotation)
    if info.description or len(inner) != 1:
        return info.description or ""
    return (inspect.getdoc(inner[0]) or "").partition("\n")[0]


def _show_default(default: Any) -> str:
    if isinstance(default, BaseModel):
        kind = getattr(default, "kind", None)
        return f"kind `{kind}`" if kind is not None else "the defaults below"
    return f"`{json.dumps(default, ensure_ascii=False)}`"


def _show_type(annotation: Any, metadata: list[Any]) -> str:
    bounds = " and ".join(_show_bound(bound) for bound in _unpacked(metadata) if type(bound) in _BOUNDS)
    shown = " or ".join(dict.fromkeys(_show_alternative(each) for each in _members(annotation)))
    return f"{shown} {bounds}" if bounds else shown


def _show_bound(bound: Any) -> str:
    sign, attribute = _BOUNDS[type(bound)]
    number = getattr(bound, attribute)
    return f"{sign}2^63" if number == 2**63 else f"{sign}{number:g}"


def _unpacked(metadata: list[Any]) -> list[Any]:
    """A pydantic `Field(...)` inside `Annotated` carries its bounds in its own metadata."""
    return [bound for each in metadata for bound in (each.metadata if isinstance(each, FieldInfo) else [each])]


def _members(annotation: Any) -> list[Any]:
    """The members of a union, `Annotated` kept around them, since it holds their bounds."""
    origin = get_origin(annotation)
    if hasattr(annotation, "__metadata__") or origin in (Literal, dict, list, tuple) or origin is None:
        return [annotation]
    return [found for member in get_args(annotation) for found in _members(member)]


def _show_alternative(annotation: Any) -> str:
    if hasattr(annotation, "__metadata__"):
        return _show_type(get_args(annotation)[0], list(annotation.__metadata__))
    if get_origin(annotation) is Literal:
        return " · ".join(f"`{choice}`" for choice in get_args(annotation))
    if element_of(annotation) is not None:
        container = "mapping of names to" if get_origin(annotation) is dict else "list of"
        element = _show_type(element_of(annotation), [])
        return f"{container} {element if element.isalpha() else f'({element})'}"
    return "keys below" if models_among([annotation]) else _NAMES[annotation]


def _join(parent: str, name: str) -> str:
    return f"{parent}.{name}" if parent else name


if __name__ == "__main__":
    main()
