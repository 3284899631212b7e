"""Train, export and measure one configuration: the function that a search is given."""

import copy
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

import bitsearch
from bitsearch.core.atomic import write_atomically
from bitsearch.core.errors import CheckpointError, ExportError, TrainingError
from bitsearch.core.measurement import (
    Evaluation,
    Fidelity,
    Latency,
    Measurement,
    Parity,
    Quantity,
    over_trainings,
)
from bitsearch.core.names import safe_name
from bitsearch.core.rounding import Rounding
from bitsearch.core.rundir import RunFolder
from bitsearch.core.seeds import derive
from bitsearch.core.space import Inventory
from bitsearch.core.strategy import Configuration
from bitsearch.core.task import Progress, Recipe, Task
from bitsearch.network import catalogue, export, parity, quant
from bitsearch.network.checkpoint import load_state
from bitsearch.network.loop import Trained, train
from bitsearch.onnxfile import graph as graph_file
from bitsearch.onnxfile.runtime import TIMING_SECONDS, open_session, time_session

PARITY_EVENTS = 64
GLANCE_SECONDS = 0.02
"""How long a candidate's latency is taken: beside other trainings it is a hint, and the front is timed again."""
Models = Mapping[str, onnx.ModelProto]


def silent(_text: str, _share: float) -> None:
    """Report no progress."""


@dataclass
class Laboratory:
    """Everything that measuring needs, from names and paths alone, so that other processes can set it up again.

    Use: `reference` and `template` for all options, `measure` for every configuration, `evaluate` for those that are
    published.
    """

    model: str
    dataset: str
    preset: str
    paths: tuple[Path, ...]
    folder: Path
    seed: int
    device: str
    threads: int
    progress: Progress = silent
    recipe: str | None = None

    @cached_property
    def task(self) -> Task:
        """Give the model on its data set."""
        return catalogue.find(self.model).task(self.dataset, self.preset, self.recipe)

    @cached_property
    def data(self) -> Any:
        """Give the loaded data."""
        return self.task.load(self.paths, self.seed, self.progress).to(self.device)

    def without_progress(self) -> "Laboratory":
        """Give a laboratory that another process can be sent: nothing loaded, nobody watching."""
        return replace(self, progress=silent)

    def inventory(self, options: Mapping[str, str]) -> Inventory:
        """Count the layers of the network with these options, once."""
        key = tuple(options.values())
        if key not in self._inventories:
            self._inventories[key] = catalogue.inventory(self.task, options)
        return self._inventories[key]

    @cached_property
    def _inventories(self) -> dict[tuple[str, ...], Inventory]:
        return {}

    @cached_property
    def _references(self) -> dict[tuple[tuple[str, ...], int], Trained]:
        return {}

    def network(self, options: Mapping[str, str], repetition: int = 0) -> nn.Module:
        """Build the float network; its structure follows from the seed, its initial weights also from `repetition`."""
        torch.manual_seed(derive(self.seed, repetition))
        return self.task.network(options, self.seed)

    def reference(self, options: Mapping[str, str], repetition: int = 0) -> Trained:
        """Train the float network from scratch, or take up what was trained before."""
        key = tuple(options.values()), repetition
        if key not in self._references:
            checkpoint = self._work("reference", options, f"-{repetition}.pt")
            network = self._untrained(options, repetition, checkpoint)
            recipe = self.task.recipes.reference
            self._references[key] = self._train(network, recipe, derive(self.seed, repetition), checkpoint)
        trained = self._references[key]
        return replace(trained, network=copy.deepcopy(trained.network))

    @property
    def graphs(self) -> list[str]:
        """Name the graphs that measuring needs, the served one first."""
        return list(dict.fromkeys((self.task.served, *self.task.measured)))

    def template(self, options: Mapping[str, str], graph: str) -> onnx.ModelProto:
        """Trace a graph, or read the trace made before."""
        file = self._work(f"trace-{graph}", options, ".onnx")
        if not file.is_file():
            self.progress(f"tracing {graph}", 0.0)
            template = export.trace(self.task.graphs(self.network(options))[graph])
            write_atomically(file, template.SerializeToString())
        try:
            return graph_file.read(file)
        except ExportError as error:
            raise CheckpointError(f"{error}; remove it, and it is made again") from error

    def train(
        self,
        configuration: Configuration,
        recipe: Recipe,
        repetition: int = 0,
        checkpoint: Path | None = None,
    ) -> Trained:
        """Train a configuration from its float reference, or from scratch where the recipe says so."""
        if recipe.scratch:
            network = self._untrained(configuration.options, repetition, checkpoint)
        else:
            own = repetition if self.task.recipes.independent else 0
            network = self.reference(configuration.options, own).network
        rounding = self.task.recipes.roundings(configuration.assignment)
        quant.apply(network, configuration.assignment, rounding=rounding)
        return self._train(network, recipe, derive(self.seed, repetition), checkpoint)

    def export(
        self, network: nn.Module, configuration: Configuration, graph: str, strategy: str | None = None
    ) -> onnx.ModelProto:
        """Lower a trained network to an ONNX file's content."""
        metadata = export.Metadata(
            version=bitsearch.__version__,
            model=self.model,
            dataset=self.dataset,
            fraction=self.inventory(configuration.options).fractions(configuration.assignment).fraction,
            config={
                **self.task.settings,
                "preset": self.preset,
                "recipe": self.task.recipes.name,
                "rounding": quant.roundings(network),
                "options": dict(configuration.options),
            },
            strategy=strategy,
        )
        template = self.template(configuration.options, graph)
        rounding = quant.roundings(network)
        return export.lower(
            template, network.state_dict(), configuration.assignment, metadata, rounding=rounding
        )

    def measure(
        self,
        configuration: Configuration,
        origin: str,
        fidelity: Fidelity = "finetuned",
        keep: str | None = None,
    ) -> Measurement:
        """Train, export and measure; with `keep` the served file goes to `models/<keep>.onnx`.

        Candidates are measured on validation events, final trainings on test events. Whatever fails for this
        configuration alone gives a measurement that says why.

        Raises:
            OSError: files cannot be written, which would fail for every other configuration too.
            CheckpointError: what an earlier sitting left of its training is damaged.
        """
        began = time.monotonic()
        base = self._base(configuration, origin, fidelity)
        try:
            return self._measured(base, keep)
        except (OSError, CheckpointError):
            raise
        except TrainingError as error:
            reason = str(error)
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
        return replace(base, failure=reason, train_seconds=time.monotonic() - began)

    def failed(
        self, configuration: Configuration, origin: str, fidelity: Fidelity, reason: str
    ) -> Measurement:
        """Record that a configuration could not be measured."""
        return replace(self._base(configuration, origin, fidelity), failure=reason)

    def _base(self, configuration: Configuration, origin: str, fidelity: Fidelity) -> Measurement:
        fractions = self.inventory(configuration.options).fractions(configuration.assignment)
        return Measurement(
            digest=configuration.digest,
            origin=origin,
            assignment={name: str(value) for name, value in configuration.assignment.items()},
            options=dict(configuration.options),
            fraction=fractions.fraction,
            weight_fraction=fractions.weight_fraction,
            executed_fraction=fractions.executed_fraction,
            fidelity=fidelity,
            seed=self.seed,
        )

    def _measured(self, base: Measurement, keep: str | None) -> Measurement:
        configuration, recipes = base.configuration, self.task.recipes
        if base.fidelity == "full":
            trainings = [self._finally(configuration, index) for index in range(recipes.repetitions)]
        else:
            trainings = [self.train(configuration, recipes.candidate)]
        exported = [self._exported(item.network.cpu(), configuration, base.strategy) for item in trainings]
        data = getattr(self.data, "held_out", self.data) if base.fidelity == "full" else self.data
        measured = replace(
            base,
            metrics=over_trainings([self._metrics(models, data) for models in exported]),
            train_seconds=sum(item.seconds for item in trainings),
            parity=self.parity(exported[0], trainings[0].network, configuration),
        )
        return self._served(measured, exported, keep)

    def parity(self, models: Models, network: nn.Module, configuration: Configuration) -> Parity:
        """Compare the exported served graph with its network in torch.

        Layers inside of loops cannot be looked at; where there are any, those of the measured graph stand for them,
        which is exported if it is not among `models`.
        """
        graphs, model = self.task.graphs(network), models[self.task.served]
        found = parity.compare(model, graphs[self.task.served], self.task.inputs(PARITY_EVENTS, self.seed))
        if not any(attribute.HasField("g") for node in model.graph.node for attribute in node.attribute):
            return found
        measured = self.task.measured[0]
        rng = np.random.default_rng(self.seed)
        inputs = {
            name: rng.uniform(0.1, 1, (PARITY_EVENTS, *tensor.shape[1:])).astype(np.float32)
            for name, tensor in graphs[measured].inputs.items()
        }
        looked_at = models.get(measured) or self.export(network, configuration, measured)
        inside = parity.compare(looked_at, graphs[measured], inputs)
        error = max(found.layer_max_error, inside.layer_max_error)
        return replace(found, layer_max_error=error, layers=max(found.layers, inside.layers))

    def latencies(
        self, session: onnxruntime.InferenceSession, seconds: float = TIMING_SECONDS
    ) -> tuple[Latency, ...]:
        """Time the served graph on one thread, for every batch size of the task and `seconds` each."""
        return tuple(
            time_session(session, self.task.inputs(batch, self.seed), threads=1, seconds=seconds)
            for batch in self.task.latency_batches
        )

    def evaluate(
        self, measurement: Measurement, baseline: Measurement | None
    ) -> tuple[Mapping[str, Quantity], Evaluation]:
        """Compute the full metrics and plots of a measurement whose file is kept, beside the float strategy's."""
        sessions = self._sessions(measurement)
        if baseline is not None and baseline.digest != measurement.digest:
            others = self._sessions(baseline)
        else:
            others = sessions if baseline else []
        return self.task.evaluate(sessions, others, self.data, measurement.digest, self.seed, self.progress)

    def _sessions(self, measurement: Measurement) -> list[onnxruntime.InferenceSession]:
        """Open the file that is kept and those of the repeated trainings."""
        repeated = [
            self._repeated(measurement.digest, index) for index in range(1, self.task.recipes.repetitions)
        ]
        paths = [self.folder / str(measurement.model), *(path for path in repeated if path.is_file())]
        return [open_session(path, self.threads) for path in paths]

    def _repeated(self, digest: str, repetition: int) -> Path:
        return self._work(f"full-{digest}", {}, f"-{repetition}.onnx")

    def _finally(self, configuration: Configuration, repetition: int) -> Trained:
        checkpoint = self._work(f"full-{configuration.digest}", {}, f"-{repetition}.pt")
        return self.train(configuration, self.task.recipes.final, repetition, checkpoint)

    def _exported(self, network: nn.Module, configuration: Configuration, strategy: str | None) -> Models:
        return {graph: self.export(network, configuration, graph, strategy) for graph in self.graphs}

    def _metrics(self, models: Models, data: Any) -> dict[str, Quantity]:
        """Measure the quick metrics of the exported graphs on the validation events of `data`.

        Raises:
            TrainingError: one of them is not finite.
        """
        sessions = {graph: open_session(models[graph], self.threads) for graph in self.task.measured}
        metrics = dict(self.task.measure(sessions, data))
        for metric, quantity in metrics.items():
            if not math.isfinite(quantity.value):
                raise TrainingError(
                    f"{metric} of the exported model is {quantity.value}, expected a finite value"
                )
        return metrics

    def _served(self, measured: Measurement, exported: Sequence[Models], keep: str | None) -> Measurement:
        """Keep the graph that users run, where asked to, and measure what serving it costs."""
        first, *others = (models[self.task.served] for models in exported)
        content = first.SerializeToString()
        model = f"models/{safe_name(keep)}.onnx" if keep else None
        if model:
            write_atomically(self.folder / model, content)
            for index, other in enumerate(others, 1):
                write_atomically(self._repeated(measured.digest, index), other.SerializeToString())
        latencies = self.latencies(open_session(first), GLANCE_SECONDS)
        return replace(measured, size_bytes=len(content), latency_us=latencies, model=model)

    def _untrained(self, options: Mapping[str, str], repetition: int, checkpoint: Path | None) -> nn.Module:
        """Build a network to train from scratch, initialised from data unless its training goes on."""
        network = self.network(options, repetition).to(self.device)
        if checkpoint is None or not checkpoint.is_file():
            generator = torch.Generator(self.device).manual_seed(derive(self.seed, repetition))
            self.task.prepare(network, self.data, generator)
        return network

    def _train(self, network: nn.Module, recipe: Recipe, seed: int, checkpoint: Path | None) -> Trained:
        return train(
            network,
            self.task,
            self.data,
            recipe,
            seed=seed,
            device=self.device,
            checkpoint=checkpoint,
            progress=self.progress,
        )

    def _work(self, kind: str, options: Mapping[str, str], suffix: str) -> Path:
        name = safe_name("-".join([kind, *options.values()]))
        return RunFolder(self.folder).work / f"{name}{suffix}"

    @cached_property
    def identity(self) -> Mapping[str, str]:
        """Name everything that the measured values depend on: contents and resolved settings, never places.

        Reads the data.
        """
        files = self.data.identity.files
        return {
            "model": catalogue.find(self.model).name,
            **{f"content of {name}": digest for name, digest in catalogue.contents(self.model).items()},
            **{name: str(getattr(self, name)) for name in ("dataset", "preset", "seed")},
            **{
                f"{file.role} data file {index}": f"{file.sha256} ({file.events} events)"
                for index, file in enumerate(files, 1)
            },
            **{f"settings.{name}": value for name, value in _flat(self.task.settings)},
        }


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", json.dumps(value, default=str)


def load_network(
    laboratory: Laboratory,
    configuration: Configuration,
    state: Mapping[str, torch.Tensor],
    rounding: Mapping[str, Rounding] | None = None,
) -> nn.Module:
    """Build a configuration's network with given weights; raises CheckpointError where they do not fit."""
    network = laboratory.network(configuration.options)
    load_state(network, state)
    return quant.apply(network, configuration.assignment, rounding=rounding).eval()
