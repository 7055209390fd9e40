"""What a configuration type looks like: which types, lists and mappings can stand where."""

import types
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel


def alternatives(annotation: Any) -> list[Any]:
    """The members of a union, without `Annotated`: X for Annotated[X, …], X and None for X | None."""
    if get_origin(annotation) is Annotated:
        return alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [found for member in get_args(annotation) for found in alternatives(member)]
    return [annotation]


def models_among(places: list[Any]) -> list[type[BaseModel]]:
    """The configuration types among what `alternatives` gave."""
    return [place for place in places if isinstance(place, type) and issubclass(place, BaseModel)]


def element_of(place: Any) -> Any:
    """The annotation of the elements of a list or the values of a mapping; None for anything else."""
    if get_origin(place) is dict:
        return get_args(place)[1]
    return get_args(place)[0] if get_origin(place) in (list, tuple) else None


def tags_of(model: type[BaseModel]) -> tuple[Any, ...]:
    """The values of `kind` that select this type in a tagged union; empty where it has no `kind`."""
    field = model.model_fields.get("kind")
    return get_args(field.annotation) if field is not None else ()


def with_default_kinds(model: type[BaseModel], plain: Any) -> Any:
    """`plain` with `kind` written in where a tagged union was given without it and has a default of one kind.

    It is what makes `--set model.encoder.layers=2` mean two layers of the default encoder.
    """
    if not isinstance(plain, dict):
        return plain
    filled = {}
    for name, value in plain.items():
        field = model.model_fields.get(name)
        filled[name] = value if field is None else _filled(field.annotation, field.default, value)
    return filled


def _filled(annotation: Any, default: Any, value: Any) -> Any:
    places = alternatives(annotation)
    models = models_among(places)
    if models and isinstance(value, dict):
        if len(models) > 1 and "kind" not in value and isinstance(default, BaseModel):
            value = {"kind": getattr(default, "kind", None), **value}
        chosen = [model for model in models if len(models) == 1 or value.get("kind") in tags_of(model)]
        return with_default_kinds(chosen[0], value) if chosen else value
    element = next((found for place in places if (found := element_of(place)) is not None), None)
    if element is not None and isinstance(value, dict):
        return {key: _filled(element, None, each) for key, each in value.items()}
    if element is not None and isinstance(value, list):
        return [_filled(element, None, each) for each in value]
    return value
