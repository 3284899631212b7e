"""An Optuna study of quantise-or-keep for every group of layers, which any number of runs may share.

It knows records and spaces only, and resumes without torch.
"""

import json
import time
import warnings
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from bitsearch.core import pareto
from bitsearch.core.budget import Budget
from bitsearch.core.errors import ConfigurationError
from bitsearch.core.measurement import Direction, Measurement, Metric
from bitsearch.core.names import masked
from bitsearch.core.space import SearchSpace
from bitsearch.core.strategy import Configuration
from bitsearch.run.leases import OPEN, Lease, Leases, Standing
from bitsearch.run.problem import MOST_RUNGS, Problem, describe, ladder
from bitsearch.run.samplers import FEWEST, ProposingSampler, check_sampler, fit, make
from bitsearch.run.storage import close_storage, open_study

FRACTION = "executed_fraction"
BITS = "mean_bits"
"""What a study optimises beside its metric; bits a weight where there are more than two precisions."""
PAUSE = 0.2
"""Seconds between two looks at a study while other runs hold what is left."""
INSTEAD_OF = "instead_of"
"""Attribute of a queued trial: the number of the one whose proposal was known already."""


@dataclass
class Study:
    """An Optuna study of one search space; parameters are the precision of every group and every option's choice."""

    space: SearchSpace
    objective: Metric
    optuna: optuna.Study
    storage: BaseStorage
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
        study, opened = open_study(storage, name, [objective.direction, second])
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
        study.sampler = make(sampler, problem, own + len(study.trials))
        return cls(space, objective, study, opened, problem, own, Leases(lease))

    def close(self) -> None:
        """Give back the connections to the storage."""
        close_storage(self.storage)

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
                self.tell(self._live(trial.number), results[digest])
            elif self.leases.lease:
                self._requeue(trial)
            elif digest:
                # The same trial again: a new one would stand behind all that is queued.
                self.interrupted.append(trial.number)
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
        return "fixed_params" in self.storage.get_trial_system_attrs(self._id(trial.number))

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
        trial = self._live(self.interrupted.pop(0)) if self.interrupted else self.optuna.ask()
        self.leases.take(trial)
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
        self.leases.give_back(trial.number)

    def drop(self, trial: Trial, measurement: Measurement | None) -> None:
        """Close a trial whose configuration another one holds; samplers may hear once more of what is measured."""
        if measurement and not self.leases.lease:
            self.tell(trial, measurement)
            return
        self._close(trial)
        self.leases.give_back(trial.number)

    def let_go(self, results: Mapping[str, Measurement]) -> None:
        """End all leases, for this run ends: what it has not measured is queued again."""
        for trial in self.optuna.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if held := self.leases.held.get(trial.number):
                measurement = results.get(self._digest(trial) or "")
                if measurement:
                    self.tell(held, measurement)
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

    def _id(self, number: int) -> int:
        """Give the name under which the storage knows a trial."""
        study = self.storage.get_study_id_from_name(self.optuna.study_name)
        return self.storage.get_trial_id_from_study_id_trial_number(study, number)

    def _live(self, number: int) -> Trial:
        """Take up a trial that an earlier sitting has begun."""
        return Trial(self.optuna, self._id(number))

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
        self.leases.give_back(trial.number)
        parameters = trial.system_attrs.get("fixed_params", trial.params)
        if self._is_complete(parameters):
            deaths = trial.user_attrs.get("deaths", 0) + died
            # The new one first: a configuration that no trial holds could lose its place to another one.
            self.optuna.enqueue_trial(parameters, {"replaces": trial.number, "deaths": deaths})
        self._close(trial)

    def _close(self, trial: FrozenTrial | Trial) -> None:
        with suppress(UpdateFinishedTrialError):
            self.storage.set_trial_state_values(self._id(trial.number), TrialState.FAIL)

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
