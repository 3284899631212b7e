"""Layer sensitivities against the formula on a network small enough to do it by hand."""

import copy
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from bitsearch.core.precision import Precision
from bitsearch.core.rounding import Rounding, round_rows
from bitsearch.core.seeds import derive
from bitsearch.core.space import Group, SearchSpace
from bitsearch.core.task import Data, Recipe, Recipes, Task
from bitsearch.network import quant
from bitsearch.network.sensitivity import BATCHES, fisher

SIZE = 16
NAMES = ("0", "2", "3")
GROUPS = (Group("ends", ("0", "3"), ""), Group("middle", ("2",), ""))


class ToyData:
    events = 40

    def __init__(self) -> None:
        self.x = torch.randn(40, 4, generator=torch.Generator().manual_seed(1))

    def to(self, device: str) -> "ToyData":
        return self


class ToyTask:
    def __init__(self, rounding: Rounding = Rounding.PAPER) -> None:
        recipe = Recipe(1, SIZE, 1e-3, 0.0, 1e-8)
        self.recipes = Recipes(recipe, recipe, recipe, 1, 1, rounding=(("*", rounding),))

    def loss(self, network: nn.Module, data: Any, indices: Tensor, generator: torch.Generator) -> Tensor:
        return (network(data.x[indices]) - 1).square().mean()  # type: ignore[no-any-return]


def toy() -> nn.Sequential:
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 5), nn.Linear(5, 2))


def scores(
    network: nn.Module,
    precision: Precision = Precision.TERNARY,
    seed: int = 1,
    rounding: Rounding = Rounding.PAPER,
) -> dict[str, float]:
    space = SearchSpace(NAMES, GROUPS, {}, (), precision)
    return dict(fisher(network, cast(Task, ToyTask(rounding)), cast(Data, ToyData()), space, seed))


@pytest.mark.parametrize("rounding", Rounding)
@pytest.mark.parametrize("precision", [Precision.TERNARY, Precision.BINARY])
def test_scores_are_half_the_squared_gradient_times_the_squared_change(
    precision: Precision, rounding: Rounding
) -> None:
    network, data = toy(), ToyData()
    squares = {name: torch.zeros_like(layer.weight) for name, layer in quant.linear_layers(network)}
    for batch in range(BATCHES):
        indices = torch.randint(40, (SIZE,), generator=torch.Generator().manual_seed(derive(1, batch)))
        network.zero_grad()
        ToyTask().loss(network, data, indices, torch.Generator()).backward()  # type: ignore[no-untyped-call]
        for name, layer in quant.linear_layers(network):
            assert layer.weight.grad is not None
            squares[name] += layer.weight.grad**2 * SIZE / BATCHES
    expected = {}
    for name, layer in quant.linear_layers(network):
        codes, scale = round_rows(layer.weight.detach().numpy(), rounding, precision)
        change = torch.from_numpy(codes * scale[:, None]) - layer.weight.detach()
        expected[name] = 0.5 * (squares[name] * change**2).sum().item()
    found = scores(toy(), precision, rounding=rounding)
    assert found == pytest.approx({"ends": expected["0"] + expected["3"], "middle": expected["2"]}, rel=1e-5)


def test_scores_follow_from_the_seed_and_leave_the_network_alone() -> None:
    network = toy().train()
    before = copy.deepcopy(network.state_dict())
    assert scores(network) == scores(network) != scores(network, seed=2)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_layer_that_is_ternary_already_suffers_nothing() -> None:
    network = toy()
    weight = network.get_parameter("2.weight")
    with torch.no_grad():
        weight.copy_(0.25 * torch.sign(weight))
    found = scores(network)
    assert found["middle"] == 0.0
    assert found["ends"] > 0
