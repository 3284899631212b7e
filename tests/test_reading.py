"""Hostile and unlucky data files end in one line, before what they claim costs memory or time."""

import io
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from jet_files import energyflow, wz_jets

from bitsearch.core.errors import DataError
from bitsearch.models.jets import quark_gluon, wz
from bitsearch.models.jets.files import Label as JetLabel
from bitsearch.models.showers import files
from bitsearch.models.showers.files import Events, Label
from bitsearch.models.showers.geometry import build, embedded, read_binning

PHOTON = embedded("ds1-photon")


def header(shape: tuple[int, ...], descr: str = "<f8") -> bytes:
    """Write the header of an npy file by hand, as numpy's format says: magic, version, length, dict."""
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def archive(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return path


def array(values: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


X, Y = array(energyflow()["X"]), array(energyflow()["y"])
NPZ: dict[str, tuple[dict[str, bytes], str]] = {
    "member no npy": ({"X": b"text", "y": Y}, "magic string"),
    "empty member": ({"X": b"", "y": Y}, "cannot be read as npz or HDF5"),
    "broken header": ({"X": header((12, 9, 4)).replace(b"descr", b"desc\n"), "y": Y}, "cannot be read"),
    "no literal": ({"X": header((12, 9, 4), "'+open('x')+'"), "y": Y}, "cannot be read"),
    "terabytes": ({"X": header((10**9, 139, 4)), "y": Y}, "holds 0 bytes behind a header that says float64"),
    "negative": ({"X": header((-1, 139, 4)), "y": Y}, r"an array of shape \(-1, 139, 4\)"),
    "overflow": ({"X": header((2**62, 8)), "y": Y}, "holds 0 bytes behind a header"),
    "short": ({"X": X[:-8], "y": Y}, r"behind a header that says float64 of shape \(12, 9, 4\); expected 3,456"),
}  # fmt: skip


@pytest.mark.parametrize(("members", "message"), NPZ.values(), ids=NPZ)
def test_npz(members: dict[str, bytes], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message) as caught:
        quark_gluon.read(archive(tmp_path / "a.npz", **members))
    assert str(caught.value).startswith(f"{tmp_path / 'a.npz'}: ")
    assert len(str(caught.value).splitlines()) == 1


def test_zip_bombs_are_not_unpacked(tmp_path: Path) -> None:
    """A quarter of a gigabyte of zeros in a quarter of a megabyte, as a consistent array."""
    jets = 60_000
    with (
        zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as file,
        file.open("X.npy", "w", force_zip64=True) as member,
    ):
        member.write(header((jets, 139, 4)))
        for _ in range(10):
            member.write(bytes(jets * 139 * 4 * 8 // 10))
    with pytest.raises(DataError, match=r"X.npy claims 266,880,000 bytes, of which 2\d\d,\d{3} are stored"):
        quark_gluon.read(tmp_path / "bomb.npz")


READERS: dict[str, Callable[[Path], object]] = {
    "quark-gluon": quark_gluon.read,
    "wz": wz.read,
    "showers": files.check,
    "binning": lambda path: read_binning(path, "photon"),
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_what_is_no_file(reader: Callable[[Path], object], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npz")
    for path in (tmp_path / "pipe.npz", tmp_path):
        with pytest.raises(DataError, match=r"cannot be read as [\w ]+ \(it is no regular file\)"):
            reader(path)


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_sparse_files_are_not_read(reader: Callable[[Path], object], tmp_path: Path) -> None:
    path = tmp_path / "sparse.h5"
    path.touch()
    os.truncate(path, 2**43)
    with pytest.raises(DataError, match=r"the file claims 8,796,093,022,208 bytes, of which 0 are stored"):
        reader(path)


def showers(path: Path, number: int = 4, attributes: Mapping[str, object] | None = None) -> Path:
    rng = np.random.default_rng(0)
    incident = 2.0 ** rng.integers(8, 23, number)
    files.write(path, [Events(incident, rng.exponential(1, (number, 368)))], PHOTON, number)
    with h5py.File(path, "a") as file:
        file.attrs.update(attributes or {})
    return path


def replaced(path: Path, name: str, **how: Any) -> Path:
    with h5py.File(path, "a") as file:
        del file[name]
        file.create_dataset(name, **how)
    return path


def test_hdf5_that_claims_more_than_it_stores(tmp_path: Path) -> None:
    path = replaced(showers(tmp_path / "a.h5"), "showers", shape=(2**50, 368), dtype="f8")
    with pytest.raises(
        DataError, match="showers claims 3,314,649,325,744,685,056 bytes, of which 0 are stored"
    ):
        files.check(path, PHOTON)


def test_hdf5_chunks_are_small(tmp_path: Path) -> None:
    path = replaced(
        showers(tmp_path / "a.h5"), "showers", shape=(320_000, 368), chunks=(320_000, 368), dtype="f8",
        compression="gzip",
    )  # fmt: skip
    with pytest.raises(DataError, match="showers is stored in chunks of 898 MB; expected at most 128 MB"):
        files.check(path, PHOTON)


def test_values_stay_in_their_own_file(tmp_path: Path) -> None:
    """A data set may not read another file of the machine, by any of HDF5's three ways."""
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(4 * 368 * 8))
    raw = replaced(
        showers(tmp_path / "raw.h5"), "showers", shape=(4, 368), dtype="f8", external=[(str(secret), 0, 4 * 368 * 8)]
    )  # fmt: skip
    linked = showers(tmp_path / "linked.h5")
    virtual = showers(tmp_path / "virtual.h5")
    with h5py.File(linked, "a") as file:
        del file["showers"]
        file["showers"] = h5py.ExternalLink(str(virtual), "showers")
    for path, message in ((raw, "stored in other files"), (linked, "is a link to")):
        with pytest.raises(DataError, match=f"showers .*{message}.*; expected values in the file itself"):
            files.check(path, PHOTON)
    with h5py.File(virtual, "a") as file:
        del file["showers"]
        layout = h5py.VirtualLayout((4, 368), "f8")
        layout[:] = h5py.VirtualSource(str(raw), "showers", (4, 368))
        file.create_virtual_dataset("showers", layout)
    with pytest.raises(DataError, match="stored in other files"):
        files.check(virtual, PHOTON)


def test_labels(tmp_path: Path) -> None:
    label = {"generator": "g", "version": "1", "seed": "abc", "dataset": "ds1-photon", "role": "train"}
    with pytest.raises(DataError, match="its label says seed = 'abc'; expected texts and a whole seed"):
        files.check(showers(tmp_path / "a.h5", attributes=label))
    with pytest.raises(DataError, match="its label says role = "):
        files.check(showers(tmp_path / "b.h5", attributes={**label, "seed": 1, "role": 7}))
    table = quark_gluon.read(archive(tmp_path / "x.npz", X=X, y=Y))
    odd = JetLabel("g", "1", "quark-gluon", "abc", {}, {})  # type: ignore[arg-type]
    for suffix in ("npz", "h5"):
        quark_gluon.write(tmp_path / f"c.{suffix}", table, odd)
        with pytest.raises(DataError, match="its label says seed = 'abc'; expected int"):
            quark_gluon.check(tmp_path / f"c.{suffix}")


@pytest.mark.parametrize(
    ("incident", "voxel", "message"),
    [
        (1000.0, 1e300, r"event 2 has voxel 5 = 1e\+300 MeV"),
        (1000.0, np.inf, "event 2 has voxel 5 = inf MeV"),
        (1000.0, -1e-30, "event 2 has voxel 5 = -1e-30 MeV"),
        (5e-324, 1.0, "event 2 has incident energy 0 = 5e-324 MeV"),
        (1e300, 1.0, r"event 2 has incident energy 0 = 1e\+300 MeV"),
        (np.nan, 1.0, "event 2 has incident energy 0 = nan MeV"),
    ],
)
def test_energies(incident: float, voxel: float, message: str, tmp_path: Path) -> None:
    path = showers(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        file["incident_energies"][2, 0], file["showers"][2, 5] = incident, voxel
    with pytest.raises(DataError, match=message):
        files.check(path)
    assert files.check(showers(tmp_path / "b.h5"), PHOTON).label is None
    assert Label("g", "1", 2, "d", "r").seed == 2


@pytest.mark.parametrize("form", ["npz", "h5"])
def test_multiplicities(form: str, tmp_path: Path) -> None:
    jets = wz_jets()
    jets.multiplicity[3] = -4
    wz.write(tmp_path / f"a.{form}", jets, JetLabel("g", "1", "wz", 1, {}, {}))
    with pytest.raises(DataError, match="jet 3 has multiplicity = -4"):
        wz.check(tmp_path / f"a.{form}")


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (np.array([-2, 14]), "jet 0 has constituents = -2"),
        (np.array([10**9, 12 - 10**9]), r"jet 0 has constituents = 1e\+09"),
        (np.array([5.5, 6.5]), "counts of constituents are float64"),
    ],
)
def test_counts_of_compact_jets(counts: Any, message: str, tmp_path: Path) -> None:
    table = quark_gluon.read(archive(tmp_path / "x.npz", X=X, y=Y))
    quark_gluon.write(tmp_path / "a.h5", table[:2], JetLabel("g", "1", "quark-gluon", 1, {}, {}))
    replaced(tmp_path / "a.h5", "multiplicity", data=counts)
    with pytest.raises(DataError, match=message):
        quark_gluon.check(tmp_path / "a.h5")


LAYER = '<Layer id="{}" r_edges="{}" n_bin_alpha="{}"/>'
BINNINGS = {
    "many bins": (LAYER.format(0, "0,1", 10**15), "layer 0 has 1,000,000,000,000,000 x 1 voxels; expected at most"),
    "edge inf": (LAYER.format(0, "0,1,inf", 1), "r_edges .*inf.*; expected finite increasing numbers"),
    "edge nan": (LAYER.format(0, "0,nan,2", 1), "r_edges .*nan.*; expected finite increasing numbers"),
    "twice": (LAYER.format(3, "0,1", 1) * 2, "layer 3 stands there twice"),
    "twice, once empty": (LAYER.format(3, "0", 1) + LAYER.format(3, "0,1", 1) * 2, "layer 3 stands there twice"),
}  # fmt: skip


@pytest.mark.parametrize(("layers", "message"), BINNINGS.values(), ids=BINNINGS)
def test_binnings(layers: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "binning.xml"
    path.write_text(f'<Bins><Bin pid="22" name="photon">{layers}</Bin></Bins>')
    with pytest.raises(DataError, match=message):
        read_binning(path, "photon")


@pytest.mark.parametrize("encoding", ["no-such-code", "utf-7", "hex", "idna"])
def test_xml_of_unknown_encoding(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "binning.xml"
    path.write_text(f'<?xml version="1.0" encoding="{encoding}"?><Bins/>')
    with pytest.raises(DataError, match=r"is not XML \(|has no particle"):
        read_binning(path, "photon")


def test_python_built_geometries_are_held_to_the_same() -> None:
    with pytest.raises(DataError, match="voxels; expected at most 10,000,000"):
        build("mine", "photon", {0: ((0.0, 1.0), 10**7), 1: ((0.0, 1.0), 1)})


def test_damaged_files_end_in_one_line_or_in_numbers() -> None:
    """In a process of its own: a crash of the HDF5 library would take the tests with it."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); import fuzz_readers; print(*fuzz_readers.fuzz(60, 7, 150))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parent)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert sum(map(int, done.stdout.split())) == 150
