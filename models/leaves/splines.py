"""Monotone splines on [-bound, bound] and their inverses, one set of parameters for every scalar.

The rational quadratic follows Durkan et al. (2019), the cubic Steffen's interpolation; minimum widths, heights and
slopes are those of the published CaloINN. Functions take arguments inside of the domain.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

OutOfBounds = Literal["event", "scalar"]
SMALLEST_BIN = 1e-3
NEWTON_STEPS = {torch.float32: 8, torch.float64: 10}


class Spline(NamedTuple):
    """A family of splines: `transform(x, theta, bins, bound, inverse)` gives values and log-derivatives."""

    transform: Callable[[Tensor, Tensor, int, float, bool], tuple[Tensor, Tensor]]
    parameters: Callable[[int], int]


def rational_quadratic(
    x: Tensor, theta: Tensor, bins: int, bound: float, inverse: bool
) -> tuple[Tensor, Tensor]:
    """Map `x` of any shape with `theta` of shape `(*x.shape, 3 bins - 1)`; end slopes are one."""
    widths, heights, slopes = torch.split(theta, [bins, bins, bins - 1], -1)
    width, height = _softmax(widths), _softmax(heights)
    left, lower = _knots(width, bins), _knots(height, bins)
    position = (x + bound) / (2 * bound)
    index = _find(position, lower if inverse else left)
    x_k, y_k = _at(left, index), _at(lower, index)
    w, h = _at(width, index), _at(height, index)
    # softplus(edge) + 1e-3 = 1: the slope of the identity outside of the domain.
    edge = torch.log(torch.expm1(torch.tensor(1 - SMALLEST_BIN, dtype=x.dtype))).item()
    slopes = functional.pad(slopes, (1, 1), value=edge)
    d_0 = SMALLEST_BIN + functional.softplus(_at(slopes[..., :-1], index))
    d_1 = SMALLEST_BIN + functional.softplus(_at(slopes[..., 1:], index))
    s = h / w
    curvature = d_0 + d_1 - 2 * s
    if inverse:
        t = position - y_k
        a = t * curvature + h * (s - d_0)
        b = h * d_0 - t * curvature
        c = -s * t
        xi = 2 * c / (-b - torch.sqrt((b * b - 4 * a * c).clamp_min(0.0)))
    else:
        xi = (position - x_k) / w
    xi = xi.clamp(0.0, 1.0)
    xi_1 = xi * (1 - xi)
    denominator = s + curvature * xi_1
    log_slope = (
        2 * torch.log(s)
        + torch.log(d_1 * xi * xi + 2 * s * xi_1 + d_0 * (1 - xi) * (1 - xi))
        - 2 * torch.log(denominator)
    )
    if inverse:
        return 2 * bound * (x_k + w * xi) - bound, -log_slope
    return 2 * bound * (y_k + h * (s * xi * xi + d_0 * xi_1) / denominator) - bound, log_slope


def cubic(x: Tensor, theta: Tensor, bins: int, bound: float, inverse: bool) -> tuple[Tensor, Tensor]:
    """Map `x` of any shape with `theta` of shape `(*x.shape, 2 bins + 2)`; slopes by Steffen's limiter."""
    widths, heights, end_left, end_right = torch.split(theta, [bins, bins, 1, 1], -1)
    width, height = _softmax(widths), _softmax(heights)
    left, lower = _knots(width, bins), _knots(height, bins)
    position = (x + bound) / (2 * bound)
    index = _find(position, lower if inverse else left)
    slope = height / width
    s_0, s_1, w_0, w_1 = slope[..., :-1], slope[..., 1:], width[..., :-1], width[..., 1:]
    inner = 2 * torch.minimum(torch.minimum(s_0, s_1), 0.5 * (w_1 * s_0 + w_0 * s_1) / (w_0 + w_1))
    first = SMALLEST_BIN + torch.sigmoid(end_left) * (3 * slope[..., :1] - 2 * SMALLEST_BIN)
    last = SMALLEST_BIN + torch.sigmoid(end_right) * (3 * slope[..., -1:] - 2 * SMALLEST_BIN)
    derivatives = torch.cat([first, inner, last], -1)
    w, h, s = _at(width, index), _at(height, index), _at(slope, index)
    d_0, d_1 = _at(derivatives[..., :-1], index), _at(derivatives[..., 1:], index)
    # In q = (x - x_k) / w the bin is y_k + h ((a q + b) q + c) q, with coefficients relative to its own slope.
    c = d_0 / s
    a = c + d_1 / s - 2
    b = 3 - 2 * c - d_1 / s
    if inverse:
        q = _solve_cubic((position - _at(lower, index)) / h, a, b, c)
    else:
        q = (position - _at(left, index)) / w
    q = q.clamp(0.0, 1.0)
    log_slope = torch.log(s) + torch.log(((3 * a * q + 2 * b) * q + c).clamp_min(torch.finfo(x.dtype).tiny))
    if inverse:
        return 2 * bound * (_at(left, index) + w * q) - bound, -log_slope
    return 2 * bound * (_at(lower, index) + h * (((a * q + b) * q + c) * q)) - bound, log_slope


SPLINES = {
    "rational-quadratic": Spline(rational_quadratic, lambda bins: 3 * bins - 1),
    "cubic": Spline(cubic, lambda bins: 2 * bins + 2),
}


class MonotoneSpline(nn.Module):
    """Map scalars with a monotone spline each.

    `out_of_bounds` says what stays unchanged when a value leaves [-bound, bound]: that value (`scalar`, the textbook
    rule) or all of its event (`event`, as CaloINN was published).
    """

    def __init__(self, kind: str, bins: int, bound: float, out_of_bounds: OutOfBounds) -> None:
        super().__init__()
        self.kind, self.bins, self.bound, self.out_of_bounds = kind, bins, bound, out_of_bounds

    def forward(self, x: Tensor, theta: Tensor, inverse: bool = False) -> tuple[Tensor, Tensor]:
        """Map `(batch, n)` with `(batch, n x parameters)`; also give the log-determinant `(batch,)`."""
        spline = SPLINES[self.kind]
        theta = theta.reshape(-1, x.shape[1], spline.parameters(self.bins))
        bounded = x.clamp(-self.bound, self.bound)
        moved, log_slope = spline.transform(bounded, theta, self.bins, self.bound, inverse)
        inside = x == bounded
        if self.out_of_bounds == "event":
            inside = inside.all(1, keepdim=True)
        return torch.where(inside, moved, x), torch.where(inside, log_slope, 0.0).sum(1)


def _solve_cubic(target: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Solve ((a q + b) q + c) q = target on [0, 1] by Newton steps that bisect when they leave the bracket.

    Closed forms divide by zero where a = b = 0 or lose digits to cancellation; this cannot produce a NaN.
    """
    low, high, q = torch.zeros_like(target), torch.ones_like(target), target.clamp(0.0, 1.0)
    for _ in range(NEWTON_STEPS[target.dtype]):
        residual = ((a * q + b) * q + c) * q - target
        above = residual > 0
        low, high = torch.where(above, low, q), torch.where(above, q, high)
        slope = ((3 * a * q + 2 * b) * q + c).clamp_min(torch.finfo(target.dtype).tiny)
        step = q - residual / slope
        q = torch.where((step >= low) & (step <= high), step, 0.5 * (low + high))
    return q


def _softmax(logits: Tensor) -> Tensor:
    """Give bin sizes that sum to one; torch's own softmax takes nine times as long over ten neighbours."""
    exponentials = torch.exp(logits - logits.detach().amax(-1, keepdim=True))
    shares = exponentials / exponentials.sum(-1, keepdim=True)
    return SMALLEST_BIN + (1 - SMALLEST_BIN * logits.shape[-1]) * shares


def _knots(sizes: Tensor, bins: int) -> Tensor:
    """Give the left edge of every bin; the first is exactly zero."""
    return functional.pad(torch.cumsum(sizes, -1)[..., : bins - 1], (1, 0))


def _find(position: Tensor, edges: Tensor) -> Tensor:
    """Find each position's bin among left edges."""
    return (position.unsqueeze(-1) >= edges[..., 1:]).sum(-1, keepdim=True)


def _at(values: Tensor, index: Tensor) -> Tensor:
    """Take the value of the bin that `_find` found."""
    return values.gather(-1, index).squeeze(-1)
