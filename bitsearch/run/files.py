"""`bitsearch search`: precisions of the layers of a finished ONNX file, nothing trained."""

import hashlib
import itertools
import math
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from bitsearch import report
from bitsearch.core import pareto
from bitsearch.core.assignment import Assignment, digest
from bitsearch.core.errors import ConfigurationError, DataError, ExportError, one_of
from bitsearch.core.front import Front
from bitsearch.core.knapsack import cover
from bitsearch.core.manifest import GroupedLayer, Manifest, NamedStrategy
from bitsearch.core.measurement import Latency, Measurement, Metric, Quantity
from bitsearch.core.names import masked, printable, safe_name
from bitsearch.core.precision import Precision
from bitsearch.core.rundir import RunFolder
from bitsearch.core.space import Group, SearchSpace
from bitsearch.core.strategy import Configuration, Strategy
from bitsearch.core.task import DataFile, DataIdentity
from bitsearch.onnxfile import calibrate, graph, inputs, runtime, upgrade
from bitsearch.onnxfile.candidates import Candidates, mean_bits
from bitsearch.onnxfile.guard import Guard
from bitsearch.onnxfile.judge import Judge
from bitsearch.onnxfile.products import Backend
from bitsearch.run.problem import MOST_RUNGS, describe
from bitsearch.run.samplers import check_sampler
from bitsearch.run.search import search
from bitsearch.run.stages import add_time, require_same, stage
from bitsearch.run.storage import answering
from bitsearch.run.study import Study
from bitsearch.run.terminal import Terminal

CHUNK = 2**20
SMALLEST = 1e-12


@dataclass(frozen=True)
class FileRequest:
    """What a user asks of `bitsearch search`; `trials` come on top of whole files of one precision and layers alone."""

    file: Path
    data: Path
    labels: Path | None
    trials: int
    out: Path
    seed: int = 1
    sampler: str = "mask"
    precisions: tuple[Precision, ...] = (Precision.FLOAT32, Precision.INT8, Precision.TERNARY)
    metric: str | None = None
    backend: str = "ternary"
    batches: tuple[int, ...] = ()
    keep: tuple[str, ...] = ()
    max_bits: float | None = None
    timeout: float | None = None
    storage: str | None = None


def run(request: FileRequest, terminal: Terminal) -> Path:
    """Search the precisions of a file's layers and write the run folder; give the path of the report.

    With a folder that the same search has begun, it goes on from what is on disk.

    Raises:
        BitsearchError: a file, data or labels that do not fit, bad limits, or a folder of another run.
    """
    _check(request)
    began = time.monotonic()
    terminal.stage("data")
    with graph.refusals(request.file):
        model = graph.read(request.file)
        judge = Judge(model, request.data, request.labels)
        kept = _kept_before(request)
        if kept is None:
            guard = Guard(Backend(request.backend), request.batches)
            guard.limit(upgrade.prepare(model), lambda _: Precision.TERNARY)
            kept = guard.kept
        round_weights = calibrate.rounder(model, lambda _: Precision.TERNARY, request.data, judge.seen)
        candidates = Candidates(model, round_weights, request.backend, kept)
    prepared = _Search(request, candidates, judge, RunFolder(request.out), terminal)
    describe(prepared.space, prepared.gains, prepared.least, request.keep)
    require_metric(judge, request.metric)
    with prepared.folder.locked():
        return prepared.execute(began)


def _kept_before(request: FileRequest) -> dict[str, str] | None:
    """Say which layers a search that has begun keeps in float32: other times must not change what is searched."""
    if not request.batches:
        return {}
    folder = RunFolder(request.out)
    return dict(folder.manifest().settings.get("slower", {})) if folder.begun else None


def _check(request: FileRequest) -> None:
    if request.trials < 1:
        raise ConfigurationError(f"--trials {request.trials}: expected 1 or more")
    if request.timeout is not None and not request.timeout > 0:
        raise ConfigurationError(f"--timeout {request.timeout:g}: expected more than 0 seconds")
    if request.max_bits is not None and not 0 < request.max_bits <= 32:
        raise ConfigurationError(f"--max-bits {request.max_bits:g}: expected more than 0, up to 32")
    if Precision.TERNARY not in request.precisions and Precision.BINARY not in request.precisions:
        raise ConfigurationError(
            f"--precisions {' '.join(request.precisions)}: expected ternary or binary among them"
        )
    check_sampler(request.sampler, request.max_bits is not None or bool(request.keep))


def require_metric(judge: Judge, name: str | None) -> Metric:
    """Give the metric of this name, or the default; raises ConfigurationError where it is not measured."""
    known = {item.name: item for item in judge.metrics}
    name = name or judge.metrics[0].name
    if name not in known:
        more = "" if judge.labels is not None else "; those of labels need --labels"
        raise ConfigurationError(f"--metric {name}: {one_of(name, known, more)}")
    return known[name]


@dataclass(frozen=True)
class _Search:
    request: FileRequest
    candidates: Candidates
    judge: Judge
    folder: RunFolder
    terminal: Terminal

    @property
    def space(self) -> SearchSpace:
        """Every layer by itself; files that are all of one precision are what others are held to."""
        names = self.candidates.layers.inventory.names
        *others, lowest = sorted(
            {*self.request.precisions} - {Precision.FLOAT32}, key=lambda item: (-item.bits, item)
        )
        return SearchSpace(
            names,
            tuple(Group(name, (name,), "") for name in names),
            {},
            tuple(
                Strategy(str(value), Configuration(Assignment(dict.fromkeys(names, value))), text)
                for value in (Precision.FLOAT32, *others, lowest)
                if (text := "the file as it is" if value is Precision.FLOAT32 else f"every layer {value}")
            ),
            lowest,
            tuple(others),
        )

    @property
    def gains(self) -> dict[str, float]:
        """The share of every layer: of the weights where bits are counted, else of the parameters."""
        inventory = self.candidates.layers.inventory
        if self.space.others:
            total = sum(layer.weights for layer in inventory.layers)
            return {layer.name: layer.weights / total for layer in inventory.layers}
        return {layer.name: layer.parameters / inventory.executed_parameters for layer in inventory.layers}

    @property
    def least(self) -> float:
        """What proposals must gain."""
        return 0.0 if self.request.max_bits is None else 1 - self.request.max_bits / 32

    @property
    def objective(self) -> Metric:
        return require_metric(self.judge, self.request.metric)

    def execute(self, began: float) -> Path:
        self._begin()
        add_time(self.folder, "data", time.monotonic() - began)
        with answering(self._storage), closing(self._study()) as study:
            return self._go_through(study)

    def _go_through(self, study: Study) -> Path:
        results = {item.digest: item for item in self.folder.results()}
        study.recover(results)
        strategies = {item.configuration.digest: item for item in self.space.strategies}
        singles = {item.digest: item for item in self._singles()}
        origins = dict.fromkeys(singles, "alone")
        origins |= {digest: f"baseline:{item.name}" for digest, item in strategies.items()}
        first = {*origins}
        total = self.request.trials + len(first)
        until = time.monotonic() + (math.inf if self.request.timeout is None else self.request.timeout)
        started, measured = time.monotonic(), len(results)

        def record(measurement: Measurement) -> None:
            self.folder.append(measurement)
            a_trial = (time.monotonic() - started) / max(len(results) - measured, 1)
            left = a_trial * max(total - len(results), 0)
            self.terminal.trial(measurement, results, total, self.objective, left)

        with stage(self.folder, self.terminal, "layers alone"):
            study.enqueue([*(item.configuration for item in strategies.values()), *singles.values()])
            search(study, self._measure, len(first), results, record, origins)
            self._show_alone(results)
        study.learn(self.folder.manifest().sensitivities or {})
        rungs = self._rungs(study, results)
        study.enqueue(rungs)
        origins = {item.digest: "ladder" for item in rungs} | origins
        with stage(self.folder, self.terminal, "search"):
            search(
                study,
                self._measure,
                total,
                results,
                record,
                origins,
                goes_on=lambda: time.monotonic() < until,
            )
        front = Front.of(results.values(), self.objective, [*strategies])
        with stage(self.folder, self.terminal, "files and latency"):
            # The float file first: the others are timed in turns with it.
            kept = {digest: results[digest] for digest in strategies if digest in results}
            kept |= {item.digest: item for item in front.members}
            for item in kept.values():
                self._keep(item, strategies.get(item.digest))
        latest = {item.digest: item for item in self.folder.results()}
        self.folder.write_front(Front.of(latest.values(), self.objective, [*strategies]))
        self.folder.update(ended=datetime.now(UTC).isoformat(timespec="seconds"))
        with stage(self.folder, self.terminal, "report"):
            return report.build(self.folder)

    def _singles(self) -> list[Configuration]:
        """Give the file with one layer in few bits, for every layer that may have them."""
        space = self.space
        kept = describe(space, self.gains, self.least, self.request.keep).kept
        return [
            space.choose({group.name: space.precision}, {})
            for group in space.groups
            if group.name not in kept
        ]

    def _begin(self) -> None:
        """Write what is known before any measurement, or check that the folder holds the same search."""
        request, layers = self.request, self.candidates.layers
        files = {"model": request.file, "data": request.data}
        files |= {} if request.labels is None else {"labels": request.labels}
        identity = {name: _digest_of(path) for name, path in files.items()} | {
            "model": _digest_of(request.file, *graph.data_files(request.file)),
            "bitsearch": version("bitsearch"),
            "precisions": " ".join(self.space.precisions),
            "metric": self.objective.name,
            "backend": request.backend,
            "batches": " ".join(map(str, request.batches)),
        }
        known = self.folder.manifest() if self.folder.begun else None
        if known:
            require_same(self.folder, known.identity, identity)
        rows = len(self.judge.rows)
        halves = (
            "every second batch, which weights were not rounded on" if self.judge.halves else "all of them"
        )
        self.folder.write_manifest(
            Manifest(
                model=request.file.stem,
                dataset=request.data.name,
                preset="",
                seed=request.seed,
                trials=request.trials,
                metrics=self.judge.metrics,
                objective=self.objective.name,
                version=version("bitsearch"),
                command=tuple(masked(word) for word in ("bitsearch", *sys.argv[1:])),
                title=f"Mixed precision of {request.file.name}",
                identity=identity,
                data=DataIdentity(
                    False,
                    f"Nothing was trained; files were measured on {rows} rows ({halves}).",
                    tuple(
                        DataFile(name, path.name, rows if name == "data" else 0, identity[name])
                        for name, path in files.items()
                    ),
                ),
                sampler=request.sampler,
                keep=request.keep,
                settings={
                    "backend": request.backend,
                    "precisions": [*self.space.precisions],
                    "declined": dict(layers.declined),
                    "slower": dict(self.candidates.kept),
                },
                layers=tuple(
                    GroupedLayer(**asdict(layer), group=layer.name) for layer in layers.inventory.layers
                ),
                groups=self.space.groups,
                strategies=tuple(
                    NamedStrategy(item.name, item.configuration.digest, item.description)
                    for item in self.space.strategies
                ),
                sensitivities=known.sensitivities if known else None,
                environment={**runtime.environment(), "optuna": version("optuna")},
                started=known.started if known else datetime.now(UTC).isoformat(timespec="seconds"),
                stages=known.stages if known else (),
            )
        )

    @property
    def _storage(self) -> str:
        return self.request.storage or f"sqlite:///{self.folder.path / 'study.db'}"

    def _study(self) -> Study:
        identity = digest(dict(self.folder.manifest().identity))
        return Study.open(
            self.space,
            self.objective,
            self._storage,
            f"{self.request.file.stem}-{identity}",
            self.request.seed,
            self.request.sampler,
            self.gains,
            self.least,
            self.request.keep,
        )

    def _measure(self, configuration: Configuration, origin: str) -> Measurement:
        """Make the file and run it on the data; what cannot be measured is recorded with its failure."""
        layers, assignment = self.candidates.layers, configuration.assignment
        fractions = layers.inventory.fractions(assignment)
        found: dict[str, Quantity] = {}
        size = 0
        failure: str | None = None
        try:
            found, size = self.judge.measure(self.candidates.make(assignment)[0])
        except (DataError, ExportError) as error:
            failure = str(error)
        return Measurement(
            digest=configuration.digest,
            origin=origin,
            assignment={name: str(value) for name, value in assignment.items()},
            options={},
            fraction=fractions.fraction,
            weight_fraction=fractions.weight_fraction,
            executed_fraction=fractions.executed_fraction,
            fidelity="untrained",
            seed=self.request.seed,
            metrics=found,
            size_bytes=size,
            failure=failure,
            mean_bits=mean_bits(layers, assignment) if self.space.others else None,
        )

    def _show_alone(self, results: Mapping[str, Measurement]) -> None:
        """Say how much each layer alone costs, the most harmful first, and keep that."""
        costs = self._costs(results)
        self.folder.update(sensitivities=costs)
        for name in sorted(costs, key=lambda name: -costs[name]):
            self.terminal.say(
                f"{printable(name)} alone in {self.space.precision}: {self.objective.name} worse by {costs[name]:.4g}"
            )

    def _costs(self, results: Mapping[str, Measurement]) -> dict[str, float]:
        """Give how much worse the objective is with each layer alone in few bits; the worst of all where it failed."""
        reference = results[self.space.strategies[0].configuration.digest]
        base = pareto.loss(reference, self.objective)
        found = {
            group.name: results.get(self.space.choose({group.name: self.space.precision}, {}).digest)
            for group in self.space.groups
        }
        known = {
            name: max(pareto.loss(item, self.objective) - base, 0.0)
            for name, item in found.items()
            if item is not None and pareto.usable(item, self.objective)
        }
        worst = max(known.values(), default=1.0)
        return {name: known.get(name, worst) for name in found}

    def _rungs(self, study: Study, results: Mapping[str, Measurement]) -> list[Configuration]:
        """Solve for the least sum of single costs at spread targets, every precision between at its share of them."""
        costs, problem = self._costs(results), study.problem
        whole = [results.get(item.configuration.digest) for item in self.space.strategies]
        losses = [
            pareto.loss(item, self.objective)
            if item is not None and pareto.usable(item, self.objective)
            else math.inf
            for item in whole
        ]
        harm = max(losses[-1] - losses[0], SMALLEST)
        shares = [
            min(max((loss - losses[0]) / harm, 0.0), 1.0) if math.isfinite(loss) else 1.0 for loss in losses
        ]
        shares[-1] = 1.0
        levels = [
            [costs[name] * share for share in shares[: len(own)]]
            for name, own in zip(problem.groups, problem.reachable, strict=True)
        ]
        count = min(MOST_RUNGS, max(1, self.request.trials // 3))
        chosen = [
            problem.parameters(cover(levels, problem.reachable, problem.between(step / count)), {})
            for step in range(1, count + 1)
        ]
        return list(dict.fromkeys(study.configuration(item) for item in chosen))

    def _keep(self, item: Measurement, strategy: Strategy | None) -> None:
        """Write the file of a measurement into the run folder and time it, unless that was done."""
        if self.folder.model_file(item) is not None and item.latency_us:
            return
        model, _ = self.candidates.make(item.configuration.assignment)
        name = f"models/{safe_name(strategy.name if strategy else item.digest)}.onnx"
        (self.folder.path / "models").mkdir(exist_ok=True)
        graph.write(graph.copied(model), self.folder.path / name)
        file = self.folder.path / name
        self.folder.append(
            replace(item, model=name, size_bytes=graph.size_on_disk(file), latency_us=self._latencies(file))
        )

    def _latencies(self, file: Path) -> tuple[Latency, ...]:
        """Time one row and one batch of the data, or the batch that the file insists on, in turns with float32."""
        session, reference = inputs.open_file(file), self.folder.models / f"{Precision.FLOAT32}.onnx"
        beside = None if file == reference else inputs.open_file(reference)
        kernel = runtime.kernel_of(file)
        feed = dict(sorted(next(self.judge.seen(session)).items(), key=lambda item: item[1].ndim == 0))
        rows = max(1, *(len(array) for array in feed.values() if array.ndim)) if feed else 1
        free = all(item.shape and not isinstance(item.shape[0], int) for item in session.get_inputs())
        feeds = [{name: array[:1] for name, array in feed.items()}] if free and rows > 1 else []
        return tuple(
            runtime.time_session(session, item, threads=1, kernel=kernel, beside=beside)
            for item in (*feeds, feed)
        )


def _digest_of(*paths: Path) -> str:
    """Hash the content of files, or of the .npz files of folders, in order."""
    hasher = hashlib.sha256()
    files = [sorted(path.glob("*.npz")) if path.is_dir() else [path] for path in paths]
    for file in itertools.chain.from_iterable(files):
        with file.open("rb") as stream:
            while piece := stream.read(CHUNK):
                hasher.update(piece)
    return hasher.hexdigest()
