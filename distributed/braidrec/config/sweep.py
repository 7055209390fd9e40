"""What a sweep is: a base run, a space over its keys, what is best, how to look for it, and what it may cost."""

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, JsonValue, model_validator

from braidrec.config.base import Strict
from braidrec.config.scalars import Positive, PositiveFloat, Seed

Form = Literal["choice", "uniform", "log_uniform", "integer", "log_integer"]
FORMS: tuple[Form, ...] = get_args(Form)


class DimensionConfig(Strict):
    """What values a key may have: exactly one of `choice`, `uniform`, `log_uniform`, `integer`, `log_integer`."""

    choice: tuple[JsonValue, ...] | None = Field(
        default=None, description="One of these values; a mapping replaces what the base says at the key."
    )
    uniform: tuple[float, float] | None = Field(default=None, description="A number from the lowest to the highest.")
    log_uniform: tuple[float, float] | None = Field(default=None, description="The same, its logarithm being uniform.")
    integer: tuple[int, int] | None = Field(default=None, description="An integer, both ends included.")
    log_integer: tuple[int, int] | None = Field(default=None, description="The same, its logarithm being uniform.")
    step: PositiveFloat | None = Field(default=None, description="uniform, integer: only every such value from below.")
    when: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="The key is set only where these other keys of the space have this value, or one of this list.",
    )

    @model_validator(mode="after")
    def _one_form(self) -> "DimensionConfig":
        given = [form for form in FORMS if getattr(self, form) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(FORMS)}, not {' and '.join(given) or 'none'}")
        if self.choice is not None:
            self._check_choice(self.choice)
        else:
            self._check_range(*getattr(self, given[0]))
        return self

    def _check_choice(self, values: tuple[Any, ...]) -> None:
        if not values:
            raise ValueError("choice=[]: give at least one value")
        if len({repr(value) for value in values}) < len(values):
            raise ValueError(f"choice={list(values)}: give each value once")
        if self.step is not None:
            raise ValueError("step is for uniform and integer: a choice has its own values")

    def _check_range(self, low: float, high: float) -> None:
        if low >= high:
            raise ValueError(f"{self.form}=[{low:g}, {high:g}]: the first number must be smaller than the second")
        if self.form.startswith("log") and low <= 0:
            raise ValueError(f"{self.form}=[{low:g}, {high:g}]: a logarithm needs numbers above 0")
        if self.step is not None and self.form.startswith("log"):
            raise ValueError(f"step has no effect on {self.form}: remove it, or use a choice")
        if self.step is not None and self.form == "integer" and self.step != int(self.step):
            raise ValueError(f"step={self.step:g}: the step of integers is an integer")
        if self.step is not None and self.step > high - low:
            raise ValueError(f"step={self.step:g} is longer than the way from {low:g} to {high:g}")

    @property
    def form(self) -> Form:
        """Which of the five was given."""
        return next(form for form in FORMS if getattr(self, form) is not None)


class SearchObjectiveConfig(Strict):
    """What makes one candidate better than another: a validation metric. The test split is never looked at."""

    metric: str | None = Field(
        default=None,
        description="Validation metric; it also selects the best epoch. Null: the run's evaluation.monitor.",
    )
    direction: Literal["max", "min"] | None = Field(default=None, description="Null: as the metric has it.")


class GridConfig(Strict):
    """Every point of a finite space, in order."""

    kind: Literal["grid"] = "grid"


class RandomConfig(Strict):
    """Points drawn independently."""

    kind: Literal["random"] = "random"


class TPEConfig(Strict):
    """Tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011), by Optuna."""

    kind: Literal["tpe"] = "tpe"
    startup: Positive = Field(default=10, description="Trials drawn independently before it learns from them.")
    candidates: Positive = Field(default=24, description="Points among which it chooses the most promising one.")


class NoSchedulerConfig(Strict):
    """Every trial is trained to its own end."""

    kind: Literal["none"] = "none"


class ASHAConfig(Strict):
    """Asynchronous successive halving (Li et al., MLSys 2020): rungs at grace · reduction^k epochs."""

    kind: Literal["asha"] = "asha"
    grace: Positive = Field(default=5, description="Epochs that every trial gets.")
    reduction: Annotated[int, Field(ge=2)] = Field(
        default=3, description="Of the trials that reach a rung, the best one in this many go on."
    )


class MedianConfig(Strict):
    """A trial whose best is worse than the median of the others' means so far is stopped (Golovin et al., KDD 2017)."""

    kind: Literal["median"] = "median"
    grace: Positive = Field(default=5, description="Epochs that every trial gets.")
    trials: Positive = Field(default=3, description="Trials that must have come as far before anything is stopped.")


class BudgetConfig(Strict):
    """What the search may cost, finalists not counted. When any is used up no trial begins, and running ones end."""

    trials: Positive | None = Field(default=None, description="Trials; null: no limit.")
    seconds: PositiveFloat | None = Field(default=None, description="Wall time, seconds, over all sessions of a sweep.")
    epochs: Positive | None = Field(default=None, description="Epochs trained, over all trials together.")


class FinalistsConfig(Strict):
    """The best trials are trained again, with other seeds; only these runs are tested."""

    candidates: Annotated[int, Field(ge=0)] = Field(default=3, description="How many; 0: the search is all.")
    seeds: Positive = Field(default=3, description="Runs of each, with the seeds that follow the base run's.")
    missing: tuple[Annotated[float, Field(gt=0.0, le=1.0)], ...] = Field(
        default=(0.5, 1.0),
        description="Shares of a modality's items that lose it when these runs are tested once more, for the report's "
        "section on missing modalities; []: not. Runs without modalities are not.",
    )


class SweepConfig(Strict):
    """One sweep."""

    name: str | None = Field(default=None, description="Name of the sweep; null: made up and unique.")
    base: tuple[str, ...] = Field(default=(), description="Files of the run that is varied; later ones win.")
    run: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="Keys of the run, over those of `base`. workers.num is 0 if neither says anything.",
    )
    space: dict[str, DimensionConfig] = Field(description="What is varied: the run's dotted keys.")
    objective: SearchObjectiveConfig = SearchObjectiveConfig()
    algorithm: Annotated[GridConfig | RandomConfig | TPEConfig, Field(discriminator="kind")] = TPEConfig()
    scheduler: Annotated[NoSchedulerConfig | ASHAConfig | MedianConfig, Field(discriminator="kind")] = ASHAConfig()
    budget: BudgetConfig = BudgetConfig()
    finalists: FinalistsConfig = FinalistsConfig()
    seed: Seed = Field(default=0, description="Decides what is suggested; the trainings' own seed is run.seed.")
    concurrency: Positive | None = Field(
        default=None, description="Trials at a time; null: as many as the cluster's CPUs, or GPUs, allow."
    )
    worker_failures: Annotated[int, Field(ge=0)] = Field(
        default=2, description="How often a trial whose process died is continued from its checkpoint."
    )
    best_on_test: bool = Field(
        default=False,
        description="At the very end also test every finished trial, and report the highest figure, labelled as chosen "
        "on test: for comparison with published tables that were made so.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "SweepConfig":
        if not self.space:
            raise ValueError("space={}: name at least one key to vary")
        limits = (self.budget.trials, self.budget.seconds, self.budget.epochs)
        if self.algorithm.kind != "grid" and not any(limits):
            raise ValueError(
                f"algorithm.kind={self.algorithm.kind} never ends by itself: set budget.trials, budget.seconds or "
                "budget.epochs"
            )
        return self
