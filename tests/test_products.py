"""Products in operators of onnxruntime: what they compute follows from the equations of those operators."""

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bitsearch.core.precision import Precision
from bitsearch.core.rounding import round_rows
from bitsearch.onnxfile.inspect import layer_contents
from bitsearch.onnxfile.ternarize import ternarize

Array = NDArray[np.float32]
RNG = np.random.default_rng(3)
W = RNG.normal(size=(6, 20)).astype(np.float32)
BIAS = RNG.normal(size=6).astype(np.float32)
X = RNG.normal(size=(5, 20)).astype(np.float32)


def gemm(weight: Array = W, bias: Array | None = BIAS) -> onnx.ModelProto:
    constants = {"w": weight, **({} if bias is None else {"b": bias})}
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", *constants], ["y"], "layer", transB=1)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", weight.shape[1]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", len(weight)])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(model: onnx.ModelProto, x: Array = X) -> Array:
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString())
    return np.asarray(session.run(None, {"x": x})[0])


def test_int8_codes_have_the_largest_weight_of_an_output_at_127() -> None:
    codes, scale = round_rows(W, precision=Precision.INT8)
    assert np.abs(codes).max(axis=1).tolist() == [127] * 6
    assert (np.abs(codes * scale[:, None] - W) <= scale[:, None] / 2 * (1 + 1e-6)).all()
    zeros, smallest = round_rows(np.zeros((2, 3), np.float32), precision=Precision.INT8)
    assert not zeros.any()
    assert (smallest > 0).all()


@pytest.mark.parametrize("bias", [None, BIAS], ids=["plain", "bias"])
def test_int8_is_the_dynamic_quantisation_of_onnx(bias: Array | None) -> None:
    model, (outcome,) = ternarize(gemm(bias=bias), lambda _: Precision.INT8)
    onnx.checker.check_model(model, full_check=True)
    # DynamicQuantizeLinear of ONNX: one step for all activations, the range widened to hold 0.
    low, high = min(X.min(), 0), max(X.max(), 0)
    step = np.float32((high - low) / np.float32(255))
    point = np.clip(np.rint(-low / step), 0, 255)
    q = np.clip(np.rint(X / step) + point, 0, 255)
    scale = np.abs(W).max(axis=1) / 127
    codes = np.rint(W / scale[:, None])
    expected = ((q - point) @ codes.T) * (step * scale) + (0 if bias is None else bias)
    np.testing.assert_allclose(run(model), expected, rtol=1e-5, atol=1e-5)
    assert outcome.bytes_after == W.size
    assert [item.precision for item in layer_contents(model)] == ["uint8"]
    assert not model.functions


def test_int8_does_not_saturate() -> None:
    """255 * 127 twice is beyond 16 bits, in which some processors add products of signed weights."""
    weight, x = np.full((1, 64), 1.0, np.float32), np.full((1, 64), 2.0, np.float32)
    model, _ = ternarize(gemm(weight, None), lambda _: Precision.INT8)
    np.testing.assert_allclose(run(model, x), [[128.0]], rtol=1e-6)
