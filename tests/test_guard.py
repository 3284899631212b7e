"""Layers that few bits slow down stay in float32. Times are made up: what is slow here says nothing of elsewhere."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bitsearch import Precision
from bitsearch.cli import main
from bitsearch.core.errors import ConfigurationError, ExportError
from bitsearch.core.measurement import Latency
from bitsearch.onnxfile import graph, runtime
from bitsearch.onnxfile.backends import rewrite
from bitsearch.onnxfile.candidates import Candidates
from bitsearch.onnxfile.guard import Guard
from bitsearch.onnxfile.products import Backend
from bitsearch.onnxfile.ternarize import rounder, ternarize

Ratio = Callable[[tuple[int, ...]], float]
Timed = list[tuple[int, ...]]


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Callable[[Ratio], Timed]:
    """Let the ratio to float32 follow from the shape of the activations; give the shapes that were timed."""

    def install(ratio: Ratio) -> Timed:
        shapes: Timed = []

        def time_session(
            session: Any,
            feed: Mapping[str, Any],
            threads: int,
            seconds: float = 0,
            kernel: str = "",
            beside: Any = None,
        ) -> Latency:
            (x,) = feed.values()
            shapes.append(x.shape)
            for item in filter(None, (session, beside)):
                item.run(None, dict(feed))
            return Latency(len(x), threads, "", 1.0, 0.0, 1, ratio=ratio(x.shape))

        monkeypatch.setattr(runtime, "time_session", time_session)
        return shapes

    return install


def model(k: int = 8) -> onnx.ModelProto:
    """Two layers of 8 inputs and one of 16, a convolution, and activations of three axes."""
    info = helper.make_tensor_value_info
    rng = np.random.default_rng(0)
    shapes = {"a": (8, 8), "b": (8, 16), "c": (16, 8), "d": (4, 5, 1)}
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"], "first"),
        helper.make_node("MatMul", ["h", "b"], ["i"], "second"),
        helper.make_node("MatMul", ["i", "c"], ["j"], "third"),
        helper.make_node("MatMul", ["j", "a"], ["y"], "fourth"),
        helper.make_node("Conv", ["j", "d"], ["z"], "conv"),
    ]
    made = helper.make_graph(
        nodes,
        "g",
        [info("x", TensorProto.FLOAT, ["batch", 5, 8])],
        [info("y", TensorProto.FLOAT, None), info("z", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(rng.normal(size=s).astype(np.float32), n) for n, s in shapes.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def everything(_name: str) -> Precision:
    return Precision.TERNARY


def test_slow_layers_stay_and_alike_ones_are_timed_once(timed: Callable[[Ratio], Timed]) -> None:
    shapes = timed(lambda shape: 1.5 if shape[0] == 64 and shape[-1] == 16 else 0.5)
    guard = Guard(Backend.NBITS, (1, 64))
    choose = guard.limit(model(), everything)
    assert {name: choose(name) for name in ("first", "second", "third", "fourth")} == {
        "first": "ternary",
        "second": "ternary",
        "third": "float32",
        "fourth": "ternary",
    }
    assert guard.kept == {"third": "at batch 64 nbits takes 1.50 times as long as float32 here"}
    # first and fourth are alike; the convolution keeps its own shape.
    assert sorted(shapes) == sorted(
        [(b, 5, k) for b in (1, 64) for k in (8, 8, 16)] + [(1, 5, 8), (64, 5, 8)]
    )


def test_exported_layers_multiply_in_float_where_that_is_faster(timed: Callable[[Ratio], Timed]) -> None:
    timed(lambda shape: 2.0 if shape[-1] == 16 else 0.5)
    source, _ = ternarize(model(), everything)
    guard = Guard(Backend.NBITS, (7,))
    found = rewrite(source, "nbits", guard.keeps)
    kinds = {node.name: node.op_type for node in found.graph.node if node.name}
    assert (kinds["first"], kinds["second"], kinds["third"]) == ("MatMulNBits", "MatMulNBits", "MatMul")
    assert list(guard.kept) == ["third"]
    assert graph.opset(found) == 17


def test_nothing_is_left(timed: Callable[[Ratio], Timed]) -> None:
    timed(lambda _: 3.0)
    with pytest.raises(ExportError, match=r"all 5 layers are slower than float32 .*3.00 times"):
        Guard(Backend.NBITS, (1,)).limit(model(), everything)
    with pytest.raises(ConfigurationError, match="--batch 0: expected 1 or more"):
        Guard(Backend.NBITS, (0,))


def test_the_commands_say_what_stays(
    timed: Callable[[Ratio], Timed],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    timed(lambda shape: 2.0 if shape[-1] == 16 else 0.5)
    file, out = tmp_path / "a.onnx", tmp_path / "b.onnx"
    onnx.save(model(), file)
    words = ["ternarize", str(file), "--out", str(out), "--backend", "nbits", "--batch", "4", "--json"]
    assert main(words) == 0
    reason = "at batch 4 nbits takes 2.00 times as long as float32 here"
    found = json.loads(capsys.readouterr().out)
    assert found["slower"] == {"third": reason}
    assert {item["layer"] for item in found["layers"]} == {"first", "second", "fourth", "conv"}
    assert main(words[:-1]) == 0
    assert f"float32: {reason}" in capsys.readouterr().out

    ours = tmp_path / "ours.onnx"
    onnx.save(ternarize(model(), everything)[0], ours)
    words = ["export", str(ours), "--out", str(out), "--backend", "int8", "--batch", "4", "--json"]
    assert main(words) == 0
    assert list(json.loads(capsys.readouterr().out)["slower"]) == ["third"]


def test_a_search_leaves_out_what_stays() -> None:
    found = Candidates(model(), rounder(), "nbits", {"third": "it is slower"}).layers
    assert "third" not in found.inventory.names
    assert found.declined["third"] == "it is slower"
