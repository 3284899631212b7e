"""numpy = function body = every kernel, bit for bit."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx.reference import ReferenceEvaluator
from onnxruntime.capi.onnxruntime_pybind11_state import RuntimeException
from ternary_layer import Layer

from bitsearch import ops
from bitsearch.onnxfile.truths import hostile_rows
from bitsearch.ops.reference import Float

USABLE = [kernel.name for kernel in ops.kernels() if kernel.usable]
# One below, at and above the widths and block sizes of the kernels.
K_SIZES = [1, 3, 4, 8, 9, 10, 15, 16, 17, 31, 33, 63, 64, 65, 129, 256, 257, 258, 259, 262, 513, 516, 517]
N_SIZES = [1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 95, 97, 127, 129, 257]
ONE = np.ones((), np.float32)
M_SIZES = [1, 2, 3, 4, 5, 6, 7, 13, 19, 20, 24, 25, 32, 33, 65]


@pytest.fixture(params=[*USABLE, ""], ids=[*USABLE, "chosen by shape"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("BITSEARCH_KERNEL", request.param)
    return str(request.param)


def open_session(model: onnx.ModelProto, threads: int = 1) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    return ops.session(model.SerializeToString(), sess_options=options)


def run(session: ort.InferenceSession, x: Float, **fed: np.ndarray) -> Float:
    y: Float = session.run(None, {"X": x, **fed})[0]
    return y


def assert_bit_equal(found: Float, expected: Float) -> None:
    assert found.shape == expected.shape
    finite = ~np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(found), ~finite)
    np.testing.assert_array_equal(found[finite].view(np.uint32), expected[finite].view(np.uint32))


def random_rows(m: int, k: int, seed: int = 1) -> Float:
    return np.random.default_rng(seed).normal(size=(m, k)).astype(np.float32)


@pytest.mark.parametrize("k", K_SIZES)
def test_kernel_matches_numpy_around_vector_widths(kernel: str, k: int) -> None:
    for n in N_SIZES:
        layer = Layer.random(k, n, seed=n)
        session = open_session(layer.model(portable=False))
        for m in M_SIZES:
            x = random_rows(m, k, seed=m)
            assert_bit_equal(run(session, x), layer.expect(x))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("m", "k", "n"), [(1, 2049, 5760), (1, 70001, 67), (33, 2570, 131), (400, 129, 333), (65, 515, 4200)]
)
def test_kernel_matches_numpy_when_split(kernel: str, m: int, k: int, n: int, threads: int) -> None:
    layer = Layer.random(k, n)
    x = random_rows(m, k)
    assert_bit_equal(run(open_session(layer.model(portable=False), threads), x), layer.expect(x))


@pytest.mark.parametrize("act_qmax", [1.0, 7.0, 127.0, 128.0])
@pytest.mark.parametrize("k", [1, 31, 100])
def test_kernel_matches_numpy_on_hostile_rows(kernel: str, k: int, act_qmax: float) -> None:
    x = np.concatenate([hostile_rows(k, seed) for seed in range(4)])
    for bias in (False, True):
        layer = Layer.random(k, 70, bias=bias, per_output=bias, act_qmax=act_qmax)
        session = open_session(layer.model())
        expected = layer.expect(x)
        assert_bit_equal(run(session, x), expected)
        for row in range(len(x)):
            assert_bit_equal(run(session, x[row : row + 1]), expected[row : row + 1])


@pytest.mark.parametrize("act_qmax", [127, 128])
@pytest.mark.parametrize(
    ("m", "k"), [(40, 255), (40, 256), (40, 258), (40, 516), (40, 2**15 + 3), (2, 2**20 + 3)]
)
def test_kernel_is_exact_where_sums_are_largest(kernel: str, m: int, k: int, act_qmax: int) -> None:
    x = np.full((m, k), 1, np.float32)
    x[::2] = -1
    for code in (0, 2):
        W = np.full((3, -(-k // 4)), code * 0b01010101, np.uint8)
        layer = Layer(k, W, ONE, act_qmax=act_qmax)
        assert_bit_equal(run(open_session(layer.model(portable=False)), x), layer.expect(x))


@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (0,), (2, 0, 3), (1, 2, 1, 3)])
def test_kernel_takes_any_rank(kernel: str, shape: tuple[int, ...]) -> None:
    layer = Layer.random(19, 21)
    x = random_rows(int(np.prod(shape, dtype=int)), 19).reshape(*shape, 19)
    assert_bit_equal(run(open_session(layer.model(rank=x.ndim)), x), layer.expect(x))


def test_kernel_counts_beyond_32_bits() -> None:
    layer = Layer.random(64, 3)
    x = np.zeros((2**25 + 13, 64), np.float32)  # rows that are never written take no memory
    assert x.size > 2**31
    x[-20:] = random_rows(20, 64)
    found = run(open_session(layer.model()), x)
    assert_bit_equal(found[-20:], layer.expect(x[-20:]))
    assert (found[:-20] == layer.bias).all()


@pytest.mark.parametrize("fed", [("W",), ("scale",), ("bias",), ("W", "scale", "bias")])
def test_kernel_takes_weights_at_run_time(kernel: str, fed: tuple[str, ...]) -> None:
    layer = Layer.random(37, 70)
    x = random_rows(9, 37)
    session = open_session(layer.model(fed=fed, portable=False))
    assert_bit_equal(run(session, x, **{name: getattr(layer, name) for name in fed}), layer.expect(x))


def test_kernel_runs_concurrently(kernel: str) -> None:
    layer = Layer.random(129, 333)
    session = open_session(layer.model(), threads=2)
    batches = [random_rows(m, 129, seed=m) for m in (1, 2, 7, 64, 300)] * 12
    expected = {len(x): layer.expect(x) for x in batches[:5]}
    with ThreadPoolExecutor(8) as pool:
        for x, y in zip(batches, pool.map(lambda x: run(session, x), batches), strict=True):
            assert_bit_equal(y, expected[len(x)])


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("per_output", [False, True])
@pytest.mark.parametrize("act_qmax", [7.0, 127.0, 128.0])
@pytest.mark.parametrize("shape", [(), (12,), (3, 4), (0,)])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy speaks up about the NaN rows
def test_function_body_matches_numpy(
    bias: bool, per_output: bool, act_qmax: float, shape: tuple[int, ...]
) -> None:
    layer = Layer.random(37, 19, bias=bias, per_output=per_output, act_qmax=act_qmax)
    rows = hostile_rows(37)[: int(np.prod(shape, dtype=int))]
    x = rows.reshape(*shape, 37)
    model = layer.model(rank=x.ndim)
    onnx.checker.check_model(model, full_check=True)
    plain = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert_bit_equal(run(plain, x), layer.expect(x))
    assert_bit_equal(ReferenceEvaluator(model).run(None, {"X": x})[0], layer.expect(x))  # type: ignore[index]


def test_library_replaces_function_body() -> None:
    """A code 3 is refused by the library alone, so an error shows who runs."""
    layer = Layer(4, np.array([[0xFF]], np.uint8), np.ones(1, np.float32))
    model = layer.model().SerializeToString()
    ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    with pytest.raises(RuntimeException, match="W: found the code 3"):
        ops.session(model)


@pytest.mark.parametrize("opset", [13, 14, 15, 17, 18, 21])
def test_function_body_in_every_opset(opset: int) -> None:
    layer = Layer.random(10, 3)
    model = layer.model(opset=opset)
    onnx.checker.check_model(model, full_check=True)
    plain = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for rows in (0, 1, 7):
        x = np.rint(random_rows(rows, 10) * 40).astype(np.float32)
        x[:, :1] = 127
        assert_bit_equal(run(open_session(model), x), layer.expect(x))
        assert_bit_equal(run(plain, x), layer.expect(x))
        if rows:
            (y,) = ReferenceEvaluator(model).run(None, {"X": x})
            assert_bit_equal(np.asarray(y), layer.expect(x))
