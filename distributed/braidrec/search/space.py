"""A search space: dotted keys of the run's configuration, what values they may have, and which exist only under others.

A *point* is a mapping of the keys that are active to their values: what `--set` would be given.
"""

import copy
import difflib
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from braidrec.config.dotted import lies_below
from braidrec.config.load import ConfigError
from braidrec.config.sweep import DimensionConfig

Point = dict[str, Any]
STEP_DECIMALS = 12
"""To which values of stepped ranges are rounded, so that a condition can name them."""
Choose = Callable[[str, DimensionConfig], Any]


class Space:
    """The dimensions in an order in which every key comes after those that it depends on.

    Args:
        dimensions: by dotted key.
    Raises:
        ConfigError: a condition on a key that is not in the space, on a value that its key never has, or a circle; a
            key within another one, whose value would replace it.
    """

    def __init__(self, dimensions: Mapping[str, DimensionConfig]) -> None:
        _check_conditions(dimensions)
        self.dimensions = {key: dimensions[key] for key in _sorted(dimensions)}
        self._check_nested()

    def _check_nested(self) -> None:
        for key in self.dimensions:
            above = self._above(key)
            for outer in self.dimensions:
                if lies_below(key, outer) and outer not in above:
                    raise ConfigError(
                        f"space.{key}: lies within {outer}, which is in the space too and whose values replace it: say "
                        f"under which of them it is set (when: {{{outer}: …}}), or search over single keys only"
                    )

    def _above(self, key: str) -> set[str]:
        """All keys that this one depends on, which a point sets before it."""
        parents = set(self.dimensions[key].when)
        return parents.union(*(self._above(parent) for parent in parents))

    def walk(self, choose: Choose) -> Point:
        """The point for which `choose(key, dimension)` names the value of every key that turns out to be active."""
        point: Point = {}
        for key, dimension in self.dimensions.items():
            if is_active(dimension, point):
                point[key] = choose(key, dimension)
        return point

    def active_with(self, key: str) -> Callable[[str], list[Any]]:
        """For each key its values that let `key` be active, all of them where that does not matter to `key`."""
        wanted: dict[str, list[Any]] = {}

        def collect(child: str) -> None:
            for parent, condition in self.dimensions[child].when.items():
                allowed = allowed_values(condition)
                wanted[parent] = [value for value in wanted.get(parent, allowed) if value in allowed]
                collect(parent)

        collect(key)
        return lambda each: wanted.get(each, extremes(self.dimensions[each]))

    def grid(self) -> Iterator[Point]:
        """All points of a finite space, the last key running fastest.

        Raises:
            ConfigError: a range without steps.
        """
        for key, dimension in self.dimensions.items():
            if values_of(dimension) is None:
                raise ConfigError(
                    f"space.{key}: {dimension.form} has no end of values, and algorithm.kind=grid takes all: give a "
                    "choice, a step, or another algorithm"
                )
        yield from self._grid(list(self.dimensions), {})

    def _grid(self, keys: list[str], point: Point) -> Iterator[Point]:
        if not keys:
            yield dict(point)
            return
        key, *others = keys
        dimension = self.dimensions[key]
        if not is_active(dimension, point):
            yield from self._grid(others, point)
            return
        for value in values_of(dimension) or ():
            yield from self._grid(others, {**point, key: value})

    def corners(self) -> Iterator[tuple[str, Point]]:
        """(key, point) so that every choice and both ends of every range stand in at least one point."""
        for key, dimension in self.dimensions.items():
            for value in extremes(dimension):
                yield key, self._corner(key, value)

    def _corner(self, key: str, value: Any) -> Point:
        """A point in which `key` is active with this value.

        Raises:
            ConfigError: there is none, for the conditions that lead to it contradict each other.
        """
        allowed = self.active_with(key)
        point = self.walk(lambda each, _: value if each == key else next(iter(allowed(each)), None))
        if key not in point:
            raise ConfigError(f"space.{key}.when: its conditions and those of its parents are never met together")
        return point

    def to_plain(self) -> dict[str, Any]:
        """Dotted key → {"kind", "values" or "low", "high", "log" and "step", "when"}, as it is stored with a sweep."""
        return {key: _plain(dimension) for key, dimension in self.dimensions.items()}


def is_active(dimension: DimensionConfig, point: Mapping[str, Any]) -> bool:
    """Whether a key with this dimension exists where the keys before it have the values in `point`."""
    return all(
        parent in point and point[parent] in allowed_values(condition) for parent, condition in dimension.when.items()
    )


def allowed_values(condition: Any) -> list[Any]:
    """`when: {parent: value}` or `{parent: [value, …]}` as a list."""
    return list(condition) if isinstance(condition, list | tuple) else [condition]


def values_of(dimension: DimensionConfig) -> list[Any] | None:
    """All values in order; None where there is no end of them."""
    if dimension.choice is not None:
        return list(dimension.choice)
    if dimension.integer is not None:
        low, high = dimension.integer
        return list(range(low, high + 1, int(dimension.step or 1)))
    if dimension.log_integer is not None:
        low, high = dimension.log_integer
        return list(range(low, high + 1))
    if dimension.uniform is not None and dimension.step is not None:
        start, end = dimension.uniform
        count = math.floor((end - start) / dimension.step + 1e-9) + 1
        return [round(start + dimension.step * number, STEP_DECIMALS) for number in range(count)]
    return None


def extremes(dimension: DimensionConfig) -> list[Any]:
    """All choices, or the lowest and the highest value of a range."""
    if dimension.choice is not None:
        return list(dimension.choice)
    low, high = getattr(dimension, dimension.form)
    steps = values_of(dimension) if dimension.step is not None else None
    return [low, high] if steps is None else [steps[0], steps[-1]]


def with_point(plain: Mapping[str, Any], point: Mapping[str, Any]) -> dict[str, Any]:
    """A plain configuration with the point's values set, each replacing what was at its key.

    Raises:
        ConfigError: a key leads through something that has no keys, or to a list element that is not there.
    """
    changed = copy.deepcopy(dict(plain))
    for key, value in point.items():
        _set(changed, key, copy.deepcopy(value))
    return changed


def _set(plain: dict[str, Any], key: str, value: Any) -> None:
    *way, last = key.split(".")
    place: Any = plain
    for step in way:
        if isinstance(place, dict):
            if place.get(step) is None:
                place[step] = {}
            place = place[step]
        else:
            place = _element(place, step, key)
    if isinstance(place, dict):
        place[last] = value
    else:
        _element(place, last, key)
        place[int(last)] = value


def _element(place: Any, step: str, key: str) -> Any:
    if not isinstance(place, list):
        raise ConfigError(f"space.{key}: there is no key {step!r} in {place!r:.60}, which the base has there")
    if not step.isdecimal() or int(step) >= len(place):
        raise ConfigError(f"space.{key}: the base has a list of {len(place)} there, whose elements count from 0")
    return place[int(step)]


def _check_conditions(dimensions: Mapping[str, DimensionConfig]) -> None:
    for key, dimension in dimensions.items():
        for parent, condition in dimension.when.items():
            if parent not in dimensions:
                near = difflib.get_close_matches(parent, list(dimensions), n=1)
                hint = f" Did you mean {near[0]}?" if near else ""
                raise ConfigError(f"space.{key}.when: {parent} is not a key of this space.{hint}")
            _check_values(key, parent, dimensions[parent], allowed_values(condition))


def _check_values(key: str, parent: str, dimension: DimensionConfig, wanted: list[Any]) -> None:
    possible = values_of(dimension)
    if possible is None:
        raise ConfigError(
            f"space.{key}.when: {parent} is a {dimension.form} range, which has no value to wait for; "
            "a condition needs a choice, integers or a step"
        )
    if not wanted:
        raise ConfigError(f"space.{key}.when: {parent}=[] is never so; name at least one of {_shown(possible)}")
    for value in wanted:
        if value not in possible:
            raise ConfigError(f"space.{key}.when: {parent} is never {value!r}; it is one of {_shown(possible)}")


def _shown(values: list[Any]) -> str:
    return ", ".join(map(str, itertools.islice(values, 12))) + (", …" if len(values) > 12 else "")


def _sorted(dimensions: Mapping[str, DimensionConfig]) -> list[str]:
    """Parents before children, else in the order given."""
    done: dict[str, None] = {}

    def visit(key: str, way: tuple[str, ...]) -> None:
        if key in way:
            raise ConfigError(f"space: conditions go in a circle: {' → '.join([*way[way.index(key) :], key])}")
        for parent in dimensions[key].when:
            visit(parent, (*way, key))
        done.setdefault(key)

    for key in dimensions:
        visit(key, ())
    return list(done)


def _plain(dimension: DimensionConfig) -> dict[str, Any]:
    when = {parent: allowed_values(condition) for parent, condition in dimension.when.items()}
    if dimension.choice is not None:
        return {"kind": "choice", "values": list(dimension.choice), "when": when}
    low, high = getattr(dimension, dimension.form)
    return {
        "kind": dimension.form.removeprefix("log_"),
        "low": low,
        "high": high,
        "log": dimension.form.startswith("log_"),
        "step": dimension.step,
        "when": when,
    }
