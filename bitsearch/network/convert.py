"""Write what is a matrix product as `nn.Linear`, so that it can be quantised; say of the rest why it cannot.

1x1 convolutions and multi-head attention compute the same afterwards, from the same weights.
"""

import math
from collections.abc import Iterator
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Pointwise(nn.Module):
    """A 1x1 convolution as a linear layer over the channels."""

    def __init__(self, convolution: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> None:
        super().__init__()
        sizes = convolution.in_channels, convolution.out_channels
        self.linear = nn.Linear(*sizes, convolution.bias is not None, device="meta")
        self.linear.weight = nn.Parameter(convolution.weight.detach().flatten(1))
        self.linear.bias = cast(nn.Parameter, convolution.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(batch, in_channels, ...)` to `(batch, out_channels, ...)`."""
        y: Tensor = self.linear(x.movedim(1, -1)).movedim(-1, 1)
        return y


class Attention(nn.Module):
    """`nn.MultiheadAttention` with its projections as linear layers: `in_proj` for Q, K and V, and `out_proj`.

    Arguments and results are those of `nn.MultiheadAttention`, for batched inputs.
    """

    # Layers around it look here whether torch may read the weights past the layers that hold them.
    in_proj_bias = None
    _qkv_same_embed_dim = False

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self.num_heads, self.dropout = attention.num_heads, attention.dropout
        self.batch_first = attention.batch_first
        width, bias = attention.embed_dim, attention.in_proj_bias is not None
        self.in_proj = nn.Linear(width, 3 * width, bias, device="meta")
        self.out_proj = nn.Linear(width, width, bias, device="meta")
        assert attention.in_proj_weight is not None
        self.in_proj.weight, self.in_proj.bias = attention.in_proj_weight, attention.in_proj_bias
        self.out_proj.weight, self.out_proj.bias = attention.out_proj.weight, attention.out_proj.bias

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Map Q, K, V `(batch, tokens, width)` to the attended values, and the weights where asked for."""
        del is_causal  # torch's hint on what `attn_mask` holds
        distinct = {id(x): x for x in (query, key, value)}
        projected = {name: self.in_proj(x) for name, x in distinct.items()}
        parts = [projected[id(x)].chunk(3, -1)[index] for index, x in enumerate((query, key, value))]
        if not self.batch_first:
            parts = [x.transpose(0, 1) for x in parts]
        q, k, v = (x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x in parts)
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        if attn_mask is not None:
            if attn_mask.dim() == 3:
                attn_mask = attn_mask.reshape(-1, self.num_heads, *attn_mask.shape[1:])
            scores = _masked(scores, attn_mask)
        if key_padding_mask is not None:
            scores = _masked(scores, key_padding_mask[:, None, None])
        weights = torch.softmax(scores, -1)
        dropped = nn.functional.dropout(weights, self.dropout, self.training)
        attended = (dropped @ v).transpose(1, 2).flatten(2)
        output: Tensor = self.out_proj(attended if self.batch_first else attended.transpose(0, 1))
        if not need_weights:
            return output, None
        return output, dropped.mean(1) if average_attn_weights else dropped


def convert(network: Network) -> Network:
    """Replace 1x1 convolutions and attentions inside of `network` by linear layers, in place, and return it.

    Names of parameters change (`attention.in_proj_weight` to `attention.in_proj.weight`); the weights of convolutions
    are new parameters: make optimisers afterwards.
    """
    made: dict[int, nn.Module] = {}
    for name, module in list(network.named_modules(remove_duplicate=False)):
        if isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False  # reads weights past the layers that hold them
        if name and reason(module) is None and _is_convertible(module):
            if id(module) not in made:
                made[id(module)] = _converted(module).train(module.training)
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, made[id(module)])
    return network


def declined(network: nn.Module) -> Iterator[tuple[str, str]]:
    """Name the modules with weight matrices that cannot become low-bit layers, each with the reason."""
    for name, module in network.named_modules():
        why = reason(module)
        # A layer of an attention stands there under the attention's name.
        if why is not None and not isinstance(module, nn.modules.linear.NonDynamicallyQuantizableLinear):
            yield name, why


def reason(module: nn.Module) -> str | None:
    """Say why a module's products stay in float32; None for modules with none, and for those that can change."""
    kind = type(module).__name__
    if isinstance(module, nn.Linear):
        return _of_linear(module, kind)
    if isinstance(module, nn.RNNBase | nn.RNNCellBase):
        return f"{kind} applies its weights step by step inside of one operator, which has no low-bit form"
    if isinstance(module, nn.Bilinear):
        return "Bilinear multiplies two activations by its weights"
    if isinstance(module, nn.modules.conv._ConvNd):
        return _of_convolution(module, kind)
    if isinstance(module, nn.MultiheadAttention):
        if type(module) is not nn.MultiheadAttention:
            return f"{kind} is a subclass of MultiheadAttention, whose forward pass is not known"
        if "in_proj_weight" not in dict(module.named_parameters(recurse=False)):
            return "MultiheadAttention with kdim or vdim of their own is not converted"
        if module.bias_k is not None or module.add_zero_attn:
            return "MultiheadAttention with add_bias_kv or add_zero_attn is not converted"
    return None


def _of_linear(linear: nn.Linear, kind: str) -> str | None:
    if isinstance(linear, nn.modules.linear.NonDynamicallyQuantizableLinear):
        return "the attention around it reads its weights past the layer"
    if type(linear).forward is not nn.Linear.forward and not hasattr(linear, "precision"):  # BitLinear has
        return f"{kind} is a linear layer with a forward pass of its own"
    if not isinstance(linear.weight, nn.Parameter):
        return f"the weight of {kind} is computed in every pass, from other parameters"
    if linear.weight.dtype != torch.float32:
        return f"its weight is {linear.weight.dtype}, expected torch.float32"
    return None


def _of_convolution(convolution: nn.modules.conv._ConvNd, kind: str) -> str | None:
    if type(convolution) not in CONVOLUTIONS:
        return f"{kind} is no plain convolution"
    if set(convolution.kernel_size) != {1}:
        return f"{kind} has kernel size {convolution.kernel_size}; only size 1 is a linear layer"
    padded = convolution.padding not in ("valid", "same") and set(convolution.padding) != {0}
    if set(convolution.stride) != {1} or convolution.groups != 1 or padded:
        return f"{kind} has a stride, groups or padding; without them it is a linear layer"
    if not isinstance(convolution.weight, nn.Parameter):
        return f"the weight of {kind} is computed in every pass, from other parameters"
    return None


def _is_convertible(module: nn.Module) -> bool:
    return type(module) in (*CONVOLUTIONS, nn.MultiheadAttention)


def _converted(module: nn.Module) -> nn.Module:
    if isinstance(module, nn.MultiheadAttention):
        return Attention(module)
    assert isinstance(module, CONVOLUTIONS)
    return Pointwise(module)


def _masked(scores: Tensor, mask: Tensor) -> Tensor:
    """Leave out where a boolean mask is true; add a mask of numbers."""
    return scores.masked_fill(mask, -math.inf) if mask.dtype == torch.bool else scores + mask
