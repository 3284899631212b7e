"""Time the reproducible operators against onnxruntime's own, and whole files against their reproducible form.

    .venv/bin/python benchmarks/reproducible.py [FILE.onnx ...] [--threads 1] [--batch 1 100] [--blocks 9]

Without files: operators at sizes of the networks. Blocks of runs are interleaved in one process; the ratio is that of
the minima, onnxruntime's time by ours.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bitsearch import ops
from bitsearch.cli.files import known_inputs
from bitsearch.onnxfile import bench, graph, runtime
from bitsearch.onnxfile.bench import Contender
from bitsearch.onnxfile.reproducible import reproducible

PRODUCTS = ((1, 256, 256), (1, 480, 1920), (16, 256, 256), (135, 480, 1920), (512, 512, 512), (2080, 16, 8))
ROWS = (("Softmax", 135), ("LayerNormalization", 480))
FUNCTIONS = ("Exp", "Gelu", "Sigmoid", "Tanh", "Sin", "Log")


def model(op: str, shapes: Sequence[Sequence[int]], columns: int) -> onnx.ModelProto:
    """Write one standard operator with constant second and third inputs."""
    rng = np.random.default_rng(0)
    names = [f"constant_{i}" for i, _ in enumerate(shapes)]
    constants = [
        numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)
        for name, shape in zip(names, shapes, strict=True)
    ]
    fed = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", columns])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", None])
    nodes = [helper.make_node(op, ["x", *names], ["y"], op)]
    opsets = [helper.make_opsetid("", 20)]
    return helper.make_model(
        helper.make_graph(nodes, op, [fed], [out], constants), opset_imports=opsets, ir_version=9
    )


def compare(name: str, given: onnx.ModelProto, batches: Sequence[int], threads: int, blocks: int) -> None:
    """Print a row for every batch."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Contender(kind, Path(folder) / f"{kind}.onnx") for kind in ("onnxruntime", "ours")]
        for item, content in zip(files, (given, reproducible(given)), strict=True):
            graph.write(content, item.path)
        timed = bench.bench(files, batches, threads, blocks, known=known_inputs())
    for batch in batches:
        theirs, ours = (item.minimum_us for item in timed.timings if item.batch == batch)
        print(f"| {name} | {batch} | {theirs:.1f} | {ours:.1f} | {theirs / ours:.2f} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE.onnx")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 100])
    parser.add_argument("--blocks", type=int, default=9)
    arguments = parser.parse_args()
    print(f"{runtime.environment()}, threads {arguments.threads}, operators of {ops.DOMAIN}")
    print("| | rows | onnxruntime µs | ours µs | x |\n|---|---|---|---|---|")
    settings = arguments.threads, arguments.blocks
    for path in arguments.files:
        compare(path.stem, graph.read(path), arguments.batch, *settings)
    if arguments.files:
        return
    for m, k, n in PRODUCTS:
        compare(f"MatMul {k} x {n}", model("MatMul", [(k, n)], k), [m], *settings)
    for op, size in ROWS:
        shapes = [(size,), (size,)] if op == "LayerNormalization" else []
        compare(f"{op} {size}", model(op, shapes, size), [16, 810], *settings)
    for op in FUNCTIONS:
        compare(op, model(op, [], 512), [1, 100], *settings)


if __name__ == "__main__":
    main()
