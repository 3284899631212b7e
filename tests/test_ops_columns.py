"""`SelectColumns`: numpy = onnxruntime with the library = function body, bit for bit."""

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from bitsearch import ops
from bitsearch.onnxfile.truths import hostile_rows
from bitsearch.ops.reference import Float, select_columns

P, Q, M = 5, 4, 11
RNG = np.random.default_rng(0)
CONSTANTS: dict[str, Any] = {
    "index": RNG.integers(0, P + Q, M),
    "offset": RNG.normal(size=M).astype(np.float32),
    "factor": RNG.normal(size=M).astype(np.float32),
}


def model(constants: dict[str, Any] = CONSTANTS, opset: int = 20) -> onnx.ModelProto:
    fed = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", None]) for name in ("A", "C")]
    out = helper.make_tensor_value_info("Y", TensorProto.FLOAT, ["b", None])
    node = helper.make_node("SelectColumns", ["A", "C", *constants], ["Y"], "select", domain=ops.DOMAIN)
    arrays = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph([node], "one_selection", fed, [out], arrays)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(ops.DOMAIN, 1)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    ops.add_functions(made)
    return made


def feed(rows: int) -> dict[str, Any]:
    rng = np.random.default_rng(rows)
    return {
        "A": rng.normal(size=(rows, P)).astype(np.float32),
        "C": rng.normal(size=(rows, Q)).astype(np.float32),
    }


def assert_bit_equal(found: Float, expected: Float) -> None:
    finite = ~np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(found), ~finite)
    np.testing.assert_array_equal(found[finite].view(np.uint32), expected[finite].view(np.uint32))


def test_numpy_takes_shifts_and_scales() -> None:
    given = {"A": np.array([[1, 2]], np.float32), "C": np.array([[3]], np.float32)}
    arrays = np.array([0.5, 0, 1], np.float32), np.array([2, 1, -1], np.float32)
    found = select_columns(**given, index=np.array([2, 0, 2]), offset=arrays[0], factor=arrays[1])
    np.testing.assert_array_equal(found, [[5, 1, -2]])


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("rows", [0, 1, 7, 9000])
def test_library_matches_numpy(rows: int, threads: int) -> None:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ops.session(model().SerializeToString(), sess_options=options)
    assert_bit_equal(session.run(None, feed(rows))[0], select_columns(**feed(rows), **CONSTANTS))


def test_library_matches_numpy_on_hostile_rows() -> None:
    x = hostile_rows(P + Q)
    given: dict[str, Any] = {"A": x[:, :P], "C": x[:, P:]}
    found = ops.session(model().SerializeToString()).run(None, given)[0]
    assert_bit_equal(found, select_columns(**given, **CONSTANTS))


@pytest.mark.parametrize("opset", [13, 20])
def test_function_body_gives_the_same_bits(opset: int) -> None:
    made = model(opset=opset)
    onnx.checker.check_model(made, full_check=True)
    expected = select_columns(**feed(9), **CONSTANTS)
    plain: Any = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    assert_bit_equal(plain.run(None, feed(9))[0], expected)
    evaluator: Any = ReferenceEvaluator(made)
    assert_bit_equal(evaluator.run(None, feed(9))[0], expected)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "index": ({"index": np.full(M, P + Q)}, "index: found 9, expected 0 to 8"),
    "negative": ({"index": np.full(M, -1)}, "index: found -1, expected 0 to 8"),
    "offset": ({"offset": np.ones(3, np.float32)}, r"offset: found shape \(3\), expected shape \(11\)"),
    "factor": (
        {"factor": np.ones((1, M), np.float32)},
        r"factor: found shape \(1, 11\), expected shape \(11\)",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_inputs_are_refused(case: str) -> None:
    change, message = BAD[case]
    session = ops.session(model(CONSTANTS | change).SerializeToString())
    with pytest.raises(Exception, match=f"SelectColumns 'select': {message}"):
        session.run(None, feed(2))
    with pytest.raises(ops.OperatorError, match=case if case != "negative" else "index"):
        select_columns(**feed(2), **(CONSTANTS | change))


def test_refusals_of_sizes() -> None:
    with pytest.raises(ops.OperatorError, match="C: found shape"):
        select_columns(feed(2)["A"], feed(3)["C"], **CONSTANTS)
    with pytest.raises(ops.OperatorError, match="opset: found 12"):
        ops.select_columns_function(12)
