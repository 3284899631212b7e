"""What `inspect` says of files of ours and of others."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from ternary_layer import Layer

from bitsearch import Precision
from bitsearch.onnxfile.inspect import LayerContent, inspect, json_value
from bitsearch.onnxfile.ternarize import ternarize

RNG = np.random.default_rng(0)


def foreign() -> onnx.ModelProto:
    """Build a convolution, a fully connected layer with half of its weights 0, and an 8-bit product."""
    weight = RNG.normal(size=(6, 8)).astype(np.float32)
    weight[:, ::2] = 0
    constants: dict[str, NDArray[Any]] = {
        "k": RNG.normal(size=(2, 1, 3)).astype(np.float32),
        "w": weight,
        "b": np.ones(6, np.float32),
        "q": np.ones((6, 4), np.int8),
        "shape": np.array([-1, 8]),
    }
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"], "conv"),
        helper.make_node("Reshape", ["c", "shape"], ["f"]),
        helper.make_node("Gemm", ["f", "w", "b"], ["g"], "fc", transB=1),
        helper.make_node("Cast", ["g"], ["i"], to=TensorProto.INT8),
        helper.make_node("MatMulInteger", ["i", "q"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1, 6])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, ["batch", 4])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"author": "someone", "number": "7"})
    return model


def test_foreign_file(tmp_path: Path) -> None:
    path = tmp_path / "foreign.onnx"
    onnx.save(foreign(), path)
    found = inspect(path)
    assert found.layers == (
        LayerContent("conv", "Conv", "float32", (2, 1, 3), 6, 24, 0.0),
        LayerContent("fc", "Gemm", "float32", (6, 8), 54, 192, 0.5),
        LayerContent("q", "MatMulInteger", "int8", (6, 4), 24, 24, None),
    )
    assert (found.bytes, found.opsets) == (path.stat().st_size, {"ai.onnx": 17})
    assert (found.inputs, found.outputs) == (("x: float (batch, 1, 6)",), ("y: int32 (batch, 4)",))
    assert (found.quantized_parameters, found.total_parameters, found.fraction) == (0, 84, 0.0)
    assert found.precisions["int8"] == {"weights": 24, "bytes": 24, "fraction": 24 / 84}
    assert found.metadata == {"author": "someone", "number": "7"}
    assert found.nodes["Gemm"] == 1


@pytest.mark.parametrize("bias", [False, True])
def test_ternary_file(tmp_path: Path, bias: bool) -> None:
    onnx.save(Layer.random(10, 3, bias=bias).model(), tmp_path / "ours.onnx")
    found = inspect(tmp_path / "ours.onnx")
    (layer,) = found.layers
    assert (layer.precision, layer.shape, layer.bytes) == ("ternary", (3, 10), 9)
    assert layer.zeros is not None
    assert 0.1 < layer.zeros < 0.7
    assert layer.parameters == found.quantized_parameters == found.total_parameters == (33 if bias else 30)
    assert found.fraction == 1.0
    assert found.functions == ("com.bithep::TernaryMatMul",)


def test_external_data_counts(tmp_path: Path) -> None:
    path = tmp_path / "file.onnx"
    onnx.save(foreign(), path, save_as_external_data=True, location="data.bin", size_threshold=100)
    assert inspect(path).bytes == path.stat().st_size + (tmp_path / "data.bin").stat().st_size


def test_needs_no_torch() -> None:
    heavy = {"torch", "optuna", "onnxruntime"}
    code = f"import bitsearch.onnxfile.inspect, bitsearch.onnxfile.ternarize, sys; print({heavy} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def kinds() -> onnx.ModelProto:
    """Build weights of 8 bits behind DequantizeLinear, of 4 bits and of an LSTM, whose recurrence has its own."""
    constants: dict[str, NDArray[Any]] = {
        "q": np.ones((8, 8), np.int8),
        "s": np.ones(8, np.float32),
        "n": np.full((4, 1, 16), 0x88, np.uint8),
        "ns": np.ones(4, np.float32),
        "l": np.ones((1, 8, 8), np.float32),
        "r": np.ones((1, 8, 2), np.float32),
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s"], ["d"], axis=0),
        helper.make_node("Transpose", ["d"], ["t"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "t"], ["y"], "eight"),
        helper.make_node(
            "MatMulNBits", ["w", "n", "ns"], ["z"], "four", "", "com.microsoft", K=32, N=4, block_size=32
        ),
        helper.make_node("LSTM", ["v", "l", "r"], ["", "h"], "recurrent", hidden_size=2),
    ]
    sizes: dict[str, list[str | int | None]] = {"x": ["b", 8], "w": ["b", 32], "v": ["t", "b", 8]}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in sizes.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("y", "z", "h")],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def test_every_kind_of_quantised_weights_counts(tmp_path: Path) -> None:
    onnx.save(kinds(), tmp_path / "kinds.onnx")
    found = inspect(tmp_path / "kinds.onnx")
    # The default of `bits` is 4; steps are no parameters of the network.
    assert [(item.name, item.precision, item.parameters, item.bytes) for item in found.layers] == [
        ("eight", "int8", 64, 64),
        ("four", "int4", 128, 64),
        ("recurrent", "float32", 64, 256),
        ("recurrent", "float32", 16, 64),
    ]
    assert found.total_parameters == 64 + 128 + 64 + 16
    assert found.precisions["int4"] == {"weights": 128, "bytes": 64, "fraction": 128 / 272}


def test_agrees_with_what_the_file_says_of_itself(tmp_path: Path) -> None:
    converted, _ = ternarize(
        kinds(), lambda name: Precision.TERNARY if name == "eight" else Precision.FLOAT32
    )
    onnx.save(converted, tmp_path / "file.onnx")
    found = inspect(tmp_path / "file.onnx")
    assert found.fraction == pytest.approx(64 / 272)
    assert found.metadata["bitsearch.fraction"] == repr(found.fraction)


def test_metadata_is_valid_json_whatever_the_file_says() -> None:
    for text in ('{"a": NaN}', '{"a": Infinity}', "[" * 100_000, "[1]", "no"):
        assert json_value(text) is None
    assert json_value('{"a": 1}') == {"a": 1}
