"""Quantisation-aware linear layers, applied to any network from outside (BitHEP Eqs. (1)-(3))."""

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bitsearch.core.assignment import Assignment
from bitsearch.core.errors import ConfigurationError
from bitsearch.core.precision import Precision
from bitsearch.core.rounding import SMALLEST_SCALE, Rounding, reciprocals
from bitsearch.core.space import Inventory, Layer
from bitsearch.network.convert import convert, declined, reason


def round_rows(
    weight: Tensor, rounding: Rounding = Rounding.PAPER, precision: Precision = Precision.TERNARY
) -> tuple[Tensor, Tensor]:
    """Round `(out_features, in_features)` to codes in {-1, 0, 1}, as floats, and a scale `(out_features,)`.

    With `paper` the scale is one for all, `()`. Bit for bit what `bitsearch.core.rounding.round_rows` gives.
    """
    if rounding is Rounding.OPTIMAL and precision is Precision.TERNARY:
        return _optimal(weight)
    sizes = weight.abs().mean(None if rounding is Rounding.PAPER else 1, dtype=torch.float64)
    scale = sizes.to(weight.dtype)
    if rounding is Rounding.OPTIMAL:
        return torch.where(weight < 0, -1.0, 1.0).to(weight.dtype), scale
    scale = scale.clamp_min(SMALLEST_SCALE)
    if precision is Precision.BINARY:
        center = weight.mean(None if rounding is Rounding.PAPER else 1, dtype=torch.float64).to(weight.dtype)
        return torch.sign(weight - center[..., None]), scale
    return (weight / scale[..., None]).round_().clamp_(-1, 1), scale


def _optimal(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Keep the k largest magnitudes of each row, with k = argmax (Σ₁ᵏ|w|)² / k."""
    rising = weight.abs().neg_()
    # On a processor numpy sorts 5 to 25 times as fast as torch.
    rising = rising.sort(1).values if weight.is_cuda else torch.from_numpy(np.sort(rising.numpy(), axis=1))
    sums = rising.cumsum(1, dtype=torch.float64)
    last = sums.square().mul_(_reciprocals(weight.shape[1], weight.device)).argmax(1, keepdim=True)
    smallest, scale = -rising.gather(1, last), sums.gather(1, last) / -(last + 1)
    # What is smaller never rounds to a quotient of 1. This is half the time of comparing; trunc takes 30 times floor's.
    sizes = (weight.abs() / smallest.masked_fill_(smallest == 0, 1)).floor_().clamp_(max=1)
    codes = sizes.copysign_(weight)
    return codes, scale[:, 0].to(weight.dtype)


@lru_cache(maxsize=64)
def _reciprocals(count: int, device: torch.device) -> Tensor:
    return torch.from_numpy(reciprocals(count)).to(device)


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
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        precision: Precision,
        rounding: Rounding,
        act_qmax: float,
    ) -> Tensor:
        q, gamma = quantize_activations(x, act_qmax)
        codes, scale = round_rows(weight, rounding, precision)
        row = gamma / act_qmax
        ctx.save_for_backward(q, codes, row, scale)
        # Whole numbers up to 127 K stay exact in float32, so this is the operator's integer sum.
        y = (q @ codes.T).mul_(row * scale)
        return y if bias is None else y.add_(bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        q, codes, row, scale = ctx.saved_tensors
        grad_x = None
        if ctx.needs_input_grad[0]:
            # One scale goes to the smaller factor: rows of short layers are many.
            last = scale.ndim == 0 and gradient.numel() < codes.numel()
            grad_x = (gradient @ codes).mul_(scale) if last else gradient @ codes.mul(scale[..., None])
        flat = (gradient * row).reshape(-1, gradient.shape[-1])
        grad_weight = flat.T @ q.reshape(-1, q.shape[-1])
        grad_bias = gradient.reshape(-1, gradient.shape[-1]).sum(0) if ctx.needs_input_grad[2] else None
        return grad_x, grad_weight, grad_bias, None, None, None


class BitLinear(nn.Linear):
    """Drop-in `torch.nn.Linear` with low-bit weights and 8-bit activations; parameters keep their names.

    The forward pass equals the operator `com.bithep::TernaryMatMul` bit for bit. The latent weights stay in
    float and are rounded in every pass as `rounding` says; gradients pass straight through.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        precision: Precision = Precision.TERNARY,
        rounding: Rounding = Rounding.PAPER,
        act_qmax: float = 127.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, out_features, bias, device=device, dtype=dtype)
        self.precision = precision
        self.rounding = rounding
        self.act_qmax = act_qmax

    def forward(self, input: Tensor) -> Tensor:
        """Map `(..., in_features)` to `(..., out_features)`."""
        y: Tensor = _BitLinearFunction.apply(  # type: ignore[no-untyped-call]
            input, self.weight, self.bias, self.precision, self.rounding, self.act_qmax
        )
        return y

    def extra_repr(self) -> str:
        """Describe the layer."""
        return (
            f"{super().extra_repr()}, precision={self.precision}, rounding={self.rounding}, "
            f"act_qmax={self.act_qmax:g}"
        )


def linear_layers(network: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """Yield every layer that can be low-bit with its name, in the order in which the network holds them."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear) and reason(module) is None:
            yield name, module


def apply(
    network: nn.Module,
    assignment: Mapping[str, Precision | str],
    act_qmax: float = 127.0,
    rounding: Mapping[str, Rounding] | None = None,
) -> nn.Module:
    """Give linear layers of `network` their assigned precisions, in place, and return the network.

    An `Assignment` names every layer. Any other mapping may name some, also by patterns such as `{"block.*":
    "ternary"}`; 1x1 convolutions and attentions that it matches count as linear layers (see `convert`). Parameters
    of linear layers are kept as the same tensors, so optimisers and state dicts stay valid. Layers that `rounding`
    does not name round as the paper does.

    Raises:
        ConfigurationError: a name or pattern fits no layer, or an `Assignment` lacks one.
    """
    if Precision.INT8 in map(str, assignment.values()):
        raise ConfigurationError(
            "found precision int8, which onnxruntime has in finished files; expected float32, ternary or binary here"
        )
    if isinstance(assignment, Assignment):
        assignment.require(dict(linear_layers(network)))
    else:
        assignment = _matching(network, assignment)
    kinds = rounding or {}

    def replacement(name: str, linear: nn.Linear) -> nn.Module:
        return _with_precision(linear, assignment[name], kinds.get(name, Rounding.PAPER), act_qmax)

    replace_layers(network, replacement)
    return network


def replace_layers(network: nn.Module, replacement: Callable[[str, nn.Linear], nn.Module]) -> None:
    """Put another module in the place of every linear layer; one that has several names gets one replacement."""
    made: dict[int, nn.Module] = {}
    for name, module in list(network.named_modules(remove_duplicate=False)):
        if isinstance(module, nn.Linear) and reason(module) is None:
            if id(module) not in made:
                made[id(module)] = replacement(name, module)
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, made[id(module)])


def precisions(network: nn.Module) -> Assignment:
    """Give the precision that every linear layer has."""
    return Assignment(
        {name: getattr(layer, "precision", Precision.FLOAT32) for name, layer in linear_layers(network)}
    )


def roundings(network: nn.Module) -> dict[str, Rounding]:
    """Tell how the quantised layers of a network round their weights, by name."""
    return {name: layer.rounding for name, layer in linear_layers(network) if isinstance(layer, BitLinear)}


def _matching(network: nn.Module, patterns: Mapping[str, Precision | str]) -> Assignment:
    """Find what patterns name; say why where that cannot be low-bit."""
    if isinstance(network, nn.Linear):
        raise ConfigurationError("the network is a linear layer itself; expected it inside of a module")
    wanted = Assignment(patterns)
    for name, why in declined(network):
        if name in wanted.quantized:
            raise ConfigurationError(f"{name} stays in float32: {why}")
    return Assignment.matching(wanted, precisions(convert(network)))


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


def _with_precision(
    linear: nn.Linear, precision: Precision, rounding: Rounding, act_qmax: float
) -> nn.Linear:
    sizes = linear.in_features, linear.out_features, linear.bias is not None
    replacement = (
        BitLinear(*sizes, precision=precision, rounding=rounding, act_qmax=act_qmax, device="meta")
        if precision.is_quantized
        else nn.Linear(*sizes, device="meta")
    )
    replacement.weight, replacement.bias = linear.weight, linear.bias
    return replacement.train(linear.training)
