"""The product x · (scale · codes)ᵀ + bias in every kernel's operators."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from bitsearch.core.rounding import Codes
from bitsearch.ops import DOMAIN
from bitsearch.ops.ternary_matmul.reference import pack

MICROSOFT = "com.microsoft"
ACT_QMAX = 127.0
PACKED_AT_ONCE = 2**22  # weights
ZERO = 128  # what stands for 0 in unsigned bytes
# Inputs that share a step of the activations; below 32 onnxruntime multiplies in float.
BLOCK_SIZES = (128, 64, 32)
INT8 = 4  # accuracy_level: activations are rounded to 8 bits a block, as TernaryMatMul rounds them a row
ZEROS = 0b01010101  # four codes 1, which stand for 0
ROWS = 4  # onnxruntime 1.31 mixes up outputs of two-bit DequantizeLinear whose number is no multiple of it


class Backend(StrEnum):
    """What multiplies by ternary weights; all but `ternary` are onnxruntime's own and need no library.

    `ternary` is `com.bithep::TernaryMatMul`, `nbits` `com.microsoft::MatMulNBits` of 2 bits, `int2` a DequantizeLinear
    of INT2 (opset 25) in front of a MatMul, `int8` dynamic quantisation, `float32` a MatMul.
    """

    TERNARY = "ternary"
    NBITS = "nbits"
    INT2 = "int2"
    INT8 = "int8"
    FLOAT32 = "float32"


@dataclass(frozen=True)
class Product:
    """What is to be written: whole numbers `(out_features, in_features)` and scales `(out_features,)`, names of others.

    `bias` may be empty. `constant` adds a constant by what it is for and gives its name, `fresh` makes a name that
    nothing has.
    """

    x: str
    codes: Codes
    scale: NDArray[np.float32]
    bias: str
    out: str
    name: str
    constant: Callable[[str, NDArray[Any]], str]
    fresh: Callable[[str], str]

    def write(self, backend: Backend) -> list[onnx.NodeProto]:
        """Give the nodes, the last of which puts the product out; one has the name."""
        nodes: list[onnx.NodeProto] = getattr(self, backend)()
        return nodes

    def ternary(self) -> list[onnx.NodeProto]:
        """Write `com.bithep::TernaryMatMul`."""
        scale = self.scale if self.scale.min() < self.scale.max() else np.asarray(self.scale[0])
        inputs = [self.x, self.constant("packed", _packed(self.codes)), self.constant("scale", scale)]
        settings = {"K": self.codes.shape[1], "act_qmax": ACT_QMAX}
        inputs += [self.bias] if self.bias else []
        return [helper.make_node("TernaryMatMul", inputs, [self.out], self.name, domain=DOMAIN, **settings)]

    def float32(self) -> list[onnx.NodeProto]:
        """Write a MatMul of the same weights; activations are not rounded."""
        weights = np.ascontiguousarray((self.codes * self.scale[:, None]).T, np.float32)
        product = self._before_bias()
        nodes = [
            helper.make_node("MatMul", [self.x, self.constant("float32", weights)], [product], self.name)
        ]
        return nodes + self._add(product)

    def int8(self) -> list[onnx.NodeProto]:
        """Write onnxruntime's dynamic quantisation: activations are rounded to 8 bits with one step for all of them.

        Weights are unsigned: with signed ones processors without VNNI saturate sums of two products.
        """
        weights = self.constant("int8", (self.codes.T.astype(np.int16) + ZERO).astype(np.uint8))
        zero = self.constant("int8.zero", np.array(ZERO, np.uint8))
        steps = self.constant("int8.scale", self.scale)
        q, step, point, total, number, factor = (
            self.fresh(f"{self.out}.{part}") for part in ("q", "step", "point", "sum", "float", "factor")
        )
        product = self._before_bias()
        nodes = [
            helper.make_node("DynamicQuantizeLinear", [self.x], [q, step, point], self._named("quantize")),
            helper.make_node("MatMulInteger", [q, weights, point, zero], [total], self.name),
            helper.make_node("Cast", [total], [number], self._named("cast"), to=int(TensorProto.FLOAT)),
            helper.make_node("Mul", [step, steps], [factor], self._named("steps")),
            helper.make_node("Mul", [number, factor], [product], self._named("scale")),
        ]
        return nodes + self._add(product)

    def nbits(self) -> list[onnx.NodeProto]:
        """Write onnxruntime's `MatMulNBits` of 2 bits with zero point 1, which holds ternary weights without loss."""
        n, k = self.codes.shape
        size, blocks = self._blocks()
        codes = np.full((n, blocks * size // 4), ZEROS, np.uint8)
        packed = _packed(self.codes)
        codes[:, : packed.shape[1]] = packed
        inputs = [
            self.x,
            self.constant("nbits", codes.reshape(n, blocks, -1)),
            self.constant("nbits.scale", np.repeat(self.scale[:, None], blocks, axis=1)),
            self.constant("nbits.zero", np.full((n, -(-blocks // 4)), ZEROS, np.uint8)),
            *(["", self.bias] if self.bias else []),
        ]
        settings = {"K": k, "N": n, "bits": 2, "block_size": size, "accuracy_level": INT8}
        return [helper.make_node("MatMulNBits", inputs, [self.out], self.name, domain=MICROSOFT, **settings)]

    def int2(self) -> list[onnx.NodeProto]:
        """Write opset 25's DequantizeLinear of INT2, which onnxruntime fuses with the MatMul behind it."""
        n = len(self.codes)
        size, blocks = self._blocks()
        more = -n % ROWS
        codes = np.pad(self.codes, ((0, more), (0, 0))).T
        steps = np.repeat(np.pad(self.scale, (0, more))[None], blocks, axis=0)
        kind = helper.tensor_dtype_to_np_dtype(TensorProto.INT2)
        inputs = [
            self.constant("int2", np.ascontiguousarray(codes).astype(kind)),
            self.constant("int2.scale", steps),
        ]
        weights, product = self.fresh(f"{self.out}.weights"), self._before_bias()
        wide = self.fresh(f"{self.out}.wide") if more else product
        nodes = [
            helper.make_node(
                "DequantizeLinear", inputs, [weights], self._named("dequantize"), axis=0, block_size=size
            ),
            helper.make_node("MatMul", [self.x, weights], [wide], self.name),
        ]
        if more:
            limits = [
                self.constant(f"slice.{part}", np.array([value], np.int64))
                for part, value in (("begin", 0), ("end", n), ("axis", -1))
            ]
            nodes.append(helper.make_node("Slice", [wide, *limits], [product], self._named("slice")))
        # onnxruntime would make a Gemm of a MatMul and an Add before it sees the two bits.
        return nodes + self._add(product, "Sum")

    def _blocks(self) -> tuple[int, int]:
        """Give how many inputs share a step, and how many steps an output has."""
        k = self.codes.shape[1]
        size = next((size for size in BLOCK_SIZES if size <= k), BLOCK_SIZES[-1])
        return size, -(-k // size)

    def _before_bias(self) -> str:
        return self.fresh(f"{self.out}.product") if self.bias else self.out

    def _add(self, product: str, operator: str = "Add") -> list[onnx.NodeProto]:
        if not self.bias:
            return []
        return [helper.make_node(operator, [product, self.bias], [self.out], self._named("bias"))]

    def _named(self, part: str) -> str:
        return f"{self.name}/{part}" if self.name else ""


def _packed(codes: Codes) -> NDArray[np.uint8]:
    rows = max(1, PACKED_AT_ONCE // codes.shape[1])
    return np.concatenate([pack(codes[begin : begin + rows]) for begin in range(0, len(codes), rows)])
