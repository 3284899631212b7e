"""Runs of ternary layers become chains and come back as they were."""

import re
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper
from ternary_chain_layers import Chain
from ternary_layer import Layer

from bitsearch import ops
from bitsearch.onnxfile import chains, graph

SILU = "b = Sigmoid(a) c = Mul(a, b)"
MORE = {
    "relu": "c = Relu(a)",
    "leaky-relu": "c = LeakyRelu<alpha = 0.2>(a)",
    "gelu": 'c = Gelu<approximate = "tanh">(a)',
    "silu": SILU,
}


def build(text: str, layers: dict[str, Layer], outputs: str = "float[n, o] Y") -> onnx.ModelProto:
    """Parse a graph of inputs X `(n, k)` whose words like `L0(x)` are layers by their names, and add functions."""
    constants = []
    for name, layer in layers.items():
        given = f"W_{name}, scale_{name}, bias_{name}"
        call = f"com.bithep.TernaryMatMul<K: int = {layer.K}, act_qmax: float = {layer.act_qmax}>"
        text = text.replace(f"{name}(", f"{call}({given}, ")
        constants += [
            numpy_helper.from_array(array, f"{role}_{name}")
            for role, array in (("W", layer.W), ("scale", layer.scale), ("bias", layer.bias))
            if array is not None
        ]
    k = next(iter(layers.values())).K
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 20, "com.bithep": 1]> g (float[n, {k}] X) => ({outputs}) {{ {text} }}'
    )
    for node in model.graph.node:
        if node.domain == ops.DOMAIN:  # parsed with X last, for the sake of a short text
            x, rest = node.input[-1], list(node.input[:-1])
            node.input[:] = [x, *rest]
            node.name = rest[0].removeprefix("W_")
    model.graph.initializer.extend(constants)
    ops.add_functions(model)
    return model


def run(model: onnx.ModelProto, x: np.ndarray) -> list[np.ndarray]:
    onnx.checker.check_model(model, full_check=True)
    return list(ops.session(model.SerializeToString()).run(None, {"X": x}))


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def rows(k: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(40, k)).astype(np.float32)


LAYERS = {"L0": Layer.random(9, 12, 0), "L1": Layer.random(12, 7, 1), "L2": Layer.random(7, 5, 2)}


@pytest.mark.parametrize("activation", MORE)
def test_a_run_becomes_one_node_and_comes_back(activation: str) -> None:
    second = re.sub(r"\b[abc]\b", lambda found: {"a": "d", "b": "e", "c": "f"}[found[0]], MORE[activation])
    model = build(f"a = L0(X) {MORE[activation]} d = L1(c) {second} Y = L2(f)", LAYERS)
    model.graph.node[0].metadata_props.add(key="kept", value="so")
    chained = onnx.ModelProto()
    chained.CopyFrom(model)
    chains.chain(chained)
    assert kinds(chained) == ["TernaryChain3"]
    assert {item.name for item in chained.functions} == {"TernaryMatMul", "TernaryChain3"}
    before, after = run(model, rows(9))[0], run(chained, rows(9))[0]
    if activation in ("relu", "leaky-relu"):
        np.testing.assert_array_equal(after, before)
    else:
        assert np.isclose(after, before, rtol=1e-5, atol=1e-5).all(axis=1).mean() > 0.9
    chains.unchain(chained)
    assert kinds(chained) == kinds(model)
    assert [node.name for node in chained.graph.node if node.domain] == ["L0", "L1", "L2"]
    assert {item.key: item.value for item in chained.graph.node[0].metadata_props} == {"kept": "so"}
    assert {item.name for item in chained.functions} == {"TernaryMatMul"}
    np.testing.assert_array_equal(run(chained, rows(9))[0], before)


def test_normalised_layers_become_one_node_and_come_back() -> None:
    norms = {f"{role}{i}": np.full(n, 0.5, np.float32) for i, n in enumerate((12, 7)) for role in ("g", "s")}
    between = "{z} = LayerNormalization<axis = -1, epsilon = 0.001>({y}, g{i}, s{i}) {x} = Relu({z})"
    text = " ".join(
        (
            "a = L0(X)",
            between.format(y="a", z="b", x="c", i=0),
            "d = L1(c)",
            between.format(y="d", z="e", x="f", i=1),
            "Y = L2(f)",
        )
    )
    model = build(text, LAYERS)
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in norms.items())
    chained = onnx.ModelProto()
    chained.CopyFrom(model)
    chains.chain(chained)
    assert kinds(chained) == ["TernaryNormChain3"]
    before, after = run(model, rows(9))[0], run(chained, rows(9))[0]
    assert np.isclose(after, before, rtol=1e-4, atol=1e-4).all(axis=1).mean() > 0.8
    chains.unchain(chained)
    assert kinds(chained) == kinds(model)
    np.testing.assert_array_equal(run(chained, rows(9))[0], before)


def chained(text: str, layers: dict[str, Layer] | None = None, outputs: str = "float[n, o] Y") -> list[str]:
    """Give the kinds of nodes after chaining; the numbers stay the same."""
    model = build(text, layers or LAYERS, outputs)
    before = run(model, rows(9))
    chains.chain(model)
    for found, expected in zip(run(model, rows(9)), before, strict=True):
        np.testing.assert_array_equal(found, expected)
    return kinds(model)


def test_what_others_read_stays() -> None:
    assert chained("a = L0(X) c = Relu(a) Y = L1(c) Z = Neg(c)", outputs="float[n, o] Y, float[n, p] Z") == [
        "TernaryMatMul",
        "Relu",
        "TernaryMatMul",
        "Neg",
    ]
    assert (
        chained("a = L0(X) c = Relu(a) Y = L1(c)", outputs="float[n, o] Y, float[n, p] a")[0]
        == "TernaryMatMul"
    )
    assert chained("a = L0(X) c = Relu(a) Y = L1(c)", outputs="float[n, o] Y, float[n, p] c")[1] == "Relu"


def test_what_a_branch_reads_stays() -> None:
    text = (
        "a = L0(X) c = Relu(a) d = L1(c) yes = Constant<value = bool {1}>() "
        "Y = If(yes) <then_branch = one () => (float[n, o] p) { q = ReduceSum<keepdims = 1>(c) p = Add(d, q) }, "
        "else_branch = two () => (float[n, o] r) { r = Identity(d) }>"
    )
    assert chained(text)[:3] == ["TernaryMatMul", "Relu", "TernaryMatMul"]


def test_chains_inside_of_branches() -> None:
    text = (
        "yes = Constant<value = bool {1}>() "
        "Y = If(yes) <then_branch = one () => (float[n, o] p) { a = L0(X) c = Relu(a) p = L1(c) }, "
        "else_branch = two () => (float[n, o] r) { f = L0(X) g = Relu(f) r = L1(g) }>"
    )
    model = build(text, {"L0": LAYERS["L0"], "L1": LAYERS["L1"]})
    for attribute in model.graph.node[1].attribute:
        for node in attribute.g.node:
            if node.domain:
                node.input[:] = [node.input[-1], *node.input[:-1]] if node.input[0][0] == "W" else node.input
    before = run(model, rows(9))[0]
    chains.chain(model)
    bodies = [[node.op_type for node in item.g.node] for item in model.graph.node[1].attribute]
    assert bodies == [["TernaryChain2"], ["TernaryChain2"]]
    np.testing.assert_array_equal(run(model, rows(9))[0], before)
    chains.unchain(model)
    np.testing.assert_array_equal(run(model, rows(9))[0], before)


def test_settings_that_differ_end_a_chain() -> None:
    two = {**LAYERS, "L1": Layer.random(12, 7, 1, act_qmax=100.0)}
    assert chained("a = L0(X) c = Relu(a) Y = L1(c)", two) == ["TernaryMatMul", "Relu", "TernaryMatMul"]
    found = chained("a = L0(X) c = Relu(a) d = L1(c) e = LeakyRelu(d) Y = L2(e)")
    assert found == ["TernaryChain2", "LeakyRelu", "TernaryMatMul"]
    assert chained("a = L0(X) c = Tanh(a) Y = L1(c)")[1] == "Tanh"


def test_layers_without_a_bias_stay() -> None:
    model = build("a = L0(X) c = Relu(a) Y = L1(c)", LAYERS)
    model.graph.node[2].input[3] = ""
    chains.chain(model)
    assert kinds(model) == ["TernaryMatMul", "Relu", "TernaryMatMul"]


def test_only_the_activations_asked_for_make_chains() -> None:
    model = build(f"a = L0(X) {SILU} d = L1(c) f = Relu(d) Y = L2(f)", LAYERS)
    chains.chain(model, ("relu", "leaky-relu"))
    assert kinds(model) == ["TernaryMatMul", "Sigmoid", "Mul", "TernaryChain2"]


def test_long_runs_become_several_chains() -> None:
    square = {f"L{i}": Layer.random(9, 9, i) for i in range(11)}
    steps = " ".join(f"a{i} = L{i}({f'c{i - 1}' if i else 'X'}) c{i} = Relu(a{i})" for i in range(10))
    assert chained(f"{steps} Y = L10(c9)", square) == ["TernaryChain8", "Relu", "TernaryChain3"]


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "[[1, 2], 3]", '[["a", {}]]', '[["a", []], ["b", {}], ["c", {}]]']
)
def test_a_chain_of_anyone_is_read_as_layers(text: str, tmp_path: Any) -> None:
    chain = Chain.random(9, 12, 7, 5, activation="relu")
    model = chain.model()
    model.graph.node[0].metadata_props.add(key=chains.CHAIN, value=text)
    graph.write(model, tmp_path / "chain.onnx")
    read = graph.read(tmp_path / "chain.onnx")
    assert kinds(read) == ["TernaryMatMul", "Relu", "TernaryMatMul", "Relu", "TernaryMatMul"]
    names = [node.name for node in read.graph.node if node.domain]
    assert len(set(names)) == 3
    session = ort.InferenceSession(read.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(
        session.run(None, {"X": rows(9)})[0], chain.expect(rows(9)), rtol=1e-5, atol=1e-5
    )
    assert kinds(graph.read(tmp_path / "chain.onnx", chained=True)) == ["TernaryChain3"]


def test_a_node_that_only_has_the_name_is_left_alone() -> None:
    model = Chain.random(9, 12, 5, activation="relu").model()
    del model.graph.node[0].input[3:]
    chains.unchain(model)
    assert kinds(model) == ["TernaryChain2"]
    assert not chains.is_chain(helper.make_node("TernaryChain9", ["x"], ["y"], domain=ops.DOMAIN))
