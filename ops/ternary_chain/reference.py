"""The numpy truth of `TernaryChain` and `TernaryNormChain` 2 to 8; equation numbers are those of the README beside."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bitsearch.ops.errors import OperatorError
from bitsearch.ops.monotone_spline.reference import sigmoid
from bitsearch.ops.reproducible.reference import layer_normalization
from bitsearch.ops.ternary_matmul.reference import ternary_matmul

Float = NDArray[np.float32]
Activation = Literal["relu", "leaky-relu", "silu", "gelu"]

LENGTHS = range(2, 9)
_F = np.float32
_GATE_FLOOR = _F(-87)


class Link(NamedTuple):
    """The inputs of one layer: packed weights (N, ceil(K/4)), scale () or (N,), bias (N,), and K.

    `gain` and `shift` (N,) are those of the normalisation behind it; the last layer has none.
    """

    W: NDArray[np.uint8]
    scale: Float
    bias: Float
    K: int
    gain: Float | None = None
    shift: Float | None = None


def ternary_chain(
    X: Float,
    links: Sequence[Link],
    *,
    activation: Activation,
    alpha: float = 0.01,
    act_qmax: float = 127.0,
    epsilon: float = 1e-5,
) -> Float:
    """Send activations (..., K) of the first layer through all layers into (..., N) of the last: Eqs. (1) to (7).

    Raises:
        OperatorError: the number of layers, a layer, an attribute or X has the wrong type, shape or content.
    """
    if len(links) not in LENGTHS:
        raise OperatorError(f"layers: found {len(links)}, expected {LENGTHS[0]} to {LENGTHS[-1]}")
    if activation not in ACTIVATIONS:
        raise OperatorError(
            f"activation: found {activation!r}, expected 'relu', 'leaky-relu', 'silu' or 'gelu'"
        )
    if not np.isfinite(alpha):
        raise OperatorError(f"alpha: found {alpha}, expected a finite number")
    for index, (link, behind) in enumerate(pairwise(links)):
        if link.W.shape[0] != behind.K:
            found, expected = link.W.shape, (behind.K, -(-link.K // 4))
            raise OperatorError(f"W{index}: found shape {found}, expected shape {expected}")
        for role, vector in (("gain", link.gain), ("shift", link.shift)):
            if vector is not None and vector.shape != (behind.K,):
                raise OperatorError(
                    f"{role}{index}: found shape {vector.shape}, expected shape ({behind.K},)"
                )
    if not (np.isfinite(epsilon) and epsilon > 0):
        raise OperatorError(f"epsilon: found {epsilon}, expected a positive number")
    for index, link in enumerate(links):
        X = ternary_matmul(X, link.W, link.scale, link.bias, K=link.K, act_qmax=act_qmax)
        if index + 1 < len(links):
            if link.gain is not None and link.shift is not None:
                X = layer_normalization(X, link.gain, link.shift, epsilon)
            with np.errstate(all="ignore"):
                X = ACTIVATIONS[activation](X, _F(alpha))
    return X


def gate(u: Float) -> Float:
    """Compute the sigmoid, 0 below -87: Eq. (2)."""
    result: Float = np.where(u < _GATE_FLOOR, _F(0), sigmoid(u))
    return result


def _relu(x: Float, alpha: np.float32) -> Float:
    """Eq. (3)."""
    del alpha
    return np.where(x < 0, _F(0), x)


def _leaky_relu(x: Float, alpha: np.float32) -> Float:
    """Eq. (4)."""
    return np.where(x < 0, x * alpha, x)


def _silu(x: Float, alpha: np.float32) -> Float:
    """Eq. (5)."""
    del alpha
    return x * gate(x)


def _gelu(x: Float, alpha: np.float32) -> Float:
    """Eq. (6)."""
    del alpha
    return x * gate((x + ((x * x) * x) * _F(0.044715)) * _F(1.5957691216057308))


ACTIVATIONS: Mapping[str, Callable[[Float, np.float32], Float]] = {
    "relu": _relu,
    "leaky-relu": _leaky_relu,
    "silu": _silu,
    "gelu": _gelu,
}
"""What may stand between layers, by the operator's word for it."""
