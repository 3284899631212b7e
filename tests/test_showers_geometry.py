import math
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitsearch.core.errors import DataError
from bitsearch.models.showers.geometry import GEOMETRIES, build, embedded, read_binning, write_binning

SIZES = {"ds1-photon": (368, 5, 2), "ds1-pion": (533, 7, 4), "ds2": (6480, 45, 45)}


@pytest.mark.parametrize("name", GEOMETRIES)
def test_sizes_are_those_of_the_challenge(name: str) -> None:
    geometry = embedded(name)
    voxels, layers, alpha_layers = SIZES[name]
    assert (geometry.voxels, len(geometry.layers), len(geometry.alpha_layers)) == (
        voxels,
        layers,
        alpha_layers,
    )
    assert geometry.boundaries[-1] == voxels == sum(layer.n_r * layer.n_alpha for layer in geometry.layers)


def test_index_ranges() -> None:
    assert embedded("ds1-photon").boundaries == (0, 8, 168, 358, 363, 368)
    assert embedded("ds1-pion").boundaries == (0, 8, 108, 208, 213, 363, 523, 533)
    assert embedded("ds2").boundaries == tuple(range(0, 6481, 144))
    assert [layer.id for layer in embedded("ds1-photon").alpha_layers] == [1, 2]
    assert [layer.id for layer in embedded("ds1-pion").alpha_layers] == [1, 2, 12, 13]


def test_thresholds() -> None:
    assert embedded("ds1-pion").threshold_mev == 1.0
    assert embedded("ds2").threshold_mev == pytest.approx(0.01515, rel=1e-3)


def test_radius_is_fastest() -> None:
    layer = embedded("ds1-photon").layers[1]
    voxel = 3 * 16 + 2  # fourth sector, third ring: 4 to 6 mm
    assert layer.r_mm[voxel] == 5.0
    assert layer.alpha[voxel] == pytest.approx(-math.pi + 3.5 * 2 * math.pi / 10)
    assert layer.eta_mm[voxel] == pytest.approx(5 * math.cos(layer.alpha[voxel]))
    assert layer.phi_mm[voxel] == pytest.approx(5 * math.sin(layer.alpha[voxel]))


def test_layer_without_sectors_has_alpha_zero() -> None:
    assert np.all(embedded("ds1-photon").layers[0].alpha == 0)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_xml_round_trip(name: str, tmp_path: Path) -> None:
    path = tmp_path / "binning.xml"
    write_binning(path, embedded(name))
    text = path.read_text()
    assert text.count("<Layer") == (45 if name == "ds2" else 24)
    assert read_binning(path, embedded(name).particle) == embedded(name)


edges = st.lists(st.floats(0.5, 100), min_size=1, max_size=6).map(
    lambda steps: tuple(accumulate((0.0, *steps)))
)
layers = st.dictionaries(st.integers(0, 30), st.tuples(edges, st.integers(1, 20)), min_size=1, max_size=5)


@given(layers)
def test_any_layout_survives_the_xml(
    tmp_path_factory: pytest.TempPathFactory, bins: dict[int, tuple[tuple[float, ...], int]]
) -> None:
    bins = {id_: (tuple(float(f"{e:.12g}") for e in r), n) for id_, (r, n) in sorted(bins.items())}
    path = tmp_path_factory.mktemp("xml") / "mine.xml"
    geometry = build("mine", "electron", bins)
    write_binning(path, geometry)
    assert read_binning(path, "electron") == geometry


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not xml", "is not XML"),
        ("<Bins/>", "no Bin element"),
        ('<Bins><Bin name="photon"/></Bins>', "found photon"),
        ('<Bins><Bin name="pion"/></Bins>', "no layer has voxels"),
        ('<Bins><Bin name="pion"><Layer id="0" r_edges="0,1"/></Bin></Bins>', "n_bin_alpha"),
        ('<Bins><Bin name="pion"><Layer id="0" r_edges="0,x" n_bin_alpha="1"/></Bin></Bins>', "'x'"),
        ('<Bins><Bin name="pion"><Layer id="0" r_edges="0,2,1" n_bin_alpha="1"/></Bin></Bins>', "increasing"),
        ('<Bins><Bin name="pion"><Layer id="0" r_edges="0,nan" n_bin_alpha="1"/></Bin></Bins>', "increasing"),
        ('<Bins><Bin name="pion"><Layer id="0" r_edges="0,1" n_bin_alpha="0"/></Bin></Bins>', "1 or more"),
    ],
)
def test_broken_xml_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "binning.xml"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_binning(path, "pion")


def test_missing_xml_and_unknown_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such file"):
        read_binning(tmp_path / "none.xml", "pion")
    with pytest.raises(DataError, match=r"ds9.*expected one of ds1-photon, ds1-pion, ds2"):
        embedded("ds9")
    with pytest.raises(DataError, match="muon"):
        build("mine", "muon", {0: ((0.0, 1.0), 1)})
