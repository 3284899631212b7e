"""Planes, frames and angles of four-vectors `(..., 4)`: px, py, pz, E in GeV.

Frames and angles follow the definitions of the decay-plane measurement that SMEFTNet (arXiv:2401.10323) regresses.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

BEAM = np.array([0.0, 0.0, 1.0, 1.0])


def decay_plane_angle(w: Array, z: Array, q1: Array, q2: Array) -> Array:
    """Compute the signed angle between the scattering and the decay plane of W in the rest frame of W and Z.

    n_s = unit(beam x W), n_d = unit(q1 x q2); the sign is that of (n_s x n_d) . W.
    """
    pair = w + z
    beam, w, q1, q2 = (boosted(p, pair)[..., :3] for p in (np.broadcast_to(BEAM, w.shape), w, q1, q2))
    scattering, decay = unit(np.cross(beam, w)), unit(np.cross(q1, q2))
    sine = np.sum(np.cross(scattering, decay) * unit(w), axis=-1)
    angle: Array = np.arctan2(sine, np.sum(scattering * decay, axis=-1))
    return angle


def decay_frame(particles: Array, jet: Array, z: Array) -> tuple[Array, Array]:
    """Give angles to the jet axis and azimuths from the beam's half-plane, in the rest frame of jet and Z.

    `particles` is `(n, 4)`; the angles are `(n,)`.
    """
    pair = jet + z
    axis = unit(boosted(jet, pair)[:3])
    beam = boosted(BEAM, pair)[:3]
    x_axis = unit(beam - beam @ axis * axis)
    momenta = boosted(particles, pair)[:, :3]
    x, y, along = (momenta @ direction for direction in (x_axis, np.cross(axis, x_axis), axis))
    return np.arctan2(np.hypot(x, y), along), np.arctan2(y, x)


def boosted(p: Array, frame: Array) -> Array:
    """Boost four-vectors into the rest frame of the four-vector `frame`."""
    velocity = frame[..., :3] / frame[..., 3:]
    gamma = frame[..., 3:] / np.sqrt(
        frame[..., 3:] ** 2 - np.sum(frame[..., :3] ** 2, axis=-1, keepdims=True)
    )
    along = np.sum(p[..., :3] * velocity, axis=-1, keepdims=True)
    momentum = p[..., :3] + velocity * gamma * (gamma / (gamma + 1) * along - p[..., 3:])
    return np.concatenate([momentum, gamma * (p[..., 3:] - along)], axis=-1)


def unit(vectors: Array) -> Array:
    """Scale three-vectors to length 1."""
    length: Array = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / length


def direction(p: Array) -> Array:
    """Give pseudorapidity and azimuth, `(..., 2)`, of four-vectors."""
    pt = np.hypot(p[..., 0], p[..., 1])
    return np.stack([np.arcsinh(p[..., 2] / pt), np.arctan2(p[..., 1], p[..., 0])], axis=-1)


def displacement(p: Array, origin: Array) -> Array:
    """Give differences in pseudorapidity and azimuth, `(..., 2)`, the latter in [-pi, pi)."""
    difference = direction(p) - direction(origin)
    difference[..., 1] = wrapped(difference[..., 1])
    return difference


def wrapped(angle: Array) -> Array:
    """Bring angles to [-pi, pi)."""
    return (angle + np.pi) % (2 * np.pi) - np.pi
