"""Measure exported files in onnxruntime, and keep those that are served."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from torch import nn

from bitsearch.core.atomic import write_atomically
from bitsearch.core.errors import TrainingError
from bitsearch.core.measurement import Evaluation, Latency, Measurement, Parity, Quantity
from bitsearch.core.names import safe_name
from bitsearch.core.task import Task
from bitsearch.network.exporter import Models
from bitsearch.network.parity import compare
from bitsearch.network.spec import Spec
from bitsearch.onnxfile.runtime import kernel_of, open_session, time_session

PARITY_EVENTS = 64


def metrics(spec: Spec, models: Models, data: Any) -> dict[str, Quantity]:
    """Measure the quick metrics of the exported graphs on the validation events of `data`.

    Raises:
        TrainingError: one of them is not finite.
    """
    sessions = {graph: open_session(models[graph], spec.threads) for graph in spec.task.measured}
    found = dict(spec.task.measure(sessions, data))
    for name, quantity in found.items():
        if not math.isfinite(quantity.value):
            raise TrainingError(f"{name} of the exported model is {quantity.value}, expected a finite value")
    return found


def graphs_of_parity(task: Task, served: onnx.ModelProto) -> tuple[str, ...]:
    """Name the graphs that `parity` looks at: layers inside of loops cannot be, those of the measured graph can."""
    loops = any(attribute.HasField("g") for node in served.graph.node for attribute in node.attribute)
    return (task.served, task.measured[0]) if loops else (task.served,)


def parity(spec: Spec, models: Models, network: nn.Module) -> Parity:
    """Compare the exported graphs that `graphs_of_parity` names with their network in torch; the outputs are served."""
    task, graphs = spec.task, spec.task.graphs(network)
    served, *others = graphs_of_parity(task, models[task.served])
    found = compare(models[served], graphs[served], task.inputs(PARITY_EVENTS, spec.seed))
    for name in others:
        rng = np.random.default_rng(spec.seed)
        inputs = {
            key: rng.uniform(0.1, 1, (PARITY_EVENTS, *tensor.shape[1:])).astype(np.float32)
            for key, tensor in graphs[name].inputs.items()
        }
        inside = compare(models[name], graphs[name], inputs)
        found = replace(
            found,
            layer_max_error=max(found.layer_max_error, inside.layer_max_error),
            layers=max(found.layers, inside.layers),
        )
    return found


def latencies(
    spec: Spec,
    model: onnx.ModelProto | Path,
    seconds: float | None = None,
    beside: onnx.ModelProto | Path | None = None,
    sizes: int | None = None,
) -> tuple[Latency, ...]:
    """Time the served graph on one thread, for the task's first batch `sizes` or all, `seconds` each as `time_session`.

    With a file `beside` they take turns, and ratios to it are given.
    """
    session, kernel = open_session(model), kernel_of(model)
    other = None if beside is None else open_session(beside)
    return tuple(
        time_session(session, spec.task.inputs(batch, spec.seed), 1, seconds, kernel, other)
        for batch in spec.task.latency_batches[:sizes]
    )


def keep(spec: Spec, name: str, digest: str, contents: Sequence[bytes]) -> str:
    """Write the served file to `models/<name>.onnx`, those of repeated trainings to `work`; give the first's path."""
    first, *others = contents
    model = f"models/{safe_name(name)}.onnx"
    write_atomically(spec.folder / model, first)
    for index, other in enumerate(others, 1):
        write_atomically(_repeated(spec, digest, index), other)
    return model


def evaluate(
    spec: Spec, measurement: Measurement, baseline: Measurement | None
) -> tuple[Mapping[str, Quantity], Evaluation]:
    """Compute the full metrics and plots of a measurement whose file is kept, beside the float strategy's."""
    sessions = _kept(spec, measurement)
    if baseline is not None and baseline.digest != measurement.digest:
        others = _kept(spec, baseline)
    else:
        others = sessions if baseline else []
    return spec.task.evaluate(sessions, others, spec.data, measurement.digest, spec.seed, spec.progress)


def _kept(spec: Spec, measurement: Measurement) -> list[onnxruntime.InferenceSession]:
    """Open the file that is kept and those of the repeated trainings."""
    repetitions = range(1, spec.task.recipes.repetitions)
    repeated = [_repeated(spec, measurement.digest, index) for index in repetitions]
    paths = [spec.folder / str(measurement.model), *(path for path in repeated if path.is_file())]
    return [open_session(path, spec.threads) for path in paths]


def _repeated(spec: Spec, digest: str, repetition: int) -> Path:
    return spec.work(f"full-{digest}", {}, f"-{repetition}.onnx")
