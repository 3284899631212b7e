"""Time `TernaryMatMul` beside every ternary or 2-bit matrix product that installs from PyPI.

    pip install openvino litespark-inference    # whichever of the two are wanted
    python benchmarks/league.py [M,K,N ...] [--blocks 9]

The same ternary weights for all, one thread, one process, in turns; least processor time of a block. Each result is
held to the exact product first, and its relative error stands beside its time: rows are quantised by most, in blocks
by some, and by others not at all. What a call costs that does nothing is subtracted where onnxruntime runs the
product, and for OpenVINO; torch and Litespark are timed as Python calls them. What is not installed is left out.
"""

import argparse
import re
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from ternary_matmul import Arrays, chain, n_bit, opened, processor, timed, torch_int8

from bitsearch import ops
from bitsearch.onnxfile.backends import rewrite
from bitsearch.onnxfile.products import Backend
from bitsearch.ops.reference import pack

SHAPES = (
    *("1,256,256", "1,256,5760", "1,480,1920", "1,2560,6912"),
    *("16,256,256", "64,256,256", "64,256,5760", "135,480,1920", "512,512,512"),
)
OURS = "`TernaryMatMul`"
FLOAT = "onnxruntime, float32"
YARDSTICKS = (OURS, FLOAT)
FEW_BITS = "2 bits|INT2|u2|Litespark"
MOST_ERROR = 0.05
BLOCK_US = 3_000
LITESPARK_ROWS = 64  # that its kernel takes; more it leaves alone
OPENVINO_SETTINGS = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}

Codes = NDArray[np.int8]
Rows = NDArray[np.float32]
Contestant = tuple[Callable[[], object], Rows]
"""What to time, and what it computed."""


def onnxruntimes(weights: Codes, x: Rows) -> Iterator[tuple[str, Contestant]]:
    """Open what onnxruntime has: our operator, floats, 8 bits, and 2 and 4 bits in all their forms."""
    k = weights.shape[1]
    one, zero = np.ones(1, np.float32), np.zeros(1, np.int8)
    ternary = chain(
        "TernaryMatMul", ops.DOMAIN, k, {"W": pack(weights), "scale": np.ones((), np.float32)}, K=k
    )
    int8: Arrays = {"B": np.ascontiguousarray(weights.T), "scale": one, "zero_point": zero}
    models = {
        OURS: ternary,
        FLOAT: chain("MatMul", "", k, {"B": weights.T.astype(np.float32)}),
        "onnxruntime, int8 `DynamicQuantizeMatMul`": chain("DynamicQuantizeMatMul", "com.microsoft", k, int8),
        "onnxruntime, 4 bits `MatMulNBits`": n_bit(weights, 1.0, 1, 4, 128),
        "onnxruntime, 2 bits `MatMulNBits`": n_bit(weights, 1.0, 1, 2, 128),
        "onnxruntime, INT2 `DequantizeLinear`": rewrite(
            onnx.load_from_string(ternary), Backend.INT2
        ).SerializeToString(),
    }
    for name, model in models.items():
        yield name, opened(model, x, threads=1)
    if k % 32 == 0 and len(weights) % 128 == 0:  # what its tables ask for
        yield (
            "onnxruntime, 2 bits, tables",
            opened(n_bit(weights, 1.0, 1, 2, 32), x, 1, {"mlas.use_lut_gemm": "1"}),
        )


def openvino(weights: Codes, x: Rows) -> Contestant:
    """Compile OpenVINO's product of 2-bit weights, which quantises rows itself."""
    import openvino as ov
    from openvino import opset13

    (n, k), group = weights.shape, weights.shape[1]

    def stored(codes: NDArray[Any], groups: int) -> Any:
        packed = pack((codes.astype(np.int8) - 1).reshape(1, -1))
        tensor = ov.Tensor(packed.reshape(-1), ov.Shape([n, groups]), ov.Type.u2)
        return opset13.convert(opset13.constant(tensor, shared_memory=False), np.float32)

    codes = opset13.subtract(stored(weights + 1, k), stored(np.ones(n), 1))
    rows = opset13.parameter([-1, k], np.float32)
    y = opset13.matmul(
        rows, opset13.multiply(codes, opset13.constant(np.ones((n, 1), np.float32))), False, True
    )
    return _compiled(ov.Model([y], [rows]), x, DYNAMIC_QUANTIZATION_GROUP_SIZE=group)


def _compiled(model: Any, x: Rows, **settings: int) -> Contestant:
    import openvino as ov

    request = ov.Core().compile_model(model, "CPU", OPENVINO_SETTINGS | settings).create_infer_request()
    request.infer({0: x})
    return request.infer, request.get_output_tensor(0).data.copy()


def openvino_nothing() -> Callable[[], object]:
    """Compile a model that does nothing worth mentioning."""
    import openvino as ov
    from openvino import opset13

    number = opset13.parameter([1, 1], np.float32)
    return _compiled(ov.Model([opset13.relu(number)], [number]), np.zeros((1, 1), np.float32))[0]


def litespark(weights: Codes, x: Rows) -> Contestant:
    """Call Litespark's kernels as its own runtime does: quantise, then multiply."""
    from litespark_inference.torchless import kernel

    (m, k), n = x.shape, len(weights)
    packed = pack(weights)  # the same bytes
    q, steps, y = np.empty((m, k), np.int8), np.empty(m, np.float32), np.empty((m, n), np.float32)
    if m == 1:

        def run() -> object:
            step = kernel.quantize_activation(x[0], q[0])
            return kernel.matmul_packed_m1(q[0], packed, 1.0, step, y[0])
    else:

        def run() -> object:
            kernel.quantize_activation_batched(x, q, steps)
            for rows in (slice(begin, begin + LITESPARK_ROWS) for begin in range(0, m, LITESPARK_ROWS)):
                kernel.matmul_packed_mT(q[rows], steps[rows], packed, 1.0, y[rows])
            return y

    run()
    return run, y


def contestants(weights: Codes, x: Rows) -> dict[str, Contestant]:
    """Prepare all that are installed."""
    found = dict(onnxruntimes(weights, x))
    if find_spec("openvino"):
        found["OpenVINO, `u2`"] = openvino(weights, x)
    if find_spec("litespark_inference"):
        found["Litespark"] = litespark(weights, x)
    if find_spec("torch"):
        with warnings.catch_warnings(action="ignore"):
            found["torch, dynamic int8"] = torch_int8(weights, x, 1)
    return found


def compare(m: int, k: int, n: int, blocks: int) -> dict[str, tuple[float, float]]:
    """Give each one's microseconds and relative error, by name.

    Raises:
        AssertionError: a contestant computes something else.
    """
    rng = np.random.default_rng(0)
    weights = rng.integers(-1, 2, (n, k)).astype(np.int8)
    x = rng.normal(size=(m, k)).astype(np.float32)
    exact = x.astype(np.float64) @ weights.T
    runs, errors = {}, {}
    for name, (run, y) in contestants(weights, x).items():
        errors[name] = float(np.sqrt(np.mean((y - exact) ** 2) / np.mean(exact**2)))
        assert errors[name] < MOST_ERROR, f"{name} at {m}, {k}, {n}: relative error {errors[name]}"
        runs[name] = run
    nothing = {"onnxruntime": opened(chain("Identity", "", 1, {}), np.zeros((1, 1), np.float32), 1)[0]}
    if find_spec("openvino"):
        nothing["OpenVINO"] = openvino_nothing()
    runs |= {f"nothing, {host}": run for host, run in nothing.items()}
    block = partial(timed, clock=time.process_time)
    repeats = {name: max(1, int(BLOCK_US / block(run, 3))) for name, run in runs.items()}
    least = dict.fromkeys(runs, float("inf"))
    for _ in range(blocks):
        for name, run in runs.items():
            least[name] = min(least[name], block(run, repeats[name]))
    hosts = {name: "onnxruntime" if name == OURS else name.partition(",")[0] for name in errors}
    return {
        name: (least[name] - least.get(f"nothing, {host}", 0), errors[name]) for name, host in hosts.items()
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shapes", nargs="*", default=SHAPES, metavar="M,K,N")
    parser.add_argument("--blocks", type=int, default=9)
    arguments = parser.parse_args()
    packages = ("onnxruntime", "openvino", "litespark-inference", "torch")
    installed = [name for name in packages if find_spec(name.replace("-", "_"))]
    print(f"{processor()}; " + ", ".join(f"{name} {version(name)}" for name in installed) + "\n")
    shapes = [tuple(map(int, shape.split(","))) for shape in arguments.shapes]
    tables = [compare(m, k, n, arguments.blocks) for m, k, n in shapes]
    titles = [", ".join(map(str, shape)) for shape in shapes]
    print(f"| µs (relative error, %) at M, K, N | {' | '.join(titles)} |")
    print("|---" * (1 + len(titles)) + "|")
    for name in dict.fromkeys(name for table in tables for name in table):
        cells = [
            f"{table[name][0]:.3g} ({100 * table[name][1]:.2g})" if name in table else "" for table in tables
        ]
        print(f"| {name} | {' | '.join(cells)} |")
    for title, bits in (("best of at most 2 bits", FEW_BITS), ("best of all", "")):
        cells = []
        for table in tables:
            others = {
                name: us
                for name, (us, _) in table.items()
                if name not in YARDSTICKS and re.search(bits, name)
            }
            best = min(others, key=others.__getitem__)
            cells.append(f"{others[best] / table[OURS][0]:.2f}, {best}")
        print(f"| {title}, times as long as ours | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
