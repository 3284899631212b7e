"""Quantisation-aware linear layers, applied to any network from outside (BitHEP Eqs. (1)-(3))."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from bitsearch.core.assignment import Assignment
from bitsearch.core.precision import Precision
from bitsearch.core.space import Inventory, Layer

SMALLEST_SCALE = 1e-8


def quantize_weight(weight: Tensor, precision: Precision = Precision.TERNARY) -> tuple[Tensor, Tensor]:
    """Round a weight matrix `(out_features, in_features)` to codes in {-1, 0, 1} and one scale β.

    Ternary: β = mean|W|, codes = clip(round(W/β)), half to even. Binary: codes = sign(W - mean W), same β.
    """
    scale = weight.abs().mean().clamp_min(SMALLEST_SCALE)
    if precision is Precision.BINARY:
        return torch.sign(weight - weight.mean()), scale
    return (weight / scale).round_().clamp_(-1, 1), scale


def quantize_activations(x: Tensor, act_qmax: float = 127.0) -> tuple[Tensor, Tensor]:
    """Round every row of `(..., in_features)` to whole numbers; give them and its largest magnitude `(..., 1)`."""
    gamma = x.abs().amax(-1, keepdim=True).clamp_min(SMALLEST_SCALE)
    # A tensor, not a number: torch would multiply a number by the rounded reciprocal, unlike the operator.
    q = (x * (gamma.new_full((), act_qmax) / gamma)).round_()
    # With Q = 127 no product exceeds 127 (1 + 2^-23), which rounds into the range: nothing is left to clip.
    return (q if act_qmax == 127.0 else q.clamp_(max(-128.0, -act_qmax - 1), min(127.0, act_qmax))), gamma


class _BitLinearFunction(torch.autograd.Function):
    """Quantised product with straight-through gradients: each gradient uses the other, quantised, factor."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, precision: Precision, act_qmax: float
    ) -> Tensor:
        q, gamma = quantize_activations(x, act_qmax)
        codes, scale = quantize_weight(weight, precision)
        row = gamma / act_qmax
        ctx.save_for_backward(q, codes, row, scale)
        # Whole numbers up to 127 K stay exact in float32, so this is the operator's integer sum.
        y = (q @ codes.T).mul_(row * scale)
        return y if bias is None else y.add_(bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None, None, None]:
        (gradient,) = gradients
        q, codes, row, scale = ctx.saved_tensors
        grad_x = (gradient @ codes).mul_(scale) if ctx.needs_input_grad[0] else None
        flat = (gradient * row).reshape(-1, gradient.shape[-1])
        grad_weight = flat.T @ q.reshape(-1, q.shape[-1])
        grad_bias = gradient.reshape(-1, gradient.shape[-1]).sum(0) if ctx.needs_input_grad[2] else None
        return grad_x, grad_weight, grad_bias, None, None


class BitLinear(nn.Linear):
    """Drop-in `torch.nn.Linear` with low-bit weights and 8-bit activations; parameters keep their names.

    The forward pass equals the operator `com.bithep::TernaryMatMul` bit for bit. The latent weights stay in
    float and are rounded in every pass; gradients pass straight through the rounding.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        precision: Precision = Precision.TERNARY,
        act_qmax: float = 127.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, out_features, bias, device=device, dtype=dtype)
        self.precision = precision
        self.act_qmax = act_qmax

    def forward(self, input: Tensor) -> Tensor:
        """Map `(..., in_features)` to `(..., out_features)`."""
        y: Tensor = _BitLinearFunction.apply(  # type: ignore[no-untyped-call]
            input, self.weight, self.bias, self.precision, self.act_qmax
        )
        return y

    def extra_repr(self) -> str:
        """Describe the layer."""
        return f"{super().extra_repr()}, precision={self.precision}, act_qmax={self.act_qmax:g}"


def linear_layers(network: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """Yield every linear layer with its name, in the order in which the network holds them."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear):
            yield name, module


def apply(network: nn.Module, assignment: Assignment, act_qmax: float = 127.0) -> nn.Module:
    """Give every linear layer of `network` its assigned precision, in place, and return the network.

    Parameters are kept as the same tensors, so optimisers and state dicts stay valid.

    Raises:
        ConfigurationError: the assignment does not name exactly the network's linear layers.
    """
    layers = dict(linear_layers(network))
    assignment.require(layers)
    for name, linear in layers.items():
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, _with_precision(linear, assignment[name], act_qmax))
    return network


def inventory(network: nn.Module) -> Inventory:
    """List the linear layers of a network (which may lie on the meta device) and count its parameters.

    A network names the submodules that its forward pass never calls in an attribute `never_run`.
    """
    idle = tuple(f"{name}." for name in getattr(network, "never_run", ()))
    layers = tuple(
        Layer(
            name,
            linear.out_features,
            linear.in_features,
            linear.bias is not None,
            not f"{name}.".startswith(idle),
        )
        for name, linear in linear_layers(network)
    )
    counts = {name: p.numel() for name, p in network.named_parameters() if p.requires_grad}
    executed = sum(count for name, count in counts.items() if not name.startswith(idle))
    return Inventory(layers, sum(counts.values()), executed)


def _with_precision(linear: nn.Linear, precision: Precision, act_qmax: float) -> nn.Linear:
    sizes = linear.in_features, linear.out_features, linear.bias is not None
    replacement = (
        BitLinear(*sizes, precision=precision, act_qmax=act_qmax, device="meta")
        if precision.is_quantized
        else nn.Linear(*sizes, device="meta")
    )
    replacement.weight, replacement.bias = linear.weight, linear.bias
    return replacement.train(linear.training)
