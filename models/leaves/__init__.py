"""Modules that an export may write in another form than torch computes them in; they hold no weights."""

from bitsearch.models.leaves.indexing import SelectLast
from bitsearch.models.leaves.loops import Fold
from bitsearch.models.leaves.messages import MessagePassing, Perceptron, Style
from bitsearch.models.leaves.rows import PairByPair, RowByRow
from bitsearch.models.leaves.splines import MonotoneSpline, OutOfBounds

__all__ = [
    "Fold",
    "MessagePassing",
    "MonotoneSpline",
    "OutOfBounds",
    "PairByPair",
    "Perceptron",
    "RowByRow",
    "SelectLast",
    "Style",
]
