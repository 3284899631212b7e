import math

import numpy as np
import pytest

from bitsearch.models.showers.features import compute, high_level
from bitsearch.models.showers.files import Events
from bitsearch.models.showers.geometry import GEOMETRIES, Geometry, build, embedded

# Two rings of 0-2 and 2-4 mm in four sectors around alpha = -135, -45, 45 and 135 degrees, then a layer of two rings.
SMALL = build("small", "pion", {0: ((0.0, 2.0, 4.0), 4), 5: ((0.0, 10.0, 30.0), 1)})


def random_events(geometry: Geometry, number: int) -> Events:
    rng = np.random.default_rng(0)
    showers = rng.exponential(20, (number, geometry.voxels)) * (rng.random((number, geometry.voxels)) < 0.4)
    showers[0] = 0
    return Events(2.0 ** rng.integers(8, 23, number), showers)


def test_by_hand() -> None:
    shower = np.zeros((1, 10))
    shower[0, [5, 7, 8, 9]] = 30.0, 10.0, 1.0, 3.0  # 3 mm at +45 and at +135 degrees; 5 and 20 mm
    shower[0, 0] = 0.999  # below the threshold of 1 MeV
    f = compute([Events(np.array([64.0]), shower)], SMALL)
    assert f.total_mev[0] == 44
    assert f.layer_mev[0].tolist() == [40, 4]
    assert f.sparsity[0].tolist() == [0.75, 0]
    side = 3 / math.sqrt(2)
    assert f.center_eta_mm[0, 0] == pytest.approx((30 - 10) / 40 * side)
    assert f.center_phi_mm[0, 0] == pytest.approx(side)
    assert f.width_eta_mm[0, 0] == pytest.approx(side * math.sqrt(1 - 0.25))
    assert f.width_phi_mm[0, 0] == pytest.approx(0, abs=1e-6)
    assert f.center_r_mm[0] == pytest.approx([3, (1 * 5 + 3 * 20) / 4])
    assert f.width_r_mm[0] == pytest.approx([0, math.sqrt((25 + 3 * 400) / 4 - 16.25**2)], abs=1e-6)


def test_empty_showers_have_finite_features() -> None:
    f = compute([Events(np.array([64.0]), np.zeros((1, 10)))], SMALL)
    row = high_level(f)
    assert np.isfinite(row).all()
    assert f.sparsity[0].tolist() == [1, 1]
    assert f.center_r_mm[0].tolist() == [0, 0]
    assert row[0, 1] == -8


@pytest.mark.parametrize("name", GEOMETRIES)
def test_against_loops_over_voxels(name: str) -> None:
    geometry = embedded(name)
    events = random_events(geometry, 5)
    f = compute(events.chunks(2), geometry)
    wide = [layer.id for layer in geometry.alpha_layers]
    for n, shower in enumerate(events.showers_mev):
        for i, layer in enumerate(geometry.layers[:9]):
            sums = np.zeros(5)
            for v in range(layer.voxels):
                energy = shower[layer.start + v]
                energy = energy if energy >= geometry.threshold_mev else 0.0
                edges, ring, sector = layer.r_edges_mm, v % layer.n_r, v // layer.n_r
                r = (edges[ring] + edges[ring + 1]) / 2
                alpha = -math.pi + (sector + 0.5) * 2 * math.pi / layer.n_alpha if layer.n_alpha > 1 else 0
                sums += energy * np.array([1, r, r * r, r * math.cos(alpha), (r * math.cos(alpha)) ** 2])
            total, first, second, eta, eta2 = sums
            total += 1e-16
            assert f.layer_mev[n, i] == pytest.approx(sums[0])
            assert f.center_r_mm[n, i] == pytest.approx(first / total)
            assert f.width_r_mm[n, i] == pytest.approx(
                math.sqrt(max(0, second / total - (first / total) ** 2))
            )
            if layer.id in wide:
                column = wide.index(layer.id)
                assert f.center_eta_mm[n, column] == pytest.approx(eta / total)
                width = math.sqrt(max(0, eta2 / total - (eta / total) ** 2))
                assert f.width_eta_mm[n, column] == pytest.approx(width)


@pytest.mark.parametrize(("name", "columns"), [("ds1-photon", 30), ("ds1-pion", 46), ("ds2", 362)])
def test_high_level_columns(name: str, columns: int) -> None:
    geometry = embedded(name)
    f = compute(random_events(geometry, 4).chunks(), geometry)
    table, layers, wide = high_level(f), len(geometry.layers), len(geometry.alpha_layers)
    assert table.shape == (4, columns)
    np.testing.assert_array_equal(table[:, 0], np.log10(f.incident_mev))
    start = 1 + layers + 4 * wide
    np.testing.assert_array_equal(table[:, 1 + layers + wide], f.center_phi_mm[:, 0] / 100)
    np.testing.assert_array_equal(table[:, start], np.log10(f.total_mev + 1e-8))
    np.testing.assert_array_equal(table[:, start + 1 : start + 1 + layers], f.sparsity)
    np.testing.assert_array_equal(table[:, -layers:], f.width_r_mm / 100)
    np.testing.assert_allclose(f.total_mev, f.layer_mev.sum(axis=1))


def test_chunks_do_not_matter() -> None:
    events = random_events(SMALL, 11)
    once, often = (compute(events.chunks(size), SMALL) for size in (100, 3))
    np.testing.assert_array_equal(high_level(once), high_level(often))
    assert len(once) == 11
