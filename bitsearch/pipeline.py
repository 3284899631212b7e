"""`bitsearch run`: data, float references, baselines and search, final training, evaluation, report."""

import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from bitsearch import catalogue, pareto, report, sensitivity
from bitsearch.errors import ConfigurationError
from bitsearch.laboratory import Laboratory
from bitsearch.records import Measurement, Metric
from bitsearch.rundir import RunFolder
from bitsearch.runtime import chosen_kernel, open_session
from bitsearch.search import SAMPLERS, Study, ladder, search
from bitsearch.space import SearchSpace
from bitsearch.strategy import Configuration
from bitsearch.terminal import Terminal
from bitsearch.training import choose_device


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
    workers: int
    storage: str | None
    out: Path
    sampler: str = "TPESampler"


def run(request: RunRequest, terminal: Terminal) -> Path:
    """Search mixed precisions of a model and write the run folder; give the path of the report.

    With a folder that a run has begun, it goes on from what is on disk.

    Raises:
        BitsearchError: bad names, data, or a folder of another run.
    """
    if request.trials < 1 or request.workers < 1:
        raise ConfigurationError(
            f"--trials {request.trials} and --workers {request.workers}: expected 1 or more of each"
        )
    if request.sampler not in SAMPLERS:
        raise ConfigurationError(
            f"there is no sampler {request.sampler!r}; expected one of {', '.join(SAMPLERS)}"
        )
    entry = catalogue.find(request.model)
    task = entry.task(request.dataset, request.preset)
    folder = RunFolder(request.out)
    with folder.locked():
        laboratory = Laboratory(
            model=request.model,
            dataset=task.dataset,
            preset=request.preset,
            paths=request.data,
            folder=request.out,
            seed=request.seed,
            device=choose_device(request.device),
            threads=_threads(1),
            progress=terminal.progress,
        )
        torch.set_num_threads(laboratory.threads)
        return _Run(request, entry, laboratory, entry.space(task), folder, terminal).execute()


@dataclass
class _Run:
    request: RunRequest
    entry: catalogue.Entry
    laboratory: Laboratory
    space: SearchSpace
    folder: RunFolder
    terminal: Terminal

    def execute(self) -> Path:
        self._begin()
        with self._stage("data"):
            identity = self.laboratory.data.identity
        data = json.loads(json.dumps(asdict(identity)))
        if (known := self.folder.settings().get("data", data)) != data:
            raise ConfigurationError(
                f"{self.folder.path} holds a run on other data: {known['statement']} found {data['statement']} "
                "the content of a file has changed; choose another --out"
            )
        self.folder.update({"data": data})
        with self._stage("float references"):
            self.laboratory.references(self.space.options)
        with self._stage("baselines and search"):
            self._search()
        with self._stage("final training"):
            finalists = self._train_finalists()
        with self._stage("evaluation"):
            self._evaluate(finalists)
        self.folder.write_front(pareto.front(self._results("full").values(), self.objective))
        self.folder.update({"ended": datetime.now(UTC).isoformat(timespec="seconds")})
        with self._stage("report"):
            return report.build(self.folder)

    @property
    def objective(self) -> Metric:
        task = self.laboratory.task
        return next(metric for metric in task.metrics if metric.name == task.objective)

    @property
    def origins(self) -> dict[str, str]:
        return {item.configuration.digest: f"baseline:{item.name}" for item in self.space.strategies}

    def _begin(self) -> None:
        """Write what is known before any work, or check that the folder holds the same run."""
        known = self.folder.settings()
        signature = self.laboratory.signature
        if known and known.get("signature") != signature:
            raise ConfigurationError(
                f"{self.folder.path} holds a run of {known.get('model')} on {known.get('dataset')} with preset "
                f"{known.get('preset')} and seed {known.get('seed')} whose settings or data differ; "
                "choose another --out, or repeat that run's flags to continue it"
            )
        task, inventory = (
            self.laboratory.task,
            catalogue.inventory(self.laboratory.task, self.entry.options_of_reference),
        )
        group_of = {name: group.name for group in self.space.groups for name in group.layers}
        self.folder.update(
            {
                "signature": signature,
                "version": version("bitsearch"),
                "command": ["bitsearch", *sys.argv[1:]],
                **{
                    name: getattr(self.request, name)
                    for name in ("model", "preset", "seed", "trials", "workers")
                },
                "dataset": task.dataset,
                "device": self.laboratory.device,
                "title": f"Mixed precision of {self.entry.name} on {task.dataset}",
                "settings": task.settings,
                "sampler": self.request.sampler,
                "metrics": [asdict(metric) for metric in task.metrics],
                "objective": task.objective,
                "layers": [{**asdict(layer), "group": group_of[layer.name]} for layer in inventory.layers],
                "groups": [asdict(group) for group in self.space.groups],
                "options": dict(self.space.options),
                "strategies": [
                    {"name": item.name, "digest": item.configuration.digest, "description": item.description}
                    for item in self.space.strategies
                ],
                "published": {
                    "source": self.entry.published_source,
                    "results": [asdict(item) for item in self.entry.published(task.dataset)],
                },
                "environment": environment(),
                "started": known.get("started", datetime.now(UTC).isoformat(timespec="seconds")),
                "stages": known.get("stages", []),
            }
        )

    def _search(self) -> None:
        results = self._results("finetuned")
        storage = self.request.storage or f"sqlite:///{self.folder.path / 'study.db'}"
        name = f"{self.entry.name}-{self.laboratory.dataset}-{self.laboratory.preset}-{self.laboratory.signature}"
        study = Study.open(self.space, self.objective, storage, name, self.request.seed, self.request.sampler)
        study.recover(results)
        strategies = [item.configuration for item in self.space.strategies]
        study.enqueue([*strategies, *self._ladder()])
        with self._executor() as executor, self.terminal.trials(len(results), self.request.trials) as shown:

            def record(measurement: Measurement) -> None:
                self.folder.append(measurement)
                shown(measurement, self.objective)

            search(
                study,
                _measure if executor else self.laboratory.measure,
                self.request.trials,
                results,
                record,
                self.origins,
                executor,
                self.request.workers,
            )

    def _ladder(self) -> list[Configuration]:
        """Seed the search with the groups that gradients call harmless, kept for continued runs."""
        file = self.laboratory.folder / "work" / "sensitivities.json"
        inventory = catalogue.inventory(self.laboratory.task, self.entry.options_of_reference)
        if file.is_file():
            scores = json.loads(file.read_text())
        else:
            self.terminal.progress("layer sensitivities", 0.0)
            network = self.laboratory.reference(self.entry.options_of_reference).network
            scores = sensitivity.fisher(
                network, self.laboratory.task, self.laboratory.data, self.space, self.request.seed
            )
            file.write_text(json.dumps(scores))
        weights = {layer.name: layer.weights for layer in inventory.layers}
        sizes = {group.name: sum(weights[name] for name in group.layers) for group in self.space.groups}
        self.folder.update({"sensitivities": scores})
        return ladder(self.space, sizes, scores)

    def _train_finalists(self) -> list[Measurement]:
        """Train every strategy and a spread of the search's front for longer, and keep their files."""
        front = pareto.front(self._results("finetuned").values(), self.objective)
        searched = [item.configuration for item in front if item.digest not in self.origins]
        limit = self.laboratory.task.recipes.finalists
        chosen = [*(item.configuration for item in self.space.strategies), *_spread(searched, limit)]
        done = {
            digest: item
            for digest, item in self._results("full").items()
            if item.model and (self.folder.path / item.model).is_file()
        }
        names = {item.configuration.digest: item.name for item in self.space.strategies}
        finalists = []
        for index, configuration in enumerate(chosen):
            digest = configuration.digest
            if digest not in done:
                self.terminal.stage(
                    f"final training {index + 1} of {len(chosen)}: {names.get(digest, digest)}"
                )
                origin = self.origins.get(digest, "final")
                done[digest] = self.laboratory.measure(
                    configuration, origin, "full", names.get(digest, digest)
                )
                self.folder.append(done[digest])
            finalists.append(done[digest])
        return [item for item in finalists if not item.failure]

    def _evaluate(self, finalists: list[Measurement]) -> None:
        """Compare what the finalists generate with the reference; their records get the full metrics."""
        for index, item in enumerate(finalists):
            if self.folder.evaluation(item.digest) is not None or item.model is None:
                continue
            self.terminal.stage(f"evaluating {index + 1} of {len(finalists)}: {Path(item.model).stem}")
            session = open_session(self.folder.path / item.model, self.laboratory.threads)
            metrics, evaluation = self.laboratory.task.evaluate(
                session, self.laboratory.data, item.digest, self.request.seed, self.terminal.progress
            )
            self.folder.append(replace(item, metrics={**item.metrics, **metrics}))
            self.folder.write_evaluation(evaluation)

    def _results(self, fidelity: str) -> dict[str, Measurement]:
        """Give the latest measurement of every configuration at one fidelity."""
        return {item.digest: item for item in self.folder.results() if item.fidelity == fidelity}

    def _executor(self) -> Any:
        if self.request.workers == 1:
            return nullcontext(None)
        laboratory = replace(self.laboratory, threads=_threads(self.request.workers))
        executor: Executor = ProcessPoolExecutor(
            self.request.workers,
            get_context("spawn"),
            initializer=_set_up,
            initargs=(laboratory.without_progress(),),
        )
        return executor

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        """Name a stage and add its wall time to what earlier sittings spent on it."""
        self.terminal.stage(name)
        began = time.monotonic()
        yield
        stages = {item["name"]: item["seconds"] for item in self.folder.settings()["stages"]}
        stages[name] = stages.get(name, 0.0) + time.monotonic() - began
        self.folder.update({"stages": [{"name": key, "seconds": value} for key, value in stages.items()]})


_worker: Laboratory | None = None


def _set_up(laboratory: Laboratory) -> None:
    global _worker
    torch.set_num_threads(laboratory.threads)
    _worker = laboratory


def _measure(configuration: Configuration, origin: str) -> Measurement:
    assert _worker is not None
    return _worker.measure(configuration, origin)


def _spread(configurations: list[Configuration], limit: int) -> list[Configuration]:
    """Keep up to `limit`, evenly along the front, both ends among them."""
    if len(configurations) <= limit:
        return configurations
    steps = max(limit - 1, 1)
    return [configurations[round(index * (len(configurations) - 1) / steps)] for index in range(limit)]


def _threads(workers: int) -> int:
    """Share torch's threads, all cores unless the environment says otherwise, among workers."""
    return max(1, torch.get_num_threads() // workers)


def environment() -> Mapping[str, Any]:
    """Describe versions and hardware."""
    packages = ("torch", "onnx", "onnxruntime", "optuna", "numpy")
    cuda = torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
        "processor": _processor(),
        "cores": os.cpu_count(),
        "kernel": chosen_kernel(),
        "accelerator": torch.cuda.get_device_name() if cuda else None,
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
