"""`bitsearch run`: data, float references, baselines and search, final training, evaluation, report."""

import math
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, Future, as_completed
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property, partial
from importlib.metadata import version
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from typing import Any, TypeVar

import torch

from bitsearch import report
from bitsearch.core import signals
from bitsearch.core.assignment import digest
from bitsearch.core.budget import Budget, Limits
from bitsearch.core.errors import ConfigurationError, RecordError
from bitsearch.core.front import Front
from bitsearch.core.manifest import GroupedLayer, Manifest, NamedStrategy, Published, Pulse
from bitsearch.core.measurement import Measurement, Metric
from bitsearch.core.names import masked
from bitsearch.core.precision import Precision
from bitsearch.core.rundir import RunFolder
from bitsearch.core.space import Inventory, SearchSpace
from bitsearch.core.strategy import Configuration
from bitsearch.network import catalogue, dask_cluster, measuring, prospects, sensitivity, workers
from bitsearch.network.loop import choose_device
from bitsearch.network.spec import Spec
from bitsearch.network.trainer import Trainer
from bitsearch.onnxfile import runtime
from bitsearch.report.numbers import size
from bitsearch.run import finals
from bitsearch.run.plan import (
    DATA,
    EVALUATION,
    FINALS,
    LATENCY,
    REFERENCES,
    REPORT,
    SEARCH,
    Forecast,
    Plan,
    most_challengers,
    predict,
)
from bitsearch.run.rehearsal import rehearse
from bitsearch.run.search import Study, check_sampler, describe, search
from bitsearch.run.sharing import Sharing
from bitsearch.run.stages import add_time, require_same
from bitsearch.run.storage import answering
from bitsearch.run.terminal import Terminal, duration

SECONDS_BETWEEN_PULSES = 2.0
T = TypeVar("T")


@dataclass(frozen=True)
class RunRequest:
    """What a user asks of `bitsearch run`."""

    model: str
    dataset: str | None
    data: tuple[Path, ...]
    preset: str
    trials: int
    seed: int
    device: str
    workers: int | None
    storage: str | None
    out: Path
    sampler: str = "mask"
    recipe: str | None = None
    min_fraction: float = 0.0
    keep: tuple[str, ...] = ()
    precisions: tuple[Precision, ...] = (Precision.FLOAT32, Precision.TERNARY)
    limits: Limits = field(default_factory=Limits)
    timeout: float | None = None
    dask: str | None = None
    command: tuple[str, ...] | None = None


def run(request: RunRequest, terminal: Terminal) -> Path:
    """Search mixed precisions of a model and write the run folder; give the path of the report.

    With a folder that a run has begun, it goes on from what is on disk.

    Raises:
        BitsearchError: bad names, data, or a folder of another run.
    """
    _check(request)
    prepared = _Run.of(request, RunFolder(request.out), terminal)
    with prepared.folder.locked():
        return prepared.execute()


def dry_run(request: RunRequest, terminal: Terminal) -> tuple[SearchSpace, Plan]:
    """Read the data, time a little of everything, and give what a run from nothing would do; nothing is kept.

    Raises:
        BitsearchError: bad names, limits or data.
    """
    _check(request)
    with TemporaryDirectory() as path:
        run = _Run.of(request, RunFolder(path), terminal)
        return run.space, run.plan()


def _check(request: RunRequest) -> None:
    for flag, number in (("--trials", request.trials), ("--workers", request.workers)):
        if number is not None and number < 1:
            raise ConfigurationError(f"{flag} {number}: expected 1 or more")
    if request.timeout is not None and not request.timeout > 0:
        raise ConfigurationError(f"--timeout {request.timeout:g}: expected more than 0 seconds")
    if request.min_fraction > 0 and len(request.precisions) > 2:
        raise ConfigurationError(
            f"--min-fraction {request.min_fraction:g}: among {len(request.precisions)} precisions bits a weight count; "
            "limit them with --max-size"
        )
    limited = request.min_fraction > 0 or bool(request.keep) or request.limits != Limits()
    check_sampler(request.sampler, limited)


@dataclass
class _Run:
    request: RunRequest
    entry: catalogue.Entry
    spec: Spec
    space: SearchSpace
    folder: RunFolder
    terminal: Terminal
    repeated: dict[tuple[tuple[str, ...], int], "Future[None]"] = field(default_factory=dict)
    forecast: Forecast = field(default_factory=lambda: Forecast(()))
    began: float = field(default_factory=time.monotonic)

    @classmethod
    def of(cls, request: RunRequest, folder: RunFolder, terminal: Terminal) -> "_Run":
        entry = catalogue.find(request.model)
        task = entry.task(request.dataset, request.preset, request.recipe)
        space = entry.space(task).among(request.precisions)
        spec = Spec(
            model=request.model,
            dataset=task.dataset,
            preset=request.preset,
            paths=request.data,
            folder=folder.path,
            seed=request.seed,
            device=choose_device(request.device),
            threads=1,
            progress=terminal.progress,
            recipe=task.recipes.name,
            precisions=space.precisions,
        )
        return cls(request, entry, spec, space, folder, terminal)

    def plan(self) -> Plan:
        """Read the data and say how long everything takes, as far as it is known before anything is trained."""
        self._check_limits()
        self._begin()
        return self._plan()

    def execute(self) -> Path:
        self._check_limits()
        self._begin()
        with answering(self._storage), closing(self._open_study()) as study:
            study.limit(self._budgets(), self.request.limits.max_loss)
            self._plan()
            with self._pulse():
                return self._go_through(study)

    def _go_through(self, study: Study) -> Path:
        with self._executor() as executor:
            with self._stage(REFERENCES):
                self._prepare(executor)
            with self._stage(SEARCH):
                self._search(executor, study)
            with self._stage(FINALS):
                finalists = self._train_finalists(executor, study)
            with self._stage(EVALUATION):
                self._evaluate(executor, finalists)
            with self._stage(LATENCY):
                self._time(finalists)
            full = self._results("full").values()
            self.folder.write_front(Front.of(full, self.objective, [*self.origins], self.request.limits))
            self.folder.update(ended=datetime.now(UTC).isoformat(timespec="seconds"))
            with self._stage(REPORT):
                return report.build(self.folder, executor)

    @property
    def objective(self) -> Metric:
        task = self.spec.task
        return next(metric for metric in task.metrics if metric.name == task.objective)

    def _is_float(self, item: Measurement) -> bool:
        """Tell whether a measurement is that of the float strategy, which comes first."""
        return item.digest == self.space.strategies[0].configuration.digest

    @property
    def _planned(self) -> int:
        """Number of finalists at most."""
        return len(self.space.strategies) + most_challengers(self.spec.task.recipes, self.request.trials)

    @property
    def origins(self) -> dict[str, str]:
        return {item.configuration.digest: f"baseline:{item.name}" for item in self.space.strategies}

    def _check_limits(self) -> None:
        """Refuse limits that no configuration keeps, before anything is read or written."""
        describe(self.space, self._gains(), self.request.min_fraction, self.request.keep)

    def _budgets(self) -> list[Budget]:
        """Predict what has a limit and is known before anything is trained."""
        limits = self.request.limits
        wanted = (prospects.sizes, limits.max_size_bytes), (prospects.latencies, limits.max_latency_us)
        return [foretell(self.spec, self.space, most) for foretell, most in wanted if most < math.inf]

    def _begin(self) -> None:
        """Read the data, then write what is known before any work, or check that the folder holds the same run."""
        known = self.folder.manifest() if self.folder.begun else None
        self.terminal.stage(DATA)
        began = time.monotonic()
        identity = self.spec.identity
        if known:
            require_same(self.folder, known.identity, identity)
        task, data = self.spec.task, self.spec.data
        yardsticks = task.yardsticks(data)
        for item in yardsticks:
            self.terminal.say(f"{item.name} alone: {item.metric} {item.quantity.value:.4g}")
        inventory = self.spec.inventory(self.entry.options_of_reference(task.preset))
        group_of = {name: group.name for group in self.space.groups for name in group.layers}
        manifest = Manifest(
            model=self.request.model,
            dataset=task.dataset,
            preset=task.preset,
            seed=self.request.seed,
            trials=self.request.trials,
            recipe=task.recipes.name,
            metrics=task.metrics,
            objective=task.objective,
            version=version("bitsearch"),
            command=tuple(masked(word) for word in self.request.command or ("bitsearch", *sys.argv[1:])),
            title=f"Mixed precision of {self.entry.name} on {task.dataset}",
            identity=identity,
            data=data.identity,
            workers=self.count,
            device=self.spec.device,
            sampler=self.request.sampler,
            min_fraction=self.request.min_fraction,
            keep=self.request.keep,
            **{name: most for name, most in asdict(self.request.limits).items() if most < math.inf},
            settings=task.settings,
            layers=tuple(
                GroupedLayer(**asdict(layer), group=group_of[layer.name]) for layer in inventory.layers
            ),
            groups=self.space.groups,
            options=self.space.options,
            strategies=tuple(
                NamedStrategy(item.name, item.configuration.digest, item.description)
                for item in self.space.strategies
            ),
            published=Published(
                self.entry.published_source,
                self.entry.published(task.dataset),
                self.entry.published_fractions(task.dataset),
            ),
            yardsticks=yardsticks,
            sensitivities=known.sensitivities if known else None,
            environment={**runtime.environment(), **_training_environment()},
            started=known.started if known else datetime.now(UTC).isoformat(timespec="seconds"),
            stages=known.stages if known else (),
            costs=known.costs if known else None,
            predicted=known.predicted if known else (),
            disk_bytes=known.disk_bytes if known else 0,
            timed=known.timed if known else (),
        )
        self.folder.write_manifest(manifest)
        add_time(self.folder, DATA, time.monotonic() - began)

    def _plan(self) -> Plan:
        """Predict the time of every stage and say it; what has been timed once is kept for the next sitting."""
        manifest, task = self.folder.manifest(), self.spec.task
        known = {item.name: item.seconds for item in manifest.stages}
        costs = manifest.costs
        if costs is None:
            self.terminal.stage("plan")
            began = time.monotonic()
            options = self.entry.options_of_reference(task.preset)
            costs = rehearse(self.spec, self.space, options, manifest, known[DATA])
            add_time(self.folder, "plan", time.monotonic() - began)
        found = predict(
            self.space, task.recipes, self.request.trials, costs, self.count, self.request.timeout
        )
        self.folder.update(costs=costs, predicted=found.stages, disk_bytes=found.disk_bytes)
        _, *ahead = found.stages
        self.forecast = Forecast(ahead)
        parts = ", ".join(f"{item.name} {duration(item.seconds)}" for item in ahead)
        self.terminal.say(f"predicted: {parts}")
        self.terminal.say(
            f"together {duration(found.seconds)} and {size(found.disk_bytes)} of disk from nothing"
        )
        return found

    @contextmanager
    def _pulse(self) -> Iterator[None]:
        """Show the time left, and write it down as a sign of life, until the run ends."""
        ended = Event()

        def beat() -> None:
            while not ended.wait(SECONDS_BETWEEN_PULSES):
                left = self.forecast.seconds
                self.terminal.whole(left, time.monotonic() - self.began)
                with suppress(OSError, RecordError):  # the run itself meets the same soon, and says it
                    self.folder.write_pulse(Pulse(self.forecast.stage, self.forecast.share, left))

        thread = Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _prepare(self, executor: Executor) -> None:
        """Train the float network of every choice of options and trace its graphs.

        The strategies are trained again in the end: what those trainings start from is begun as well, and the search
        need not wait for it.
        """
        options = self.space.options
        choices = [dict(zip(options, values, strict=True)) for values in product(*options.values())]
        graphs = self.spec.graphs

        def submit() -> Iterator[Future[None]]:
            yield from (executor.submit(workers.reference, choice) for choice in choices)
            yield from (executor.submit(workers.template, *item) for item in product(choices, graphs))
            if self.count > 1:
                self._repeat_references(executor, [item.configuration for item in self.space.strategies])

        for future in self._reported(
            submit(), len(choices) * (1 + len(graphs)), "references and traces ready"
        ):
            future.result()

    @property
    def _storage(self) -> str:
        return self.request.storage or f"sqlite:///{self.folder.path / 'study.db'}"

    def _open_study(self, suffix: str = "") -> Study:
        """Open a study before anything is trained, so that a wrong storage costs nothing."""
        name = "-".join((self.entry.name, self.spec.dataset, self.spec.preset, digest(self.spec.identity)))
        return Study.open(
            self.space,
            self.objective,
            self._storage,
            name + suffix,
            self.request.seed,
            self.request.sampler,
            self._gains(),
            self.request.min_fraction,
            self.request.keep,
            self.sharing.lease if self.request.storage else None,
        )

    @property
    def sharing(self) -> Sharing:
        return Sharing(self.folder, self.terminal.say)

    def _gains(self) -> dict[str, float]:
        inventory = self.spec.inventory(self.entry.options_of_reference(self.spec.preset))
        return _gains(inventory, self.space)

    def _search(self, executor: Executor, study: Study) -> None:
        results = self._results("finetuned")
        study.recover(results)
        strategies = [item.configuration for item in self.space.strategies]
        study.learn(self._sensitivities())
        rungs = study.ladder(self.request.trials)
        study.enqueue([*strategies, *rungs])
        origins = {**{item.digest: "ladder" for item in rungs}, **self.origins}
        until = time.monotonic() + (math.inf if self.request.timeout is None else self.request.timeout)
        self.forecast.resume(len(results) / self.request.trials)

        def record(measurement: Measurement) -> None:
            self.folder.append(measurement)
            self.forecast.advance(len(results) / self.request.trials)
            left = self.forecast.seconds
            self.terminal.trial(measurement, results, self.request.trials, self.objective, left)

        search(
            study,
            workers.measure,
            self.request.trials,
            results,
            record,
            origins,
            executor,
            self.count,
            lambda: signals.going_on() and time.monotonic() < until,
            partial(workers.give_up, self.spec),
            self.sharing.gather,
        )

    def _sensitivities(self) -> Mapping[str, float]:
        """Score the groups by gradients, kept for continued runs."""
        scores = self.folder.manifest().sensitivities
        if scores is None or scores.keys() != {group.name for group in self.space.groups}:
            self.terminal.say("layer sensitivities")
            task = self.spec.task
            network = Trainer(self.spec).reference(self.entry.options_of_reference(task.preset)).network
            scores = sensitivity.fisher(
                network, task, self.spec.data, self.space, self.request.seed, self.terminal.progress
            )
            self.folder.update(sensitivities=scores)
        return scores

    def _train_finalists(self, executor: Executor, study: Study) -> list[Measurement]:
        """Train every strategy and those that are held against them for longer, and keep their files."""
        results = self._results("finetuned")
        rungs = {item.digest for item in results.values() if item.origin == "ladder"}
        baseline = self.space.strategies[0].configuration.digest
        handmade = [results[digest].reduction for digest in self.origins if digest in results]
        # Of many single trainings the luckiest would be chosen: it is the model of them all that chooses.
        searched = [
            item
            for digest, item in study.smoothed(results.values()).items()
            if digest not in self.origins
            and study.allows(item.configuration)
            and self.request.limits.keeps(results[digest], results.get(baseline), self.objective)
        ]
        limit = self._planned - len(self.space.strategies)
        challengers = finals.choose(searched, handmade, self.objective, limit)
        chosen = [item.configuration for item in self.space.strategies]
        chosen += [item.configuration for item in challengers]
        done = {
            digest: item for digest, item in self._results("full").items() if self.folder.model_file(item)
        }
        names = {item.configuration.digest: item.name for item in self.space.strategies}
        digests = [configuration.digest for configuration in chosen]
        missing = [item for item in chosen if item.digest not in done]
        self.forecast.resume(1 - len(missing) / len(chosen), len(chosen) / self._planned)
        if missing:
            self.terminal.say("float references of repeated trainings")
            self._repeat_references(executor, missing)
        for reference in as_completed(self.repeated.values()):
            reference.result()

        if missing and self.request.storage:
            # No race: runs that share a study would have to agree on who is out.
            self._share_finals(executor, missing, done, rungs)
            missing = []

        def train(items: list[Configuration], once: bool) -> None:
            def submit() -> Iterator[Future[Measurement]]:
                for item in items:
                    origin = self.origins.get(item.digest, "ladder" if item.digest in rungs else "final")
                    name = names.get(item.digest, item.digest)
                    repetitions = 1 if once and item.digest not in names else None
                    yield executor.submit(workers.measure, item, origin, "full", name, repetitions)

            for future in self._reported(submit(), len(items), "finally trained", len(chosen)):
                self.folder.append(future.result())
                done[future.result().digest] = future.result()

        # A race: challengers whose first training is already beaten are not trained again.
        train(missing, once=True)
        trained = [done[digest] for digest in digests if not done[digest].failure]
        strategies = [item for item in trained if item.digest in names]
        hopeless = finals.hopeless(trained, strategies, self.objective)
        repetitions = self.spec.task.recipes.repetitions
        again = [
            item.configuration
            for item in trained
            if item.digest not in hopeless and len(item.metrics[self.objective.name].values) < repetitions
        ]
        train(again, once=False)
        return [
            done[item.digest]
            for item in trained
            if item.digest not in hopeless and self.folder.model_file(done[item.digest])
        ]

    def _share_finals(
        self, executor: Executor, missing: list[Configuration], done: dict[str, Measurement], rungs: set[str]
    ) -> None:
        """Train finalists together with the other runs of the storage: their study is beside that of the search."""
        kinds = {item.digest: "ladder" if item.digest in rungs else "final" for item in missing}

        whole = len(done) + len(missing)

        def record(measurement: Measurement) -> None:
            self.folder.append(measurement)
            share = min(1.0, len(done) / whole)
            self.forecast.advance(share)
            self.terminal.step(f"{len(done)}/{whole} finally trained", share, self.forecast.seconds)

        with closing(self._open_study("-finals")) as study:
            study.recover(done)
            search(
                study,
                workers.finally_train,
                0,
                done,
                record,
                kinds | self.origins,
                executor,
                self.count,
                signals.going_on,
                partial(workers.give_up, self.spec, fidelity="full"),
                self.sharing.gather,
                {item.digest: item for item in missing},
            )

    def _repeat_references(self, executor: Executor, chosen: list[Configuration]) -> None:
        """Begin the float networks that repeated trainings start from, so that spreads are those of seeds."""
        recipes = self.spec.task.recipes
        if recipes.final.scratch or not recipes.independent:
            return
        for configuration, repetition in product(chosen, range(1, recipes.repetitions)):
            options = dict(configuration.options)
            key = tuple(options.values()), repetition
            if key not in self.repeated:
                self.repeated[key] = executor.submit(workers.reference, options, repetition)

    def _evaluate(self, executor: Executor, finalists: list[Measurement]) -> None:
        """Compare what the finalists generate with the reference; a fuller record goes behind the one there is."""
        missing = [item for item in finalists if self.folder.evaluation(item.digest) is None]
        baseline = next((item for item in finalists if self._is_float(item)), None)
        self.forecast.resume(1 - len(missing) / max(len(finalists), 1), len(finalists) / self._planned)
        under_way = (executor.submit(workers.evaluate, item, baseline) for item in missing)
        for future in self._reported(under_way, len(missing), "evaluated", len(finalists)):
            metrics, evaluation = future.result()
            latest = self._results("full")[evaluation.digest]
            self.folder.append(replace(latest, metrics={**latest.metrics, **metrics}))
            self.folder.write_evaluation(evaluation)

    def _time(self, finalists: list[Measurement]) -> None:
        """Time the finalists once nothing else runs, in turns with the float file."""
        timed = set(self.folder.manifest().timed)
        files = [item for item in finalists if item.model]
        missing = [item for item in files if item.digest not in timed]
        beside = next((self.folder.path / str(item.model) for item in files if self._is_float(item)), None)
        self.forecast.resume(1 - len(missing) / max(len(files), 1), len(files) / self._planned)
        for done, item in enumerate(missing, len(files) - len(missing) + 1):
            found = measuring.latencies(self.spec, self.folder.path / str(item.model), beside=beside)
            self.folder.append(replace(self._results("full")[item.digest], latency_us=found))
            timed.add(item.digest)
            self.folder.update(timed=tuple(sorted(timed)))
            self.forecast.advance(done / len(files))
            busy = " on a busy machine" if any(latency.busy for latency in found) else ""
            self.terminal.step(f"{done}/{len(files)} timed{busy}", done / len(files), self.forecast.seconds)

    def _reported(
        self, futures: "Iterator[Future[T]]", count: int, done: str, whole: int | None = None
    ) -> "Iterator[Future[T]]":
        """Yield futures when they are done, and say how many of the `whole` are: earlier sittings have done the rest.

        With one process each is submitted when the one before it has been seen to.
        """
        whole = count if whole is None else whole
        ready = as_completed([*futures]) if self.count > 1 else futures
        for index, future in enumerate(ready, whole - count + 1):
            yield future
            self.forecast.advance(index / whole)
            self.terminal.step(f"{index}/{whole} {done}", index / whole, self.forecast.seconds)

    def _results(self, fidelity: str) -> dict[str, Measurement]:
        """Give the latest measurement of every configuration at one fidelity."""
        return {item.digest: item for item in self.folder.results() if item.fidelity == fidelity}

    @cached_property
    def count(self) -> int:
        """Number of processes that measure side by side."""
        if self.request.workers is None and self.request.dask:
            return dask_cluster.count(self.request.dask)
        return self.request.workers or workers.default_workers(self.spec.device)

    def _executor(self) -> AbstractContextManager[Executor]:
        if self.request.dask:
            return dask_cluster.cluster(self.spec, self.request.dask)
        return workers.workers(self.spec, self.count)

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        """Name a stage; when it has ended, add its wall time to what earlier sittings spent on it."""
        self.terminal.stage(name)
        known = self.folder.manifest()
        self.folder.update(stage=name)
        # References that an earlier sitting has trained are read from disk, which says nothing of the rest.
        fresh = name != REFERENCES or all(item.name != name for item in known.stages)
        self.forecast.begin(name, counts=fresh)
        began = time.monotonic()
        yield
        add_time(self.folder, name, time.monotonic() - began)


def _gains(inventory: Inventory, space: SearchSpace) -> dict[str, float]:
    """Give the share of the parameters that run in each group, or of the weights that run where bits are counted."""
    layers = {layer.name: layer for layer in inventory.layers if layer.executed}
    sizes = {name: layer.weights if space.others else layer.parameters for name, layer in layers.items()}
    whole = sum(sizes.values()) if space.others else inventory.executed_parameters
    return {group.name: sum(sizes.get(name, 0) for name in group.layers) / whole for group in space.groups}


def _training_environment() -> Mapping[str, Any]:
    """Describe what trained and searched."""
    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {**{name: version(name) for name in ("torch", "optuna", "numpy")}, "accelerator": accelerator}
