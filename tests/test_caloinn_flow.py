"""Splines against scalar formulas, coupling blocks against autograd, a flow that is a probability density."""

import math
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from bitsearch.models.caloinn.coupling import ActNorm, CouplingBlock, Subnet
from bitsearch.models.caloinn.network import Architecture, CaloINN
from bitsearch.models.leaves.splines import SPLINES, OutOfBounds

BINS, BOUND = 10, 18.0
SPLINE_NAMES = sorted(SPLINES)
Scalar = Callable[[list[float], float, bool], tuple[float, float, list[float]]]
MINIMUM = 1e-3


def bin_sizes(logits: list[float]) -> list[float]:
    weights = [math.exp(value - max(logits)) for value in logits]
    return [MINIMUM + (1 - MINIMUM * len(logits)) * weight / sum(weights) for weight in weights]


def knots_of(sizes: list[float], low: float, high: float) -> list[float]:
    knots = [low + (high - low) * sum(sizes[:count]) for count in range(len(sizes))]
    return [*knots, high]


def literal_rational_quadratic(
    theta: list[float], value: float, inverse: bool
) -> tuple[float, float, list[float]]:
    """Follow section 4.4 of the specification for one scalar; also give the knots on the side of `value`."""
    x = knots_of(bin_sizes(theta[:BINS]), -BOUND, BOUND)
    y = knots_of(bin_sizes(theta[BINS : 2 * BINS]), -BOUND, BOUND)
    d = [1.0, *(MINIMUM + math.log1p(math.exp(raw)) for raw in theta[2 * BINS :]), 1.0]
    side = y if inverse else x
    k = bisect_right([*side[:-1], side[-1] + 1e-6], value) - 1
    w, h = x[k + 1] - x[k], y[k + 1] - y[k]
    s = h / w
    if inverse:
        t, q = value - y[k], d[k] + d[k + 1] - 2 * s
        a, b, c = t * q + h * (s - d[k]), h * d[k] - t * q, -s * t
        xi = 2 * c / (-b - math.sqrt(max(b * b - 4 * a * c, 0.0)))
    else:
        xi = (value - x[k]) / w
    denominator = s + (d[k + 1] + d[k] - 2 * s) * xi * (1 - xi)
    moved = y[k] + h * (s * xi**2 + d[k] * xi * (1 - xi)) / denominator
    slope = s**2 * (d[k + 1] * xi**2 + 2 * s * xi * (1 - xi) + d[k] * (1 - xi) ** 2) / denominator**2
    return (x[k] + w * xi, -math.log(slope), side) if inverse else (moved, math.log(slope), side)


def literal_cubic(theta: list[float], value: float, inverse: bool) -> tuple[float, float, list[float]]:
    """Follow section 4.5 of the specification for one scalar; the inverse by bisection alone."""
    w, h = bin_sizes(theta[:BINS]), bin_sizes(theta[BINS : 2 * BINS])
    x, y = knots_of(w, 0.0, 1.0), knots_of(h, 0.0, 1.0)
    s = [high / wide for high, wide in zip(h, w, strict=True)]
    first, last = (1 / (1 + math.exp(-raw)) for raw in theta[2 * BINS :])
    d = [MINIMUM + first * (3 * s[0] - 2 * MINIMUM)]
    for j in range(1, BINS):
        mean = 0.5 * (w[j] * s[j - 1] + w[j - 1] * s[j]) / (w[j - 1] + w[j])
        d.append(2 * min(s[j - 1], s[j], mean))
    d.append(MINIMUM + last * (3 * s[-1] - 2 * MINIMUM))
    unit = (value + BOUND) / (2 * BOUND)
    side = y if inverse else x
    k = bisect_right([*side[:-1], side[-1] + 1e-6], unit) - 1
    a, b = (d[k] + d[k + 1] - 2 * s[k]) / w[k] ** 2, (3 * s[k] - 2 * d[k] - d[k + 1]) / w[k]

    def polynomial(r: float) -> float:
        return a * r**3 + b * r**2 + d[k] * r + y[k]

    r = unit - x[k]
    if inverse:
        low, high = 0.0, w[k]
        for _ in range(200):
            r = 0.5 * (low + high)
            low, high = (r, high) if polynomial(r) < unit else (low, r)
    slope = math.log(3 * a * r**2 + 2 * b * r + d[k])
    moved = x[k] + r if inverse else polynomial(r)
    return (
        2 * BOUND * moved - BOUND,
        -slope if inverse else slope,
        [2 * BOUND * edge - BOUND for edge in side],
    )


LITERAL: dict[str, Scalar] = {"rational-quadratic": literal_rational_quadratic, "cubic": literal_cubic}


def transform(
    name: str, x: Tensor, theta: Tensor, inverse: bool = False, bound: float = BOUND
) -> tuple[Tensor, Tensor]:
    return SPLINES[name].transform(x, theta, BINS, bound, inverse)


def random_theta(name: str, count: int, seed: int, size: float, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = count, SPLINES[name].parameters(BINS)
    return size * torch.randn(shape, generator=generator, dtype=dtype)


def positions(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed + 1000)
    return BOUND * (2 * torch.rand(count, generator=generator, dtype=torch.float64) - 1)


def test_parameters_of_the_published_networks() -> None:
    assert SPLINES["rational-quadratic"].parameters(10) == 29
    assert SPLINES["cubic"].parameters(10) == 22


@pytest.mark.parametrize("inverse", [False, True], ids=["forward", "inverse"])
@pytest.mark.parametrize("name", SPLINE_NAMES)
@given(seed=st.integers(0, 999), size=st.sampled_from([0.0, 0.3, 1.0, 3.0]))
def test_spline_is_the_published_formula(name: str, inverse: bool, seed: int, size: float) -> None:
    theta, x = random_theta(name, 8, seed, size), positions(8, seed)
    y, log_slope = transform(name, x, theta, inverse)
    for index in range(len(x)):
        expected, slope, _ = LITERAL[name](theta[index].tolist(), x[index].item(), inverse)
        assert y[index].item() == pytest.approx(expected, abs=1e-8)
        assert log_slope[index].item() == pytest.approx(slope, abs=1e-6)


@pytest.mark.parametrize("name", SPLINE_NAMES)
@given(seed=st.integers(0, 999), size=st.sampled_from([0.0, 0.3, 1.0, 3.0]))
def test_spline_comes_back_and_rises(name: str, seed: int, size: float) -> None:
    theta = random_theta(name, 1, seed, size).expand(200, -1)
    x = positions(200, seed).sort().values
    y, log_slope = transform(name, x, theta)
    assert (y.diff() > 0).all()
    assert (y.abs() <= BOUND * (1 + 1e-12)).all()
    back, log_slope_back = transform(name, y, theta, inverse=True)
    # The inverse is as ill-conditioned as the spline is flat.
    tolerance = 1e-10 + 1e-14 * torch.exp(-log_slope)
    assert ((back - x).abs() < tolerance).all()
    torch.testing.assert_close(log_slope_back, -log_slope, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("inverse", [False, True], ids=["forward", "inverse"])
@pytest.mark.parametrize("name", SPLINE_NAMES)
def test_slope_is_the_derivative(name: str, inverse: bool) -> None:
    theta, x = random_theta(name, 500, 1, 1.0), positions(500, 1)
    step = 1e-6
    low, high = (transform(name, x + shift, theta, inverse)[0] for shift in (-step, step))
    y, log_slope = transform(name, x.requires_grad_(), theta, inverse)
    inside = ((x.detach().abs() < BOUND - 0.1) & (log_slope.detach().abs() < 5)).numpy()
    assert inside.sum() > 400
    slope = log_slope.exp().detach().numpy()[inside]
    np.testing.assert_allclose(((high - low) / (2 * step)).numpy()[inside], slope, rtol=2e-3)
    if not inverse:
        (gradient,) = torch.autograd.grad(y.sum(), x)
        np.testing.assert_allclose(gradient.numpy()[inside], slope, rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", SPLINE_NAMES)
def test_zero_parameters_and_knots(name: str, dtype: torch.dtype) -> None:
    """The even grid maps knots on themselves, both ways, and nothing is NaN where cubics degenerate to lines."""
    edges = torch.linspace(-BOUND, BOUND, BINS + 1, dtype=dtype)
    theta = random_theta(name, BINS + 1, 0, 0.0, dtype)
    for inverse in (False, True):
        y, log_slope = transform(name, edges, theta, inverse)
        torch.testing.assert_close(y, edges, rtol=0, atol=1e-12 if dtype is torch.float64 else 1e-5)
        assert torch.isfinite(log_slope).all()
        assert y[[0, -1]].tolist() == pytest.approx([-BOUND, BOUND], rel=1e-12)
    middle = edges[:-1] + BOUND / BINS
    back, _ = transform(name, transform(name, middle, theta[1:])[0], theta[1:], inverse=True)
    torch.testing.assert_close(back, middle, rtol=0, atol=1e-10 if dtype is torch.float64 else 1e-4)


@pytest.mark.parametrize("name", SPLINE_NAMES)
def test_zero_parameters_are_not_the_identity(name: str) -> None:
    """Inner slopes of a rational quadratic are 1e-3 + ln 2, end slopes of a cubic are free: 1.5 at zero."""
    x = torch.tensor([-BOUND + 2 * BOUND / BINS, -BOUND], dtype=torch.float64)
    _, log_slope = transform(name, x, random_theta(name, 2, 0, 0.0))
    expected = [1e-3 + math.log(2), 1.0] if name == "rational-quadratic" else [1.0, 1.5]
    assert log_slope.exp().tolist() == pytest.approx(expected)


@pytest.mark.parametrize("name", SPLINE_NAMES)
def test_values_at_knots_and_bounds(name: str) -> None:
    for seed in range(5):
        theta = random_theta(name, 1, seed, 1.0)
        row = theta[0].tolist()
        edges, images = (LITERAL[name](row, 0.0, inverse)[2] for inverse in (False, True))
        x = torch.tensor(edges, dtype=torch.float64)
        y, _ = transform(name, x, theta.expand(len(edges), -1))
        torch.testing.assert_close(y, torch.tensor(images, dtype=torch.float64), rtol=0, atol=1e-10)
        assert y[[0, -1]].tolist() == pytest.approx([-BOUND, BOUND], abs=1e-11)
        nudged, _ = transform(name, x[1:-1].nextafter(x[:-2]), theta.expand(BINS - 1, -1))
        torch.testing.assert_close(nudged, y[1:-1], rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", SPLINE_NAMES)
def test_extreme_parameters_stay_finite(name: str) -> None:
    """The original fails here: a negative discriminant in float32, a division by zero where a cubic is a line."""
    theta, x = random_theta(name, 4000, 3, 30.0, torch.float32), positions(4000, 3).float()
    for inverse in (False, True):
        y, log_slope = transform(name, x, theta, inverse)
        assert torch.isfinite(y).all()
        assert torch.isfinite(log_slope).all()
        assert (y.abs() <= BOUND * (1 + 1e-5)).all()


# --- coupling blocks -------------------------------------------------------------------------------------------


def coupling(
    name: str, rule: OutOfBounds, bound: float = BOUND, normalize: bool = False, seed: int = 1
) -> CouplingBlock:
    """Make a float64 block of 7 coordinates whose subnet does not end in zeros."""
    torch.manual_seed(seed)
    subnet = Subnet([5, 16, 3 * SPLINES[name].parameters(BINS)], False, nn.SiLU)
    nn.init.normal_(subnet.layers[-1].weight, std=0.3)  # type: ignore[arg-type]
    made = CouplingBlock(
        subnet,
        torch.randperm(7),
        spline=name,
        bins=BINS,
        bound=bound,
        out_of_bounds=rule,
        normalize=normalize,
    )
    return made.double().eval()


def events(count: int, seed: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(count, 7, generator=generator, dtype=torch.float64)
    return v, torch.randn(count, 1, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("rule", ["event", "scalar"])
@pytest.mark.parametrize("name", SPLINE_NAMES)
def test_block_comes_back(name: str, rule: OutOfBounds) -> None:
    block, (v, condition) = coupling(name, rule, normalize=True), events(200)
    assert block.actnorm is not None
    block.actnorm.initialize(v)
    v[::5, 6] *= 1000
    y, _ = block(v, condition)
    torch.testing.assert_close(block.inverse(y, condition), v, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("name", SPLINE_NAMES)
def test_block_log_det_is_the_jacobian(name: str, normalize: bool) -> None:
    block, (v, condition) = coupling(name, "scalar", normalize=normalize), events(4)
    if block.actnorm is not None:
        nn.init.normal_(block.actnorm.scale)
        nn.init.normal_(block.actnorm.bias)
    v[0, 5] = 100.0
    _, log_det = block(v, condition)
    for index in range(len(v)):

        def one(value: Tensor, at: int = index) -> Tensor:
            y: Tensor = block(value[None], condition[at : at + 1])[0]
            return y[0]

        jacobian = torch.autograd.functional.jacobian(one, v[index])  # type: ignore[no-untyped-call]
        assert log_det[index].item() == pytest.approx(
            torch.linalg.slogdet(jacobian).logabsdet.item(), abs=1e-9
        )


@pytest.mark.parametrize("name", SPLINE_NAMES)
def test_bounds_rules(name: str) -> None:
    """A coordinate outside stays as it is; under `event` it takes its whole event along, with log-det 0."""
    v, condition = events(3)
    v[1, 4] = BOUND + 0.01
    v[2, 5] = float("inf")
    v[2, 6] = -BOUND
    for rule in ("event", "scalar"):
        block = coupling(name, rule)
        y, log_det = block(v, condition)
        straight = y.index_select(1, block.inverse_permutation)
        assert torch.equal(straight[:, :4], v[:, :4])
        assert (straight[0, 4:] != v[0, 4:]).all()
        moved = straight[1:, 4:] != v[1:, 4:]
        if rule == "event":
            assert not moved.any()
            assert log_det[1:].tolist() == [0.0, 0.0]
        else:
            assert moved.tolist() == [[False, True, True], [True, False, False]]
            assert straight[2, 6].item() == -BOUND
            assert (log_det[1:] != 0).all()


@pytest.mark.parametrize("name", SPLINE_NAMES)
def test_bounds_themselves_are_inside(name: str) -> None:
    block, (v, condition) = coupling(name, "event"), events(2)
    v[0, 4], v[1, 6] = BOUND, -BOUND
    y, log_det = block(v, condition)
    straight = y.index_select(1, block.inverse_permutation)
    assert straight[0, 4].item() == pytest.approx(BOUND)
    assert straight[1, 6].item() == pytest.approx(-BOUND)
    assert (straight[:, 5] != v[:, 5]).all()
    assert (log_det != 0).all()


def test_actnorm_initialisation() -> None:
    v = torch.randn(50, 4, dtype=torch.float64) * torch.tensor([1e-3, 1.0, 1e3, 0.0]) + 7
    norm = ActNorm(4).double()
    norm.initialize(v)
    y, log_det = norm(v)
    torch.testing.assert_close(y.mean(0), torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-9)
    torch.testing.assert_close(y[:, :3].std(0, correction=1), torch.ones(3, dtype=torch.float64))
    assert norm.scale[3].item() == 0.0
    assert log_det.item() == pytest.approx(-v[:, :3].std(0).log().sum().item())
    torch.testing.assert_close(norm.inverse(y), v)


def test_subnet_starts_at_zero_and_its_layers_are_in_order() -> None:
    subnet = Subnet([5, 6, 6, 9], True, nn.SiLU)
    kinds = [nn.Linear, nn.BatchNorm1d, nn.SiLU, nn.Linear, nn.BatchNorm1d, nn.SiLU, nn.Linear]
    assert [type(layer) for layer in subnet.layers] == kinds
    assert torch.equal(subnet(torch.randn(4, 5)), torch.zeros(4, 9))
    assert [type(layer) for layer in Subnet([5, 6, 9], False, nn.LeakyReLU).layers] == [
        nn.Linear,
        nn.LeakyReLU,
        nn.Linear,
    ]


# --- whole flows -----------------------------------------------------------------------------------------------

TINY = Architecture(
    boundaries=(0, 3, 5),
    blocks=6,
    linears=3,
    hidden=8,
    spline="rational-quadratic",
    bins=BINS,
    bound=BOUND,
    normalization=True,
    activation="silu",
    noise=5e-6,
    out_of_bounds="scalar",
)
VARIANTS = {
    "rational-quadratic": TINY,
    "cubic": replace(
        TINY, spline="cubic", bound=15.0, normalization=False, activation="leaky-relu", noise=1e-6
    ),
}


def flow(architecture: Architecture, permutation: str = "random", wake: bool = True) -> CaloINN:
    """Make a float64 flow with initialised ActNorms; awake, its last layers are not zero."""
    torch.manual_seed(7)
    network = CaloINN(architecture, permutation, seed=3).double().eval()
    if wake:
        for block in network.blocks:
            assert isinstance(block, CouplingBlock)
            nn.init.normal_(block.subnet.layers[-1].weight, std=0.1)  # type: ignore[arg-type]
    network.initialize(*showers(architecture, 256))
    return network


def showers(architecture: Architecture, count: int, zeros: float = 0.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    x = torch.rand(count, architecture.dimension, generator=generator, dtype=torch.float64)
    x[torch.rand(x.shape, generator=generator) < zeros] = 0
    x += architecture.noise * torch.rand(x.shape, generator=generator, dtype=torch.float64)
    return x, torch.rand(count, 1, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("permutation", ["random", "exchange"])
@pytest.mark.parametrize("name", SPLINE_NAMES)
def test_flow_comes_back(name: str, permutation: str) -> None:
    network = flow(VARIANTS[name], permutation)
    x, condition = showers(VARIANTS[name], 100)
    z, _ = network(x, condition)
    torch.testing.assert_close(network.inverse(z, condition), x, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("permutation", ["random", "exchange"])
@pytest.mark.parametrize("name", SPLINE_NAMES)
def test_flow_log_det_is_the_jacobian_in_the_logarithm(name: str, permutation: str) -> None:
    network = flow(VARIANTS[name], permutation)
    x, condition = showers(VARIANTS[name], 3)
    _, log_det = network(x, condition)
    for index in range(len(x)):

        def of_logarithm(v: Tensor, at: int = index) -> Tensor:
            z: Tensor = network(torch.exp(v)[None] - 1e-8, condition[at : at + 1])[0]
            return z[0]

        jacobian = torch.autograd.functional.jacobian(of_logarithm, torch.log(x[index] + 1e-8))  # type: ignore[no-untyped-call]
        assert log_det[index].item() == pytest.approx(
            torch.linalg.slogdet(jacobian).logabsdet.item(), abs=1e-8
        )


@pytest.mark.parametrize("name", SPLINE_NAMES)
def test_density_integrates_to_one(name: str) -> None:
    """Two dimensions, a domain small enough that tails matter, summed over a fine grid of ln x."""
    architecture = replace(VARIANTS[name], boundaries=(0, 1), blocks=3, bound=2.5)
    network = flow(architecture)
    axis = torch.linspace(-24.0, 18.0, 701, dtype=torch.float64)
    v = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        density = torch.cat(
            [
                torch.exp(-network.negative_log_likelihood(torch.exp(rows) - 1e-8, rows[:, :1] * 0 + 0.5))
                for rows in torch.split(v, 20_000)
            ]
        )
    total = density.sum() * (axis[1] - axis[0]) ** 2
    assert total.item() == pytest.approx(1.0, abs=0.01)


def test_nll_of_an_exact_normal() -> None:
    """With all scalars out of the domain and no ActNorm, ln x itself is normal."""
    architecture = replace(TINY, blocks=4, bound=1e-9)
    network = CaloINN(architecture, "exchange").double().eval()
    x, condition = showers(architecture, 5)
    v = torch.log(x + 1e-8)
    expected = 0.5 * (v**2).sum(1) + architecture.dimension / 2 * math.log(2 * math.pi)
    torch.testing.assert_close(network.negative_log_likelihood(x, condition), expected)


@pytest.mark.parametrize("blocks", [5, 6, 12])
def test_actnorms_stand_where_published(blocks: int) -> None:
    for permutation, expected in (
        ("random", list(range(1, blocks))),
        ("exchange", list(range(2, blocks - 2))),
    ):
        network = CaloINN(replace(TINY, blocks=blocks), permutation)
        found = [index for index, block in enumerate(network.blocks) if block.actnorm is not None]
        assert found == expected


def test_actnorms_see_unit_spread_in_order() -> None:
    network = flow(TINY)
    x, condition = showers(TINY, 256)
    v = torch.log(x + 1e-8)
    for block in network.blocks:
        assert isinstance(block, CouplingBlock)
        if block.actnorm is not None:
            normalized, _ = block.actnorm(v)
            torch.testing.assert_close(
                normalized.mean(0), torch.zeros(7, dtype=torch.float64), rtol=0, atol=1e-9
            )
            torch.testing.assert_close(normalized.std(0), torch.ones(7, dtype=torch.float64))
        v, _ = block(v, condition)


def test_initialisation_leaves_the_mode_and_running_statistics_alone() -> None:
    network = CaloINN(TINY).double().train()
    before = {name: value.clone() for name, value in network.named_buffers()}
    network.initialize(*showers(TINY, 16))
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.named_buffers())


def test_random_permutations_follow_from_the_seed() -> None:
    one, same, other = (CaloINN(TINY, "random", seed) for seed in (1, 1, 2))
    orders = [
        [tuple(network.get_buffer(f"blocks.{index}.permutation").tolist()) for index in range(TINY.blocks)]
        for network in (one, same, other)
    ]
    assert orders[0] == orders[1] != orders[2]
    assert len(set(orders[0])) == TINY.blocks
    for order in orders[0]:
        assert sorted(order) == list(range(TINY.dimension))


@pytest.mark.parametrize("boundaries", [(0, 3, 5), (0, 3, 6)], ids=["odd", "even"])
def test_exchange_moves_the_transformed_half_to_the_front(boundaries: tuple[int, ...]) -> None:
    architecture = replace(TINY, boundaries=boundaries)
    network, dimension = CaloINN(architecture, "exchange"), architecture.dimension
    passive = dimension - dimension // 2
    v = torch.arange(float(dimension))[None]
    touched = set()
    for index, block in enumerate(network.blocks):
        assert isinstance(block, CouplingBlock)
        outer = index in (0, 1, 4, 5)
        y = v.index_select(1, block.permutation)
        exchanged = torch.cat([v[:, passive:], v[:, :passive]], 1)
        assert torch.equal(y, exchanged) is outer
        if index < 2:
            touched |= set(v[0, passive:].tolist())
            v = y
    # With odd D, coordinate 0 is passive in both blocks of the first pair.
    assert touched == set(range(dimension % 2, dimension))


@pytest.mark.parametrize("permutation", ["random", "exchange"])
def test_out_of_bounds_rule_decides_whether_block_0_learns(permutation: str) -> None:
    """Section 4.6: on ds2 every event holds zero voxels below the domain, so block 0 is inert under `event`."""
    architecture = replace(VARIANTS["cubic"], boundaries=(0, 30, 60))
    x, condition = showers(architecture, 64, zeros=0.7)
    for rule in ("event", "scalar"):
        network = flow(replace(architecture, out_of_bounds=rule), permutation)
        network.negative_log_likelihood(x, condition).mean().backward()  # type: ignore[no-untyped-call]
        learns = [
            any(parameter.grad is not None and bool(parameter.grad.any()) for parameter in block.parameters())
            for block in network.blocks
        ]
        inert = 2 if permutation == "exchange" else 1
        assert learns[:inert] == [rule == "scalar"] * inert
        assert any(learns[inert:])


@pytest.mark.parametrize("rule", ["event", "scalar"])
@pytest.mark.parametrize("permutation", ["random", "exchange"])
@pytest.mark.parametrize("name", SPLINE_NAMES)
def test_fresh_network_samples_without_nan(name: str, permutation: str, rule: OutOfBounds) -> None:
    architecture = replace(VARIANTS[name], out_of_bounds=rule, boundaries=(0, 30, 60))
    network = CaloINN(architecture, permutation).eval()
    for scale in (1.0, 5.0, 1e4):
        z = scale * torch.randn(200, architecture.dimension)
        with torch.no_grad():
            x = network.inverse(z, torch.zeros(200, 1))
        assert torch.isfinite(x).all()
        assert (x >= -1.1e-8).all()
