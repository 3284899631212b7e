"""numpy = every kernel, bit for bit; both against torch in double precision, and the function body within tolerance."""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument, RuntimeException

from bitsearch import ops
from bitsearch.models.leaves.splines import SPLINES
from bitsearch.ops.monotone_spline import reference
from bitsearch.ops.monotone_spline.reference import Float, Kind, OutOfBounds

USABLE = [kernel.name for kernel in ops.kernels() if kernel.usable]
KINDS: list[Kind] = ["rational-quadratic", "cubic"]
RULES: list[OutOfBounds] = ["scalar", "event"]
# One below, at and above the widths of vectors and the values of one task.
SIZES = [1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 186, 255, 256, 257, 600]
BINS = [2, 3, 4, 10, 64]
# What rounding does to values on the domain [-1, 1] with parameters of unit spread, typical and worst of 10^5.
TYPICAL, WORST = 3e-7, 1e-4
ULP = {"exp": 1.1, "log": 2, "log1p": 2, "softplus": 3, "sigmoid": 2.5}


@dataclass(frozen=True)
class Node:
    kind: Kind = "rational-quadratic"
    bins: int = 10
    bound: float = 18.0
    inverse: bool = False
    out_of_bounds: OutOfBounds = "scalar"

    @property
    def parameters(self) -> int:
        return reference.parameters(self.kind, self.bins)

    def expect(self, x: Float, theta: Float) -> tuple[Float, Float]:
        return reference.monotone_spline(x, theta, **vars(self))

    def torch(self, x: Float, theta: Float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Map in double precision; every value must lie inside of the domain."""
        values, grouped = torch.tensor(x, dtype=torch.float64), torch.tensor(theta, dtype=torch.float64)
        y, slope = SPLINES[self.kind].transform(
            values, grouped.reshape(*x.shape, -1), self.bins, self.bound, self.inverse
        )
        return y.numpy(), slope.sum(-1).numpy()

    def model(
        self,
        size: int | None,
        rank: int = 2,
        *,
        outputs: tuple[str, ...] = ("Y", "log_det"),
        portable: bool = True,
        change: dict[str, Any] | None = None,
        opset: int = 20,
    ) -> onnx.ModelProto:
        attributes = vars(self) | {"bound": float(self.bound), "inverse": int(self.inverse)} | (change or {})
        given = {name: value for name, value in attributes.items() if value is not None}
        node = helper.make_node(
            "MonotoneSpline", ["X", "theta"], outputs, "spline", domain=ops.DOMAIN, **given
        )
        free: list[int | None] = [None] * (rank - 1)
        shapes: dict[str, list[int | None]] = {
            "X": [*free, size],
            "theta": [*free, None if size is None else size * self.parameters],
            "Y": [*free, size],
            "log_det": free,
        }
        values = {
            name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in shapes.items()
        }
        graph = helper.make_graph(
            [node], "one_spline", [values["X"], values["theta"]], [values[name] for name in outputs if name]
        )
        opsets = [helper.make_opsetid("", opset), helper.make_opsetid(ops.DOMAIN, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        if portable:
            ops.add_functions(model)
        return model


ALL = [
    Node(kind, inverse=inverse, out_of_bounds=rule)
    for kind in KINDS
    for inverse in (False, True)
    for rule in RULES
]


@pytest.fixture(params=USABLE)
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("BITSEARCH_KERNEL", request.param)
    return str(request.param)


def open_session(model: onnx.ModelProto, threads: int = 1) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    return ops.session(model.SerializeToString(), sess_options=options)


def run(session: ort.InferenceSession, x: Float, theta: Float) -> tuple[Float, Float]:
    y, log_det = session.run(None, {"X": x, "theta": theta})
    return y, log_det


def batch(node: Node, shape: tuple[int, ...], spread: float = 1, seed: int = 0) -> tuple[Float, Float]:
    """Draw values, some of them outside of the domain in every other row, and parameters."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1.05, 1.05, shape) * node.bound
    x[::2] = np.clip(x[::2], -node.bound, node.bound)
    theta = rng.normal(scale=spread, size=(*shape[:-1], shape[-1] * node.parameters))
    return x.astype(np.float32), theta.astype(np.float32)


def hostile(node: Node) -> tuple[Float, Float]:
    """Rows of infinities, NaN, bounds and extremes in the values, then in the parameters; 5 values a row."""
    rng = np.random.default_rng(0)
    x = np.repeat(rng.uniform(-1, 1, (1, 5)) * node.bound, 40, 0)
    theta = rng.normal(size=(40, 5 * node.parameters))
    above = np.nextafter(np.float32(node.bound), np.float32(np.inf))
    special = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, 3e38, -3e38, node.bound, -node.bound, above, -above]
    for row, value in enumerate(special):
        x[row, 2] = value
    for row, value in enumerate([np.nan, np.inf, -np.inf, 3e38, -3e38, 1e6, -1e6, 1e-45, 0.0], len(special)):
        theta[row, rng.integers(theta.shape[1])] = value
        theta[row + 10, 2 * node.parameters : 3 * node.parameters] = value
    return x.astype(np.float32), theta.astype(np.float32)


def assert_bit_equal(found: tuple[Float, Float], expected: tuple[Float, Float]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        number = ~np.isnan(other)
        np.testing.assert_array_equal(np.isnan(one), ~number)
        np.testing.assert_array_equal(one[number].view(np.uint32), other[number].view(np.uint32))


@pytest.mark.parametrize("name", ULP)
def test_elementary_functions(name: str) -> None:
    negative = -np.concatenate([np.geomspace(1e-30, 86, 40_001), np.linspace(0, 86, 40_001)])
    positive = np.concatenate([np.geomspace(1.2e-38, 3e38, 40_001), np.linspace(0.5, 2, 40_001)])
    cases: dict[str, tuple[Callable[[Any], Any], NDArray[np.float64]]] = {
        "exp": (np.exp, negative),
        "log": (np.log, positive),
        "log1p": (np.log1p, np.concatenate([np.geomspace(1e-37, 1, 40_001), np.linspace(0, 1, 40_001)])),
        "softplus": (
            lambda x: np.logaddexp(0, x),
            np.concatenate([negative, np.geomspace(1e-30, 1e6, 40_001)]),
        ),
        "sigmoid": (lambda x: 1 / (1 + np.exp(-x)), np.concatenate([negative, -negative])),
    }
    exact, x = cases[name][0], cases[name][1].astype(np.float32)
    expected = exact(x.astype(np.float64))
    ulp = np.abs(getattr(reference, name)(x) - expected) / np.spacing(np.abs(expected).astype(np.float32))
    assert ulp.max() < ULP[name]


@pytest.mark.parametrize("node", ALL)
def test_kernel_matches_numpy(kernel: str, node: Node) -> None:
    for bins in BINS:
        for size in SIZES:
            some = replace(node, bins=bins)
            x, theta = batch(some, (3, size), spread=bins / 3, seed=size)
            assert_bit_equal(
                run(open_session(some.model(size, portable=False)), x, theta), some.expect(x, theta)
            )


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape", [(1, 3262), (300, 7), (40, 186)])
def test_kernel_matches_numpy_when_split(kernel: str, shape: tuple[int, int], threads: int) -> None:
    for node in (ALL[1], ALL[6]):
        x, theta = batch(node, shape)
        session = open_session(node.model(shape[1], portable=False), threads)
        assert_bit_equal(run(session, x, theta), node.expect(x, theta))


@pytest.mark.parametrize("node", ALL)
def test_kernel_matches_numpy_on_hostile_rows(kernel: str, node: Node) -> None:
    x, theta = hostile(node)
    session = open_session(node.model(5, portable=False))
    expected = node.expect(x, theta)
    assert_bit_equal(run(session, x, theta), expected)
    for row in range(len(x)):
        one = slice(row, row + 1)
        assert_bit_equal(run(session, x[one], theta[one]), (expected[0][one], expected[1][one]))


@pytest.mark.parametrize("shape", [(7,), (5, 7), (2, 3, 7), (0, 7), (2, 0, 7)])
def test_kernel_takes_any_rank(kernel: str, shape: tuple[int, ...]) -> None:
    for node in (ALL[1], ALL[6]):
        x, theta = batch(node, shape)
        found = run(open_session(node.model(7, len(shape))), x, theta)
        assert_bit_equal(found, node.expect(x, theta))


def test_kernel_runs_concurrently(kernel: str) -> None:
    node = ALL[3]
    session = open_session(node.model(186), threads=2)
    batches = [batch(node, (rows, 186), seed=rows) for rows in (1, 2, 7, 64)] * 12
    with ThreadPoolExecutor(8) as pool:
        for given, found in zip(batches, pool.map(lambda pair: run(session, *pair), batches), strict=True):
            assert_bit_equal(found, node.expect(*given))


@pytest.mark.parametrize("outputs", [("Y",), ("Y", "")])
def test_log_determinant_is_optional(kernel: str, outputs: tuple[str, ...]) -> None:
    node = Node()
    x, theta = batch(node, (4, 20))
    (y,) = open_session(node.model(20, outputs=outputs)).run(None, {"X": x, "theta": theta})
    np.testing.assert_array_equal(y, node.expect(x, theta)[0])


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("bins", BINS)
@pytest.mark.parametrize("kind", KINDS)
def test_numpy_matches_torch(kind: Kind, bins: int, inverse: bool) -> None:
    node = Node(kind, bins, 1.0, inverse)
    rng = np.random.default_rng(bins)
    x = rng.uniform(-1, 1, (100, 100)).astype(np.float32)
    for spread, worse in ((0, 1), (1, 1), (5, 100), (50, 100)):
        theta = rng.normal(scale=spread, size=(100, 100 * node.parameters)).astype(np.float32)
        error = np.abs(node.expect(x, theta)[0] - node.torch(x, theta)[0])
        assert np.median(error) < TYPICAL
        assert error.max() < WORST * worse


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_log_determinant_matches_torch(kind: Kind, inverse: bool) -> None:
    node = Node(kind, inverse=inverse)
    x, theta = batch(node, (100, 186))
    x = np.clip(x, -18, 18)
    np.testing.assert_allclose(node.expect(x, theta)[1], node.torch(x, theta)[1], atol=5e-3)


@pytest.mark.parametrize("spread", [0, 1, 5, 50])
@pytest.mark.parametrize("kind", KINDS)
def test_inverse_undoes_forward(kind: Kind, spread: float) -> None:
    """Where the curve is flat, many x share one y: y is compared, after there and back."""
    forward, inverse = Node(kind), Node(kind, inverse=True)
    x, theta = batch(forward, (50, 100), spread)
    y, log_det = forward.expect(x, theta)
    back, inverse_log_det = inverse.expect(y, theta)
    np.testing.assert_allclose(forward.expect(back, theta)[0], y, atol=5e-5 if spread <= 1 else 2e-2)
    if spread <= 1:
        np.testing.assert_allclose(back, x, atol=0.05)
        assert np.median(np.abs(inverse_log_det + log_det)) < 1e-3


@pytest.mark.parametrize("node", ALL)
def test_maps_are_monotone_and_end_at_the_bounds(node: Node) -> None:
    x = np.linspace(-18, 18, 2001, dtype=np.float32)
    for spread in (0, 1, 50):
        theta = np.random.default_rng(1).normal(scale=spread, size=node.parameters).astype(np.float32)
        y, _ = node.expect(x, np.tile(theta, x.size))
        assert (np.diff(y) > -1e-4).all()
        np.testing.assert_allclose(y[[0, -1]], [-18, 18], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_knots_map_to_knots(kind: Kind) -> None:
    """Equal bins put knots where a value can tie with them."""
    x = np.linspace(-1, 1, 9, dtype=np.float32)
    for inverse in (False, True):
        node = Node(kind, 8, 1.0, inverse)
        y, _ = node.expect(x, np.zeros(9 * node.parameters, np.float32))
        np.testing.assert_allclose(y, x, atol=5e-7)


def test_values_out_of_bounds_pass_unchanged() -> None:
    x = np.array([[0.5, -0.5, 3], [0.5, -0.5, np.nan], [0.5, -0.5, 0]], np.float32)
    node = Node(bound=2.0, bins=4)
    theta = np.random.default_rng(0).normal(size=(3, 3 * node.parameters)).astype(np.float32)
    y, log_det = node.expect(x, theta)
    assert (y[:, :2] != x[:, :2]).all()
    np.testing.assert_array_equal(y[:2, 2], x[:2, 2])
    y, event_log_det = replace(node, out_of_bounds="event").expect(x, theta)
    np.testing.assert_array_equal(y[:2], x[:2])
    np.testing.assert_array_equal(event_log_det, [0, 0, log_det[2]])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_parameter_that_is_not_finite_spoils_its_value_alone(bad: float) -> None:
    for node in ALL:
        for parameter in range(node.parameters):
            x = np.array([[1, 2, 3], [1, 20, 3]], np.float32)
            theta = np.zeros((2, 3, node.parameters), np.float32)
            theta[:, 1, parameter] = bad
            y, log_det = node.expect(x, theta.reshape(2, -1))
            assert np.isnan(y).tolist() == [[False, True, False], [False] * 3]
            assert np.isnan(log_det).tolist() == [True, False]


@given(st.data())
def test_finite_parameters_give_finite_results(data: st.DataObject) -> None:
    numbers = st.floats(width=32, allow_nan=False, allow_infinity=False)
    node = data.draw(st.sampled_from(ALL))
    count = node.parameters
    theta = np.array(data.draw(st.lists(numbers, min_size=count, max_size=count)), np.float32)
    x = np.array([data.draw(numbers | st.floats(-18, 18, width=32))], np.float32)
    y, log_det = node.expect(x, theta)
    assert np.isfinite(y).all()
    assert np.isfinite(log_det)
    assert abs(y[0]) <= max(abs(x[0]), 18 * (1 + 1e-6))


@pytest.mark.parametrize(
    ("shape", "opset"),
    [((7,), 20), ((20, 7), 20), ((20, 7), 17), ((2, 3, 7), 13), ((0, 7), 13), ((0, 7), 20)],
)
@pytest.mark.parametrize("node", ALL)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_function_body_matches_numpy(node: Node, shape: tuple[int, ...], opset: int) -> None:
    x, theta = batch(node, shape)
    if shape == (20, 7):
        theta[3, 4] = np.inf
    model = node.model(7, len(shape), opset=opset)
    onnx.checker.check_model(model, full_check=True)
    plain = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feed = {"X": x, "theta": theta}
    for found in (plain.run(None, feed), ReferenceEvaluator(model).run(None, feed)):
        y, log_det = cast(tuple[Float, Float], found)
        expected = node.expect(x, theta)
        np.testing.assert_allclose(y, expected[0], atol=5e-4)
        np.testing.assert_allclose(log_det, expected[1], atol=5e-4)


def test_function_body_needs_no_branch(tmp_path: Any) -> None:
    """onnxruntime resolves every If when it opens a file."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    for node in ALL:
        ort.InferenceSession(
            node.model(7, outputs=("Y",)).SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        kept = {each.op_type for each in onnx.load(options.optimized_model_filepath).graph.node}
        assert not kept & {"If", "TfIdfVectorizer", "MonotoneSpline"}


def test_library_replaces_function_body() -> None:
    """65 bins are refused by the library alone, so an error shows who runs."""
    model = Node(bins=65).model(7).SerializeToString()
    ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    with pytest.raises(RuntimeException, match="MonotoneSpline 'spline': bins: found 65"):
        ops.session(model)


BAD_ATTRIBUTES: dict[str, tuple[str, object, str]] = {
    "kind missing": ("kind", None, "kind: found no such attribute, expected 'rational-quadratic' or 'cubic'"),
    "kind unknown": ("kind", "linear", "kind: found 'linear', expected 'rational-quadratic' or 'cubic'"),
    "kind empty": ("kind", "", "kind: found ''"),
    "kind integer": ("kind", 1, "kind: found the integer 1, expected a string"),
    "bins missing": ("bins", None, "bins: found no such attribute, expected 2 to 64"),
    "bins one": ("bins", 1, "bins: found 1, expected 2 to 64"),
    "bins huge": ("bins", 2**62, f"bins: found {2**62}"),
    "bins float": ("bins", 10.0, "bins: found the float 10.0+, expected an integer"),
    "bound missing": ("bound", None, "bound: found no such attribute"),
    "bound zero": ("bound", 0.0, "bound: found 0.0+, expected a number above 0"),
    "bound NaN": ("bound", float("nan"), "bound: found -?nan"),
    "bound infinite": ("bound", float("inf"), "bound: found inf"),
    "inverse two": ("inverse", 2, "inverse: found 2, expected 0 to 1"),
    "rule unknown": ("out_of_bounds", "row", "out_of_bounds: found 'row', expected 'scalar' or 'event'"),
}


@pytest.mark.parametrize("case", BAD_ATTRIBUTES)
def test_bad_attributes_are_refused_at_creation(case: str) -> None:
    name, value, message = BAD_ATTRIBUTES[case]
    with pytest.raises(RuntimeException, match=f"MonotoneSpline 'spline': {message}"):
        open_session(Node().model(7, portable=False, change={name: value}))


def test_declared_sizes_are_not_multiplied_blindly() -> None:
    model = Node().model(7, portable=False)
    model.graph.input[0].type.tensor_type.shape.dim[-1].dim_value = 2**63 - 1
    with pytest.raises(RuntimeException, match=rf"X: found shape \(\?, {2**63 - 1}\), expected fewer than"):
        open_session(model)


BAD_SHAPES = [
    ((2, 7), (2, 202), "theta: found shape (2, 202), expected shape (2, 203), 29 for each value of X"),
    ((2, 7), (3, 203), "theta: found shape (3, 203), expected shape (2, 203)"),
    ((2, 7), (2, 7, 29), "theta: found shape (2, 7, 29), expected shape (2, 203)"),
    ((2, 0), (2, 0), "X: found shape (2, 0), expected shape (..., S) with S at least 1"),
    ((), (29,), "X: found shape (), expected shape (..., S)"),
]


@pytest.mark.parametrize(("x", "theta", "message"), BAD_SHAPES)
def test_bad_shapes_are_refused_at_run(x: tuple[int, ...], theta: tuple[int, ...], message: str) -> None:
    model = Node().model(None, portable=False)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.ClearField("shape")
    with pytest.raises(InvalidArgument, match=re.escape(message)):
        run(open_session(model), np.zeros(x, np.float32), np.zeros(theta, np.float32))
    with pytest.raises(ops.OperatorError, match=message.split(":")[0]):
        Node().expect(np.zeros(x, np.float32), np.zeros(theta, np.float32))


def test_bad_known_shapes_are_refused_at_creation() -> None:
    model = Node().model(7, portable=False)
    model.graph.input[1].type.tensor_type.shape.dim[1].dim_value = 100
    message = "theta: found shape (?, 100), expected shape (?, 203), 29 for each value of X"
    with pytest.raises(RuntimeException, match=re.escape(message)):
        open_session(model)


def test_function_refuses_old_opsets() -> None:
    with pytest.raises(ops.OperatorError, match="opset: found 12, expected at least 13"):
        ops.monotone_spline_function(12)


def test_add_functions_is_idempotent_and_writes_defaults_out() -> None:
    model = Node().model(7, outputs=("Y",), portable=False, change={"inverse": None, "out_of_bounds": None})
    ops.add_functions(model)
    once = model.SerializeToString()
    ops.add_functions(model)
    assert model.SerializeToString() == once
    x, theta = batch(Node(), (3, 7))
    y = cast(list[Float], ReferenceEvaluator(model).run(None, {"X": x, "theta": theta}))[0]
    np.testing.assert_allclose(y, Node().expect(x, theta)[0], atol=5e-4)
