"""Indexing that ONNX Runtime does fast."""

import torch
from torch import Tensor


def select_last(x: Tensor, order: Tensor) -> Tensor:
    """Select entries `(..., len(order))` of the last axis of `(..., n)`.

    ONNX Runtime gathers whole rows fifteen times faster than single numbers of each row, torch does not.
    """
    if not torch.compiler.is_exporting():
        return x.index_select(-1, order)
    rows = x.flatten(0, -2).T.index_select(0, order)
    return rows.T if x.ndim == 2 else rows.T.reshape(*x.shape[:-1], len(order))
