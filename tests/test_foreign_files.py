"""Files that others made, one trait each: converted to the original's outputs exactly, or declined.

Weights are ±1/16 and inputs whole numbers with 127 in every row, so that quantised activations are the inputs.
"""

# ruff: noqa: E501 - one case a line

import itertools
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
from bitsearch.core.rounding import Rounding
from bitsearch.onnxfile import graph
from bitsearch.onnxfile.edit import Outcome
from bitsearch.onnxfile.ternarize import layer_names, rounder, ternarize

Array = NDArray[Any]
RNG = np.random.default_rng(0)
FLOAT, HALF, DOUBLE, INT64, BOOL = (
    TensorProto.FLOAT,
    TensorProto.FLOAT16,
    TensorProto.DOUBLE,
    TensorProto.INT64,
    TensorProto.BOOL,
)
node = helper.make_node


def signs(*shape: int) -> Array:
    return ((RNG.integers(0, 2, shape) * 2 - 1) / 16).astype(np.float32)


def rows(*shape: int, axis: int = -1, kind: Any = np.float32) -> Array:
    x = np.asarray(RNG.integers(-126, 127, shape), kind)
    np.moveaxis(x, axis, 0)[0] = 127
    return x


W = signs(8, 4)
CODES = RNG.integers(-1, 2, (8, 4)).astype(np.int8)
B = np.arange(4, dtype=np.float32)
SHAPE = np.array([8, 4])


def build(
    nodes: list[onnx.NodeProto],
    constants: dict[str, Array],
    x: list[Any] | None = None,
    opset: int = 20,
    kind: int = FLOAT,
    outputs: dict[str, int] | None = None,
    **keywords: Any,
) -> onnx.ModelProto:
    info = helper.make_tensor_value_info
    made = helper.make_graph(
        nodes,
        "g",
        [info("x", kind, x or ["batch", 8])],
        [info(name, of, None) for name, of in (outputs or {"y": kind}).items()],
        [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in constants.items()],
    )
    domains = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    keywords.setdefault("ir_version", 10)
    return helper.make_model(made, opset_imports=domains, **keywords)


def everything(_name: str) -> Precision:
    return Precision.TERNARY


def only(layer: str) -> Callable[[str], Precision]:
    return lambda name: Precision.TERNARY if name == layer else Precision.FLOAT32


def run(model: onnx.ModelProto, x: Array) -> list[Array]:
    content = model.SerializeToString()
    return list(ort.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, {"x": x}))


def assert_same(source: onnx.ModelProto, x: Array) -> tuple[onnx.ModelProto, tuple[Outcome, ...]]:
    expected = run(source, x)
    for value, array in zip(source.graph.output, expected, strict=True):
        value.type.tensor_type.shape.dim.extend(onnx.TensorShapeProto.Dimension() for _ in array.shape)
    converted, outcomes = ternarize(source, everything)
    onnx.checker.check_model(converted, full_check=True)
    assert [item.reason for item in outcomes] == [None] * len(outcomes)
    assert all(item.lossless and item.error == 0 for item in outcomes)
    with_library = ops.session(converted.SerializeToString()).run(None, {"x": x})
    for found in (with_library, run(converted, x)):
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)
            assert (one.dtype, one.shape) == (other.dtype, other.shape)
    return converted, outcomes


def ops_of(model: onnx.ModelProto) -> list[str]:
    return [item.op_type for scope in graph.scopes(model) for item in scope.nodes]


def sparse() -> onnx.ModelProto:
    model = build([node("MatMul", ["x", "w"], ["y"])], {})
    places = np.flatnonzero(CODES)
    values = numpy_helper.from_array(CODES.ravel()[places] * np.float32(0.5), "w")
    indices = numpy_helper.from_array(places.astype(np.int64), "")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [8, 4]))
    return model


def two_bit_bytes() -> onnx.ModelProto:
    """Four codes a byte along the outputs, as published ternary language models store them."""
    packed = np.bitwise_or.reduce(
        (CODES.T + 1).astype(np.uint8).reshape(4, 1, 8) << np.array([0, 2, 4, 6], np.uint8)[:, None, None],
        axis=0,
    )
    constants = {
        "p": packed,
        "shifts": np.array([0, 2, 4, 6], np.uint8)[:, None, None],
        "mask": np.array(3, np.uint8),
        "one": np.array(1, np.int8),
        "shape": np.array([4, 8]),
        "scale": np.array(0.25, np.float32),
    }
    nodes = [
        node("BitShift", ["p", "shifts"], ["a"], direction="RIGHT"),
        node("BitwiseAnd", ["a", "mask"], ["b"]),
        node("Cast", ["b"], ["c"], to=TensorProto.INT8),
        node("Sub", ["c", "one"], ["d"]),
        node("Reshape", ["d", "shape"], ["e"]),
        node("Cast", ["e"], ["f"], to=FLOAT),
        node("Mul", ["f", "scale"], ["w"]),
        node("Transpose", ["w"], ["v"], perm=[1, 0]),
        node("MatMul", ["x", "v"], ["y"]),
    ]
    return build(nodes, constants)


def behind(
    op: str, weight: Array, *more: Array, transposed: bool = False, **attributes: Any
) -> onnx.ModelProto:
    names = [f"c{index}" for index in range(len(more))]
    nodes = [
        node(op, ["v", *names], ["w"], **attributes),
        node("Gemm", ["x", "w"], ["y"], transB=int(transposed)),
    ]
    return build(nodes, {"v": weight, **dict(zip(names, more, strict=True))})


def nbits(bits: int, zero: bool) -> onnx.ModelProto:
    """32 inputs, codes of `bits` bits around 2^(bits - 1) or a zero point of 1."""
    codes = (CODES.T.repeat(4, axis=1).astype(int) + (1 if zero else 1 << (bits - 1))).astype(np.uint8)
    fields = codes.reshape(4, 1, -1, 8 // bits) << (np.arange(8 // bits) * bits).astype(np.uint8)
    constants: dict[str, Array] = {
        "q": np.bitwise_or.reduce(fields, axis=3).astype(np.uint8),
        "s": np.array([0.5, 1, 2, 4], np.float32),
    }
    if zero:
        constants["z"] = np.ones((4, 1), np.uint8)
    attributes: dict[str, Any] = {} if bits == 4 else {"bits": bits}
    made = node(
        "MatMulNBits",
        ["x", *constants],
        ["y"],
        domain="com.microsoft",
        K=32,
        N=4,
        block_size=32,
        **attributes,
    )
    return build([made], constants, ["batch", 32])


PER_OUTPUT = np.array([0.5, 1, 2, 4], np.float32)
CONSTANTS: dict[str, Callable[[], onnx.ModelProto]] = {
    "plain": lambda: build([node("MatMul", ["x", "w"], ["y"])], {"w": CODES * PER_OUTPUT}),
    "cast": lambda: behind("Cast", W.astype(np.float16), to=FLOAT),
    "reshape": lambda: behind("Reshape", W.ravel(), SHAPE),
    "squeeze": lambda: behind("Squeeze", W[None], np.array([0])),
    "unsqueeze": lambda: behind("Unsqueeze", W[:, 0], np.array([1])),
    "transpose": lambda: behind("Transpose", W.T, perm=[1, 0]),
    "dequantize": lambda: behind("DequantizeLinear", CODES, PER_OUTPUT, axis=1),
    "dequantize uint8": lambda: behind("DequantizeLinear", (CODES.astype(int) + 128).astype(np.uint8), np.array(0.5, np.float32), np.array(128, np.uint8)),
    "dequantize transposed": lambda: behind("DequantizeLinear", CODES.T, PER_OUTPUT, axis=0, transposed=True),
    "clip": lambda: behind("Clip", CODES * np.float32(4), np.array(-0.5, np.float32), np.array(0.5, np.float32)),
    "concat": lambda: behind("Concat", W[:4], W[4:], axis=0),
    "identity": lambda: behind("Identity", W),
    "gather": lambda: behind("Gather", W, np.arange(8)[::-1].copy()),
    "sparse": sparse,
    "two-bit bytes": two_bit_bytes,
}  # fmt: skip


@pytest.mark.parametrize("case", CONSTANTS)
def test_constants_are_folded_where_they_feed_a_layer(case: str) -> None:
    converted, _ = assert_same(CONSTANTS[case](), rows(5, 8))
    assert ops_of(converted) == ["TernaryMatMul"]
    assert not converted.graph.sparse_initializer
    assert all(max(item.dims, default=1) <= 4 for item in converted.graph.initializer)


@pytest.mark.parametrize("opset", [10, 13, 17, 20, 23])
def test_quantised_and_dequantised_constants(opset: int) -> None:
    nodes = [
        node("QuantizeLinear", ["v", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["w"]),
        node("MatMul", ["x", "w"], ["y"]),
    ]
    constants: dict[str, Array] = {
        "v": W * np.float32(1.2),
        "s": np.array(1 / 16, np.float32),
        "z": np.array(0, np.int8),
    }
    source = build(nodes, constants, opset=opset)
    assert ops_of(assert_same(source, rows(5, 8))[0]) == ["TernaryMatMul"]


def test_a_bias_that_does_not_fit_is_declined() -> None:
    source = build([node("Gemm", ["x", "w", "c"], ["y"])], {"w": W, "c": np.zeros((5, 7, 3), np.float32)})
    with pytest.raises(ExportError, match=r"its bias c has shape \(5, 7, 3\)"):
        ternarize(source, everything)


def test_a_function_of_our_name_becomes_ours() -> None:
    converted, _ = ternarize(build([node("MatMul", ["x", "w"], ["y"])], {"w": W}), everything)
    expected = converted.SerializeToString()
    ours = next(item for item in converted.functions if item.name == "TernaryMatMul")
    del ours.node[1:]
    ops.add_functions(converted)
    assert converted.SerializeToString() == expected


@pytest.mark.parametrize("kind", ["value_floats", "value"])
def test_constant_nodes(kind: str) -> None:
    given: Any = W.ravel().tolist() if kind == "value_floats" else numpy_helper.from_array(W.ravel())
    nodes = [
        node("Constant", [], ["v"], **{kind: given}),
        node("Reshape", ["v", "s"], ["w"]),
        node("MatMul", ["x", "w"], ["y"]),
    ]
    assert ops_of(assert_same(build(nodes, {"s": SHAPE}), rows(5, 8))[0]) == ["TernaryMatMul"]


@pytest.mark.parametrize(("bits", "zero"), [(4, False), (8, False), (4, True), (2, True)])
def test_weights_of_n_bits(bits: int, zero: bool) -> None:
    source = nbits(bits, zero)
    x = rows(5, 32)
    converted, (outcome,) = ternarize(source, everything)
    assert outcome.lossless
    expected = x @ (CODES.T.repeat(4, axis=1) * PER_OUTPUT[:, None]).T
    np.testing.assert_array_equal(run(converted, x)[0], expected)


FORMS: dict[str, tuple[list[onnx.NodeProto], dict[str, Array], list[Any], int]] = {
    "(1, K, N), rank 2": ([node("MatMul", ["x", "w"], ["y"])], {"w": W[None]}, [5, 8], -1),
    "(1, K, N), rank 3": ([node("MatMul", ["x", "w"], ["y"])], {"w": W[None]}, [3, 5, 8], -1),
    "(H, K, N)": ([node("MatMul", ["x", "w"], ["y"])], {"w": signs(3, 8, 4)}, [2, 3, 5, 8], -1),
    "(H, K, N), rank 3": ([node("MatMul", ["x", "w"], ["y"])], {"w": signs(3, 8, 4)}, [3, 5, 8], -1),
    "(H, K, N), x for all": ([node("MatMul", ["x", "w"], ["y"])], {"w": signs(3, 8, 4)}, [2, 1, 5, 8], -1),
    "(H, K, N), rank 2": ([node("MatMul", ["x", "w"], ["y"])], {"w": signs(3, 8, 4)}, [5, 8], -1),
    "conv": ([node("Conv", ["x", "w", "b"], ["y"])], {"w": W.T[:, :, None, None], "b": B}, [2, 8, 5, 3], 1),
    "conv 1-D": ([node("Conv", ["x", "w"], ["y"], auto_pad="SAME_UPPER")], {"w": W.T[:, :, None]}, [2, 8, 5], 1),
    "conv 3-D": ([node("Conv", ["x", "w"], ["y"])], {"w": W.T[:, :, None, None, None]}, [1, 8, 2, 3, 2], 1),
    "einsum": ([node("Einsum", ["x", "w"], ["y"], equation="bk,kn->bn")], {"w": W}, [5, 8], -1),
    "einsum, rows": ([node("Einsum", ["x", "w"], ["y"], equation="...k,nk->...n")], {"w": W.T}, [2, 5, 8], -1),
    "einsum, first": ([node("Einsum", ["x", "w"], ["y"], equation="kb,kn->nb")], {"w": W}, [8, 5], 0),
    "einsum, heads out": ([node("Einsum", ["x", "w"], ["y"], equation="btk,khd->bthd")], {"w": W.reshape(8, 2, 2)}, [2, 3, 8], -1),
    "einsum, heads in": ([node("Einsum", ["x", "w"], ["y"], equation="bthd,hdn->btn")], {"w": W.reshape(2, 4, 4)}, [2, 3, 2, 4], -1),
    "fused": ([node("FusedMatMul", ["x", "w"], ["y"], domain="com.microsoft", alpha=0.5, transB=1)], {"w": W.T}, [5, 8], -1),
    "fused, A": ([node("FusedMatMul", ["x", "w"], ["y"], domain="com.microsoft", transA=1)], {"w": W}, [2, 8, 5], 1),
    "gemm, A": ([node("Gemm", ["x", "w", "b"], ["y"], transA=1)], {"w": W, "b": B}, [8, 5], 0),
    "gemm, beta 0": ([node("Gemm", ["x", "w", "b"], ["y"], beta=0.0)], {"w": W, "b": B * np.float32(np.nan)}, [5, 8], -1),
    "gemm, matrix": ([node("Gemm", ["x", "w", "b"], ["y"])], {"w": W, "b": rows(5, 4)}, [5, 8], -1),
    "ai.onnx": ([node("MatMul", ["x", "w"], ["y"], domain="ai.onnx")], {"w": W}, [5, 8], -1),
}  # fmt: skip


@pytest.mark.parametrize("case", FORMS)
def test_linear_layers_in_other_forms(case: str) -> None:
    nodes, constants, shape, axis = FORMS[case]
    x = rows(*shape, axis=axis)
    if case == "einsum, heads in":
        x[:, :, 0, 0] = 127
    assert_same(build(nodes, constants, shape), x)


@pytest.mark.parametrize("bias", ["in front", "behind", "none"])
@pytest.mark.parametrize("kind", [HALF, DOUBLE])
def test_other_float_types_are_cast(kind: int, bias: str) -> None:
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    nodes = {
        "in front": [node("Gemm", ["x", "w", "b"], ["y"])],
        "behind": [node("MatMul", ["x", "w"], ["p"]), node("Add", ["p", "b"], ["y"])],
        "none": [node("MatMul", ["x", "w"], ["y"])],
    }[bias]
    source = build(nodes, {"w": W.astype(dtype), "b": B.astype(dtype)}, kind=kind)
    converted, _ = assert_same(source, rows(5, 8, kind=dtype))
    assert ops_of(converted) == ["Cast", "TernaryMatMul", "Cast"]


def test_brain_floats_are_cast() -> None:
    weight = W.astype(helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16))
    nodes = [
        node("Cast", ["x"], ["h"], to=TensorProto.BFLOAT16),
        node("MatMul", ["h", "w"], ["p"]),
        node("Cast", ["p"], ["y"], to=FLOAT),
    ]
    converted, _ = ternarize(build(nodes, {"w": weight}), everything)
    x = rows(5, 8)
    found = ops.session(converted.SerializeToString()).run(None, {"x": x})[0]
    np.testing.assert_allclose(found, x @ W, rtol=2**-8)  # the last Cast but one rounds to 8 bits


@pytest.mark.parametrize("opset", [7, 9, 11, 12])
@pytest.mark.parametrize("large", [False, True])
def test_old_opsets_are_upgraded(opset: int, large: bool) -> None:
    weight = signs(8, 200) if large else W
    constants = {"w": weight, "b": weight[0] * 16}
    source = build([node("Gemm", ["x", "w", "b"], ["p"]), node("Relu", ["p"], ["y"])], constants, opset=opset)
    helper.set_model_props(source, {"mine": "kept"})
    converted, _ = assert_same(source, rows(5, 8))
    assert graph.opset(converted) == 13
    assert graph.metadata(converted)["mine"] == "kept"
    assert [value.name for value in converted.graph.input] == ["x"]


@pytest.mark.parametrize("op", ["Relu", "Softmax"])
def test_upgrades_keep_functions(op: str) -> None:
    """One whose operators mean the same stays, one whose do not is inlined."""
    body = helper.make_function(
        "mine", "Act", ["a"], ["b"], [node(op, ["a"], ["b"])], [helper.make_opsetid("", 11)]
    )
    nodes = [node("MatMul", ["x", "w"], ["p"]), node("Act", ["p"], ["y"], domain="mine")]
    source = build(nodes, {"w": W}, opset=11, functions=[body])
    source.opset_import.append(helper.make_opsetid("mine", 1))
    converted, _ = ternarize(source, everything)
    assert ("Act" in [item.name for item in converted.functions]) == (op == "Relu")
    x = rows(5, 8)
    product = x @ W
    expected = np.maximum(product, 0) if op == "Relu" else np.exp(product - product.max(1, keepdims=True))
    if op == "Softmax":
        expected /= expected.sum(1, keepdims=True)
    np.testing.assert_allclose(run(converted, x)[0], expected, rtol=1e-5, atol=1e-6)


def test_nodes_without_names_that_share_weights() -> None:
    square = signs(8, 8)
    nodes = [
        node("MatMul", ["x", "w"], ["a"]),
        node("Neg", ["x"], ["n"]),
        node("MatMul", ["n", "w"], ["b"]),
        node("Sub", ["a", "b"], ["y"]),
    ]
    converted, outcomes = assert_same(build(nodes, {"w": square}), rows(5, 8))
    assert [item.layer for item in outcomes] == ["w", "w"]
    names = [item.name for item in converted.graph.node if item.name]
    assert len(set(names)) == len(names)
    assert len([tensor for tensor in converted.graph.initializer if "packed" in tensor.name]) == 1


def loop(carried: bool) -> onnx.ModelProto:
    info = helper.make_tensor_value_info
    inner = "v" if carried else "w"
    states = [info("v", FLOAT, [8, 8])] if carried else []
    ends = [info("v_out", FLOAT, [8, 8])] if carried else []
    body = helper.make_graph(
        [
            node("MatMul", ["h", inner], ["p"], "step"),
            node("Identity", ["go"], ["on"]),
            *([node("Identity", ["v"], ["v_out"])] if carried else []),
        ],
        "body",
        [info("i", INT64, []), info("go", BOOL, []), info("h", FLOAT, None), *states],
        [info("on", BOOL, []), info("p", FLOAT, None), *ends],
    )
    given = ["trips", "", "x", *(["w"] if carried else [])]
    made = node("Loop", given, ["y", *(["w_end"] if carried else [])], body=body)
    return build([made], {"w": signs(8, 8), "trips": np.array(1)}, ["batch", 8])


@pytest.mark.parametrize("carried", [False, True])
def test_weights_in_loops(carried: bool) -> None:
    """A state that never changes is a constant, and leaves the loop with the weights."""
    converted, _ = assert_same(loop(carried), rows(5, 8))
    assert {tensor.name for tensor in converted.graph.initializer} == {"w.packed", "w.scale", "trips"}
    (made,) = [item for item in converted.graph.node if item.op_type == "Loop"]
    assert (len(made.input), len(made.output)) == (3, 1)


def test_a_float_copy_that_stays_is_named() -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["p"], "head"),
        node("Transpose", ["w"], ["t"], perm=[1, 0]),
        node("MatMul", ["p", "u"], ["q"], "last"),
        node("Gather", ["w", "i"], ["e"], "embedding"),
        node("Add", ["q", "e"], ["y"]),
    ]
    _, outcomes = ternarize(build(nodes, {"w": signs(8, 8), "u": signs(8, 8), "i": np.array(0)}), everything)
    assert [item.note for item in outcomes] == ["w stays beside it, for Transpose, embedding", None]


def test_one_name_in_two_branches_is_two_weights() -> None:
    info = helper.make_tensor_value_info
    weights = {"then": signs(8, 4), "else": signs(8, 4)}
    branches = {
        f"{key}_branch": helper.make_graph(
            [node("MatMul", ["x", "w"], ["o"], key)],
            key,
            [],
            [info("o", FLOAT, None)],
            [numpy_helper.from_array(weight, "w")],
        )
        for key, weight in weights.items()
    }
    nodes = [
        node("ReduceMax", ["x"], ["m"], keepdims=0),
        node("Greater", ["m", "limit"], ["c"]),
        node("If", ["c"], ["y"], **branches),
    ]
    for limit in (0, 1000):
        source = build(nodes, {"limit": np.array(limit, np.float32)})
        assert_same(source, rows(5, 8))
        converted, _ = ternarize(
            source, lambda name: Precision.TERNARY if name == "then" else Precision.FLOAT32
        )
        x = rows(5, 8)
        np.testing.assert_array_equal(run(converted, x)[0], run(source, x)[0])
        left = [scope.path for scope in graph.scopes(converted) if "w" in scope.initializers]
        assert left == ["If_2/else_branch/"]


@pytest.mark.parametrize("kind", Rounding)
def test_what_is_ternary_stays_so_however_the_rest_is_rounded(kind: Rounding) -> None:
    source = CONSTANTS["plain"]()
    _, (outcome,) = ternarize(source, everything, rounder(kind))
    assert outcome.lossless


@pytest.mark.parametrize("kind", Rounding)
def test_errors_are_those_of_the_rounding(kind: Rounding) -> None:
    weight = RNG.normal(size=(8, 4)).astype(np.float32)
    _, (outcome,) = ternarize(
        build([node("MatMul", ["x", "w"], ["y"])], {"w": weight}), everything, rounder(kind)
    )
    assert outcome.error is not None
    codes = np.array([*itertools.product((-1, 0, 1), repeat=8)][1:])
    codes = codes[np.abs(codes).sum(1) > 0]
    best = sum(((codes @ row) ** 2 / np.abs(codes).sum(1)).max() for row in weight.T)
    least = np.sqrt(1 - best / (weight**2).sum())
    if kind is Rounding.OPTIMAL:
        assert outcome.error == pytest.approx(least, rel=1e-5)
    else:
        assert outcome.error > least


def test_time_is_linear_in_layers() -> None:
    """Every node and constant is looked at a bounded number of times: 4,000 layers are no more work each than 40."""
    count = 300
    nodes = [node("MatMul", [f"h{i}" if i else "x", f"w{i}"], [f"h{i + 1}"]) for i in range(count)]
    nodes[-1].output[0] = "y"
    source = build(nodes, {f"w{i}": signs(8, 8) for i in range(count)})
    calls = 0
    original = graph.Scope.owner

    def counted(self: graph.Scope, name: str) -> graph.Scope | None:
        nonlocal calls
        calls += 1
        return original(self, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph.Scope, "owner", counted)
        ternarize(source, everything)
    assert calls < 60 * count


def test_layers_that_cannot_be_converted_say_why() -> None:
    made = node("LSTM", ["x", "w", "r"], ["", "y"], "l", hidden_size=8)
    source = build([made], {"w": signs(1, 32, 8), "r": signs(1, 32, 8)}, [2, "batch", 8])
    assert layer_names(source) == ("l",)
    with pytest.raises(ExportError, match="l: its weights act in every step of a recurrence"):
        ternarize(source, everything)


DEEP = [
    *(node("Identity", [f"w{i}" if i else "w"], [f"w{i + 1}"]) for i in range(3000)),
    node("MatMul", ["x", "w3000"], ["y"]),
]
DOUBLING = [
    *(node("Concat", [f"w{i}" if i else "w"] * 2, [f"w{i + 1}"], axis=0) for i in range(60)),
    node("MatMul", ["x", "w60"], ["y"]),
]


@pytest.mark.parametrize("nodes", [DEEP, DOUBLING], ids=["deep", "doubling"])
def test_hostile_constants_are_no_constants(nodes: list[onnx.NodeProto]) -> None:
    with pytest.raises(ExportError, match="its weights are not constant"):
        ternarize(build(nodes, {"w": W}), everything)


@pytest.mark.parametrize("external", [False, True])
def test_large_files_are_written_in_place(tmp_path: Path, external: bool) -> None:
    """External data is copied tensor by tensor; the old data goes only after the new file is there."""
    path = tmp_path / "model.onnx"
    big = signs(8, 400)
    source = build(
        [node("MatMul", ["x", "w"], ["p"]), node("MatMul", ["p", "v"], ["y"], "second")],
        {"w": big, "v": signs(400, 8)},
    )
    onnx.save(source, path, save_as_external_data=external, location="model.onnx.data", size_threshold=100)
    for layer in ("w", "second"):
        model = graph.read(path)
        converted, _ = ternarize(model, only(layer))
        graph.write(converted, path, limit=1000)
    assert len({item.name for item in tmp_path.iterdir()}) == 2
    x = rows(5, 8)
    np.testing.assert_array_equal(ops.session(path).run(None, {"x": x})[0].shape, (5, 8))


def test_nodes_of_one_name_get_their_own() -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["h"], "layer"),
        node("MatMul", ["h", "v"], ["i"], "layer"),
        node("MatMul", ["i", "w"], ["y"], "layer.1"),
    ]
    source = build(nodes, {"w": signs(8, 8), "v": signs(8, 8)})
    converted, outcomes = ternarize(source, everything)
    assert len({item.layer for item in outcomes}) == 3
    assert run(converted, rows(2, 8))[0].shape == (2, 8)


def test_bodies_of_nodes_of_one_name_are_kept_apart() -> None:
    """One is called as another without a name would be."""
    info = helper.make_tensor_value_info

    def branch(name: str) -> onnx.GraphProto:
        weights = numpy_helper.from_array(signs(8, 8), "v")
        made = [node("MatMul", ["x", "v"], [name])]
        return helper.make_graph(made, name, [], [info(name, FLOAT, None)], [weights])

    nodes = [
        node("If", ["yes"], ["a"], "If_1", then_branch=branch("t"), else_branch=branch("e")),
        node("If", ["yes"], ["b"], then_branch=branch("t"), else_branch=branch("e")),
        node("Add", ["a", "b"], ["y"]),
    ]
    source = build(nodes, {"yes": np.array(True)})
    paths = [scope.path for scope in graph.scopes(source)]
    assert len(set(paths)) == 5
    assert_same(source, rows(3, 8))


def captured(name: str) -> onnx.GraphProto:
    """A branch that reads a value of the graph around it."""
    return helper.make_graph(
        [node("Identity", [name], ["o"])], "g", [], [helper.make_tensor_value_info("o", FLOAT, None)]
    )


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([node("Identity", ["b"], ["a"]), node("MatMul", ["a", "w"], ["b"])], "circle through"),
        ([node("MatMul", ["a", "w"], ["a"])], "circle through a"),
        (
            [node("If", ["c"], ["a"], then_branch=captured("a"), else_branch=captured("x"))],
            "circle through a",
        ),
        ([node("MatMul", ["nothing", "w"], ["a"])], "MatMul 'a' reads 'nothing', which nothing puts out"),
        (
            [node("If", ["c"], ["a"], then_branch=captured("nothing"), else_branch=captured("x"))],
            "reads 'nothing'",
        ),
    ],
    ids=["cycle", "itself", "through a body", "undefined", "undefined in a body"],
)
def test_graphs_that_cannot_run_are_refused(nodes: list[onnx.NodeProto], words: str) -> None:
    source = build([*nodes, node("MatMul", ["x", "w"], ["y"])], {"w": signs(8, 8), "c": np.array(True)})
    with pytest.raises(ExportError, match=words):
        ternarize(source, everything)


def test_nodes_whose_first_output_is_left_out_are_told_apart() -> None:
    nodes = [
        node("LSTM", ["x", "a", "r"], ["", "h"], hidden_size=8),
        node("LSTM", ["h", "a", "r"], ["", "i"], hidden_size=8),
        node("MatMul", ["i", "w"], ["y"]),
    ]
    constants = {"a": signs(1, 32, 8), "r": signs(1, 32, 8), "w": signs(8, 4)}
    converted, _ = ternarize(build(nodes, constants, [2, "batch", 8]), only("w"))
    assert ops_of(converted) == ["LSTM", "LSTM", "TernaryMatMul"]


def test_nodes_in_any_order_are_taken() -> None:
    nodes = [node("MatMul", ["h", "v"], ["y"]), node("MatMul", ["x", "w"], ["h"])]
    converted, _ = ternarize(build(nodes, {"w": signs(8, 8), "v": signs(8, 4)}), everything)
    assert run(converted, rows(2, 8))[0].shape == (2, 4)


def test_data_of_other_files_is_not_written_over(tmp_path: Path) -> None:
    """Whatever lies there under the names that data would get."""
    names = [f"model.onnx.data{index or ''}" for index in range(5)]
    for name in names:
        (tmp_path / name).write_bytes(b"other")
    source = build([node("MatMul", ["x", "w"], ["y"])], {"w": signs(8, 400)})
    graph.write(source, tmp_path / "model.onnx", limit=1000)
    assert {(tmp_path / name).read_bytes() for name in names} == {b"other"}
    session = ort.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": rows(2, 8)})[0].shape == (2, 400)
