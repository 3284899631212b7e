"""Time `TernaryMatMul` against the other matrix products that a user of Python could pick on a processor.

Every contestant is checked before it is timed. Blocks of runs are interleaved in one process and timed in processor
time of the thread (at two threads: wall time). What a call of a session that does nothing costs is subtracted, so
that onnxruntime's contestants are compared by their nodes. With --scaling, ternary, fp32 and int8 are instead
compared with themselves on two threads, in wall time and longer blocks.
Usage: ternary_matmul.py [--threads T] [--blocks B] [--all-odd] [--chains] [--scaling] [M,K,N ...]
"""

import argparse
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bitsearch import ops
from bitsearch.ops.reference import pack, ternary_matmul
from bitsearch.ops.ternary_chain.function import PREFIX
from bitsearch.ops.ternary_chain.reference import LENGTHS

SMALL_SHAPES = ["1,256,256", "16,256,256", "64,256,256", "1,256,5760", "1,480,1920", "1,2560,6912"]
LARGE_SHAPES = ["64,256,5760", "1000,256,5760", "135,480,1920", "512,512,512", "256,2560,6912"]
ODD_SHAPES = ["7,129,333", "33,188,2049", "300,271,7830"]
ALL_ODD_SHAPES = [f"{m},{k},{n}" for m in (7, 33, 300) for k in (129, 188, 271) for n in (333, 2049, 7830)]
CHAIN_LAYERS = 24
CHAIN_WIDTH = 256
BLOCK_US = 3_000
SCALING_SHAPES = [*LARGE_SHAPES, "300,271,7830"]
SCALING_US = 40_000
WARM_RUNS = 3

Arrays = dict[str, NDArray[np.generic]]


def chain(op: str, domain: str, k: int, arrays: Arrays, layers: int = 1, **attributes: Any) -> bytes:
    """Build a model of equal nodes, one after the other, with input X (M, K), constant arrays and output Y."""
    nodes = []
    names = ["X", *(f"Y{i}" for i in range(1, layers)), "Y"]
    constants: Arrays = {}
    for i in range(layers):
        inputs = {f"{name}{i}": array for name, array in arrays.items()}
        constants |= inputs
        node = helper.make_node(
            op, [names[i], *inputs], [names[i + 1]], f"{op}{i}", domain=domain, **attributes
        )
        nodes.append(node)
    graph = helper.make_graph(
        nodes,
        op,
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["M", k])],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, ["M", None])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", 20), *([helper.make_opsetid(domain, 1)] if domain else [])]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return bytes(model.SerializeToString())


def n_bit(weights: NDArray[np.int8], scale: float, layers: int, bits: int, block: int = 32) -> bytes:
    """Build `MatMulNBits`: blocks of unsigned codes along K with one scale and zero point each."""
    n, k = weights.shape
    blocks, per_byte = -(-k // block), 8 // bits
    zero = 1 << (bits - 1)
    codes = np.full((n, blocks * block), zero, np.uint8)
    codes[:, :k] = weights + zero
    shifts = np.arange(per_byte, dtype=np.uint8) * np.uint8(bits)
    packed = np.bitwise_or.reduce(codes.reshape(n, -1, per_byte) << shifts, axis=2)
    arrays: Arrays = {"B": packed.reshape(n, blocks, -1), "scales": np.full((n, blocks), scale, np.float32)}
    attributes = {"K": k, "N": n, "bits": bits, "block_size": block, "accuracy_level": 4}
    return chain("MatMulNBits", "com.microsoft", k, arrays, layers, **attributes)


def contestants(weights: NDArray[np.int8], scale: float, layers: int) -> dict[str, bytes]:
    """Build the models, all of Y = scale X W^T, or of that many times, by name."""
    k = weights.shape[1]
    one, point = np.full(1, scale, np.float32), np.zeros(1, np.int8)
    int8: Arrays = {"B": np.ascontiguousarray(weights.T), "scale": one, "zero_point": point}
    ternary: Arrays = {"W": pack(weights), "scale": np.asarray(scale, np.float32)}
    return {
        "ternary": chain("TernaryMatMul", ops.DOMAIN, k, ternary, layers, K=k),
        "fp32": chain("MatMul", "", k, {"B": np.float32(scale) * weights.T.astype(np.float32)}, layers),
        "int8": chain("DynamicQuantizeMatMul", "com.microsoft", k, int8, layers),
        "4-bit": n_bit(weights, scale, layers, 4),
        "2-bit": n_bit(weights, scale, layers, 2),
        "4-bit b128": n_bit(weights, scale, layers, 4, 128),
        "2-bit b128": n_bit(weights, scale, layers, 2, 128),
    }


def fused(weights: NDArray[np.int8], scale: float, layers: int) -> bytes:
    """Build the same layers as `TernaryChain8` nodes; a slope of 1 makes their activation nothing but its time."""
    k, length = weights.shape[1], LENGTHS[-1]
    arrays: Arrays = {}
    for index in range(length):
        arrays |= {f"W{index}_": pack(weights), f"scale{index}_": np.asarray(scale, np.float32)}
        arrays[f"bias{index}_"] = np.zeros(len(weights), np.float32)
    sizes = {f"K{index}": k for index in range(length)}
    kind = f"{PREFIX}{length}"
    return chain(kind, ops.DOMAIN, k, arrays, layers // length, activation="leaky-relu", alpha=1.0, **sizes)


def torch_int8(
    weights: NDArray[np.int8], x: NDArray[np.float32], threads: int
) -> tuple[Callable[[], object], Any]:
    """Return what to time of torch's dynamic quantisation, with its result."""
    import torch

    torch.set_num_threads(threads)  # the time of threads of its own would not be counted
    layer = torch.nn.Linear(weights.shape[1], weights.shape[0], bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weights))
    with warnings.catch_warnings(action="ignore"):
        quantised = torch.ao.quantization.quantize_dynamic(  # type: ignore[no-untyped-call]
            torch.nn.Sequential(layer), {torch.nn.Linear}
        )
        given = torch.from_numpy(x)

        def run() -> Any:
            with torch.inference_mode():
                return quantised(given)

        return run, run().numpy()


def timed(run: Callable[[], object], runs: int, clock: Callable[[], float]) -> float:
    """Time one block, in microseconds a run, by the clock of choice."""
    start = clock()
    for _ in range(runs):
        run()
    return (clock() - start) / runs * 1e6


def opened(
    model: bytes, x: NDArray[np.float32], threads: int, entries: Mapping[str, str] | None = None
) -> tuple[Callable[[], object], NDArray[np.float32]]:
    """Open a session and return what to time, with the result of a first run; `entries` configure the session."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    for key, value in (entries or {}).items():
        options.add_session_config_entry(key, value)
    session = ops.session(model, sess_options=options)
    binding = session.io_binding()
    binding.bind_ortvalue_input("X", ort.OrtValue.ortvalue_from_numpy(x))
    binding.bind_output("Y")
    session.run_with_iobinding(binding)
    return lambda: session.run_with_iobinding(binding), binding.get_outputs()[0].numpy()


def prepared(m: int, k: int, n: int, threads: int, layers: int) -> dict[str, Callable[[], object]]:
    """Open and verify all contestants; return what to time, by name.

    Raises:
        AssertionError: a contestant computes something else.
    """
    rng = np.random.default_rng(0)
    weights = rng.integers(-1, 2, (n, k)).astype(np.int8)
    scale = np.asarray(1.2 / np.sqrt(k) if layers > 1 else 1, np.float32)
    x = rng.normal(size=(m, k)).astype(np.float32)
    exact, bit_exact = x.astype(np.float64), x
    for _ in range(layers):
        exact = exact @ weights.T * float(scale)
        bit_exact = ternary_matmul(bit_exact, pack(weights), scale, K=k)
    runs = {}
    if layers > 1:
        runs["fused"], y = opened(fused(weights, float(scale), layers), x, threads)
        np.testing.assert_array_equal(y, bit_exact)
    for name, model in contestants(weights, float(scale), layers).items():
        runs[name], y = opened(model, x, threads)
        if name == "ternary":
            np.testing.assert_array_equal(y, bit_exact)
        error = np.sqrt(np.mean((y - exact) ** 2) / np.mean(exact**2))
        assert error < 0.02 * np.sqrt(layers), f"{name}: relative error {error}"
    if layers == 1 and find_spec("torch"):
        runs["torch int8"], y = torch_int8(weights, x, threads)
        assert np.sqrt(np.mean((y - exact) ** 2) / np.mean(exact**2)) < 0.05, (
            "torch int8"
        )  # one step for all rows
    return runs


def low_and_middle(times: list[float], call: float, layers: int) -> tuple[float, float]:
    """Reduce block times to minimum and median a layer, without what a call costs."""
    return (min(times) - call) / layers, (statistics.median(times) - call) / layers


def compare(
    m: int, k: int, n: int, threads: int, blocks: int, layers: int = 1
) -> dict[str, tuple[float, float]]:
    """Verify and time all contestants; return minimum and median microseconds a layer by name."""
    clock = time.thread_time if threads == 1 else time.perf_counter
    runs = prepared(m, k, n, threads, layers)
    runs["nothing"], _ = opened(chain("Identity", "", 1, {}), np.zeros((1, 1), np.float32), threads)
    repeats = {name: max(1, int(BLOCK_US / timed(run, 1, clock))) for name, run in runs.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(blocks):
        for name, run in runs.items():
            times[name].append(timed(run, repeats[name], clock))
    call = min(times.pop("nothing"))
    return {
        name: low_and_middle(found, 0 if name == "torch int8" else call, layers)
        for name, found in times.items()
    }


def scaling(m: int, k: int, n: int, blocks: int) -> str:
    """Time the operator and its main rivals on one and on two threads; give one line of the table.

    Threads of onnxruntime spin for a while after their work, so no two sessions with two are open at a time.
    """
    rng = np.random.default_rng(0)
    weights = rng.integers(-1, 2, (n, k)).astype(np.int8)
    x = rng.normal(size=(m, k)).astype(np.float32)
    models = contestants(weights, 1.0, layers=1)
    cells = []
    for name in ("ternary", "fp32", "int8"):
        runs = [opened(models[name], x, threads)[0] for threads in (1, 2)]
        repeats = max(1, int(SCALING_US / timed(runs[0], WARM_RUNS, time.perf_counter)))
        times: list[list[float]] = [[], []]
        for _ in range(blocks):
            for run, found in zip(runs, times, strict=True):
                timed(run, WARM_RUNS, time.perf_counter)
                found.append(timed(run, repeats, time.perf_counter))
        one, two = (statistics.median(found) for found in times)
        low = min(times[0]) / min(times[1])
        cells.append(f"{name} {one:.0f} to {two:.0f} us, {one / two:.2f}x (minima {low:.2f}x)")
    return f"{f'{m},{k},{n}':>14}  {m * k * n / 1e6:5.0f} MMAC  " + "  ".join(cells)


def row(shape: str, products: int, table: dict[str, tuple[float, float]]) -> str:
    """Format one line of the table."""
    best = table.get("fused", table["ternary"])[0]
    cells = [f"{name} {low:.1f} ({mid:.1f}) {low / best:.2f}x" for name, (low, mid) in table.items()]
    return f"{shape:>14}  {products / best / 1e3:5.0f} GMAC/s  " + "  ".join(cells)


def processor() -> str:
    """Name the processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shapes", nargs="*", metavar="M,K,N")
    parser.add_argument("--all-odd", action="store_true", help="add the sweep of odd shapes")
    parser.add_argument("--chains", action="store_true", help="layers one after the other alone")
    parser.add_argument("--scaling", action="store_true", help="two threads against one")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--blocks", type=int, default=25)
    arguments = parser.parse_args()
    kernel = next(kernel.name for kernel in ops.kernels() if kernel.chosen)
    threads, blocks = arguments.threads, arguments.blocks
    torch = version("torch") if find_spec("torch") else "absent"
    print(f"{processor()}; kernel {kernel}; threads {threads}; onnxruntime {ort.__version__}; torch {torch}")
    if arguments.scaling:
        for shape in arguments.shapes or SCALING_SHAPES:
            m, k, n = map(int, shape.split(","))
            print(scaling(m, k, n, blocks), flush=True)
        return
    print(
        "microseconds: minimum (median) of blocks; x: how many times slower than ternary (fused), by minima"
    )
    shapes = arguments.shapes or ([] if arguments.chains else SMALL_SHAPES + LARGE_SHAPES + ODD_SHAPES)
    for shape in shapes + (ALL_ODD_SHAPES if arguments.all_odd else []):
        m, k, n = map(int, shape.split(","))
        print(row(shape, m * k * n, compare(m, k, n, threads, blocks)), flush=True)
    for m in () if arguments.shapes else (1, 16, 64):
        table = compare(m, CHAIN_WIDTH, CHAIN_WIDTH, threads, blocks, CHAIN_LAYERS)
        print(row(f"{CHAIN_LAYERS} layers, {m}", m * CHAIN_WIDTH**2, table), flush=True)


if __name__ == "__main__":
    main()
