"""Permuted columns become `SelectColumns`, with the same bits; everything else stays."""

import numpy as np
import onnx
from onnx import numpy_helper

from bitsearch import ops
from bitsearch.onnxfile.select_columns import select_columns

CONSTANTS: dict[str, np.ndarray] = {
    "order": np.array([3, 0, 4, 1, 2], np.int64),
    "sizes": np.array([2, 3], np.int64),
    "low": np.linspace(-1, 1, 5, dtype=np.float32),
    "log": np.linspace(0.5, 1.5, 5, dtype=np.float32),
}
BLOCK = """
    {i}rows = Transpose<perm = [1, 0]>({x})
    {i}moved = Gather<axis = 0>({i}rows, order)
    {i}back = Transpose<perm = [1, 0]>({i}moved)
    {i}a, {i}b = Split<axis = 1>({i}back, sizes)
    {i}given = Concat<axis = 1>({i}a, c)
    {i}sum = ReduceSum<keepdims = 1>({i}given, one)
    {i}new = Sigmoid({i}b)
    {i}both = Concat<axis = 1>({i}a, {i}new)
    {i}low = Sub({i}both, low)
    {i}scale = Exp(log)
    {i}y = Mul({i}low, {i}scale)
"""


def flow(blocks: int) -> onnx.ModelProto:
    """Build coupling blocks of five columns, of which two pass and choose nothing, with a condition."""
    body, x = "", "x"
    for i in range(blocks):
        body += BLOCK.format(i=f"v{i}_", x=x)
        x = f"v{i}_y"
    last = " ".join(f"s{i + 1} = Add(s{i}, v{i}_sum)" for i in range(blocks))
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 20]> g (float[n, 5] x, float[n, 1] c) => (float[n, 5] y, float[n, m] s) '
        f"{{ s0 = Identity(c) {body} {last} y = Neg({x}) s = Identity(s{blocks}) }}"
    )
    arrays = CONSTANTS | {"one": np.array([1], np.int64)}
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    return onnx.shape_inference.infer_shapes(model)


def run(model: onnx.ModelProto) -> list[np.ndarray]:
    onnx.checker.check_model(model, full_check=True)
    rng = np.random.default_rng(0)
    feed = {"x": rng.normal(size=(7, 5)).astype(np.float32), "c": rng.normal(size=(7, 1)).astype(np.float32)}
    return list(ops.session(model.SerializeToString()).run(None, feed))


def test_blocks_of_a_flow_become_two_selections_each() -> None:
    model = flow(4)
    before = run(model)
    select_columns(model)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("SelectColumns") == 9  # and one for what the last block puts out
    assert not {"Transpose", "Gather", "Split"}.intersection(kinds)
    assert {item.name for item in model.functions} >= {"SelectColumns"}
    assert not {"order", "sizes", "log"}.intersection(item.name for item in model.graph.initializer)
    for found, expected in zip(run(model), before, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)  # of exp, which numpy computes here


def test_what_is_hardly_worth_it_stays() -> None:
    model = flow(1)
    before = model.SerializeToString()
    select_columns(model)
    assert model.SerializeToString() == before


def test_columns_of_many_matrices_stay() -> None:
    text = (
        '<ir_version: 10, opset_import: ["": 20]> g (float[n, 5] x) => (float[n, 15] y) '
        "{ a = Neg(x) b = Abs(x) both = Concat<axis = 1>(a, b, x) rows = Transpose<perm = [1, 0]>(both) "
        "moved = Gather<axis = 0>(rows, order) y = Transpose<perm = [1, 0]>(moved) }"
    )
    model = onnx.parser.parse_model(text)
    order = np.random.default_rng(0).permutation(15).astype(np.int64)
    model.graph.initializer.append(numpy_helper.from_array(order, "order"))
    model = onnx.shape_inference.infer_shapes(model)
    before = [node.op_type for node in model.graph.node]
    select_columns(model)
    assert [node.op_type for node in model.graph.node] == before


def test_a_value_that_is_read_and_put_out_is_computed_once() -> None:
    model = flow(4)
    model.graph.output.append(onnx.helper.make_tensor_value_info("v1_back", 1, ["n", 5]))
    before = run(model)
    select_columns(model)
    names = [name for node in model.graph.node for name in node.output if name]
    assert len(names) == len(set(names))
    for found, expected in zip(run(model), before, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)
