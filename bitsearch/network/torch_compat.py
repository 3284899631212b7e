"""What torch keeps private and the export needs: one place, each part with a test that notices its end."""

import importlib
from collections.abc import Callable
from typing import TypeVar, cast

import torch

Function = TypeVar("Function", bound=Callable[..., object])


def traced(function: Function) -> Function:
    """Let a function of torch's exporter be traced inside of loops, whose compiler skips such functions."""
    return cast(Function, torch._dynamo.dont_skip_tracing(function))


def import_compiler() -> None:
    """Import torch's compiler now; else the first optimiser does, in the middle of a training."""
    importlib.import_module("torch._dynamo")
