"""Time `TernaryMatMul` against the other ways onnxruntime multiplies matrices on a processor.

Every contestant is checked before it is timed; blocks of runs are interleaved in one process, and a table of
minima, medians and ratios is printed. Usage: ternary_matmul.py [--threads T] [--blocks B] [M,K,N ...]
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bitsearch import ops
from bitsearch.ops.reference import pack, ternary_matmul

SMALL_SHAPES = ["1,256,256", "16,256,256", "64,256,256", "1,256,5760", "1,480,1920", "1,2560,6912"]
LARGE_SHAPES = ["64,256,5760", "1000,256,5760", "135,480,1920", "512,512,512", "256,2560,6912"]
ODD_SHAPES = ["7,129,333", "33,188,2049", "300,271,7830"]
BLOCK_US = 20_000

Arrays = dict[str, NDArray[np.generic]]


def one_node(op: str, domain: str, k: int, arrays: Arrays, **attributes: Any) -> bytes:
    """Build a model of one node with input X (M, K), constant arrays and output Y (M, N)."""
    node = helper.make_node(op, ["X", *arrays], ["Y"], op, domain=domain, **attributes)
    graph = helper.make_graph(
        [node],
        op,
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["M", k])],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, ["M", None])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items() if name],
    )
    opsets = [helper.make_opsetid("", 20), *([helper.make_opsetid(domain, 1)] if domain else [])]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return bytes(model.SerializeToString())


def n_bit(weights: NDArray[np.int8], bits: int, block: int = 32) -> bytes:
    """Build `MatMulNBits`: blocks of unsigned codes along K with one scale and zero point each."""
    n, k = weights.shape
    blocks, per_byte = -(-k // block), 8 // bits
    zero = 1 << (bits - 1)
    codes = np.full((n, blocks * block), zero, np.uint8)
    codes[:, :k] = weights + zero
    shifts = np.arange(per_byte, dtype=np.uint8) * np.uint8(bits)
    packed = np.bitwise_or.reduce(codes.reshape(n, -1, per_byte) << shifts, axis=2)
    arrays: Arrays = {"B": packed.reshape(n, blocks, -1), "scales": np.ones((n, blocks), np.float32)}
    return one_node(
        "MatMulNBits", "com.microsoft", k, arrays, K=k, N=n, bits=bits, block_size=block, accuracy_level=4
    )


def contestants(weights: NDArray[np.int8]) -> dict[str, bytes]:
    """Build the models, all of Y = X W^T, by name."""
    k = weights.shape[1]
    one, point = np.ones(1, np.float32), np.zeros(1, np.int8)
    int8: Arrays = {"B": np.ascontiguousarray(weights.T), "scale": one, "zero_point": point}
    ternary: Arrays = {"W": pack(weights), "scale": np.ones((), np.float32)}
    return {
        "ternary": one_node("TernaryMatMul", ops.DOMAIN, k, ternary, K=k),
        "fp32": one_node("MatMul", "", k, {"B": weights.T.astype(np.float32)}),
        "int8": one_node("DynamicQuantizeMatMul", "com.microsoft", k, int8),
        "4-bit": n_bit(weights, 4),
        "2-bit": n_bit(weights, 2),
    }


def timed(run: Callable[[], object], runs: int) -> float:
    """Time one block, in microseconds a run."""
    start = time.perf_counter()
    for _ in range(runs):
        run()
    return (time.perf_counter() - start) / runs * 1e6


def opened(
    model: bytes, x: NDArray[np.float32], threads: int
) -> tuple[Callable[[], object], NDArray[np.float32]]:
    """Open a session and return what to time, with the result of a first run."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ops.session(model, sess_options=options)
    binding = session.io_binding()
    binding.bind_ortvalue_input("X", ort.OrtValue.ortvalue_from_numpy(x))
    binding.bind_output("Y")
    session.run_with_iobinding(binding)
    return lambda: session.run_with_iobinding(binding), binding.get_outputs()[0].numpy()


def compare(m: int, k: int, n: int, threads: int, blocks: int) -> dict[str, tuple[float, float]]:
    """Verify and time all contestants; return minimum and median microseconds by name.

    Raises:
        AssertionError: a contestant computes something else.
    """
    rng = np.random.default_rng(0)
    weights = rng.integers(-1, 2, (n, k)).astype(np.int8)
    x = rng.normal(size=(m, k)).astype(np.float32)
    exact = x.astype(np.float64) @ weights.T
    runs = {}
    for name, model in contestants(weights).items():
        runs[name], y = opened(model, x, threads)
        if name == "ternary":
            np.testing.assert_array_equal(y, ternary_matmul(x, pack(weights), np.ones((), np.float32), K=k))
        error = np.sqrt(np.mean((y - exact) ** 2) / np.mean(exact**2))
        assert error < 0.02, f"{name}: relative error {error}"
    repeats = {name: max(1, int(BLOCK_US / timed(run, 1))) for name, run in runs.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(blocks):
        for name, run in runs.items():
            times[name].append(timed(run, repeats[name]))
    return {name: (min(found), statistics.median(found)) for name, found in times.items()}


def processor() -> str:
    """Name the processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "shapes", nargs="*", default=SMALL_SHAPES + LARGE_SHAPES + ODD_SHAPES, metavar="M,K,N"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--blocks", type=int, default=15)
    arguments = parser.parse_args()
    kernel = next(kernel.name for kernel in ops.kernels() if kernel.chosen)
    print(f"{processor()}; kernel {kernel}; threads {arguments.threads}; onnxruntime {ort.__version__}")
    print("microseconds: minimum (median) of blocks; x: how many times slower than ternary, by minima")
    for shape in arguments.shapes:
        m, k, n = map(int, shape.split(","))
        table = compare(m, k, n, arguments.threads, arguments.blocks)
        best = table["ternary"][0]
        cells = [f"{name} {low:.1f} ({mid:.1f}) {low / best:.2f}x" for name, (low, mid) in table.items()]
        print(f"{shape:>14}  {m * k * n / best / 1e3:5.0f} GMAC/s  " + "  ".join(cells), flush=True)


if __name__ == "__main__":
    main()
