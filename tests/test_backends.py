"""The same ternary weights for other kernels."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from bitsearch import Precision, ops
from bitsearch.cli import main
from bitsearch.onnxfile import graph, inspect
from bitsearch.onnxfile.backends import rewrite
from bitsearch.onnxfile.graph import Scope
from bitsearch.onnxfile.linear import dequantize_nbits
from bitsearch.onnxfile.ternarize import ternarize
from bitsearch.ops.reference import unpack


def dense(k: int, n: int, bias: bool, seed: int = 0) -> onnx.ModelProto:
    rng = np.random.default_rng(seed)
    constants = {"w": rng.normal(size=(k, n)).astype(np.float32)}
    if bias:
        constants["b"] = rng.normal(size=n).astype(np.float32)
    node = helper.make_node("Gemm", ["x", *constants], ["y"], "fc")
    built = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", k])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", n])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(built, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def ternary(model: onnx.ModelProto) -> onnx.ModelProto:
    return ternarize(model, lambda _: Precision.TERNARY)[0]


def run(model: onnx.ModelProto, x: Any) -> Any:
    """Run without the operator library."""
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("k", [1, 9, 32, 100, 256, 300])
def test_nbits_holds_the_same_weights_and_onnxruntime_runs_them(k: int, bias: bool) -> None:
    source = ternary(dense(k, 7, bias))
    found = rewrite(source, "nbits")
    onnx.checker.check_model(found, full_check=True)
    scope: Scope = next(iter(graph.scopes(found)))
    (node,) = scope.nodes
    old = {tensor.name: numpy_helper.to_array(tensor) for tensor in source.graph.initializer}
    weight = unpack(old["w.packed"], k) * old["w.scale"].reshape(-1, 1)
    np.testing.assert_array_equal(dequantize_nbits(scope, node), weight)
    x = np.random.default_rng(1).normal(size=(5, k)).astype(np.float32)
    float_product = x @ weight.T + old.get("b", 0)
    step = np.abs(x).max(axis=1, keepdims=True) / 127  # activations have 8 bits: each is off by half a step
    assert (np.abs(run(found, x) - float_product) <= 0.51 * step * np.abs(weight).sum(axis=1) + 1e-5).all()
    theirs = ops.session(source.SerializeToString()).run(None, {"x": x})[0]
    assert (np.abs(run(found, x) - theirs) <= 1.02 * step * np.abs(weight).sum(axis=1) + 1e-5).all()


def test_nothing_of_the_operator_stays() -> None:
    found = rewrite(ternary(dense(64, 8, True)), "nbits")
    assert not found.functions
    assert {item.domain for item in found.opset_import} == {"", "com.microsoft"}
    assert [node.op_type for node in found.graph.node] == ["MatMulNBits"]
    names = {tensor.name for tensor in found.graph.initializer}
    assert names == set(found.graph.node[0].input) - {"x", ""}
    assert found.graph.node[0].name == "fc"
    assert inspect.parameters(found) == inspect.parameters(ternary(dense(64, 8, True)))


def test_ternary_is_left_as_it_is() -> None:
    source = ternary(dense(64, 8, True))
    assert rewrite(source, "ternary") == source


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = tmp_path / "a.onnx", tmp_path / "out.onnx"
    onnx.save(dense(64, 8, True), file)
    assert main(["ternarize", str(file), "--out", str(out), "--backend", "nbits"]) == 0
    capsys.readouterr()
    assert run(onnx.load(out), np.ones((2, 64), np.float32)).shape == (2, 8)
