"""The numpy truth of `com.bithep::SelectColumns`; equation numbers are those of the README beside."""

import numpy as np
from numpy.typing import NDArray

from bitsearch.ops.errors import OperatorError

Float = NDArray[np.float32]


def select_columns(A: Float, C: Float, index: NDArray[np.int64], offset: Float, factor: Float) -> Float:
    """Take columns of A (B, P) and C (B, Q), and shift and scale them, into (B, M): Eq. (1).

    Raises:
        OperatorError: an input has the wrong shape, or an index is none of a column.
    """
    if A.ndim != 2 or C.ndim != 2 or len(A) != len(C):
        raise OperatorError(f"C: found shape {C.shape}, expected two axes, the first as that of A {A.shape}")
    columns = A.shape[1] + C.shape[1]
    for role, vector in (("offset", offset), ("factor", factor)):
        if vector.shape != index.shape or index.ndim != 1:
            raise OperatorError(f"{role}: found shape {vector.shape}, expected {index.shape}, one axis")
    if index.size and (index.min() < 0 or index.max() >= columns):
        raise OperatorError(f"index: found {index.min()} to {index.max()}, expected 0 to {columns - 1}")
    with np.errstate(all="ignore"):
        moved: Float = (np.concatenate([A, C], 1)[:, index] - offset) * factor
    return moved
