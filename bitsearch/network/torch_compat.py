"""What torch keeps private and the export needs: one place, each part with a test that notices its end."""

import importlib
from collections.abc import Callable, Sequence
from typing import TypeVar, cast

import torch
from torch import Tensor

Function = TypeVar("Function", bound=Callable[..., object])


def traced(function: Function) -> Function:
    """Let a function of torch's exporter be traced inside of loops, whose compiler skips such functions."""
    return cast(Function, torch._dynamo.dont_skip_tracing(function))


def import_compiler() -> None:
    """Import torch's compiler now; else the first optimiser does, in the middle of a training."""
    importlib.import_module("torch._dynamo")


def places(mask: Tensor) -> Tensor:
    """Find where a mask of any shape is true, `(places, axes)`; a trace takes it that this is somewhere."""
    found = mask.nonzero()
    torch._check(found.shape[0] > 0)  # type: ignore[no-untyped-call]
    return found


def scan(
    step: Callable[[Sequence[Tensor], Sequence[Tensor]], list[Tensor]],
    state: list[Tensor],
    rows: Sequence[Tensor],
) -> list[Tensor]:
    """Apply `step` to the state and every row of the tables as one operator, which an export keeps as a loop."""
    from torch._higher_order_ops.scan import scan as torch_scan

    last, _ = torch_scan(lambda carried, row: (step(carried, row), []), state, list(rows))
    return cast(list[Tensor], last)
