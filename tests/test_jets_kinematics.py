import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jet_files import four_vectors

from bitsearch.models.jets.kinematics import (
    Array,
    boosted,
    decay_frame,
    decay_plane_angle,
    displacement,
    wrapped,
)

SEEDS = st.integers(0, 2**32 - 1)


def event(seed: int) -> tuple[Array, Array, Array, Array]:
    """Draw W, Z and the quarks that W decays to."""
    rng = np.random.default_rng(seed)
    z, q1, q2 = four_vectors(rng, 1, 91.2)[0], *four_vectors(rng, 2)
    return q1 + q2, z, q1, q2


def rotated(p: Array, angle: float) -> Array:
    """Rotate about the beam."""
    x, y = p[0] * np.cos(angle) - p[1] * np.sin(angle), p[0] * np.sin(angle) + p[1] * np.cos(angle)
    return np.array([x, y, *p[2:]])


def along_beam(p: Array, rapidity: float) -> Array:
    c, s = np.cosh(rapidity), np.sinh(rapidity)
    return np.array([*p[:2], c * p[2] + s * p[3], c * p[3] + s * p[2]])


@given(SEEDS)
def test_boosts_end_at_rest(seed: int) -> None:
    w, z, q1, q2 = event(seed)
    mass = np.sqrt(w[3] ** 2 - w[:3] @ w[:3])
    np.testing.assert_allclose(boosted(w, w), [0, 0, 0, mass], atol=1e-9 * w[3])
    found = boosted(np.stack([q1, q2]), w)
    np.testing.assert_allclose(found[0, :3], -found[1, :3], atol=1e-9 * w[3])
    np.testing.assert_allclose(found[:, 3], mass / 2, rtol=1e-9)
    pair = w + z
    np.testing.assert_allclose(boosted(boosted(z, pair), boosted(pair, pair)), boosted(z, pair))


@given(SEEDS, st.floats(-3, 3), st.floats(-2, 2))
def test_decay_plane_angle_depends_on_no_frame(seed: int, angle: float, rapidity: float) -> None:
    momenta = event(seed)
    expected = decay_plane_angle(*momenta)
    for changed in ([rotated(p, angle) for p in momenta], [along_beam(p, rapidity) for p in momenta]):
        assert wrapped(decay_plane_angle(*changed) - expected) == pytest.approx(0, abs=1e-6)


@given(SEEDS)
def test_decay_plane_angle_is_the_quarks_azimuth(seed: int) -> None:
    """With W along +z and the beam in the half-plane of azimuth 0."""
    w, z, q1, q2 = event(seed)
    angle = decay_plane_angle(w, z, q1, q2)
    theta, phi = decay_frame(np.stack([q1, q2, w]), w, z)
    assert wrapped(phi[0] - angle) == pytest.approx(0, abs=1e-6)
    assert abs(wrapped(phi[1] - angle)) == pytest.approx(np.pi, abs=1e-6)
    assert theta[2] == pytest.approx(0, abs=1e-6)
    exchanged = decay_plane_angle(w, z, q2, q1)
    assert abs(wrapped(exchanged - angle)) == pytest.approx(np.pi, abs=1e-9)


def test_decay_plane_angle_by_hand() -> None:
    """W and Z back to back across the beam: W along x, so the scattering normal is z cross x = y."""
    w, z = np.array([100.0, 0, 0, 130]), np.array([-100.0, 0, 0, 140])
    # The decay normal is y, too, if the quarks lie in the x-z plane.
    q1, q2 = np.array([50.0, 0, 40, 64.03]), np.array([50.0, 0, -40, 64.03])
    assert abs(decay_plane_angle(w, z, q1, q2)) == pytest.approx(0, abs=1e-9)
    q1, q2 = np.array([50.0, 40, 0, 64.03]), np.array([50.0, -40, 0, 64.03])
    assert abs(decay_plane_angle(w, z, q1, q2)) == pytest.approx(np.pi / 2)


def test_laboratory_angles() -> None:
    jet = np.array([-300.0, 1, 200, 400])
    other = np.array([-300.0, -1, 250, 400])
    eta, phi = displacement(other, jet)
    # The azimuths lie to both sides of pi.
    assert phi == pytest.approx(2 / 300, rel=1e-4)
    assert eta == pytest.approx(np.arcsinh(250 / 300) - np.arcsinh(200 / 300), rel=1e-4)
