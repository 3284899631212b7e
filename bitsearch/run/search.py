"""Search with Optuna over quantise-or-keep for every group of layers, for performance and quantised fraction.

The search knows records and spaces only: `measure` is a function.
"""

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import suppress
from functools import partial

from optuna.trial import Trial

from bitsearch.core.measurement import Measurement
from bitsearch.core.strategy import Configuration
from bitsearch.run.leases import Standing
from bitsearch.run.study import INSTEAD_OF, PAUSE, Study

STEPS = 20_000
"""Changes that are tried until a configuration is new; then the search is at its end."""
DEATHS = 5
"""How often a configuration may end the run that measures it; then it counts as failed."""

Measure = Callable[[Configuration, str], Measurement]
Failed = Callable[[Configuration, str, str], Measurement]


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
