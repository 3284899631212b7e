"""numpy = every kernel, bit for bit; the function body within rounding."""

import re
from typing import Any, cast

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument, RuntimeException

from bitsearch import ops
from bitsearch.ops.reference import Float, MessageLayer, message_passing

USABLE = [kernel.name for kernel in ops.kernels() if kernel.usable]
SETTINGS: dict[str, Any] = {"squared_radius": 0.5, "weighted": 1, "slope": 0.01}
# Features, hidden units, outputs: published layers and sizes around the blocks of four outputs.
SIZES = [(1, 10, 11), (10, 10, 11), (10, 20, 21), (0, 1, 1), (3, 4, 5), (2, 9, 8)]
LAYERS = ("W1", "scale1", "bias1", "W2", "scale2", "bias2")
Layers = tuple[MessageLayer, MessageLayer]


def layers(features: int, hidden: int, outputs: int, low_bit: tuple[float, float], seed: int = 0) -> Layers:
    rng = np.random.default_rng(seed)

    def layer(inputs: int, outputs: int, act_qmax: float) -> MessageLayer:
        size = (outputs, inputs)
        weight = rng.integers(-1, 2, size) if act_qmax else rng.normal(size=size)
        scale = rng.uniform(0.1, 1, outputs) if act_qmax else np.ones(outputs)
        bias = rng.normal(size=outputs)
        return MessageLayer(
            weight.astype(np.float32), scale.astype(np.float32), bias.astype(np.float32), act_qmax
        )

    return layer(3 * features + 2, hidden, low_bit[0]), layer(hidden, outputs, low_bit[1])


def jets(count: int, particles: int, features: int, seed: int = 0) -> tuple[Float, Float, Float]:
    """Draw jets with empty slots at any place and a particle without direction in each."""
    rng = np.random.default_rng(seed)
    pt = np.where(rng.uniform(size=(count, particles)) < 0.2, 0, rng.exponential(size=(count, particles)))
    position = rng.normal(scale=0.5, size=(count, particles, 2))
    position[:, :1] = 0
    h = rng.normal(size=(count, particles, features))
    return tuple(x.astype(np.float32) for x in (pt, h, position))  # type: ignore[return-value]


def model(both: Layers, portable: bool = True, opset: int = 20, **change: Any) -> onnx.ModelProto:
    attributes = {
        **SETTINGS,
        "act_qmax1": float(both[0].act_qmax),
        "act_qmax2": float(both[1].act_qmax),
        **change,
    }
    given = {name: value for name, value in attributes.items() if value is not None}
    fed = ["pt", "features", "position"]
    node = helper.make_node("MessagePassing", [*fed, *LAYERS], ["Y"], "edges", domain=ops.DOMAIN, **given)
    arrays = [array for layer in both for array in (layer.weight, layer.scale, layer.bias)]
    graph = helper.make_graph(
        [node],
        "one_layer",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in fed],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(array, name) for name, array in zip(LAYERS, arrays, strict=True)],
    )
    for value, rank in zip((*graph.input, *graph.output), (2, 3, 3, 3), strict=True):
        value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, [None] * rank))
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(ops.DOMAIN, 1)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    if portable:
        ops.add_functions(made)
    return made


def run(session: ort.InferenceSession | ReferenceEvaluator, given: tuple[Float, Float, Float]) -> Float:
    feed = dict(zip(("pt", "features", "position"), given, strict=True))
    (found,) = session.run(None, feed)
    return cast(Float, found)


@pytest.fixture(params=USABLE)
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("BITSEARCH_KERNEL", request.param)
    return str(request.param)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("low_bit", [(0, 0), (127, 127), (127, 0), (0, 128), (1, 100)])
@pytest.mark.parametrize("sizes", SIZES)
def test_kernels_equal_numpy(sizes: tuple[int, int, int], low_bit: tuple[float, float]) -> None:
    both = layers(*sizes, low_bit)
    for weighted in (0, 1):
        session = ops.session(model(both, weighted=weighted).SerializeToString())
        for count, particles in ((3, 40), (1, 1), (2, 17), (5, 5), (0, 4), (4, 0), (1, 65)):
            given = jets(count, particles, sizes[0])
            expected = message_passing(*given, *both, **{**SETTINGS, "weighted": bool(weighted)})
            np.testing.assert_array_equal(run(session, given), expected)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("bad", [np.nan, np.inf, 3e38, -1e-45, 1e-30])
@pytest.mark.parametrize("low_bit", [0, 127])
def test_hostile_values(bad: float, low_bit: float) -> None:
    """What is not finite spoils those alone who hear of it."""
    both = layers(2, 5, 6, (low_bit, low_bit))
    session = ops.session(model(both).SerializeToString())
    for place in range(3):
        given = jets(4, 20, 2)
        given[place][1:3, 7] = bad
        expected = message_passing(*given, *both, **SETTINGS)
        np.testing.assert_array_equal(run(session, given), expected)
        assert np.isfinite(expected[[0, 3]]).all()


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_change_nothing(threads: int) -> None:
    both = layers(10, 10, 11, (127, 127))
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    given = jets(30, 40, 10)
    one = run(ops.session(model(both).SerializeToString()), given)
    np.testing.assert_array_equal(
        run(ops.session(model(both).SerializeToString(), sess_options=options), given), one
    )


@pytest.mark.parametrize("opset", [20, 17, 13])
@pytest.mark.parametrize("low_bit", [(0, 0), (127, 127), (0, 127)])
@pytest.mark.parametrize("count", [5, 0])
def test_function_body_matches_numpy(low_bit: tuple[float, float], opset: int, count: int) -> None:
    both = layers(3, 6, 7, low_bit)
    given = jets(count, 12, 3)
    made = model(both, opset=opset)
    onnx.checker.check_model(made, full_check=True)
    plain = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = message_passing(*given, *both, **SETTINGS)
    for session in (plain, ReferenceEvaluator(made)):
        found = run(session, given)
        assert found.shape == expected.shape
        # A rounding of an 8-bit activation may fall the other way.
        np.testing.assert_allclose(found, expected, atol=3e-2 if any(low_bit) else 1e-5)
        assert np.count_nonzero(np.abs(found - expected) > 1e-5) <= 0.02 * found.size


BAD_ATTRIBUTES: dict[str, tuple[str, Any, str]] = {
    "radius missing": ("squared_radius", None, "squared_radius: found no such attribute, expected a number"),
    "radius NaN": ("squared_radius", float("nan"), "squared_radius: found -?nan"),
    "weighted two": ("weighted", 2, "weighted: found 2, expected 0 or 1"),
    "slope missing": ("slope", None, "slope: found no such attribute, expected a number from 0 to 1"),
    "slope above one": ("slope", 2.0, "slope: found 2.0+"),
    "a broken step": ("act_qmax2", 1.5, "act_qmax2: found 1.50+, expected a whole number from 0 to 128"),
    "an integer": ("act_qmax1", 127, "act_qmax1: found the integer 127, expected a float"),
}


@pytest.mark.parametrize("case", BAD_ATTRIBUTES)
def test_bad_attributes_are_refused_at_creation(case: str) -> None:
    name, value, message = BAD_ATTRIBUTES[case]
    with pytest.raises(RuntimeException, match=f"MessagePassing 'edges': {message}"):
        ops.session(model(layers(1, 2, 3, (0, 0)), portable=False, **{name: value}).SerializeToString())


BAD_SHAPES = [
    (((2, 3), (2, 4, 1), (2, 3, 2)), "features: found shape (2, 4, 1), expected shape (2, 3, ?)"),
    (((2, 3), (2, 3, 1), (2, 3, 3)), "position: found shape (2, 3, 3), expected shape (2, 3, 2)"),
    (((2, 3), (2, 3, 2), (2, 3, 2)), "W1: found shape (2, 5), expected shape (?, 8)"),
]


@pytest.mark.parametrize(("shapes", "message"), BAD_SHAPES)
def test_bad_shapes_are_refused_at_run(shapes: tuple[tuple[int, ...], ...], message: str) -> None:
    both = layers(1, 2, 3, (0, 0))
    given = cast(tuple[Float, Float, Float], tuple(np.zeros(shape, np.float32) for shape in shapes))
    with pytest.raises(InvalidArgument, match=re.escape(message)):
        run(ops.session(model(both, portable=False).SerializeToString()), given)
    with pytest.raises(ops.OperatorError, match=message.split(":")[0]):
        message_passing(*given, *both, **SETTINGS)


def test_function_refuses_old_opsets() -> None:
    with pytest.raises(ops.OperatorError, match="opset: found 12, expected at least 13"):
        ops.message_passing_function(12)
