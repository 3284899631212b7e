"""Hostile models and inputs: a clear error naming the input, never a crash."""

import re
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, InvalidGraph, RuntimeException
from ternary_layer import Layer

from bitsearch import ops

LAYER = Layer.random(10, 3)
INF = np.float32(np.inf)
BAD = {
    "W rank": (replace(LAYER, W=LAYER.W[0]), r"W: found shape \(3\), expected shape \(N, 3\)"),
    "W columns": (
        replace(LAYER, W=LAYER.W[:, :2]),
        r"W: found shape \(3, 2\), .* four codes a byte for K = 10",
    ),
    "W empty": (replace(LAYER, W=LAYER.W[:0]), r"W: found shape \(0, 3\)"),
    "code 3": (replace(LAYER, W=LAYER.W | np.uint8(0x30)), "W: found the code 3 at output 0, input 2"),
    "scale shape": (
        replace(LAYER, scale=LAYER.scale[:2]),
        r"scale: found shape \(2\), expected shape \(\) or \(3\)",
    ),
    "scale infinite": (replace(LAYER, scale=LAYER.scale * INF), "scale: found -?inf at 0, expected finite"),
    "bias shape": (
        replace(LAYER, bias=np.ones(4, np.float32)),
        r"bias: found shape \(4\), expected shape \(3\)",
    ),
}
BAD_ATTRIBUTES: dict[str, tuple[dict[str, Any], str]] = {
    "K zero": ({"K": 0}, "K: found 0, expected 1 to 16777215"),
    "K negative": ({"K": -4}, "K: found -4"),
    "K huge": ({"K": 2**62}, f"K: found {2**62}"),
    "K missing": ({"K": None}, "K: found no such attribute"),
    "K float": ({"K": 10.0}, "K: found the float 10.0+, expected an integer"),
    "act_qmax integer": ({"act_qmax": 127}, "act_qmax: found the integer 127, expected a float"),
    "act_qmax string": ({"act_qmax": "127"}, "act_qmax: found a string, expected a float"),
    "act_qmax list": ({"act_qmax": [1.0]}, "act_qmax: found a list, expected a float"),
    "act_qmax zero": ({"act_qmax": 0.0}, "act_qmax: found 0.0+, expected a whole number"),
    "act_qmax NaN": ({"act_qmax": float("nan")}, "act_qmax: found -?nan"),
}


def open_session(model: onnx.ModelProto) -> ort.InferenceSession:
    return ops.session(model.SerializeToString())


@pytest.mark.parametrize("case", BAD)
def test_bad_constants_are_refused_at_creation(case: str) -> None:
    layer, message = BAD[case]
    with pytest.raises(RuntimeException, match=f"TernaryMatMul 'layer': {message}"):
        open_session(layer.model(portable=False))


@pytest.mark.parametrize("case", BAD)
def test_bad_values_are_refused_at_run(case: str) -> None:
    layer, message = BAD[case]
    session = open_session(layer.model(fed=("W", "scale", "bias"), portable=False))
    fed = {"W": layer.W, "scale": layer.scale, "bias": layer.bias}
    with pytest.raises((InvalidArgument, Fail), match=message):
        session.run(None, {"X": np.ones((2, 10), np.float32), **fed})


@pytest.mark.parametrize("case", BAD_ATTRIBUTES)
def test_bad_attributes_are_refused_at_creation(case: str) -> None:
    change, message = BAD_ATTRIBUTES[case]
    model = LAYER.model(portable=False)
    node = model.graph.node[0]
    kept = [attribute for attribute in node.attribute if attribute.name not in change]
    made = [helper.make_attribute(name, value) for name, value in change.items() if value is not None]
    del node.attribute[:]
    node.attribute.extend(kept + made)
    with pytest.raises(RuntimeException, match=message):
        open_session(model)


@pytest.mark.parametrize("shape", [(2, 9), (10, 2), (0,), (2, 0)])
def test_wrong_x_is_refused_at_run(shape: tuple[int, ...]) -> None:
    model = LAYER.model(rank=len(shape), portable=False)
    model.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(InvalidArgument, match=re.escape("expected shape (..., 10)")):
        open_session(model).run(None, {"X": np.ones(shape, np.float32)})


def test_known_wrong_x_is_refused_at_creation() -> None:
    model = LAYER.model(portable=False)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 7
    with pytest.raises(RuntimeException, match=re.escape("X: found shape (?, 7), expected shape (..., 10)")):
        open_session(model)


@pytest.mark.parametrize("name", ["X", "W", "scale"])
def test_wrong_types_are_refused_at_creation(name: str) -> None:
    model = LAYER.model(fed=("W", "scale", "bias"), portable=False)
    for given in model.graph.input:
        if given.name == name:
            given.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    with pytest.raises(InvalidGraph, match=rf"'tensor\(double\)' of input parameter \({name}\)"):
        open_session(model)


def test_unusable_kernel_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITSEARCH_KERNEL", "abacus")
    with pytest.raises(Fail, match=r"found 'abacus', expected one that .* can run: .*portable"):
        open_session(LAYER.model())
    assert not any(kernel.chosen for kernel in ops.kernels())


def test_registering_twice_is_harmless() -> None:
    """One SessionOptions serves any number of sessions; its copies too."""
    options = ort.SessionOptions()
    ops.register(options)
    ops.register(options)
    model, x = LAYER.model(portable=False).SerializeToString(), np.ones((2, LAYER.K), np.float32)
    for _ in range(2):
        session = ops.session(model, sess_options=options)
        np.testing.assert_array_equal(session.run(None, {"X": x})[0], LAYER.expect(x))


def test_kernel_table() -> None:
    table = ops.kernels()
    assert table[-1].name == "portable"
    assert table[-1].usable
    assert [kernel.usable for kernel in table].index(True) == [kernel.chosen for kernel in table].index(True)


def test_function_refuses_old_opsets() -> None:
    with pytest.raises(ops.OperatorError, match="opset: found 12, expected at least 13"):
        ops.ternary_matmul_function(12)


def test_nodes_of_functions_have_names_of_their_own() -> None:
    (function,) = LAYER.model().functions
    names = [node.name for node in function.node]
    assert all(names)
    assert len(set(names)) == len(names)


def test_add_functions_is_idempotent() -> None:
    model = LAYER.model()
    once = model.SerializeToString()
    ops.add_functions(model)
    assert model.SerializeToString() == once


def test_missing_library_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "__path__", ["nowhere"])
    with pytest.raises(
        ops.OperatorError, match="found none in nowhere, expected one: install bitsearch again"
    ):
        ops.library_path()


@pytest.mark.parametrize("folder", ["ops", "models", "search_spaces"])
def test_bare_folders_do_not_import(folder: str, pytestconfig: pytest.Config) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import {folder}"], cwd=pytestconfig.rootpath, capture_output=True, text=True
    )
    assert f"found the bare folder '{folder}'" in done.stderr


def test_importing_is_light(pytestconfig: pytest.Config) -> None:
    """Neither training nor serving libraries load with `bitsearch.ops`."""
    heavy = {"torch", "optuna", "onnxruntime"}
    code = f"import bitsearch.ops, bitsearch.ops.reference, sys; print({heavy} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_random_models_never_crash() -> None:
    """Any bytes and shapes end in numbers or in an error."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        shape = tuple(rng.integers(0, 5, rng.integers(0, 4)))
        W = np.asarray(rng.integers(0, 256, shape) & rng.choice([0x55, 0xAA, 0xFF]), np.uint8)
        scale = np.asarray(rng.normal(size=tuple(rng.integers(0, 4, rng.integers(0, 3)))), np.float32)
        layer = replace(LAYER, K=int(rng.integers(1, 20)), W=W, scale=scale, bias=None)
        model, x = layer.model(portable=False), np.ones((2, layer.K), np.float32)
        try:
            expected = layer.expect(x)
        except ops.OperatorError:
            with pytest.raises(RuntimeException, match=": found "):
                open_session(model)
        else:
            np.testing.assert_array_equal(open_session(model).run(None, {"X": x})[0], expected)
