"""numpy = every kernel, bit for bit, for any threads and batches; both against double precision; function bodies."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument
from scipy import special

from bitsearch import ops
from bitsearch.ops.reproducible import function, reference
from bitsearch.ops.reproducible.reference import Float

USABLE = [kernel.name for kernel in ops.kernels() if kernel.usable]
HOSTILE = np.array(
    [
        0,
        -0.0,
        np.inf,
        -np.inf,
        np.nan,
        1e-45,
        -1e-39,
        3.4e38,
        -3.4e38,
        104,
        -104,
        88.8,
        2.0**30,
        0.625,
        4,
        0.9375,
    ],
    np.float32,
)
RNG = np.random.default_rng(0)


def normal(*shape: int) -> Float:
    return RNG.normal(size=shape).astype(np.float32)


@dataclass(frozen=True)
class Case:
    op: str
    inputs: Mapping[str, NDArray[Any]]
    expect: Callable[..., Float]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    constant: tuple[str, ...] = ()

    def expected(self) -> Float:
        return self.expect(*self.inputs.values())

    def model(self, portable: bool = True) -> onnx.ModelProto:
        kinds = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.int64): TensorProto.INT64}
        fed = [
            helper.make_tensor_value_info(name, kinds[array.dtype], [None] * array.ndim)
            for name, array in self.inputs.items()
            if name not in self.constant
        ]
        node = helper.make_node(
            self.op, list(self.inputs), ["Y"], "node", domain=ops.DOMAIN, **self.attributes
        )
        constants = [numpy_helper.from_array(self.inputs[name], name) for name in self.constant]
        y = helper.make_tensor_value_info("Y", TensorProto.FLOAT, None)
        graph = helper.make_graph([node], "one", fed, [y], constants)
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid(ops.DOMAIN, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        if portable:
            ops.add_functions(model)
        return model

    def feed(self) -> dict[str, NDArray[Any]]:
        return {name: array for name, array in self.inputs.items() if name not in self.constant}


def product(m: int, k: int, n: int, **rest: Any) -> Case:
    inputs = {"A": normal(m, k), "B": normal(n, k), "C": normal(n)}
    return Case("Gemm", inputs, lambda a, b, c: reference.matmul(a, b.T, c), {"transB": 1}, **rest)


def matrices(a: tuple[int, ...], b: tuple[int, ...], **rest: Any) -> Case:
    return Case("MatMul", {"A": normal(*a), "B": normal(*b)}, reference.matmul, **rest)


def total(shape: tuple[int, ...], axes: tuple[int, ...], keepdims: int = 1) -> Case:
    inputs: dict[str, NDArray[Any]] = {"data": normal(*shape), "axes": np.array(axes, np.int64)}

    def expect(data: Float, axes: NDArray[np.int64]) -> Float:
        return reference.reduce_sum(data, tuple(map(int, axes)), bool(keepdims))

    return Case("ReduceSum", inputs, expect, {"keepdims": keepdims}, ("axes",))


def rows(op: str, x: Float) -> Case:
    if op == "Softmax":
        return Case(op, {"input": x}, reference.softmax)
    inputs = {"X": x, "Scale": normal(x.shape[-1]), "B": normal(x.shape[-1])}
    return Case(
        op,
        inputs,
        lambda x, scale, bias: reference.layer_normalization(x, scale, bias, 1e-3),
        {"epsilon": 1e-3},
    )


def elementary(name: str, x: Float, approximate: str = "none") -> Case:
    attributes = {"approximate": approximate} if name == "Gelu" else {}
    return Case(name, {"X": x}, lambda x: reference.elementary(name, x, approximate), attributes)


# One below, at and above the widths of vectors, panels and tiles, and the k of a block.
PRODUCTS = [
    (1, 1, 1),
    (1, 7, 300),
    (2, 257, 33),
    (3, 5, 64),
    (5, 16, 31),
    (6, 300, 17),
    (13, 3, 129),
    (97, 20, 40),
]
SPREAD = np.concatenate([HOSTILE, normal(300) * 10.0 ** RNG.uniform(-6, 2, 300).astype(np.float32)])
CASES: dict[str, Case] = {
    **{f"Gemm {m} {k} {n}": product(m, k, n, constant=("B",)) for m, k, n in PRODUCTS},
    "Gemm, computed weights": product(7, 20, 30),
    "Gemm, no rows": product(0, 20, 30, constant=("B",)),
    "MatMul, constant": matrices((3, 5, 40), (40, 50), constant=("B",)),
    "MatMul, no k": matrices((3, 0), (0, 5)),
    "MatMul, batches": matrices((4, 3, 17, 8), (4, 3, 8, 19)),
    "MatMul, one left": matrices((32, 11), (5, 11, 12)),
    "MatMul, broadcast": matrices((4, 1, 6, 9), (3, 9, 10)),
    "ReduceSum, last": total((5, 7, 45), (-1,)),
    "ReduceSum, first": total((4, 6, 37), (0,), 0),
    "ReduceSum, middle": total((3, 40, 9), (1,)),
    "ReduceSum, two": total((3, 40, 9, 2), (1, 2), 0),
    "ReduceSum, none": total((3, 0, 9), (1,)),
    **{f"Softmax {n}": rows("Softmax", normal(5, n) * 10) for n in (1, 2, 15, 16, 17, 64, 135)},
    "Softmax, hostile": rows(
        "Softmax", np.array([[-np.inf, 0, 1], [-np.inf] * 3, [np.nan, 0, 1], [0, np.inf, 1]], np.float32)
    ),
    **{
        f"LayerNormalization {n}": rows("LayerNormalization", normal(2, 3, n))
        for n in (1, 8, 31, 32, 33, 480)
    },
    "LayerNormalization, hostile": rows("LayerNormalization", np.tile(HOSTILE, (2, 2))),
    **{name: elementary(name, SPREAD) for name in reference.ELEMENTARY},
    "Gelu, tanh": elementary("Gelu", SPREAD, "tanh"),
    "Exp, batches": elementary("Exp", normal(3, 1, 5)),
}


def open_session(case: Case, threads: int = 1) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    return ops.session(case.model().SerializeToString(), sess_options=options)


def assert_same_bits(found: Float, expected: Float) -> None:
    assert found.shape == expected.shape
    number = ~np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(found), ~number)
    np.testing.assert_array_equal(found[number].view(np.uint32), expected[number].view(np.uint32))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kernel", USABLE)
def test_every_kernel_gives_the_bits_of_numpy(
    kernel: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BITSEARCH_KERNEL", kernel)
    (found,) = open_session(CASES[name]).run(None, CASES[name].feed())
    assert_same_bits(found, CASES[name].expected())


@pytest.mark.parametrize(
    "case",
    [
        product(300, 70, 100, constant=("B",)),
        product(1, 300, 1000, constant=("B",)),
        matrices((40, 3, 20, 16), (40, 3, 16, 20)),
        rows("Softmax", normal(500, 64)),
        rows("LayerNormalization", normal(900, 48)),
        elementary("Gelu", normal(9000, 4)),
    ],
    ids=lambda case: case.op,
)
def test_neither_threads_nor_batches_change_bits(case: Case) -> None:
    name, first = next(iter(case.inputs.items()))
    (whole,) = open_session(case).run(None, case.feed())
    (shared,) = open_session(case, 3).run(None, case.feed())
    assert_same_bits(shared, whole)
    session, half = open_session(case), (len(first) + 2) // 3
    for part in (slice(0, half), slice(half, None)):
        feed = {
            key: array[part] if key == name or (case.op == "MatMul" and key == "B") else array
            for key, array in case.feed().items()
        }
        assert_same_bits(session.run(None, feed)[0], whole[part])


def truth(name: str, approximate: str, x: NDArray[np.float64]) -> NDArray[np.float64]:
    functions: dict[str, Callable[[Any], Any]] = {
        "Asinh": np.arcsinh,
        "Atan": np.arctan,
        "Cos": np.cos,
        "Cosh": np.cosh,
        "Erf": special.erf,
        "Exp": np.exp,
        "Gelu": lambda x: x * special.ndtr(x),
        "Log": np.log,
        "Sigmoid": special.expit,
        "Sin": np.sin,
        "Sinh": np.sinh,
        "Sqrt": np.sqrt,
        "Tanh": np.tanh,
    }
    if approximate == "tanh":
        return np.asarray(x * special.expit(2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    found: NDArray[np.float64] = functions[name](x)
    return found


# Units in the last place, as the README states them.
ULP = {"Exp": 1.1, "Sigmoid": 2.6, "Tanh": 2, "Erf": 1.1, "Gelu": 2}


@pytest.mark.parametrize("name", reference.ELEMENTARY)
def test_elementary_functions_are_accurate(name: str) -> None:
    rng = np.random.default_rng(1)
    x = (rng.choice([-1, 1], 100_000) * 10.0 ** rng.uniform(-6, 1.9, 100_000)).astype(np.float32)
    if name in ("Log", "Gelu", "Sqrt"):  # Φ(x) of negative x is a difference of numbers near 1
        x = np.abs(x)
    expected = truth(name, "none", x.astype(np.float64))
    error = np.abs(reference.elementary(name, x) - expected)
    assert (error / np.spacing(np.abs(expected).astype(np.float32))).max() < ULP.get(name, 0.5001)


def test_approximated_gelu_is_accurate() -> None:
    x = np.linspace(-12, 12, 100_001, dtype=np.float32)
    error = np.abs(reference.elementary("Gelu", x, "tanh") - truth("Gelu", "tanh", x.astype(np.float64)))
    assert error.max() < 6e-7


def test_fma_rounds_once() -> None:
    """Exact rational arithmetic, of numbers whose sum nearly cancels or lies between two floats."""
    rng = np.random.default_rng(2)
    a, b = (rng.normal(size=2000).astype(np.float32) for _ in range(2))
    c = (-a * b * (1 + rng.normal(size=2000) * 1e-7)).astype(np.float32)
    c[::3] = (rng.normal(size=len(c[::3])) * 1e-9).astype(np.float32)
    found = reference.fma(a, b, c)
    for i in range(len(a)):
        exact = Fraction(float(a[i])) * Fraction(float(b[i])) + Fraction(float(c[i]))
        neighbours = [np.nextafter(found[i], np.float32(side)) for side in (-np.inf, np.inf)]
        distance = abs(Fraction(float(found[i])) - exact)
        assert all(distance <= abs(Fraction(float(other)) - exact) for other in neighbours)


@pytest.mark.parametrize("name", [name for name in CASES if "hostile" not in name and "no " not in name])
def test_the_function_body_agrees(name: str) -> None:
    case = CASES[name]
    plain = ort.InferenceSession(case.model().SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = plain.run(None, case.feed())
    usual = np.isfinite(case.expected()) & np.isfinite(found)
    if case.op in ("Sin", "Cos"):
        usual &= np.abs(case.inputs["X"]) < 1e9  # float32 knows no phase of 3e38
    np.testing.assert_allclose(found[usual], case.expected()[usual], rtol=2e-5, atol=2e-5)
    assert usual.mean() > 0.4


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (matrices((3, 4), (5, 6)), r"MatMul 'node': B: found shape \(5, 6\), expected \(..., 4, N\)"),
        (matrices((2, 3, 4), (3, 4, 6)), r"B: found shape \(3, 4, 6\), expected batches that fit"),
        (matrices((4,), (4, 6)), r"A: found shape \(4\), expected two axes or more"),
        (total((3, 4, 5), (0, 2)), r"axes: found shape \(0, 2\), expected neighbouring axes"),
        (Case("Softmax", {"input": normal(2, 3)}, reference.softmax, {"axis": 0}), r"axis: found 0 of shape"),
        (
            Case("Gemm", {"A": normal(2, 3), "B": normal(3, 4), "C": normal(5)}, reference.matmul),
            r"C: found shape \(5\)",
        ),
    ],
)
def test_what_does_not_fit_is_refused(case: Case, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        ops.session(case.model(portable=False).SerializeToString()).run(None, case.feed())


def test_every_operator_is_tested() -> None:
    assert {case.op for case in CASES.values()} == set(function.INPUTS)
