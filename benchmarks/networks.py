"""Time each network's training step, quantised against float, and its export.

    .venv/bin/python benchmarks/networks.py [MODEL ...] [--preset laptop] [--rounds 7] [--threads 1]

A step is what training does with one batch of the preset's candidate recipe (its last stage where there are
several): loss, gradients, optimiser. The float strategy and the one that quantises most take turns on the same
batches; medians, interquartile ranges and their ratio over all rounds. Export is tracing, once for every graph of a
model, and lowering, once for every candidate. The traced graphs are checked by onnx before anything is timed.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import onnx
import torch

from bitsearch.core.strategy import Configuration
from bitsearch.network import catalogue, export, quant
from bitsearch.network.loop import batch_of, only
from bitsearch.network.spec import Spec
from bitsearch.onnxfile import runtime

SEED = 1


def seconds(run: Callable[[], object]) -> float:
    """Time one call, in time of the processor, so that others on a busy machine count less."""
    began = time.process_time()
    run()
    return time.process_time() - began


def stepper(spec: Spec, configuration: Configuration) -> Callable[[int], None]:
    """Give a function that trains one step of a fresh network."""
    task, recipe = spec.task, spec.task.recipes.candidate.stages[-1]
    network = spec.network(configuration.options).train()
    task.prepare(network, spec.data, torch.Generator().manual_seed(SEED))
    quant.apply(network, configuration.assignment)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)

    def step(index: int) -> None:
        optimizer.zero_grad(set_to_none=True)
        indices = batch_of(spec.data.events, recipe.batch_size, index, SEED)
        with only(network, recipe.part):
            loss = task.loss(network, spec.data, indices, torch.Generator().manual_seed(index))
            loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def show(model: str, preset: str, rounds: int, folder: Path) -> None:
    """Print one row."""
    entry = catalogue.find(model)
    task = entry.task(preset=preset)
    strategies = entry.space(task).strategies
    most = max(strategies, key=lambda item: len(item.configuration.assignment.quantized))
    spec = Spec(model, task.dataset, preset, (), folder, SEED)
    configurations = [strategies[0].configuration, most.configuration]
    steps = [stepper(spec, item) for item in configurations]
    times: list[list[float]] = [[], []]
    for index in range(rounds + 1):  # the first warms up
        for step, found in zip(steps, times, strict=True):
            found.append(seconds(lambda step=step, index=index: step(index)))  # type: ignore[misc]
    floats, quantized = (found[1:] for found in times)
    network = spec.network(configurations[0].options)
    graphs = task.graphs(network)
    traced = {}
    tracing = seconds(lambda: traced.update({name: export.trace(graph) for name, graph in graphs.items()}))
    metadata = export.Metadata("benchmark", model, task.dataset, 0.0, {})
    template = traced[task.served]

    def lower() -> onnx.ModelProto:
        return export.lower(template, network.state_dict(), configurations[1].assignment, metadata)

    onnx.checker.check_model(lower(), full_check=True)
    lowering = statistics.median(seconds(lower) for _ in range(5))
    batch = task.recipes.candidate.stages[-1].batch_size
    medians = [statistics.median(found) * 1e3 for found in (floats, quantized)]
    spreads = [_interquartile(found) * 1e3 for found in (floats, quantized)]
    print(
        f"| {model}, {most.name} | {batch} | {medians[0]:.1f} ({spreads[0]:.1f}) "
        f"| {medians[1]:.1f} ({spreads[1]:.1f}) | {medians[1] / medians[0]:.2f} "
        f"| {tracing:.1f} ({len(graphs)} graphs) | {lowering:.2f} |",
        flush=True,
    )


def _interquartile(values: list[float]) -> float:
    low, _, high = statistics.quantiles(values, n=4)
    return high - low


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", default=catalogue.names())
    parser.add_argument("--preset", default="laptop")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    facts = runtime.environment() | {"torch": torch.__version__, "threads": arguments.threads}
    print(", ".join(f"{key} {value}" for key, value in facts.items()))
    print(f"Preset {arguments.preset}; medians (interquartile range) of {arguments.rounds} rounds.\n")
    print("| network, strategy | batch | float step, ms | quantised step, ms | ratio | trace, s | lower, s |")
    print("|---|---|---|---|---|---|---|")
    for model in arguments.models:
        with tempfile.TemporaryDirectory() as folder:
            show(model, arguments.preset, arguments.rounds, Path(folder))


if __name__ == "__main__":
    main()
