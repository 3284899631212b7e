"""Time `MonotoneSpline` against the same spline in standard operators, which is its own function body.

Both are checked before they are timed; blocks of runs are interleaved in one process, and a table of minima, medians
and ratios is printed. Usage: monotone_spline.py [--threads T] [--blocks B] [KIND,BATCH,S ...]
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper

from bitsearch import ops
from bitsearch.ops.monotone_spline.reference import Float, Kind, monotone_spline, parameters

# Transformed coordinates of CaloINN on ds1-photon and on ds2.
SIZES = {"rational-quadratic": 186, "cubic": 3262}
CASES = [f"{kind},{batch},{size}" for kind, size in SIZES.items() for batch in (1, 100, 1000)]
BINS, BOUNDS = 10, {"rational-quadratic": 18.0, "cubic": 15.0}
BLOCK_US = 20_000
TYPICAL_ERROR = 1e-4


def one_node(kind: Kind, size: int, inverse: bool, outputs: tuple[str, ...]) -> bytes:
    """Build a model of one node, with its function body."""
    node = helper.make_node(
        "MonotoneSpline",
        ["X", "theta"],
        outputs,
        domain=ops.DOMAIN,
        kind=kind,
        bins=BINS,
        bound=BOUNDS[kind],
        inverse=int(inverse),
        out_of_bounds="event",
    )
    shapes: dict[str, list[Any]] = {
        "X": ["N", size],
        "theta": ["N", size * parameters(kind, BINS)],
        "Y": ["N", size],
        "log_det": ["N"],
    }
    values = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()
    }
    graph = helper.make_graph(
        [node], "one_spline", [values["X"], values["theta"]], [values[name] for name in outputs]
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(ops.DOMAIN, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    ops.add_functions(model)
    return bytes(model.SerializeToString())


def opened(
    model: bytes, feed: dict[str, Float], threads: int, library: bool
) -> tuple[Callable[[], object], Float]:
    """Open a session and return what to time, with the values of a first run."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    # Idle threads of one contestant would otherwise spin while the other is timed.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if library:
        ops.register(options)
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    for name, array in feed.items():
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array))
    for output in session.get_outputs():
        binding.bind_output(output.name)
    session.run_with_iobinding(binding)
    return lambda: session.run_with_iobinding(binding), binding.get_outputs()[0].numpy()


def timed(run: Callable[[], object], runs: int, clock: Callable[[], float]) -> float:
    """Time one block, in microseconds a run, by the clock of choice."""
    start = clock()
    for _ in range(runs):
        run()
    return (clock() - start) / runs * 1e6


def compare(
    kind: Kind, batch: int, size: int, inverse: bool, threads: int, blocks: int
) -> dict[str, tuple[float, float]]:
    """Verify and time both; return minimum and median microseconds by name.

    The inverse, which samples, gives no log-determinants; the forward direction, which measures, does.

    Raises:
        AssertionError: a contestant computes something else.
    """
    rng = np.random.default_rng(0)
    feed = {
        "X": rng.uniform(-BOUNDS[kind], BOUNDS[kind], (batch, size)).astype(np.float32),
        "theta": rng.standard_normal((batch, size * parameters(kind, BINS)), np.float32),
    }
    model = one_node(kind, size, inverse, ("Y",) if inverse else ("Y", "log_det"))
    checked = slice(0, 10)
    expected, _ = monotone_spline(
        feed["X"][checked],
        feed["theta"][checked],
        kind=kind,
        bins=BINS,
        bound=BOUNDS[kind],
        inverse=inverse,
        out_of_bounds="event",
    )
    runs = {}
    for name in ("fused", "standard"):
        runs[name], y = opened(model, feed, threads, library=name == "fused")
        error = np.abs(y[checked] - expected)
        limit = 0 if name == "fused" else TYPICAL_ERROR
        assert np.quantile(error, 0.99) <= limit, f"{name}: error {error.max()}"
    clock = time.thread_time if threads == 1 else time.perf_counter
    repeats = {name: max(1, int(BLOCK_US / timed(run, 1, clock))) for name, run in runs.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(blocks):
        for name, run in runs.items():
            times[name].append(timed(run, repeats[name], clock))
    return {name: (min(found), statistics.median(found)) for name, found in times.items()}


def processor() -> str:
    """Name the processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", default=CASES, metavar="KIND,BATCH,S")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--blocks", type=int, default=9)
    arguments = parser.parse_args()
    kernel = next(kernel.name for kernel in ops.kernels() if kernel.chosen)
    print(f"{processor()}; kernel {kernel}; threads {arguments.threads}; onnxruntime {ort.__version__}")
    print("microseconds: minimum (median) of blocks; x: ratio of minima; ns a value of the fused operator")
    for case in arguments.cases:
        name, batch, size = case.split(",")
        kind = next(kind for kind in get_args(Kind) if kind == name)
        for inverse in (False, True):
            table = compare(kind, int(batch), int(size), inverse, arguments.threads, arguments.blocks)
            best = table["fused"][0]
            cells = [f"{who} {low:.1f} ({mid:.1f})" for who, (low, mid) in table.items()]
            ratio, each = table["standard"][0] / best, best * 1e3 / int(batch) / int(size)
            direction = "inverse" if inverse else "forward"
            print(f"{case:>28} {direction}  {'  '.join(cells)}  {ratio:.1f}x  {each:.1f} ns", flush=True)


if __name__ == "__main__":
    main()
