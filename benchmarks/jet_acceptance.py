"""Print how jet files fare against what is known of such jets; without files, the shipped samples.

    .venv/bin/python benchmarks/jet_acceptance.py [FILE ...]
    .venv/bin/python benchmarks/jet_acceptance.py --rates 200

`--rates` generates that many jets of each kind in this process and prints how many a second of processor time give,
start-up included.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitsearch.models import formats
from bitsearch.models.jets import production, quark_gluon, wz
from bitsearch.models.metrics.angles import fold, principal_axis
from bitsearch.models.metrics.classification import auc, rejection

Array = NDArray[np.float64]
REPLICAS = 50


def main() -> None:
    """Print every item for every file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    parser.add_argument("--rates", type=int, metavar="JETS")
    arguments = parser.parse_args()
    if arguments.rates:
        rates(arguments.rates)
        return
    for path in arguments.files or (quark_gluon.SAMPLE, wz.SAMPLE):
        form = formats.identify(path)
        print(f"\n{path.name}: {path.stat().st_size / 1e6:.2f} MB")
        if form.name == quark_gluon.NAME:
            classes(path)
        elif form.name == wz.NAME:
            planes(path)


def classes(path: Path) -> None:
    """Print multiplicities, what single variables separate, and the composition."""
    table = quark_gluon.read(path)
    pt, rapidity, azimuth, pdg_id = np.moveaxis(table.constituents.astype(np.float64), 2, 0)
    real = pt > 0
    multiplicity = real.sum(axis=1)
    for name, rows in (("quark", table.quark), ("gluon", ~table.quark)):
        found = multiplicity[rows]
        error = found.std() / np.sqrt(len(found))
        print(
            f"{name}: {len(found)} jets, multiplicity {found.mean():.2f} +- {error:.2f}, "
            f"standard deviation {found.std():.1f}, largest {found.max()}"
        )
    px, py, pz, energy = (
        (pt * factor).sum(axis=1)
        for factor in (np.cos(azimuth), np.sin(azimuth), np.sinh(rapidity), np.cosh(rapidity))
    )
    mass = np.sqrt(np.maximum(energy**2 - px**2 - py**2 - pz**2, 0))
    dispersion = np.sqrt((pt**2).sum(axis=1)) / pt.sum(axis=1)
    for name, score in {
        "multiplicity": -multiplicity,
        "jet mass": -mass,
        "pT dispersion": dispersion,
    }.items():
        separate(name, score.astype(float), table.quark)
    ids, counts = np.unique(np.abs(pdg_id[real]), return_counts=True)
    order = np.argsort(-counts)
    shares = ", ".join(f"{int(ids[i])}: {100 * counts[i] / counts.sum():.3g} %" for i in order)
    print(f"constituents by |PDG id|: {shares}")


def separate(name: str, score: Array, quark: NDArray[np.bool_]) -> None:
    """Print AUC and rejections of a score, with standard deviations over bootstrap replicas."""
    rng = np.random.default_rng(1)

    def measure(rows: NDArray[np.intp]) -> list[float]:
        s, q = score[rows], quark[rows]
        return [auc(s, q), rejection(s, q, 0.5), rejection(s, q, 0.3)]

    values = measure(np.arange(len(quark)))
    errors = np.std([measure(rng.integers(0, len(quark), len(quark))) for _ in range(REPLICAS)], axis=0)
    area, half, third = (f"{value:.4g} +- {error:.2g}" for value, error in zip(values, errors, strict=True))
    print(f"{name}: AUC {area}, gluon rejection at 50 % of quarks {half}, at 30 % {third}")


def planes(path: Path) -> None:
    """Print the selected jets, the flatness of the target, and what closed-form estimators reach."""
    table, label = wz.read_labelled(path)
    if label:
        print(f"events that passed: {label.settings['passed']}")
    pt, mass = table.jet[:, 0], table.jet[:, 3]
    print(
        f"{len(table)} jets, mean pT {pt.mean():.1f} GeV, soft-drop mass {mass.mean():.2f} GeV, multiplicity "
        f"{table.multiplicity.mean():.1f} (largest {table.multiplicity.max()}); "
        f"{100 * (table.multiplicity > wz.LEADING).mean():.0f} % have more than {wz.LEADING}, "
        f"which carry {100 * np.mean(table.pt.sum(axis=1) / pt):.1f} % of the pT"
    )
    counts = np.histogram(table.decay_plane_angle, 20, (-np.pi, np.pi))[0]
    chi2 = ((counts - counts.mean()) ** 2 / counts.mean()).sum()
    largest = 100 * np.abs(counts / counts.mean() - 1).max()
    print(f"decay-plane angle: flat within {largest:.1f} % in 20 bins, chi2/ndf = {chi2:.1f}/19")
    vv, lab, hardest = (
        angle.astype(np.float64)
        for angle in (table.decay_plane_angle, table.decay_plane_angle_lab, table.phi[:, 0])
    )
    distance, azimuth = (
        np.hypot(table.delta_phi, table.delta_eta),
        np.arctan2(table.delta_eta, table.delta_phi),
    )
    turned = np.arctan2(-table.delta_phi, table.delta_eta)
    for name, estimate, target in (
        ("pT Theta, decay frame", principal_axis(table.pt, table.theta, table.phi), vv),
        ("pT^2 Theta^2, decay frame", principal_axis(table.pt**2, table.theta**2, table.phi), vv),
        ("pT Theta^2, decay frame", principal_axis(table.pt, table.theta**2, table.phi), vv),
        ("pT R^2, laboratory", principal_axis(table.pt, distance**2, azimuth), lab),
        ("pT R^2, laboratory against the decay frame", principal_axis(table.pt, distance**2, turned), vv),
        ("hardest constituent, decay frame", hardest, vv),
        ("constant, decay frame", np.zeros(len(table)), vv),
    ):
        residual(name, estimate - target)


def residual(name: str, difference: Array) -> None:
    """Print one estimator's residuals."""
    squared, folded = np.sin(difference) ** 2, np.abs(fold(difference))
    quantiles = ", ".join(f"{q:.3f}" for q in np.quantile(folded, (0.5, 0.68, 0.95)))
    error = squared.std() / np.sqrt(len(squared))
    print(
        f"axis by {name}: <sin^2 r> {squared.mean():.4f} +- {error:.4f}, |r| 50, 68, 95 %: {quantiles}, "
        f"rms {np.sqrt((folded**2).mean()):.3f}, below 0.1: {100 * (folded < 0.1).mean():.0f} %"
    )


def rates(jets: int) -> None:
    """Print jets per second of processor time, with and without the underlying event."""
    for switch in ({}, {"PartonLevel:MPI": "off"}):
        simulations = {
            process: quark_gluon.Simulation({process: settings | switch})
            for process, settings in quark_gluon.SETTINGS.items()
        }
        for process, simulation in (simulations | {wz.NAME: wz.Simulation(wz.SETTINGS | switch)}).items():
            start = time.process_time()
            simulation(production.Chunk(process, 0, jets, seed=1))
            rate = jets / (time.process_time() - start)
            print(
                f"{process} {' '.join(switch) or 'with the underlying event'}: {rate:.1f} jets per CPU-second"
            )


if __name__ == "__main__":
    main()
