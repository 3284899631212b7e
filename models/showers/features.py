"""High-level features of showers, as the CaloChallenge evaluation defines them."""

from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np

from bitsearch.models.showers.files import Events
from bitsearch.models.showers.geometry import Array, Geometry


@dataclass(frozen=True)
class Features:
    """Energies in MeV, `(events,)` or `(events, layers)`; centres and widths in mm, `(events, layers)`.

    The eta and phi columns are those of `Geometry.alpha_layers`, all others those of `Geometry.layers`.
    """

    incident_mev: Array
    total_mev: Array
    layer_mev: Array
    sparsity: Array
    center_eta_mm: Array
    center_phi_mm: Array
    width_eta_mm: Array
    width_phi_mm: Array
    center_r_mm: Array
    width_r_mm: Array

    def __len__(self) -> int:
        return len(self.incident_mev)


def compute(chunks: Iterable[Events], geometry: Geometry) -> Features:
    """Compute the features of all chunks, of `events.chunks()` or `files.iterate(path, geometry)`.

    Voxels below the readout threshold count as 0.
    """
    parts = [_features(chunk.above(geometry.threshold_mev), geometry) for chunk in chunks]
    return Features(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Features)))


def high_level(features: Features) -> Array:
    """Arrange the classifier's input, `(events, columns)`: 30, 46, 362 columns for photons, pions, ds2."""
    f = features
    energies = [np.log10(f.incident_mev), np.log10(f.layer_mev + 1e-8)]
    transverse = [f.center_eta_mm, f.center_phi_mm, f.width_eta_mm, f.width_phi_mm]
    total = np.log10(f.total_mev + 1e-8)
    radial = [f.center_r_mm, f.width_r_mm]
    return np.column_stack(
        [*energies, *(x / 100 for x in transverse), total, f.sparsity, *(x / 100 for x in radial)]
    )


def _features(events: Events, geometry: Geometry) -> Features:
    """Compute the features of one chunk; moments are products with a matrix of voxel positions."""
    by_layer, centers, widths = [], [], []
    for layer in geometry.layers:
        voxels = events.showers_mev[:, layer.span].astype(np.float64)
        energy = voxels.sum(axis=1, keepdims=True)
        positions = np.column_stack([layer.r_mm, layer.eta_mm, layer.phi_mm])
        first, second = ((voxels @ positions**power) / (energy + 1e-16) for power in (1, 2))
        by_layer.append((energy[:, 0], (voxels <= 0).mean(axis=1)))
        centers.append(first)
        widths.append(np.sqrt(np.maximum(second - first**2, 0)))
    alpha = [i for i, layer in enumerate(geometry.layers) if layer.is_binned_in_alpha]
    layer_mev, sparsity = np.stack(by_layer, axis=-1)
    center, width = (np.stack(x, axis=1).transpose(2, 0, 1) for x in (centers, widths))
    return Features(
        incident_mev=events.incident_mev.astype(np.float64),
        total_mev=layer_mev.sum(axis=1),
        layer_mev=layer_mev,
        sparsity=sparsity,
        center_eta_mm=center[1][:, alpha],
        center_phi_mm=center[2][:, alpha],
        width_eta_mm=width[1][:, alpha],
        width_phi_mm=width[2][:, alpha],
        center_r_mm=center[0],
        width_r_mm=width[0],
    )
