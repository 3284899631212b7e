"""Showers on a coarser grid, by summing voxels: for networks that train on a laptop."""

from dataclasses import dataclass

import numpy as np

from bitsearch.models.showers import geometry as geo
from bitsearch.models.showers.files import Events
from bitsearch.models.showers.geometry import Geometry


@dataclass(frozen=True)
class CoarseGeometry(Geometry):
    """Geometry of files of `fine` showers whose voxels are summed when they are read.

    `layers_each` layers and `angles_each` azimuthal bins become one; radial bins start at those of `radii`.
    """

    fine: Geometry
    layers_each: int
    angles_each: int
    radii: tuple[int, ...]

    @property
    def grid(self) -> str:
        """Say how many layers, angles and radii there are."""
        return f"{len(self.layers)} x {self.layers[0].n_alpha} x {self.layers[0].n_r}"

    def merge(self, events: Events) -> Events:
        """Sum the voxels of fine showers."""
        layer = self.fine.layers[0]
        showers = events.showers_mev.reshape(len(events), len(self.fine.layers), layer.n_alpha, layer.n_r)
        showers = np.add.reduceat(showers, self.radii, axis=3)
        blocks = showers.reshape(
            len(events), len(self.layers), self.layers_each, -1, self.angles_each, len(self.radii)
        )
        return Events(events.incident_mev, blocks.sum(axis=(2, 4)).reshape(len(events), self.voxels))


def coarsen(fine: Geometry, layers_each: int, angles_each: int, radii: tuple[int, ...]) -> CoarseGeometry:
    """Lay out the sums of voxels of a geometry whose layers are all alike."""
    layer = fine.layers[0]
    edges = tuple(layer.r_edges_mm[start] for start in (*radii, layer.n_r))
    bins = dict.fromkeys(range(len(fine.layers) // layers_each), (edges, layer.n_alpha // angles_each))
    coarse = geo.build(fine.dataset, fine.particle, bins)
    return CoarseGeometry(
        coarse.dataset, coarse.particle, coarse.layers, fine, layers_each, angles_each, radii
    )
