"""Files in standard operators alone compute what the files they come from compute, in old opsets too."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from ternary_layer import Layer

from bitsearch import ops
from bitsearch.cli import main
from bitsearch.core.errors import ExportError
from bitsearch.network import catalogue, export
from bitsearch.onnxfile import portable as portable_form
from bitsearch.onnxfile.lowering import lowest_opset
from bitsearch.onnxfile.portable import portable

CONTROL = {"If", "Loop", "Scan"}
IR_VERSIONS = {13: 7, 17: 8, 20: 9}  # onnx's table of releases
Array = NDArray[Any]


def run(model: onnx.ModelProto, feed: dict[str, Array]) -> list[Array]:
    """Run without the library."""
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, feed))


def evaluate(model: onnx.ModelProto, feed: dict[str, Array]) -> list[Array]:
    """Run in onnx's own evaluator."""
    found = ReferenceEvaluator(model).run(None, feed)
    assert isinstance(found, list)
    return found


def check_form(model: onnx.ModelProto, opset: int) -> None:
    onnx.checker.check_model(model, full_check=True)
    assert [(item.domain, item.version) for item in model.opset_import] == [("", opset)]
    assert model.ir_version == IR_VERSIONS[opset]
    assert not model.functions
    kinds = {node.op_type for node in model.graph.node}
    assert not kinds & CONTROL
    assert not kinds & {"BitShift", "BitwiseAnd", "RegexFullMatch"}
    assert not {tensor.data_type for tensor in model.graph.initializer} & {
        TensorProto.STRING,
        TensorProto.UINT8,
    }


@pytest.mark.parametrize("opset", IR_VERSIONS)
@pytest.mark.parametrize("bias", [True, False])
def test_ternary_layers(opset: int, bias: bool) -> None:
    layer = Layer.random(37, 19, bias=bias)
    model = portable(layer.model(3), opset)
    check_form(model, opset)
    x = np.random.default_rng(1).normal(size=(4, 2, 37)).astype(np.float32)
    np.testing.assert_allclose(run(model, {"X": x})[0], layer.expect(x), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(evaluate(model, {"X": x})[0], layer.expect(x), rtol=1e-5, atol=1e-6)
    assert run(model, {"X": x[:0]})[0].shape == (0, 2, 19)


@pytest.mark.parametrize("opset", IR_VERSIONS)
@pytest.mark.parametrize("inverse", [0, 1])
@pytest.mark.parametrize("kind", ["rational-quadratic", "cubic"])
def test_splines(kind: str, inverse: int, opset: int) -> None:
    parameters = {"rational-quadratic": 29, "cubic": 22}[kind]
    settings: dict[str, Any] = {
        "kind": kind,
        "bins": 10,
        "bound": 4.0,
        "inverse": inverse,
        "out_of_bounds": "event",
    }
    node = helper.make_node("MonotoneSpline", ["X", "theta"], ["Y", "D"], "s", domain=ops.DOMAIN, **settings)
    shapes: dict[str, list[str | int | None]] = {
        "X": ["n", 5],
        "theta": ["n", 5 * parameters],
        "Y": ["n", 5],
        "D": ["n"],
    }
    values = {k: helper.make_tensor_value_info(k, TensorProto.FLOAT, s) for k, s in shapes.items()}
    graph = helper.make_graph([node], "spline", [values["X"], values["theta"]], [values["Y"], values["D"]])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(ops.DOMAIN, 1)]
    given = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    ops.add_functions(given)
    model = portable(given, opset)
    check_form(model, opset)
    rng = np.random.default_rng(2)
    feed = {
        "X": rng.normal(size=(20, 5)).astype(np.float32) * 2,
        "theta": rng.normal(size=(20, 5 * parameters)).astype(np.float32),
    }
    expected = ops.session(given.SerializeToString()).run(None, feed)
    for found in (run(model, feed), evaluate(model, feed)):
        np.testing.assert_allclose(found[0], expected[0], atol=2e-4)
        np.testing.assert_allclose(found[1], expected[1], atol=2e-2)


def test_a_whole_network(tmp_path: Path) -> None:
    """CaloINN: splines, permutations and ternary layers; metadata, names and free batch stay."""
    entry = catalogue.find("caloinn")
    task = entry.task("ds1-photon", "smoke")
    (configuration,) = (s.configuration for s in entry.space(task).strategies if s.name == "all")
    network = task.network(configuration.options, seed=0).eval()
    metadata = export.Metadata("0", "caloinn", "ds1-photon", 0.5, {"preset": "smoke"})
    template = export.trace(task.graphs(network)["sampler"])
    given = export.lower(template, network.state_dict(), configuration.assignment, metadata)
    assert given.ir_version == IR_VERSIONS[20]
    path, out = tmp_path / "given.onnx", tmp_path / "portable.onnx"
    onnx.save(given, path)
    assert main(["export", str(path), "--portable", "--opset", "13", "--out", str(out)]) == 0
    model = onnx.load(out)
    check_form(model, 13)
    assert model.metadata_props == given.metadata_props
    assert model.graph.input == given.graph.input
    assert model.graph.output == given.graph.output
    size = given.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    z = np.random.default_rng(3).normal(size=(8, size)).astype(np.float32)
    feed = {"z": z, "incident_energy": np.full((8, 1), 65536, np.float32)}
    expected, found = run(given, feed)[0], run(model, feed)[0]
    np.testing.assert_allclose(found.sum(1), expected.sum(1), rtol=1e-5)
    assert main(["export", str(path), "--out", str(out)]) == 2


def one_node(kind: str, inputs: dict[str, Array], outputs: int = 1, **attributes: Any) -> onnx.ModelProto:
    """A model of opset 20 with `x` given at run time, the other inputs constant."""
    names = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(kind, ["x", *inputs], names, "node", **attributes)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 6])
    graph = helper.make_graph(
        [node],
        "one",
        [x],
        [helper.make_empty_tensor_value_info(name) for name in names],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in inputs.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    return onnx.shape_inference.infer_shapes(model)


F = np.float32
YOUNG: dict[str, onnx.ModelProto] = {
    "gelu": one_node("Gelu", {}),
    "gelu by tanh": one_node("Gelu", {}, approximate="tanh"),
    "layer norm": one_node("LayerNormalization", {"s": np.arange(6, dtype=F), "b": np.ones(6, F)}),
    "layer norm, axis 1": one_node("LayerNormalization", {"s": np.ones((3, 6), F)}, axis=1, epsilon=0.1),
    "reduce": one_node("ReduceMax", {"axes": np.array([-1])}, keepdims=0),
    "reduce all": one_node("ReduceMean", {}),
    "reduce nothing": one_node("ReduceMin", {}, noop_with_empty_axes=1),
    "pad": one_node("Pad", {"pads": np.array([1, 2]), "value": np.array(5, F), "axes": np.array([2])}),
    "split": one_node("Split", {}, outputs=2, axis=1, num_outputs=2),
    "shape": one_node("Shape", {}, start=1, end=-1),
    "reshape": one_node("Reshape", {"shape": np.array([-1, 18])}, allowzero=1),
}


@pytest.mark.parametrize("case", YOUNG)
def test_young_operators_in_older_ones(case: str) -> None:
    model = portable(YOUNG[case], 13)
    check_form(model, 13)
    x = np.random.default_rng(4).normal(size=(5, 3, 6)).astype(np.float32)
    for found, expected in zip(run(model, {"x": x}), run(YOUNG[case], {"x": x}), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def gathering(data: list[Any], index: list[Any], axis: int) -> onnx.ModelProto:
    node = helper.make_node("GatherElements", ["x", "i"], ["y"], "gather", axis=axis)
    given = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, data),
        helper.make_tensor_value_info("i", TensorProto.INT64, index),
    ]
    result = [helper.make_tensor_value_info("y", TensorProto.FLOAT, index)]
    graph = helper.make_graph([node], "gathering", given, result)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


@pytest.mark.parametrize("opset", [13, 20])
@pytest.mark.parametrize(
    ("data", "index", "axis", "kind"),
    [
        (["n", 70], ["n", 4], 1, "GatherND"),  # onnx's evaluator takes no axis of more than 64 as it is
        (["n", 2, 70], ["n", 2, 4], -1, "GatherND"),
        (["n", 2, 5], ["n", 2, 5], 1, "GatherElements"),
        (["n", 5], ["m", 4], 1, "GatherElements"),
    ],
    ids=str,
)
def test_elements_are_gathered_where_every_host_can(
    data: list[Any], index: list[Any], axis: int, kind: str, opset: int
) -> None:
    given = gathering(data, index, axis)
    model = portable(given, opset)
    check_form(model, opset)
    assert model.graph.node[-1].op_type == kind
    rng = np.random.default_rng(5)
    sizes = {"n": 3, "m": 3}
    x = rng.normal(size=[sizes.get(size, size) for size in data]).astype(F)
    i = rng.integers(-x.shape[axis], x.shape[axis], [sizes.get(size, size) for size in index])
    (expected,) = run(given, {"x": x, "i": i})
    for found in (run(model, {"x": x, "i": i}), evaluate(model, {"x": x, "i": i})):
        np.testing.assert_array_equal(found[0], expected)


def body(*nodes: onnx.NodeProto, inputs: dict[str, int], outputs: list[str]) -> onnx.GraphProto:
    return helper.make_graph(
        list(nodes),
        "body",
        [helper.make_tensor_value_info(name, kind, None) for name, kind in inputs.items()],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
    )


def looping(kind: str, trips: int | None = 3) -> onnx.ModelProto:
    """y = ((x w0 + 1) w1 + 1) w2 + 1 by Scan, or x doubled and one added three times by Loop."""
    f = TensorProto.FLOAT
    one = numpy_helper.from_array(np.ones((), F), "one")
    if kind == "Scan":
        inner = body(
            helper.make_node("Mul", ["s", "w"], ["p"], "mul"),
            helper.make_node("Add", ["p", "one"], ["s1"], "add"),
            helper.make_node("Identity", ["s1"], ["row"], "row"),
            inputs={"s": f, "w": f},
            outputs=["s1", "row"],
        )
        node = helper.make_node("Scan", ["x", "ws"], ["y", "rows"], "scan", body=inner, num_scan_inputs=1)
        held = [numpy_helper.from_array(np.array([2, 3, 5], F), "ws"), one]
    else:
        inner = body(
            helper.make_node("Add", ["s", "s"], ["p"], "double"),
            helper.make_node("Add", ["p", "one"], ["s1"], "add"),
            helper.make_node("Identity", ["going"], ["on"], "on"),
            helper.make_node("Identity", ["s1"], ["row"], "row"),
            inputs={"i": TensorProto.INT64, "going": TensorProto.BOOL, "s": f},
            outputs=["on", "s1", "row"],
        )
        node = helper.make_node("Loop", ["trips", "", "x"], ["y", "rows"], "loop", body=inner)
        held = [one] if trips is None else [numpy_helper.from_array(np.array(trips, np.int64), "trips"), one]
    given = [helper.make_tensor_value_info("x", f, ["n"])]
    if kind == "Loop" and trips is None:
        given.append(helper.make_tensor_value_info("trips", TensorProto.INT64, []))
    results = [
        helper.make_tensor_value_info("y", f, ["n"]),
        helper.make_tensor_value_info("rows", f, [3, "n"]),
    ]
    graph = helper.make_graph([node], "looping", given, results, held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("Scan", [30 * x + 3 * 5 + 5 + 1 for x in (1, 2)]), ("Loop", [8 * x + 4 + 2 + 1 for x in (1, 2)])],
)
def test_loops_are_unrolled(kind: str, expected: list[float]) -> None:
    model = portable(looping(kind), 13)
    check_form(model, 13)
    y, rows = run(model, {"x": np.array([1, 2], F)})
    np.testing.assert_array_equal(y, expected)
    assert rows.shape == (3, 2)
    np.testing.assert_array_equal(rows[-1], expected)


def nested() -> onnx.ModelProto:
    """Give 25 x: an outer Scan over (2, 3) adds an inner one's sum over (1, 4) of row · x."""
    f = TensorProto.FLOAT
    inner = body(
        helper.make_node("Mul", ["outer", "v"], ["p"]),
        helper.make_node("Add", ["t", "p"], ["t1"]),
        inputs={"t": f, "v": f},
        outputs=["t1"],
    )
    held = numpy_helper.from_array(np.array([1, 4], F), "rows")
    inner_loop = helper.make_node("Scan", ["s", "rows"], ["s1"], body=inner, num_scan_inputs=1)
    outer = body(
        helper.make_node("Mul", ["x", "w"], ["outer"]),
        inner_loop,
        inputs={"s": f, "w": f},
        outputs=["s1"],
    )
    outer.initializer.append(held)
    node = helper.make_node("Scan", ["zero", "rows"], ["y"], body=outer, num_scan_inputs=1)
    constants = [
        numpy_helper.from_array(np.zeros(1, F), "zero"),
        numpy_helper.from_array(np.array([2, 3], F), "rows"),
    ]
    given, result = (helper.make_tensor_value_info(name, f, [1]) for name in "xy")
    graph = helper.make_graph([node], "nested", [given], [result], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def test_loops_in_loops_keep_their_own_constants() -> None:
    """The inner body reads a value of the outer one, and both have constants of one name."""
    (found,) = run(portable(nested(), 13), {"x": np.array([7], F)})
    assert found.tolist() == [7 * (2 + 3) * (1 + 4)]


def test_what_cannot_be_written_is_refused_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ExportError, match="opset: found 12, expected 13 to 20"):
        portable(one_node("Relu", {}), 12)
    with pytest.raises(ExportError, match="Loop 'loop': found no known length"):
        portable(looping("Loop", None))
    monkeypatch.setattr(portable_form, "LARGEST_GRAPH", 8)
    with pytest.raises(ExportError, match="Scan 'scan': found more than 8 nodes"):
        portable(looping("Scan"))
    with pytest.raises(ExportError, match="opset 13 has no Trilu; ask for a newer opset"):
        portable(one_node("Trilu", {}), 13)


def test_batch_normalisation_keeps_an_opset_that_evaluators_compute() -> None:
    """The oldest one in which onnx's own evaluator takes the trained mean, here 2, and variance, here 4."""
    moments = {"scale": 3.0, "bias": 1.0, "mean": 2.0, "variance": 4.0}
    model = one_node("BatchNormalization", {k: np.full(3, v, F) for k, v in moments.items()}, epsilon=0.0)
    model.opset_import[0].version = lowest_opset(model)
    assert model.opset_import[0].version == 14
    x = np.arange(18, dtype=F).reshape(1, 3, 6)
    np.testing.assert_allclose(evaluate(model, {"x": x})[0], (x - 2) / 2 * 3 + 1, rtol=1e-6)
    assert lowest_opset(one_node("Relu", {})) == 13
