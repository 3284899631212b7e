"""What a run trains, how long each of its stages takes and how much disk it needs; while it goes on, the time left."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import product
from math import ceil

from bitsearch.core.manifest import Costs, Stage
from bitsearch.core.space import SearchSpace
from bitsearch.core.task import Recipe, Recipes
from bitsearch.run import finals

DATA, REFERENCES, SEARCH = "data", "float references", "baselines and search"
FINALS, EVALUATION, LATENCY, REPORT = "final training", "evaluation", "latency", "report"
PRIOR = 0.1
"""How much a prediction weighs against what is measured: as much as this share of it, gone as predicted."""
STATES = 3
"""Copies of its weights that the optimiser of a training under way keeps on disk, the network's own included."""


@dataclass(frozen=True)
class Work:
    """Trainings of one kind, at most; `steps` are the optimiser's and `events` those that all of them see together."""

    kind: str
    trainings: int
    steps: int
    events: int


@dataclass(frozen=True)
class Plan:
    """What a run does from nothing to its report, at most."""

    work: tuple[Work, ...]
    stages: tuple[Stage, ...]
    disk_bytes: int

    @property
    def seconds(self) -> float:
        """Time of the whole run."""
        return sum(stage.seconds for stage in self.stages)


def most_challengers(recipes: Recipes, trials: int) -> int:
    """Give how many configurations of a search may go into final training."""
    return max(recipes.finalists, trials // finals.TRIALS_A_FINALIST)


def plan(space: SearchSpace, recipes: Recipes, trials: int) -> tuple[Work, ...]:
    """List the trainings of a whole run from nothing; finals that a run chooses not to train are counted."""
    choices, repeated, finalists = _counts(space, recipes, trials)
    return (
        _work("float references", choices + repeated, recipes.reference),
        _work("candidates", trials, recipes.candidate),
        _work("finals", finalists * recipes.repetitions, recipes.final),
    )


def predict(
    space: SearchSpace,
    recipes: Recipes,
    trials: int,
    costs: Costs,
    workers: int,
    timeout: float | None = None,
) -> Plan:
    """Put together what a run does from what its pieces cost, `workers` of them side by side.

    The search proposes for `timeout` seconds at most.
    """
    choices, repeated, finalists = _counts(space, recipes, trials)

    def seconds(count: int, each: float) -> float:
        return ceil(count / workers) * each

    start = costs.data if workers > 1 else 0.0  # every process reads the data for itself
    search = seconds(trials, costs.candidate + costs.measure)
    stages = {
        DATA: costs.data,
        REFERENCES: start + seconds(choices, costs.reference + costs.trace),
        SEARCH: seconds(repeated, costs.reference)
        + costs.sensitivities
        + (search if timeout is None else min(search, timeout)),
        FINALS: seconds(finalists, recipes.repetitions * (costs.final + costs.measure)),
        EVALUATION: seconds(finalists, costs.evaluation),
        LATENCY: finalists * costs.latency,
        REPORT: costs.report / workers,
    }
    trainings = finalists * recipes.repetitions
    disk_bytes = (
        (choices + repeated + trainings + (STATES - 1) * workers) * costs.checkpoint_bytes
        + choices * costs.trace_bytes
        + trainings * costs.model_bytes
    )
    return Plan(plan(space, recipes, trials), tuple(Stage(*item) for item in stages.items()), disk_bytes)


class Forecast:
    """The time left of a whole run: predictions, put right by how long what has been done took."""

    def __init__(self, predicted: Iterable[Stage], now: Callable[[], float] = time.monotonic) -> None:
        self._predicted = {item.name: item.seconds for item in predicted}
        self._ahead = dict(self._predicted)
        self._prior = PRIOR * sum(self._predicted.values())
        self._now = now
        self._earned = self._spent = 0.0
        self._current = _Current("", 0.0, 0.0, 0.0, now(), now(), counts=False)

    def begin(self, stage: str, counts: bool = True) -> None:
        """Begin a stage, ending the one before; what is found on disk `counts` not, for it says nothing of the rest."""
        now, before = self._now(), self._current
        if before.counts:
            self._earned += (1 - before.first) * before.seconds
            self._spent += now - before.began
        self._current = _Current(stage, self._ahead.pop(stage, 0.0), 0.0, 0.0, now, now, counts)

    def resume(self, share: float, size: float = 1.0) -> None:
        """Say what share of the stage earlier sittings have done, and its `size` compared with what was predicted."""
        seconds = size * self._predicted.get(self.stage, 0.0)
        self._current = replace(self._current, seconds=seconds, first=share, share=share)

    def advance(self, share: float) -> None:
        """Note the share done of the stage."""
        if share > self._current.share:
            self._current = replace(self._current, share=min(share, 1.0), advanced=self._now())

    @property
    def stage(self) -> str:
        """What is under way."""
        return self._current.name

    @property
    def share(self) -> float:
        """The share done of the stage."""
        return self._current.share

    @property
    def seconds(self) -> float:
        """Time left until the report."""
        current, ahead = self._current, sum(self._ahead.values())
        prior = max(self._prior, 1e-9)
        pace = (self._spent + prior) / (self._earned + prior)
        own, weight = pace, PRIOR * current.seconds
        if current.counts and weight:
            done = (current.share - current.first) * current.seconds
            own = (current.advanced - current.began + weight * pace) / (done + weight)
            pace = (self._spent + current.advanced - current.began + prior) / (self._earned + done + prior)
        left = own * current.seconds * (1 - current.share) - (self._now() - current.advanced)
        return max(left, 0.0) + pace * ahead


@dataclass(frozen=True)
class _Current:
    """A stage under way: its predicted seconds, the shares done at its begin and now, and when either was so."""

    name: str
    seconds: float
    first: float
    share: float
    began: float
    advanced: float
    counts: bool


def _counts(space: SearchSpace, recipes: Recipes, trials: int) -> tuple[int, int, int]:
    """Count float references, those repeated from other initial weights, and finalists."""
    choices = len(list(product(*space.options.values())))
    again = 0 if recipes.final.scratch or not recipes.independent else recipes.repetitions - 1
    return choices, choices * again, len(space.strategies) + most_challengers(recipes, trials)


def _work(kind: str, trainings: int, recipe: Recipe) -> Work:
    steps = sum(stage.steps for stage in recipe.stages)
    events = sum(stage.steps * stage.batch_size * stage.accumulate for stage in recipe.stages)
    return Work(kind, trainings, trainings * steps, trainings * events)
