"""Processes that train and measure side by side, each with a laboratory of its own."""

import gc
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from bitsearch.core.errors import TrainingError
from bitsearch.core.measurement import Evaluation, Fidelity, Measurement, Quantity
from bitsearch.core.processes import processes
from bitsearch.core.strategy import Configuration
from bitsearch.network import torch_compat
from bitsearch.network.laboratory import Laboratory

MOST_WORKERS = 8
T = TypeVar("T")
_laboratory: Laboratory | None = None


def default_workers(device: str) -> int:
    """Give one process a core, where training runs on the processor: small networks gain little from threads."""
    return 1 if device == "cuda" else min(os.cpu_count() or 1, MOST_WORKERS)


@contextmanager
def workers(laboratory: Laboratory, count: int) -> Iterator[Executor]:
    """Give an executor for the functions below: this process if `count` is 1, else `count` others.

    Other processes end with this one, however it ends.

    Raises:
        TrainingError: one of them died.
    """
    if count == 1:
        _set_up(laboratory)
        yield _Here()
        return
    sent = laboratory.without_progress()
    try:
        with processes(count, _begin, sent) as executor:
            yield executor
    except BrokenProcessPool as error:
        raise TrainingError(
            f"one of {count} worker processes died, often for lack of memory; try fewer --workers"
        ) from error


def reference(options: Mapping[str, str], repetition: int = 0) -> None:
    """Train a float network, unless that has been done; each repetition from other initial weights."""
    _here().reference(options, repetition)


def template(options: Mapping[str, str], graph: str) -> None:
    """Trace a graph, unless that has been done."""
    _here().template(options, graph)


def measure(
    configuration: Configuration, origin: str, fidelity: Fidelity = "finetuned", keep: str | None = None
) -> Measurement:
    """Train, export and measure one configuration."""
    return _here().measure(configuration, origin, fidelity, keep)


def evaluate(
    measurement: Measurement, baseline: Measurement | None
) -> tuple[Mapping[str, Quantity], Evaluation]:
    """Compute the full metrics and plots of a configuration whose file is kept."""
    return _here().evaluate(measurement, baseline)


class _Here(Executor):
    """Run everything at once in this process."""

    def submit(self, function: Callable[..., T], /, *arguments: Any, **keywords: Any) -> "Future[T]":
        future: Future[T] = Future()
        future.set_result(function(*arguments, **keywords))
        return future


def one_thread(device: str) -> None:
    """Hold torch to one thread on the processor: numbers then depend on no one's number of threads or processes."""
    if device == "cpu":
        torch.set_num_threads(1)


def _begin(laboratory: Laboratory) -> None:
    _set_up(laboratory)
    # What is imported stays, and every garbage collection would walk through all of it again.
    torch_compat.import_compiler()
    gc.freeze()


def _set_up(laboratory: Laboratory) -> None:
    global _laboratory
    one_thread(laboratory.device)
    _laboratory = laboratory


def _here() -> Laboratory:
    if _laboratory is None:
        raise RuntimeError("no laboratory in this process; expected a call through `workers`")
    return _laboratory
