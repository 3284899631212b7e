"""Signals end a process with the shells' statuses, also where what a handler raises is swallowed."""

import signal
import subprocess
import sys

import pytest

from bitsearch.core import signals
from bitsearch.core.signals import Interrupted

WAIT = """
import signal, sys, time
from bitsearch import cli
from bitsearch.cli import table

def hold(_):
    print("ready", flush=True)
    time.sleep(60)

status = next(verb for verb in table.VERBS if verb.name == "status")
object.__setattr__(status, "execute", hold)
sys.exit(cli.main(["status", "anywhere"]))
"""


@pytest.mark.parametrize("number", signals.SIGNALS)
def test_verbs_end_with_one_line_and_the_status_of_the_signal(number: signal.Signals) -> None:
    command = [sys.executable, "-P", "-c", WAIT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert errors == f"bitsearch status: ended by {number.name}; the same command continues\n"


class Swallows:
    """An object in whose finaliser a signal comes: Python prints what is raised there and goes on."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_swallowed_interrupt_is_seen_at_the_next_check() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with signals.watched():
        signals.check()
        Swallows()
        with pytest.raises(Interrupted) as caught:
            signals.check()
    assert caught.value.status == 143
    assert signal.getsignal(signal.SIGTERM) == before
    signals.check()
