"""Time exported networks as users would run them: float32, onnxruntime's int8, and ternary.

    .venv/bin/python benchmarks/end_to_end.py [MODEL/DATASET/GRAPH ...] [--preset paper] [--threads 1] [--profile]

Networks have random weights, which changes no time; inputs are the task's, whose jets have empty slots. The
contestants of each graph: the float strategy as any exporter would write it, onnxruntime's own dynamic quantisation
of that file to 8 bits, the float strategy as ours is written (splines and messages in operators of their own, slots
that are the same computed once), the strategy that quantises most, and every layer that a search may quantise where
that is more. The two float files are held to each other and the ternary one to its function body (`bitsearch verify`
does that for any file) before the clock starts; then all take turns, so that ratios hold on a busy machine. One thread
is timed by the processor time that it takes, more threads by the clock on the wall. Memory is
how far a process rises from opening the file to its peak at the largest batch. With --profile, onnxruntime's profiler
tells each file's share of time by operator at the largest batch.
"""

import argparse
import gc
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from bitsearch import ops
from bitsearch.core.strategy import Configuration
from bitsearch.core.task import Task
from bitsearch.models.leaves import MessagePassing, MonotoneSpline, PairByPair, RowByRow
from bitsearch.network import catalogue, export
from bitsearch.network.forms import FORMS
from bitsearch.onnxfile import bench, runtime
from bitsearch.onnxfile.bench import Benchmark, Contender
from bitsearch.onnxfile.inputs import Known, draw

GRAPHS = (
    "caloinn/ds1-photon/sampler",
    "caloinn/ds1-pion/sampler",
    "caloinn/ds2/sampler",
    "calodream/ds2/energy_velocity",
    "calodream/ds2/shape_velocity",
    "pdat/quark-gluon/classifier",
    "smeftnet/wz/angle",
)
RUNS = 5
SHOWN = 0.02
TOLERANCE = 1e-3


@contextmanager
def standard_operators() -> Iterator[None]:
    """Trace splines, messages and rows that are the same as any exporter would."""
    with patch.dict(FORMS):
        for leaf in (MonotoneSpline, MessagePassing, PairByPair, RowByRow):
            del FORMS[leaf]
        yield


def write(
    entry: catalogue.Entry, task: Task, configuration: Configuration, graph: str, out: Path
) -> Contender:
    """Export one configuration with random weights."""
    torch.manual_seed(0)
    network = task.network(configuration.options, seed=0).eval()
    fraction = catalogue.inventory(task, configuration.options).fractions(configuration.assignment).fraction
    metadata = export.Metadata("benchmark", entry.name, task.dataset, fraction, {"preset": task.preset})
    template = export.trace(task.graphs(network)[graph])
    model = export.lower(template, network.state_dict(), configuration.assignment, metadata)
    out.write_bytes(model.SerializeToString())
    del network, template, model
    gc.collect()
    return Contender(out.stem, out)


def contenders(entry: catalogue.Entry, task: Task, graph: str, folder: Path) -> list[Contender]:
    """Export all contestants of one graph."""
    space = entry.space(task)
    most = max(space.strategies, key=lambda item: len(item.configuration.assignment.quantized))
    plain = space.strategies[0].configuration
    fused = write(entry, task, plain, graph, folder / "float32 exported.onnx")
    with standard_operators():
        standard = write(entry, task, plain, graph, folder / "float32.onnx")
    found = [standard, bench.quantized_to_int8([standard], folder)]
    if fused.path.read_bytes() != standard.path.read_bytes():
        check_same(standard, fused, partial(own_inputs, task))
        found.append(Contender("float32, as exported", fused.path))
    found.append(write(entry, task, most.configuration, graph, folder / f"ternary, {most.name}.onnx"))
    every = space.configuration([group.name for group in space.groups], plain.options)
    if len(every.assignment.quantized) > len(most.configuration.assignment.quantized):
        found.append(write(entry, task, every, graph, folder / "ternary, every layer.onnx"))
    return found


def own_inputs(task: Task, _metadata: Mapping[str, str], batch: int, seed: int) -> dict[str, NDArray[Any]]:
    """Draw what the task's served graph takes: jets and showers have empty places, which cost less."""
    return dict(task.inputs(batch, seed))


def check_same(one: Contender, other: Contender, known: Known) -> None:
    """Hold two files to each other.

    Raises:
        AssertionError: the middle one of a hundred events differs by more than rounding.
    """
    sessions = [runtime.open_session(item.path) for item in (one, other)]
    feed = draw(sessions[0], 20, known=known)
    outputs = [session.run(None, feed)[0].astype(np.float64) for session in sessions]
    scale = np.abs(outputs[0]).max(-1) + 1e-12
    error = float(np.median(np.abs(outputs[0] - outputs[1]).max(-1) / scale))
    assert error < TOLERANCE, f"{one.name} and {other.name} differ by {error}"


def shares(
    contender: Contender, batch: int, threads: int, folder: Path, known: Known | None = None
) -> dict[str, float]:
    """Give the share of kernel time by operator, and the microseconds of a run as `total`."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    session = ops.session(contender.path, sess_options=options)
    feed = draw(session, batch, known=known)
    for _ in range(RUNS):
        session.run(None, feed)
    events: list[dict[str, Any]] = json.loads(Path(session.end_profiling()).read_text())
    spent: Counter[str] = Counter()
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            spent[event["args"]["op_name"]] += event["dur"]
    total = spent.total()
    return {"total": total / RUNS} | {name: time / total for name, time in spent.most_common()}


def show(graph: str, preset: str, measured: Benchmark) -> None:
    """Print one graph's tables as Markdown."""
    batches = sorted({item.batch for item in measured.timings})
    footprints = {item.name: item for item in measured.footprints}
    print(f"\n### {graph}, preset {preset}\n")
    titles = [f"batch {batch}: ms (IQR) | x" for batch in batches]
    print(f"| file | {' | '.join(titles)} | file, MB | memory, MB |")
    print("|---" * (3 + 2 * len(batches)) + "|")
    for name in footprints:
        times = {item.batch: item for item in measured.timings if item.name == name}
        cells = [
            f"{times[batch].median_us / 1e3:.3g} ({times[batch].spread_us / 1e3:.2g}) | {times[batch].speedup:.2f}"
            for batch in batches
        ]
        found = footprints[name]
        memory = "" if found.peak_memory_bytes is None else f"{found.peak_memory_bytes / 1e6:.0f}"
        print(f"| {name} | {' | '.join(cells)} | {found.size_bytes / 1e6:.2f} | {memory} |")
    sys.stdout.flush()


def show_profile(contender: Contender, batch: int, threads: int, folder: Path, known: Known) -> None:
    """Print the operators that take the most of a file's time, as an item of a Markdown list."""
    found = shares(contender, batch, threads, folder, known)
    total = found.pop("total")
    parts = ", ".join(f"{op} {100 * part:.0f} %" for op, part in found.items() if part > SHOWN)
    print(f"- {contender.name} at batch {batch}, {total / 1e3:.3g} ms of kernels: {parts}")


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("graphs", nargs="*", metavar="MODEL/DATASET/GRAPH", default=GRAPHS)
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 100, 1000])
    parser.add_argument("--blocks", type=int, default=9)
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    facts = {**runtime.environment(), "threads": arguments.threads}
    print(", ".join(f"{key} {value}" for key, value in facts.items()))
    print("Medians; x: how many times faster than float32 in standard operators, by medians.")
    for name in arguments.graphs:
        model, dataset, graph = name.split("/")
        entry = catalogue.find(model)
        task = entry.task(dataset, arguments.preset)
        known = partial(own_inputs, task)
        with tempfile.TemporaryDirectory() as work:
            files = contenders(entry, task, graph, Path(work))
            clock = time.thread_time if arguments.threads == 1 else time.perf_counter
            measured = bench.bench(
                files, arguments.batch, arguments.threads, arguments.blocks, known=known, clock=clock
            )
            show(name, arguments.preset, measured)
            for item in files if arguments.profile else ():
                show_profile(item, max(arguments.batch), arguments.threads, Path(work), known)


if __name__ == "__main__":
    main()
