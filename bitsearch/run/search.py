"""Search with Optuna over quantise-or-keep for every group of layers, for performance and quantised fraction.

The search knows records and spaces only: `measure` is a function, and a study resumes without torch.
"""

import json
import random
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from bitsearch.core.errors import ConfigurationError, one_of
from bitsearch.core.measurement import Measurement, Metric
from bitsearch.core.space import SearchSpace
from bitsearch.core.strategy import Configuration
from bitsearch.run.samplers import (
    GOLDEN,
    LadderSampler,
    MaskSampler,
    Problem,
    ProposingSampler,
    StratifiedSampler,
)

FRACTION = "executed_fraction"
BITS = "mean_bits"
"""What a study optimises beside its metric; bits a weight where there are more than two precisions."""
MOST_RUNGS = 20
STEPS = 20_000
"""Changes that are tried until a configuration is new; then the search is at its end."""

SAMPLERS: Mapping[str, Any] = {
    "mask": MaskSampler,
    "tpe": optuna.samplers.TPESampler,
    "gp": optuna.samplers.GPSampler,
    "nsga2": optuna.samplers.NSGAIISampler,
    "random": optuna.samplers.RandomSampler,
    "stratified": StratifiedSampler,
    "ladder": LadderSampler,
}
"""By name; `mask` is meant for use, the others are what it has to beat."""

# Optuna's own names, of those that search several objectives and need nothing but a seed.
CLASSES: Mapping[str, Any] = {
    name: getattr(optuna.samplers, name)
    for name in (
        "TPESampler",
        "NSGAIISampler",
        "NSGAIIISampler",
        "GPSampler",
        "RandomSampler",
        "QMCSampler",
        "BruteForceSampler",
    )
}

Measure = Callable[[Configuration, str], Measurement]


@dataclass
class Study:
    """An Optuna study of one search space; parameters are the precision of every group and every option's choice."""

    space: SearchSpace
    objective: Metric
    optuna: optuna.Study
    problem: Problem
    seed: int
    interrupted: list[int] = field(default_factory=list)

    @classmethod
    def open(
        cls,
        space: SearchSpace,
        objective: Metric,
        storage: str,
        name: str,
        seed: int,
        sampler: str = "mask",
        gains: Mapping[str, float] | None = None,
        least: float = 0.0,
        keep: Sequence[str] = (),
    ) -> "Study":
        """Create the study or take it up again; `sampler` is one of SAMPLERS or CLASSES.

        `gains`, `least` and `keep` are those of `describe`.

        Raises:
            ConfigurationError: the study in the storage searched another space or objective, there is no such
                storage or sampler, or the limits cannot be kept.
        """
        problem = describe(space, gains, least, keep)
        check_sampler(sampler, problem.limited)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            study = optuna.create_study(
                storage=storage,
                study_name=name,
                directions=[objective.direction, "minimize" if space.others else "maximize"],
                load_if_exists=True,
            )
        except (SQLAlchemyError, ImportError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise ConfigurationError(
                f"the storage {storage} cannot be opened ({reason}); expected a URL such as sqlite:///study.db"
            ) from error
        signature = {
            "groups": [group.name for group in space.groups],
            "precisions": [str(value) for value in space.precisions],
            "options": {name: list(choices) for name, choices in space.options.items()},
            "objective": objective.name,
        }
        known = study.user_attrs.get("signature", signature)
        if known != signature:
            raise ConfigurationError(
                f"study {name} in {storage} searched {known}, expected {signature}; choose another --out or --storage"
            )
        study.set_user_attr("signature", signature)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names([objective.name, BITS if space.others else FRACTION])
        study.sampler = _sampler(sampler, problem, seed + len(study.trials))
        return cls(space, objective, study, problem, seed)

    def learn(self, scores: Mapping[str, float]) -> None:
        """Take note how much each group is expected to suffer, also in the sampler."""
        self.problem = replace(self.problem, scores=dict(scores))
        if isinstance(self.optuna.sampler, ProposingSampler):
            self.optuna.sampler.problem = self.problem

    def recover(self, results: Mapping[str, Measurement]) -> None:
        """Close what a killed process left open: tell what was measured, try again what was not."""
        for trial in self.optuna.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            # A queued trial knows its parameters before it has been asked for all of them.
            parameters = trial.system_attrs.get("fixed_params", trial.params)
            configuration = self.configuration(parameters) if self._is_complete(parameters) else None
            if configuration and configuration.digest in results and self._is_complete(trial.params):
                self._tell(trial.number, results[configuration.digest])
            elif configuration:
                # The same trial again: a new one would stand behind all that is queued.
                self.interrupted.append(trial._trial_id)
            else:
                self.optuna.tell(trial.number, state=TrialState.FAIL)

    def enqueue(self, configurations: Iterable[Configuration]) -> None:
        """Put configurations at the head of the search, once."""
        for configuration in configurations:
            self.optuna.enqueue_trial(self.parameters(configuration), skip_if_exists=True)

    def ladder(self, trials: int) -> list[Configuration]:
        """Give the seeds that gradients propose: up to a third of the trials, for the search proposes the rest."""
        return [self.configuration(item) for item in ladder(self.problem, min(MOST_RUNGS, trials // 3))]

    def allows(self, configuration: Configuration) -> bool:
        """Tell whether a configuration keeps to the limits of the search."""
        return self.problem.allows(self.parameters(configuration))

    def ask(self) -> tuple[Trial, Configuration]:
        """Take up an interrupted configuration, else let the sampler propose one."""
        trial = Trial(self.optuna, self.interrupted.pop(0)) if self.interrupted else self.optuna.ask()
        for name, choices in {**self.problem.groups, **self.problem.options}.items():
            trial.suggest_categorical(name, choices)
        return trial, self.configuration(trial.params)

    def tell(self, trial: Trial, measurement: Measurement) -> None:
        """Report a measurement, or the reason why there is none."""
        for name, value in _attributes(measurement).items():
            trial.set_user_attr(name, value)
        self._tell(trial.number, measurement)

    def measurement(self, trial: FrozenTrial) -> Measurement:
        """Give what `tell` was told."""
        configuration = self.configuration(trial.params)
        known: dict[str, Any] = {"metrics": {}, "latency_us": [], "parity": None, **trial.user_attrs}
        known["assignment"] = {name: str(value) for name, value in configuration.assignment.items()}
        known["options"] = dict(configuration.options)
        return Measurement.from_json(json.dumps(known))

    def configuration(self, parameters: Mapping[str, str]) -> Configuration:
        """Turn Optuna's parameters into a configuration."""
        groups = {group.name: parameters[group.name] for group in self.space.groups}
        return self.space.choose(groups, {name: parameters[name] for name in self.space.options})

    def parameters(self, configuration: Configuration) -> dict[str, str]:
        """Turn a configuration into Optuna's parameters."""
        groups = {name: str(value) for name, value in self.space.precisions_of(configuration).items()}
        return groups | {name: configuration.options[name] for name in self.space.options}

    def _is_complete(self, parameters: Mapping[str, str]) -> bool:
        return set(parameters) == {*(group.name for group in self.space.groups), *self.space.options}

    def _tell(self, number: int, measurement: Measurement) -> None:
        if measurement.failure:
            self.optuna.tell(number, state=TrialState.FAIL)
        else:
            bits = measurement.mean_bits
            second = measurement.executed_fraction if bits is None else bits
            self.optuna.tell(number, (measurement.metrics[self.objective.name].value, second))


def search(
    study: Study,
    measure: Measure,
    trials: int,
    results: dict[str, Measurement],
    record: Callable[[Measurement], None],
    origins: Mapping[str, str],
    executor: Executor | None = None,
    workers: int = 1,
    goes_on: Callable[[], bool] = lambda: True,
) -> None:
    """Measure until `results` holds `trials` configurations, each measured once, and propose while it `goes_on`.

    `record` is called before Optuna is told, so that nothing measured is lost. `origins` names configurations
    that do not come from the search, by digest. With an executor, `workers` measurements run at a time.
    """
    # One more than there are workers: none waits while the sampler thinks.
    most = workers + 1 if workers > 1 else 1
    rng = random.Random(study.seed + len(results))
    pending: dict[Future[Measurement], tuple[Trial, str]] = {}

    def finish(trial: Trial, measurement: Measurement) -> None:
        results[measurement.digest] = measurement
        record(measurement)
        study.tell(trial, measurement)

    def finish_some() -> None:
        for future in wait(pending, return_when=FIRST_COMPLETED).done:
            finish(pending.pop(future)[0], future.result())

    for trial, configuration in _proposals(study, results, pending, rng, trials, goes_on):
        origin = origins.get(configuration.digest, "search")
        if executor is None:
            finish(trial, measure(configuration, origin))
            continue
        pending[executor.submit(measure, configuration, origin)] = trial, configuration.digest
        while len(pending) >= most:
            finish_some()
    while pending:
        finish_some()


def ladder(problem: Problem, most: int = MOST_RUNGS) -> list[dict[str, str]]:
    """Give up to `most` parameters that quantise the groups that gradients call harmless first, options in turn.

    Everything under every option, rungs just above each handmade fraction, then fractions that lie ever closer; all
    of them within the limits.
    """
    combinations = problem.combinations
    rungs = [problem.parameters(problem.by_score(problem.most), options) for options in combinations]
    spread = [problem.between((GOLDEN * index) % 1) for index in range(1, most + 1)]
    for index, target in enumerate([*problem.reachable_fractions, *spread]):
        rung = problem.parameters(problem.by_score(target), combinations[index % len(combinations)])
        if rung not in rungs:
            rungs.append(rung)
    return rungs[:most]


def _proposals(
    study: Study,
    results: Mapping[str, Measurement],
    pending: Mapping[Future[Measurement], tuple[Trial, str]],
    rng: random.Random,
    trials: int,
    goes_on: Callable[[], bool],
) -> Iterator[tuple[Trial, Configuration]]:
    """Yield configurations that are neither measured nor under way, until there are enough or none is found."""
    size = len(study.space.precisions) ** len(study.space.groups)
    for choices in study.space.options.values():
        size *= len(choices)
    while goes_on() and len(results) + len(pending) < min(trials, size):
        trial, configuration = study.ask()
        under_way = {digest for _, digest in pending.values()}
        if configuration.digest not in results and configuration.digest not in under_way:
            yield trial, configuration
            continue
        if configuration.digest in results:
            study.tell(trial, results[configuration.digest])
        else:
            study.optuna.tell(trial, state=TrialState.FAIL)
        taken = under_way.union(results)
        neighbour = _neighbour(study, trial.params, taken, rng)
        if neighbour is None:
            return
        study.optuna.enqueue_trial(neighbour)


def _neighbour(
    study: Study, parameters: Mapping[str, str], taken: set[str], rng: random.Random
) -> dict[str, str] | None:
    """Change one parameter at a time until the configuration is new: samplers repeat themselves.

    None where nothing new was found within the limits.
    """
    problem = study.problem
    changed = {**parameters, **{name: problem.groups[name][0] for name in problem.kept}}
    choices = {**problem.groups, **problem.options}
    free = [name for name in choices if name not in problem.kept]
    seen: set[tuple[str, ...]] = set()
    for _ in range(STEPS):
        if (key := tuple(changed.values())) not in seen:
            seen.add(key)
            if problem.allows(changed) and study.configuration(changed).digest not in taken:
                return changed
        name = rng.choice(free)
        others = [value for value in choices[name] if value != changed[name]]
        moved = {**changed, name: rng.choice(others or [changed[name]])}
        if problem.allows(moved) or problem.gain(moved) >= problem.gain(changed):
            changed = moved
    return None


def describe(
    space: SearchSpace,
    gains: Mapping[str, float] | None = None,
    least: float = 0.0,
    keep: Sequence[str] = (),
) -> Problem:
    """Say what is known of a space before anything is measured.

    `gains` is what each group adds to the quantised fraction, where left out its share of the layers; among more than
    two precisions its share of the weights, and what it gains are the bits saved. Proposals have the fraction `least`
    or more, and keep the groups in float32 whose names match a pattern of `keep`.

    Raises:
        ConfigurationError: a pattern matches no group, or `least` is not reachable.
    """
    share = 1 / len(space.layers)
    gained = {group.name: gains[group.name] if gains else share * len(group.layers) for group in space.groups}
    saved = {
        value: 1 - value.bits / 32 if space.others else float(value.is_quantized)
        for value in space.precisions
    }
    handmade = {
        sum(gained[name] * saved[value] for name, value in space.precisions_of(item.configuration).items())
        for item in space.strategies
    }
    precisions = tuple(map(str, space.precisions))
    kept: set[str] = set()
    for pattern in keep:
        found = {name for name in gained if name == pattern or fnmatchcase(name, pattern)}
        if not found:
            raise ConfigurationError(f"--keep {pattern}: no group matches; there are {', '.join(gained)}")
        kept |= found
    problem = Problem(
        groups={group.name: precisions for group in space.groups},
        gains={
            name: tuple(gain * saved[value] for value in space.precisions) for name, gain in gained.items()
        },
        options=space.options,
        fractions=tuple(sorted(share for share in handmade if share > 0)),
        least=least,
        kept=frozenset(kept),
    )
    if not 0 <= least <= 1:
        raise ConfigurationError(f"--min-fraction {least:g}: expected 0 to 1")
    if kept == gained.keys():
        raise ConfigurationError(
            f"--keep {' '.join(keep)}: that is every group, and nothing is left to search"
        )
    if least > problem.most * (1 + 1e-9):
        raise ConfigurationError(
            f"--min-fraction {least:g} cannot be reached: all groups{' but those of --keep' if kept else ''} together "
            f"are {problem.most:.4f}"
        )
    return problem


def _attributes(measurement: Measurement) -> dict[str, Any]:
    """Give a measurement's small parts; its assignment and options are the trial's parameters."""
    raw: dict[str, Any] = json.loads(measurement.to_json())
    parameters = ("assignment", "options")
    return {
        name: value for name, value in raw.items() if name not in parameters and value not in (None, [], {})
    }


def check_sampler(name: str, limited: bool = False) -> None:
    """Raise ConfigurationError unless there is a sampler of this name, which knows limits where there are any."""
    if name not in SAMPLERS and name not in CLASSES:
        raise ConfigurationError(f"there is no sampler {name!r}; {one_of(name, SAMPLERS)}")
    ours = [name for name, kind in SAMPLERS.items() if issubclass(kind, ProposingSampler)]
    if limited and name not in ours:
        raise ConfigurationError(
            f"--sampler {name} knows neither --min-fraction nor --keep; expected one of {', '.join(ours)}"
        )


def _sampler(name: str, problem: Problem, seed: int) -> optuna.samplers.BaseSampler:
    kind = SAMPLERS.get(name) or CLASSES[name]
    if issubclass(kind, ProposingSampler):
        ours: optuna.samplers.BaseSampler = kind(problem, seed)
        return ours
    options = {"multivariate": True} if kind is optuna.samplers.TPESampler else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler: optuna.samplers.BaseSampler = kind(seed=seed, **options)
    return sampler
