"""placeholder"""

from collections.abc import Mapping

from torch import Tensor


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """X"""
    return dict(state)
