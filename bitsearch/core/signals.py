"""Interrupts that cannot get lost, and a second one that ends at once."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_received: list[int] = []


class Interrupted(KeyboardInterrupt):
    """A signal asks this process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    @property
    def status(self) -> int:
        """The exit status that shells expect."""
        return 128 + self.number


def check() -> None:
    """Raise Interrupted if a signal has come: loops call it, since what a handler raises may be swallowed."""
    if _received:
        raise Interrupted(_received[0])


def going_on() -> bool:
    """Give True, or raise Interrupted as `check` does: a condition for loops."""
    check()
    return True


@contextmanager
def watched() -> Iterator[None]:
    """Turn signals into Interrupted, raised at once where Python can and at the next `check` where it cannot.

    A second signal ends the process. Only a process's main thread can watch; elsewhere nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _note) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _received.clear()


def _note(number: int, _frame: FrameType | None) -> None:
    if _received:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    _received.append(number)
    raise Interrupted(number)
