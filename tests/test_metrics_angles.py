"""Metrics of decay-plane angles against hand-computed cases and scipy."""

import math

import numpy as np
import pytest
import wz_toy
from scipy import integrate

from bitsearch.core.measurement import Quantity, over_trainings
from bitsearch.models.metrics import angles

RNG = np.random.default_rng(0)
ONE, TWO = RNG.normal(0, 0.5, 3000), RNG.normal(0.3, 0.7, 2000)


@pytest.mark.parametrize("turns", [-2, 0, 1, 5])
def test_axes_do_not_know_half_turns(turns: int) -> None:
    inside = np.array([-1.5, -0.3, 0.0, 0.7, math.pi / 2])
    np.testing.assert_allclose(angles.fold(inside + turns * math.pi), inside, atol=1e-12)
    assert angles.fold(np.array([-math.pi / 2]))[0] == pytest.approx(math.pi / 2)


def test_spread_of_known_residuals() -> None:
    residuals = np.array([0.1, -0.2, 0.3 + math.pi, -0.4 - math.pi, 0.5])
    found = angles.spread(residuals)
    squared = np.sin([0.1, 0.2, 0.3, 0.4, 0.5]) ** 2
    assert found["sin2"].value == pytest.approx(squared.mean())
    assert found["sin2"].std == pytest.approx(squared.std(ddof=1) / math.sqrt(5))
    assert found["sin2"].n == 5
    assert found["q50"].value == pytest.approx(0.3)
    assert found["q68"].value == pytest.approx(0.3 + 0.72 * 0.1)
    assert found["q95"].value == pytest.approx(0.48)


def test_constant_predictions_miss_by_one_half() -> None:
    assert angles.spread(RNG.uniform(-math.pi, math.pi, 100_000))["sin2"].value == pytest.approx(
        0.5, abs=0.005
    )


def test_wasserstein_distance_is_the_area_between_the_distributions() -> None:
    assert angles.distances(np.zeros(4), np.full(4, 0.7))["wasserstein"].value == pytest.approx(0.7)
    grid = np.linspace(-5, 5, 40_001)
    f, g = (np.searchsorted(np.sort(sample), grid, side="right") / len(sample) for sample in (ONE, TWO))
    area = integrate.trapezoid(np.abs(f - g), grid)
    assert angles.distances(ONE, TWO)["wasserstein"].value == pytest.approx(area, rel=1e-3)


def test_separation_power() -> None:
    """Half of one sample moves to another bin: ½[(1 - ½)²/(1 + ½) + ½²/½] = 1/3."""
    reference, moved = np.zeros(4) + 0.01, np.array([0.01, 0.01, 1.01, 1.01])
    found = angles.distances(reference, moved)
    assert found["separation"].value == pytest.approx(1 / 3)
    assert found["separation_paper"].value == pytest.approx(2 / 3)
    disjoint = angles.distances(np.zeros(3), np.full(5, 2.0))
    assert (disjoint["separation"].value, disjoint["separation_paper"].value) == pytest.approx((1, 2))
    assert angles.distances(ONE, ONE)["separation"].value == 0


def test_separation_power_by_hand() -> None:
    counts = [
        np.bincount(((x + 2 * np.pi) / (4 * np.pi) * 100).astype(int), minlength=100) for x in (ONE, TWO)
    ]
    p, q = (count / count.sum() for count in counts)
    filled = p + q > 0
    expected = 0.5 * ((p - q)[filled] ** 2 / (p + q)[filled]).sum()
    assert angles.distances(ONE, TWO)["separation"].value == pytest.approx(expected, rel=1e-9)


def test_residuals_outside_of_the_bins_count_in_the_last() -> None:
    assert angles.distances(np.full(3, 6.27), np.full(3, 40.0))["separation"].value == 0
    histogram, _ = angles.histograms(np.full(3, 6.27), np.full(5, -40.0))
    assert (histogram.reference[-1], histogram.generated[0]) == (3, 5)


def test_histograms() -> None:
    raw, folded = angles.histograms(ONE, TWO + math.pi)
    assert raw.separation.value == angles.distances(ONE, TWO + math.pi)["separation"].value
    assert (
        (sum(raw.reference), sum(raw.generated))
        == (sum(folded.reference), sum(folded.generated))
        == (3000, 2000)
    )
    assert folded.separation.value < 0.3 < raw.separation.value


def test_average_over_trainings() -> None:
    single = {"sin2": Quantity(0.2, 0.01, 50)}
    assert over_trainings([]) == {}
    assert over_trainings([single]) == {"sin2": Quantity(0.2, 0.01, 50, values=(0.2,))}
    two = over_trainings([single, {"sin2": Quantity(0.4, 0.02, 50)}])["sin2"]
    assert two.value == pytest.approx(0.3)
    assert two.std == pytest.approx(math.sqrt(0.02))
    assert two.n == 2
    assert two.values == (0.2, 0.4)


def test_principal_axis_of_a_line() -> None:
    phi = np.array([[0.4, 0.4 - math.pi, 0.4], [-1.2, -1.2 + math.pi, 0.0]])
    pt, theta = np.array([[3.0, 1.0, 2.0], [1.0, 5.0, 0.0]]), np.array([[0.1, 0.4, 0.2], [0.3, 0.1, 0.0]])
    np.testing.assert_allclose(angles.principal_axis(pt, theta, phi), [0.4, -1.2], atol=1e-12)


def test_principal_axis_is_that_of_the_tensor() -> None:
    jets = wz_toy.jets(200)
    found = angles.principal_axis(jets.pt, jets.theta, jets.phi)
    for estimate, pt, theta, phi in zip(found, jets.pt, jets.theta, jets.phi, strict=True):
        n = np.stack([np.cos(phi), np.sin(phi)])
        x, y = np.linalg.eigh(np.einsum("k,ik,jk->ij", pt * theta, n, n))[1][:, -1]
        assert abs(math.sin(estimate - math.atan2(y, x))) < 1e-4
    assert angles.spread(jets.decay_plane_angle - found)["sin2"].value < 0.01
