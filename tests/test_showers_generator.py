import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad

from bitsearch.core.errors import DataError
from bitsearch.models.showers import electromagnetic, files, generator, hadronic
from bitsearch.models.showers.detector import STACKS
from bitsearch.models.showers.electromagnetic import Profile, Radial
from bitsearch.models.showers.geometry import GEOMETRIES, Array, Layer, embedded
from bitsearch.models.showers.medium import IRON_POLYSTYRENE, LEAD_ARGON, TUNGSTEN_SILICON, Medium

OPEN = tuple(Layer(i, (0.0, 1e9), 1, i) for i in range(45))  # the stack of ds2 without edges


@pytest.mark.parametrize(
    ("medium", "expected"),
    [
        (TUNGSTEN_SILICON, (72.5, 4.22, 10.87, 8.23, 2.48, 0.704, 0.15)),
        (LEAD_ARGON, (60.8, 19.1, 39.1, 10.3, 3.13, 0.691, 0.10)),
        (IRON_POLYSTYRENE, (25.4, 21.2, 21.2, 21.2, 1.24, 0.875, 0.28)),
    ],
)
def test_mediums(medium: Medium, expected: tuple[float, ...]) -> None:
    m = medium
    found = (m.z, m.x0_mm, m.moliere_mm, m.critical_mev, m.frequency, m.e_hat, m.sampling)
    assert found == pytest.approx(expected, rel=6e-3)


def test_check_values_of_tungsten_silicon() -> None:
    m = electromagnetic.moments(np.array([1.0, 10.0, 100.0, 1000.0]), TUNGSTEN_SILICON)
    np.testing.assert_allclose(np.exp(m.ln_t), [3.56, 5.86, 8.17, 10.47], atol=0.01)
    np.testing.assert_allclose(np.exp(m.ln_alpha), [2.97, 4.09, 5.22, 6.35], atol=0.01)
    ln_y = np.array([4.80, 7.10, 9.41, 11.71])
    np.testing.assert_allclose(m.correlation, 0.784 - 0.023 * ln_y, atol=2e-4)
    np.testing.assert_allclose(m.sigma_t, 1 / (-2.5 + 1.25 * ln_y), rtol=5e-3)


def test_drawn_shapes_have_the_moments() -> None:
    energy = np.full(40_000, 50.0)
    m = electromagnetic.moments(energy[:1], TUNGSTEN_SILICON)
    shape = electromagnetic.draw_shape(np.random.default_rng(1), energy, TUNGSTEN_SILICON)
    ln_t, ln_alpha = np.log(shape.t_max), np.log(shape.alpha)
    assert ln_t.mean() == pytest.approx(m.ln_t[0], abs=4 * m.sigma_t[0] / 200)
    assert ln_alpha.mean() == pytest.approx(m.ln_alpha[0], abs=4 * m.sigma_alpha[0] / 200)
    assert ln_t.std() == pytest.approx(m.sigma_t[0], rel=0.02)
    assert ln_alpha.std() == pytest.approx(m.sigma_alpha[0], rel=0.02)
    assert np.corrcoef(ln_t, ln_alpha)[0, 1] == pytest.approx(m.correlation[0], abs=0.02)


def test_profile_against_numerical_integration() -> None:
    alpha, beta = 3.7, 0.55
    profile = Profile(np.array([alpha]), np.array([beta]))
    near, far = np.array([[0.0, 2.0, 7.5]]), np.array([[2.0, 7.5, 30.0]])

    def density(t: float) -> float:
        return float(stats.gamma.pdf(t, alpha, scale=1 / beta))

    ranges = list(zip(near[0], far[0], strict=True))
    energy = np.array([quad(density, a, b)[0] for a, b in ranges])
    first = np.array([quad(lambda t: t * density(t), a, b)[0] for a, b in ranges])
    np.testing.assert_allclose(profile.fractions(near, far)[0], energy, rtol=1e-8)
    np.testing.assert_allclose(profile.mean_depths(near, far)[0], first / energy, rtol=1e-8)


def test_radial_shares_against_numerical_integration() -> None:
    lateral = Radial(np.array([0.7]), np.array([2.0]), np.array([15.0]))

    def by_area(r: float) -> float:
        return float(lateral.density(np.array([[r * r]]))[0, 0])

    total = quad(lambda r: by_area(r) * r, 0, np.inf)[0]
    radii = np.array([1.0, 4.0, 40.0])
    expected = [quad(lambda r: by_area(r) * r, 0, end)[0] / total for end in radii]
    np.testing.assert_allclose(lateral.inside(radii)[0], expected, rtol=1e-6)


def test_radial_formulas_by_hand() -> None:
    lateral = electromagnetic.radial(np.array([math.e**2]), np.array([1.0]), LEAD_ARGON)
    z, f, d, r = LEAD_ARGON.z, LEAD_ARGON.frequency, 1 - LEAD_ARGON.e_hat, LEAD_ARGON.moliere_mm
    core = 0.0251 + 2 * 0.00319 + 0.1162 - 0.000381 * z - 0.0203 * d + 0.0397 / f / math.e
    rise = np.exp(-2.59 * 0.355) + np.exp((0.3585 + 2 * 0.0421) * 0.355)
    tail = (0.659 - 0.00309 * z) * rise - 0.14 * d - 0.495 / f / math.e
    u = (0.401 + 0.00187 * z - 1) / (1.313 - 2 * 0.0686)
    share = (2.632 - 0.00094 * z) * np.exp(u - np.exp(u)) + d * (0.348 - 0.642 / f)
    assert lateral.core_mm[0] == pytest.approx(core * r)
    assert lateral.tail_mm[0] == pytest.approx(tail * r)
    assert lateral.core_share[0] == pytest.approx(share)


@pytest.mark.parametrize("energy_gev", [0.5, 20.0])
def test_layer_means_follow_the_drawn_profiles(energy_gev: float) -> None:
    energy, start = np.full(3000, energy_gev), np.full(3000, 1.3)
    stack = STACKS["ds2"]
    shape = electromagnetic.draw_shape(np.random.default_rng(5), energy, TUNGSTEN_SILICON)
    depths = np.maximum(stack.depth_x0 - 1.3, 0)
    expected = energy_gev * shape.energy().fractions(depths[:, 0], depths[:, 1])
    found = electromagnetic.shower(np.random.default_rng(5), energy, start, OPEN, stack)
    error = (found - expected).std(axis=0) / np.sqrt(3000)
    filled = expected.mean(axis=0) > 1e-3 * energy_gev
    pull = (found - expected).mean(axis=0)[filled] / error[filled]
    assert filled.sum() > 15
    assert np.abs(pull).max() < 4.5
    assert (pull**2).mean() < 2


def test_sampling_term() -> None:
    energy = np.full(4000, 30.0)
    found = electromagnetic.shower(np.random.default_rng(2), energy, np.zeros(4000), OPEN, STACKS["ds2"]).sum(
        axis=1
    )
    assert found.mean() == pytest.approx(30, rel=0.003)
    assert found.std() / found.mean() == pytest.approx(0.15 / np.sqrt(30), rel=0.1)


@pytest.mark.parametrize(("radii", "low", "high"), [(1, 0.88, 0.92), (2, 0.94, 0.98)])
def test_moliere_radius_contains_nine_tenths(radii: float, low: float, high: float) -> None:
    tube = tuple(Layer(i, (0.0, radii * TUNGSTEN_SILICON.moliere_mm), 1, i) for i in range(45))
    energy = np.full(500, 50.0)
    inside = electromagnetic.shower(np.random.default_rng(3), energy, np.zeros(500), tube, STACKS["ds2"])
    assert low < inside.sum(axis=1).mean() / 50 < high


def test_few_spots_keep_the_mean() -> None:
    layer, rng = Layer(0, (0.0, 5.0, 10.0), 4, 0), np.random.default_rng(3)
    lateral = Radial(*(np.full(20_000, x) for x in (0.6, 2.0, 8.0)))
    shares = electromagnetic.deposit(rng, np.full(20_000, 0.3), layer, lateral, np.zeros((2, 20_000)))
    inside = lateral.inside(np.array([10.0]))[0, 0]
    filled = shares.sum(axis=1) / -np.expm1(-0.3)
    assert filled.mean() == pytest.approx(inside, abs=4 * filled.std() / np.sqrt(20_000))
    rings = shares.mean(axis=0).reshape(4, 2)
    np.testing.assert_allclose(rings, np.broadcast_to(rings.mean(axis=0), (4, 2)), rtol=0.15)


def test_displaced_axis_moves_the_energy_centre() -> None:
    layer, ones = embedded("ds2").layers[0], np.ones(200)
    lateral = Radial(0.8 * ones, 1.5 * ones, 8 * ones)
    axis = np.array([2 * ones, 0 * ones])
    shares = electromagnetic.deposit(np.random.default_rng(4), 500 * ones, layer, lateral, axis)
    assert (shares @ layer.eta_mm).mean() > 0.5
    assert abs((shares @ layer.phi_mm).mean()) < 0.1


@pytest.mark.parametrize("name", GEOMETRIES)
def test_showers_are_physical(name: str) -> None:
    geometry = embedded(name)
    incident = generator.incident_energies(name, 300, 1, "test")
    showers = generator.simulate(np.random.default_rng(1), name, incident).showers_mev
    assert showers.shape == (300, geometry.voxels)
    assert np.isfinite(showers).all()
    assert (showers[showers > 0] >= geometry.threshold_mev).all()
    response = showers.sum(axis=1) / incident
    hard = incident > 4000
    low, high = (0.55, 0.95) if name == "ds1-pion" else (0.95, 1.02)
    assert low < response[hard].mean() < high
    assert response.max() < 2.5


@pytest.mark.parametrize("name", ["ds1-photon", "ds1-pion"])
def test_ds1_composition(name: str) -> None:
    events = 121_000 if name == "ds1-photon" else 120_800
    incident = generator.incident_energies(name, events, 1, "train")
    energies, counts = np.unique(incident, return_counts=True)
    assert energies.tolist() == [2.0**k for k in range(8, 23)]
    tenth = 10_000 if name == "ds1-photon" else 9_800
    assert counts.tolist() == [10_000] * 10 + [tenth, 5_000, 3_000, 2_000, 1_000]
    assert len(generator.incident_energies(name, 777, 1, "train")) == 777


def test_ds2_energies_are_log_uniform() -> None:
    incident = generator.incident_energies("ds2", 5000, 1, "train")
    assert stats.kstest(np.log10(incident), stats.uniform(3, 3).cdf).pvalue > 1e-3


@pytest.mark.parametrize("name", ["ds1-photon", "ds1-pion"])
def test_files_are_reproducible_and_independent_of_workers(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generator, "CHUNK", 100)
    shares: list[float] = []
    one = generator.make(name, 330, 3, tmp_path / "1.h5", workers=1)
    three = generator.make(
        name, 330, 3, tmp_path / "3.h5", workers=3, progress=lambda _, share: shares.append(share)
    )
    assert one.read_bytes() == three.read_bytes()
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    others = [
        generator.make(name, 330, 4, tmp_path / "seed.h5"),
        generator.make(name, 330, 3, tmp_path / "role.h5", "reference"),
    ]
    first = files.read(one, embedded(name)).showers_mev
    assert all((files.read(other, embedded(name)).showers_mev != first).any(axis=1).all() for other in others)


def test_made_files_pass_the_check(tmp_path: Path) -> None:
    summary = files.check(generator.make("ds2", 60, 3, tmp_path / "a.h5", role="reference"))
    assert (summary.dataset, summary.events, summary.dtype) == ("ds2", 60, "float32")
    assert summary.label is not None
    assert (summary.label.seed, summary.label.dataset, summary.label.role) == (3, "ds2", "reference")
    assert "parametrised" in summary.label.generator
    assert summary.label.version == generator.VERSION


def test_bad_requests_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="ds3"):
        generator.make("ds3", 10, 1, tmp_path / "a.h5")
    with pytest.raises(DataError, match="0 events"):
        generator.make("ds2", 0, 1, tmp_path / "a.h5")
    with pytest.raises(DataError, match="seed -1"):
        generator.make("ds2", 1, -1, tmp_path / "a.h5")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written"):
        generator.make("ds2", 1, 1, tmp_path / "file" / "a.h5")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(generator, "user_cache_path", lambda name: tmp_path / name)
    return tmp_path / "bitsearch" / "showers"


def test_default_files_are_made_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(generator.default_files, "ds1-photon", events=500) for _ in range(2)]
    train, reference = calls[0].result()
    assert calls[1].result() == (train, reference)
    assert sorted(cache.iterdir()) == sorted((train, reference))
    times = [path.stat().st_mtime_ns for path in (train, reference)]
    assert generator.default_files("ds1-photon", events=500) == (train, reference)
    assert [path.stat().st_mtime_ns for path in (train, reference)] == times
    monkeypatch.setattr(generator, "VERSION", "next")
    assert generator.default_files("ds1-photon", events=500)[0] != train


def test_pion_loses_no_more_than_it_has() -> None:
    rng = np.random.default_rng(6)
    energy, start = np.full(2000, 0.256), rng.exponential(1.0, 2000)
    losses, left = hadronic.ionize(rng, energy, start)
    np.testing.assert_allclose(losses.sum(axis=1) + left, energy)
    assert losses.min() >= 0
    assert left.min() >= 0
    assert (losses[start < 0.42, 1:] == 0).all()


def test_electromagnetic_share_grows_with_energy() -> None:
    rng = np.random.default_rng(7)
    for energy in (10.0, 100.0, 1000.0):
        share = hadronic.electromagnetic_share(rng, np.full(20_000, energy))
        assert share.mean() == pytest.approx(1 - energy**-0.18, abs=0.01)
        assert share.std() == pytest.approx(0.18, rel=0.1)


def test_spots_fall_into_their_voxel() -> None:
    layers = embedded("ds1-pion").layers
    depth = np.array([0.5, 3.0, 3.0, 0.1, 2.0, 50.0])
    xy = np.array([[8.0, -25.0, 0.0, 1.0, 1.0, 1.0], [1.0, -1.0, 5000.0, 1.0, 1.0, 1.0]])
    spots = hadronic.Spots(np.array([0, 1, 1, 0, 0, 0]), depth, xy, np.arange(1.0, 7.0))
    voxels = hadronic.voxelize(spots, 2, layers)
    expected: Array = np.zeros((2, 533))
    expected[0, 8 + 5 * 10 + 3] = (
        1.0  # layer 1: alpha just above 0 is the sixth sector, r = 8.06 mm the fourth ring
    )
    expected[1, 213 + 0 * 15 + 2] = 2.0  # layer 12: alpha just above -pi is the first sector, r = 25 mm
    np.testing.assert_array_equal(voxels, expected)


def test_subshowers_share_the_energy() -> None:
    energy = np.array([0.0, 3.0, 80.0])
    subs = hadronic.subshowers(np.random.default_rng(8), energy, energy, np.ones(3), rate=1.2)
    np.testing.assert_allclose(np.bincount(subs.event, subs.energy_gev, 3), energy, atol=1e-12)


def test_larger_sampling_term_widens_the_response() -> None:
    incident = np.full(2000, 8192.0)
    stack = STACKS["ds1-photon"]
    wide = replace(stack, mediums=tuple(replace(m, sampling=1.2 * m.sampling) for m in stack.mediums))
    spread = [
        generator.simulate(np.random.default_rng(1), "ds1-photon", incident, s).showers_mev.sum(axis=1).std()
        for s in (stack, wide)
    ]
    assert spread[1] / spread[0] == pytest.approx(1.2, abs=0.08)
