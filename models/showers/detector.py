"""What the generated particles pass through: the layers' depths in a barrel like ATLAS' and in the disks of ds2.

The barrel's numbers are choices near its layout at eta 0.2, not a survey.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from bitsearch.models.showers.geometry import Array
from bitsearch.models.showers.medium import IRON_POLYSTYRENE, LEAD_ARGON, TUNGSTEN_SILICON, Medium


@dataclass(frozen=True)
class Segment:
    """Material down to a depth in radiation and in interaction lengths.

    `layer` is the id of the readout layer, None for dead material. `mip_gev` is what a minimum-ionising pion
    loses on average, `h_over_e` the relative response to hadrons, `lambda_mm` the interaction length.
    """

    layer: int | None
    medium: Medium
    end_x0: float
    end_lambda: float
    mip_gev: float
    h_over_e: float = 0.60
    lambda_mm: float = 300


BARREL = (
    Segment(None, LEAD_ARGON, 2.0, 0.42, 0.10),
    Segment(0, LEAD_ARGON, 2.2, 0.45, 0.03),
    Segment(1, LEAD_ARGON, 6.0, 0.70, 0.07),
    Segment(2, LEAD_ARGON, 22.0, 1.70, 0.28),
    Segment(3, LEAD_ARGON, 24.0, 1.85, 0.05),
    Segment(None, LEAD_ARGON, 27.0, 2.30, 0.10),
    Segment(12, IRON_POLYSTYRENE, 41.6, 3.80, 0.70, 0.74, 207),
    Segment(13, IRON_POLYSTYRENE, 81.7, 7.90, 1.80, 0.74, 207),
    Segment(14, IRON_POLYSTYRENE, 99.2, 9.70, 0.80, 0.74, 207),
)


@dataclass(frozen=True)
class Stack:
    """Readout layers along an electromagnetic shower: `depth_x0` `(layers, 2)` and the medium of each."""

    depth_x0: Array
    mediums: tuple[Medium, ...]


def _barrel(layers: tuple[int, ...]) -> Stack:
    start = Segment(None, LEAD_ARGON, 0.0, 0.0, 0.0)
    read_out = [(a.end_x0, b.end_x0, b.medium) for a, b in pairwise((start, *BARREL)) if b.layer in layers]
    return Stack(np.array([depths for *depths, _ in read_out]), tuple(medium for *_, medium in read_out))


def _disks(number: int, thickness_mm: float) -> Stack:
    edges = np.arange(number + 1) * thickness_mm / TUNGSTEN_SILICON.x0_mm
    return Stack(np.column_stack([edges[:-1], edges[1:]]), (TUNGSTEN_SILICON,) * number)


STACKS = {"ds1-photon": _barrel((0, 1, 2, 3, 12)), "ds2": _disks(45, 3.4)}
