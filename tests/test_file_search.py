"""`bitsearch search`: what is measured, recorded, kept and refused, on a small file with data of its own."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_files
import pytest

import bitsearch.ops
from bitsearch.cli import main
from bitsearch.core.rundir import RunFolder
from bitsearch.onnxfile.judge import ROWS
from bitsearch.report import decision, view

Capture = pytest.CaptureFixture[str]


def call(*words: object) -> int:
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file, data and labels, and the folder `run` of a search that has ended."""
    folder = tmp_path_factory.mktemp("search")
    onnx_files.classifier(folder / "model.onnx")
    x = onnx_files.events(folder / "events.npz")
    np.save(folder / "labels.npy", onnx_files.logits(x).argmax(axis=1))
    words = ["--data", folder / "events.npz", "--trials", "4", "--out", folder / "run"]
    assert call("search", folder / "model.onnx", *words) == 0
    return folder


def error(file: Path, data: Path) -> float:
    with np.load(data) as stored:
        x = stored["x"]
    # By batches: all activations of one share a step where a layer has 8 bits.
    batches = [x[begin : begin + ROWS] for begin in range(ROWS, len(x), 2 * ROWS)]
    expected = onnx_files.logits(np.concatenate(batches)).astype(np.float64)
    session = bitsearch.ops.session(file)
    made = np.concatenate([session.run(None, {"x": batch})[0] for batch in batches])
    return float(np.sqrt(((made - expected) ** 2).sum() / (expected**2).sum()))


def test_whole_files_and_single_layers_come_first(place: Path) -> None:
    results = RunFolder(place / "run").results()
    origins = list({item.digest: item.origin for item in results}.values())
    assert origins[:3] == ["baseline:float32", "baseline:int8", "baseline:ternary"]
    assert origins[3:6] == ["alone"] * 3
    assert len(origins) == 6 + 4
    assert set(origins[6:]) <= {"ladder", "search"}
    assert {item.fidelity for item in results} == {"untrained"}


def test_what_is_recorded_is_true_of_the_files(place: Path) -> None:
    folder = RunFolder(place / "run")
    front = folder.front()
    assert front is not None
    assert [item.mean_bits for item in front.members] == sorted(
        (item.mean_bits or 0 for item in front.members), reverse=True
    )
    weights = {"first": 12 * 16, "second": 16 * 16, "last": 16 * 4}
    bits = {"float32": 32, "int8": 8, "ternary": 2}
    for item in front.members:
        file = folder.model_file(item)
        assert file is not None
        assert item.metrics["output_error"].value == pytest.approx(
            error(file, place / "events.npz"), abs=1e-6
        )
        mean = sum(weights[name] * bits[value] for name, value in item.assignment.items()) / 512
        assert item.mean_bits == pytest.approx(mean)
        assert item.executed_fraction == pytest.approx(
            sum(weights[name] for name, value in item.assignment.items() if value == "ternary") / 512
        )
        assert [entry.batch for entry in item.latency_us] == [1, ROWS]
    exact = next(
        item for item in folder.results() if item.assignment["first"] == "ternary" and item.origin == "alone"
    )
    assert exact.metrics["output_error"].value == 0
    sensitivities = folder.manifest().sensitivities
    assert sensitivities is not None
    assert sensitivities["first"] == 0
    assert (place / "run" / "report" / "index.html").is_file()


def test_it_goes_on_without_measuring_again(place: Path, capsys: Capture) -> None:
    before = RunFolder(place / "run").results()
    words = ["--data", place / "events.npz", "--trials", "6", "--out", place / "run", "--json"]
    assert call("search", place / "model.onnx", *words) == 0
    content = json.loads(capsys.readouterr().out)
    after = RunFolder(place / "run").results()
    assert after[: len(before)] == before
    new = {item.digest for item in after}.difference(item.digest for item in before)
    assert len(new) == 2
    assert content["front"]["objective"] == "output_error"
    words[3:4] = ["9", "--precisions", "float32", "ternary"]
    assert call("search", place / "model.onnx", *words) == 2
    assert "holds a run with other settings or data (precisions" in capsys.readouterr().err


def test_external_data_are_part_of_the_model(place: Path, tmp_path: Path, capsys: Capture) -> None:
    model = onnx.load(place / "model.onnx")
    onnx.save(model, tmp_path / "model.onnx", save_as_external_data=True, location="data", size_threshold=0)
    words = ["--data", place / "events.npz", "--trials", "1", "--out", tmp_path / "run"]
    assert call("search", tmp_path / "model.onnx", *words) == 0
    content = bytearray((tmp_path / "data").read_bytes())
    content[3] ^= 0x80  # the sign of a weight
    (tmp_path / "data").write_bytes(content)
    capsys.readouterr()
    assert call("search", tmp_path / "model.onnx", *words) == 2
    assert "model" in capsys.readouterr().err


def test_the_report_speaks_of_files(place: Path, tmp_path: Path) -> None:
    text = (place / "run" / "report" / "index.html").read_text()
    assert "Files of one precision" in text
    for words in ("andmade strateg", "final training", "trains it again", "Trainings"):
        assert words not in text
    run = tmp_path / "run"
    flags = ["--precisions", "float32", "ternary", "--trials", "20", "--out", run]
    assert call("search", place / "model.onnx", "--data", place / "events.npz", *flags) == 0
    assert len({item.digest for item in RunFolder(run).results()}) == 2**3
    needed = decision.needed(view.read(RunFolder(run)), [])
    assert needed == ["Trials: all 8 choices have been measured."]


def test_files_of_the_front_are_exported(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "small.onnx"
    assert call("export", place / "run", "--min-fraction", "1", "--out", out) == 0
    assert out.read_bytes() == (place / "run" / "models" / "ternary.onnx").read_bytes()


def test_labels_and_two_precisions(place: Path, tmp_path: Path) -> None:
    words = ["--data", place / "events.npz", "--labels", place / "labels.npy", "--metric", "accuracy"]
    more = [
        "--precisions",
        "float32",
        "ternary",
        "--keep",
        "last",
        "--trials",
        "3",
        "--out",
        tmp_path / "run",
    ]
    assert call("search", place / "model.onnx", *words, *more) == 0
    folder = RunFolder(tmp_path / "run")
    results = folder.results()
    assert {item.mean_bits for item in results} == {None}
    assert next(item for item in results if item.strategy == "float32").metrics["accuracy"].value == 1
    searched = [item for item in results if item.origin in ("ladder", "search", "alone")]
    assert {item.assignment["last"] for item in searched} == {"float32"}
    assert len({item.digest for item in results}) <= 2**3


BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
sys.meta_path.insert(0, Block())
from bitsearch.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_it_needs_no_torch(place: Path, tmp_path: Path) -> None:
    words = ["search", "model.onnx", "--data", "events.npz", "--trials", "1", "--out", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-P", "-c", BLOCK, *words], cwd=place, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("index.html\n")


REFUSED: dict[str, tuple[dict[str, Any], list[str], str]] = {
    "names": ({"y": np.zeros((9, 12), np.float32), "z": np.zeros(9)}, [], "expected one named 'x'"),
    "shapes": ({"x": np.zeros((9, 11), np.float32)}, [], "x has shape (9, 11)"),
    "rows": ({"x": np.zeros((0, 12), np.float32)}, [], "holds no whole batch"),
    "nan": ({"x": np.full((9, 12), np.nan, np.float32)}, [], "the original puts out NaN or infinity"),
    "text": ({"x": np.full((9, 12), "a")}, [], ""),
    "trials": ({}, ["--trials", "0"], "--trials 0: expected 1 or more"),
    "metric": ({}, ["--metric", "accuracy"], "--metric accuracy: expected one of output_error, agreement"),
    "keep": ({}, ["--keep", "nothing*"], "--keep nothing*: no group matches"),
    "bits": ({}, ["--max-bits", "0"], "--max-bits 0: expected more than 0, up to 32"),
    "few bits": ({}, ["--max-bits", "1"], "cannot be reached"),
    "precisions": ({}, ["--precisions", "float32", "int8"], "expected ternary or binary among them"),
    "sampler": ({}, ["--sampler", "nothing"], "there is no sampler 'nothing'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_one_line_and_leaves_nothing(
    place: Path, tmp_path: Path, capsys: Capture, case: str
) -> None:
    arrays, flags, message = REFUSED[case]
    data = place / "events.npz"
    if arrays:
        data = tmp_path / "data.npz"
        np.savez(data, **arrays)
    status = call("search", place / "model.onnx", "--data", data, "--out", tmp_path / "run", *flags)
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("·")]
    assert status == 2
    assert len(lines) == 1
    assert message in lines[0]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY\x01\x00"])
def test_damaged_data_are_one_line(place: Path, tmp_path: Path, capsys: Capture, content: bytes) -> None:
    (tmp_path / "data.npz").write_bytes(content)
    words = ["--data", tmp_path / "data.npz", "--out", tmp_path / "run"]
    assert call("search", place / "model.onnx", *words) == 2
    assert "data.npz cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_declared_size_beyond_memory_is_one_line(place: Path, tmp_path: Path, capsys: Capture) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 12), }".ljust(117) + b"\n"
    (tmp_path / "data.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    import zipfile

    with zipfile.ZipFile(tmp_path / "data.npz", "w") as archive:
        archive.write(tmp_path / "data.npy", "x.npy")
    words = ["--data", tmp_path / "data.npz", "--out", tmp_path / "run"]
    assert call("search", place / "model.onnx", *words) == 2
    assert "data.npz cannot be read" in capsys.readouterr().err
