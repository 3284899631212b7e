"""`verify` passes what is right and fails what is not, with the numbers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from ternary_chain_layers import Chain
from ternary_layer import Layer

from bitsearch import ops
from bitsearch.core.errors import ExportError
from bitsearch.onnxfile import verify
from bitsearch.onnxfile.verify import Check

USABLE = [kernel.name for kernel in ops.kernels() if kernel.usable]
LAYER = Layer.random(37, 19)


def checked(model: onnx.ModelProto, folder: Path) -> tuple[Check, ...]:
    onnx.save(model, folder / "model.onnx")
    return verify.verify(folder / "model.onnx")


@pytest.mark.parametrize("act_qmax", [127.0, 128.0])
@pytest.mark.parametrize("bias", [False, True])
def test_passes_what_is_right(tmp_path: Path, bias: bool, act_qmax: float) -> None:
    checks = checked(Layer.random(37, 19, bias=bias, act_qmax=act_qmax).model(), tmp_path)
    assert all(check.passed for check in checks), checks
    node = [check.compared for check in checks if check.subject == "layer"]
    assert node == [*(f"{name} = numpy" for name in USABLE), "function body = numpy"]
    assert [c.compared for c in checks if c.subject == "whole file"] == [
        f"{name} = function body" for name in USABLE
    ]
    assert all(check.values > 0 for check in checks)


@pytest.mark.parametrize("activation", ["relu", "leaky-relu", "silu", "gelu"])
def test_passes_a_right_chain(tmp_path: Path, activation: Any) -> None:
    checks = checked(Chain.random(37, 24, 30, 19, activation=activation).model(), tmp_path)
    assert all(check.passed for check in checks), checks
    node = [check.compared for check in checks if check.subject == "chain"]
    assert node == [*(f"{name} = numpy" for name in USABLE), "function body = numpy"]


def test_fails_a_chain_with_another_activation(tmp_path: Path) -> None:
    model = Chain.random(37, 24, 30, 19, activation="relu").model()
    for node in model.functions[-1].node:
        if node.output[0] == "below_r0":
            node.op_type = "Greater"
    failed = [check for check in checked(model, tmp_path) if not check.passed]
    assert {check.compared.partition(" ")[0] for check in failed if check.subject == "chain"} == {"function"}


def test_fails_a_wrong_function_body(tmp_path: Path) -> None:
    model = LAYER.model()
    for node in model.functions[0].node:
        if node.output[0] == "minus_q_max":
            node.op_type = "Abs"  # clips all negative activations away
    failed = [check for check in checked(model, tmp_path) if not check.passed]
    assert {check.subject for check in failed} == {"layer", "whole file"}
    assert {check.compared.partition(" ")[0] for check in failed if check.subject == "layer"} == {"function"}
    assert all(check.differing > 0 and check.largest_difference > 0.01 for check in failed)


def test_fails_a_missing_function_body(tmp_path: Path) -> None:
    failed = [check for check in checked(LAYER.model(portable=False), tmp_path) if not check.passed]
    assert {check.compared.rpartition(" = ")[2] for check in failed} == {"numpy", "function body"}
    assert all("TernaryMatMul" in check.detail for check in failed)


def test_reports_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"onnxruntime refuses .*found the code 3"):
        checked(replace(LAYER, W=LAYER.W | np.uint8(3)).model(), tmp_path)


def test_weights_at_run_time_are_left_to_the_whole_file(tmp_path: Path) -> None:
    model = Layer.random(8, 3, bias=False).model(fed=("scale",))
    model.graph.input[1].type.tensor_type.shape.dim[0].dim_value = 3
    checks = checked(model, tmp_path)
    assert "left to the whole file: its weights are computed at run time" in checks[0].detail
    assert [check.passed for check in checks] == [None, *[True] * len(USABLE)]


def test_files_that_do_not_run_on_drawn_inputs_are_not_compared(tmp_path: Path) -> None:
    model = LAYER.model()
    model.graph.node.append(helper.make_node("Reshape", ["Y", "five"], ["fixed"]))
    model.graph.initializer.append(numpy_helper.from_array(np.array([5, 19]), "five"))
    model.graph.output[0].name = "fixed"
    whole = checked(model, tmp_path)[-1]
    assert (whole.subject, whole.passed) == ("whole file", None)
    assert "does not run on drawn inputs; --inputs or --size may help" in whole.detail


def test_sizes_of_free_axes(tmp_path: Path) -> None:
    model = LAYER.model(rank=3)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "sequence"
    onnx.save(model, tmp_path / "model.onnx")
    last = verify.verify(tmp_path / "model.onnx", sizes={"sequence": 2})[-1]
    assert (last.passed, last.values) == (True, (1 + 7 + 64) * 2 * 19)


@pytest.mark.parametrize("inverse", [0, 1])
@pytest.mark.parametrize("kind", ["rational-quadratic", "cubic"])
def test_splines(tmp_path: Path, kind: str, inverse: int) -> None:
    count = {"rational-quadratic": 29, "cubic": 22}[kind]
    settings: dict[str, Any] = {
        "kind": kind,
        "bins": 10,
        "bound": 18.0,
        "inverse": inverse,
        "out_of_bounds": "event",
    }
    graph = helper.make_graph(
        [helper.make_node("MonotoneSpline", ["x", "theta"], ["y"], "spline", domain=ops.DOMAIN, **settings)],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3]),
            helper.make_tensor_value_info("theta", TensorProto.FLOAT, ["batch", 3 * count]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(ops.DOMAIN, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    ops.add_functions(model)
    checks = checked(model, tmp_path)
    assert all(check.passed for check in checks), checks
    assert len(checks) == 2 * len(USABLE) + 1


def test_nodes_in_branches_are_found(tmp_path: Path) -> None:
    inner = LAYER.model().graph
    del inner.input[:]
    other = helper.make_graph(
        [
            helper.make_node(
                "Constant", [], ["n"], value=numpy_helper.from_array(np.zeros((1, 19), np.float32))
            )
        ],
        "other",
        [],
        [helper.make_tensor_value_info("n", TensorProto.FLOAT, [1, 19])],
    )
    node = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=other)
    graph = helper.make_graph(
        [node],
        "g",
        [
            helper.make_tensor_value_info("X", TensorProto.FLOAT, ["n", 37]),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["m", 19])],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(ops.DOMAIN, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    ops.add_functions(model)
    checks = checked(model, tmp_path)
    assert all(check.passed for check in checks), checks
    assert checks[0].subject == "layer"


def test_refuses_files_without_nodes_of_ours(tmp_path: Path) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    model = helper.make_model(helper.make_graph([node], "g", values[:1], values[1:]))
    with pytest.raises(ExportError, match=r"holds no com\.bithep node"):
        checked(model, tmp_path)


def test_forced_kernel_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITSEARCH_KERNEL", "portable")
    with verify.forced(USABLE[0]):
        assert next(kernel.name for kernel in ops.kernels() if kernel.chosen) == USABLE[0]
    assert next(kernel.name for kernel in ops.kernels() if kernel.chosen) == "portable"


def test_outputs_that_are_no_numbers_are_not_compared(tmp_path: Path) -> None:
    model = LAYER.model()
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 2))
    labels = list(range(19))
    model.graph.node.append(
        helper.make_node("ZipMap", ["Y"], ["m"], domain="ai.onnx.ml", classlabels_int64s=labels)
    )
    model.graph.output.append(onnx.ValueInfoProto(name="m"))
    kind = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    model.graph.output[1].type.CopyFrom(helper.make_sequence_type_proto(kind))
    checks = checked(model, tmp_path)
    (skipped,) = [check for check in checks if check.passed is None]
    assert (skipped.subject, skipped.detail) == (
        "output m",
        "seq(map(int64,tensor(float))), no numeric array",
    )
    assert all(check.passed for check in checks if check is not skipped)


def test_given_inputs_are_taken(tmp_path: Path) -> None:
    onnx.save(LAYER.model(), tmp_path / "model.onnx")
    np.savez(tmp_path / "inputs.npz", anything=np.ones((11, 37)))
    checks = verify.verify(tmp_path / "model.onnx", given=tmp_path / "inputs.npz")
    assert [check.values for check in checks if check.subject == "whole file"] == [11 * 19] * len(USABLE)
