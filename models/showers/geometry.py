"""Where the voxels of a shower are: the CaloChallenge binning, from its XML or from the table below."""

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from bitsearch.core.errors import DataError
from bitsearch.models import reading

Array = NDArray[np.float64]
MOST_VOXELS = 10_000_000

_PID = {"photon": 22, "pion": 211, "electron": 11}
# Readout thresholds of the official evaluation; ds2 stores deposits divided by its sampling fraction 0.033.
_THRESHOLD_MEV = {"photon": 1.0, "pion": 1.0, "electron": 0.5e-3 / 0.033}


@dataclass(frozen=True)
class Layer:
    """One readout layer; its voxels are `start:stop` of a shower, azimuth slower, radius faster."""

    id: int
    r_edges_mm: tuple[float, ...]
    n_alpha: int
    start: int

    @property
    def n_r(self) -> int:
        """Number of radial bins."""
        return len(self.r_edges_mm) - 1

    @property
    def voxels(self) -> int:
        """Number of voxels."""
        return self.n_r * self.n_alpha

    @property
    def stop(self) -> int:
        """Index after the last voxel."""
        return self.start + self.voxels

    @property
    def span(self) -> slice:
        """Select this layer's voxels from the last axis of `(events, voxels)`."""
        return slice(self.start, self.stop)

    @property
    def is_binned_in_alpha(self) -> bool:
        """Whether eta and phi of the energy centre can be told."""
        return self.n_alpha > 1

    @cached_property
    def r_mm(self) -> Array:
        """Radii of the voxel centres, `(voxels,)`."""
        edges = np.array(self.r_edges_mm)
        return np.tile((edges[1:] + edges[:-1]) / 2, self.n_alpha)

    @cached_property
    def alpha(self) -> Array:
        """Azimuths of the voxel centres, `(voxels,)`, in (-pi, pi); 0 without azimuthal bins."""
        return np.repeat(-np.pi + (np.arange(self.n_alpha) + 0.5) * 2 * np.pi / self.n_alpha, self.n_r)

    @property
    def eta_mm(self) -> Array:
        """First transverse coordinate of the voxel centres, `(voxels,)`."""
        return self.r_mm * np.cos(self.alpha)

    @property
    def phi_mm(self) -> Array:
        """Second transverse coordinate of the voxel centres, `(voxels,)`."""
        return self.r_mm * np.sin(self.alpha)


@dataclass(frozen=True)
class Geometry:
    """Layers with voxels of one data set, in file order; layers keep the id of the XML."""

    dataset: str
    particle: str
    layers: tuple[Layer, ...]

    @property
    def voxels(self) -> int:
        """Number of voxels of a shower."""
        return self.layers[-1].stop

    @property
    def boundaries(self) -> tuple[int, ...]:
        """Voxel indices where layers start, and the number of voxels at the end."""
        return (*(layer.start for layer in self.layers), self.voxels)

    @property
    def alpha_layers(self) -> tuple[Layer, ...]:
        """Layers binned in azimuth."""
        return tuple(layer for layer in self.layers if layer.is_binned_in_alpha)

    @property
    def threshold_mev(self) -> float:
        """Readout threshold: the evaluation sets smaller voxels to 0."""
        return _THRESHOLD_MEV[self.particle]


def build(dataset: str, particle: str, bins: Mapping[int, tuple[tuple[float, ...], int]]) -> Geometry:
    """Lay out the layers {id: (radial edges in mm, azimuthal bins)} one after the other.

    Raises:
        DataError: For an unknown particle, no layers, or edges or bin counts that make no voxels.
    """
    if particle not in _PID:
        raise DataError(f"{dataset}: particle {particle!r} is unknown; expected one of {', '.join(_PID)}")
    if not bins:
        raise DataError(
            f"{dataset}: no layer has voxels; expected at least one with two radial edges or more"
        )
    layers: list[Layer] = []
    for id_, (edges, n_alpha) in bins.items():
        if edges[0] < 0 or not all(low < high < np.inf for low, high in pairwise(edges)):
            raise DataError(
                f"{dataset}: layer {id_} has r_edges {edges[:5]}; expected finite increasing numbers"
            )
        if n_alpha < 1:
            raise DataError(f"{dataset}: layer {id_} has n_bin_alpha {n_alpha}; expected 1 or more")
        layers.append(Layer(id_, edges, n_alpha, layers[-1].stop if layers else 0))
        if layers[-1].stop > MOST_VOXELS:
            raise DataError(
                f"{dataset}: layer {id_} has {n_alpha:,} x {len(edges) - 1:,} voxels; "
                f"expected at most {MOST_VOXELS:,} in all layers"
            )
    return Geometry(dataset, particle, tuple(layers))


def read_binning(path: str | Path, particle: str) -> Geometry:
    """Read one particle's layers from a CaloChallenge binning XML; a known layout gets its data set's name.

    Raises:
        DataError: If the file is missing, is no binning XML or does not hold `particle`.
    """
    path = Path(path)
    with reading.opened(path, "XML", "a CaloChallenge binning XML"):
        try:
            root = ET.parse(path).getroot()
        except (ET.ParseError, LookupError, ValueError) as error:
            raise DataError(f"{path}: is not XML ({error}); expected a CaloChallenge binning file") from error
    found = {item.get("name"): item for item in root.iter("Bin")}
    if particle not in found:
        names = ", ".join(str(name) for name in found) or "no Bin element"
        raise DataError(f"{path}: has no particle {particle!r}; found {names}")
    bins = {}
    for item in found[particle].iter("Layer"):
        try:
            id_, n_alpha = int(item.attrib["id"]), int(item.attrib["n_bin_alpha"])
            edges = tuple(float(edge) for edge in item.attrib["r_edges"].split(","))
        except (KeyError, ValueError) as error:
            raise DataError(
                f"{path}: Layer {dict(item.attrib)} cannot be read ({error!r}); expected integers id and "
                "n_bin_alpha and comma-separated numbers r_edges"
            ) from error
        if id_ in bins:
            raise DataError(f"{path}: layer {id_} stands there twice; expected each layer once")
        if len(edges) > 1:
            bins[id_] = edges, n_alpha
    geometry = build(path.stem, particle, bins)
    return next((known for known in GEOMETRIES.values() if known.layers == geometry.layers), geometry)


def write_binning(path: str | Path, geometry: Geometry) -> None:
    """Write `geometry` as a CaloChallenge binning XML; ids without voxels get the single edge 0."""
    root = ET.Element("Bins")
    parent = ET.SubElement(root, "Bin", pid=str(_PID[geometry.particle]), name=geometry.particle)
    by_id = {layer.id: layer for layer in geometry.layers}
    for id_ in range(24 if geometry.dataset.startswith("ds1") else max(by_id) + 1):
        layer = by_id.get(id_, Layer(id_, (0.0,), 1, 0))
        edges = ",".join(f"{edge:.12g}" for edge in layer.r_edges_mm)
        ET.SubElement(parent, "Layer", id=str(id_), r_edges=edges, n_bin_alpha=str(layer.n_alpha))
    ET.indent(root)
    ET.ElementTree(root).write(path, encoding="unicode")


def embedded(dataset: str) -> Geometry:
    """Give an embedded geometry by name.

    Raises:
        DataError: For a name that is not embedded.
    """
    if dataset not in GEOMETRIES:
        raise DataError(f"data set {dataset!r} is unknown; expected one of {', '.join(GEOMETRIES)}")
    return GEOMETRIES[dataset]


def _table(dataset: str, particle: str, rows: dict[int, tuple[str, int]]) -> Geometry:
    bins = {id_: (tuple(map(float, edges.split())), n_alpha) for id_, (edges, n_alpha) in rows.items()}
    return build(dataset, particle, bins)


# Bin edges of the challenge's public binning files; ids 0 to 3 are the presampler and the three layers of the
# electromagnetic barrel of ATLAS, 12 to 14 its Tile barrel.
_PHOTON = {
    0: ("0 5 10 30 50 100 200 400 600", 1),
    1: ("0 2 4 6 8 10 12 15 20 30 40 50 70 90 120 150 200", 10),
    2: ("0 2 5 10 15 20 25 30 40 50 60 80 100 130 160 200 250 300 350 400", 10),
    3: ("0 50 100 200 400 600", 1),
    12: ("0 100 200 400 1000 2000", 1),
}
_PION = {
    0: ("0 5 10 30 50 100 200 400 600", 1),
    1: ("0 1 4 7 10 15 30 50 90 150 200", 10),
    2: ("0 5 10 20 30 50 80 130 200 300 400", 10),
    3: ("0 50 100 200 400 600", 1),
    12: ("0 10 20 30 50 80 100 130 160 200 250 300 350 400 1000 2000", 10),
    13: ("0 10 20 30 50 80 100 130 160 200 250 300 350 400 600 1000 2000", 10),
    14: ("0 50 100 150 200 250 300 400 600 1000 2000", 1),
}
_ELECTRON = dict.fromkeys(range(45), ("0 4.65 9.3 13.95 18.6 23.25 27.9 32.55 37.2 41.85", 16))

GEOMETRIES: Mapping[str, Geometry] = MappingProxyType(
    {
        "ds1-photon": _table("ds1-photon", "photon", _PHOTON),
        "ds1-pion": _table("ds1-pion", "pion", _PION),
        "ds2": _table("ds2", "electron", _ELECTRON),
    }
)
