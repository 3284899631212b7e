"""Post-export ternarisation of files that nobody prepared for it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bitsearch import Precision, ops
from bitsearch.core.errors import ExportError
from bitsearch.core.rounding import round_rows
from bitsearch.onnxfile import graph
from bitsearch.onnxfile.edit import Outcome
from bitsearch.onnxfile.linear import FOLDED
from bitsearch.onnxfile.ternarize import layer_names, ternarize
from bitsearch.ops.reference import pack, ternary_matmul

Array = NDArray[Any]
RNG = np.random.default_rng(0)
W = RNG.normal(size=(6, 9)).astype(np.float32)  # (out_features, in_features)
B = RNG.normal(size=6).astype(np.float32)
X = RNG.normal(size=(5, 9)).astype(np.float32)
FLOAT, BOOL, INT64 = TensorProto.FLOAT, TensorProto.BOOL, TensorProto.INT64


def info(name: str, kind: int = FLOAT, shape: Any = ("batch", None)) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def model_of(
    nodes: list[onnx.NodeProto],
    constants: dict[str, Array],
    inputs: list[onnx.ValueInfoProto] | None = None,
    outputs: tuple[str, ...] = ("y",),
    rank: int = 2,
) -> onnx.GraphProto:
    given = [info("x", shape=["batch", 9])] if inputs is None else inputs
    made = [info(name, shape=[None] * rank) for name in outputs]
    return helper.make_graph(
        nodes, "g", given, made, [numpy_helper.from_array(a, n) for n, a in constants.items()]
    )


def model(built: onnx.GraphProto, opset: int = 20, **keywords: Any) -> onnx.ModelProto:
    keywords.setdefault("ir_version", 10)
    return helper.make_model(built, opset_imports=[helper.make_opsetid("", opset)], **keywords)


def gemm(**attributes: Any) -> onnx.ModelProto:
    attributes.setdefault("transB", 1)
    weight = W if attributes["transB"] else np.ascontiguousarray(W.T)
    return model(
        model_of(
            [helper.make_node("Gemm", ["x", "w", "b"], ["y"], "fc", **attributes)], {"w": weight, "b": B}
        )
    )


def everything(_name: str) -> Precision:
    return Precision.TERNARY


def convert(source: onnx.ModelProto) -> tuple[onnx.ModelProto, tuple[Outcome, ...]]:
    converted, outcomes = ternarize(source, everything)
    onnx.checker.check_model(converted, full_check=True)
    return converted, outcomes


def run(found: onnx.ModelProto, **feed: Array) -> list[Array]:
    content = found.SerializeToString()
    ours = ops.session(content).run(None, feed)
    plain = ort.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, feed)
    for one, other in zip(ours, plain, strict=True):
        np.testing.assert_array_equal(one, other)
    return list(ours)


def expected(x: Array, bias: Array | None = B, gain: float = 1.0, weight: Array = W) -> Array:
    codes, scale = round_rows(weight)
    return ternary_matmul(x, pack(codes), np.asarray(scale * np.float32(gain)), bias, K=weight.shape[1])


def ops_of(found: onnx.ModelProto) -> list[str]:
    return [node.op_type for scope in graph.scopes(found) for node in scope.graph.node]


def constants_of(found: onnx.ModelProto) -> set[str]:
    return {name for scope in graph.scopes(found) for name in scope.initializers}


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (0.5, -2.0)])
def test_gemm(transposed: int, alpha: float, beta: float) -> None:
    converted, (outcome,) = convert(gemm(transB=transposed, alpha=alpha, beta=beta))
    np.testing.assert_array_equal(run(converted, x=X)[0], expected(X, B * np.float32(beta), alpha))
    assert ops_of(converted) == ["TernaryMatMul"]
    assert (outcome.layer, outcome.shape, outcome.reason) == ("fc", (6, 9), None)
    assert constants_of(converted) == {"w.packed", "w.scale", "b" if beta == 1 else "b.bias"}
    assert converted.graph.node[0].name == "fc"


@pytest.mark.parametrize("bias", [B, B[:1], B[0], B[None]], ids=["(6)", "(1)", "()", "(1, 6)"])
def test_gemm_broadcasts_its_bias(bias: Array) -> None:
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], "fc", transB=1)
    converted, _ = convert(model(model_of([node], {"w": W, "b": np.asarray(bias)})))
    full = np.broadcast_to(np.ravel(bias), (6,)).astype(np.float32)
    np.testing.assert_array_equal(run(converted, x=X)[0], expected(X, full))


def test_layers_of_our_exports_keep_their_names() -> None:
    """Our exporter names the Add of a pair after the layer, and says so in a property that `parity` reads."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], "node_MatMul_7"),
        helper.make_node("Add", ["a", "b"], ["y"], "encoder.fc"),
    ]
    helper.set_metadata_props(nodes[1], {FOLDED: "encoder.norm"})
    converted, (outcome,) = convert(model(model_of(nodes, {"w": W.T, "b": B})))
    (node,) = converted.graph.node
    assert outcome.layer == node.name == "encoder.fc"
    assert {item.key: item.value for item in node.metadata_props} == {FOLDED: "encoder.norm"}


@pytest.mark.parametrize("swapped", [False, True])
def test_matmul_takes_the_add_behind_for_its_bias(swapped: bool) -> None:
    pair = ["b", "a"] if swapped else ["a", "b"]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Add", pair, ["y"])]
    source = model(model_of(nodes, {"w": W.T, "b": B}, [info("x", shape=["n", "m", 9])], rank=3))
    source.graph.value_info.append(info("a", shape=["n", "m", 6]))
    converted, (outcome,) = convert(source)
    x = X[None].repeat(3, 0)
    np.testing.assert_array_equal(run(converted, x=x)[0], expected(x))
    assert ops_of(converted) == ["TernaryMatMul"]
    assert not converted.graph.value_info
    assert outcome.layer == "w"  # the node has no name


def test_add_that_is_no_bias_stays() -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Add", ["a", "c"], ["y"])]
    addend = RNG.normal(size=(5, 1)).astype(np.float32)
    converted, _ = convert(model(model_of(nodes, {"w": W.T, "c": addend})))
    assert ops_of(converted) == ["TernaryMatMul", "Add"]
    np.testing.assert_array_equal(run(converted, x=X)[0], expected(X, None) + addend)


def test_product_that_others_read_keeps_its_add() -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Add", ["a", "b"], ["y"])]
    converted, _ = convert(model(model_of(nodes, {"w": W.T, "b": B}, outputs=("y", "a"))))
    assert ops_of(converted) == ["TernaryMatMul", "Add"]
    with_bias, without = run(converted, x=X)
    np.testing.assert_array_equal(without, expected(X, None))
    np.testing.assert_array_equal(with_bias, expected(X, None) + B)


def test_weights_shared_by_nodes_are_packed_once() -> None:
    square = RNG.normal(size=(9, 9)).astype(np.float32)
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["a"], "first", transB=1),
        helper.make_node("Gemm", ["a", "w"], ["c"], "second", transB=1),
        helper.make_node("MatMul", ["c", "w"], ["y"], "third"),
    ]
    converted, _ = convert(model(model_of(nodes, {"w": square})))
    assert (
        len([name for name in constants_of(converted) if "packed" in name]) == 2
    )  # one for each orientation
    once = expected(expected(X, None, weight=square), None, weight=square)
    np.testing.assert_array_equal(run(converted, x=X)[0], expected(once, None, weight=square.T))


def test_weights_that_another_node_reads_stay() -> None:
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["a"], "fc", transB=1),
        helper.make_node("ReduceSumSquare", ["w"], ["sum"], keepdims=0),
        helper.make_node("Add", ["a", "sum"], ["y"]),
    ]
    converted, _ = convert(model(model_of(nodes, {"w": W})))
    assert "w" in constants_of(converted)
    np.testing.assert_allclose(run(converted, x=X)[0], expected(X, None) + (W**2).sum(), rtol=1e-5)


def test_only_chosen_layers_change_and_others_stay_byte_for_byte() -> None:
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["a"], "first", transB=1),
        helper.make_node("Relu", ["a"], ["r"], "act", doc_string="kept"),
        helper.make_node("Gemm", ["r", "v"], ["y"], "second", transB=1),
    ]
    source = model(model_of(nodes, {"w": W, "b": B, "v": W[:, :6]}), producer_name="someone")
    before = source.SerializeToString()
    converted, outcomes = ternarize(
        source, lambda name: Precision.BINARY if name == "first" else Precision.FLOAT32
    )
    assert source.SerializeToString() == before
    assert [item.layer for item in outcomes] == ["first"]
    assert list(converted.graph.node)[1:] == list(source.graph.node)[1:]
    kept = {tensor.name: tensor for tensor in converted.graph.initializer}
    assert all(kept[name] == tensor for tensor in source.graph.initializer if (name := tensor.name) != "w")
    assert (list(converted.graph.input), list(converted.graph.output), converted.producer_name) == (
        list(source.graph.input),
        list(source.graph.output),
        "someone",
    )


def test_metadata() -> None:
    source = gemm()
    helper.set_model_props(source, {"mine": "kept", "bitsearch.strategy": "default"})
    converted, _ = convert(source)
    found = graph.metadata(converted)
    assert found["mine"] == "kept"
    assert json.loads(found["bitsearch.assignment"]) == {"fc": "ternary"}
    assert float(found["bitsearch.fraction"]) == 1.0
    assert "bitsearch.strategy" not in found


def nodes_in_branches() -> onnx.ModelProto:
    """A weight of the main graph in one branch of an If, one of its own in the other."""
    then = model_of(
        [helper.make_node("Gemm", ["x", "w", "b"], ["t"], "outer", transB=1)], {}, [], outputs=("t",)
    )
    other = model_of(
        [helper.make_node("MatMul", ["x", "v"], ["e"], "inner")], {"v": -W.T}, [], outputs=("e",)
    )
    node = helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other)
    return model(model_of([node], {"w": W, "b": B}, [info("x", shape=["n", 9]), info("c", BOOL, [])]))


def test_nodes_in_branches() -> None:
    converted, outcomes = convert(nodes_in_branches())
    assert [item.layer for item in outcomes] == ["inner", "outer"]
    assert not {"w", "v"} & constants_of(converted)
    np.testing.assert_array_equal(run(converted, x=X, c=np.array(True))[0], expected(X))
    np.testing.assert_array_equal(run(converted, x=X, c=np.array(False))[0], expected(X, None, weight=-W))


def test_nodes_in_loops() -> None:
    square = RNG.normal(size=(9, 9)).astype(np.float32)
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state", "w"], ["next"], "step"),
            helper.make_node("Identity", ["go"], ["on"]),
        ],
        "body",
        [info("i", INT64, []), info("go", BOOL, []), info("state", shape=["n", 9])],
        [info("on", BOOL, []), info("next", shape=["n", 9])],
    )
    node = helper.make_node("Loop", ["trips", "", "x"], ["y"], body=body)
    converted, _ = convert(model(model_of([node], {"w": square, "trips": np.array(2, np.int64)})))
    once = expected(X, None, weight=square.T)
    np.testing.assert_array_equal(run(converted, x=X)[0], expected(once, None, weight=square.T))


def test_inputs_that_shadow_weights_go() -> None:
    source = gemm()
    source.graph.input.extend([info("w", shape=[6, 9]), info("b", shape=[6])])
    converted, (outcome,) = convert(source)
    assert [value.name for value in converted.graph.input] == ["x", "b"]
    assert outcome.note is not None
    assert "can no longer be fed" in outcome.note
    np.testing.assert_array_equal(run(converted, x=X)[0], expected(X))
    np.testing.assert_array_equal(run(converted, x=X, b=-B)[0], expected(X, -B))


@pytest.mark.parametrize("op", ["Transpose", "Identity"])
def test_weights_behind_nodes(op: str) -> None:
    weight = W if op == "Transpose" else W.T
    nodes = [
        helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(np.ascontiguousarray(weight))),
        helper.make_node(op, ["w"], ["v"]),
        helper.make_node("MatMul", ["x", "v"], ["y"], "fc"),
    ]
    converted, _ = convert(model(model_of(nodes, {})))
    assert ops_of(converted) == ["TernaryMatMul"]
    np.testing.assert_array_equal(run(converted, x=X)[0], expected(X, None))


FED = [info("x", shape=["n", 9]), info("w", shape=[9, 6]), info("b", shape=[6])]
DECLINED: dict[str, tuple[str, list[str], dict[str, Any], dict[str, Array], str]] = {
    "fed": ("MatMul", ["x", "w"], {}, {}, "its weights are not constant"),
    "left": ("MatMul", ["w", "x"], {}, {"w": W[:, :5]}, "its weights are the left factor"),
    "rank": ("MatMul", ["x", "w"], {}, {"w": W.T[None, None]}, "expected two axes"),
    "vector": ("MatMul", ["x", "w"], {}, {"w": W[0]}, r"shape (9,), expected two axes"),
    "whole": ("MatMul", ["x", "w"], {}, {"w": W.T.astype(np.int32)}, "are int32, expected float32"),
    "nan": ("MatMul", ["x", "w"], {}, {"w": W.T * np.float32(np.nan)}, "NaN or infinity"),
    "empty": ("MatMul", ["x", "w"], {}, {"w": W.T[:0]}, "shape (0, 6), expected two axes, not empty"),
    "beta": ("Gemm", ["x", "w", "b"], {"beta": 2.0}, {"w": W.T}, "beta scales its bias b"),
    "groups": ("Conv", ["x", "w"], {"group": 3}, {"w": W[:, :3, None]}, "it has 3 groups, expected 1"),
    "strides": ("Conv", ["x", "w"], {"strides": [2]}, {"w": W[:, :, None]}, "it has strides [2], expected 1"),
    "pads": ("Conv", ["x", "w"], {"pads": [0, 1]}, {"w": W[:, :, None]}, "it pads by [0, 1], expected 0"),
    "einsum": ("Einsum", ["x", "w"], {"equation": "ij,jk->ijk"}, {"w": W.T}, "is no product with a matrix"),
    "lstm": ("LSTM", ["x", "w", "b"], {"hidden_size": 2}, {"w": W[None]}, "act in every step of a recurrence"),
    "int8": ("MatMulInteger", ["x", "w"], {}, {"w": W.T.astype(np.int8)}, "quantised to 8 bits already"),
}  # fmt: skip


@pytest.mark.parametrize("case", DECLINED)
def test_declines_with_a_reason(case: str) -> None:
    op, inputs, attributes, constants, reason = DECLINED[case]
    nodes = [
        helper.make_node(op, inputs, ["y"], "odd", **attributes),
        helper.make_node("Gemm", ["x", "good"], ["z"], "fine", transB=1),
    ]
    fed = [value for value in FED if value.name not in constants]
    converted, outcomes = ternarize(
        model(model_of(nodes, {**constants, "good": W}, fed, ("y", "z"))), everything
    )
    assert [(item.layer, item.reason is None) for item in outcomes] == [("odd", False), ("fine", True)]
    assert outcomes[0].reason is not None
    assert reason in outcomes[0].reason
    assert converted.graph.node[0] == nodes[0]
    with pytest.raises(ExportError, match="found 1 that cannot be converted"):
        ternarize(model(model_of(nodes[:1], constants, fed)), everything)


@pytest.mark.parametrize("deep", [False, True])
def test_what_is_in_functions_is_inlined(deep: bool) -> None:
    function = helper.make_function(
        "mine",
        "Layer",
        ["x", "w"],
        ["y"],
        [helper.make_node("MatMul", ["x", "w"], ["y"], "in")],
        [helper.make_opsetid("", 20)],
    )
    outer = helper.make_function(
        "mine",
        "Block",
        ["a", "b"],
        ["c"],
        [helper.make_node("Layer", ["a", "b"], ["c"], "call", domain="mine")],
        [helper.make_opsetid("", 20), helper.make_opsetid("mine", 1)],
    )
    nodes = [
        helper.make_node("Block" if deep else "Layer", ["x", "w"], ["y"], domain="mine"),
        helper.make_node("MatMul", ["x", "w"], ["z"], "out"),
    ]
    functions = [function, *([outer] if deep else [])]
    source = model(model_of(nodes, {"w": W.T}, outputs=("y", "z")), functions=functions)
    source.opset_import.append(helper.make_opsetid("mine", 1))
    converted, outcomes = convert(source)
    assert [item.reason for item in outcomes] == [None, None]
    assert {(item.domain, item.name) for item in converted.functions} == {("com.bithep", "TernaryMatMul")}
    for found in run(converted, x=X):
        np.testing.assert_array_equal(found, expected(X, None))


@pytest.mark.parametrize("opset", [13, 17, 18, 19, 21, 22, 23])
def test_takes_other_opsets(opset: int) -> None:
    converted, _ = convert(model(gemm().graph, opset))
    assert graph.opset(converted) == opset
    np.testing.assert_array_equal(run(converted, x=X)[0], expected(X))


def test_a_second_pass_finds_nothing() -> None:
    converted, _ = convert(gemm())
    assert layer_names(converted) == ()
    with pytest.raises(ExportError, match="found none; expected one with constant float32 weights"):
        ternarize(converted, everything)


@pytest.mark.parametrize("limit", [100, graph.LARGEST_PROTOBUF])
def test_external_data(tmp_path: Path, limit: int) -> None:
    """Weights beside the file are read; a result that is too large for one file is written so."""
    big = RNG.normal(size=(64, 9)).astype(np.float32)
    node = helper.make_node("Gemm", ["x", "w"], ["y"], "fc", transB=1)
    source = model(model_of([node], {"w": big, "unused": np.ones((64, 64), np.float32)}))
    onnx.save(source, tmp_path / "in.onnx", save_as_external_data=True, location="w.bin", size_threshold=100)
    assert (tmp_path / "w.bin").stat().st_size >= big.nbytes
    converted, _ = ternarize(graph.read(tmp_path / "in.onnx"), everything)
    out = tmp_path / "out.onnx"
    graph.write(converted, out, limit)
    assert (tmp_path / "out.onnx.data").exists() == (limit == 100)
    np.testing.assert_array_equal(ops.session(out).run(None, {"x": X})[0], expected(X, None, weight=big))


BROKEN: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: None,
    "text": lambda path: path.write_text("no model"),
    "empty": lambda path: path.write_bytes(b""),
    "folder": lambda path: path.mkdir(),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_clear_errors(tmp_path: Path, case: str) -> None:
    BROKEN[case](tmp_path / "file.onnx")
    with pytest.raises(ExportError, match=r"file\.onnx.*expected"):
        graph.read(tmp_path / "file.onnx")
