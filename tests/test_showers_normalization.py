"""Showers to columns and back, held to a literal float64 implementation of the specification."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bitsearch.models.showers.files import Events
from bitsearch.models.showers.geometry import GEOMETRIES, Geometry, build
from bitsearch.models.showers.normalization import Denormalization, Selection, normalize

Array = NDArray[np.float64]
EVERYTHING = Selection((0.0, np.inf))
# Two layers of two voxels and one of a single voxel.
SMALL = build("small", "photon", {0: ((0.0, 1.0, 2.0), 1), 1: ((0.0, 1.0), 2), 2: ((0.0, 5.0), 1)})
NOISE = {"ds1-photon": 5e-6, "ds1-pion": 5e-6, "ds2": 1e-6}


def one(showers: list[float], incident: float = 10_000.0) -> Events:
    return Events(np.array([incident]), np.array([showers]))


def random_showers(geometry: Geometry, count: int, seed: int = 1) -> Events:
    """Draw showers with empty voxels, empty layers, and one that is empty altogether."""
    rng = np.random.default_rng(seed)
    voxels = rng.exponential(100.0, (count, geometry.voxels)) * (rng.random((count, geometry.voxels)) < 0.6)
    for event, layer in enumerate(rng.integers(0, len(geometry.layers), count)):
        voxels[event, geometry.layers[layer].start : geometry.layers[layer].stop] = 0
    voxels[0] = 0
    return Events(voxels.sum(1) * rng.uniform(0.8, 1.5, count) + 1000.0, voxels)


def test_columns_by_hand() -> None:
    """E_0 = 4, E_1 = 3, E_2 = 1 GeV of 10 GeV: u = (8/10, 4/8, 3/4)."""
    columns, condition = normalize(one([1000.0, 3000.0, 3000.0, 0.0, 1000.0]), SMALL, EVERYTHING)
    np.testing.assert_allclose(columns, [[0.25, 0.75, 1.0, 0.0, 1.0, 0.8, 0.5, 0.75]], rtol=1e-6)
    np.testing.assert_allclose(condition, [[1.0]], rtol=1e-6)
    assert columns.dtype == condition.dtype == np.float32


def test_empty_layers_stay_zero() -> None:
    columns, _ = normalize(one([0.0, 0.0, 1000.0, 1000.0, 0.0]), SMALL, EVERYTHING)
    np.testing.assert_allclose(columns, [[0, 0, 0.5, 0.5, 0, 0.2, 0, 1]], rtol=1e-6)
    columns, _ = normalize(one([0.0] * 5), SMALL, EVERYTHING)
    assert not columns.any()


@pytest.mark.parametrize(
    ("selection", "kept"),
    [
        (EVERYTHING, [0, 1, 2, 3]),
        (Selection((0.0, 3.0)), [0, 1, 2]),  # below the upper cut, which is excluded
        (Selection((1.0, 10.0)), [1, 2, 3]),  # from the lower cut on, which is included
        (Selection((0.0, 10.0), 2.0), [0, 1]),  # every voxel below the voxel cut
    ],
)
def test_selection(selection: Selection, kept: list[int]) -> None:
    responses = np.array([0.5, 1.0, 2.0, 3.0])
    events = Events(np.full(4, 1000.0), np.outer(responses * 1000.0, [1.0, 0, 0, 0, 0]))
    columns, condition = normalize(events, SMALL, selection)
    np.testing.assert_allclose(columns[:, 5], responses[kept], rtol=1e-6)
    assert len(condition) == len(kept)


@pytest.mark.parametrize("dataset", GEOMETRIES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_columns_follow_their_definition(dataset: str, dtype: type[np.floating]) -> None:
    """Section 2 of the specification, event by event and layer by layer."""
    geometry = GEOMETRIES[dataset]
    drawn = random_showers(geometry, 6)
    events = Events(drawn.incident_mev.astype(dtype), drawn.showers_mev.astype(dtype))
    columns, condition = normalize(events, geometry, EVERYTHING)
    assert columns.shape == (6, geometry.voxels + len(geometry.layers))
    for row in range(6):
        voxels, incident = (
            events.showers_mev[row].astype(float) / 1000,
            float(events.incident_mev[row]) / 1000,
        )
        layers = [voxels[start:stop] for start, stop in pairwise(geometry.boundaries)]
        energies = [float(layer.sum()) for layer in layers]
        shares = np.concatenate([layer / (e + 1e-10) for layer, e in zip(layers, energies, strict=True)])
        ratios = [sum(energies) / incident]
        ratios += [energies[i - 1] / (sum(energies[i - 1 :]) + 1e-10) for i in range(1, len(energies))]
        np.testing.assert_allclose(columns[row], [*shares, *ratios], rtol=1e-5, atol=1e-7)
        assert condition[row, 0] == pytest.approx(np.log10(incident), rel=1e-5)


@pytest.mark.parametrize("dataset", GEOMETRIES)
def test_normalised_showers_come_back(dataset: str) -> None:
    geometry = GEOMETRIES[dataset]
    events = random_showers(geometry, 8)
    columns, condition = normalize(events, geometry, EVERYTHING)
    incident = torch.from_numpy(1000 * 10 ** condition.astype(np.float64)).float()
    back = Denormalization(geometry.boundaries, 0.0)(torch.from_numpy(columns), incident).numpy()
    scale = events.showers_mev.max(1, keepdims=True) + 1
    np.testing.assert_allclose(back / scale, events.showers_mev / scale, atol=2e-6)


def literal(columns: Array, incident_mev: Array, boundaries: tuple[int, ...], width: float) -> Array:
    """Follow section 10, points 3 to 6, event by event."""
    showers = np.zeros((len(columns), boundaries[-1]))
    for row, line in enumerate(columns):
        cut = np.array([0.0 if value - width < width else value - width for value in line])
        voxels, u = cut[: boundaries[-1]], cut[boundaries[-1] :]
        u[1:] = np.clip(u[1:], 0.0, 1.0)
        rest = incident_mev[row] / 1000 * u[0]
        for layer, (start, stop) in enumerate(pairwise(boundaries)):
            energy = rest * u[layer + 1] if layer + 1 < len(u) else rest
            rest -= energy
            showers[row, start:stop] = 1000 * voxels[start:stop] * energy / (voxels[start:stop].sum() + 1e-10)
    return showers


@pytest.mark.parametrize("dataset", GEOMETRIES)
def test_denormalisation_is_the_published_postprocessing(dataset: str) -> None:
    """Layers of one size take another path than layers of several; both meet zeros, cuts and ratios above 1."""
    geometry, width = GEOMETRIES[dataset], NOISE[dataset]
    rng = np.random.default_rng(3)
    size = (7, geometry.voxels + len(geometry.layers))
    columns = rng.uniform(0.01, 1.3, size)
    columns[rng.random(size) < 0.4] = 0.0
    columns[rng.random(size) < 0.1] = 1.5 * width
    columns[rng.random(size) < 0.1] = 3 * width
    columns[1, : geometry.layers[1].stop] = 0
    columns[2, : geometry.voxels] = 1.9 * width
    columns[3, geometry.voxels] = 2.5
    columns = columns.astype(np.float32).astype(np.float64)
    incident = rng.uniform(300.0, 4e6, 7).astype(np.float32).astype(np.float64)
    expected = literal(columns, incident, geometry.boundaries, width)
    double = Denormalization(geometry.boundaries, width)(
        torch.from_numpy(columns), torch.from_numpy(incident[:, None])
    )
    np.testing.assert_allclose(double.numpy(), expected, rtol=1e-9, atol=1e-9)
    single = Denormalization(geometry.boundaries, width)(
        torch.from_numpy(columns).float(), torch.from_numpy(incident[:, None]).float()
    )
    scale = expected.max(1, keepdims=True) + 1e-3
    np.testing.assert_allclose(single.numpy() / scale, expected / scale, atol=1e-5)
    assert (expected[2] == 0).all()
    assert (expected[0] > 0).any()


def test_threshold_is_twice_the_width() -> None:
    width = 2.0**-10
    columns = torch.tensor([[2.0 * width, 1.999 * width, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]])
    showers = Denormalization((0, 2, 4, 5), width)(columns, torch.tensor([[1000.0]]))
    assert (showers[0, 0] > 0, showers[0, 1] == 0) == (True, True)


def test_no_energy_is_made_from_an_empty_layer() -> None:
    """A negative sum cannot occur, and a layer without shares loses its energy instead of dividing by 1e-10."""
    columns = torch.tensor([[0.0, 0.0, 0.5, 0.5, 1.0, 1.0, 0.5, 1.0]])
    showers = Denormalization((0, 2, 4, 5), 0.0)(columns, torch.tensor([[1000.0]]))
    assert showers.tolist() == [pytest.approx([0.0, 0.0, 250.0, 250.0, 0.0])]
