"""The layers that survive: held to outputs computed by numpy, on batches that weights were not rounded on."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnx_files
import pytest

from bitsearch.cli import main
from bitsearch.core.precision import Precision
from bitsearch.onnxfile import graph, ternarize
from bitsearch.onnxfile.candidates import Candidates, mean_bits
from bitsearch.onnxfile.inspect import inspect
from bitsearch.onnxfile.judge import ACCURACY, AGREEMENT, CROSS_ENTROPY, ERROR, ROWS, Judge

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return onnx_files.classifier(tmp_path / "model.onnx")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    onnx_files.events(tmp_path / "events.npz")
    return tmp_path / "events.npz"


def call(*words: object) -> int:
    return main([str(word) for word in words])


def judged(x: onnx_files.Array) -> onnx_files.Array:
    """Every second batch is judged on."""
    return np.concatenate([x[begin : begin + ROWS] for begin in range(ROWS, len(x), 2 * ROWS)])


def test_metrics_are_those_of_numpy(file: Path, tmp_path: Path) -> None:
    x = onnx_files.events(tmp_path / "events.npz")
    expected = onnx_files.logits(judged(x))
    labels = onnx_files.logits(x).argmax(axis=1)
    labels[::3] = (labels[::3] + 1) % onnx_files.CLASSES
    np.save(tmp_path / "labels.npy", labels)
    judge = Judge(graph.read(file), tmp_path / "events.npz", tmp_path / "labels.npy")
    other = onnx_files.classifier(tmp_path / "other.onnx", seed=5)
    found, size = judge.measure(graph.read(other))
    made = onnx_files.logits(judged(x), seed=5).astype(np.float64)
    error = np.sqrt(((made - expected) ** 2).sum() / (expected.astype(np.float64) ** 2).sum())
    own = judged(labels)
    logarithms = (
        made
        - np.log(np.exp(made - made.max(1, keepdims=True)).sum(1, keepdims=True))
        - made.max(1, keepdims=True)
    )
    assert found[ERROR.name].value == pytest.approx(error, rel=1e-5)
    assert found[AGREEMENT.name].value == (made.argmax(1) == expected.argmax(1)).mean()
    assert found[ACCURACY.name].value == (made.argmax(1) == own).mean()
    assert found[CROSS_ENTROPY.name].value == pytest.approx(
        -logarithms[np.arange(len(own)), own].mean(), rel=1e-5
    )
    assert {item.n for item in found.values()} == {len(own)}
    assert size == other.stat().st_size
    same, _ = judge.measure(graph.read(file))
    assert (same[ERROR.name].value, same[AGREEMENT.name].value) == (0.0, 1.0)


def test_probabilities_are_taken_as_they_are(tmp_path: Path) -> None:
    x = onnx_files.events(tmp_path / "events.npz", rows=ROWS)
    file = onnx_files.classifier(tmp_path / "soft.onnx", softmax=True)
    labels = np.arange(ROWS) % onnx_files.CLASSES
    np.savez(tmp_path / "labels.npz", anything=labels[:, None].astype(np.float64))
    found, _ = Judge(graph.read(file), tmp_path / "events.npz", tmp_path / "labels.npz").measure(
        graph.read(file)
    )
    logits = onnx_files.logits(x).astype(np.float64)
    shifted = logits - logits.max(1, keepdims=True)
    p = np.exp(shifted) / np.exp(shifted).sum(1, keepdims=True)
    expected = -np.log(np.maximum(p[np.arange(ROWS), labels], 1e-12)).mean()
    assert found[CROSS_ENTROPY.name].value == pytest.approx(expected, rel=1e-3)


def test_only_what_is_exact_survives_a_small_error(
    file: Path, data: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "out.onnx"
    assert call("ternarize", file, "--out", out, "--data", data, "--max-error", "1e-6", "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert content["survivors"] == ["first"]
    assert {layer.name: layer.precision for layer in inspect(out).layers} == {
        "first": "ternary",
        "second": "float32",
        "last": "float32",
    }
    assert content["alone"]["first"]["output_error"] == 0
    assert min(content["alone"][name]["output_error"] for name in ("second", "last")) > 0.05
    assert content["together"]["output_error"] <= 1e-6


def test_a_large_error_lets_all_survive_and_a_table_shows_it(
    file: Path, data: Path, tmp_path: Path, capsys: Capture
) -> None:
    assert call("ternarize", file, "--out", tmp_path / "out.onnx", "--data", data, "--max-error", "9") == 0
    printed = capsys.readouterr().out
    rows = [line.split() for line in printed.splitlines()]
    assert [row[-1] for row in rows if row and row[0] in ("first", "second", "last") and len(row) == 4] == [
        "yes"
    ] * 3


def test_what_survives_keeps_to_the_limit_together(
    file: Path, data: Path, tmp_path: Path, capsys: Capture
) -> None:
    x = onnx_files.events(data)
    out = tmp_path / "out.onnx"
    assert call("ternarize", file, "--out", out, "--data", data, "--max-drop", "agreement=0.2", "--json") == 0
    content = json.loads(capsys.readouterr().out)
    import bitsearch.ops

    made = bitsearch.ops.session(out).run(None, {"x": judged(x)})[0]
    agreement = (made.argmax(1) == onnx_files.logits(judged(x)).argmax(1)).mean()
    assert agreement >= 0.8
    assert content["together"]["agreement"] == pytest.approx(agreement)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--max-error", "0.1"], "need --data"),
        (["--data", "DATA", "--max-error", "0"], "--max-error 0: expected a number above 0"),
        (["--data", "DATA", "--max-error", "nan"], "--max-error nan: expected a number above 0"),
        (["--data", "DATA", "--max-drop", "agreement=x"], "--max-drop x: expected a number above 0"),
        (
            ["--data", "DATA", "--max-drop", "accuracy=0.1"],
            "expected one of agreement=X; those of labels need --labels",
        ),
        (["--data", "DATA", "--labels", "DATA"], "--labels tell how good a file is"),
        (
            ["--data", "DATA", "--max-error", "1e-9", "--layers", "last"],
            "no layer survives: last, the least harmful",
        ),
        (
            ["--data", "DATA", "--max-drop", "accuracy=0.1", "--labels", "none.npy"],
            "there is no file none.npy",
        ),
        (["--data", "none.npz", "--max-error", "0.1"], "there is no file none.npz"),
    ],
)
def test_what_does_not_fit_is_one_line(
    file: Path, data: Path, tmp_path: Path, capsys: Capture, flags: list[str], message: str
) -> None:
    out = tmp_path / "out.onnx"
    words = [str(data) if word == "DATA" else word for word in flags]
    assert call("ternarize", file, "--out", out, *words) == 2
    found = capsys.readouterr()
    assert message in found.err
    assert found.err.count("\n") == 1
    assert not found.out
    assert not out.exists()


LABELS = {
    "few": (np.zeros(10, np.int64), "holds 10 labels and"),
    "negative": (np.full(200, -1), "holds the labels -1 to -1; expected 0 to 3"),
    "large": (np.full(200, 4), "holds the labels 4 to 4; expected 0 to 3"),
    "nan": (np.full(200, np.nan), "expected a whole number for every row"),
    "halves": (np.full(200, 0.5), "expected a whole number for every row"),
    "text": (np.full(200, "a"), "expected a whole number for every row"),
    "wide": (np.zeros((200, 3), np.int64), "expected a whole number for every row"),
    "empty": (np.zeros(0, np.int64), "expected a whole number for every row"),
    "object": (np.array([{}], object), "cannot be read"),
}


@pytest.mark.parametrize("case", LABELS)
def test_labels_that_do_not_fit_are_one_line(
    file: Path, data: Path, tmp_path: Path, capsys: Capture, case: str
) -> None:
    labels, message = LABELS[case]
    np.save(tmp_path / "labels.npy", labels, allow_pickle=True)
    words = ["--data", data, "--labels", tmp_path / "labels.npy", "--max-drop", "accuracy=0.1"]
    assert call("ternarize", file, "--out", tmp_path / "out.onnx", *words) == 2
    found = capsys.readouterr().err
    assert message in found
    assert found.count("\n") == 1


def test_data_that_lead_to_nan_are_refused(file: Path, tmp_path: Path, capsys: Capture) -> None:
    np.savez(tmp_path / "nan.npz", x=np.full((100, onnx_files.FEATURES), np.nan, np.float32))
    words = ["--data", tmp_path / "nan.npz", "--max-error", "0.1"]
    assert call("ternarize", file, "--out", tmp_path / "out.onnx", *words) == 2
    assert "the original puts out NaN or infinity" in capsys.readouterr().err


def test_shared_weights_are_one_layer(tmp_path: Path) -> None:
    file = onnx_files.classifier(tmp_path / "model.onnx")
    model = onnx.load(file)
    model.graph.node[4].input[1] = "second"
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 16
    candidates = Candidates(model, ternarize.rounder())
    inventory = candidates.layers.inventory
    assert inventory.names == ("first", "second")
    assert candidates.layers.same["last"] == "second"
    precisions = {"first": Precision.FLOAT32, "second": Precision.TERNARY}
    _, outcomes = candidates.make(precisions)
    assert [item.layer for item in outcomes] == ["second", "last"]
    # 12 x 16 weights of 32 bits and 16 x 16 of 2.
    assert mean_bits(candidates.layers, precisions) == (192 * 32 + 256 * 2) / 448
