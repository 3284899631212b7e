"""Print how generated shower files fare against their acceptance list, one data set after the other.

    .venv/bin/python benchmarks/shower_acceptance.py [--events 20000] [--repetitions 5] [DATASET ...]
    .venv/bin/python benchmarks/shower_acceptance.py --resolution

A training and a reference file are made in a temporary folder, and samples with deliberate flaws that the
classifier test has to see. Classifiers follow the fast protocol, with all events. `--resolution` shows instead what
the fast protocol at its own size makes of photon samples with flaws of growing size.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from numpy.random import Generator, default_rng

from bitsearch.models.showers import electromagnetic, files, generator, hadronic
from bitsearch.models.showers.classifier import FAST, Level, Protocol, score
from bitsearch.models.showers.detector import STACKS, Stack
from bitsearch.models.showers.electromagnetic import Radial
from bitsearch.models.showers.features import compute
from bitsearch.models.showers.files import Events
from bitsearch.models.showers.geometry import GEOMETRIES, Array, Geometry, Layer, embedded
from bitsearch.models.showers.medium import TUNGSTEN_SILICON

SEED = 2024


def main() -> None:
    """Print every item for every data set."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("datasets", nargs="*", metavar="DATASET")
    parser.add_argument("--events", type=int, default=generator.DEFAULT_EVENTS)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--resolution", action="store_true")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"Generator version {generator.VERSION}, {arguments.events} events a file, seed {SEED}")
    if arguments.resolution:
        resolution(embedded("ds1-photon"), arguments.events, arguments.repetitions)
        return
    formulas()
    for dataset in arguments.datasets or GEOMETRIES:
        with tempfile.TemporaryDirectory() as folder:
            accept(embedded(dataset), arguments.events, arguments.repetitions, Path(folder))


def accept(geometry: Geometry, events: int, repetitions: int, folder: Path) -> None:
    """Print the items of one data set."""
    dataset = geometry.dataset
    print(f"\n{dataset}")
    start = time.process_time()
    paths = [generator.make(dataset, events, SEED, folder / f"{role}.h5", role) for role in generator.ROLES]
    seconds = time.process_time() - start
    summary, size = files.check(paths[1]), paths[1].stat().st_size / 1e6
    print(
        f"1. valid: {summary.events} x {summary.voxels} {summary.dtype}; {size:.0f} MB; 2 files in {seconds:.1f} CPU s"
    )
    train, reference = (files.read(path, geometry) for path in paths)
    classify("2. independent file", reference, train, geometry, repetitions)
    conservation(reference, geometry)
    for flaw, how in FLAWS[dataset].items():
        with how.context():
            flawed = sample(dataset, events, how.stack)
        classify(f"4. {flaw}", reference, flawed, geometry, repetitions)
    statistics(reference, geometry)


def formulas() -> None:
    """Compare mean layer energies and depths with P(alpha, beta t), in layers of ds2's depths without edges."""
    print("3. layer means against the formulas in 4000 showers: pulls and mean depth")
    layers = tuple(Layer(i, (0.0, 1e9), 1, i) for i in range(45))
    near, far = STACKS["ds2"].depth_x0.T[:, None, :]
    centers = (near + far)[0] / 2
    for energy_gev in (0.5, 5.0, 50.0, 500.0):
        energy = np.full(4000, energy_gev)
        shape = electromagnetic.draw_shape(default_rng(SEED), energy, TUNGSTEN_SILICON)
        expected = energy_gev * shape.energy().fractions(near, far)
        found = electromagnetic.shower(default_rng(SEED), energy, np.zeros(4000), layers, STACKS["ds2"])
        filled = expected.mean(axis=0) > 1e-3 * energy_gev
        difference = (found - expected)[:, filled]
        pull = difference.mean(axis=0) / difference.std(axis=0) * np.sqrt(4000)
        depth = [np.average(centers, weights=x.mean(axis=0)) for x in (found, expected)]
        print(
            f"   {energy_gev} GeV: largest pull {np.abs(pull).max():.1f}, rms {np.sqrt((pull**2).mean()):.2f} "
            f"in {len(pull)} layers; depth {depth[0]:.3f} X0, formula {depth[1]:.3f} X0"
        )


def conservation(events: Events, geometry: Geometry) -> None:
    """Print whether layer energies sum to the total and the lowest voxel is not negative."""
    f = compute(events.chunks(), geometry)
    total = events.showers_mev.sum(axis=1, dtype=np.float64)
    worst = np.max(np.abs(f.layer_mev.sum(axis=1) - total) / np.maximum(total, 1))
    print(f"3. |sum of E_l - E_tot| / E_tot at most {worst:.0e}; lowest voxel {events.showers_mev.min()} MeV")


def resolution(geometry: Geometry, events: int, repetitions: int) -> None:
    """Print the fast protocol's AUCs of samples that differ more and more."""
    reference = sample(geometry.dataset, events, seed=1)
    for percent in (0, 5, 10, 20):
        other = sample(geometry.dataset, events, widened(geometry.dataset, 1 + percent / 100), seed=2)
        classify(f"sampling term + {percent} %", reference, other, geometry, repetitions, FAST)
    for percent in (10, 20, 30):
        other = smear(sample(geometry.dataset, events, seed=2), geometry, percent / 100)
        classify(
            f"voxels smeared by {percent} % within layers", reference, other, geometry, repetitions, FAST
        )


def smear(events: Events, geometry: Geometry, width: float) -> Events:
    """Multiply voxels by log-normal factors and restore the energy of each layer."""
    factors = np.exp(width * default_rng(SEED).standard_normal(events.showers_mev.shape))
    showers = events.showers_mev * factors
    for layer in geometry.layers:
        before, after = (x[:, layer.span].sum(axis=1, keepdims=True) for x in (events.showers_mev, showers))
        showers[:, layer.span] *= before / np.maximum(after, 1e-9)
    return Events(events.incident_mev, showers)


def classify(
    what: str,
    reference: Events,
    other: Events,
    geometry: Geometry,
    repetitions: int,
    protocol: Protocol | None = None,
) -> None:
    """Print both AUCs, by default of classifiers that use all events."""
    protocol = protocol or replace(FAST, events=len(reference))
    levels: tuple[Level, ...] = ("low", "high")
    for level in levels:
        start = time.process_time()
        result = score(reference, other, geometry, level, protocol, repetitions)
        seconds = (time.process_time() - start) / repetitions
        split = "/".join(map(str, result.split))
        print(
            f"{what}: {level}-level AUC {result.auc.value:.4f} +- {result.auc.std:.4f} "
            f"({repetitions} times {split} events a class, {seconds:.0f} CPU s each)",
            flush=True,
        )


def statistics(events: Events, geometry: Geometry) -> None:
    """Print the response by energy, the sparsity by layer, voxel quantiles and the share of zero voxels."""
    f = compute(events.chunks(), geometry)
    response = f.total_mev / f.incident_mev
    step = np.log(10) / 2 if geometry.particle == "electron" else np.log(2)
    group = np.floor(np.log(f.incident_mev / f.incident_mev.min()) / step + 1e-9)
    print("5. E_inc from (GeV), events, mean and relative width of E_tot/E_inc, share of zero voxels")
    for g in np.unique(group):
        rows = group == g
        mean, width = response[rows].mean(), response[rows].std()
        zero = (events.showers_mev[rows] == 0).mean()
        low = f.incident_mev[rows].min() / 1e3
        print(f"   {low:9.3f} {rows.sum():6d} {mean:7.3f} {width / mean:7.3f} {zero:7.3f}")
    voxels = events.showers_mev[events.showers_mev > 0]
    shares = ", ".join(
        f"{layer.id}: {s:.3f}" for layer, s in zip(geometry.layers, f.sparsity.mean(axis=0), strict=True)
    )
    quantiles = ", ".join(f"{q:.3g}" for q in np.quantile(voxels, (0.01, 0.1, 0.5, 0.9, 0.99)))
    print(f"5. share of zero voxels by layer: {shares}")
    print(f"5. quantiles 1, 10, 50, 90, 99 % of voxels above zero: {quantiles} MeV")
    print(f"6. share of zero voxels: {(events.showers_mev == 0).mean():.4f}")


def sample(dataset: str, events: int, stack: Stack | None = None, seed: int = SEED) -> Events:
    """Draw showers into memory."""
    incident = generator.incident_energies(dataset, events, seed, "flawed")
    dtype = np.float32 if dataset == "ds2" else np.float64
    parts = [
        generator.simulate(
            default_rng([seed, i]), dataset, incident[i : i + files.CHUNK], stack
        ).showers_mev.astype(dtype)
        for i in range(0, events, files.CHUNK)
    ]
    return Events(incident, np.concatenate(parts))


def widened(dataset: str, factor: float) -> Stack:
    """Multiply the sampling term of all mediums."""
    stack = STACKS[dataset]
    mediums = tuple(replace(medium, sampling=factor * medium.sampling) for medium in stack.mediums)
    return replace(stack, mediums=mediums)


def mean_shares(rng: Generator, spots: Array, layer: Layer, lateral: Radial, axis_mm: Array) -> Array:
    """Replace `electromagnetic.deposit`: share a layer's energy without spots."""
    rings = np.diff(lateral.inside(np.array(layer.r_edges_mm)))
    return np.tile(rings / layer.n_alpha, layer.n_alpha) * (rng.poisson(spots) > 0)[:, None]


class Flaw:
    """How to make a flawed sample: another stack, or something replaced while it is made."""

    def __init__(
        self, stack: Stack | None = None, context: Callable[[], AbstractContextManager[object]] = nullcontext
    ) -> None:
        self.stack = stack
        self.context = context


def electromagnetic_flaws(dataset: str) -> dict[str, Flaw]:
    """Widen the sampling term; drop the spots."""
    return {
        "sampling term + 20 %": Flaw(widened(dataset, 1.2)),
        "mean fractions instead of spots": Flaw(
            context=lambda: patch.object(electromagnetic, "deposit", mean_shares)
        ),
    }


FLAWS = {
    "ds1-photon": electromagnetic_flaws("ds1-photon"),
    "ds1-pion": {
        "hadronic fluctuation + 20 %": Flaw(context=lambda: patch.object(hadronic, "HADRONIC_TERM", 0.6)),
        "sub-showers at twice the angle": Flaw(context=lambda: patch.object(hadronic, "KICK_GEV", 0.6)),
    },
    "ds2": electromagnetic_flaws("ds2"),
}


if __name__ == "__main__":
    main()
