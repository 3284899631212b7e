"""Search with Optuna over quantise-or-keep for every group of layers, for performance and quantised fraction.

The search knows records and spaces only: `measure` is a function, and a study resumes without torch.
"""

import json
import random
import time
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import numpy as np
import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState

from bitsearch.core import pareto
from bitsearch.core.budget import Budget
from bitsearch.core.errors import ConfigurationError, one_of
from bitsearch.core.measurement import Direction, Measurement, Metric
from bitsearch.core.names import masked
from bitsearch.core.space import SearchSpace
from bitsearch.core.strategy import Configuration
from bitsearch.run.leases import OPEN, Lease, Leases, Standing
from bitsearch.run.samplers import (
    FEWEST,
    GOLDEN,
    LadderSampler,
    MaskSampler,
    Problem,
    ProposingSampler,
    StratifiedSampler,
    fit,
)
from bitsearch.run.storage import close_study, open_study

FRACTION = "executed_fraction"
BITS = "mean_bits"
"""What a study optimises beside its metric; bits a weight where there are more than two precisions."""
MOST_RUNGS = 8
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

PAUSE = 0.2
"""Seconds between two looks at a study while other runs hold what is left."""
INSTEAD_OF = "instead_of"
"""Attribute of a queued trial: the number of the one whose proposal was known already."""
DEATHS = 5
"""How often a configuration may end the run that measures it; then it counts as failed."""

Measure = Callable[[Configuration, str], Measurement]
Failed = Callable[[Configuration, str, str], Measurement]


@dataclass
class Study:
    """An Optuna study of one search space; parameters are the precision of every group and every option's choice."""

    space: SearchSpace
    objective: Metric
    optuna: optuna.Study
    problem: Problem
    seed: int
    leases: Leases
    interrupted: list[int] = field(default_factory=list)
    _digests: dict[int, str] = field(default_factory=dict)

    @classmethod
    def open(
        cls,
        space: SearchSpace,
        objective: Metric,
        storage: str | None,
        name: str,
        seed: int,
        sampler: str = "mask",
        gains: Mapping[str, float] | None = None,
        least: float = 0.0,
        keep: Sequence[str] = (),
        lease: Lease | None = None,
    ) -> "Study":
        """Create the study or take it up again; `sampler` is one of SAMPLERS or CLASSES.

        `gains`, `least` and `keep` are those of `describe`. Without a storage the study is in memory. With a `lease`
        other runs may work on it at the same time; without one, all that it holds is this run's.

        Raises:
            ConfigurationError: the study in the storage searched another space or objective, there is no such
                storage or sampler, or the limits cannot be kept.
        """
        problem = describe(space, gains, least, keep)
        check_sampler(sampler, problem.limited)
        second: Direction = "minimize" if space.others else "maximize"
        study = open_study(storage, name, [objective.direction, second])
        signature = {
            "groups": [group.name for group in space.groups],
            "precisions": [str(value) for value in space.precisions],
            "options": {name: list(choices) for name, choices in space.options.items()},
            "objective": objective.name,
        }
        known = study.user_attrs.get("signature", signature)
        if known != signature:
            raise ConfigurationError(
                f"study {name} in {masked(storage or 'memory')} searched {known}, expected {signature}; "
                "choose another --out or --storage"
            )
        if "signature" not in study.user_attrs:
            study.set_user_attr("signature", signature)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names([objective.name, BITS if space.others else FRACTION])
        own = zlib.crc32(f"{lease.owner} {seed}".encode()) >> 1 if lease else seed
        study.sampler = _sampler(sampler, problem, own + len(study.trials))
        return cls(space, objective, study, problem, own, Leases(study._storage, lease))

    def close(self) -> None:
        """Give back the connections to the storage."""
        close_study(self.optuna)

    def learn(self, scores: Mapping[str, float]) -> None:
        """Take note how much each group is expected to suffer, also in the sampler."""
        self._know(scores=dict(scores))

    def limit(self, budgets: Sequence[Budget], max_loss: float) -> None:
        """Hold proposals to budgets, and to a loss against the float network where a model predicts it.

        Raises:
            ConfigurationError: nothing keeps to a budget.
        """
        levels = zip(self.problem.groups, self.problem.reachable, strict=True)
        reachable = {name: len(gains) for name, gains in levels}
        for budget in budgets:
            budget.check(reachable)
        self._know(budgets=tuple(budgets), max_loss=max_loss)

    def _know(self, **known: Any) -> None:
        self.problem = replace(self.problem, **known)
        if isinstance(self.optuna.sampler, ProposingSampler):
            self.optuna.sampler.problem = self.problem

    def recover(self, results: Mapping[str, Measurement]) -> None:
        """Bring the study up to what a killed process has left: `results` that it was not told, and open trials."""
        for trial in self.optuna.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if not self.leases.is_own(trial):
                continue
            digest = self._digest(trial)
            if digest and digest in results and self._is_complete(trial.params):
                self.tell(Trial(self.optuna, trial._trial_id), results[digest])
            elif self.leases.lease:
                self._requeue(trial)
            elif digest:
                # The same trial again: a new one would stand behind all that is queued.
                self.interrupted.append(trial._trial_id)
            else:
                self.optuna.tell(trial.number, state=TrialState.FAIL)
        measured = self.standing().measured
        for digest, measurement in results.items():
            if digest not in measured:
                self._add(measurement)

    def enqueue(self, configurations: Iterable[Configuration]) -> None:
        """Put configurations at the head of the search, once."""
        for configuration in configurations:
            standing = self.standing()
            if configuration.digest not in {*standing.measured, *standing.open}:
                self.optuna.enqueue_trial(self.parameters(configuration))

    def withdraw(self) -> None:
        """Close the queued trials that stand in for repeated proposals, once there is enough without them."""
        for trial in self.optuna.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            if INSTEAD_OF in trial.user_attrs:
                self._close(trial)

    def standing(self) -> Standing:
        """Look at all trials; what other runs have left behind when they died is queued again."""
        trials = self.optuna.get_trials(deepcopy=False)
        for trial in self.leases.dead(trials):
            self._requeue(trial)
            trials = self.optuna.get_trials(deepcopy=False)
        replaced = {trial.user_attrs.get("replaces") for trial in trials}
        measured: dict[str, FrozenTrial] = {}
        held: dict[str, FrozenTrial] = {}
        unknown = []
        for trial in trials:
            digest = self._digest(trial)
            if trial.state in OPEN and trial.number in replaced:
                self._close(trial)
            elif trial.state in OPEN and digest:
                held.setdefault(digest, trial)
            elif trial.state == TrialState.RUNNING:
                unknown.append(trial)
            elif digest and self._is_measured(trial):
                measured.setdefault(digest, trial)
        return Standing(measured, {key: held[key] for key in held.keys() - measured.keys()}, tuple(unknown))

    def is_queued(self, trial: Trial) -> bool:
        """Tell whether a trial was queued, by whomever, and not proposed by the sampler."""
        return "fixed_params" in self.optuna._storage.get_trial(trial._trial_id).system_attrs

    def before(self, trial: Trial) -> set[str]:
        """Give the configurations that come before a trial: all that are measured, and those of lower numbers.

        Numbers are given in order, so that all runs come to the same answer. A lower trial that does not say yet what
        it is, is waited for; should its run have died, until that is noticed.
        """
        standing = self.standing()
        while self.leases.lease and any(other.number < trial.number for other in standing.unknown):
            time.sleep(PAUSE)
            standing = self.standing()
        lower = {digest for digest, other in standing.open.items() if other.number < trial.number}
        return lower.union(standing.measured)

    def ladder(self, trials: int) -> list[Configuration]:
        """Give the seeds that gradients propose: up to a third of the trials, for the search proposes the rest."""
        rungs = ladder(self.problem, min(MOST_RUNGS, trials // 3))
        return [self.configuration(item) for item in rungs if self.problem.allows(item)]

    def allows(self, configuration: Configuration) -> bool:
        """Tell whether a configuration keeps to the limits of the search."""
        return self.problem.allows(self.parameters(configuration))

    def ask(self) -> tuple[Trial, Configuration]:
        """Take up an interrupted configuration, else let the sampler propose one."""
        trial = Trial(self.optuna, self.interrupted.pop(0)) if self.interrupted else self.optuna.ask()
        self.leases.take(trial._trial_id)
        for name, choices in {**self.problem.groups, **self.problem.options}.items():
            trial.suggest_categorical(name, choices)
        return trial, self.configuration(trial.params)

    def tell(self, trial: Trial, measurement: Measurement) -> None:
        """Report a measurement, or the reason why there is none."""
        try:
            for name, value in self._attributes(measurement).items():
                trial.set_user_attr(name, value)
            self._tell(trial.number, measurement)
        except (UpdateFinishedTrialError, ValueError):
            # Others took this run for dead, and have queued the configuration again.
            if measurement.digest not in self.standing().measured:
                self._add(measurement)
        self.leases.give_back(trial._trial_id)

    def drop(self, trial: Trial, measurement: Measurement | None) -> None:
        """Close a trial whose configuration another one holds; samplers may hear once more of what is measured."""
        if measurement and not self.leases.lease:
            self.tell(trial, measurement)
            return
        self._close(trial)
        self.leases.give_back(trial._trial_id)

    def let_go(self, results: Mapping[str, Measurement]) -> None:
        """End all leases, for this run ends: what it has not measured is queued again."""
        for trial in self.optuna.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if trial._trial_id in self.leases.held:
                measurement = results.get(self._digest(trial) or "")
                if measurement:
                    self.tell(Trial(self.optuna, trial._trial_id), measurement)
                else:
                    self._requeue(trial, died=False)

    def smoothed(self, measurements: Iterable[Measurement]) -> dict[str, Measurement]:
        """Give by digest what the model expects of the objective: the noise of single trainings cancels in it.

        What failed is left out; too few to model stay as they are measured.
        """
        name, sign = self.objective.name, 1 if self.objective.direction == "minimize" else -1
        usable = [item for item in measurements if pareto.usable(item, self.objective)]
        if len(usable) < FEWEST:
            return {item.digest: item for item in usable}
        losses = np.array([pareto.loss(item, self.objective) for item in usable])
        parameters = [self.parameters(item.configuration) for item in usable]
        expected = fit(self.problem, parameters, losses).expected()
        return {
            item.digest: replace(item, metrics={name: replace(item.metrics[name], value=sign * loss)})
            for item, loss in zip(usable, expected.tolist(), strict=True)
        }

    def measurement(self, trial: FrozenTrial) -> Measurement:
        """Give what `tell` was told."""
        configuration = self.configuration(trial.params)
        known: dict[str, Any] = {"metrics": {}, "latency_us": [], "parity": None, **trial.user_attrs}
        known["assignment"] = {name: str(value) for name, value in configuration.assignment.items()}
        known["options"] = dict(configuration.options)
        known["digest"] = configuration.digest
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

    def _is_measured(self, trial: FrozenTrial) -> bool:
        """Tell whether a closed trial carries a measurement, or why there is none; others are added by hand."""
        complete = trial.state == TrialState.COMPLETE and "digest" in trial.user_attrs
        return complete or (trial.state == TrialState.FAIL and "failure" in trial.user_attrs)

    def _digest(self, trial: FrozenTrial) -> str | None:
        """Give what a trial measures, once it is known; a queued one knows it before it is asked for."""
        if trial.number not in self._digests:
            parameters = trial.system_attrs.get("fixed_params", trial.params)
            if not self._is_complete(parameters):
                return None
            self._digests[trial.number] = self.configuration(parameters).digest
        return self._digests[trial.number]

    def _requeue(self, trial: FrozenTrial, died: bool = True) -> None:
        """Let another trial take the place of one that nobody measures any more."""
        self.leases.give_back(trial._trial_id)
        parameters = trial.system_attrs.get("fixed_params", trial.params)
        if self._is_complete(parameters):
            deaths = trial.user_attrs.get("deaths", 0) + died
            # The new one first: a configuration that no trial holds could lose its place to another one.
            self.optuna.enqueue_trial(parameters, {"replaces": trial.number, "deaths": deaths})
        self._close(trial)

    def _close(self, trial: FrozenTrial | Trial) -> None:
        with suppress(UpdateFinishedTrialError):
            self.optuna._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)

    def _add(self, measurement: Measurement) -> None:
        """Add a trial that is measured already."""
        values = None if measurement.failure else self._values(measurement)
        self.optuna.add_trial(
            optuna.create_trial(
                state=TrialState.FAIL if measurement.failure else TrialState.COMPLETE,
                values=values,
                params=self.parameters(measurement.configuration),
                distributions=self.problem.space,
                user_attrs=self._attributes(measurement),
            )
        )

    def _attributes(self, measurement: Measurement) -> dict[str, Any]:
        """Give a measurement's small parts; its assignment and options are the trial's parameters."""
        raw: dict[str, Any] = json.loads(measurement.to_json())
        if self.leases.lease:
            raw["folder"] = self.leases.lease.folder
        parameters = ("assignment", "options")
        return {
            name: value
            for name, value in raw.items()
            if name not in parameters and value not in (None, [], {})
        }

    def _tell(self, number: int, measurement: Measurement) -> None:
        if measurement.failure:
            self.optuna.tell(number, state=TrialState.FAIL)
        else:
            self.optuna.tell(number, self._values(measurement))

    def _values(self, measurement: Measurement) -> tuple[float, float]:
        bits = measurement.mean_bits
        second = measurement.executed_fraction if bits is None else bits
        return measurement.metrics[self.objective.name].value, second


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
    failed: Failed | None = None,
    gather: Callable[[Measurement, str], Measurement] = lambda measurement, _folder: measurement,
    wanted: Mapping[str, Configuration] | None = None,
) -> None:
    """Measure until the study holds `trials` configurations, each measured once, and propose while it `goes_on`.

    `record` is called before Optuna is told, so that nothing measured is lost. `origins` names configurations
    that do not come from the search, by digest. With an executor, `workers` measurements run at a time.
    `failed` makes a record of a configuration that ends every run that measures it.

    Other runs may take part: what they have measured is added to `results` and recorded as well, once `gather` has
    fetched its files from their folder. With `wanted`, by digest, nothing is proposed and these alone are measured.
    """
    # One more than there are workers: none waits while the sampler thinks.
    most = workers + 1 if workers > 1 else 1
    rng = random.Random(study.seed + len(results))
    pending: dict[Future[Measurement], Trial] = {}

    def keep(measurement: Measurement) -> None:
        if measurement.digest not in results:
            results[measurement.digest] = measurement
            record(measurement)

    def finish(trial: Trial, measurement: Measurement) -> None:
        # What the study of several runs does not know is measured again; it carries whole measurements.
        first, then = (keep, partial(study.tell, trial))[:: -1 if study.leases.lease else 1]
        first(measurement)
        then(measurement)

    def finish_some(seconds: float | None = None) -> None:
        for future in wait(pending, seconds, return_when=FIRST_COMPLETED).done:
            finish(pending.pop(future), future.result())

    def merge(standing: Standing) -> None:
        for digest, trial in standing.measured.items():
            if digest not in results:
                keep(gather(study.measurement(trial), trial.user_attrs.get("folder", "")))

    def submit(trial: Trial, configuration: Configuration) -> None:
        origin = origins.get(configuration.digest, "search")
        deaths = trial.user_attrs.get("deaths", 0)
        if failed and deaths >= DEATHS:
            reason = f"the run that measured it has died {deaths} times"
            finish(trial, failed(configuration, origin, reason))
        elif executor is None:
            finish(trial, measure(configuration, origin))
        else:
            pending[executor.submit(measure, configuration, origin)] = trial

    with study.leases.renewed():
        try:
            for proposal in _proposals(study, results, rng, trials, goes_on, merge, wanted):
                if proposal:
                    submit(*proposal)
                elif pending:
                    finish_some(PAUSE)
                else:
                    time.sleep(PAUSE)
                while len(pending) >= most:
                    finish_some()
            while pending:
                finish_some()
            merge(study.standing())
        except BaseException:
            with suppress(Exception):
                for future in pending:
                    if future.done() and not future.cancelled() and future.exception() is None:
                        keep(future.result())
            with suppress(Exception):
                study.let_go(results)
            raise


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
    rng: random.Random,
    trials: int,
    goes_on: Callable[[], bool],
    merge: Callable[[Standing], None],
    wanted: Mapping[str, Configuration] | None,
) -> Iterator[tuple[Trial, Configuration] | None]:
    """Yield configurations for this run to measure, and None while others are at what is left."""
    size = len(study.space.precisions) ** len(study.space.groups)
    for choices in study.space.options.values():
        size *= len(choices)
    total = len(wanted) if wanted is not None else min(trials, size)
    exhausted = False

    def counted(digests: Iterable[str]) -> set[str]:
        return {digest for digest in digests if wanted is None or digest in wanted}

    while goes_on():
        standing = study.standing()
        merge(standing)
        taken = {*results, *standing.running}
        if len(counted(results)) >= total or (exhausted and not standing.running):
            study.withdraw()
            return
        if exhausted or len(counted(taken)) >= total:
            yield None
            continue
        if wanted is not None:
            study.enqueue(item for digest, item in wanted.items() if digest not in taken)
        trial, configuration = study.ask()
        before = study.before(trial).union(results)
        digest = configuration.digest
        if wanted is not None:
            may = digest in wanted
        else:
            may = len(before) < total and (study.is_queued(trial) or study.allows(configuration))
        if may and digest not in before:
            yield trial, configuration
            continue
        study.drop(trial, results.get(digest))
        if wanted is None and len(before) < total:
            neighbour = _neighbour(study, trial.params, {*taken, *standing.open}, rng)
            exhausted = neighbour is None
            if neighbour:
                study.optuna.enqueue_trial(neighbour, {INSTEAD_OF: trial.number})


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


def check_sampler(name: str, limited: bool = False) -> None:
    """Raise ConfigurationError unless there is a sampler of this name, which knows limits where there are any."""
    if name not in SAMPLERS and name not in CLASSES:
        raise ConfigurationError(f"there is no sampler {name!r}; {one_of(name, SAMPLERS)}")
    ours = [name for name, kind in SAMPLERS.items() if issubclass(kind, ProposingSampler)]
    if limited and name not in ours:
        raise ConfigurationError(
            f"--sampler {name} knows neither --min-fraction nor --keep nor other limits; expected one of "
            + ", ".join(ours)
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
