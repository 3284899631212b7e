"""The precisions a linear layer can have."""

from enum import StrEnum


class Precision(StrEnum):
    """Number format of a layer's weights; the low-bit formats use 8-bit activations (BitHEP section 2)."""

    FLOAT32 = "float32"
    TERNARY = "ternary"
    BINARY = "binary"

    @property
    def is_quantized(self) -> bool:
        """Whether the layer runs as `TernaryMatMul`."""
        return self is not Precision.FLOAT32
