"""Processes that train and measure side by side, each with a laboratory of its own."""

import gc
import importlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from typing import Any, TypeVar

import torch

from bitsearch.errors import TrainingError
from bitsearch.laboratory import Laboratory
from bitsearch.records import Evaluation, Fidelity, Measurement, Quantity
from bitsearch.strategy import Configuration

MOST_WORKERS = 8
SECONDS_BETWEEN_LOOKS = 0.5
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
    context = get_context("spawn")
    stop = context.Event()
    threads = max(1, torch.get_num_threads() // count)
    sent = replace(laboratory.without_progress(), threads=threads)
    with ProcessPoolExecutor(count, context, _begin, (sent, os.getpid(), stop)) as executor:
        try:
            yield executor
        except BrokenProcessPool as error:
            raise TrainingError(
                f"one of {count} worker processes died, often for lack of memory; try fewer --workers"
            ) from error
        finally:
            stop.set()


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


def _begin(laboratory: Laboratory, parent: int, stop: Event) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent, stop), daemon=True).start()
    torch.set_num_threads(laboratory.threads)
    _set_up(laboratory)
    # torch imports its compiler with its first optimiser. What is imported stays, and every garbage collection
    # would walk through all of it again.
    importlib.import_module("torch._dynamo")
    gc.freeze()


def _end_with(parent: int, stop: Event) -> None:
    """End this process when its parent has ended or says so: a pool's processes would wait for ever."""
    while os.getppid() == parent and not stop.is_set():
        time.sleep(SECONDS_BETWEEN_LOOKS)
    os._exit(1)


def _set_up(laboratory: Laboratory) -> None:
    global _laboratory
    _laboratory = laboratory


def _here() -> Laboratory:
    if _laboratory is None:
        raise RuntimeError("no laboratory in this process; expected a call through `workers`")
    return _laboratory
