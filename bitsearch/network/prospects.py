"""What files will be like before anything is trained: neither size nor latency depends on the weights."""

import copy
from collections.abc import Callable
from itertools import product

import onnx

from bitsearch.core.budget import Budget
from bitsearch.core.precision import Precision
from bitsearch.core.space import SearchSpace
from bitsearch.network import quant
from bitsearch.network.exporter import Exporter
from bitsearch.network.spec import Spec
from bitsearch.network.trainer import Trainer
from bitsearch.onnxfile.runtime import open_session, time_session


def sizes(spec: Spec, space: SearchSpace, most: float) -> Budget:
    """Predict the bytes of the served file."""
    return _budget(spec, space, "--max-size", most, lambda model: float(len(model.SerializeToString())))


def latencies(spec: Spec, space: SearchSpace, most: float) -> Budget:
    """Predict the µs of one call with the smallest batch on one thread of this machine."""

    def median_us(model: onnx.ModelProto) -> float:
        inputs = spec.task.inputs(min(spec.task.latency_batches), spec.seed)
        return time_session(open_session(model), inputs, threads=1).median_us

    return _budget(spec, space, "--max-latency", most, median_us)


def _budget(
    spec: Spec, space: SearchSpace, flag: str, most: float, measure: Callable[[onnx.ModelProto], float]
) -> Budget:
    """Measure files of untrained networks, in float and all in each precision; groups have part by their weights."""
    choices = [dict(zip(space.options, values, strict=True)) for values in product(*space.options.values())]
    layers = {layer.name: layer.weights for layer in spec.inventory(choices[0]).layers if layer.executed}
    exporter, trainer = Exporter(spec), Trainer(spec)
    base: dict[tuple[str, ...], float] = {}
    changes = dict.fromkeys(space.precisions, 0.0)
    for options in choices:
        untrained = trainer.untrained(options).cpu().eval()
        found: dict[Precision, float] = {}
        for precision in space.precisions:
            configuration = space.choose({group.name: precision for group in space.groups}, options)
            network = copy.deepcopy(untrained)
            rounding = spec.task.recipes.roundings(configuration.assignment)
            quant.apply(network, configuration.assignment, rounding=rounding)
            found[precision] = measure(exporter.export(network, configuration, spec.task.served))
            changes[precision] += (found[precision] - found[Precision.FLOAT32]) / len(choices)
        base[tuple(options.values())] = found[Precision.FLOAT32]
    weights = {group.name: sum(layers.get(name, 0) for name in group.layers) for group in space.groups}
    whole = sum(weights.values())
    return Budget(
        flag,
        most,
        base,
        {
            name: tuple(changes[value] * count / whole for value in space.precisions)
            for name, count in weights.items()
        },
    )
