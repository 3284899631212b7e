"""Monotone splines on [-bound, bound] and their inverses, one set of parameters for every scalar.

The rational quadratic follows Durkan et al. (2019), the cubic Steffen's interpolation; minimum widths, heights and
slopes are those of the published CaloINN. Functions take arguments inside of the domain.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

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
    position = (x + bound) / (2 * bound)
    (x_k, y_k), (w, h), ends = _Bin.apply(position, theta, bins, inverse)  # type: ignore[no-untyped-call]
    d_0, d_1 = SMALLEST_BIN + functional.softplus(ends)
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
    # Only rounding leaves the bin, so the gradient may pass by: that of clamp takes twenty times this sum.
    xi = xi + (xi.detach().clamp(0.0, 1.0) - xi.detach())
    xi_1 = xi * (1 - xi)
    share = s / (s + curvature * xi_1)
    log_slope = torch.log(share * share * (d_0 + (d_1 - d_0) * xi - curvature * xi_1))
    if inverse:
        return 2 * bound * (x_k + w * xi) - bound, -log_slope
    return 2 * bound * (y_k + w * share * (s * xi * xi + d_0 * xi_1)) - bound, log_slope


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


class _Bin(torch.autograd.Function):
    """Take what the bin of each position has: its corner, its size and the raw slopes at its ends, `(2, ...)` each.

    Autograd would walk over all bins of all coordinates a dozen times; here the bins come first in memory, and
    gradients go from the bin that was taken straight to `theta`. None goes to `position`, which only chooses.
    """

    @staticmethod
    def forward(
        ctx: Any, position: Tensor, theta: Tensor, bins: int, inverse: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        parts = theta.movedim(-1, 0).contiguous()
        logits = parts[: 2 * bins].reshape(2, bins, *parts.shape[1:])
        exponentials = (logits - logits.amax(1, keepdim=True)).exp_()
        scale = (1 - SMALLEST_BIN * bins) / exponentials.sum(1, keepdim=True)
        sizes = exponentials.mul_(scale).add_(SMALLEST_BIN)
        # softplus(edge) + 1e-3 = 1: the slope of the identity outside of the domain.
        edge = math.log(math.expm1(1 - SMALLEST_BIN))
        slopes = functional.pad(parts[2 * bins :].flatten(1), (0, 0, 1, 1), value=edge)
        slopes = slopes.view(-1, *position.shape)
        # Numbers, not booleans: products take a tenth of the time of `where`.
        passed, knot = torch.zeros_like(sizes[0]), sizes[int(inverse), 0]
        for index in range(1, bins):
            torch.ge(position, knot, out=passed[index - 1])
            knot = knot + sizes[int(inverse), index]
        taken = 1 - passed
        taken[1:] -= 1 - passed[:-1]
        corner, size = (sizes * passed).sum(1), (sizes * taken).sum(1)
        ends = torch.stack([(slopes[:-1] * taken).sum(0), (slopes[1:] * taken).sum(0)])
        ctx.save_for_backward(sizes, passed, taken, corner, size)
        return corner, size, ends

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        grad_corner, grad_size, grad_ends = gradients
        sizes, passed, taken, corner, size = ctx.saved_tensors
        bins = len(passed)
        before = corner - SMALLEST_BIN * passed.sum(0)
        mean = (grad_corner * before + grad_size * (size - SMALLEST_BIN)) / (1 - SMALLEST_BIN * bins)
        # A corner is the sum of the sizes before it; a softmax takes the mean away.
        grad = (grad_corner[:, None] * passed).addcmul_(grad_size[:, None], taken).sub_(mean[:, None])
        grad.mul_(sizes - SMALLEST_BIN)
        grad_slopes = taken[1:] * grad_ends[0] + taken[:-1] * grad_ends[1]
        return None, torch.cat([grad.flatten(0, 1), grad_slopes]).movedim(0, -1), None, None


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
        inside = x.detach().abs() <= self.bound
        # As nearly always: choosing would take a tenth of a training step. What is traced holds for any values.
        if not torch.compiler.is_compiling() and inside.all():
            moved, log_slope = spline.transform(x, theta, self.bins, self.bound, inverse)
            return moved, log_slope.sum(1)
        bounded = x.clamp(-self.bound, self.bound)
        moved, log_slope = spline.transform(bounded, theta, self.bins, self.bound, inverse)
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
