import hashlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import DTypeLike, NDArray

from bitsearch.core.errors import DataError
from bitsearch.models.showers import files
from bitsearch.models.showers.files import Events, Label
from bitsearch.models.showers.geometry import build, embedded

PHOTON = embedded("ds1-photon")
LABEL = Label("test", "3", 7, "ds1-photon", "train")


def events(number: int = 25, voxels: int = 368, seed: int = 0) -> Events:
    rng = np.random.default_rng(seed)
    incident = 2.0 ** rng.integers(8, 23, number)
    return Events(incident, rng.exponential(1, (number, voxels)) * (rng.random((number, voxels)) < 0.3))


def foreign(path: Path, **datasets: NDArray[np.generic]) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            file[name] = values
    return path


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_written_files_read_back(dtype: DTypeLike, tmp_path: Path) -> None:
    path, sample = tmp_path / "a.h5", events(2500)
    files.write(path, sample.chunks(700), PHOTON, 2500, LABEL, dtype)
    back = files.read(path, PHOTON)
    assert back.showers_mev.dtype == dtype
    np.testing.assert_array_equal(back.showers_mev, sample.showers_mev.astype(dtype))
    np.testing.assert_array_equal(back.incident_mev, sample.incident_mev)
    part = files.read(path, PHOTON, 10, 13)
    np.testing.assert_array_equal(part.showers_mev, back.showers_mev[10:13])
    assert [len(chunk) for chunk in files.iterate(path, PHOTON)] == [1000, 1000, 500]
    assert files.label(path) == LABEL


def test_layout_is_the_challenges(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    files.write(path, events().chunks(), PHOTON, 25)
    with h5py.File(path) as file:
        assert set(file) == {"incident_energies", "showers"}
        assert file["incident_energies"].shape == (25, 1)
        assert file["showers"].shape == (25, 368)
        assert file["showers"].compression == "gzip"
        assert not file.attrs
    assert files.label(path) is None


def test_summary(tmp_path: Path) -> None:
    path, sample = tmp_path / "a.h5", events(1500)
    files.write(path, sample.chunks(), PHOTON, 1500, LABEL)
    summary = files.check(path)
    assert (summary.dataset, summary.events, summary.voxels, summary.dtype) == (
        "ds1-photon",
        1500,
        368,
        "float64",
    )
    assert summary.incident_range_mev == (sample.incident_mev.min(), sample.incident_mev.max())
    response = sample.showers_mev.sum(axis=1) / sample.incident_mev
    assert summary.mean_response == pytest.approx(response.mean())
    assert summary.sparsity == pytest.approx((sample.showers_mev < 1).mean())
    assert summary.label == LABEL
    assert summary.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_order_of_events_does_not_matter(tmp_path: Path) -> None:
    sample = events(50)
    first, second = tmp_path / "a.h5", tmp_path / "b.h5"
    files.write(first, sample.chunks(), PHOTON, 50)
    files.write(second, sample[np.argsort(sample.incident_mev)].chunks(), PHOTON, 50)
    a, b = files.check(first), files.check(second)
    assert a.mean_response == pytest.approx(b.mean_response)
    assert a.sparsity == b.sparsity


def test_own_geometry(tmp_path: Path) -> None:
    geometry = build("mine", "electron", {0: ((0.0, 1.0, 2.0), 3)})
    path = tmp_path / "a.h5"
    files.write(path, events(voxels=6).chunks(), geometry, 25)
    assert files.check(path, geometry).dataset == "mine"
    with pytest.raises(DataError, match=r"6 voxels; expected 368 \(ds1-photon\).*binning XML"):
        files.check(path)
    with pytest.raises(DataError, match="6 voxels; expected 368"):
        files.read(path, PHOTON)


ONES, VOXELS = np.ones((4, 1)), np.ones((4, 368))


@pytest.mark.parametrize(
    ("datasets", "message"),
    [
        ({"energies": ONES}, "no data set 'incident_energies' .found energies"),
        ({"incident_energies": ONES}, "no data set 'showers'"),
        ({}, "found nothing"),
        ({"incident_energies": ONES, "showers/a": VOXELS}, "no data set 'showers'"),
        ({"incident_energies": ONES[:3], "showers": VOXELS}, r"\(3, 1\) and showers \(4, 368\)"),
        ({"incident_energies": ONES[:, 0], "showers": VOXELS}, r"shape \(4,\)"),
        ({"incident_energies": ONES, "showers": VOXELS[0]}, r"shape \(368,\)"),
        ({"incident_energies": ONES[:0], "showers": VOXELS[:0]}, "at least one event"),
        ({"incident_energies": ONES, "showers": VOXELS.astype(int)}, "showers is int64"),
        ({"incident_energies": ONES, "showers": VOXELS.astype(np.float16)}, "showers is float16"),
        ({"incident_energies": ONES, "showers": VOXELS[:, :300]}, "300 voxels"),
    ],
)
def test_foreign_files_are_refused(
    datasets: dict[str, NDArray[np.generic]], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        files.check(foreign(tmp_path / "a.h5", **datasets))


@pytest.mark.parametrize(
    ("value", "message"),
    [(np.nan, "voxel 5 = nan"), (np.inf, "voxel 5 = inf"), (-0.5, "voxel 5 = -0.5")],
)
def test_bad_voxels_are_refused(value: float, message: str, tmp_path: Path) -> None:
    showers = np.ones((1500, 368))
    showers[1234, 5] = value
    path = foreign(tmp_path / "a.h5", incident_energies=np.ones((1500, 1)), showers=showers)
    with pytest.raises(DataError, match=f"event 1234 has {message} MeV .1 bad events.*remove"):
        files.check(path)


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_bad_incident_energies_are_refused(value: float, tmp_path: Path) -> None:
    incident = np.ones((4, 1))
    incident[2] = value
    with pytest.raises(DataError, match="event 2 has incident energy"):
        files.check(foreign(tmp_path / "a.h5", incident_energies=incident, showers=VOXELS))


def test_truncated_text_and_missing_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    files.write(path, events(200).chunks(), PHOTON, 200)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"cannot be read as HDF5.*truncated"):
        files.check(path)
    path.write_text("incident_energies,showers")
    with pytest.raises(DataError, match="cannot be read as HDF5"):
        files.check(path)
    with pytest.raises(DataError, match="no such file"):
        files.check(tmp_path / "none.h5")
    with pytest.raises(DataError, match="cannot be read as HDF5"):
        files.check(tmp_path)


def test_damaged_chunk_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    files.write(path, events(200).chunks(), PHOTON, 200)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 500] = bytes(500)
    path.write_bytes(content)
    with pytest.raises(DataError):
        files.check(path)


def test_failed_writes_leave_nothing_and_keep_the_old_file(tmp_path: Path) -> None:
    path, sample = tmp_path / "a.h5", events()
    files.write(path, sample.chunks(), PHOTON, 25)
    old = path.read_bytes()
    with pytest.raises(DataError, match="held 25 events; expected 30"):
        files.write(path, sample.chunks(), PHOTON, 30)
    with pytest.raises(DataError, match=r"shape \(25, 368\) after 0 events; expected 20 events"):
        files.write(path, sample.chunks(), PHOTON, 20)
    with pytest.raises(DataError, match="6480 voxels"):
        files.write(path, sample.chunks(), embedded("ds2"), 25)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_threshold() -> None:
    sample = Events(np.ones(1), np.array([[0.5, 1.0, 2.0]]))
    np.testing.assert_array_equal(sample.above(1.0).showers_mev, [[0, 1, 2]])
