"""Rounding by what layers put out on given inputs."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

from bitsearch import Precision, ops
from bitsearch.cli import main
from bitsearch.onnxfile import calibrate
from bitsearch.onnxfile.edit import Rounder
from bitsearch.onnxfile.ternarize import rounder, ternarize

Array = NDArray[np.float32]


def everything(_name: str) -> Precision:
    return Precision.TERNARY


def mlp(*layers: tuple[Array, Array | None], softmax: bool = False) -> onnx.ModelProto:
    """Chain layers of weights `(in_features, out_features)` and biases, with ReLU between."""
    nodes, constants, value = [], [], "x"
    for index, (weight, bias) in enumerate(layers):
        names = {f"w{index}": weight} | ({} if bias is None else {f"b{index}": bias})
        constants += [numpy_helper.from_array(array, name) for name, array in names.items()]
        made = f"h{index}" if index < len(layers) - 1 or softmax else "y"
        nodes.append(helper.make_node("Gemm", [value, *names], [made], f"fc{index}"))
        if index < len(layers) - 1:
            nodes.append(helper.make_node("Relu", [made], [f"r{index}"]))
            value = f"r{index}"
    if softmax:
        nodes.append(helper.make_node("Softmax", [made], ["y"]))
    sizes = layers[0][0].shape[0], layers[-1][0].shape[1]
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])
        for name, size in zip("xy", sizes, strict=True)
    )
    graph = helper.make_graph(nodes, "mlp", [x], [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def run(model: onnx.ModelProto, x: Array) -> Array:
    found: Array = ops.session(model.SerializeToString()).run(None, {"x": x})[0]
    return found


def off(model: onnx.ModelProto, x: Array, how: Rounder | None) -> float:
    """Mean absolute difference from the original."""
    return float(np.abs(run(ternarize(model, everything, how)[0], x) - run(model, x)).mean())


def stored(folder: Path, **arrays: Array) -> Path:
    path = folder / "data.npz"
    np.savez(path, allow_pickle=False, **arrays)
    return path


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("biased", [True, False])
def test_correlated_inputs_that_were_not_seen_come_out_closer(
    seed: int, biased: bool, tmp_path: Path
) -> None:
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(8, 150))  # more columns than are rounded at a time
    x = (rng.normal(size=(1024, 8)) @ mixing + 0.1 * rng.normal(size=(1024, 150)) + 2).astype(np.float32)
    weight, bias = rng.normal(size=(150, 12)).astype(np.float32), rng.normal(size=12).astype(np.float32)
    model = mlp((weight, bias if biased else None))
    calibrated = calibrate.rounder(model, everything, stored(tmp_path, x=x[:512]))
    assert off(model, x[512:], calibrated) < 0.5 * off(model, x[512:], None)


@pytest.mark.parametrize(
    ("op", "attributes"),
    [("MatMul", {}), ("Gemm", {"alpha": -0.5}), ("Conv", {}), ("Einsum", {"equation": "bk,kn->nb"})],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_every_kind_of_layer_is_seen(op: str, attributes: dict[str, Any], dtype: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x: NDArray[Any] = rng.normal(size=(200, 4)) @ rng.normal(size=(4, 32))
    w: NDArray[Any] = rng.normal(size=(32, 8))
    if op == "Conv":
        x, w = x.reshape(50, 4, 32).transpose(0, 2, 1), w.T[:, :, None]
    x, w = x.astype(dtype), np.ascontiguousarray(w, dtype)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    given, made = (
        helper.make_tensor_value_info(name, kind, shape)
        for name, shape in (("x", ["batch", *x.shape[1:]]), ("y", [None] * x.ndim))
    )
    node = helper.make_node(op, ["x", "w"], ["y"], **attributes)
    graph = helper.make_graph([node], "one", [given], [made], [numpy_helper.from_array(w, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    calibrated = calibrate.rounder(model, everything, stored(tmp_path, x=x))
    assert off(model, x, calibrated) < 0.5 * off(model, x, None)


def test_the_mean_error_is_in_the_bias(tmp_path: Path) -> None:
    """Products of the kernel round activations, too; on whole numbers up to 127 that changes nothing."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 128, size=(64, 20)).astype(np.float32)
    x[:, 0] = 127
    model = mlp((rng.normal(size=(20, 6)).astype(np.float32), None))
    converted, _ = ternarize(model, everything, calibrate.rounder(model, everything, stored(tmp_path, x=x)))
    np.testing.assert_allclose((run(converted, x) - run(model, x)).mean(axis=0), 0, atol=1e-3)


def test_error_under_the_hessian_never_rises() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        weight, root = rng.normal(size=(5, 9)).astype(np.float32), rng.normal(size=(9, 9))
        codes, scale = np.sign(weight).astype(np.int8), np.abs(weight).mean(axis=1)
        hessian = root @ root.T + 0.1 * np.eye(9)
        found, fitted = calibrate.compensate(weight, codes, scale, hessian)
        assert set(np.unique(found)) <= {-1, 0, 1}

        def error(codes: NDArray[np.int8], scale: Array, w: Any = weight, h: Any = hessian) -> Any:
            d = w - codes * scale[:, None]
            return np.asarray(np.einsum("oi,ij,oj->o", d, h, d))

        assert (error(found, fitted) <= error(codes, scale) * (1 + 1e-6)).all()


@pytest.mark.parametrize("precision", [Precision.TERNARY, Precision.BINARY])
def test_what_is_ternary_stays_exact(precision: Precision, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lowest = -1 if precision is Precision.TERNARY else 0
    codes = rng.integers(lowest, 2, size=(16, 6)) if lowest else rng.choice([-1, 1], size=(16, 6))
    weight = (codes * rng.uniform(0.5, 2, 6)).astype(np.float32)
    x = rng.normal(size=(100, 16)).astype(np.float32)
    model = mlp((weight, None))
    given = calibrate.rounder(model, lambda _: precision, stored(tmp_path, x=x))
    _, (outcome,) = ternarize(model, lambda _: precision, given)
    assert outcome.lossless
    assert outcome.error == 0


def test_shared_weights_keep_their_own_biases(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weight, x = rng.normal(size=(8, 8)).astype(np.float32), rng.normal(size=(256, 8)).astype(np.float32)
    model = mlp((weight, np.full(8, 100, np.float32)), (weight, np.full(8, -7, np.float32)))
    model.graph.node[2].input[1] = "w0"
    data = stored(tmp_path, x=x)
    converted, _ = ternarize(model, everything, calibrate.rounder(model, everything, data))
    biases = [
        numpy_helper.to_array(t) for t in converted.graph.initializer if t.dims == [8] and "bias" in t.name
    ]
    assert sorted(round(float(np.median(b)), -1) for b in biases)[-1] == 100
    assert len(biases) == 2


def test_digits(tmp_path: Path) -> None:
    """A classifier that was trained elsewhere: probabilities move least with data, most with one scale a layer."""
    x, labels = load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)
    network = MLPClassifier((64,), random_state=0, max_iter=1000, tol=1e-3).fit(x[:1200], labels[:1200])
    arrays = zip(network.coefs_, network.intercepts_, strict=True)
    model = mlp(*((w.astype(np.float32), b.astype(np.float32)) for w, b in arrays), softmax=True)
    calibrated = calibrate.rounder(model, everything, stored(tmp_path, x=x[:1200]))
    with_data, without, paper = (off(model, x[1200:], how) for how in (calibrated, None, rounder("paper")))
    assert with_data < 0.6 * without < 0.6 * paper


def test_layers_that_are_not_seen_say_so(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(size=(2, 8, 4)).astype(np.float32)
    model = mlp((weight[0], None))
    model.graph.node[0].CopyFrom(helper.make_node("MatMul", ["x", "w0"], ["y"], "fc0"))
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w0"))
    model.graph.output[0].type.tensor_type.ClearField("shape")
    given = calibrate.rounder(model, everything, stored(tmp_path, x=np.ones((3, 8), np.float32)))
    _, (outcome,) = ternarize(model, everything, given)
    assert outcome.note == "rounded without data"


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"z": np.ones((3, 8), np.float32), "v": np.ones(1, np.float32)}, "expected one named 'x'"),
        ({"x": np.ones((3, 9), np.float32)}, "x has shape (3, 9); expected ('batch', 8)"),
        ({"x": np.ones((0, 8), np.float32)}, "holds no whole batch"),
        ({"x": np.full((3, 8), np.nan, np.float32)}, "layer fc0 reads NaN or infinity"),
        (None, "there is no file"),
    ],
)
def test_data_that_do_not_fit_are_refused_in_one_line(
    arrays: dict[str, Array] | None, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = mlp((np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32), None))
    file, out = tmp_path / "a.onnx", tmp_path / "out.onnx"
    onnx.save(model, file)
    data = tmp_path / "none.npz" if arrays is None else stored(tmp_path, **arrays)
    assert main(["ternarize", str(file), "--out", str(out), "--data", str(data)]) == 2
    message = capsys.readouterr().err
    assert reason in message
    assert message.count("\n") == 1
    assert not out.exists()


def test_the_command_takes_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    model = mlp((rng.normal(size=(8, 4)).astype(np.float32), None))
    file, out, data = tmp_path / "a.onnx", tmp_path / "out.onnx", tmp_path / "batches"
    onnx.save(model, file)
    data.mkdir()
    for part in "ab":
        np.savez(data / part, x=rng.normal(size=(300, 8)).astype(np.float32))
    assert main(["ternarize", str(file), "--out", str(out), "--data", str(data)]) == 0
    capsys.readouterr()
    (node,) = onnx.load(out).graph.node
    assert (node.op_type, len(node.input)) == ("TernaryMatMul", 4)
