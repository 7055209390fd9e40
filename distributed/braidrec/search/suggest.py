"""What to try next: a grid, independent draws, or Optuna's tree-structured Parzen estimator.

A suggestion is a function of the seed, the number of the trial, the trials that have ended, and those that are
running: no point is suggested twice, and TPE looks away from points whose result is still to come. No state of a
generator has to survive a driver that is killed: who tells the same history again, with nothing running, gets the same
suggestions.
"""

import json
import warnings
from functools import partial
from typing import Any, Literal

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from braidrec.config.sweep import DimensionConfig, GridConfig, RandomConfig, TPEConfig
from braidrec.search.records import TrialRecord
from braidrec.search.space import STEP_DECIMALS, Point, Space, extremes

TRIES_BY_MODEL = 10
TRIES = 400
"""How often a point that was tried already is drawn again: by the algorithm, then independently, then never."""

optuna.logging.set_verbosity(optuna.logging.WARNING)


class Suggester:
    """Points of a space, none of them twice.

    Args:
        space: where.
        algorithm: how.
        seed: decides what is drawn.
        direction: "max" or "min" of the score.
    """

    def __init__(
        self,
        space: Space,
        algorithm: GridConfig | RandomConfig | TPEConfig,
        seed: int,
        direction: Literal["max", "min"],
    ) -> None:
        self._space, self._algorithm, self._seed = space, algorithm, seed
        self._grid = list(space.grid()) if isinstance(algorithm, GridConfig) else None
        self._study = optuna.create_study(
            storage=optuna.storages.InMemoryStorage(),
            direction="maximize" if direction == "max" else "minimize",
            sampler=_sampler(RandomConfig(), seed, 0, 0),
        )
        self._asked: dict[int, optuna.Trial] = {}
        self._taken: set[str] = set()

    @property
    def total(self) -> int | None:
        """How many points there are; None where that has no end, or is not counted."""
        return len(self._grid) if self._grid is not None else None

    def suggest(self, number: int) -> Point | None:
        """The point of trial `number`, counted from 1; None when every point was taken."""
        if self._grid is not None:
            return dict(self._grid[number - 1]) if number <= len(self._grid) else None
        for attempt in range(TRIES):
            model = self._algorithm if attempt < TRIES_BY_MODEL else RandomConfig()
            self._study.sampler = _sampler(model, self._seed, number, attempt)
            trial = self._study.ask()
            point = self._space.walk(partial(_suggested, trial))
            if _identity(point) not in self._taken:
                self._asked[number] = trial
                self._taken.add(_identity(point))
                return point
            self._study.tell(trial, state=TrialState.FAIL)
        return None

    def tell(self, record: TrialRecord) -> None:
        """A trial has ended, in this session or in an earlier one.

        One that was stopped early counts by its score at the epoch at which it was stopped; one that failed not at all.
        """
        asked = self._asked.pop(record.number, None)
        if asked is None:
            self._taken.add(_identity(record.overrides))
            self._study.add_trial(self._frozen(record))
            return
        state, value, curve = _outcome(record)
        for epoch, score in curve.items():
            asked.report(score, epoch)
        self._study.tell(asked, value, state=state)

    def expect(self, record: TrialRecord) -> None:
        """A trial of an earlier session that goes on: its point is taken."""
        self._taken.add(_identity(record.overrides))

    def _frozen(self, record: TrialRecord) -> FrozenTrial:
        state, value, curve = _outcome(record)
        dimensions = {key: self._space.dimensions[key] for key in record.overrides}
        return create_trial(
            state=state,
            value=value,
            params={key: _stored(dimensions[key], value) for key, value in record.overrides.items()},
            distributions={key: distribution(dimension) for key, dimension in dimensions.items()},
            intermediate_values=curve,
        )


def distribution(dimension: DimensionConfig) -> BaseDistribution:
    """Optuna's distribution of a dimension; choices that are no scalars are known to it by their JSON."""
    step = dimension.step
    if dimension.choice is not None:
        return CategoricalDistribution([_stored(dimension, value) for value in dimension.choice])
    if dimension.integer is not None:
        low, high = extremes(dimension)  # Optuna warns of an end between two steps
        return IntDistribution(low, high, step=int(step or 1))
    if dimension.log_integer is not None:
        return IntDistribution(*dimension.log_integer, log=True)
    if dimension.log_uniform is not None:
        return FloatDistribution(*dimension.log_uniform, log=True)
    low, high = extremes(dimension)
    return FloatDistribution(low, high, step=step)


def _stored(dimension: DimensionConfig, value: Any) -> Any:
    """A value as Optuna keeps it."""
    if dimension.choice is not None and isinstance(value, dict | list | tuple):
        return json.dumps(value, sort_keys=True)
    return value


def _suggested(trial: optuna.Trial, key: str, dimension: DimensionConfig) -> Any:
    among = distribution(dimension)
    if isinstance(among, IntDistribution):
        return trial.suggest_int(key, among.low, among.high, step=among.step, log=among.log)
    if isinstance(among, FloatDistribution):
        value = trial.suggest_float(key, among.low, among.high, step=among.step, log=among.log)
        # The third step of 0.1 is 0.3, as conditions and grids write it, and not 0.30000000000000004.
        return value if among.step is None else round(value, STEP_DECIMALS)
    assert isinstance(among, CategoricalDistribution) and dimension.choice is not None
    return dimension.choice[among.choices.index(trial.suggest_categorical(key, among.choices))]


def _sampler(
    algorithm: GridConfig | RandomConfig | TPEConfig, seed: int, number: int, attempt: int
) -> optuna.samplers.BaseSampler:
    own_seed = int(np.random.SeedSequence([seed, number, attempt]).generate_state(1)[0])
    if not isinstance(algorithm, TPEConfig):
        return optuna.samplers.RandomSampler(seed=own_seed)
    with warnings.catch_warnings():
        # "multivariate", "group" and "constant_liar" are marked experimental; a conditional space, and trials side by
        # side, are what they are for.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(
            seed=own_seed,
            n_startup_trials=algorithm.startup,
            n_ei_candidates=algorithm.candidates,
            multivariate=True,
            group=True,
            constant_liar=True,
        )


def _outcome(record: TrialRecord) -> tuple[TrialState, float | None, dict[int, float]]:
    curve = dict(record.curve)
    if record.state == "finished" and record.score is not None:
        return TrialState.COMPLETE, record.score, curve
    if record.state == "stopped_early" and curve:
        return TrialState.PRUNED, None, curve
    return TrialState.FAIL, None, {}


def _identity(point: Point) -> str:
    return json.dumps(point, sort_keys=True)
