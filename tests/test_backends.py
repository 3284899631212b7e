"""The same ternary weights for other kernels."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from ternary_chain_layers import Chain

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


# What an output may be off by: half a step of 8 bits a row, one step of the whole batch, roundings of float32.
STEPS = {"nbits": 0.51, "int2": 0.51, "int8": 1.01, "float32": 0.0}


@pytest.mark.parametrize(("backend", "bias"), [*itertools.product(STEPS, [True, False])])
@pytest.mark.parametrize(("k", "n"), [(1, 1), (9, 8), (100, 7), (300, 4)])
def test_every_backend_multiplies_by_the_same_weights(backend: str, bias: bool, k: int, n: int) -> None:
    source = ternary(dense(k, n, bias))
    found = rewrite(source, backend)
    onnx.checker.check_model(found, full_check=True)
    old = {tensor.name: numpy_helper.to_array(tensor) for tensor in source.graph.initializer}
    weight = unpack(old["w.packed"], k) * old["w.scale"].reshape(-1, 1)
    x = np.random.default_rng(1).normal(size=(5, k)).astype(np.float32)
    step = (np.ptp(np.append(x, 0)) if backend == "int8" else np.abs(x).max(axis=1, keepdims=True)) / 127
    expected = x @ weight.T + old.get("b", 0)
    limit = STEPS[backend] * step * np.abs(weight).sum(axis=1) + 1e-5
    assert (np.abs(run(found, x) - expected) <= limit).all()


def optimised(model: onnx.ModelProto, folder: Path) -> list[str]:
    """Give the operators that onnxruntime makes of a file."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6])
def test_onnxruntime_fuses_two_bits_with_the_product(n: int, bias: bool, tmp_path: Path) -> None:
    found = optimised(rewrite(ternary(dense(64, n, bias)), "int2"), tmp_path)
    assert "MatMulNBits" in found
    assert not {"DequantizeLinear", "MatMul", "Gemm"}.intersection(found)


NODES = {"nbits": "MatMulNBits", "int2": "MatMul", "int8": "MatMulInteger", "float32": "MatMul"}


@pytest.mark.parametrize("backend", NODES)
def test_nothing_of_the_operator_stays(backend: str) -> None:
    source = ternary(dense(64, 8, True))
    found = rewrite(source, backend)
    assert not found.functions
    assert {item.domain for item in found.opset_import} == {
        "",
        *(["com.microsoft"] if backend == "nbits" else []),
    }
    (named,) = (node for node in found.graph.node if node.name == "fc")
    assert named.op_type == NODES[backend]
    names = {tensor.name for tensor in found.graph.initializer}
    made = {name for node in found.graph.node for name in node.output}
    assert names == {name for node in found.graph.node for name in node.input} - made - {"x", ""}
    if backend in ("nbits", "int2"):
        assert inspect.parameters(found) == inspect.parameters(source)


def test_nodes_that_share_weights_share_what_is_made_of_them() -> None:
    model = dense(64, 8, False)
    model.graph.node.append(helper.make_node("Gemm", ["x", "w"], ["z"], "other"))
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, None))
    for backend in NODES:
        found = rewrite(ternary(model), backend)
        ones = [t.name for t in found.graph.initializer if np.prod(t.dims) >= 64 * 8 / 4]
        assert len(ones) == 1, (backend, ones)


def test_two_bits_bring_their_opset_and_leave_the_rest(tmp_path: Path) -> None:
    model = dense(64, 8, True)
    del model.graph.node[:]
    model.graph.node.extend(
        [
            helper.make_node("Split", ["x"], ["p", "q"], axis=1),  # newer opsets want to be told how many
            helper.make_node("Concat", ["q", "p"], ["xx"], axis=1),
            helper.make_node("Gemm", ["xx", "w", "b"], ["y"], "fc"),
        ]
    )
    model.opset_import[0].version, model.ir_version = 13, 7
    helper.set_model_props(model, {"author": "somebody"})
    source = ternary(model)
    found = rewrite(source, "int2")
    onnx.checker.check_model(found, full_check=True)
    assert graph.opset(found) >= 25
    assert found.ir_version >= 13
    assert graph.metadata(found)["author"] == "somebody"
    x = np.random.default_rng(1).normal(size=(5, 64)).astype(np.float32)
    np.testing.assert_allclose(run(found, x), run(rewrite(source, "nbits"), x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backend", NODES)
def test_layers_in_bodies(backend: str) -> None:
    info = helper.make_tensor_value_info
    rng = np.random.default_rng(0)
    inside = numpy_helper.from_array(rng.normal(size=(8, 8)).astype(np.float32), "v")
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state", "v"], ["a"], "inner"),
            helper.make_node("MatMul", ["a", "w"], ["b"], "outer"),
            helper.make_node("Identity", ["going"], ["on"]),
        ],
        "body",
        [
            info("step", TensorProto.INT64, []),
            info("going", TensorProto.BOOL, []),
            info("state", TensorProto.FLOAT, ["batch", 8]),
        ],
        [info("on", TensorProto.BOOL, []), info("b", TensorProto.FLOAT, ["batch", 8])],
        [inside],
    )
    model = dense(8, 8, False)
    del model.graph.node[:]
    model.graph.node.append(helper.make_node("Loop", ["trips", "", "x"], ["y"], "loop", body=body))
    model.graph.initializer.append(numpy_helper.from_array(np.array(2), "trips"))
    source = ternary(model)
    assert sum(node.op_type == "TernaryMatMul" for s in graph.scopes(source) for node in s.nodes) == 2
    found = rewrite(source, backend)
    assert not found.functions
    x = rng.normal(size=(3, 8)).astype(np.float32)
    exact = run(rewrite(source, "float32"), x)
    assert np.abs(run(found, x) - exact).max() < 0.1 * np.abs(exact).max()


def test_keys_that_a_file_has_twice_come_once() -> None:
    source = ternary(dense(64, 8, True))
    for value in "ab":
        source.metadata_props.add(key="author", value=value)
    found = rewrite(source, "nbits")
    onnx.checker.check_model(found, full_check=True)
    assert graph.metadata(found)["author"] == "b"


def test_chains_are_taken_apart() -> None:
    source = Chain.random(40, 24, 8).model()
    found = rewrite(source, "nbits")
    assert not found.functions
    assert sum(node.op_type == "MatMulNBits" for node in found.graph.node) == 2
    x = np.random.default_rng(0).normal(size=(6, 40)).astype(np.float32)
    ours, theirs = (
        ort.InferenceSession(model.SerializeToString()).run(None, {"X": x})[0] for model in (source, found)
    )
    assert np.abs(ours - theirs).max() < 2 / 127 * np.abs(ours).max()


def test_ternary_is_left_as_it_is() -> None:
    source = ternary(dense(64, 8, True))
    assert rewrite(source, "ternary") == source


@pytest.mark.parametrize("backend", NODES)
def test_the_commands(backend: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out, ours = (tmp_path / name for name in ("a.onnx", "out.onnx", "ours.onnx"))
    onnx.save(dense(64, 8, True), file)
    assert main(["ternarize", str(file), "--out", str(out), "--backend", backend]) == 0
    assert main(["ternarize", str(file), "--out", str(ours)]) == 0
    again = tmp_path / "again.onnx"
    assert main(["export", str(ours), "--out", str(again), "--backend", backend]) == 0
    capsys.readouterr()
    x = np.random.default_rng(1).normal(size=(2, 64)).astype(np.float32)
    np.testing.assert_array_equal(run(onnx.load(out), x), run(onnx.load(again), x))


def test_standard_operators_alone_hold_no_two_bits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "a.onnx", tmp_path / "out.onnx"
    onnx.save(ternary(dense(64, 8, True)), file)
    words = ["export", str(file), "--out", str(out), "--portable", "--backend"]
    assert main([*words, "nbits"]) == 2
    assert "expected --backend ternary, int8 or float32" in capsys.readouterr().err
    assert not out.exists()
    assert main([*words, "float32"]) == 0
    assert {node.op_type for node in onnx.load(out).graph.node} <= {"MatMul", "Add", "Gemm"}
