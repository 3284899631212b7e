"""`BitLinear` is the operator in the forward pass and the paper's straight-through rule in the backward pass."""

import copy
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from torch import Tensor, nn

from bitsearch.core.assignment import Assignment
from bitsearch.core.errors import ConfigurationError
from bitsearch.core.precision import Precision
from bitsearch.core.rounding import Rounding, round_rows
from bitsearch.network import quant
from bitsearch.network.quant import BitLinear
from bitsearch.onnxfile.truths import hostile_rows
from bitsearch.ops.reference import pack, ternary_matmul

LOW_BIT = [Precision.TERNARY, Precision.BINARY]
Array = NDArray[np.float64]
ROWS: dict[str, Callable[[int], list[float]]] = {
    "zero": lambda k: [0.0] * k,
    "ties": lambda k: [127.0, *(index + 0.5 for index in range(k - 1))],
    "large": lambda k: [3.4e38] * k,
    "tiny": lambda k: [1e-45, *[3e-39] * (k - 1)],
    "nan": lambda k: [1.0] * (k - 1) + [float("nan")],
    "inf": lambda k: [1.0] * (k - 1) + [float("inf")],
    "minus inf": lambda k: [float("-inf")] + [0.0] * (k - 1),
}


def layer(
    k: int,
    n: int,
    precision: Precision,
    act_qmax: float,
    seed: int,
    bias: bool = True,
    rounding: Rounding = Rounding.PAPER,
) -> BitLinear:
    torch.manual_seed(seed)
    made = BitLinear(k, n, bias, precision=precision, rounding=rounding, act_qmax=act_qmax)
    with torch.no_grad():
        made.weight.mul_(10.0 ** (seed % 7 - 3))
    return made


def by_operator(bit: BitLinear, x: Tensor) -> NDArray[np.float32]:
    codes, scale = round_rows(bit.weight.detach().numpy(), bit.rounding, bit.precision)
    return ternary_matmul(
        x.numpy(),
        pack(codes),
        scale,
        None if bit.bias is None else bit.bias.detach().numpy(),
        K=bit.in_features,
        act_qmax=bit.act_qmax,
    )


@st.composite
def cases(draw: st.DrawFn) -> tuple[NDArray[np.float32], BitLinear]:
    k, n = draw(st.integers(1, 40)), draw(st.integers(1, 9))
    usual = arrays(np.float32, k, elements=st.floats(width=32))
    odd = st.sampled_from(sorted(ROWS)).map(lambda name: np.array(ROWS[name](k), np.float32))
    rows = draw(st.lists(usual | odd, max_size=4))
    x = np.stack(rows) if rows else np.zeros((0, k), np.float32)
    precision, act_qmax = draw(st.sampled_from(LOW_BIT)), draw(st.sampled_from([127.0, 128.0, 7.0]))
    rounding = draw(st.sampled_from(Rounding))
    return x, layer(k, n, precision, act_qmax, draw(st.integers(0, 99)), draw(st.booleans()), rounding)


# Ties at every magnitude, where dividing in one rounding or in two decides the code.
TIES = np.outer(np.geomspace(1e-6, 1e6, 60), np.array(ROWS["ties"](40))).astype(np.float32)


@example((TIES, layer(40, 9, Precision.TERNARY, 127.0, 1)))
@example((hostile_rows(40), layer(40, 9, Precision.BINARY, 128.0, 2)))
@given(case=cases())
def test_forward_is_the_operator_bit_for_bit(case: tuple[NDArray[np.float32], BitLinear]) -> None:
    x, bit = torch.from_numpy(case[0]), case[1]
    with torch.no_grad():
        found = bit(x).numpy()
    np.testing.assert_array_equal(found, by_operator(bit, x))


@pytest.mark.parametrize("precision", LOW_BIT)
@pytest.mark.parametrize("shape", [(188,), (3, 188), (2, 3, 188), (0, 188), (1, 1, 1, 188)], ids=str)
def test_any_rank_equals_the_operator(shape: tuple[int, ...], precision: Precision) -> None:
    bit, x = layer(188, 33, precision, 127.0, 3), torch.randn(shape)
    with torch.no_grad():
        np.testing.assert_array_equal(bit(x).numpy(), by_operator(bit, x))
    assert bit(x).shape == (*shape[:-1], 33)


@pytest.mark.parametrize(
    ("precision", "weights", "codes", "scale"),
    [
        # β = 1: half to even sends ±0.5 to 0 and ±1.5 to ±2, clipped to ±1.
        (
            Precision.TERNARY,
            [[0.5, -0.5, 1.5, -1.5], [0.4, -0.6, 2.0, 1.0]],
            [[0, 0, 1, -1], [0, -1, 1, 1]],
            1.0,
        ),
        (Precision.TERNARY, [[0.0, 0.0]], [[0, 0]], 1e-8),
        # mean 0.25; an entry equal to the mean gives 0.
        (Precision.BINARY, [[0.25, 1.0, -1.0, 0.75]], [[0, 1, -1, 1]], 0.75),
    ],
)
def test_weights_by_hand(
    precision: Precision, weights: list[list[float]], codes: list[list[int]], scale: float
) -> None:
    found, beta = quant.round_rows(torch.tensor(weights), Rounding.PAPER, precision)
    assert found.tolist() == codes
    assert beta.item() == pytest.approx(scale)


def hard_weights() -> list[NDArray[np.float32]]:
    """Draw layers of all shapes and magnitudes; some hold ties, zeros or what is ternary already."""
    rng = np.random.default_rng(7)
    found = []
    for index in range(400):
        shape = rng.integers(1, 40), rng.integers(1, 300)
        weight = rng.normal(size=shape) * 10.0 ** rng.integers(-6, 6)
        if index % 4 == 1:
            weight = np.round(weight / np.abs(weight).max() * 3)
        elif index % 4 == 2:
            weight[rng.random(shape) < 0.5] = 0
        elif index % 4 == 3:
            weight *= 10.0 ** rng.integers(-12, 1, (shape[0], 1))
        found.append(weight.astype(np.float32))
    return found


@pytest.mark.parametrize("rounding", Rounding)
@pytest.mark.parametrize("precision", LOW_BIT)
def test_torch_and_numpy_round_alike_bit_for_bit(precision: Precision, rounding: Rounding) -> None:
    for weight in hard_weights():
        codes, scale = round_rows(weight, rounding, precision)
        found, beta = quant.round_rows(torch.from_numpy(weight), rounding, precision)
        np.testing.assert_array_equal(found.numpy(), codes)
        np.testing.assert_array_equal(np.broadcast_to(beta.numpy(), scale.shape), scale)
        assert beta.dtype is torch.float32


def test_weights_that_are_not_numbers_stay_so() -> None:
    """Or a training that diverged would go on with made-up codes."""
    weight = torch.tensor([[1.0, float("nan"), 0.5], [1.0, 2.0, 3.0]])
    for rounding in Rounding:
        codes, scale = quant.round_rows(weight, rounding)
        assert not (codes * scale[..., None])[0].isfinite().all()


@pytest.mark.parametrize(
    ("act_qmax", "expected"), [(127.0, [127, -127, 64, 0]), (128.0, [127, -128, 64, 0]), (1.0, [1, -1, 0, 0])]
)
def test_activations_by_hand(act_qmax: float, expected: list[int]) -> None:
    q, gamma = quant.quantize_activations(torch.tensor([[2.0, -2.0, 1.0, 1e-3]]), act_qmax)
    assert q.tolist() == [expected]
    assert gamma.tolist() == [[2.0]]
    assert quant.quantize_activations(torch.zeros(1, 3))[1].item() == pytest.approx(1e-8)


def nearest(weight: Array, binary: bool) -> Array:
    """Round entry by entry as the paper's Eq. (1) says, with one scale."""
    beta, found = max(float(np.mean(np.abs(weight))), 1e-8), np.empty_like(weight)
    for index, w in np.ndenumerate(weight):
        found[index] = beta * (np.sign(w - weight.mean()) if binary else min(max(round(w / beta), -1), 1))
    return found


def best(row: Array, binary: bool) -> Array:
    """Try all codes of a row of few weights with their best scale, and give codes times scale."""
    values = (-1, 1) if binary else (-1, 0, 1)
    codes = np.array([c for c in itertools.product(values, repeat=len(row)) if any(c)])
    scale = codes @ row / np.square(codes).sum(1)
    tried: Array = codes * scale[:, None]
    closest: Array = tried[np.square(tried - row).sum(1).argmin()]
    return closest


def literal(
    x: Array, weight: Array, bias: Array, g: Array, q_max: float, binary: bool, rounding: Rounding
) -> dict[str, Array]:
    """Follow the formulas entry by entry: quantised values, then y and the three gradients."""
    xq = np.empty_like(x)
    wq = {
        Rounding.PAPER: lambda: nearest(weight, binary),
        Rounding.MEAN: lambda: np.stack([nearest(row, binary) for row in weight]),
        Rounding.OPTIMAL: lambda: np.stack([best(row, binary) for row in weight]),
    }[rounding]()
    for row in range(len(x)):
        gamma = q_max / max(float(np.abs(x[row]).max()), 1e-8)
        for column in range(x.shape[1]):
            xq[row, column] = min(max(round(x[row, column] * gamma), -128), 127) / gamma
    return {"y": xq @ wq.T + bias, "x": g @ wq, "weight": g.T @ xq, "bias": g.sum(0)}


@pytest.mark.parametrize("act_qmax", [127.0, 128.0])
@pytest.mark.parametrize("precision", LOW_BIT)
@pytest.mark.parametrize("rounding", Rounding)
@pytest.mark.parametrize("leading", [(6,), (2, 3)], ids=str)
def test_straight_through_gradients(
    leading: tuple[int, ...], rounding: Rounding, precision: Precision, act_qmax: float
) -> None:
    torch.manual_seed(5)
    bit = BitLinear(7, 4, precision=precision, rounding=rounding, act_qmax=act_qmax, dtype=torch.float64)
    x = torch.randn(*leading, 7, dtype=torch.float64, requires_grad=True)
    g = torch.randn(*leading, 4, dtype=torch.float64)
    y = bit(x)
    y.backward(g)
    flat = [tensor.detach().reshape(6, -1).numpy() for tensor in (x, g)]
    weight, bias = bit.weight.detach().numpy(), bit.bias.detach().numpy()
    expected = literal(flat[0], weight, bias, flat[1], act_qmax, precision is Precision.BINARY, rounding)
    assert x.grad is not None
    assert bit.weight.grad is not None
    assert bit.bias.grad is not None
    found = {"y": y, "x": x.grad, "weight": bit.weight.grad, "bias": bit.bias.grad}
    for name, value in found.items():
        array = value.detach().numpy().reshape(expected[name].shape)
        np.testing.assert_allclose(array, expected[name], rtol=1e-12, atol=1e-13, err_msg=name)


def test_vectors_train_as_in_a_linear_layer() -> None:
    bit, x = layer(7, 3, Precision.TERNARY, 127.0, 1), torch.randn(7, requires_grad=True)
    bit(x).sum().backward()
    assert x.grad is not None
    assert bit.weight.grad is not None
    batched = copy.deepcopy(bit)
    batched.zero_grad()
    batched(x.detach()[None]).sum().backward()
    assert batched.weight.grad is not None
    assert torch.equal(bit.weight.grad, batched.weight.grad)


def test_gradients_that_nobody_needs_are_left_out() -> None:
    bit = layer(7, 3, Precision.TERNARY, 127.0, 1, bias=False)
    x = torch.randn(5, 7)
    bit(x).sum().backward()
    assert x.grad is None
    assert bit.weight.grad is not None


def test_is_a_linear_layer_to_everyone_else() -> None:
    bit, linear = BitLinear(5, 3), nn.Linear(5, 3)
    assert isinstance(bit, nn.Linear)
    assert list(bit.state_dict()) == list(linear.state_dict())
    bit.load_state_dict(linear.state_dict())
    assert torch.equal(bit.weight, linear.weight)
    assert "precision=ternary, rounding=paper, act_qmax=127" in repr(bit)
    torch.manual_seed(1)
    first = BitLinear(5, 3).weight
    torch.manual_seed(1)
    assert torch.equal(first, nn.Linear(5, 3).weight)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 6)
        self.body = nn.Sequential(nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 6, bias=False))
        self.tail = nn.Bilinear(6, 6, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(self.head(x))
        y: Tensor = self.tail(h, h)
        return y


NAMES = ["head", "body.2"]


def test_apply_works_in_place_and_back() -> None:
    torch.manual_seed(2)
    network, x = Net().eval(), torch.randn(9, 4)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    parameters = dict(network.named_parameters())
    expected = network(x)
    mixed = Assignment({"head": "ternary", "body.2": "binary"})
    assert quant.apply(network, mixed, 128.0, {"body.2": Rounding.OPTIMAL}) is network
    assert quant.roundings(network) == {"head": Rounding.PAPER, "body.2": Rounding.OPTIMAL}
    assert isinstance(network.head, BitLinear)
    assert (network.head.precision, network.head.act_qmax) == (Precision.TERNARY, 128.0)
    inner = network.body[2]
    assert isinstance(inner, BitLinear)
    assert inner.precision is Precision.BINARY
    assert not inner.training
    assert not torch.equal(network(x), expected)
    found = dict(network.named_parameters())
    assert found.keys() == parameters.keys()
    assert all(found[name] is parameters[name] for name in parameters)
    assert list(network.state_dict()) == list(state)
    quant.apply(network, Assignment.of(NAMES))
    assert type(network.head) is type(network.body[2]) is nn.Linear
    assert all(parameter is parameters[name] for name, parameter in network.named_parameters())
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert torch.equal(network(x), expected)


def test_optimizer_made_before_apply_still_steps() -> None:
    network = Net()
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    quant.apply(network, Assignment.of(NAMES, NAMES))
    before = network.head.weight.detach().clone()
    network(torch.randn(5, 4)).sum().backward()
    optimizer.step()
    assert not torch.equal(network.head.weight, before)


def test_apply_reaches_a_deep_copy_alone() -> None:
    network, x = Net().eval(), torch.randn(3, 4)
    quant.apply(network, Assignment.of(NAMES, NAMES))
    twin = copy.deepcopy(network)
    assert torch.equal(twin(x), network(x))
    quant.apply(twin, Assignment.of(NAMES))
    assert isinstance(network.head, BitLinear)
    assert twin.head.weight is not network.head.weight


@pytest.mark.parametrize("names", [["head"], [*NAMES, "tail"]])
def test_apply_wants_exactly_the_linear_layers(names: list[str]) -> None:
    network = Net()
    with pytest.raises(ConfigurationError, match="expected exactly"):
        quant.apply(network, Assignment.of(names, names[:1]))
    assert type(network.head) is nn.Linear


def test_training_mode_is_kept() -> None:
    network: Any = quant.apply(Net().train(), Assignment.of(NAMES, NAMES))
    assert network.head.training


def test_inventory_counts_on_the_meta_device() -> None:
    with torch.device("meta"):
        network = Net()
    network.tail.weight.requires_grad_(False)
    found = quant.inventory(network)
    assert found.names == tuple(NAMES)
    assert [(item.out_features, item.in_features, item.bias) for item in found.layers] == [
        (6, 4, True),
        (6, 6, False),
    ]
    # head 24 + 6, BatchNorm 6 + 6, body 36, the bias of tail 2.
    assert found.total_parameters == 80


# --- part of a network, by patterns ------------------------------------------------------------------------------


def blocks() -> nn.Sequential:
    return nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)), nn.Linear(4, 1))


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ({"1": "binary"}, ["float32", "float32", "binary"]),
        ({"0": "ternary"}, ["ternary", "ternary", "float32"]),
        ({"0.*": "ternary", "1": "binary"}, ["ternary", "ternary", "binary"]),
        ({"*": "ternary", "0.0": "ternary"}, ["ternary"] * 3),
        ({}, ["float32"] * 3),
    ],
)
def test_patterns_name_layers_and_modules(patterns: dict[str, str], expected: list[str]) -> None:
    network = blocks()
    before = dict(network.named_parameters())
    assert quant.apply(network, patterns) is network
    assert list(quant.precisions(network).values()) == expected
    assert all(parameter is before[name] for name, parameter in network.named_parameters())


def test_what_patterns_leave_out_keeps_its_precision() -> None:
    network = quant.apply(blocks(), {"0.0": "binary"})
    quant.apply(network, {"1": "ternary"})
    assert list(quant.precisions(network).values()) == ["binary", "float32", "ternary"]
    quant.apply(network, {"0": "float32"})
    assert list(quant.precisions(network).values()) == ["float32", "float32", "ternary"]


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ({"2": "ternary"}, "no layer matches '2'; the network has 0.0, 0.2, 1"),
        ({"0": "ternary", "*": "binary"}, r"layer 0.0 matches '0' \(ternary\) and '\*' \(binary\)"),
        ({"0": "int3"}, "layer 0 has precision 'int3'; expected one of float32"),
        ({"0": "int8"}, "found precision int8, which onnxruntime has in finished files"),
    ],
)
def test_patterns_that_do_not_fit_are_refused(patterns: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        quant.apply(blocks(), patterns)
    with pytest.raises(ConfigurationError, match="linear layer itself"):
        quant.apply(nn.Linear(2, 2), {"*": "ternary"})


def test_a_layer_of_two_names_is_one_layer() -> None:
    shared = nn.Linear(4, 4)
    network = quant.apply(nn.ModuleDict({"a": shared, "b": shared}), {"a": "ternary"})
    assert isinstance(network.get_submodule("b"), BitLinear)
    assert network.get_submodule("a") is network.get_submodule("b")
