"""What every stage of a run needs: what is asked, what that comes to, the folder, and how long all of it takes."""

import time
from collections.abc import Iterator
from concurrent.futures import Executor, Future, as_completed
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

from bitsearch.core.assignment import digest
from bitsearch.core.measurement import Measurement, Metric
from bitsearch.core.rundir import RunFolder
from bitsearch.core.space import SearchSpace
from bitsearch.network import catalogue, dask_cluster, workers
from bitsearch.network.loop import choose_device
from bitsearch.network.spec import Spec
from bitsearch.run.plan import REFERENCES, Forecast, most_challengers
from bitsearch.run.request import RunRequest
from bitsearch.run.sharing import Sharing
from bitsearch.run.stages import add_time
from bitsearch.run.study import Study
from bitsearch.run.terminal import Terminal

T = TypeVar("T")


@dataclass
class Context:
    """One sitting of a run."""

    request: RunRequest
    entry: catalogue.Entry
    spec: Spec
    space: SearchSpace
    folder: RunFolder
    terminal: Terminal
    forecast: Forecast = field(default_factory=lambda: Forecast(()))
    began: float = field(default_factory=time.monotonic)

    @classmethod
    def of(cls, request: RunRequest, folder: RunFolder, terminal: Terminal) -> "Context":
        """Look up what the request names."""
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

    @property
    def objective(self) -> Metric:
        """What the search optimises."""
        task = self.spec.task
        return next(metric for metric in task.metrics if metric.name == task.objective)

    def is_float(self, item: Measurement) -> bool:
        """Tell whether a measurement is that of the float strategy, which comes first."""
        return item.digest == self.space.strategies[0].configuration.digest

    @property
    def planned(self) -> int:
        """Number of finalists at most."""
        return len(self.space.strategies) + most_challengers(self.spec.task.recipes, self.request.trials)

    @property
    def origins(self) -> dict[str, str]:
        """Where configurations that do not come from the search come from, by digest."""
        return {item.configuration.digest: f"baseline:{item.name}" for item in self.space.strategies}

    def gains(self) -> dict[str, float]:
        """Give the share of the parameters that run in each group, or of the weights where bits are counted."""
        inventory = self.spec.inventory(self.entry.options_of_reference(self.spec.preset))
        layers = {layer.name: layer for layer in inventory.layers if layer.executed}
        by_weights = bool(self.space.others)
        sizes = {name: layer.weights if by_weights else layer.parameters for name, layer in layers.items()}
        whole = sum(sizes.values()) if by_weights else inventory.executed_parameters
        return {
            group.name: sum(sizes.get(name, 0) for name in group.layers) / whole
            for group in self.space.groups
        }

    @property
    def storage(self) -> str:
        """Where the study is kept."""
        return self.request.storage or f"sqlite:///{self.folder.path / 'study.db'}"

    def open_study(self, suffix: str = "") -> Study:
        """Open a study before anything is trained, so that a wrong storage costs nothing."""
        name = "-".join((self.entry.name, self.spec.dataset, self.spec.preset, digest(self.spec.identity)))
        return Study.open(
            self.space,
            self.objective,
            self.storage,
            name + suffix,
            self.request.seed,
            self.request.sampler,
            self.gains(),
            self.request.min_fraction,
            self.request.keep,
            self.sharing.lease if self.request.storage else None,
        )

    @property
    def sharing(self) -> Sharing:
        """What this run has to do with others of its storage."""
        return Sharing(self.folder, self.terminal.say)

    def results(self, fidelity: str) -> dict[str, Measurement]:
        """Give the latest measurement of every configuration at one fidelity."""
        return {item.digest: item for item in self.folder.results() if item.fidelity == fidelity}

    @cached_property
    def count(self) -> int:
        """Number of processes that measure side by side."""
        if self.request.workers is None and self.request.dask:
            return dask_cluster.count(self.request.dask)
        return self.request.workers or workers.default_workers(self.spec.device)

    def executor(self) -> AbstractContextManager[Executor]:
        """Give the processes that train and measure."""
        if self.request.dask:
            return dask_cluster.cluster(self.spec, self.request.dask)
        return workers.workers(self.spec, self.count)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
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

    def reported(
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
