"""Pion showers in a barrel like ATLAS': tracks, electromagnetic and hadronic sub-showers made of spots.

A simple picture, not a tuned one. Published are the longitudinal profile (Kulchitsky and Vinogradov,
hep-ex/9903019) and the electromagnetic core's radii (hep-ex/0001020); everything else is a choice. Depths are in
interaction lengths (lambda) from the surface, energies in GeV.
"""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from bitsearch.models.showers.detector import BARREL
from bitsearch.models.showers.electromagnetic import SPOT_SHAPE, TINY, radial, sample
from bitsearch.models.showers.geometry import Array, Layer
from bitsearch.models.showers.medium import LEAD_ARGON

Index = NDArray[np.intp]


_LAMBDA = np.array([0, *(segment.end_lambda for segment in BARREL)])
_X0 = np.array([0, *(segment.end_x0 for segment in BARREL)])
# Far behind the last layer, so that leaking energy has a depth too.
_FAR = 100.0

H_OVER_E = 0.6

MIP_SHAPE = 10.0
MIP_RADIUS_MM = 8.0
EM_SHARE_WIDTH = 0.18
HADRONIC_TERM = 0.5
# Standard deviation of the logarithm of profile shapes, lengths and radii.
SPREAD = 0.3
# Transverse momentum of a sub-shower in each direction; its angle is this over its energy, at most MAX_ANGLE.
KICK_GEV = 0.3
MAX_ANGLE = 0.5


@dataclass(frozen=True)
class Subshowers:
    """Parts of a shower, `(subshowers,)`, that start at one depth and go off at `angle` `(2, subshowers)`.

    Their profiles are Gamma functions of shape `alpha`; `stretch` varies their length and `widen` their radius.
    """

    event: Index
    energy_gev: Array
    start: Array
    alpha: Array
    stretch: Array
    widen: Array
    angle: Array


@dataclass(frozen=True)
class Spots:
    """Energy deposits, `(spots,)`: the event they belong to, depth and transverse position `(2, spots)`."""

    event: Index
    depth: Array
    xy_mm: Array
    energy_gev: Array


def shower(rng: Generator, energy_gev: Array, layers: tuple[Layer, ...]) -> Array:
    """Draw the visible energy in GeV, `(events, voxels)`: a track to the first interaction, then sub-showers."""
    start = rng.exponential(1.0, len(energy_gev))
    losses, left = ionize(rng, energy_gev, start)
    share = electromagnetic_share(rng, left)
    neutral = sample(rng, share * left, LEAD_ARGON.sampling)
    # At most the signal of electrons of the same energy, since h/e is applied later.
    charged = np.minimum(sample(rng, (1 - share) * left, HADRONIC_TERM), (1 - share) * left / H_OVER_E)
    spots = (
        _track(rng, losses, start),
        _electromagnetic(rng, subshowers(rng, neutral, left, start, rate=0.6)),
        _hadronic(rng, subshowers(rng, charged, left, start, rate=1.2)),
    )
    track, neutral_voxels, charged_voxels = (voxelize(item, len(energy_gev), layers) for item in spots)
    return track + neutral_voxels + charged_voxels


def ionize(rng: Generator, energy_gev: Array, start: Array) -> tuple[Array, Array]:
    """Lose energy along the track until `start`: losses `(events, segments)` and what is left `(events,)`."""
    crossed = np.clip((start[:, None] - _LAMBDA[:-1]) / np.diff(_LAMBDA), 0, 1)
    mean = crossed * [segment.mip_gev for segment in BARREL]
    wanted = np.cumsum(rng.gamma(MIP_SHAPE, mean / MIP_SHAPE), axis=1)
    spent = np.minimum(wanted, energy_gev[:, None])
    return np.diff(spent, axis=1, prepend=0), energy_gev - spent[:, -1]


def electromagnetic_share(rng: Generator, energy_gev: Array) -> Array:
    """Draw the share of energy in neutral pions, Beta distributed around 1 - (E/GeV)^-0.18."""
    mean = np.clip(1 - np.maximum(energy_gev, 1.0) ** -0.18, 0.02, 0.9)
    spread = mean * (1 - mean)
    concentration = spread / np.minimum(EM_SHARE_WIDTH**2, spread / 2) - 1
    return rng.beta(mean * concentration, (1 - mean) * concentration)


def subshowers(rng: Generator, energy_gev: Array, pion_gev: Array, start: Array, rate: float) -> Subshowers:
    """Split each event's energy; the shape a = 0.786 + 0.427 ln E is that of the pion's energy."""
    number = np.where(energy_gev > 0, 1 + rng.poisson(rate * np.log1p(energy_gev)), 0)
    event, energy = _split(rng, energy_gev, number, 1.0)
    alpha = np.maximum(0.786 + 0.427 * np.log(np.maximum(pion_gev[event], 1.0)), 1.0)
    shape, stretch, widen = np.exp(SPREAD * rng.standard_normal((3, len(event))))
    angle = KICK_GEV / np.maximum(energy, KICK_GEV / MAX_ANGLE) * rng.standard_normal((2, len(event)))
    return Subshowers(event, energy, start[event], alpha * shape, stretch, widen, angle)


def voxelize(spots: Spots, events: int, layers: tuple[Layer, ...]) -> Array:
    """Sum the spots in each voxel, `(events, voxels)`; those in dead material and outside are lost."""
    voxels = layers[-1].stop
    total = np.zeros(events * voxels)
    segment = np.searchsorted(_LAMBDA, spots.depth, side="right") - 1
    for layer in layers:
        here = segment == next(i for i, item in enumerate(BARREL) if item.layer == layer.id)
        x, y = spots.xy_mm[:, here]
        ring = np.searchsorted(layer.r_edges_mm, np.hypot(x, y), side="right") - 1
        sector = ((np.arctan2(y, x) / (2 * np.pi) + 0.5) * layer.n_alpha).astype(np.intp) % layer.n_alpha
        index = spots.event[here] * voxels + layer.start + sector * layer.n_r + ring
        energy = np.where(ring < layer.n_r, spots.energy_gev[here], 0)
        total += np.bincount(np.minimum(index, len(total) - 1), energy, len(total))
    return total.reshape(events, voxels)


def _track(rng: Generator, losses: Array, start: Array) -> Spots:
    """Put the losses of each crossed segment in a few spots around the axis."""
    event, segment = np.nonzero(losses)
    near, far = _LAMBDA[segment], np.minimum(_LAMBDA[segment + 1], start[event])
    parent, energy = _split(rng, losses[event, segment], 1 + rng.poisson(3.0, len(event)), SPOT_SHAPE)
    depth = near[parent] + (far - near)[parent] * rng.random(len(parent))
    return Spots(event[parent], depth, _around(rng, np.full(len(parent), MIP_RADIUS_MM)), energy)


def _electromagnetic(rng: Generator, subs: Subshowers) -> Spots:
    """Deposit sub-showers along t^(a-1) exp(-0.29 t / X0), with the core and tail of electromagnetic showers."""
    sub, energy = _spots(rng, subs)
    mean = subs.alpha * subs.stretch / 0.29
    depth_x0 = rng.standard_gamma(subs.alpha[sub]) * (subs.stretch / 0.29)[sub]
    lateral = radial(np.maximum(subs.energy_gev, 0.1)[sub], depth_x0 / mean[sub], LEAD_ARGON)
    radius = np.where(rng.random(len(sub)) < lateral.core_share, lateral.core_mm, lateral.tail_mm)
    start_x0 = np.interp(subs.start, [*_LAMBDA, _FAR], [*_X0, 10 * _FAR])
    depth = np.interp(start_x0[sub] + depth_x0, [*_X0, 10 * _FAR], [*_LAMBDA, _FAR])
    return _place(rng, subs, sub, depth, radius, energy)


def _hadronic(rng: Generator, subs: Subshowers) -> Spots:
    """Deposit sub-showers along s^(a-1) exp(-0.978 s / lambda), wider with depth; h/e lowers the signal."""
    sub, energy = _spots(rng, subs)
    behind = rng.standard_gamma(subs.alpha[sub]) * (subs.stretch / 0.978)[sub]
    depth = subs.start[sub] + behind
    radius = _lambda_mm(depth) * (0.1 + 0.1 * behind) * subs.widen[sub]
    response = np.array([item.h_over_e for item in (*BARREL, BARREL[-1])])
    segment = np.searchsorted(_LAMBDA[1:], depth, side="right")
    return _place(rng, subs, sub, depth, radius, energy * response[segment])


def _place(
    rng: Generator, subs: Subshowers, sub: Index, depth: Array, radius_mm: Array, energy_gev: Array
) -> Spots:
    """Scatter spots around the axis of their sub-shower."""
    axis = subs.angle[:, sub] * (depth - subs.start[sub]) * _lambda_mm(depth)
    return Spots(subs.event[sub], depth, axis + _around(rng, radius_mm), energy_gev)


def _spots(rng: Generator, subs: Subshowers) -> tuple[Index, Array]:
    """Draw 30 E^0.9 spots for each sub-shower: its index and the energy of each."""
    return _split(rng, subs.energy_gev, 1 + rng.poisson(30 * subs.energy_gev**0.9), SPOT_SHAPE)


def _split(rng: Generator, energy: Array, number: Index, shape: float) -> tuple[Index, Array]:
    """Share each energy among `number` children with Gamma distributed weights: parent and energy of each."""
    parent = np.repeat(np.arange(len(energy)), number)
    weight = rng.standard_gamma(shape, len(parent)) + TINY
    return parent, energy[parent] * weight / np.bincount(parent, weight, len(energy))[parent]


def _around(rng: Generator, radius_mm: Array) -> Array:
    """Draw points `(2, spots)` from the lateral density 2 r R^2 / (r^2 + R^2)^2, uniform in azimuth."""
    v, phi = rng.random(len(radius_mm)), rng.uniform(-np.pi, np.pi, len(radius_mm))
    return np.asarray(radius_mm * np.sqrt(v / (1 - v)) * np.array([np.cos(phi), np.sin(phi)]))


def _lambda_mm(depth: Array) -> Array:
    lengths = np.array([item.lambda_mm for item in (*BARREL, BARREL[-1])])
    return np.asarray(lengths[np.searchsorted(_LAMBDA[1:], depth, side="right")])
