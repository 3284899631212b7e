"""The numpy truth of `MessagePassing`, operation for operation as README.md numbers them."""

from dataclasses import dataclass

import numpy as np

from bitsearch.ops.errors import OperatorError
from bitsearch.ops.ternary_matmul.reference import Float, quantize

PARTIALS = 16
SMALLEST_WEIGHT = np.float32(1e-12)


@dataclass(frozen=True)
class MessageLayer:
    """A linear layer with weights `(N, K)`, scale and bias `(N,)`; a float one where `act_qmax` is 0."""

    weight: Float
    scale: Float
    bias: Float
    act_qmax: float = 0.0

    def __call__(self, rows: Float) -> Float:
        """Map `(..., K)` to `(..., N)`: Eqs. (32) and (33)."""
        step = np.ones((*rows.shape[:-1], 1), np.float32)
        if self.act_qmax:
            codes, step = quantize(rows, self.act_qmax)
            rows = codes.astype(np.float32)
        total = np.zeros((*rows.shape[:-1], len(self.weight)), np.float32)
        for x, column in zip(np.moveaxis(rows, -1, 0), self.weight.T, strict=True):
            total = total + x[..., None] * column
        result: Float = total * (step * self.scale) + self.bias
        return result


def message_passing(
    pt: Float,
    features: Float,
    position: Float,
    first: MessageLayer,
    second: MessageLayer,
    *,
    squared_radius: float,
    weighted: bool,
    slope: float,
) -> Float:
    """Average what particles `(B, P)` with features `(B, P, F)` and positions `(B, P, 2)` tell each other.

    Gives `(B, P, N)`, N the outputs of the second layer.

    Raises:
        OperatorError: shapes disagree.
    """
    jets = pt.shape
    for name, found, expected in (
        ("pt", pt.shape, jets[:2]),
        ("features", features.shape[:-1], jets),
        ("position", position.shape, (*jets, 2)),
        ("W1", first.weight.shape[1:], (3 * features.shape[-1] + 2,)),
        ("W2", second.weight.shape[1:], first.bias.shape),
    ):
        if found != expected or len(jets) != 2:
            raise OperatorError(f"{name}: found shape {found}, expected {expected}")
    with np.errstate(all="ignore"):
        edge = _edges(pt, position, np.float32(squared_radius))
        weight = np.where(edge, pt[:, None] if weighted else np.float32(1), np.float32(0))
        share = weight / np.maximum(_sum(weight), SMALLEST_WEIGHT)[..., None]
        hidden = first(_rows(features, position))
        hidden = np.where(hidden > 0, hidden, hidden * np.float32(slope))
        parts = second(hidden) * share[..., None]
        return _sum(np.where((weight != 0)[..., None], parts, np.float32(0)))


def _edges(
    pt: Float, position: Float, squared_radius: np.float32
) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Tell which j `(B, i, j)` are near i: Eq. (28)."""
    difference = position[:, :, None] - position[:, None]
    squared = difference[..., 0] * difference[..., 0] + difference[..., 1] * difference[..., 1]
    near: np.ndarray[tuple[int, ...], np.dtype[np.bool_]] = (
        (pt[:, :, None] != 0) & (pt[:, None] != 0) & (squared <= squared_radius)
    )
    return near


def _rows(features: Float, position: Float) -> Float:
    """Give what the message of j to i is computed from, `(B, i, j, 3F + 2)`: Eqs. (30) and (31)."""
    x, y = position[..., 0], position[..., 1]
    squared = x * x + y * y
    length = np.sqrt(np.where(squared == 0, np.float32(1), squared))
    cos, sin = x / length, y / length
    pairs = (*features.shape[:2], *features.shape[1:])
    own = np.broadcast_to(features[:, :, None], pairs)
    other = np.broadcast_to(features[:, None], pairs)
    turn = (
        cos[:, :, None] * cos[:, None] + sin[:, :, None] * sin[:, None],
        sin[:, :, None] * cos[:, None] - cos[:, :, None] * sin[:, None],
    )
    return np.concatenate([own, other, other - own, np.stack(turn, -1)], -1)


def _sum(values: Float) -> Float:
    """Sum over j, `(B, i, j, ...)`: Eq. (35)."""
    partial = np.zeros((*values.shape[:2], PARTIALS, *values.shape[3:]), np.float32)
    for j in range(values.shape[2]):
        partial[:, :, j % PARTIALS] += values[:, :, j]
    while partial.shape[2] > 1:
        half = partial.shape[2] // 2
        partial = partial[:, :, :half] + partial[:, :, half:]
    total: Float = partial[:, :, 0]
    return total
