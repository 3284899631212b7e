"""Search with Optuna over quantise-or-keep for every group of layers, for performance and quantised fraction.

The search knows records and spaces only: `measure` is a function, and a study resumes without torch.
"""

import random
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, field

import optuna
from optuna.trial import Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from bitsearch.core.errors import ConfigurationError, one_of
from bitsearch.core.measurement import Measurement, Metric
from bitsearch.core.space import SearchSpace
from bitsearch.core.strategy import Configuration

FRACTION = "executed_fraction"
LADDER = (0.15, 0.27, 0.38, 0.5, 0.61, 0.73, 0.84, 0.95)

# Those of Optuna's that search several objectives and need nothing but a seed.
SAMPLERS = (
    "TPESampler",
    "NSGAIISampler",
    "NSGAIIISampler",
    "GPSampler",
    "RandomSampler",
    "QMCSampler",
    "BruteForceSampler",
)

Measure = Callable[[Configuration, str], Measurement]


@dataclass(frozen=True)
class Study:
    """An Optuna study of one search space; parameters are one integer a group and one an option."""

    space: SearchSpace
    objective: Metric
    optuna: optuna.Study
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
        sampler: str = "TPESampler",
    ) -> "Study":
        """Create the study or take it up again; `sampler` is one of SAMPLERS, classes of Optuna.

        Raises:
            ConfigurationError: the study in the storage searched another space or objective, or there is no such
                storage or sampler.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            study = optuna.create_study(
                storage=storage,
                study_name=name,
                directions=[objective.direction, "maximize"],
                load_if_exists=True,
            )
        except (SQLAlchemyError, ImportError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise ConfigurationError(
                f"the storage {storage} cannot be opened ({reason}); expected a URL such as sqlite:///study.db"
            ) from error
        signature = {
            "groups": [group.name for group in space.groups],
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
            study.set_metric_names([objective.name, FRACTION])
        study.sampler = _sampler(sampler, seed + len(study.trials))
        return cls(space, objective, study, seed)

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

    def ask(self) -> tuple[Trial, Configuration]:
        """Take up an interrupted configuration, else let the sampler propose one."""
        trial = Trial(self.optuna, self.interrupted.pop(0)) if self.interrupted else self.optuna.ask()
        for group in self.space.groups:
            trial.suggest_int(group.name, 0, 1)
        for name, choices in self.space.options.items():
            trial.suggest_int(name, 0, len(choices) - 1)
        return trial, self.configuration(trial.params)

    def tell(self, trial: Trial, measurement: Measurement) -> None:
        """Report a measurement, or the reason why there is none."""
        trial.set_user_attr("measurement", measurement.to_json())
        self._tell(trial.number, measurement)

    def configuration(self, parameters: Mapping[str, int]) -> Configuration:
        """Turn Optuna's parameters into a configuration."""
        groups = [group.name for group in self.space.groups if parameters[group.name]]
        options = {name: choices[parameters[name]] for name, choices in self.space.options.items()}
        return self.space.configuration(groups, options)

    def parameters(self, configuration: Configuration) -> dict[str, int]:
        """Turn a configuration into Optuna's parameters."""
        quantized = set(self.space.quantized_groups(configuration))
        groups = {group.name: int(group.name in quantized) for group in self.space.groups}
        options = {
            name: choices.index(configuration.options[name]) for name, choices in self.space.options.items()
        }
        return groups | options

    def _is_complete(self, parameters: Mapping[str, int]) -> bool:
        return set(parameters) == {*(group.name for group in self.space.groups), *self.space.options}

    def _tell(self, number: int, measurement: Measurement) -> None:
        if measurement.failure:
            self.optuna.tell(number, state=TrialState.FAIL)
        else:
            values = measurement.metrics[self.objective.name].value, measurement.executed_fraction
            self.optuna.tell(number, values)


def search(
    study: Study,
    measure: Measure,
    trials: int,
    results: dict[str, Measurement],
    record: Callable[[Measurement], None],
    origins: Mapping[str, str],
    executor: Executor | None = None,
    workers: int = 1,
) -> None:
    """Measure until `results` holds `trials` configurations, each measured once.

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

    for trial, configuration in _proposals(study, results, pending, rng, trials):
        origin = origins.get(configuration.digest, "search")
        if executor is None:
            finish(trial, measure(configuration, origin))
            continue
        pending[executor.submit(measure, configuration, origin)] = trial, configuration.digest
        while len(pending) >= most:
            finish_some()
    while pending:
        finish_some()


def ladder(space: SearchSpace, sizes: Mapping[str, int], scores: Mapping[str, float]) -> list[Configuration]:
    """Quantise the groups that suffer least for their size first, up to eight fractions of all weights."""
    order = sorted(space.groups, key=lambda group: scores[group.name] / sizes[group.name])
    options = {name: choices[0] for name, choices in space.options.items()}
    total = sum(sizes.values())
    rungs = []
    for target in LADDER:
        chosen: list[str] = []
        for group in order:
            if sum(sizes[name] for name in chosen) >= target * total:
                break
            chosen.append(group.name)
        rungs.append(space.configuration(chosen, options))
    return list(dict.fromkeys(rungs))


def _proposals(
    study: Study,
    results: Mapping[str, Measurement],
    pending: Mapping[Future[Measurement], tuple[Trial, str]],
    rng: random.Random,
    trials: int,
) -> Iterator[tuple[Trial, Configuration]]:
    """Yield configurations that are neither measured nor under way, until there are enough or none is left."""
    size = 2 ** len(study.space.groups)
    for choices in study.space.options.values():
        size *= len(choices)
    while len(results) + len(pending) < min(trials, size):
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
        study.optuna.enqueue_trial(_neighbour(study, trial.params, taken, rng))


def _neighbour(
    study: Study, parameters: Mapping[str, int], taken: set[str], rng: random.Random
) -> dict[str, int]:
    """Change one parameter at a time until the configuration is new: samplers repeat themselves."""
    changed = dict(parameters)
    choices = {group.name: 2 for group in study.space.groups}
    choices |= {name: len(values) for name, values in study.space.options.items()}
    while study.configuration(changed).digest in taken:
        name = rng.choice(list(choices))
        changed[name] = rng.choice([value for value in range(choices[name]) if value != changed[name]] or [0])
    return changed


def _sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    if name not in SAMPLERS:
        raise ConfigurationError(f"there is no sampler {name!r}; {one_of(name, SAMPLERS)}")
    options = {"multivariate": True} if name == "TPESampler" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler: optuna.samplers.BaseSampler = getattr(optuna.samplers, name)(seed=seed, **options)
    return sampler
