"""The quantised layer and how it is applied: the public place of `bitsearch.network.quant`."""

from bitsearch.core.rounding import Rounding
from bitsearch.network.quant import BitLinear, apply

__all__ = ["BitLinear", "Rounding", "apply"]
