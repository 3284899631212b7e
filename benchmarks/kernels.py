"""Time the kernels of `TernaryMatMul` without onnxruntime, against each other or against those of another tree.

    python benchmarks/kernels.py [M,K,N ...] [--kernels NAME ...] [--against OPS_FOLDER] [--seconds 3]

Builds `kernels.cc` with the sources of `ops/`, and of the folder to compare with, for example of an older commit in a
work tree of its own. Every kernel is checked bit for bit before it is timed; blocks of runs take turns in one process
and on one thread, whose processor time counts. Minima over all blocks; x is how many times as long the first takes.
"""

import argparse
import ctypes
import os
import subprocess
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.ctypeslib import ndpointer

from bitsearch import ops
from bitsearch.ops.reference import pack, ternary_matmul

OPS = Path(__file__).parents[1] / "ops"
SHAPES = [
    "1,256,256",
    "64,256,256",
    "1,256,5760",
    "1,2560,6912",
    "64,256,5760",
    "512,512,512",
    "1000,256,5760",
]
BLOCK_US = 1500
FLAGS = (
    "-shared -fPIC -fvisibility=hidden -fno-gnu-unique -std=c++17 -O3 -ffp-contract=off -fno-math-errno -w"
)

Timer = Callable[[int], float]


def built(sources: Path, out: Path) -> ctypes.CDLL:
    """Compile one tree's kernels as a library."""
    layers = sources / "ternary_matmul"
    files = [*layers.glob("kernel_*.cc"), layers / "kernels.cc", layers / "linear.cc"]
    compiler = os.environ.get("CXX", "g++")
    subprocess.run(
        [compiler, *FLAGS.split(), f"-I{sources}", Path(__file__).with_suffix(".cc"), *files, "-o", out],
        check=True,
    )
    library = ctypes.CDLL(str(out))
    size, floats = ctypes.c_int64, ndpointer(np.float32, flags="C_CONTIGUOUS")
    library.Prepare.argtypes = [ctypes.c_char_p, size, size, size, ndpointer(np.uint8, flags="C_CONTIGUOUS")]
    library.Prepare.restype = ctypes.c_void_p
    library.Time.argtypes = [ctypes.c_void_p, floats, floats, size]
    library.Time.restype = ctypes.c_double
    return library


def prepared(trees: dict[str, ctypes.CDLL], kernels: list[str], m: int, k: int, n: int) -> dict[str, Timer]:
    """Pack weights and check results; give what to time, without kernels that a tree does not have.

    Raises:
        AssertionError: a kernel computes something else than numpy.
    """
    rng = np.random.default_rng(0)
    weights = pack(rng.integers(-1, 2, (n, k)).astype(np.int8))
    x, y = rng.normal(size=(m, k)).astype(np.float32), np.empty((m, n), np.float32)
    expected = ternary_matmul(x, weights, np.ones((), np.float32), K=k)
    timers: dict[str, Timer] = {}
    for kernel in kernels:
        for label, library in trees.items():
            made = library.Prepare(kernel.encode(), m, k, n, weights)
            if not made:
                continue
            library.Time(made, x, y, 1)
            np.testing.assert_array_equal(y, expected)
            timers[label + kernel] = partial(library.Time, made, x, y)
    return timers


def compare(timers: dict[str, Timer], seconds: float) -> dict[str, float]:
    """Take turns for about so many seconds; give the least microseconds of a run by name."""
    repeats = {name: max(1, int(BLOCK_US / timer(1))) for name, timer in timers.items()}
    once = sum(timer(repeats[name]) * repeats[name] for name, timer in timers.items())
    blocks = max(5, int(seconds * 1e6 / once))
    least = dict.fromkeys(timers, float("inf"))
    for _ in range(blocks):
        for name, timer in timers.items():
            least[name] = min(least[name], timer(repeats[name]))
    return least


def main() -> None:
    """Print a line for each shape."""
    usable = [kernel.name for kernel in ops.kernels() if kernel.usable and kernel.name != "portable"]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shapes", nargs="*", default=SHAPES, metavar="M,K,N")
    parser.add_argument("--kernels", nargs="+", default=usable, choices=usable)
    parser.add_argument("--against", type=Path, help="folder ops/ of another tree")
    parser.add_argument("--seconds", type=float, default=3, help="for each shape")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        trees = {"": built(OPS, Path(folder) / "this.so")}
        if arguments.against:
            trees["other "] = built(arguments.against.resolve(), Path(folder) / "other.so")
        for shape in arguments.shapes:
            m, k, n = map(int, shape.split(","))
            found = compare(prepared(trees, arguments.kernels, m, k, n), arguments.seconds)
            first = next(iter(found.values()))
            cells = [
                f"{name} {least:.2f} us, {m * k * n / least / 1e3:.0f}/ns, x{first / least:.2f}"
                for name, least in found.items()
            ]
            print(f"{shape:>14}  " + "; ".join(cells), flush=True)


if __name__ == "__main__":
    main()
