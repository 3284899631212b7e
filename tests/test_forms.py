"""Exported forms compute what the leaves compute, and leaves alone are replaced."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bitsearch.models.leaves import Fold, MonotoneSpline, SelectLast
from bitsearch.network.forms import FORMS, LinearNode, ScanNode, SelectRows, SplineNode, replace_leaves

MODELS = sorted((Path(__file__).parents[1] / "models").rglob("*.py"))


class Network(nn.Module):
    """Every kind of leaf, one of them under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.second = self.first
        self.parts = nn.ModuleList([SelectLast(), Fold(), MonotoneSpline("cubic", 4, 1.0, "scalar")])


class Wrapped(nn.Module):
    """What is exported of a network, with a leaf of its own and a layer of the network at hand."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.near = network.first
        self.network = network
        self.fold = Fold()


def test_the_table_is_what_is_replaced() -> None:
    wrapped = Wrapped(Network())
    replace_leaves(wrapped, "network")
    network = wrapped.network
    assert isinstance(network.first, LinearNode)
    assert network.second is network.first is wrapped.near
    assert network.first.name == "first"
    assert [type(item) for item in network.parts] == [SelectRows, ScanNode, SplineNode]
    assert isinstance(wrapped.fold, ScanNode)
    left = [module for module in wrapped.modules() if isinstance(module, tuple(FORMS))]
    assert left == []


@pytest.mark.parametrize("shape", [(6, 5), (4, 6, 5)])
def test_rows_are_the_selected_entries(shape: tuple[int, ...]) -> None:
    x, order = torch.randn(shape), torch.tensor([4, 0, 0, 2])
    found = SelectRows("", SelectLast())(x, order)
    assert torch.equal(found, SelectLast()(x, order))
    assert torch.equal(found, x[..., order])


def test_a_scan_takes_rows_in_turn() -> None:
    def step(state: list[Tensor], row: list[Tensor]) -> list[Tensor]:
        return [state[0] * row[0] + row[1]]

    rows = [torch.tensor([2.0, 3.0, 5.0]), torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])]
    start = [torch.tensor([1.0, 2.0])]
    (found,) = ScanNode("", Fold())(step, start, rows)
    (expected,) = Fold()(step, start, rows)
    # ((x 2 + 1) 3 + 0) 5 + 1 and ((x 2 + 0) 3 + 1) 5 + 1.
    assert expected.tolist() == [46.0, 66.0]
    assert torch.equal(found, expected)


@pytest.mark.parametrize("path", MODELS, ids=lambda path: str(path.relative_to(path.parents[2])))
def test_no_model_asks_whether_it_is_exported(path: Path) -> None:
    for word in ("is_exporting", "is_in_onnx_export", "symbolic", "_higher_order_ops"):
        assert word not in path.read_text()
