"""Files with one order of operations: what is replaced, that it computes the same, what is refused, one hash."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx_files import classifier

from bitsearch import ops
from bitsearch.cli import main
from bitsearch.core.errors import ConfigurationError, ExportError
from bitsearch.onnxfile import bits, graph
from bitsearch.onnxfile.reproducible import EXACT, reproducible

RNG = np.random.default_rng(0)


def node(kind: str, inputs: list[str], output: str = "y", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, [output], f"{kind}_{output}", **attributes)


def model(
    nodes: list[onnx.NodeProto], shape: list[Any], constants: dict[str, Any] | None = None, opset: int = 20
) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()]
    graph = helper.make_graph(
        nodes,
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def f32(*shape: int) -> NDArray[np.float32]:
    return RNG.normal(size=shape).astype(np.float32)


def scan() -> onnx.ModelProto:
    """Multiply a state by a matrix of the main graph again and again."""
    fed, out = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 5]) for name in names]
        for names in (("state", "row"), ("next", "seen"))
    )
    body = helper.make_graph(
        [
            node("MatMul", ["state", "w"], "moved"),
            node("Tanh", ["moved"], "bent"),
            node("Add", ["bent", "row"], "next"),
            node("Identity", ["next"], "seen"),
        ],
        "body",
        fed,
        out,
    )
    step = helper.make_node("Scan", ["x", "rows"], ["end", "y"], "scan", body=body, num_scan_inputs=1)
    return model([step], ["batch", 5], {"w": f32(5, 5), "rows": f32(4, 1, 5)})


GRAPHS = {
    "Gemm, scaled": (
        model([node("Gemm", ["x", "w"], "a"), node("Softplus", ["a"])], ["batch", 5], {"w": f32(5, 3)}),
        None,
    ),
    "Gemm": (model([node("Gemm", ["x", "w"])], ["batch", 5], {"w": f32(5, 3)}), (4, 5)),
    "Gemm, matrix": (
        model([node("Gemm", ["x", "w", "c"], transB=1)], ["batch", 5], {"w": f32(3, 5), "c": f32(1, 3)}),
        (4, 5),
    ),
    "vector": (model([node("MatMul", ["x", "w"])], ["batch", 5], {"w": f32(5)}), (4, 5)),
    "Softmax": (model([node("Softmax", ["x"], axis=1)], ["batch", 5, 3], {}), (4, 5, 3)),
    "LayerNormalization": (
        model([node("LayerNormalization", ["x", "s"])], ["batch", 7], {"s": f32(7)}),
        (4, 7),
    ),
    "ReduceMean": (
        model([node("ReduceMean", ["x", "a"], keepdims=0)], ["batch", 5, 3, 2], {"a": np.array([1, 3])}),
        (4, 5, 3, 2),
    ),
    "Pow": (model([node("Pow", ["x", "p"])], ["batch", 5], {"p": np.float32(3)}), (4, 5)),
    "BatchNormalization": (
        model(
            [node("BatchNormalization", ["x", "s", "b", "m", "v"])],
            ["batch", 3, 4],
            {"s": f32(3), "b": f32(3), "m": f32(3), "v": np.abs(f32(3))},
        ),
        (5, 3, 4),
    ),
    "Conv": (
        model(
            [node("Conv", ["x", "w", "b"], pads=[1, 0, 1, 2])],
            ["batch", 3, 6, 7],
            {"w": f32(4, 3, 3, 2), "b": f32(4)},
        ),
        (2, 3, 6, 7),
    ),
    "Scan": (scan(), (6, 5)),
}
RUNNING = {name: found for name, found in GRAPHS.items() if found[1] is not None}


@pytest.mark.parametrize("name", RUNNING)
def test_computes_the_same_in_operators_with_one_order(name: str) -> None:
    given, shape = RUNNING[name]
    assert shape is not None
    ordered = reproducible(given)
    kinds = {(item.domain, item.op_type) for scope in graph.scopes(ordered) for item in scope.graph.node}
    assert all(domain == ops.DOMAIN or kind in EXACT for domain, kind in kinds), kinds
    x = f32(*shape)
    expected = ort.InferenceSession(given.SerializeToString()).run(["y"], {"x": x})[0]
    found = ops.session(ordered.SerializeToString()).run(["y"], {"x": x})[0]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    without = ort.InferenceSession(ordered.SerializeToString()).run(["y"], {"x": x})[0]
    np.testing.assert_allclose(without, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (GRAPHS["Gemm, scaled"][0], "Softplus 'Softplus_y' cannot be made reproducible: it has no"),
        (model([node("Pow", ["x", "p"])], ["batch"], {"p": np.float32(1.7)}), "exponent 1.7"),
        (model([node("Gelu", ["x"], domain="com.microsoft")], ["batch"]), "com.microsoft has an order"),
        (model([node("Gemm", ["x", "x"], alpha=2.0)], ["batch", 3]), "expected alpha and beta 1"),
        (model([node("ReduceMean", ["x"])], ["batch", 3]), "an axis of unknown size"),
        (model([node("CumSum", ["x", "a"])], ["batch", 3], {"a": 0}), "CumSum .* no reproducible form"),
    ],
)
def test_what_has_no_one_order_is_refused(given: onnx.ModelProto, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        reproducible(given)


@pytest.mark.parametrize(
    "summed", [node("ReduceSum", ["i"]), node("CumSum", ["i", "a"])], ids=lambda given: given.op_type
)
def test_sums_of_integers_stay(summed: onnx.NodeProto) -> None:
    cast = node("Cast", ["x"], "i", to=TensorProto.INT64)
    given = model([cast, summed], ["batch", 3], {"a": 0}, opset=17)
    assert [item.domain for item in reproducible(given).graph.node] == ["", ""]


def test_a_file_is_exported_and_gives_one_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bits, "THREADS", range(1, 3))
    out = tmp_path / "ordered.onnx"
    assert (
        main(
            [
                "export",
                str(classifier(tmp_path / "c.onnx", softmax=True)),
                "--reproducible",
                "--out",
                str(out),
            ]
        )
        == 0
    )
    capsys.readouterr()
    assert main(["verify", str(out), "--reproducible", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    usable = {kernel.name for kernel in ops.kernels() if kernel.usable}
    assert {run["kernel"] for run in content["runs"]} == usable
    assert {(run["threads"], run["split"]) for run in content["runs"]} == {
        (threads, split) for threads in (1, 2) for split in bits.SPLITS
    }
    assert len({run["digest"] for run in content["runs"]}) == 1


def test_what_depends_on_the_batch_is_found(tmp_path: Path) -> None:
    path = tmp_path / "mean.onnx"
    centred = [node("ReduceSum", ["x", "a"], "m"), node("Sub", ["x", "m"])]
    onnx.save(model(centred, ["batch", 3], {"a": np.array([0])}), path)
    found = bits.runs(path, threads=[1])
    assert len({run.digest for run in found}) == len(bits.SPLITS)
    assert len({(run.split, run.digest) for run in found}) == len(bits.SPLITS)


def test_an_environment_without_python_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="found no Python there"):
        bits.runs(classifier(tmp_path / "c.onnx"), [tmp_path])
