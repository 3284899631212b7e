"""Processes that train and measure side by side, each with data and references of its own."""

import gc
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import torch

from bitsearch.core.errors import ConfigurationError, TrainingError
from bitsearch.core.measurement import Evaluation, Fidelity, Measurement, Quantity
from bitsearch.core.processes import WorkerDiedError, processes
from bitsearch.core.strategy import Configuration
from bitsearch.network import measuring, torch_compat
from bitsearch.network.spec import Spec
from bitsearch.network.trial import Trial, unmeasured

MOST_WORKERS = 8
T = TypeVar("T")
_trial: Trial | None = None


def default_workers(device: str) -> int:
    """Give one process a core, where training runs on the processor: small networks gain little from threads."""
    return 1 if device == "cuda" else min(os.cpu_count() or 1, MOST_WORKERS)


@contextmanager
def workers(spec: Spec, count: int) -> Iterator[Executor]:
    """Give an executor for the functions below: this process if `count` is 1, else `count` others.

    Other processes end with this one, however it ends; one that dies is replaced and its task tried again. A
    measurement whose process dies every time is recorded as failed; other tasks raise TrainingError then.
    """
    if count == 1:
        set_up(spec)
        yield _Here()
        return
    with ExitStack() as stack:
        try:
            executor = stack.enter_context(processes(count, _begin, spec))
        except ConfigurationError as error:
            raise ConfigurationError(f"{error}, or give --workers 1") from error
        yield recording(executor, spec)


def recording(executor: Executor, spec: Spec) -> Executor:
    """Make records of the measurements that kill the processes of an executor."""
    return _Others(executor, spec)


def reference(options: Mapping[str, str], repetition: int = 0) -> None:
    """Train a float network, unless that has been done; each repetition from other initial weights."""
    _here().trainer.reference(options, repetition)


def template(options: Mapping[str, str], graph: str) -> None:
    """Trace a graph, unless that has been done."""
    _here().exporter.template(options, graph)


def measure(
    configuration: Configuration,
    origin: str,
    fidelity: Fidelity = "finetuned",
    keep: str | None = None,
    repetitions: int | None = None,
) -> Measurement:
    """Train, export and measure one configuration."""
    return _here().measure(configuration, origin, fidelity, keep, repetitions)


def finally_train(configuration: Configuration, origin: str) -> Measurement:
    """Train, export and measure one configuration as it is published; its file is named by strategy or digest."""
    _, _, strategy = origin.partition("baseline:")
    return _here().measure(configuration, origin, "full", strategy or configuration.digest)


def give_up(
    spec: Spec, configuration: Configuration, origin: str, reason: str, fidelity: Fidelity = "finetuned"
) -> Measurement:
    """Make a record of a configuration that cannot be measured."""
    return replace(unmeasured(spec, configuration, origin, fidelity), failure=reason)


def evaluate(
    measurement: Measurement, baseline: Measurement | None
) -> tuple[Mapping[str, Quantity], Evaluation]:
    """Compute the full metrics and plots of a configuration whose file is kept."""
    return measuring.evaluate(_here().spec, measurement, baseline)


class _Here(Executor):
    """Run everything at once in this process."""

    def submit(self, function: Callable[..., T], /, *arguments: Any, **keywords: Any) -> "Future[T]":
        future: Future[T] = Future()
        future.set_result(function(*arguments, **keywords))
        return future


class _Others(Executor):
    """Run in other processes, and make a record of measurements that kill theirs."""

    def __init__(self, executor: Executor, spec: Spec) -> None:
        self.executor = executor
        self.spec = spec

    def submit(self, function: Callable[..., T], /, *arguments: Any, **keywords: Any) -> "Future[T]":
        outer: Future[Any] = Future()

        def pass_on(inner: "Future[T]") -> None:
            if inner.cancelled():
                outer.cancel()
                return
            match inner.exception():
                case None:
                    outer.set_result(inner.result())
                case WorkerDiedError() as died if function in (measure, finally_train):
                    configuration, origin, *rest = arguments
                    short: Fidelity = "full" if function is finally_train else "finetuned"
                    fidelity = rest[0] if rest else short
                    outer.set_result(give_up(self.spec, configuration, origin, str(died), fidelity))
                case WorkerDiedError() as died:
                    outer.set_exception(TrainingError(f"{function.__name__}: {died}; try fewer --workers"))
                case error:
                    outer.set_exception(error)

        self.executor.submit(function, *arguments, **keywords).add_done_callback(pass_on)
        return outer


def one_thread(device: str) -> None:
    """Hold torch to one thread on the processor: numbers then depend on no one's number of threads or processes."""
    if device == "cpu":
        torch.set_num_threads(1)


def _begin(spec: Spec) -> None:
    set_up(spec)
    # What is imported stays, and every garbage collection would walk through all of it again.
    torch_compat.import_compiler()
    gc.freeze()


def set_up(spec: Spec) -> None:
    """Make this process ready for the functions above."""
    global _trial
    one_thread(spec.device)
    _trial = Trial(spec)


def is_set_up(spec: Spec) -> bool:
    """Tell whether this process is ready, with what it has loaded and trained."""
    return _trial is not None and _trial.spec == spec


def _here() -> Trial:
    if _trial is None:
        raise RuntimeError("nothing is set up in this process; expected a call through `workers`")
    return _trial
