"""What is wrong with a configuration, one readable line a problem: key, value seen, value wanted, mend."""

import difflib
import re
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from braidrec.config.scalars import FOLDER_NAME
from braidrec.config.shape import alternatives, element_of, models_among, tags_of

_WANTED = {
    "model_type": "a mapping of keys",
    "model_attributes_type": "a mapping of keys",
    "dict_type": "a mapping of keys",
    "int_type": "an integer",
    "int_parsing_size": "a smaller integer",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "a string",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
}
_NUMBER = re.compile(r"[-+]?\d+(\.\d*)?([eE][-+]?\d+)?")
_LONGEST_VALUE = 80


def explain(kind: type[BaseModel], error: ValidationError) -> list[str]:
    """One line for each problem that pydantic found in what should have been a `kind`."""
    return [_explain_one(kind, detail) for detail in error.errors(include_url=False, include_context=True)]


def _explain_one(kind: type[BaseModel], detail: Any) -> str:
    key, models = _locate(kind, detail["loc"])
    problem, seen = detail["type"], detail.get("input")
    if problem == "extra_forbidden":
        parent, models = _locate(kind, detail["loc"][:-1])
        name = str(detail["loc"][-1])
        valid = sorted({field for model in models for field in model.model_fields})
        return f"{_join(parent, name)}: unknown key.{_nearest(name, valid)} Valid keys here: {', '.join(valid)}"
    if problem == "missing":
        return f"{key}: is required and was not given; add it to the file or pass {_example(key, models)}"
    if problem.startswith("union_tag"):
        return _explain_tag(key, models, detail)
    if problem == "value_error":
        return f"{key or '(top level)'}: {detail['ctx']['error']}"
    if problem == "literal_error":
        choices = _choices_in(detail["ctx"]["expected"])
        return f"{key}: must be one of {', '.join(choices)}, not {_show(seen)}.{_nearest(str(seen), choices)}"
    if problem == "string_pattern_mismatch" and detail["ctx"]["pattern"] == FOLDER_NAME:
        return (
            f"{key.removesuffix('.[key]')}: {_show(seen)} becomes a folder: letters, digits, '_', '-' and '.' only, "
            "neither of the last two at the beginning"
        )
    wanted = _WANTED.get(problem)
    if wanted is None:
        return f"{key or '(top level)'}: {detail['msg'].replace('Input should be', 'must be')}, not {_show(seen)}"
    return f"{key or '(top level)'}: must be {wanted}, not {_show(seen)}{_quotes_hint(problem, seen)}"


def _locate(kind: type[BaseModel], location: Sequence[Any]) -> tuple[str, list[type[BaseModel]]]:
    """The dotted key as a user writes it, and the configuration types that can stand there.

    pydantic puts the tag of a tagged union into its location; it is not a key, so it only narrows the types.
    """
    key = ""
    places: list[Any] = [kind]
    for part in location:
        models = models_among(places)
        tagged = [model for model in models if len(models) > 1 and part in tags_of(model)]
        if tagged:
            places = tagged
        else:
            key = _join(key, str(part))
            places = [found for place in places for found in _below(place, part)]
    return key, models_among(places)


def _below(place: Any, part: Any) -> list[Any]:
    """What can stand at the field, index or key `part` of a configuration type, a list or a mapping."""
    element = element_of(place)
    if element is not None:
        return alternatives(element)
    field = place.model_fields.get(part) if models_among([place]) else None
    return alternatives(field.annotation) if field is not None else []


def _explain_tag(key: str, models: list[type[BaseModel]], detail: Any) -> str:
    choices = [str(tag) for model in models for tag in tags_of(model)]
    if detail["type"] == "union_tag_not_found":
        return f"{key}: says no kind; add kind: one of {', '.join(choices)}"
    tag = detail["ctx"]["tag"]
    return f"{key}.kind: must be one of {', '.join(choices)}, not {_show(tag)}.{_nearest(str(tag), choices)}"


def _example(key: str, models: list[type[BaseModel]]) -> str:
    tags = [str(tag) for model in models for tag in tags_of(model)]
    if tags:
        return f"--set {key}.kind=… (one of {', '.join(tags)})"
    required = [name for model in models for name, field in model.model_fields.items() if field.is_required()]
    return " ".join(f"--set {_join(key, name)}=…" for name in required) or f"--set {key}=…"


def _nearest(name: str, valid: list[str]) -> str:
    nearest = difflib.get_close_matches(name, valid, n=1)
    return f" Did you mean {nearest[0]}?" if nearest else ""


def _choices_in(expected: str) -> list[str]:
    """pydantic's "'a', 'b' or 'c'" as a list."""
    return re.findall(r"'([^']*)'", expected) or [expected]


def _quotes_hint(problem: str, seen: Any) -> str:
    if problem in ("int_type", "float_type") and isinstance(seen, str) and _NUMBER.fullmatch(seen):
        return "; write it without quotes"
    if problem == "string_type" and isinstance(seen, int | float):
        return "; put it in quotes"
    return ""


def _show(value: Any) -> str:
    """The value as in YAML or nearly so, cut to a length that fits on a line."""
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}… ({len(text)} characters)"


def _join(parent: str, name: str) -> str:
    return f"{parent}.{name}" if parent else name
