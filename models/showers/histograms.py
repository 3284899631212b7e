"""Histograms of generated against reference showers and how far they are apart (CaloChallenge evaluation)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitsearch.core.measurement import Histogram, Profile, Quantity
from bitsearch.models.metrics.separation import separation
from bitsearch.models.showers.features import Features, compute
from bitsearch.models.showers.files import Events, validate
from bitsearch.models.showers.geometry import Array, Geometry, Layer

REPLICAS = 200
NEIGHBOURS = 10


def compare(reference: Events, generated: Events, geometry: Geometry) -> tuple[Histogram, ...]:
    """Fill every histogram of the evaluation from two sets of showers; the counts of events may differ.

    The standard deviation of a separation power is that of 200 bootstrap replicas of both sets.

    Raises:
        DataError: If an energy is NaN, infinite or negative.
    """
    for name, events in (("reference showers", reference), ("generated showers", generated)):
        validate(name, events)
    sets = [compute(events.chunks(), geometry) for events in (reference, generated)]
    return (
        *(_fill(plot, *sets) for plot in _plots(sets[0], geometry)),
        _voxels(reference, generated, geometry),
    )


def profiles(reference: Events, generated: Events, geometry: Geometry) -> tuple[Profile, ...]:
    """Average the energy, its radius and the share of empty voxels layer by layer."""
    sets = [compute(events.chunks(), geometry) for events in (reference, generated)]
    rows = (
        ("layer-energy", "Mean energy [MeV]", "layer_mev"),
        ("layer-radius", "Mean energy-weighted radius [mm]", "center_r_mm"),
        ("layer-sparsity", "Mean share of empty voxels", "sparsity"),
    )
    positions = tuple(float(layer.id) for layer in geometry.layers)
    return tuple(
        Profile(
            name, label, "Layer", positions, *(tuple(getattr(f, field).mean(axis=0).tolist()) for f in sets)
        )
        for name, label, field in rows
    )


@dataclass(frozen=True)
class _Plot:
    """One histogram to fill; `values` picks one entry an event, or fewer."""

    name: str
    label: str
    edges: Array
    values: Callable[[Features], Array]
    logarithmic: bool = False


def _plots(reference: Features, geometry: Geometry) -> Iterator[_Plot]:
    """List the plots with one entry an event; logarithmic ones end at the reference's maximum."""
    yield _Plot("response", "E_tot / E_inc", np.linspace(0.5, 1.5, 101), _response)
    if geometry.particle != "electron":
        yield from (_response_at(k, geometry) for k in range(8, 23))
    for i, layer in enumerate(geometry.layers):
        edges = _logarithmic(geometry.threshold_mev, reference.layer_mev[:, i].max(), 40)
        pick = _column("layer_mev", i)
        yield _Plot(f"energy-layer-{layer.id}", f"Energy in layer {layer.id} [MeV]", edges, pick, True)
    for i, layer in enumerate(geometry.alpha_layers):
        for axis in ("eta", "phi"):
            yield _transverse(layer, i, "center", axis, geometry)
            yield _transverse(layer, i, "width", axis, geometry)
    for i, layer in enumerate(geometry.layers):
        name, label = f"sparsity-layer-{layer.id}", f"Share of empty voxels in layer {layer.id}"
        yield _Plot(name, label, np.linspace(0, 1, 21), _column("sparsity", i))
        yield _transverse(layer, i, "center", "r", geometry)
        yield _transverse(layer, i, "width", "r", geometry)


def _transverse(layer: Layer, column: int, kind: str, axis: str, geometry: Geometry) -> _Plot:
    """Plan the plot of an energy centre or width; ranges are those of the evaluation, in mm."""
    electron, hadronic = geometry.particle == "electron", layer.id in (12, 13, 14)
    if axis == "r":
        high = (42 if kind == "center" else 20) if electron else 1500 if hadronic else 500
    else:
        high = 30 if electron else (500 if kind == "center" else 400) if hadronic else 100
    low = -high if kind == "center" and axis != "r" else 0
    title = {"center": "Energy centre", "width": "Width"}[kind]
    return _Plot(
        f"{kind}-{axis}-layer-{layer.id}",
        f"{title} in {axis}, layer {layer.id} [mm]",
        np.linspace(low, high, 101),
        _column(f"{kind}_{axis}_mm", column),
    )


def _response_at(k: int, geometry: Geometry) -> _Plot:
    """Plan the response of the ds1 showers with 2^k <= E_inc / MeV < 2^(k+1)."""
    low, high = (0.9, 1.1) if geometry.particle == "photon" and k >= 12 else (0.4, 1.4)

    def values(f: Features) -> Array:
        return np.asarray(_response(f)[(f.incident_mev >= 2**k) & (f.incident_mev < 2 ** (k + 1))])

    return _Plot(
        f"response-{2**k}-mev", f"E_tot / E_inc at {energy(2**k)}", np.linspace(low, high, 21), values
    )


def energy(mev: float) -> str:
    """Write an energy in MeV, GeV or TeV, to two digits: 2097152 MeV is 2.1 TeV."""
    for unit, size in (("TeV", 1e6), ("GeV", 1e3)):
        if mev >= size:
            value = mev / size
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    return f"{mev:.0f} MeV"


def _response(f: Features) -> Array:
    return np.asarray(f.total_mev / f.incident_mev)


def _column(field: str, column: int) -> Callable[[Features], Array]:
    def values(f: Features) -> Array:
        return np.asarray(getattr(f, field)[:, column])

    return values


def _logarithmic(low: float, high: float, edges: int) -> Array:
    return np.asarray(np.geomspace(low, max(high, 2 * low), edges))


def _fill(plot: _Plot, reference: Features, generated: Features) -> Histogram:
    counts = [np.histogram(plot.values(f), plot.edges)[0].astype(np.float64) for f in (reference, generated)]
    rng = np.random.default_rng(0)
    replicas = [rng.poisson(c, (REPLICAS, len(c))).astype(np.float64) for c in counts]
    return _histogram(plot.name, plot.label, plot.edges, plot.logarithmic, counts, replicas)


def _voxels(reference: Events, generated: Events, geometry: Geometry) -> Histogram:
    """Fill the spectrum of all voxels; replicas draw whole events, because voxels of a shower are correlated."""
    edges = _logarithmic(geometry.threshold_mev, float(reference.showers_mev.max()), 50)
    rng = np.random.default_rng(0)
    counts, replicas = [], []
    for events in (reference, generated):
        by_event = np.concatenate([_spectrum(chunk.showers_mev, edges) for chunk in events.chunks()])
        counts.append(by_event.sum(axis=0))
        replicas.append(_resample(rng, by_event[np.argsort(events.incident_mev)]))
    return _histogram("voxels", "Voxel energy [MeV]", edges, True, counts, replicas)


def _resample(rng: np.random.Generator, by_event: Array) -> Array:
    """Sum replicas of `by_event` `(events, bins)`, sorted by energy, that put a near neighbour for each event.

    Keeping the spectrum of incident energies matters: resampled freely, it would dominate the spread, although
    both samples have the same one.
    """
    events = len(by_event)
    replicas = []
    for _ in range(REPLICAS):
        picked = np.arange(events) + rng.integers(-NEIGHBOURS, NEIGHBOURS + 1, events)
        weights = np.bincount(np.clip(picked, 0, events - 1), minlength=events).astype(np.float64)
        replicas.append(weights @ by_event)
    return np.stack(replicas)


def _spectrum(showers: NDArray[np.floating], edges: Array) -> Array:
    """Count the voxels of each event in each bin, `(events, bins)`."""
    size = len(edges) - 1
    event, voxel = np.nonzero((showers >= edges[0]) & (showers <= edges[-1]))
    bins = np.minimum(np.searchsorted(edges, showers[event, voxel], side="right") - 1, size - 1)
    counts = np.bincount(event * size + bins, minlength=len(showers) * size)
    return counts.reshape(-1, size).astype(np.float64)


def _histogram(
    name: str, label: str, edges: Array, logarithmic: bool, counts: list[Array], replicas: list[Array]
) -> Histogram:
    spread = float(separation(*replicas).std())
    reference, generated = (tuple(map(float, c)) for c in counts)
    quantity = Quantity(float(separation(*counts)), spread, REPLICAS)
    return Histogram(name, label, tuple(edges.tolist()), reference, generated, quantity, logarithmic)
