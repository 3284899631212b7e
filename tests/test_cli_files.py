"""`ternarize`, `inspect`, `verify`, `bench` as people call them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from ternary_layer import Layer

from bitsearch import ops
from bitsearch.cli import main
from bitsearch.onnxfile import runtime
from bitsearch.onnxfile.inspect import inspect


@pytest.fixture
def mlp(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    constants = {name: rng.normal(size=(16, 16)).astype(np.float32) for name in ("w", "v")}
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["a"], "body.0", transB=1),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("MatMul", ["r", "v"], ["p"], "body.2"),
        helper.make_node("MatMul", ["p", "r_t"], ["y"], "attention"),
    ]
    nodes.insert(2, helper.make_node("Transpose", ["r"], ["r_t"], perm=[1, 0]))
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "batch"])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    path = tmp_path / "mlp.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


Capture = pytest.CaptureFixture[str]


def call(*arguments: str | Path) -> int:
    return main([str(item) for item in arguments])


def answer(capsys: Capture, *arguments: str | Path) -> dict[str, Any]:
    capsys.readouterr()
    assert call(*arguments, "--json") == 0
    content: dict[str, Any] = json.loads(capsys.readouterr().out)
    return content


def refusal(capsys: Capture, *arguments: str | Path) -> str:
    capsys.readouterr()
    assert call(*arguments) == 2
    found = capsys.readouterr()
    assert not found.out
    assert found.err.count("\n") == 1
    return found.err


def test_ternarize_prints_what_became_of_each_node(mlp: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "small.onnx"
    assert call("ternarize", mlp, "--out", out) == 0
    printed = capsys.readouterr()
    assert "nothing was re-trained" in printed.err
    lines = [line for line in printed.out.splitlines() if line.startswith(("body", "attention"))]
    assert len(lines) == 3
    assert lines[2].split()[:3] == ["attention", "MatMul", "declined:"]
    assert "its weights are not" in lines[2]  # the narrow table folds here
    assert [layer.name for layer in inspect(out).layers] == ["body.0", "body.2"]


def test_ternarize_json(mlp: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "small.onnx"
    content = answer(capsys, "ternarize", mlp, "--out", out, "--layers", "body.[0-1]", "att*")
    assert [(item["layer"], item["reason"]) for item in content["layers"]] == [
        ("body.0", None),
        ("attention", "its weights are not constant"),
    ]
    assert (content["bytes"], content["retrained"], content["fraction"]) == (out.stat().st_size, False, 0.5)


def test_ternarize_follows_an_assignment(mlp: Path, tmp_path: Path, capsys: Capture) -> None:
    out, assignment = tmp_path / "small.onnx", tmp_path / "assignment.json"
    assignment.write_text(json.dumps({"body.2": "binary", "body.0": "float32", "not there": "float32"}))
    answer(capsys, "ternarize", mlp, "--out", out, "--assignment", assignment)
    assert {layer.name: layer.precision for layer in inspect(out).layers} == {
        "body.0": "float32",
        "body.2": "binary",
    }


def test_ternarize_refuses_layers_that_are_not_there(mlp: Path, tmp_path: Path, capsys: Capture) -> None:
    out, assignment = tmp_path / "small.onnx", tmp_path / "assignment.json"
    message = refusal(capsys, "ternarize", mlp, "--out", out, "--layers", "head.*")
    assert "no linear layer is named head.*; expected one of body.0, body.2, attention" in message
    for content, reason in (
        ('{"head": "ternary"}', "named head"),
        ("no json", "expected JSON"),
        ("{}", "none"),
    ):
        assignment.write_text(content)
        assert reason in refusal(capsys, "ternarize", mlp, "--out", out, "--assignment", assignment)
    assert not out.exists()


def test_inspect(mlp: Path, capsys: Capture) -> None:
    assert call("inspect", mlp) == 0
    printed = capsys.readouterr().out
    assert "x: float (batch, 16)" in printed
    content = answer(capsys, "inspect", mlp)
    assert [layer["shape"] for layer in content["layers"]] == [[16, 16], [16, 16]]
    assert content["nodes"]["MatMul"] == 2


def test_verify_passes(mlp: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "small.onnx"
    call("ternarize", mlp, "--out", out)
    usable = [kernel.name for kernel in ops.kernels() if kernel.usable]
    content = answer(capsys, "verify", out)
    assert content["passed"]
    assert len(content["checks"]) == 2 * (len(usable) + 1) + len(usable)
    assert call("verify", out) == 0
    assert f"{len(content['checks'])} checks, 0 failed" in " ".join(capsys.readouterr().out.split())


def test_verify_fails_with_status_1(tmp_path: Path, capsys: Capture) -> None:
    onnx.save(Layer.random(8, 3).model(portable=False), tmp_path / "bad.onnx")
    with pytest.raises(SystemExit) as ended:
        call("verify", tmp_path / "bad.onnx", "--json")
    assert ended.value.code == 1
    assert not json.loads(capsys.readouterr().out)["passed"]


def test_bench(mlp: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "BLOCK_SECONDS", 1e-4)
    out = tmp_path / "small.onnx"
    call("ternarize", mlp, "--out", out)
    flags = ["--against", str(mlp), "--int8", "--batch", "1", "4", "--blocks", "2", "--threads", "2"]
    content = answer(capsys, "bench", out, *flags)
    assert [item["name"] for item in content["timings"][:3]] == ["small", "mlp", "mlp int8"]
    assert {item["threads"] for item in content["timings"]} == {2}
    assert call("bench", out, *flags) == 0
    assert "Size, and memory at batch 4" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--batch", "0"], "--batch 0: expected 1 or more"),
        (["--threads", "-1"], "--threads -1: expected 1 or more"),
        (["--size", "batch"], "--size batch: expected AXIS=N"),
        (["--size", "rows=2"], "no free axis rows; expected one of batch"),
        (["--against", "nothing.onnx"], "there is no file nothing.onnx"),
    ],
)
def test_bench_refuses(mlp: Path, capsys: Capture, flags: list[str], message: str) -> None:
    assert message in refusal(capsys, "bench", mlp, *flags)


@pytest.mark.parametrize("verb", ["ternarize", "inspect", "verify", "bench"])
def test_broken_files_are_one_line(verb: str, tmp_path: Path, capsys: Capture) -> None:
    more = ["--out", str(tmp_path / "out.onnx")] if verb == "ternarize" else []
    assert "there is no file" in refusal(capsys, verb, tmp_path / "missing.onnx", *more)
    (tmp_path / "text.onnx").write_text("no model")
    assert "text.onnx" in refusal(capsys, verb, tmp_path / "text.onnx", *more)


@pytest.mark.parametrize("verb", ["ternarize", "inspect", "verify", "bench", "diff", "evaluate", "suggest"])
def test_help_has_an_example(verb: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        call(verb, "--help")
    assert f"\n  bitsearch {verb} " in capsys.readouterr().out


@pytest.fixture
def brackets(tmp_path: Path) -> Path:
    """Layers named as torch names them, an input named `file`."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("MatMul", ["file", "w"], ["a"], "layers[0]/MatMul"),
        helper.make_node("MatMul", ["a", "v"], ["y"], "layers[1]/MatMul"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("file", TensorProto.FLOAT, ["batch", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [
            numpy_helper.from_array(rng.normal(size=(8, 64)).astype(np.float32), "w"),
            numpy_helper.from_array(rng.normal(size=(64, 3)).astype(np.float32), "v"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {"note": "two\nlines"})
    onnx.save(model, tmp_path / "brackets.onnx")
    return tmp_path / "brackets.onnx"


@pytest.mark.parametrize(
    ("flags", "chosen"),
    [
        (["--layers", "layers[1]/MatMul"], ["layers[1]/MatMul"]),
        (["--exclude", "layers[1]/MatMul"], ["layers[0]/MatMul"]),
        (["--layers", "layers*", "--exclude", "*[[]0]*"], ["layers[1]/MatMul"]),
        (["--least-size", "200"], ["layers[0]/MatMul"]),
    ],
)
def test_exact_names_come_before_patterns(
    brackets: Path, tmp_path: Path, capsys: Capture, flags: list[str], chosen: list[str]
) -> None:
    content = answer(capsys, "ternarize", brackets, "--out", tmp_path / "out.onnx", *flags)
    assert [item["layer"] for item in content["layers"]] == chosen


def test_a_file_that_grows_is_said_to(brackets: Path, tmp_path: Path, capsys: Capture) -> None:
    assert call("ternarize", brackets, "--out", brackets) == 0
    assert "the file grew from" in capsys.readouterr().err
    assert call("inspect", brackets) == 0
    assert "two lines" in capsys.readouterr().out


def test_inputs_from_a_file(
    brackets: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "BLOCK_SECONDS", 1e-4)
    np.savez(tmp_path / "x.npz", np.ones((5, 8), np.float32))
    flags: list[str | Path] = ["--inputs", tmp_path / "x.npz", "--blocks", "2", "--profile"]
    content = answer(capsys, "bench", brackets, *flags)
    assert [item["batch"] for item in content["timings"]] == [5]
    (footprint,) = content["footprints"]
    assert footprint["peak_memory_bytes"] > 0
    assert footprint["load_ms"] > 0
    assert sum(footprint["profile"].values()) == pytest.approx(1)
    assert content["timings"][0]["p99_us"] >= content["timings"][0]["minimum_us"]
    assert content["timings"][0]["energy_uj"] > 0
    assert content["energy_source"]
    (tmp_path / "bad.npz").write_text("no archive")
    for name, message in (("bad.npz", "cannot be read"), ("none.npz", "there is no file")):
        assert message in refusal(capsys, "bench", brackets, "--inputs", tmp_path / name)
    np.savez(tmp_path / "wide.npz", np.ones((5, 9), np.float32))
    assert "file has shape (5, 9)" in refusal(capsys, "bench", brackets, "--inputs", tmp_path / "wide.npz")


def test_diff(brackets: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "small.onnx"
    call("ternarize", brackets, "--out", out, "--layers", "layers[1]/MatMul")
    x = np.random.default_rng(1).normal(size=(40, 8)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x)
    content = answer(capsys, "diff", brackets, out, "--inputs", tmp_path / "x.npz")
    assert content["operators"] == {"MatMul": [2, 1], "com.bithep::TernaryMatMul": [0, 1]}
    assert list(content["layers"]) == ["layers[1]/MatMul"]
    a, b = (ops.session(path).run(None, {"file": x})[0].astype(np.float64) for path in (brackets, out))
    (output,) = content["outputs"]
    assert output["largest"] == pytest.approx(np.abs(a - b).max())
    assert output["mean"] == pytest.approx(np.abs(a - b).mean())
    assert output["flips"] == pytest.approx((a.argmax(1) != b.argmax(1)).mean())
    assert [(item["output"], item["largest"]) for item in content["inner"]] == [("a", 0.0)]
    assert call("diff", brackets, out) == 0


def test_lossless_files_are_said_to_be(tmp_path: Path, capsys: Capture) -> None:
    weight = numpy_helper.from_array(np.tile(np.array([0.5, 0, -0.5, 0.5], np.float32), (4, 1)), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "layer")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [weight],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]), tmp_path / "in.onnx")
    assert call("ternarize", tmp_path / "in.onnx", "--out", tmp_path / "out.onnx") == 0
    assert "weights are kept exactly" in capsys.readouterr().err


def test_diff_of_files_that_drawn_inputs_do_not_fit(tmp_path: Path, capsys: Capture) -> None:
    shape = numpy_helper.from_array(np.array([7, 7]), "shape")
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [shape],
    )
    path = tmp_path / "in.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    assert "--inputs gives others" in refusal(capsys, "diff", path, path)
