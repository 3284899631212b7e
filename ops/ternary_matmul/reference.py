"""The numpy truth of `com.bithep::TernaryMatMul`; equation numbers are those of the README beside."""

import numpy as np
from numpy.typing import NDArray

from bitsearch.ops.errors import OperatorError

GAMMA_FLOOR = np.float32(1e-8)
K_MAX = 2**24 - 1  # an int32 holds the sum of this many products of magnitude 128

_SHIFTS = np.array([0, 2, 4, 6], dtype=np.uint8)
_ZERO_CODE = 1

Float = NDArray[np.float32]


def pack(weights: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Pack ternary weights (N, K), values -1, 0, 1, into bytes (N, ceil(K/4)): Eqs. (1) and (2).

    Raises:
        OperatorError: the array is not int8 of rank 2, is empty, or holds another value.
    """
    _check(isinstance(weights, np.ndarray) and weights.dtype == np.int8, "weights", weights, "an int8 array")
    _check(weights.ndim == 2 and weights.size > 0, "weights", weights, "shape (N, K), not empty")
    invalid = (weights < -1) | (weights > 1)
    if invalid.any():
        raise OperatorError(f"weights: found the value {weights[invalid][0]}, expected -1, 0 or 1")
    n, k = weights.shape
    codes = np.full((n, -(-k // 4) * 4), _ZERO_CODE, np.uint8)
    codes[:, :k] = weights + 1
    packed: NDArray[np.uint8] = np.bitwise_or.reduce(codes.reshape(n, -1, 4) << _SHIFTS, axis=2)
    return packed


def unpack(packed: NDArray[np.uint8], K: int) -> NDArray[np.int8]:
    """Unpack bytes (N, ceil(K/4)) into ternary weights (N, K).

    Raises:
        OperatorError: the array is not uint8 of that shape, K is out of range, or a code is 3.
    """
    _check(0 < K <= K_MAX, "K", K, f"1 to {K_MAX}")
    _check(isinstance(packed, np.ndarray) and packed.dtype == np.uint8, "W", packed, "a uint8 array")
    expected = f"shape (N, {-(-K // 4)}), four codes a byte for K = {K}"
    _check(packed.ndim == 2 and packed.size > 0 and packed.shape[1] == -(-K // 4), "W", packed, expected)
    codes = ((packed[:, :, None] >> _SHIFTS) & 3).reshape(packed.shape[0], -1)
    if (codes == 3).any():
        row, column = np.argwhere(codes == 3)[0]
        raise OperatorError(f"W: found the code 3 at output {row}, input {column}, expected 0, 1 or 2")
    return codes[:, :K].astype(np.int8) - np.int8(1)


def quantize(X: Float, act_qmax: float = 127.0) -> tuple[NDArray[np.int8], Float]:
    """Quantise rows of activations (..., K) to 8 bits, with the size of one step (..., 1): Eqs. (3) to (6).

    A row with a NaN or an infinity becomes zeros with a NaN step.

    Raises:
        OperatorError: `act_qmax` is not a whole number from 1 to 128.
    """
    _check(act_qmax in range(1, 129), "act_qmax", act_qmax, "a whole number from 1 to 128")
    q_max = np.float32(act_qmax)
    finite = np.isfinite(X).all(axis=-1, keepdims=True)
    X = np.where(finite, X, np.float32(0))
    gamma = np.maximum(np.abs(X).max(axis=-1, keepdims=True), GAMMA_FLOOR)
    rounded = np.rint(X * (q_max / gamma))
    low, high = max(-act_qmax - 1, -128), min(act_qmax, 127)
    return np.clip(rounded, low, high).astype(np.int8), np.where(finite, gamma / q_max, np.float32(np.nan))


def ternary_matmul(
    X: Float,
    W: NDArray[np.uint8],
    scale: Float,
    bias: Float | None = None,
    *,
    K: int,
    act_qmax: float = 127.0,
) -> Float:
    """Multiply activations (..., K) by packed weights (N, ceil(K/4)) into (..., N): Eqs. (3) to (8).

    Raises:
        OperatorError: an input has the wrong type, shape or content.
    """
    weights = unpack(W, K)
    n = weights.shape[0]
    for name, array in (("X", X), ("scale", scale)) + ((("bias", bias),) if bias is not None else ()):
        is_float = isinstance(array, np.ndarray | np.float32) and array.dtype == np.float32
        _check(is_float, name, array, "float32")
    _check(X.ndim >= 1 and X.shape[-1] == K, "X", X, f"shape (..., {K})")
    _check(scale.shape in ((), (n,)), "scale", scale, f"shape () or ({n},)")
    _check(bool(np.isfinite(scale).all()), "scale", scale, "finite values")
    _check(bias is None or bias.shape == (n,), "bias", bias, f"shape ({n},)")
    q, step = quantize(X, act_qmax)
    with np.errstate(over="ignore", invalid="ignore"):
        product = _dot(q, weights).astype(np.float32) * (step * scale)
        return product + (np.float32(0) if bias is None else bias)


def _dot(q: NDArray[np.int8], weights: NDArray[np.int8]) -> NDArray[np.int32]:
    """Sum products exactly (Eq. 7): in double precision, because numpy multiplies integer matrices slowly."""
    exact: NDArray[np.float64] = np.matmul(q.astype(np.float64), weights.T.astype(np.float64))
    return exact.astype(np.int32)


def _check(holds: bool, name: str, found: object, expected: str) -> None:
    if holds:
        return
    shown = f"{found.dtype} of shape {found.shape}" if isinstance(found, np.ndarray) else repr(found)
    if isinstance(found, np.ndarray) and found.dtype.kind == "f" and not np.isfinite(found).all():
        shown += f" with the value {found[~np.isfinite(found)].flat[0] if found.ndim else found}"
    raise OperatorError(f"{name}: found {shown}, expected {expected}")
