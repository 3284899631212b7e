"""Small files and data for tests of verbs that take any ONNX file."""

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[np.float32]
FEATURES, CLASSES = 12, 4


def weights(seed: int = 0) -> dict[str, Array]:
    """Three layers `(in, out)`: the first is ternary already, the others are not."""
    rng = np.random.default_rng(seed)
    return {
        "first": (rng.integers(-1, 2, (FEATURES, 16)) / 16).astype(np.float32),
        "second": rng.normal(size=(16, 16)).astype(np.float32),
        "last": rng.normal(size=(16, CLASSES)).astype(np.float32),
    }


def classifier(path: Path, seed: int = 0, softmax: bool = False) -> Path:
    """Write x -> first -> relu -> second -> relu -> last, whose outputs are logits or probabilities."""
    constants = weights(seed)
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["a"], "first"),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "second"], ["c"], "second"),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("MatMul", ["d", "last"], ["y"], "last"),
    ]
    if softmax:
        nodes[-1].output[0] = "e"
        nodes.append(helper.make_node("Softmax", ["e"], ["y"], axis=-1))
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", FEATURES])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def logits(x: Array, seed: int = 0) -> Array:
    """Compute what the classifier puts out before its softmax."""
    w = weights(seed)
    hidden = np.maximum(np.maximum(x @ w["first"], 0) @ w["second"], 0)
    return np.asarray(hidden @ w["last"], np.float32)


def events(path: Path, rows: int = 200, seed: int = 1) -> Array:
    """Write inputs: whole numbers with a 127 in every row, which 8 bits hold exactly."""
    rng = np.random.default_rng(seed)
    x = rng.integers(-127, 128, (rows, FEATURES)).astype(np.float32)
    x[:, 0] = 127
    np.savez(path, x=x)
    return x
