import contextlib
import shutil
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jet_files import LABEL, energyflow, save
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from bitsearch.core.errors import DataError
from bitsearch.models.jets import files, production, pythia, quark_gluon
from bitsearch.models.jets.quark_gluon import QuarkGluonJets

Change = dict[str, NDArray[np.float64]]


def wrapped(angle: NDArray[np.floating]) -> NDArray[np.floating]:
    return (angle + np.pi) % (2 * np.pi) - np.pi


def test_public_files_are_read(tmp_path: Path) -> None:
    public = energyflow()
    path = save(tmp_path / "QG_jets.npz", **public)
    table = quark_gluon.read(path)
    assert table.constituents.shape == public["X"].shape
    assert table.constituents.dtype == np.float32
    np.testing.assert_array_equal(table.quark, public["y"] == 1)
    assert np.all(np.diff(table.constituents[:, :, 0]) <= 0)
    for found, expected in zip(table.constituents, public["X"], strict=True):
        np.testing.assert_allclose(found, expected[np.argsort(-expected[:, 0], kind="stable")], rtol=1e-6)
    np.testing.assert_array_equal(quark_gluon.read(path, 3).constituents, table.constituents[:, :3])
    assert quark_gluon.check(path).label is None


def test_summary(tmp_path: Path) -> None:
    public = energyflow(jets=9)
    path = save(tmp_path / "QG_jets.npz", **public)
    summary = quark_gluon.check(path)
    multiplicity = (public["X"][:, :, 0] > 0).sum(axis=1)
    assert (summary.events, summary.quarks, summary.gluons) == (9, 4, 5)
    assert summary.quark_multiplicity == multiplicity[public["y"] == 1].mean()
    assert summary.gluon_multiplicity == multiplicity[public["y"] == 0].mean()
    assert summary.largest_multiplicity == multiplicity.max()
    # Sums of pT are 530 GeV; the vector sum of narrow jets is a little less.
    assert 525 < summary.jet_pt_range_gev[0] <= summary.jet_pt_range_gev[1] <= 530
    assert (
        quark_gluon.check(save(tmp_path / "quarks.npz", X=public["X"], y=np.ones(9))).gluon_multiplicity
        is None
    )


def changed(**at: tuple[tuple[int, ...], float]) -> Change:
    public = energyflow()
    for name, (index, value) in at.items():
        public[name][index] = value
    return public


GOOD = energyflow()
ODD = {
    "label": (changed(y=((4,), 2)), "jet 4 has label = 2 .* expected 0 .gluon. or 1 .quark."),
    "nan": (changed(X=((3, 1, 1), np.nan)), "jet 3 has X = nan"),
    "negative": (changed(X=((0, 2, 0), -1)), "jet 0 has constituent pT = -1"),
    "padding": (changed(X=((0, 2, 0), 0)), "jet 0 has a value in a row with pT 0 .*expected padding rows"),
    "particle": (changed(X=((2, 0, 3), 111)), "jet 2 has PDG id = 111 .*expected one of 22, 211"),
    "window": (changed(X=((0, 0, 0), 900)), "jet 0 has pT = .* to sum to 490 to 560 GeV"),
    "columns": ({**GOOD, "X": GOOD["X"][:, :, :3]}, r"X has shape \(12, 9, 3\); expected \(12, 9, 4\)"),
    "axes": ({**GOOD, "X": GOOD["X"][:, 0]}, r"X has shape \(12, 4\); expected \(jets, M, 4\)"),
    "lengths": ({**GOOD, "y": GOOD["y"][:5]}, r"y has shape \(5,\); expected \(12\)"),
    "no y": ({"X": GOOD["X"]}, "has no 'y' .found X.; expected X, y"),
    "empty": ({"X": GOOD["X"][:0], "y": GOOD["y"][:0]}, "has no jets"),
    "no constituents": ({"X": GOOD["X"][:, :0], "y": GOOD["y"]}, "has no jets"),
    "text": ({**GOOD, "y": np.array(["quark"] * 12)}, "y is <U5; expected numbers"),
    "objects": ({**GOOD, "y": np.array([None] * 12)}, "cannot be read as npz or HDF5 .*pickle"),
}  # fmt: skip


@pytest.mark.parametrize(("arrays", "message"), ODD.values(), ids=ODD)
def test_odd_content_is_refused(arrays: Change, message: str, tmp_path: Path) -> None:
    path = save(tmp_path / "odd.npz", **arrays)
    with pytest.raises(DataError, match=message) as caught:
        quark_gluon.read(path)
    assert str(path) in str(caught.value)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("text")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["showers"] = np.zeros(3)
    for name, message in {
        "none.npz": "there is no such file; expected EnergyFlow's",
        "text.npz": "cannot be read as npz or HDF5",
        "other.h5": "is HDF5, but not of bitsearch's jets",
        ".": "cannot be read as npz or HDF5",
    }.items():
        with pytest.raises(DataError, match=message):
            quark_gluon.read(tmp_path / name)


@pytest.fixture(scope="module")
def both_forms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("forms")
    table = quark_gluon.read(save(folder / "a.npz", **energyflow()))
    for suffix in ("npz", "h5"):
        quark_gluon.write(folder / f"b.{suffix}", table, LABEL)
    return {suffix: (folder / f"b.{suffix}").read_bytes() for suffix in ("npz", "h5")}


@settings(max_examples=25, deadline=None)
@given(suffix=st.sampled_from(["npz", "h5"]), share=st.floats(0, 0.999))
def test_truncated_files_are_refused(
    suffix: str, share: float, both_forms: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("cut") / f"cut.{suffix}"
    content = both_forms[suffix]
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match="cannot be read as npz or HDF5"):
        quark_gluon.read(path)


@settings(max_examples=25, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), flipped=st.integers(1, 255))
def test_damaged_public_files_are_refused_or_harmless(
    place: float, flipped: int, both_forms: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "damaged.npz"
    content = bytearray(both_forms["npz"])
    content[int(place * len(content))] ^= flipped
    path.write_bytes(content)
    with contextlib.suppress(DataError):
        assert len(quark_gluon.read(path)) == 12


def test_compact_form_rounds_as_it_says(tmp_path: Path) -> None:
    table = quark_gluon.read(save(tmp_path / "a.npz", **energyflow(40, 30)))
    path = tmp_path / "new" / "b.h5"
    quark_gluon.write(path, table, LABEL)
    back, label = quark_gluon.read_labelled(path)
    assert label == LABEL
    np.testing.assert_array_equal(back.quark, table.quark)
    (pt, *angles, pdg_id), (pt0, *angles0, pdg_id0) = (
        np.moveaxis(jets.constituents, 2, 0) for jets in (back, table)
    )
    np.testing.assert_allclose(pt, pt0, rtol=2.0**-12)
    np.testing.assert_array_equal(pdg_id, pdg_id0)
    for angle, angle0 in zip(angles, angles0, strict=True):
        # Half a step, and float32's own error.
        np.testing.assert_allclose(angle, angle0, atol=quark_gluon.STEP / 2 + 1e-6, rtol=0)
        np.testing.assert_array_equal(angle[:, 0], angle0[:, 0])
    with h5py.File(path) as file:
        assert file["azimuth_from_hardest"].attrs["step"] == quark_gluon.STEP
        assert file["azimuth_from_hardest"].dtype == np.int16


def test_public_form_is_energyflows(tmp_path: Path) -> None:
    public = energyflow()
    table = quark_gluon.read(save(tmp_path / "a.npz", **public))
    quark_gluon.write(tmp_path / "b.npz", table, LABEL)
    with np.load(tmp_path / "b.npz") as file:
        assert {name: (file[name].dtype, file[name].shape) for name in ("X", "y")} == {
            name: (values.dtype, values.shape) for name, values in public.items()
        }
    back, label = quark_gluon.read_labelled(tmp_path / "b.npz")
    np.testing.assert_array_equal(back.constituents, table.constituents)
    assert label == LABEL


def test_jets_too_wide_for_the_compact_form(tmp_path: Path) -> None:
    table = quark_gluon.read(save(tmp_path / "a.npz", **energyflow()))
    table.constituents[3, 1, 1] = 9
    with pytest.raises(DataError, match=r"rapidity_from_hardest reaches .* at most 2: write \.npz"):
        quark_gluon.write(tmp_path / "b.h5", table, LABEL)
    assert not (tmp_path / "b.h5").exists()


@given(st.lists(st.floats(2.0**-99, 2.0**99, width=32), min_size=1))
def test_mantissas_are_rounded_to_the_nearest(values: list[float]) -> None:
    exact = np.array(values, np.float32)
    found = files.rounded(exact)
    np.testing.assert_allclose(found, exact, rtol=2.0**-12)
    np.testing.assert_array_equal(files.rounded(found), found)
    assert not np.any(found.view(np.uint32) & 0xFFF)


def test_the_sample_is_what_it_should_be() -> None:
    """Limits: what Pythia 8.318 gave in independent productions; the multiplicity AUC of the public files is 0.840."""
    summary = quark_gluon.check(quark_gluon.SAMPLE)
    assert quark_gluon.SAMPLE.stat().st_size <= 8_000_000
    assert summary.label is not None
    assert summary.label.version == quark_gluon.VERSION
    assert summary.label.settings == quark_gluon.SETTINGS
    assert min(summary.quarks, summary.gluons) >= 10_000
    table = quark_gluon.read(quark_gluon.SAMPLE)
    real = table.constituents[:, :, 0] > 0
    multiplicity = real.sum(axis=1)
    assert 32 < multiplicity[table.quark].mean() < 36
    assert 51 < multiplicity[~table.quark].mean() < 56
    assert 0.81 < roc_auc_score(~table.quark, multiplicity) < 0.87
    low, high = summary.jet_pt_range_gev
    assert 499.9 < low < 501
    assert 549 < high < 550.1
    assert np.abs(table.constituents[:, 0, 1]).max() < quark_gluon.RAPIDITY + quark_gluon.RADIUS
    to_hardest = wrapped(table.constituents[:, :, 2] - table.constituents[:, :1, 2])
    assert np.abs(to_hardest[real]).max() < 1
    ids, counts = np.unique(np.abs(table.constituents[:, :, 3][real]), return_counts=True)
    shares = dict(zip(ids.astype(int).tolist(), counts / counts.sum(), strict=True))
    assert shares.pop(13) < 0.001
    expected = {22: 0.46, 211: 0.40, 321: 0.048, 130: 0.024, 2112: 0.031, 2212: 0.031, 11: 0.006}
    assert shares == pytest.approx(expected, rel=0.1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("pythia8mc")
    return quark_gluon.make(7, 3, tmp_path_factory.mktemp("made") / "jets.h5", 1, underlying_event=False)


def test_generated_jets(made: Path, capfd: pytest.CaptureFixture[str]) -> None:
    summary = quark_gluon.check(made)
    assert (summary.quarks, summary.gluons) == (4, 3)
    assert summary.label is not None
    assert summary.label.seed == 3
    assert summary.label.settings["gluon"]["PartonLevel:MPI"] == "off"
    assert [path.name for path in made.parent.iterdir()] == ["jets.h5"]
    assert capfd.readouterr() == ("", "")


def test_an_interrupted_production_goes_on(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(production, "CHUNK", 3)
    shares: list[float] = []

    def stop(_: str, share: float) -> None:
        shares.append(share)
        if share:
            raise KeyboardInterrupt

    out = tmp_path / "jets.h5"
    with pytest.raises(KeyboardInterrupt):
        quark_gluon.make(7, 3, out, 1, stop, underlying_event=False)
    assert shares == [0, pytest.approx(3 / 7)]
    assert not out.exists()
    shares.clear()
    quark_gluon.make(7, 3, out, 2, lambda _, share: shares.append(share), underlying_event=False)
    assert shares[0] >= 3 / 7
    assert shares[-1] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["jets.h5"]
    again = quark_gluon.make(7, 3, tmp_path / "again.h5", 1, underlying_event=False)
    assert out.read_bytes() == again.read_bytes()
    other = quark_gluon.make(2, 4, tmp_path / "other.h5", 1, underlying_event=False)
    assert not np.isin(
        quark_gluon.read(other).constituents[0, 0], quark_gluon.read(out).constituents[:, 0]
    ).all()
    assert capfd.readouterr() == ("", "")


def test_chunks_of_another_production_are_made_again(tmp_path: Path) -> None:
    out, calls = tmp_path / "jets.h5", tmp_path / "calls"
    wanted = production.chunks("quark", 2, 1)

    def make(label: files.Label) -> list[production.Arrays]:
        written: list[production.Arrays] = []
        production.make(Fake(calls), wanted, label, out, written.extend, 1, lambda what, share: None)
        return written

    def keep(parts: list[production.Arrays]) -> None:
        raise OSError("full")

    with pytest.raises(DataError, match="full"):
        production.make(Fake(calls), wanted, LABEL, out, keep, 1, lambda what, share: None)
    (part,) = make(LABEL)
    assert part["seed"] == wanted[0].seed
    assert calls.read_text() == "."
    shutil.copytree(tmp_path, tmp_path / "copy")
    with pytest.raises(DataError, match="full"):
        production.make(Fake(calls), wanted, LABEL, out, keep, 1, lambda what, share: None)
    make(files.Label("another", "1", "quark-gluon", 5, {}, {}))
    assert calls.read_text() == "..."


class Fake:
    """Count the calls in a file: they come from other processes."""

    def __init__(self, calls: Path) -> None:
        self.calls = calls

    def __call__(self, chunk: production.Chunk) -> production.Arrays:
        with self.calls.open("a") as file:
            file.write(".")
        return {"seed": np.array(chunk.seed)}


def test_seeds_are_pythias_and_differ() -> None:
    seeds = {
        chunk.seed
        for base in (0, 1)
        for process in ("quark", "gluon")
        for chunk in production.chunks(process, 5000, base)
    }
    assert len(seeds) == 2 * 2 * 10
    assert min(seeds) >= 1
    assert max(seeds) <= 900_000_000
    assert production.chunks("quark", 1200, 1)[:2] == production.chunks("quark", 5000, 1)[:2]
    assert [chunk.jets for chunk in production.chunks("quark", 1200, 1)] == [500, 500, 200]


def test_missing_package_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(pythia, "version", missing)
    with pytest.raises(DataError, match=r"no package 'pythia8mc'.*pip install 'bitsearch\[generate\]'"):
        quark_gluon.make(2, 1, tmp_path / "a.h5")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("jets", "seed", "found"), [(1, 1, "1 jets and seed 1"), (2, -1, "2 jets and seed -1")]
)
def test_impossible_requests(jets: int, seed: int, found: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=found):
        quark_gluon.make(jets, seed, tmp_path / "a.h5")


def test_unwritable_output(tmp_path: Path) -> None:
    pytest.importorskip("pythia8mc")
    (tmp_path / "file").write_text("")
    for out in (tmp_path, tmp_path / "file" / "a.h5"):
        with pytest.raises(DataError, match="cannot be written"):
            quark_gluon.make(2, 1, out)


def test_unknown_settings_are_refused(capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pythia8mc")
    with pytest.raises(DataError, match="does not take the setting Nonsense:of = 1"):
        next(pythia.events({"Nonsense:of": "1"}, 1))


def test_tables_stack_and_select() -> None:
    parts = [
        QuarkGluonJets(np.ones((jets, most, 4), np.float32), np.ones(jets, bool))
        for jets, most in ((2, 3), (1, 5))
    ]
    table = QuarkGluonJets.stack(parts)
    assert table.constituents.shape == (3, 5, 4)
    assert not table.constituents[:2, 3:].any()
    assert len(table[np.array([2])]) == 1
