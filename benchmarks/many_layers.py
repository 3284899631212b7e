"""Time `bitsearch ternarize` on files of more and more layers: the time of one must not grow with their number.

    .venv/bin/python benchmarks/many_layers.py

Prints processor seconds of the whole command, its start included, for layers of 64 inputs and outputs.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LAYERS = (500, 1000, 2000, 4000)
WIDTH = 64


def model(layers: int) -> onnx.ModelProto:
    """Build a network of linear layers with ReLU between them."""
    rng = np.random.default_rng(0)
    nodes, constants, last = [], [], "x"
    for index in range(layers):
        weight = rng.standard_normal((WIDTH, WIDTH)).astype(np.float32)
        constants.append(numpy_helper.from_array(weight, f"w{index}"))
        nodes.append(helper.make_node("MatMul", [last, f"w{index}"], [f"y{index}"], f"layer{index}"))
        nodes.append(helper.make_node("Relu", [f"y{index}"], [last := f"h{index}"]))
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", WIDTH]) for name in ("x", last)
    ]
    graph = helper.make_graph(nodes, "layers", values[:1], values[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def seconds(path: Path, out: Path) -> float:
    """Give the processor time of one conversion."""
    before = os.times()
    command = [sys.executable, "-m", "bitsearch", "ternarize", str(path), "--out", str(out), "--json"]
    subprocess.run(command, check=True, capture_output=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def main() -> None:
    """Print a line for each number of layers."""
    with tempfile.TemporaryDirectory() as folder:
        for layers in LAYERS:
            path = Path(folder) / "model.onnx"
            onnx.save(model(layers), path)
            sys.stdout.write(f"{layers:5} layers: {seconds(path, Path(folder) / 'out.onnx'):.2f} s\n")


if __name__ == "__main__":
    main()
