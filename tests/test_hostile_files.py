"""Broken and hostile ONNX files: every verb says one clear line and leaves nothing half-written."""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from ternary_layer import Layer

from bitsearch.cli import main

VERBS: dict[str, list[str]] = {
    "inspect": [],
    "verify": [],
    "bench": ["--blocks", "1", "--batch", "1"],
    "ternarize": ["--out", "out.onnx"],
    "diff": ["good.onnx"],
}


def good() -> onnx.ModelProto:
    """Build a float layer beside a ternary one, metadata, a branch."""
    model = Layer.random(16, 16).model()
    weight = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "float_weight"))
    model.graph.node.append(helper.make_node("MatMul", ["Y", "float_weight"], ["Z"], "float"))
    model.graph.output.append(helper.make_tensor_value_info("Z", TensorProto.FLOAT, [None, 4]))
    helper.set_model_props(model, {"bitsearch.model": "caloinn", "author": "someone"})
    return model


def external(model: onnx.ModelProto, **entries: object) -> None:
    tensor = model.graph.initializer[-1]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))


def cycle(model: onnx.ModelProto) -> None:
    model.graph.node[-1].input[0] = "loop"
    model.graph.node.append(helper.make_node("Identity", ["Z"], ["loop"]))


def dims(*sizes: int) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        del model.graph.initializer[-1].dims[:]
        model.graph.initializer[-1].dims.extend(sizes)

    return change


def kind(number: int) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        model.graph.initializer[-1].data_type = number

    return change


def two_results(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Identity", ["X"], ["Z"]))


def no_branch(model: onnx.ModelProto) -> None:
    body = helper.make_graph([helper.make_node("Identity", ["X"], ["o"])], "g", [], [])
    model.graph.node.append(helper.make_node("If", ["X"], ["o"], then_branch=body))


def endless(model: onnx.ModelProto) -> None:
    calls = helper.make_node("endless", ["x"], ["y"], domain="own")
    opsets = [helper.make_opsetid("own", 1), helper.make_opsetid("", 18)]
    model.functions.append(helper.make_function("own", "endless", ["x"], ["y"], [calls], opsets))
    model.opset_import.append(opsets[0])
    model.graph.node.append(helper.make_node("endless", ["X"], ["e"], domain="own"))


def future(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 999


LOOKED_AT = ("cycle", "two results", "no branch", "endless", "future opset", "future format", "no result")
BROKEN: dict[str, Callable[[onnx.ModelProto], object]] = {
    "dims too large": dims(16, 5),
    "dims enormous": dims(2**62, 2**62),
    "dims negative": dims(-1, 4),
    "type lies": kind(TensorProto.DOUBLE),
    "type unknown": kind(99),
    "external missing": lambda model: external(model, location="nothing.bin"),
    "external outside": lambda model: external(model, location="../outside.bin"),
    "external absolute": lambda model: external(model, location="/dev/zero"),
    "external short": lambda model: external(model, location="good.onnx", offset=10, length=2**40),
    "external nonsense": lambda model: external(model, location="good.onnx", offset="ten", length=256),
    "cycle": cycle,
    "two results": two_results,
    "no branch": no_branch,
    "endless": endless,
    "future opset": future,
    "future format": lambda model: setattr(model, "ir_version", 99),
    "no result": lambda model: model.graph.node[-1].ClearField("output"),
    "graph missing": lambda model: model.ClearField("graph"),
}
STRINGS = {
    b"float_weight": b"float_\xff\xfeight",
    b"author": b"auth\xff\xff",
    b"TernaryMatMul": b"Ternary\xff\xfe\xfdMul",
}


def status(
    folder: Path, verb: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> int:
    monkeypatch.chdir(folder)
    capsys.readouterr()
    files = [str(folder / "bad.onnx")]
    try:
        code = main([verb, *files, *VERBS[verb], "--json"])
    except SystemExit as ended:
        code = int(str(ended.code))
    printed = capsys.readouterr()
    assert code in (0, 1, 2), printed.err
    if code == 2:
        assert printed.err.count("\n") == 1, printed.err
        assert not printed.out
        assert not (folder / "out.onnx").exists()
    assert "Traceback" not in printed.err
    assert "NaN" not in printed.out
    (folder / "out.onnx").unlink(missing_ok=True)
    assert {item.name for item in folder.iterdir()} <= {"bad.onnx", "good.onnx"}
    return code


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    onnx.save(good(), tmp_path / "good.onnx")
    return tmp_path


@pytest.mark.parametrize("verb", VERBS)
def test_good_files_pass(
    folder: Path, verb: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx.save(good(), folder / "bad.onnx")
    assert status(folder, verb, capsys, monkeypatch) == 0


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_one_line(
    folder: Path, case: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = good()
    BROKEN[case](model)
    (folder / "bad.onnx").write_bytes(model.SerializeToString())
    codes = {verb: status(folder, verb, capsys, monkeypatch) for verb in VERBS}
    seen = codes.pop("inspect")
    assert seen == (0 if case in LOOKED_AT else 2)
    assert set(codes.values()) == {2}, codes


@pytest.mark.parametrize("text", STRINGS)
def test_strings_that_are_not_utf_8_are_one_line(
    folder: Path, text: bytes, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = good().SerializeToString()
    assert text in content
    (folder / "bad.onnx").write_bytes(content.replace(text, STRINGS[text]))
    for verb in VERBS:
        assert status(folder, verb, capsys, monkeypatch) == 2


def test_deep_nesting_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    info = helper.make_tensor_value_info
    inner = helper.make_graph([helper.make_node("Identity", ["X"], ["o"])], "g", [], [info("o", 1, None)])
    for _ in range(28):
        node = helper.make_node("If", ["c"], ["o"], then_branch=inner, else_branch=onnx.GraphProto())
        inner = helper.make_graph([node], "g", [], [info("o", 1, None)])
    model = good()
    model.graph.node.extend(inner.node)
    (folder / "bad.onnx").write_bytes(model.SerializeToString())
    for verb in VERBS:
        status(folder, verb, capsys, monkeypatch)


@pytest.mark.parametrize("seed", range(25))
def test_mutated_files_end_in_one_line_or_a_result(
    folder: Path, seed: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(seed)
    content = bytearray(good().SerializeToString())
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(content))
        match rng.randrange(3):
            case 0:
                content[place] = rng.randrange(256)
            case 1:
                del content[place : place + rng.randint(1, 40)]
            case _:
                content[place:place] = bytes(rng.randrange(256) for _ in range(rng.randint(1, 8)))
    (folder / "bad.onnx").write_bytes(bytes(content))
    for verb in VERBS if seed % 5 == 0 else ("inspect", "ternarize"):
        status(folder, verb, capsys, monkeypatch)
