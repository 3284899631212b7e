"""Exported forms compute what the leaves compute, and leaves alone are replaced."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bitsearch.models.leaves import Fold, MonotoneSpline, PairByPair, RowByRow, SelectLast
from bitsearch.models.pdat.pair_features import Pairs
from bitsearch.network.forms import (
    FORMS,
    DistinctPairs,
    DistinctRows,
    LinearNode,
    ScanNode,
    SelectRows,
    SplineNode,
    replace_leaves,
)

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


FILLED = torch.tensor([0, 1, 3, 5, 6, 2])
"""Of six slots: none, some, all but one, all."""


def test_slots_that_are_the_same_are_copied() -> None:
    x, empty = torch.randn(6, 6, 4, 3), torch.arange(6) >= FILLED[:, None]
    x[empty] = torch.randn(4, 3)
    seen: list[int] = []

    def function(rows: Tensor) -> Tensor:
        seen.append(len(rows))
        return rows.sin().sum(1)

    found = DistinctRows("", RowByRow())(function, x, FILLED, None)
    torch.testing.assert_close(found, RowByRow()(lambda rows: rows.sin().sum(2), x, FILLED, None))
    assert seen == [int((FILLED + 1).clamp(max=6).sum())]


@pytest.mark.parametrize("unordered", [True, False])
def test_pairs_that_are_the_same_are_copied(unordered: bool) -> None:
    """Features are differences of slots, and 1 of a slot with itself, which two empty slots do not share."""
    pairs, slots = Pairs.of(6, unordered), torch.randn(6, 6, 2)
    slots[torch.arange(6) >= FILLED[:, None]] = 0.3
    features = (slots[:, pairs.first] - slots[:, pairs.second]).square() + 2
    features[:, pairs.first == pairs.second] = 1
    seen: list[int] = []

    def function(rows: Tensor) -> Tensor:
        seen.append(rows[..., 0].numel())
        return torch.cat([rows.sin(), rows.cos()], -1)

    found = DistinctPairs("", PairByPair())(function, features, pairs.entries, FILLED, None)
    assert sum(seen) == 1 + int((FILLED + 1).clamp(max=6).square().sum())
    expected = PairByPair()(function, features, pairs.entries, FILLED, None)
    assert expected.shape == (6, 6, 6, 4)
    torch.testing.assert_close(found, expected)


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
