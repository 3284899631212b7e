"""Processes side by side that end with the one that began them, however it ends."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from typing import Any

SECONDS_BETWEEN_LOOKS = 0.5


@contextmanager
def processes(count: int, begin: Callable[..., None], *arguments: Any) -> Iterator[Executor]:
    """Give `count` fresh processes, each set up by `begin(*arguments)`; what they do at the end is broken off.

    Raises:
        BrokenProcessPool: one of them died.
    """
    context = get_context("spawn")
    stop = context.Event()
    given = os.getpid(), stop, begin, arguments
    with ProcessPoolExecutor(count, context, _begin, given) as executor:
        try:
            yield executor
        finally:
            stop.set()


def _begin(parent: int, stop: Event, begin: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    # An interrupt is for the parent, which then ends its processes.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent, stop), daemon=True).start()
    begin(*arguments)


def _end_with(parent: int, stop: Event) -> None:
    """End this process when its parent has ended or says so: a pool's processes would wait for ever."""
    while os.getppid() == parent and not stop.is_set():
        time.sleep(SECONDS_BETWEEN_LOOKS)
    os._exit(1)
