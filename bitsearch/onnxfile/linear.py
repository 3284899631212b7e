"""Linear layers of any ONNX file: nodes that multiply by constant weights, and what exactly they compute."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from bitsearch.onnxfile.graph import STANDARD, Scope, attributes
from bitsearch.onnxfile.products import MICROSOFT
from bitsearch.ops.ternary_matmul.reference import K_MAX

FOLDED = "bitsearch.folded"  # property of nodes that our exporter named after a layer
LAYERS = "bitsearch.layers"  # property of nodes that hold several layers: their names

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Step:
    """A node in front of the layer or behind it, with constant inputs (or names of values) beside the first."""

    op: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[NDArray[Any] | str, ...] = ()


@dataclass(frozen=True)
class LinearNode:
    """`gain · x Wᵀ + bias` with weights `(out_features, in_features)`, between steps that bring axes into place.

    `weights_name` is the value that holds the weights and `orientation` tells apart ways to read it; `addition` is the
    Add that brings the bias. With `heads` above 1 the weights `(heads · out, in)` are cut into one product each along
    the third axis from the end of x, which is split where `split` says so.
    """

    x: str
    weights_name: str
    weight: Array
    orientation: str = ""
    gain: float = 1.0
    bias: Array | None = None
    bias_name: str = ""
    addition: onnx.NodeProto | None = None
    before: tuple[Step, ...] = ()
    after: tuple[Step, ...] = ()
    heads: int = 1
    split: bool = False
    stored_bytes: int = 0


def is_linear(scope: Scope, node: onnx.NodeProto) -> bool:
    """Tell nodes that are, or could be mistaken for, a product with constant weights."""
    kind = _kind(node)
    if kind == "Conv":  # of kernel size 1; those that are larger mix places, too
        dims = _weight_dims(scope, node)
        return dims is not None and len(dims) > 2 and set(dims[2:]) == {1}
    return kind in READERS or kind in DECLINED


def layer_name(scope: Scope, node: onnx.NodeProto) -> str:
    """Name a layer by its node, or by its weights where the node has no name.

    Our exporter writes some layers as a product and an addition, and names the addition.
    """
    for reader in scope.readers(node.output[0]) if node.output else ():
        if reader.op_type in ("Add", "Sum") and any(item.key == FOLDED for item in reader.metadata_props):
            return reader.name
    if node.name:
        return node.name
    constant = (name for name in node.input[1:] if name and scope.constant(name) is not None)
    return next(constant, node.input[1] if len(node.input) > 1 else node.op_type)


def examine(scope: Scope, node: onnx.NodeProto, uses: Counter[tuple[str, str]]) -> LinearNode | str:
    """Read a node; or say why it is no layer that `TernaryMatMul` could stand for."""
    kind = _kind(node)
    if kind in DECLINED:
        return DECLINED[kind]
    if len(node.input) < 2 or not all(node.input[:2]) or not node.output:
        return f"it has inputs {list(node.input)}, expected two or more"
    linear = READERS[kind](scope, node)
    if isinstance(linear, str):
        return linear
    weight = linear.weight
    kind_of_x = weight.dtype
    linear = replace(linear, stored_bytes=linear.stored_bytes or weight.nbytes)
    if weight.ndim != 2 or not weight.size or max(weight.shape) > K_MAX:
        return f"its weights have shape {weight.T.shape}, expected two axes, not empty"
    if kind_of_x != np.float32:
        if str(kind_of_x) not in CASTS:
            return f"its weights are {kind_of_x}, expected float32, float64, float16 or bfloat16"
        with np.errstate(over="ignore"):
            weight = weight.astype(np.float32)
        wide = (Step("Cast", {"to": int(TensorProto.FLOAT)}),)
        back = (Step("Cast", {"to": CASTS[str(kind_of_x)]}),)
        linear = replace(linear, weight=weight, before=linear.before + wide, after=back + linear.after)
    if not np.isfinite(weight).all():
        return "its weights hold NaN or infinity"
    if not np.isfinite(linear.gain):
        return f"its alpha is {linear.gain}, expected a finite number"
    return _with_addition(scope, node, linear, kind_of_x, uses)


CASTS = {
    "float16": int(TensorProto.FLOAT16),
    "bfloat16": int(TensorProto.BFLOAT16),
    "float64": int(TensorProto.DOUBLE),
}
RECURRENT = (
    "its weights act in every step of a recurrence, inside of the operator; "
    "export the network with the recurrence written as a Loop to convert them"
)
EIGHT_BITS = "its weights are quantised to 8 bits already; start from the file they were quantised from"
DECLINED = {
    **dict.fromkeys(("LSTM", "GRU", "RNN", f"{MICROSOFT}::DynamicQuantizeLSTM"), RECURRENT),
    **dict.fromkeys(
        (
            "MatMulInteger",
            "QLinearMatMul",
            f"{MICROSOFT}::DynamicQuantizeMatMul",
            f"{MICROSOFT}::MatMulIntegerToFloat",
        ),
        EIGHT_BITS,
    ),
}


def _kind(node: onnx.NodeProto) -> str:
    return node.op_type if node.domain in STANDARD else f"{node.domain}::{node.op_type}"


def _weight_dims(scope: Scope, node: onnx.NodeProto) -> tuple[int, ...] | None:
    if len(node.input) < 2:
        return None
    dims = scope.dims(node.input[1])
    if dims is None and (found := scope.constant(node.input[1])) is not None:
        dims = found.shape
    return dims


def _constant_factor(scope: Scope, node: onnx.NodeProto) -> NDArray[Any] | str:
    weight = scope.constant(node.input[1])
    if weight is not None:
        return weight
    left = scope.constant(node.input[0]) is not None
    return "its weights are the left factor" if left else "its weights are not constant"


def _gemm(scope: Scope, node: onnx.NodeProto) -> LinearNode | str:
    """Fold alpha into the gain and beta into the bias, or add what is no bias behind."""
    weight = _constant_factor(scope, node)
    if isinstance(weight, str):
        return weight
    given = attributes(node)
    transposed = bool(given.get("transB", 0))
    linear = LinearNode(
        node.input[0],
        node.input[1],
        weight if transposed else weight.T,
        "rows" if transposed else "columns",
        given.get("alpha", 1.0),
        before=(Step("Transpose", {"perm": [1, 0]}),) if given.get("transA", 0) else (),
    )
    beta = given.get("beta", 1.0)
    if len(node.input) < 3 or not node.input[2] or beta == 0:  # a factor 0 drops C, whatever it holds
        return linear
    name = node.input[2]
    found = scope.constant(name)
    if found is not None and found.ndim == 2 and len(found) == 1:
        found = found[0]
    bias = None if found is None else _as_bias(found, len(linear.weight), weight.dtype)
    if bias is not None:
        return replace(linear, bias=bias * np.float32(beta), bias_name=name)
    n = len(linear.weight)
    if found is not None and (found.ndim > 2 or found.shape[-1:] not in ((), (1,), (n,))):
        return f"its bias {name} has shape {found.shape}; expected (rows, {n}) or what broadcasts to it"
    if beta != 1:
        return f"beta scales its bias {name}, which is not constant or no row; expected beta 1"
    return replace(linear, after=(Step("Add", inputs=(name,)),))


def _matmul(scope: Scope, node: onnx.NodeProto) -> LinearNode | str:
    """Take two axes of weights as they are, of three the first for the heads."""
    weight = _constant_factor(scope, node)
    if isinstance(weight, str):
        return weight
    x, name = node.input[:2]
    if weight.ndim != 3:
        return LinearNode(x, name, weight.T, "columns")
    shape = scope.shape(x)
    if shape is None or len(shape) < 2:
        return f"its weights have shape {weight.shape} and its activations {shape or 'unknown rank'}; expected two axes"
    heads, k, n = weight.shape
    if heads == 1:
        at_least_three = np.ones(3, np.int64)  # axes of length 1 where there are none
        after = () if len(shape) > 2 else (Step("Expand", inputs=(at_least_three,)),)
        return LinearNode(x, name, weight[0].T, "columns", after=after)
    split = len(shape) > 2 and shape[-3] != 1
    if split and shape[-3] != heads:
        return (
            f"its {heads} weight matrices meet an axis of activations of size {shape[-3]}, expected {heads}"
        )
    rows = weight.transpose(0, 2, 1).reshape(heads * n, k)
    before = (Step("Unsqueeze", inputs=(np.zeros(1, np.int64),)),) if len(shape) == 2 else ()
    return LinearNode(x, name, rows, "heads", before=before, heads=heads, split=split)


def _fused_matmul(scope: Scope, node: onnx.NodeProto) -> LinearNode | str:
    weight = _constant_factor(scope, node)
    if isinstance(weight, str):
        return weight
    given = attributes(node)
    if given.get("transBatchA", 0) or given.get("transBatchB", 0):
        return "it transposes batches (transBatchA or transBatchB)"
    before: tuple[Step, ...] = ()
    if given.get("transA", 0):
        rank = len(scope.shape(node.input[0]) or ())
        if rank < 2:
            return "it transposes activations of unknown rank (transA = 1); expected shapes in the file"
        before = (Step("Transpose", {"perm": [*range(rank - 2), rank - 1, rank - 2]}),)
    transposed = bool(given.get("transB", 0))
    if transposed and weight.ndim != 2:
        return f"its weights have shape {weight.shape}, expected two axes"
    return LinearNode(
        node.input[0],
        node.input[1],
        weight if transposed else weight.T,
        "rows" if transposed else "columns",
        given.get("alpha", 1.0),
        before=before,
    )


def _conv(scope: Scope, node: onnx.NodeProto) -> LinearNode | str:
    """Take a convolution of kernel size 1 for a linear layer of the channels, which become the last axis."""
    weight = _constant_factor(scope, node)
    if isinstance(weight, str):
        return weight
    given, spatial = attributes(node), weight.ndim - 2
    if given.get("group", 1) != 1:
        return f"it has {given['group']} groups, expected 1"
    if set(given.get("strides", [1])) != {1}:
        return f"it has strides {list(given['strides'])}, expected 1"
    # A kernel of one place needs no padding to keep the size, so automatic padding adds none.
    if any(given.get("pads", [])):
        return f"it pads by {list(given['pads'])}, expected 0"
    last = Step("Transpose", {"perm": [0, *range(2, spatial + 2), 1]})
    first = Step("Transpose", {"perm": [0, spatial + 1, *range(1, spatial + 1)]})
    linear = LinearNode(
        node.input[0],
        node.input[1],
        weight.reshape(weight.shape[:2]),
        "rows",
        before=(last,),
        after=(first,),
    )
    if len(node.input) < 3 or not node.input[2]:
        return linear
    found = scope.constant(node.input[2])
    bias = _as_bias(found, len(weight), weight.dtype)
    if bias is None:
        return "its bias is not constant"
    return replace(linear, bias=bias, bias_name=node.input[2])


def _einsum(scope: Scope, node: onnx.NodeProto) -> LinearNode | str:
    """Bring contracted axes to the end and together, multiply, and take the new axes apart again."""
    weight = _constant_factor(scope, node)
    if isinstance(weight, str):
        return weight
    equation = attributes(node).get("equation", b"").decode().replace(" ", "")
    factors, arrow, out = equation.partition("->")
    x, comma, w = factors.partition(",")
    no_product = f"its equation {equation!r} is no product with a matrix of weights"
    prefix = "..." if x.startswith("...") and out.startswith("...") else ""
    x, out = x.removeprefix(prefix), out.removeprefix(prefix)
    if not (arrow and comma) or not (x + w + out).isalpha() or len(w) != weight.ndim:
        return no_product
    contracted = [label for label in w if label in x]
    new = [label for label in w if label not in x]
    kept = [label for label in x if label not in contracted]
    unique = all(len(set(labels)) == len(labels) for labels in (x, w, out))
    if not (contracted and new and unique) or sorted(kept + new) != sorted(out):
        return no_product
    matrix = weight.transpose([w.index(label) for label in new + contracted])
    sizes, k = matrix.shape[: len(new)], int(np.prod(matrix.shape[len(new) :]))
    before, after = [], []
    arranged, made = kept + contracted, kept + new
    if list(x) != arranged:
        before.append(Step("Transpose", {"perm": [x.index(label) for label in arranged]}))
    keep = [0] * len(kept)
    if len(contracted) > 1:
        before.append(Step("Reshape", inputs=(np.array([*keep, k], np.int64),)))
    if len(new) > 1:
        after.append(Step("Reshape", inputs=(np.array([*keep, *sizes], np.int64),)))
    if list(out) != made:
        after.append(Step("Transpose", {"perm": [made.index(label) for label in out]}))
    if prefix and (before or after):
        return f"its equation {equation!r} moves axes behind an ellipsis; expected every axis by its letter"
    rows = matrix.reshape(-1, k)
    return LinearNode(node.input[0], node.input[1], rows, equation, before=tuple(before), after=tuple(after))


def _matmul_nbits(scope: Scope, node: onnx.NodeProto) -> LinearNode | str:
    weight = dequantize_nbits(scope, node)
    if isinstance(weight, str):
        return weight
    packed = scope.constant(node.input[1])
    stored = 0 if packed is None else packed.nbytes
    linear = LinearNode(node.input[0], node.input[1], weight, "nbits", stored_bytes=stored)
    if len(node.input) < 6 or not node.input[5]:
        return linear
    bias = _as_bias(scope.constant(node.input[5]), len(weight), weight.dtype)
    return "its bias is not constant" if bias is None else replace(linear, bias=bias, bias_name=node.input[5])


def dequantize_nbits(scope: Scope, node: onnx.NodeProto) -> NDArray[Any] | str:
    """Compute the weights `(N, K)` of onnxruntime's MatMulNBits; or say what is missing."""
    given = attributes(node)
    n, k, bits = (int(given.get(name, default)) for name, default in (("N", 0), ("K", 0), ("bits", 4)))
    block = int(given.get("block_size", 0))
    if min(n, k) < 1 or bits not in (2, 4, 8) or block < 1:
        return f"it has N {n}, K {k}, bits {bits}, block_size {block}; expected positive ones, and 2, 4 or 8 bits"
    packed, scales = (
        scope.constant(node.input[1]),
        scope.constant(node.input[2]) if len(node.input) > 2 else None,
    )
    if packed is None or scales is None or (len(node.input) > 4 and node.input[4]):
        return "its weights are not constant, or in an order of their own (g_idx)"
    blocks = -(-k // block)
    codes = _unpack_bits(packed, bits)
    if codes.size < n * blocks * block or scales.size != n * blocks:
        expected = f"{n * blocks * block} and {n * blocks}"
        return f"its weights hold {codes.size} numbers and {scales.size} scales; expected {expected}"
    codes = codes.reshape(n, blocks, -1)[:, :, :block]
    zero: Any = 1 << (bits - 1)
    if len(node.input) > 3 and node.input[3]:
        points = scope.constant(node.input[3])
        if points is None:
            return "its zero points are not constant"
        if points.dtype == np.uint8:
            points = _unpack_bits(points.reshape(n, -1), bits)[:, :blocks]
        zero = points.reshape(n, blocks, 1).astype(np.float32)
    values = (codes.astype(np.float32) - zero) * scales.reshape(n, blocks, 1).astype(np.float32)
    return np.asarray(values.reshape(n, -1)[:, :k].astype(scales.dtype))


def _unpack_bits(packed: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    fields = (packed[..., None] >> shifts) & np.uint8((1 << bits) - 1)
    return np.asarray(fields.reshape(*packed.shape[:-1], -1), np.uint8)


READERS: Mapping[str, Callable[[Scope, onnx.NodeProto], LinearNode | str]] = {
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Conv": _conv,
    "Einsum": _einsum,
    f"{MICROSOFT}::FusedMatMul": _fused_matmul,
    f"{MICROSOFT}::MatMulNBits": _matmul_nbits,
}


def _with_addition(
    scope: Scope,
    node: onnx.NodeProto,
    linear: LinearNode,
    kind: np.dtype[Any],
    uses: Counter[tuple[str, str]],
) -> LinearNode:
    """Take the Add behind for the bias, where it alone reads the product and adds one constant an output."""
    moved = [step for step in linear.after if step.op != "Cast"]
    if linear.bias is not None or moved or linear.heads > 1:
        return linear
    readers: Sequence[onnx.NodeProto] = scope.readers(node.output[0])
    alone = uses[scope.path, node.output[0]] == 1 and len(readers) == 1
    if (
        not alone
        or readers[0].op_type != "Add"
        or readers[0].domain not in STANDARD
        or len(readers[0].input) != 2
    ):
        return linear
    name = readers[0].input[int(readers[0].input[0] == node.output[0])]
    bias = _as_bias(scope.constant(name), len(linear.weight), kind)
    return linear if bias is None else replace(linear, bias=bias, bias_name=name, addition=readers[0])


def _as_bias(array: NDArray[Any] | None, n: int, kind: np.dtype[Any]) -> Array | None:
    """Broadcast a bias to `(n,)`; None where it is none."""
    if array is None or array.dtype != kind or array.shape not in ((), (1,), (n,)):
        return None
    return np.broadcast_to(array, (n,)).astype(np.float32)
