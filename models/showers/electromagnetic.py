"""Fluctuating electromagnetic showers in sampling calorimeters (Grindhammer and Peters, hep-ex/0001020).

Numbers are those of the paper's appendix. Energies are in GeV, depths in radiation lengths from the start of
the shower.
"""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.special import gammainc

from bitsearch.models.showers.detector import Stack
from bitsearch.models.showers.geometry import Layer
from bitsearch.models.showers.medium import Medium

Array = NDArray[np.float64]

# Spots of equal energy leave no voxel below a few MeV; Gamma distributed ones reach down to the threshold.
SPOT_SHAPE = 0.3
# A spot's mean energy is at most this multiple of the shower's mean.
SPOT_EXCESS = 3.0
TINY = 1e-12
# Few-MeV photons, the most penetrating part of a shower, are absorbed like exp(-0.3 t) or faster. Below 1 GeV the
# fluctuations of T and alpha would otherwise give tails that no shower has.
LEAST_ATTENUATION = 0.3
# Standard deviation of the shower axis in each transverse direction: correlates the layers' energy centres.
AXIS_MM = 1.5


@dataclass(frozen=True)
class Profile:
    """Longitudinal Gamma profiles, one an event, `(events,)`: dE/dt ~ t^(alpha-1) exp(-beta t)."""

    alpha: Array
    beta: Array

    def fractions(self, near: Array, far: Array) -> Array:
        """Give the energy share between two depths, `(events, layers)`."""
        alpha, beta = self.alpha[:, None], self.beta[:, None]
        return np.asarray(gammainc(alpha, beta * far) - gammainc(alpha, beta * near))

    def mean_depths(self, near: Array, far: Array) -> Array:
        """Give the energy-weighted mean depth between two depths, `(events, layers)`.

        t f(t; alpha) is alpha/beta times the profile with alpha + 1.
        """
        heavier = Profile(self.alpha + 1, self.beta).fractions(near, far)
        share = self.fractions(near, far)
        mean = np.divide(heavier, share, out=np.zeros_like(share), where=share > 0)
        return np.clip(mean * (self.alpha / self.beta)[:, None], near, far)


@dataclass(frozen=True)
class Shape:
    """Depth of the maximum, shape parameter alpha, and exp of the mean of ln alpha, all `(events,)`."""

    t_max: Array
    alpha: Array
    alpha_median: Array

    def energy(self) -> Profile:
        """Profile of the deposited energy."""
        return Profile(self.alpha, np.maximum((self.alpha - 1) / self.t_max, LEAST_ATTENUATION))

    def spots(self, medium: Medium) -> Profile:
        """Profile of the number of spots."""
        t_max = self.t_max * (0.813 + 0.0019 * medium.z)
        alpha = np.maximum(self.alpha * (0.844 + 0.0026 * medium.z), 1.1)
        return Profile(alpha, np.maximum((alpha - 1) / t_max, LEAST_ATTENUATION))


@dataclass(frozen=True)
class Moments:
    """Means and standard deviations of ln T and ln alpha, and their correlation, `(events,)`."""

    ln_t: Array
    sigma_t: Array
    ln_alpha: Array
    sigma_alpha: Array
    correlation: Array


def moments(energy_gev: Array, medium: Medium) -> Moments:
    """Evaluate the sampling-calorimeter formulas; the guards (Geant4's) matter below about 1 GeV."""
    ln_y = np.log(energy_gev * 1e3 / medium.critical_mev)
    t_homogeneous = ln_y - 0.812
    alpha_homogeneous = 0.81 + (0.458 + 2.26 / medium.z) * ln_y
    t = t_homogeneous - 0.55 / medium.frequency - 0.69 * (1 - medium.e_hat)
    alpha = alpha_homogeneous - 0.476 / medium.frequency
    return Moments(
        ln_t=np.log(np.maximum(t, 0.1)),
        sigma_t=1 / np.maximum(-2.5 + 1.25 * ln_y, 2.0),
        ln_alpha=np.log(np.maximum(alpha, 0.1)),
        sigma_alpha=1 / np.maximum(-0.82 + 0.79 * ln_y, 2.0),
        correlation=0.784 - 0.023 * ln_y,
    )


def draw_shape(rng: Generator, energy_gev: Array, medium: Medium) -> Shape:
    """Draw correlated log-normal T and alpha."""
    m = moments(energy_gev, medium)
    common, opposite = rng.standard_normal((2, len(energy_gev)))
    common *= np.sqrt((1 + m.correlation) / 2)
    opposite *= np.sqrt((1 - m.correlation) / 2)
    t_max = np.exp(m.ln_t + m.sigma_t * (common + opposite))
    alpha = np.exp(m.ln_alpha + m.sigma_alpha * (common - opposite))
    return Shape(*np.maximum((t_max, alpha, np.exp(m.ln_alpha)), [[1.0], [1.1], [1.1]]))


@dataclass(frozen=True)
class Radial:
    """Lateral energy density: a core and a tail, each 2 r R^2 / (r^2 + R^2)^2; lengths in mm, `(events,)`."""

    core_share: Array
    core_mm: Array
    tail_mm: Array

    def inside(self, r_mm: Array) -> Array:
        """Give the energy share within each radius, `(events, radii)`."""
        core, tail = (r_mm**2 / (r_mm**2 + scale[:, None] ** 2) for scale in (self.core_mm, self.tail_mm))
        p = self.core_share[:, None]
        return np.asarray(p * core + (1 - p) * tail)

    def density(self, r2_mm2: Array) -> Array:
        """Give the density by area up to a factor, at squared radii `(events, ...)`."""
        shape = (-1, *(1 for _ in r2_mm2.shape[1:]))
        p = self.core_share.reshape(shape)
        core2, tail2 = ((scale**2).reshape(shape) for scale in (self.core_mm, self.tail_mm))
        return np.asarray(p * core2 / (r2_mm2 + core2) ** 2 + (1 - p) * tail2 / (r2_mm2 + tail2) ** 2)


def radial(energy_gev: Array, tau: Array, medium: Medium) -> Radial:
    """Evaluate the radial formulas at relative depth `tau`, all `(events,)`."""
    ln_e, z, missing = np.log(energy_gev), medium.z, 1 - medium.e_hat
    damping = np.exp(-tau) / medium.frequency
    core = 0.0251 + 0.00319 * ln_e + (0.1162 - 0.000381 * z) * tau - 0.0203 * missing + 0.0397 * damping
    rise = np.exp(-2.59 * (tau - 0.645)) + np.exp((0.3585 + 0.0421 * ln_e) * (tau - 0.645))
    tail = (0.659 - 0.00309 * z) * rise - 0.14 * missing - 0.495 * damping
    u = (0.401 + 0.00187 * z - tau) / (1.313 - 0.0686 * ln_e)
    share = (2.632 - 0.00094 * z) * np.exp(u - np.exp(u))
    share += missing * (0.348 - 0.642 / medium.frequency * np.exp(-((tau - 1) ** 2)))
    return Radial(
        np.clip(share, 0, 1),
        np.maximum(core, 0.01) * medium.moliere_mm,
        np.maximum(tail, 0.05) * medium.moliere_mm,
    )


def shower(
    rng: Generator, energy_gev: Array, start_x0: Array, layers: tuple[Layer, ...], stack: Stack
) -> Array:
    """Draw the visible energy in GeV, `(events, voxels)`, of showers that start at depths `start_x0`."""
    first = stack.mediums[0]
    shape = draw_shape(rng, energy_gev, first)
    near, far = (np.maximum(edge - start_x0[:, None], 0) for edge in stack.depth_x0.T)
    profile = shape.energy()
    share = profile.fractions(near, far)
    # Far from the maximum the two profiles part by orders of magnitude, and a rare spot would carry many GeV.
    share_of_spots = np.maximum(shape.spots(first).fractions(near, far), share / SPOT_EXCESS)
    spots = (10.3 / first.sampling * energy_gev**0.959)[:, None] * share_of_spots
    energy = energy_gev[:, None] * share
    relative = shape.alpha_median / (shape.alpha_median - 1) * profile.beta / profile.alpha
    tau = profile.mean_depths(near, far) * relative[:, None]
    # A layer that draws no spot stays empty; others get more by 1 / P(any spot), which keeps the mean.
    energy /= -np.expm1(-np.maximum(spots, TINY))
    axis_mm = AXIS_MM * rng.standard_normal((2, len(energy_gev)))
    voxels = []
    for i, (layer, medium) in enumerate(zip(layers, stack.mediums, strict=True)):
        lateral = radial(energy_gev, tau[:, i], medium)
        visible = sample(rng, energy[:, i], medium.sampling)
        voxels.append(visible[:, None] * deposit(rng, spots[:, i], layer, lateral, axis_mm))
    return np.concatenate(voxels, axis=1)


def sample(rng: Generator, energy_gev: Array, term: float) -> Array:
    """Fluctuate deposits by sigma/E = term / sqrt(E), Gamma distributed with unchanged mean."""
    return rng.standard_gamma(energy_gev / term**2) * term**2


def deposit(rng: Generator, spots: Array, layer: Layer, lateral: Radial, axis_mm: Array) -> Array:
    """Share a layer's energy among its voxels by a Poisson number of spots, `(events, voxels)`.

    The shares sum to less than 1 by the spots beyond the last radius, and to 0 without spots.
    """
    inside = lateral.inside(np.array(layer.r_edges_mm))
    cells = np.diff(inside)[:, None, :] * _azimuth(layer, lateral, axis_mm)
    cells = np.column_stack([cells.reshape(len(spots), -1), 1 - inside[:, -1]])
    weights = rng.standard_gamma(SPOT_SHAPE * rng.poisson(spots[:, None] * cells))
    return np.asarray(weights[:, :-1] / np.maximum(weights.sum(axis=1, keepdims=True), TINY))


def _azimuth(layer: Layer, lateral: Radial, axis_mm: Array) -> Array | float:
    """Share a ring among its voxels, `(events, n_alpha, n_r)`, by the density around the displaced axis."""
    if not layer.is_binned_in_alpha:
        return 1.0
    eta, phi = (x.reshape(layer.n_alpha, layer.n_r) for x in (layer.eta_mm, layer.phi_mm))
    dx, dy = axis_mm[:, :, None, None]
    density = lateral.density((eta - dx) ** 2 + (phi - dy) ** 2)
    return np.asarray(density / density.sum(axis=1, keepdims=True))
