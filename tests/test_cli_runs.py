"""A file from the front of a run folder."""

import json
from pathlib import Path

import pytest
from synthetic_run import complete

from bitsearch.cli import main
from bitsearch.core.measurement import Measurement
from bitsearch.core.rundir import RunFolder


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return complete(tmp_path / "run")


def members(folder: RunFolder) -> tuple[Measurement, ...]:
    front = folder.front()
    assert front is not None
    return front.members


def export(folder: RunFolder, *more: str) -> int:
    return main(["export", str(folder.path), "--out", str(folder.path.parent / "served.onnx"), *more])


def test_the_best_member_at_no_smaller_fraction(
    folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    everything = [item for item in folder.results() if item.fidelity == "full"]
    least = members(folder)[-2].executed_fraction - 1e-6
    best = min(
        (item for item in everything if item.executed_fraction >= least),
        key=lambda item: item.metrics["nll"].value,
    )
    assert best.model
    (folder.path / best.model).write_bytes(b"x" * best.size_bytes)
    assert export(folder, "--min-fraction", repr(least), "--json") == 0
    assert (folder.path.parent / "served.onnx").read_bytes() == b"x" * best.size_bytes
    printed = json.loads(capsys.readouterr().out)
    assert printed["digest"] == best.digest
    assert printed["nll"] == best.metrics["nll"].value


@pytest.mark.parametrize("least", ["2", "nan", None])
def test_a_fraction_is_needed(
    folder: RunFolder, least: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(folder, *(["--min-fraction", least] if least else [])) == 2
    assert f"expected --min-fraction of 0 to 1, found {least or 'nothing'}" in capsys.readouterr().err


def test_what_the_front_has_can_be_typed(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert export(folder, "--min-fraction", "1") == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    fractions = line.strip().rpartition("fractions ")[2].split(", ")
    assert len(fractions) == len(members(folder))
    assert export(folder, "--min-fraction", fractions[-1]) == 0


def test_folders_without_a_front_or_a_file(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    best = members(folder)[0]
    assert best.model
    (folder.path / best.model).unlink()
    assert export(folder, "--min-fraction", "0") == 2
    assert f"the file {best.model} of {best.digest} is missing" in capsys.readouterr().err
    (folder.path / "front.json").unlink()
    assert export(folder, "--min-fraction", "0") == 2
    assert "holds no front.json yet" in capsys.readouterr().err
    assert not (folder.path.parent / "served.onnx").exists()


def test_only_run_folders_are_chosen_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["export", "a.pt", "--min-fraction", "0.5", "--out", str(tmp_path / "a.onnx")]
    assert main(words) == 2
    expected = (
        "--min-fraction, --max-size, --max-loss and --max-latency choose from one run folder; found a.pt"
    )
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["float32", "int3"], "--precisions int3: expected one of float32, ternary, binary, int8"),
        (["float32,binary"], "--precisions float32 binary: expected float32 and ternary"),
        (["float32", "int8,ternary"], "--precisions float32 int8 ternary: nothing trains with int8"),
    ],
)
def test_precisions_are_checked_first(
    words: list[str], found: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert main(["run", "--model", "caloinn", "--out", str(out), "--precisions", *words]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert found in line
    assert not out.exists()
