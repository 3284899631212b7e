"""The precisions a linear layer can have."""

from enum import StrEnum


class Precision(StrEnum):
    """Number format of a layer's weights; the low-bit formats use 8-bit activations (BitHEP section 2).

    `int8` is onnxruntime's own: 8-bit weights and activations in a finished file, which nothing trains with.
    """

    FLOAT32 = "float32"
    TERNARY = "ternary"
    BINARY = "binary"
    INT8 = "int8"

    @property
    def is_quantized(self) -> bool:
        """Whether the layer runs as `TernaryMatMul`."""
        return self in (Precision.TERNARY, Precision.BINARY)

    @property
    def bits(self) -> int:
        """Bits that a weight takes in a file."""
        return {Precision.FLOAT32: 32, Precision.INT8: 8}.get(self, 2)
