"""A little of everything that a run does, timed, so that it can say beforehand how long all of it takes."""

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from torch import nn

from bitsearch import report
from bitsearch.core.manifest import Costs, Manifest
from bitsearch.core.measurement import Evaluation, Measurement, Quantity
from bitsearch.core.rundir import RunFolder
from bitsearch.core.space import SearchSpace
from bitsearch.core.task import Progress, Recipe, Session
from bitsearch.network import measuring, quant, sensitivity, workers
from bitsearch.network.exporter import Exporter, Models
from bitsearch.network.loop import train
from bitsearch.network.spec import Spec
from bitsearch.network.trainer import Trainer
from bitsearch.network.trial import unmeasured
from bitsearch.onnxfile import runtime

STEPS = 3
"""Steps of a training that are timed, after one that is not."""
PATIENCE_SECONDS = 15.0
"""An evaluation that takes longer is broken off, and predicted from the share that it has done."""
T = TypeVar("T")


def rehearse(
    spec: Spec, space: SearchSpace, options: Mapping[str, str], manifest: Manifest, data_seconds: float
) -> Costs:
    """Time the pieces of a run on a network with half of its groups quantised; its traces stay in the run's folder.

    An untrained network may fail in a measurement or evaluation where a trained one does not: what it took counts.
    """
    workers.one_thread(spec.device)
    recipes, trainer, exporter = spec.task.recipes, Trainer(spec), Exporter(spec)
    spec.progress("timing a few steps", 0.0)
    trace, traces = _timed(lambda: [exporter.template(options, graph) for graph in spec.graphs])
    network = trainer.untrained(options)
    reference = _training_seconds(spec, copy.deepcopy(network), recipes.reference)
    spec.progress("timing a few steps", 0.3)
    half = space.configuration([group.name for group in space.groups[::2]], options)
    quant.apply(network, half.assignment, rounding=recipes.roundings(half.assignment))
    candidate, final = (
        _training_seconds(spec, network, recipe) for recipe in (recipes.candidate, recipes.final)
    )
    spec.progress("timing a measurement", 0.5)
    network = network.cpu().eval()
    measure, (models, metrics) = _timed(lambda: _measured(spec, exporter.export_all(network, half), network))
    served = models[spec.task.served].SerializeToString()
    session = runtime.open_session(models[spec.task.served], spec.threads)
    latencies = measuring.latencies(spec, models[spec.task.served], seconds=0.0)
    spec.progress("timing an evaluation", 0.7)
    evaluation, evaluated = _evaluation(spec, [session] * recipes.repetitions, half.digest)
    spec.progress("timing figures", 0.9)
    record = replace(
        unmeasured(spec, half, "final", "full"),
        metrics={**metrics, **(evaluated[0] if evaluated else {})},
        size_bytes=len(served),
        latency_us=latencies,
    )
    costs = Costs(
        data=data_seconds,
        trace=trace,
        reference=reference,
        candidate=candidate,
        final=final,
        measure=measure,
        sensitivities=sensitivity.BATCHES
        * reference
        / sum(stage.steps for stage in recipes.reference.stages),
        evaluation=evaluation,
        latency=sum(runtime.timing_seconds(item.median_us) for item in latencies),
        report=_report_seconds(manifest, record, evaluated and evaluated[1]),
        checkpoint_bytes=sum(tensor.nbytes for tensor in network.state_dict().values()),
        trace_bytes=sum(trace.ByteSize() for trace in traces),
        model_bytes=len(served),
    )
    spec.progress("timing figures", 1.0)
    return costs


def _timed(action: Callable[[], T]) -> tuple[float, T]:
    began = time.monotonic()
    result = action()
    return time.monotonic() - began, result


def _training_seconds(spec: Spec, network: nn.Module, recipe: Recipe) -> float:
    """Predict a whole training from a few steps of each of its stages."""
    seconds = 0.0
    for stage in recipe.stages:
        for steps in (1, STEPS):
            short = replace(stage, steps=steps)
            trained = train(network, spec.task, spec.data, short, seed=spec.seed, device=spec.device)
        seconds += trained.seconds / STEPS * stage.steps
    return seconds


def _measured(spec: Spec, models: Models, network: nn.Module) -> tuple[Models, Mapping[str, Quantity]]:
    """Do what a measurement does with exported graphs."""
    _attempt(lambda: measuring.parity(spec, models, network))
    return models, _attempt(lambda: measuring.metrics(spec, models, spec.data)) or {}


def _attempt(action: Callable[[], T]) -> T | None:
    try:
        return action()
    except OSError:
        raise
    except Exception:  # a model's own code, on a network that has learnt nothing
        return None


class _OutOfPatienceError(Exception):
    """An evaluation takes too long to be rehearsed to its end."""


class _Watch:
    """A progress that breaks off when patience is at its end, and extrapolates what is then under way."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._began = self._turned = time.monotonic()
        self._text = ""
        self.seconds: float | None = None

    def __call__(self, text: str, share: float) -> None:
        now = time.monotonic()
        self._progress(text, share)
        if text != self._text:
            self._text, self._turned = text, now
        if now - self._began > PATIENCE_SECONDS and share > 0:
            self.seconds = self._turned - self._began + (now - self._turned) / share
            raise _OutOfPatienceError


def _evaluation(
    spec: Spec, sessions: list[Session], digest: str
) -> tuple[float, tuple[Mapping[str, Quantity], Evaluation] | None]:
    """Give the seconds of an evaluation, and what it found if it came to its end."""
    watch, task = _Watch(spec.progress), spec.task
    seconds, found = _timed(
        lambda: _attempt(lambda: task.evaluate(sessions, sessions, spec.data, digest, spec.seed, watch))
    )
    return watch.seconds or seconds, found


def _report_seconds(manifest: Manifest, record: Measurement, evaluation: Evaluation | None) -> float:
    """Draw a few figures of a run that has measured one configuration."""
    with TemporaryDirectory() as path:
        folder = RunFolder(Path(path))
        folder.write_manifest(manifest)
        folder.append(record)
        if evaluation:
            folder.write_evaluation(evaluation)
        return report.predicted_seconds(folder)
