"""Time one shower as Geant4's example Par04 asks for it: optimisation switched off, one thread, one shower a call.

    .venv/bin/python benchmarks/par04.py [caloinn calodream] [--preset paper] [--calls 5] [--profile] [--quick]

Networks are those of ds2 with random weights, which changes no time: as float32 in standard operators, which Par04
takes as it is, and with every layer ternary that a search may quantise. Files take turns; the least processor time of
all calls is printed, and how far the deposited energy is from that of the generator before it was dressed for Par04.
"""

import argparse
import json
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

from bitsearch import ops
from bitsearch.core.strategy import Configuration
from bitsearch.core.task import Task
from bitsearch.network import catalogue, export
from bitsearch.onnxfile import runtime
from bitsearch.onnxfile.par04 import LARGEST_MEV, par04
from bitsearch.onnxfile.portable import portable

GRAPHS = {"caloinn": "sampler", "calodream": "generator"}
ENERGY_MEV = 65536.0
SHOWN = 0.03
Array = NDArray[np.float32]


@dataclass(frozen=True)
class Contender:
    """A file that Par04 opens, with or without the library, and the generator that it was made of."""

    name: str
    path: Path
    library: bool
    generator: onnx.ModelProto

    def session(self, profile: Path | None = None) -> onnxruntime.InferenceSession:
        """Open the file as Par04 does."""
        return _open(str(self.path), self.library, profile)

    def deviation(self, asked: Array) -> float:
        """Compare the deposited energy with that of the generator itself, relative to it."""
        (fractions,) = self.session().run(None, {"conditions": asked})
        given, start = {}, 0
        for value in self.generator.graph.input:
            width = value.type.tensor_type.shape.dim[1].dim_value
            if value.name == "incident_energy":
                given[value.name] = asked[:, -4:-3] * np.float32(LARGEST_MEV)
            else:
                given[value.name] = asked[:, start : start + width]
                start += width
        (showers,) = _open(self.generator.SerializeToString(), self.library).run(None, given)
        expected = showers.sum(dtype=np.float64)
        return float(abs(fractions.sum(dtype=np.float64) * given["incident_energy"].item() / expected - 1))

    def shares(self, asked: Array, folder: Path) -> dict[str, float]:
        """Give the share of kernel time by operator."""
        session = self.session(folder / "profile")
        session.run(None, {"conditions": asked})
        events: list[dict[str, Any]] = json.loads(Path(session.end_profiling()).read_text())
        spent: Counter[str] = Counter()
        for event in events:
            kernel = event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
            if kernel and event["args"]["op_name"] not in ("Scan", "Loop", "If"):
                spent[event["args"]["op_name"]] += event["dur"]
        return {name: time / spent.total() for name, time in spent.most_common()}


def _open(model: str | bytes, library: bool, profile: Path | None = None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    if library:
        ops.register(options)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def write(task: Task, graph: str, configuration: Configuration, name: str, folder: Path) -> onnx.ModelProto:
    """Export a generator with random weights, and dress it; some weights start as zeros, which would be too easy."""
    torch.manual_seed(0)
    network = task.network(configuration.options, seed=0).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.001 * torch.randn_like(parameter))
    metadata = export.Metadata("benchmark", "par04", task.dataset, 0.0, {"preset": task.preset})
    template = export.trace(task.graphs(network)[graph])
    model = export.lower(template, network.state_dict(), configuration.assignment, metadata)
    if name == "float32" and any(node.domain == ops.DOMAIN for node in model.graph.node):
        model = portable(model)
    onnx.save(par04(model), folder / f"{name}.onnx")
    return model


def contenders(model: str, preset: str, folder: Path) -> list[Contender]:
    """Export one model's files."""
    entry = catalogue.find(model)
    task = entry.task("ds2", preset)
    space = entry.space(task)
    plain = space.strategies[0].configuration
    every = space.configuration([group.name for group in space.groups], plain.options)
    float32 = write(task, GRAPHS[model], plain, "float32", folder)
    ternary = write(task, GRAPHS[model], every, "ternary", folder)
    files = {name: folder / f"{name}.onnx" for name in ("float32", "ternary")}
    return [
        Contender("float32", files["float32"], False, float32),
        Contender("ternary, without the library", files["ternary"], False, ternary),
        Contender("ternary, with the library", files["ternary"], True, ternary),
    ]


def main() -> None:
    """Print a table for each model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", default=list(GRAPHS))
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--calls", type=int, default=5)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument(
        "--quick", action="store_true", help="leave out ternary without the library, minutes a shower"
    )
    arguments = parser.parse_args()
    print(", ".join(f"{key} {value}" for key, value in runtime.environment().items()))
    for model in arguments.models:
        with tempfile.TemporaryDirectory() as work:
            files = contenders(model, arguments.preset, Path(work))
            files = [item for item in files if item.library or item.name == "float32" or not arguments.quick]
            sessions = {item.name: item.session() for item in files}
            width = sessions["float32"].get_inputs()[0].shape[1]
            asked = np.random.default_rng(0).standard_normal((1, width), np.float32)
            asked[:, -4:] = ENERGY_MEV / LARGEST_MEV, 1, 0, 1
            least = dict.fromkeys(sessions, np.inf)
            for _ in range(arguments.calls):
                for name, session in sessions.items():
                    start = time.process_time()
                    session.run(None, {"conditions": asked})
                    least[name] = min(least[name], time.process_time() - start)
            print(f"\n| {model}, preset {arguments.preset} | ms a shower | x | MB | energy, relative |")
            print("|---|---|---|---|---|")
            for item in files:
                ratio = least["float32"] / least[item.name]
                size = item.path.stat().st_size / 1e6
                print(
                    f"| {item.name} | {1e3 * least[item.name]:.3g} | {ratio:.1f} | {size:.1f} | "
                    f"{item.deviation(asked):.0e} |",
                    flush=True,
                )
            for item in files if arguments.profile else ():
                found = item.shares(asked, Path(work))
                parts = (f"{op} {100 * part:.0f} %" for op, part in found.items() if part > SHOWN)
                print(f"\n{item.name}: {', '.join(parts)}", flush=True)


if __name__ == "__main__":
    main()
