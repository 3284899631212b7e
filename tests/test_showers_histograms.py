import numpy as np
import pytest

from bitsearch.core.errors import DataError
from bitsearch.core.measurement import Histogram
from bitsearch.models.metrics.separation import noise, separation
from bitsearch.models.showers.files import Events
from bitsearch.models.showers.generator import incident_energies, simulate
from bitsearch.models.showers.geometry import embedded
from bitsearch.models.showers.histograms import compare, energy, profiles

PHOTON = embedded("ds1-photon")


def sample(name: str, events: int, seed: int) -> Events:
    return simulate(np.random.default_rng(seed), name, incident_energies(name, events, seed, "test"))


def by_name(histograms: tuple[Histogram, ...]) -> dict[str, Histogram]:
    return {histogram.name: histogram for histogram in histograms}


@pytest.mark.parametrize(
    ("reference", "generated", "expected"),
    [
        ([1, 2, 3], [2, 4, 6], 0),
        ([1, 1, 0], [0, 0, 5], 1),
        ([3, 1], [1, 3], 0.25),  # h = 3/4, 1/4: 1/2 (1/4 + 1/4)
        ([1, 0], [1, 1], (0.25 / 1.5 + 0.25 / 0.5) / 2),
        ([0, 0], [0, 0], 0),
        ([0, 0], [1, 2], 1),
    ],
)
def test_separation_by_hand(reference: list[float], generated: list[float], expected: float) -> None:
    a, b = np.array(reference, float), np.array(generated, float)
    assert separation(a, b) == pytest.approx(expected)
    assert separation(b, a) == pytest.approx(expected)


def test_noise_is_what_equal_distributions_give() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.multinomial(4000, [0.1] * 10, 500), rng.multinomial(9000, [0.1] * 10, 500)
    measured = separation(a.astype(float), b.astype(float))
    assert noise(a[0].astype(float), b[0].astype(float)) == pytest.approx(measured.mean(), rel=0.1)


def test_spread_is_that_of_repeated_sampling() -> None:
    histograms = [
        by_name(compare(sample("ds1-photon", 800, s), sample("ds1-photon", 800, 50 + s), PHOTON))
        for s in range(12)
    ]
    for name in ("response", "width-eta-layer-2", "voxels"):
        values = [h[name].separation.value for h in histograms]
        claimed = [h[name].separation.std or 0 for h in histograms]
        assert 0.4 < np.std(values) / np.mean(claimed) < 2


def test_photon_plots() -> None:
    reference, generated = sample("ds1-photon", 400, 1), sample("ds1-photon", 300, 2)
    found = by_name(compare(reference, generated, PHOTON))
    assert len(found) == 1 + 15 + 5 + 4 * 2 + 5 * 3 + 1
    response = reference.showers_mev.sum(axis=1) / reference.incident_mev
    expected, edges = np.histogram(response, 100, (0.5, 1.5))
    assert found["response"].reference == tuple(expected)
    np.testing.assert_allclose(found["response"].edges, edges)
    energy = reference.showers_mev[:, 8:168].sum(axis=1)
    np.testing.assert_allclose(found["energy-layer-1"].edges, np.geomspace(1, energy.max(), 40))
    assert found["energy-layer-1"].logarithmic
    assert sum(found["energy-layer-1"].reference) == (energy >= 1).sum()
    np.testing.assert_allclose(found["voxels"].edges, np.geomspace(1, reference.showers_mev.max(), 50))
    assert sum(found["voxels"].reference) == np.count_nonzero(reference.showers_mev)
    assert (found["response-2048-mev"].edges[0], found["response-4096-mev"].edges[0]) == (0.4, 0.9)
    assert len(found["response-4096-mev"].edges) == 21
    assert found["center-eta-layer-1"].edges[0] == -100
    assert found["center-r-layer-12"].edges[-1] == 1500
    assert found["width-r-layer-3"].edges[-1] == 500
    assert found["sparsity-layer-2"].label == "Share of empty voxels in layer 2"
    assert sum(found["sparsity-layer-2"].generated) == 300


def test_electron_ranges() -> None:
    events = sample("ds2", 20, 1)
    found = by_name(compare(events, events, embedded("ds2")))
    assert len(found) == 1 + 45 * 8 + 1
    assert all(histogram.separation.value == 0 for histogram in found.values())
    assert found["center-phi-layer-44"].edges[0] == -30
    assert found["center-r-layer-7"].edges[-1] == 42
    assert found["width-r-layer-7"].edges[-1] == 20
    assert found["voxels"].edges[0] == pytest.approx(0.01515, rel=1e-3)


def test_pion_ranges() -> None:
    events = sample("ds1-pion", 60, 1)
    found = by_name(compare(events, events, embedded("ds1-pion")))
    assert found["center-eta-layer-13"].edges[-1] == 500
    assert found["width-phi-layer-12"].edges[-1] == 400
    assert found["center-r-layer-14"].edges[-1] == 1500
    assert found["response-65536-mev"].edges[0] == 0.4


def test_shifted_energies_separate() -> None:
    events = sample("ds1-photon", 2000, 1)
    shifted = Events(events.incident_mev, events.showers_mev * 1.1)
    found = by_name(compare(events, shifted, PHOTON))
    assert found["response"].separation.value > 0.4
    assert found["response"].separation.value > 20 * (found["response"].separation.std or 0)
    assert found["sparsity-layer-2"].separation.value < 0.01


def test_nan_is_refused() -> None:
    events = sample("ds1-photon", 20, 1)
    broken = Events(events.incident_mev, events.showers_mev.copy())
    broken.showers_mev[7, 3] = np.nan
    with pytest.raises(DataError, match="generated showers: event 7 has voxel 3 = nan"):
        compare(events, broken, PHOTON)
    with pytest.raises(DataError, match="reference showers: event 7"):
        compare(broken, events, PHOTON)


def test_profiles() -> None:
    a, b = sample("ds1-photon", 200, 1), sample("ds1-photon", 100, 2)
    energy, radius, sparsity = profiles(a, b, PHOTON)
    assert energy.positions == (0.0, 1.0, 2.0, 3.0, 12.0)
    assert energy.reference[1] == pytest.approx(a.showers_mev[:, 8:168].sum(axis=1).mean())
    assert energy.generated[0] == pytest.approx(b.showers_mev[:, :8].sum(axis=1).mean())
    assert 0 < radius.reference[2] < 400
    assert 0 < sparsity.reference[2] < 1


@pytest.mark.parametrize(
    ("mev", "text"), [(256, "256 MeV"), (1024, "1.0 GeV"), (65536, "66 GeV"), (2097152, "2.1 TeV")]
)
def test_energies_have_a_unit_that_can_be_read(mev: float, text: str) -> None:
    assert energy(mev) == text
