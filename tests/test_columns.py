"""Columns of users' files, and the generic taggers that read them."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import awkward
import h5py
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import uproot
from hypothesis import given
from hypothesis import strategies as st

from bitsearch.cli import main
from bitsearch.core.errors import BitsearchError, ConfigurationError, DataError
from bitsearch.models import constituents, tagger
from bitsearch.models.columns import files
from bitsearch.models.columns.formula import Formula

EVENTS = 300
RNG = np.random.default_rng(1)
LABEL = RNG.integers(0, 2, EVENTS)
MASS = RNG.normal(105 + 20 * LABEL, 10)
COUNT = RNG.integers(1, 5, EVENTS)
PT = awkward.unflatten(RNG.exponential(10.0, COUNT.sum()), COUNT)
FLAT = {"is_signal": LABEL, "mass": MASS, "pt": RNG.exponential(50, EVENTS)}


def write(path: Path, columns: Mapping[str, object]) -> Path:
    """Write columns in the format that the name ends in; ROOT in a tree `events`, HDF5 in a group `events`."""
    match path.suffix:
        case ".npz":
            np.savez(path, **columns)  # type: ignore[arg-type]
        case ".h5":
            with h5py.File(path, "w") as file:
                for name, column in columns.items():
                    file[f"events/{name}"] = column
            return path.with_name(f"{path.name}:events")
        case ".parquet":
            arrays = {
                name: awkward.to_arrow(column) if isinstance(column, awkward.Array) else pyarrow.array(column)
                for name, column in columns.items()
            }
            pyarrow.parquet.write_table(pyarrow.table(arrays), path)
        case ".root":
            with uproot.recreate(path) as file:
                file["events"] = columns
            return path.with_name(f"{path.name}:events")
    return path


@pytest.mark.parametrize("suffix", [".npz", ".h5", ".parquet", ".root"])
def test_flat_columns_come_back(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"events{suffix}", FLAT)
    assert set(files.names(path)) == set(FLAT)
    found = files.read(path, ("mass", "is_signal"), 1)
    assert list(found) == ["mass", "is_signal"]
    np.testing.assert_array_equal(found["mass"], MASS.astype(np.float32))
    np.testing.assert_array_equal(found["is_signal"], LABEL)


@pytest.mark.parametrize("suffix", [".parquet", ".root"])
@pytest.mark.parametrize("length", [2, 6])
def test_lists_are_cut_and_end_in_zeros(tmp_path: Path, suffix: str, length: int) -> None:
    path = write(tmp_path / f"events{suffix}", {"is_signal": LABEL, "pt": PT})
    found = files.read(path, ("pt",), length)["pt"]
    assert found.shape == (EVENTS, length)
    for row, entries in zip(found, PT.to_list(), strict=True):
        expected = np.zeros(length, np.float32)
        expected[: len(entries)] = entries[:length]
        np.testing.assert_array_equal(row, expected)


@given(st.lists(st.text("abc_.[]0", min_size=1, max_size=6), min_size=2, max_size=5, unique=True))
def test_a_formula_is_what_it_says(names: list[str]) -> None:
    formula = Formula(names[0], tuple(names[1:]))
    assert Formula.parse(str(formula)) == formula
    assert Formula.choose(names[0], names[::-1]).features == tuple(names[:0:-1])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mass", "expected 'label ~ feature + feature'"),
        ("~ mass", "expected 'label ~ feature + feature'"),
        ("y ~", "expected 'label ~ feature + feature'"),
        ("y ~ a + a", "'a' stands twice"),
        ("y ~ a + y", "'y' stands twice"),
    ],
)
def test_formulas_that_are_none(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        Formula.parse(text)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"mass": MASS}, "no column 'is_signal'"),
        ({"is_signal": LABEL}, "no column 'mass'"),
        ({"is_signal": LABEL, "mass": np.where(LABEL > 2, 0.0, np.nan)}, "nan in event 0"),
        ({"is_signal": LABEL, "mass": np.array(["heavy"] * EVENTS)}, "expected numbers"),
        ({"is_signal": LABEL + 1, "mass": MASS}, r"values \[1.0, 2.0\]"),
        ({"is_signal": LABEL * 0, "mass": MASS}, r"values \[0.0\]"),
        ({"is_signal": LABEL, "mass": MASS[:-1]}, "as many in each"),
        ({"is_signal": LABEL, "mass": np.stack([MASS, MASS], 1)}, "--model constituents"),
    ],
)
def test_columns_that_do_not_fit(tmp_path: Path, columns: Mapping[str, object], said: str) -> None:
    path = write(tmp_path / "events.npz", columns)
    with pytest.raises(DataError, match=said):
        tagger.task("is_signal ~ mass", "smoke").load([path], 1, lambda *_: None)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("events.csv", b"a,b", "no file of a kind that is known"),
        ("events.root", b"root?", "cannot be read as root"),
        ("events.parquet", b"PAR1", "cannot be read as parquet"),
        ("events.h5", b"", "cannot be read as"),
        ("events.npz", b"PK", "cannot be read as npz"),
        ("missing.root:tree", None, "there is no such file"),
    ],
)
def test_files_that_are_none(tmp_path: Path, name: str, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(BitsearchError, match=said):
        files.names(tmp_path / name)


def test_a_tree_is_named_where_there_are_several(tmp_path: Path) -> None:
    path = tmp_path / "events.root"
    with uproot.recreate(path) as file:
        file["signal"] = {"x": MASS}
        file["background"] = {"x": MASS}
    with pytest.raises(DataError, match="expected one of signal, background"):
        files.names(path)
    assert files.names(tmp_path / "events.root:signal") == ("x",)


def test_three_files_are_three_sets(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{name}.npz", FLAT) for name in ("train", "validation", "test")]
    data = tagger.task("is_signal ~ mass + pt", "smoke").load(paths, 1, lambda *_: None)
    assert [item.role for item in data.identity.files] == ["training", "validation", "test"]
    assert data.events == len(data.test["label"]) == EVENTS
    with pytest.raises(DataError, match="found 2 files"):
        tagger.task("is_signal ~ mass", "smoke").load(paths[:2], 1, lambda *_: None)


def test_absent_constituents_change_nothing() -> None:
    import torch

    network = constituents.Constituents(3, 8)
    some = torch.randn(5, 4, 3)
    more = torch.cat([some, torch.zeros(5, 6, 3)], 1)
    torch.testing.assert_close(network(some), network(more))
    order = torch.randperm(10)
    torch.testing.assert_close(network(more), network(more[:, order]))


def test_a_run_on_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--label` alone chooses the rest; the served file says what it reads, and evaluates itself on the same file."""
    path = write(tmp_path / "events.root", FLAT)
    asked = ["--model", "tagger", "--preset", "smoke", "--data", str(path), "--label", "is_signal"]
    out = tmp_path / "run"
    assert main(["run", *asked, "--trials", "4", "--workers", "1", "--device", "cpu", "--out", str(out)]) == 0
    manifest = json.loads((out / "run.json").read_text())
    assert manifest["dataset"] == "is_signal ~ mass + pt"
    assert not manifest["data"]["generated"]
    capsys.readouterr()
    assert (
        main(["evaluate", "--model", "tagger", "--data", str(path), str(out / "models/all.onnx"), "--json"])
        == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert found["dataset"] == "is_signal ~ mass + pt"
    assert found["files"][0]["metrics"]["auc"]["value"] > 0.6


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--label", "is_signal"], "expected --data FILE"),
        (["--features", "mass"], "name it with --label"),
        (["--dataset", "mass"], "expected 'label ~ feature + feature'"),
    ],
)
def test_flags_that_do_not_go_together(
    capsys: pytest.CaptureFixture[str], flags: list[str], said: str
) -> None:
    assert main(["run", "--model", "tagger", "--preset", "smoke", *flags]) == 2
    assert said in capsys.readouterr().err
