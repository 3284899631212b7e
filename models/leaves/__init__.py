"""Modules without weights that an export may write in another form than torch computes them in."""

from bitsearch.models.leaves.indexing import SelectLast
from bitsearch.models.leaves.loops import Fold
from bitsearch.models.leaves.splines import MonotoneSpline, OutOfBounds

__all__ = ["Fold", "MonotoneSpline", "OutOfBounds", "SelectLast"]
