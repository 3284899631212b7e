"""`TernaryChain`: numpy = layer by layer, kernels = numpy bit for bit, the function body closely."""

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, RuntimeException
from scipy.special import expit
from ternary_chain_layers import Chain

from bitsearch import ops
from bitsearch.onnxfile.truths import hostile_rows
from bitsearch.ops.reference import Float, ternary_chain, ternary_matmul
from bitsearch.ops.ternary_chain.reference import ACTIVATIONS

USABLE = [kernel.name for kernel in ops.kernels() if kernel.usable]
SIZES = [(1, 1, 1), (5, 7, 3), (17, 33, 9, 65), (188, 64, 64, 389), (3, 4, 5, 6, 7, 8, 9, 10, 11)]


@pytest.fixture(params=[*USABLE, ""], ids=[*USABLE, "chosen by shape"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("BITSEARCH_KERNEL", request.param)
    return str(request.param)


def open_session(model: onnx.ModelProto, threads: int = 1) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    return ops.session(model.SerializeToString(), sess_options=options)


def random_rows(m: int, k: int) -> Float:
    return np.random.default_rng(m).normal(size=(m, k)).astype(np.float32)


def assert_bit_equal(found: Float, expected: Float) -> None:
    assert found.shape == expected.shape
    finite = ~np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(found), ~finite)
    np.testing.assert_array_equal(found[finite].view(np.uint32), expected[finite].view(np.uint32))


@pytest.mark.parametrize(
    ("activation", "formula"),
    [
        ("relu", lambda x: np.maximum(x, 0)),
        ("leaky-relu", lambda x: np.where(x < 0, 0.2 * x, x)),
        ("silu", lambda x: x * expit(x)),
        ("gelu", lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))),
    ],
)
def test_activations_are_what_their_names_say(activation: str, formula: Any) -> None:
    x = np.concatenate([np.linspace(-30, 30, 4001), np.geomspace(1e-20, 1e20, 101)]).astype(np.float32)
    x = np.concatenate([x, -x])
    with np.errstate(all="ignore"):
        found = ACTIVATIONS[activation](x, np.float32(0.2))
        exact = formula(x.astype(np.float64))
    # Where gelu is below 1e-14, 1 + tanh is exactly 0 in double precision.
    np.testing.assert_allclose(found, exact, rtol=2e-5, atol=1e-14)


def test_activations_keep_what_is_not_finite() -> None:
    x = np.array([np.nan, np.inf, -np.inf], np.float32)
    with np.errstate(all="ignore"):
        for name in ("silu", "gelu"):
            np.testing.assert_array_equal(ACTIVATIONS[name](x, np.float32(0)), [np.nan, np.inf, np.nan])
        np.testing.assert_array_equal(ACTIVATIONS["relu"](x, np.float32(0)), [np.nan, np.inf, 0])
        np.testing.assert_array_equal(
            ACTIVATIONS["leaky-relu"](x, np.float32(0.5)), [np.nan, np.inf, -np.inf]
        )


def test_chain_is_its_layers_one_after_the_other() -> None:
    chain = Chain.random(9, 12, 5, activation="leaky-relu", alpha=0.25)
    x = random_rows(6, 9)
    first, second = chain.links
    hidden = ternary_matmul(x, first.W, first.scale, first.bias, K=9)
    hidden = np.where(hidden < 0, hidden / 4, hidden)
    np.testing.assert_array_equal(
        chain.expect(x), ternary_matmul(hidden, second.W, second.scale, second.bias, K=12)
    )


@pytest.mark.parametrize("normal", [False, True], ids=["plain", "normal"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_kernel_matches_numpy(kernel: str, sizes: tuple[int, ...], activation: Any, normal: bool) -> None:
    chain = Chain.random(*sizes, activation=activation, alpha=0.3, act_qmax=100.0, normal=normal)
    session = open_session(chain.model(portable=False))
    for m in (1, 2, 7, 65):
        x = random_rows(m, sizes[0])
        assert_bit_equal(session.run(None, {"X": x})[0], chain.expect(x))


@pytest.mark.parametrize("normal", [False, True], ids=["plain", "normal"])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("m", [64, 100, 129, 1000])
def test_kernel_matches_numpy_when_split(kernel: str, m: int, threads: int, normal: bool) -> None:
    chain = Chain.random(188, 128, 96, 700, normal=normal)
    x = random_rows(m, 188)
    session = open_session(chain.model(portable=False), threads)
    assert_bit_equal(session.run(None, {"X": x})[0], chain.expect(x))


@pytest.mark.parametrize("normal", [False, True], ids=["plain", "normal"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_kernel_matches_numpy_on_hostile_rows(kernel: str, activation: Any, normal: bool) -> None:
    x = np.concatenate([hostile_rows(31, seed) for seed in range(3)])
    chain = Chain.random(31, 20, 50, activation=activation, normal=normal)
    with np.errstate(all="ignore"):
        expected = chain.expect(x)
    assert np.isnan(expected).any()
    assert_bit_equal(open_session(chain.model()).run(None, {"X": x})[0], expected)


@pytest.mark.parametrize("shape", [(0, 5), (2, 0, 5), (3, 2, 5), (5,)], ids=str)
def test_any_rank_and_empty_batches(kernel: str, shape: tuple[int, ...]) -> None:
    chain = Chain.random(5, 7, 3)
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    found = open_session(chain.model(rank=len(shape))).run(None, {"X": x})[0]
    assert_bit_equal(found, chain.expect(x))


def test_inputs_may_come_at_run_time(kernel: str) -> None:
    chain = Chain.random(5, 7, 3)
    fed = tuple(chain.arrays)
    x = random_rows(4, 5)
    session = open_session(chain.model(fed=fed))
    assert_bit_equal(session.run(None, {"X": x, **chain.arrays})[0], chain.expect(x))


@pytest.mark.parametrize("opset", [13, 17, 20])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("runtime", ["onnxruntime", "onnx"])
def test_function_body_agrees_with_numpy(runtime: str, activation: Any, opset: int) -> None:
    chain = Chain.random(19, 24, 16, 10, activation=activation, alpha=0.2)
    model = chain.model(opset=opset)
    onnx.checker.check_model(model, full_check=True)
    x = random_rows(50, 19)
    found: Any
    if runtime == "onnx":
        (found,) = ReferenceEvaluator(model).run(None, {"X": x})
    else:
        session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        found = session.run(None, {"X": x})[0]
    expected = chain.expect(x)
    # An activation on a rounding edge may become the next integer: one part in 127 of a row, in few rows.
    same = np.isclose(found, expected, rtol=1e-5, atol=1e-5).all(axis=1)
    assert same.mean() > 0.9
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_function_body_for_several_activations_takes_the_right_one(activation: Any) -> None:
    chain = Chain.random(19, 24, 10, activation=activation, alpha=0.2)
    model = chain.model(portable=False)
    model.functions.extend([ops.ternary_matmul_function(), ops.ternary_chain_function(2)])
    x = random_rows(50, 19)
    found = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(
        None, {"X": x}
    )
    same = np.isclose(found[0], chain.expect(x), rtol=1e-5, atol=1e-5).all(axis=1)
    assert same.mean() > 0.9
    assert (
        ops.ternary_chain_function(2, 20, [activation]).ByteSize() < ops.ternary_chain_function(2).ByteSize()
    )


@pytest.mark.parametrize("opset", [17, 20])
def test_function_body_normalises(opset: int) -> None:
    chain = Chain.random(19, 24, 16, 10, normal=True, epsilon=1e-3)
    model = chain.model(opset=opset)
    onnx.checker.check_model(model, full_check=True)
    x = random_rows(50, 19)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: Any
    for found in (*session.run(None, {"X": x}), *ReferenceEvaluator(model).run(None, {"X": x})):
        same = np.isclose(found, chain.expect(x), rtol=1e-4, atol=1e-4).all(axis=1)
        assert same.mean() > 0.8
    with pytest.raises(ops.OperatorError, match="opset: found 16, expected at least 17"):
        ops.ternary_chain_function(2, 16, normal=True)


def test_normalisation_is_that_of_its_name() -> None:
    chain = Chain.random(9, 12, 5, normal=True, activation="relu", epsilon=0.1)
    x = random_rows(6, 9)
    first, second = chain.links
    hidden = ternary_matmul(x, first.W, first.scale, first.bias, K=9).astype(np.float64)
    centred = hidden - hidden.mean(1, keepdims=True)
    normal = centred / np.sqrt(centred.var(1, keepdims=True) + 0.1) * first.gain + first.shift
    hidden = np.maximum(normal, 0).astype(np.float32)
    expected = ternary_matmul(hidden, second.W, second.scale, second.bias, K=12)
    np.testing.assert_allclose(chain.expect(x), expected, atol=0.05 * np.abs(expected).max())


@pytest.mark.parametrize("normal", [False, True], ids=["plain", "normal"])
def test_names_count_layers_in_every_length(normal: bool) -> None:
    for length in range(2, 9):
        chain = Chain.random(*range(3, 4 + length), normal=normal)
        x = random_rows(3, 3)
        assert_bit_equal(open_session(chain.model()).run(None, {"X": x})[0], chain.expect(x))


def bad(
    change: dict[str, Any], arrays: dict[str, Any] | None = None, normal: bool = False
) -> onnx.ModelProto:
    """Build a chain of 10, 6 and 3 features with other attributes or constants; None takes one away."""
    chain = Chain.random(10, 6, 3, normal=normal)
    model = chain.model(portable=False)
    node = model.graph.node[0]
    for name, value in change.items():
        kept = [item for item in node.attribute if item.name != name]
        del node.attribute[:]
        node.attribute.extend(kept)
        if value is not None:
            node.attribute.append(helper.make_attribute(name, value))
    for tensor in model.graph.initializer:
        if tensor.name in (arrays or {}):
            tensor.CopyFrom(onnx.numpy_helper.from_array((arrays or {})[tensor.name], tensor.name))
    return model


GOOD = Chain.random(10, 6, 3).arrays
BAD: dict[str, tuple[onnx.ModelProto, str]] = {
    "no K": (bad({"K1": None}), "K1: found no such attribute, expected 1 to 16777215"),
    "K zero": (bad({"K0": 0}), "K0: found 0"),
    "K disagrees": (bad({"K1": 7}), r"W0: found shape \(6, 3\), expected shape \(7, 3\)"),
    "rows": (bad({}, {"W1": GOOD["W1"][:, :1]}), r"W1: found shape \(3, 1\), expected shape \(N, 2\)"),
    "code 3": (bad({}, {"W1": GOOD["W1"] | np.uint8(3)}), "W1: found the code 3 at output 0, input 0"),
    "scale": (bad({}, {"scale0": np.ones(5, np.float32)}), r"scale0: found shape \(5\), .* \(6\)"),
    "bias": (bad({}, {"bias1": np.ones(5, np.float32)}), r"bias1: found shape \(5\), expected shape \(3\)"),
    "no activation": (bad({"activation": None}), "activation: found no such attribute, expected 'relu'"),
    "activation": (bad({"activation": "tanh"}), "activation: found 'tanh', expected 'relu', 'leaky-relu'"),
    "alpha": (bad({"alpha": float("inf")}), "alpha: found inf, expected a finite number"),
    "alpha text": (bad({"alpha": "x"}), "alpha: found a string, expected a float"),
    "act_qmax": (bad({"act_qmax": 0.5}), "act_qmax: found 0.50+, expected a whole number"),
}


BAD_NORMAL: dict[str, tuple[onnx.ModelProto, str]] = {
    "gain": (
        bad({}, {"gain0": np.ones(5, np.float32)}, True),
        r"gain0: found shape \(5\), expected shape \(6\)",
    ),
    "shift": (bad({}, {"shift0": np.ones((), np.float32)}, True), r"shift0: found shape \(\), .* \(6\)"),
    "epsilon": (bad({"epsilon": 0.0}, normal=True), "epsilon: found 0.0+, expected a positive number"),
}


@pytest.mark.parametrize("case", BAD_NORMAL)
def test_bad_normalisations_are_refused_at_creation(case: str) -> None:
    model, message = BAD_NORMAL[case]
    with pytest.raises(RuntimeException, match=f"TernaryNormChain2 'chain': {message}"):
        open_session(model)


@pytest.mark.parametrize("case", BAD)
def test_bad_nodes_are_refused_at_creation(case: str) -> None:
    model, message = BAD[case]
    with pytest.raises(RuntimeException, match=f"TernaryChain2 'chain': {message}"):
        open_session(model)


def test_bad_values_are_refused_at_run() -> None:
    chain = Chain.random(10, 6, 3)
    session = open_session(chain.model(fed=("W0",), portable=False))
    with pytest.raises((InvalidArgument, Fail), match=r"W0: found shape \(5, 3\), expected shape \(6, 3\)"):
        session.run(None, {"X": random_rows(2, 10), "W0": chain.arrays["W0"][:5]})


def test_numpy_refuses_with_the_same_words() -> None:
    chain = Chain.random(10, 6, 3)
    x = random_rows(2, 10)
    with pytest.raises(ops.OperatorError, match="layers: found 1, expected 2 to 8"):
        ternary_chain(x, chain.links[:1], activation="relu")
    with pytest.raises(ops.OperatorError, match="activation: found 'tanh', expected 'relu'"):
        ternary_chain(x, chain.links, activation="tanh")  # type: ignore[arg-type]
    with pytest.raises(ops.OperatorError, match="alpha: found inf"):
        ternary_chain(x, chain.links, activation="relu", alpha=np.inf)
    with pytest.raises(ops.OperatorError, match=r"W0: found shape \(6, 3\), expected shape \(3, 3\)"):
        ternary_chain(x, [chain.links[0], chain.links[0]._replace(K=3)], activation="relu")
    normal = Chain.random(10, 6, 3, normal=True)
    short = [normal.links[0]._replace(gain=np.ones(5, np.float32)), normal.links[1]]
    with pytest.raises(ops.OperatorError, match=r"gain0: found shape \(5,\), expected shape \(6,\)"):
        ternary_chain(x, short, activation="relu")
    with pytest.raises(ops.OperatorError, match="epsilon: found 0, expected a positive number"):
        ternary_chain(x, normal.links, activation="relu", epsilon=0)
    with pytest.raises(ops.OperatorError, match="opset: found 12"):
        ops.ternary_chain_function(2, 12)
    with pytest.raises(ops.OperatorError, match="layers: found 9"):
        ops.ternary_chain_function(9)
