"""Packing and quantisation: golden bytes and properties."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from bitsearch.ops import OperatorError
from bitsearch.ops.reference import GAMMA_FLOOR, Float, pack, quantize, ternary_matmul, unpack

GOLDEN = Path(__file__).parent / "golden" / "packed_3x10.hex"
TERNARY = arrays(np.int8, array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.integers(-1, 1))
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


def test_golden_bytes() -> None:
    weights = (np.arange(30).reshape(3, 10) * 7 % 11 % 3 - 1).astype(np.int8)
    assert "\n".join(row.tobytes().hex(" ") for row in pack(weights)) == GOLDEN.read_text().strip()


@given(TERNARY)
def test_unpack_inverts_pack(weights: NDArray[np.int8]) -> None:
    packed = pack(weights)
    assert packed.shape == (weights.shape[0], -(-weights.shape[1] // 4))
    np.testing.assert_array_equal(unpack(packed, weights.shape[1]), weights)


@given(
    arrays(np.float32, st.tuples(st.integers(0, 5), st.integers(1, 20)), elements=FLOATS), st.integers(1, 128)
)
def test_quantize_stays_within_half_a_step(x: Float, act_qmax: int) -> None:
    q, step = quantize(x, act_qmax)
    assert (np.abs(q.astype(int)) <= act_qmax).all()
    saturated = (q == 127) & (act_qmax == 128)
    error = np.abs(q * step.astype(np.float64) - x)
    assert (error <= step * np.where(saturated, 1, 0.5) * (1 + 1e-4)).all()
    assert (step >= GAMMA_FLOOR / np.float32(act_qmax)).all()


@given(arrays(np.float32, (4, 9), elements=st.floats(width=32)))
def test_rows_are_independent(x: Float) -> None:
    W, scale = pack(np.tile(np.array([[1, 0, -1]], np.int8), (2, 3))), np.ones((), np.float32)
    together = ternary_matmul(x, W, scale, K=9)
    alone = np.concatenate([ternary_matmul(row[None], W, scale, K=9) for row in x])
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(np.isnan(together).all(axis=1), ~np.isfinite(x).all(axis=1))


def test_rounds_half_to_even() -> None:
    q, _ = quantize(np.array([[127, 0.5, 1.5, 2.5, -0.5, -1.5]], np.float32))
    assert q.tolist() == [[127, 0, 2, 2, 0, -2]]


def test_zero_row_gives_bias() -> None:
    bias = np.array([3, -4], np.float32)
    y = ternary_matmul(
        np.zeros((1, 5), np.float32), pack(np.ones((2, 5), np.int8)), np.full((), 2, np.float32), bias, K=5
    )
    np.testing.assert_array_equal(y, [bias])


X, W, SCALE = np.ones((2, 5), np.float32), pack(np.ones((3, 5), np.int8)), np.ones(3, np.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"X": X.astype(np.float64)}, r"X: found float64 of shape \(2, 5\), expected float32"),
        ({"X": X[:, :4]}, r"X: found float32 of shape \(2, 4\), expected shape \(..., 5\)"),
        ({"W": W.view(np.int8)}, "W: found int8 .* expected a uint8 array"),
        ({"W": W[:, :1]}, r"W: found uint8 of shape \(3, 1\), expected shape \(N, 2\)"),
        ({"W": W | 3}, "W: found the code 3 at output 0, input 0"),
        ({"scale": SCALE[:2]}, r"scale: .* expected shape \(\) or \(3,\)"),
        ({"scale": SCALE * np.float32(np.nan)}, "scale: .* value nan, expected finite values"),
        ({"bias": SCALE[:2]}, r"bias: .* expected shape \(3,\)"),
        ({"K": 0}, "K: found 0, expected 1 to"),
        ({"act_qmax": 0.5}, "act_qmax: found 0.5, expected a whole number"),
    ],
)
def test_bad_input_is_refused(change: dict[str, object], message: str) -> None:
    arguments = {"X": X, "W": W, "scale": SCALE, "bias": SCALE, "K": 5} | change
    with pytest.raises(OperatorError, match=message):
        ternary_matmul(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("weights", [np.full((1, 1), 2, np.int8), np.ones((2, 2)), np.ones(3, np.int8)])
def test_pack_refuses(weights: NDArray[np.int8]) -> None:
    with pytest.raises(OperatorError, match=r"^weights: found"):
        pack(weights)
