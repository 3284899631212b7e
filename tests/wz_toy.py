"""Jets of two prongs with a known decay plane, for tests without Pythia."""

import numpy as np
from numpy.typing import NDArray

from bitsearch.models.jets.wz import WZJets


def jets(count: int, particles: int = 40, seed: int = 0, radius: float = 0.3) -> WZJets:
    """Draw about 40 particles a jet around two prongs that share its momentum; one in twenty is elsewhere."""
    rng = np.random.default_rng(seed)
    shape = count, particles
    plane = rng.uniform(-np.pi, np.pi, count)
    share = rng.uniform(0.1, 0.9, (count, 1))
    first = rng.random(shape) < share
    # Momentum balances about the axis: the softer prong is further out.
    center = np.where(first, 1 - share, -share) * 2 * radius * np.exp(1j * plane)[:, None]
    position = center + 0.1 * radius * (rng.standard_normal(shape) + 1j * rng.standard_normal(shape))
    stray = rng.random(shape) < 0.05
    position[stray] = (rng.uniform(-1, 1, shape) + 1j * rng.uniform(-1, 1, shape))[stray] * radius
    real = np.arange(particles) < rng.poisson(0.8 * particles, (count, 1)).clip(2)
    pt = np.sort(rng.lognormal(0, 0.5, shape) * real)[:, ::-1]
    pt = 550 * pt / pt.sum(1, keepdims=True)
    real = pt > 0

    def column(values: NDArray[np.floating]) -> NDArray[np.float32]:
        return np.asarray(values * real, np.float32)

    zero = np.zeros(count)
    return WZJets(
        pt=column(pt),
        theta=column(np.abs(position)),
        phi=column(np.angle(position)),
        delta_eta=column(position.real),
        delta_phi=column(-position.imag),
        jet=np.stack([pt.sum(1), zero, zero, zero + 80], 1).astype(np.float32),
        decay_plane_angle=plane.astype(np.float32),
        decay_plane_angle_lab=plane.astype(np.float32),
        multiplicity=real.sum(1).astype(np.int32),
        quark_theta=np.full((count, 2), radius, np.float32),
    )
