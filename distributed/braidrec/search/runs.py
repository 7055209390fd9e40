"""From a sweep and a point of its space to the configuration of a training run, and what is wrong with it before any
starts."""

import difflib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

from braidrec.config.dotted import is_among, lies_below
from braidrec.config.load import ConfigError, validate
from braidrec.config.model import ModalitiesConfig, UserModalitiesConfig
from braidrec.config.run import RunConfig
from braidrec.config.sweep import GridConfig, RandomConfig, SweepConfig
from braidrec.data.description import Side
from braidrec.data.folder import DatasetFolder
from braidrec.evaluation.metrics import higher_is_better, metric_names
from braidrec.search.folder import base_of
from braidrec.search.space import Point, Space, with_point
from braidrec.search.suggest import Suggester
from braidrec.training.check import check_run
from braidrec.training.driver import open_dataset, with_absolute_places
from braidrec.training.features import modalities_of
from braidrec.training.model_factory import build_model
from braidrec.training.surrounding import Surrounding

NOT_SEARCHED = ("name", "seed", "storage", "cache", "data.path", "data.planted", "evaluation", "tracking", "workers")
"""Keys that belong to the sweep, or without which trials could not be compared."""
POINTS_CHECKED = 300
GRID_POINTS_CHECKED = 5000


@dataclass(frozen=True, kw_only=True)
class Runs:
    """Makes the configurations of a sweep's runs.

    Attributes:
        plain: the base, as far as it was written down: what is left out has the defaults of what a point selects.
        space: what is varied.
        metric: name of the objective.
        sign: 1 where a high objective is good, −1 otherwise.
    """

    plain: Mapping[str, Any]
    space: Space
    metric: str
    sign: int

    @cached_property
    def base(self) -> RunConfig:
        """The run at the space's first corner: for what no point changes."""
        return self.config(next(point for _, point in self.space.corners()))

    @classmethod
    def of(cls, sweep: SweepConfig) -> "Runs":
        """Read the base and decide on the objective.

        Raises:
            ConfigError: files, keys or the objective; the message names them.
        """
        plain = base_of(sweep)
        workers = plain.setdefault("workers", {})
        if isinstance(workers, dict):
            workers.setdefault("num", 0)
        for key in sweep.space:
            if is_among(key, NOT_SEARCHED) or any(lies_below(kept, key) for kept in NOT_SEARCHED):
                raise ConfigError(f"space.{key}: is no key to search over, for trials have to be comparable")
        space = Space(sweep.space)
        first = next(point for _, point in space.corners())
        base = validate(RunConfig, with_point(plain, first), f"the base with {shown(first)}")
        metric = sweep.objective.metric or base.evaluation.monitor
        if metric is None:
            raise ConfigError("objective.metric: evaluation.monitor of the base is null: name the validation metric")
        sign = _sign_of(metric, base)
        natural = "max" if sign == 1 else "min"
        if sweep.objective.direction not in (None, natural):
            raise ConfigError(
                f"objective.direction={sweep.objective.direction}: {metric} is better the "
                f"{'higher' if sign == 1 else 'lower'} it is; write {natural}, or leave it out"
            )
        return cls(plain=plain, space=space, metric=metric, sign=sign)

    def config(self, point: Point, source: str = "") -> RunConfig:
        """The run that a user would start with these values, tested at its end.

        Raises:
            ConfigError: an unknown key, or a value that its type refuses.
        """
        plain = with_point(self.plain, {**point, "evaluation.monitor": self.metric})
        return with_absolute_places(validate(RunConfig, plain, source or f"the base with {shown(point)}"))

    def check(self, sweep: SweepConfig) -> DatasetFolder:
        """Refuse what could not end well, before anything starts: every choice, both ends of every range, and many
        points between.

        Returns:
            The data set of all runs.
        Raises:
            ConfigError, DatasetError: naming key or point, and the mend.
        """
        # All keys first, whose errors name the key.
        corners = [(point, self.config(point, f"space.{key}={point[key]!r}")) for key, point in self.space.corners()]
        folder = open_dataset(self.base)
        for point, known in chain(corners, ((point, None) for point in self._more_points(sweep))):
            try:
                config = known or self.config(point)
                check_run(config, folder)
                build_model(config.model, _surrounding(config, folder))
            except ConfigError as error:
                raise ConfigError(
                    f"the space has a point that cannot be trained, {shown(point)}: {error}\n"
                    "  a condition (when: {other.key: value}) leaves such points out"
                ) from None
        return folder

    def _more_points(self, sweep: SweepConfig) -> Iterator[Point]:
        if isinstance(sweep.algorithm, GridConfig):
            for number, point in enumerate(self.space.grid()):
                if number < GRID_POINTS_CHECKED:
                    yield point
            return
        # Not those of the sweep, which depend on results: only a sample of what they may be.
        sample = Suggester(self.space, RandomConfig(), 0, "max")
        for number in range(1, POINTS_CHECKED + 1):
            suggested = sample.suggest(number)
            if suggested is None:
                return
            yield suggested


def _sign_of(metric: str, base: RunConfig) -> int:
    try:
        return 1 if higher_is_better(metric) else -1
    except ValueError:
        names = metric_names(base.evaluation.at, base.evaluation.auc)
        near = difflib.get_close_matches(metric, names, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"objective.metric={metric!r}: is no metric.{hint} There are: {names}") from None


def _surrounding(config: RunConfig, folder: DatasetFolder) -> Surrounding:
    """What the model would be built for, as far as the data set's description tells: nothing is read."""
    looked_at: tuple[tuple[Side, ModalitiesConfig | UserModalitiesConfig], ...] = (
        ("item", config.model.modalities),
        ("user", config.model.user_modalities),
    )
    shapes: dict[Side, dict[str, tuple[int, ...]]] = {"item": {}, "user": {}}
    for side, wanted in looked_at:
        for name in modalities_of(wanted, folder):
            *components, numbers = folder.description.modalities_of(side)[name].shape
            shapes[side][name] = (*components, wanted.transform.pca or numbers)
    dims = {side: {name: math.prod(shape) for name, shape in of_side.items()} for side, of_side in shapes.items()}
    precision = config.training.propagation.precision
    return Surrounding(dims=dims["item"], user_dims=dims["user"], precision=precision, shapes=shapes["item"])


def shown(point: Mapping[str, Any]) -> str:
    """A point as a person writes it."""
    return ", ".join(f"{key}={_value(value)}" for key, value in point.items()) or "nothing changed"


def _value(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)
