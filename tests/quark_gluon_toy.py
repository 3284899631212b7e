"""Jets that look like quark and gluon jets from afar, made without a physics package; never to be quoted."""

import numpy as np
from numpy.typing import NDArray

from bitsearch.models.jets.quark_gluon import QuarkGluonJets

IDS = (22, 211, -211, 321, -321, 130, 2112, -2112, 2212, -2212, 11, -11)
SHARES = (0.46, 0.20, 0.20, 0.024, 0.024, 0.024, 0.0155, 0.0155, 0.0155, 0.0155, 0.003, 0.003)
# Mean and standard deviation of the multiplicity, Dirichlet concentration of pT, width of the flat component.
QUARK, GLUON = (33.7, 13.1, 0.35, 0.25), (52.9, 15.8, 0.55, 0.4)
JET_PT_GEV = 525.0


def toy(jets: int, seed: int, slots: int = 130) -> QuarkGluonJets:
    """Draw jets, half of them quark jets, sorted by pT and padded with zeros to `slots`."""
    rng = np.random.default_rng(seed)
    quark = rng.permutation(np.arange(jets) % 2 == 0)
    table = np.zeros((jets, slots, 4), np.float32)
    for row, is_quark in zip(table, quark, strict=True):
        columns = _jet(rng, QUARK if is_quark else GLUON, slots)
        row[: len(columns)] = columns
    return QuarkGluonJets(table, quark)


def _jet(
    rng: np.random.Generator, kind: tuple[float, float, float, float], slots: int
) -> NDArray[np.float64]:
    mean, deviation, concentration, flat = kind
    success = mean / deviation**2
    n = int(np.clip(rng.negative_binomial(mean * success / (1 - success), success), 3, slots))
    pt = np.sort(rng.dirichlet(np.full(n, concentration)) * JET_PT_GEV + 1e-3)[::-1]
    core = rng.laplace(0, 0.05, (2, n))
    wide = rng.uniform(-flat, flat, (2, n))
    offset = np.where(rng.random(n) < 0.7, core, wide)
    eta, phi = rng.uniform(-1.7, 1.7) + offset[0], rng.uniform(0, 2 * np.pi) + offset[1]
    return np.stack([pt, eta, phi, rng.choice(IDS, n, p=np.array(SHARES) / sum(SHARES))], 1)
