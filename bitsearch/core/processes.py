"""Processes side by side that end with the one that began them, however it ends."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from typing import Any, TypeVar

from bitsearch.core.errors import ConfigurationError

SECONDS_BETWEEN_LOOKS = 0.5
ATTEMPTS = 3
T = TypeVar("T")


class WorkerDiedError(Exception):
    """A task whose process has died every time it was tried."""


@contextmanager
def processes(count: int, begin: Callable[..., object], *arguments: Any) -> Iterator[Executor]:
    """Give `count` fresh processes, each set up by `begin(*arguments)`; what they do at the end is broken off.

    A process that dies is replaced and its task tried again; the task's future raises WorkerDiedError when that has
    happened to it ATTEMPTS times.

    Raises:
        ConfigurationError: the system has no place for what processes wait on.
    """
    context = get_context("spawn")
    try:
        stop = context.Event()
        given = os.getpid(), stop, begin, arguments
        pool = _Replacing(lambda: ProcessPoolExecutor(count, context, _begin, given))
    except OSError as error:
        raise ConfigurationError(
            f"processes side by side need semaphores in /dev/shm ({error.strerror or error}); mount it or make room"
        ) from error
    with pool as executor:
        try:
            yield executor
        finally:
            stop.set()


class _Replacing(Executor):
    """A pool that another one follows when it breaks: one dead process ends all tasks of a pool."""

    def __init__(self, make: Callable[[], ProcessPoolExecutor]) -> None:
        self._make = make
        self._pool = make()
        self._lock = threading.RLock()
        self._closed = False

    def submit(self, function: Callable[..., T], /, *arguments: Any, **keywords: Any) -> "Future[T]":
        outer: Future[T] = Future()
        self._try(outer, partial(function, *arguments, **keywords), 1)
        return outer

    def _try(self, outer: "Future[T]", task: Callable[[], T], attempt: int) -> None:
        with self._lock:
            try:
                inner = self._pool.submit(task)
            except BrokenProcessPool:
                self._pool = self._make()
                inner = self._pool.submit(task)
        inner.add_done_callback(partial(self._pass_on, outer, task, attempt))

    def _pass_on(self, outer: "Future[T]", task: Callable[[], T], attempt: int, inner: "Future[T]") -> None:
        error = None if inner.cancelled() else inner.exception()
        if inner.cancelled() or (isinstance(error, BrokenProcessPool) and self._closed):
            outer.cancel()
        elif isinstance(error, BrokenProcessPool) and attempt < ATTEMPTS:
            self._try(outer, task, attempt + 1)
        elif isinstance(error, BrokenProcessPool):
            outer.set_exception(
                WorkerDiedError(f"its process died {attempt} times, often for lack of memory")
            )
        elif error is not None:
            outer.set_exception(error)
        else:
            outer.set_result(inner.result())

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._closed = True
        self._pool.shutdown(wait, cancel_futures=cancel_futures)


def _begin(parent: int, stop: Event, begin: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    # An interrupt is for the parent, which then ends its processes.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent, stop), daemon=True).start()
    begin(*arguments)


def _end_with(parent: int, stop: Event) -> None:
    """End this process when its parent has ended or says so: a pool's processes would wait for ever."""
    while os.getppid() == parent and not stop.is_set():
        time.sleep(SECONDS_BETWEEN_LOOKS)
    os._exit(1)
