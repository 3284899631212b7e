"""Processes that die, and what becomes of their tasks."""

import os
import signal
import time
from pathlib import Path

import pytest

from bitsearch.core.processes import ATTEMPTS, WorkerDiedError, processes


def nothing() -> None:
    """Set nothing up."""


def die_at_first(number: int, folder: Path) -> int:
    """Kill the own process the first time that this is asked for, else answer."""
    with (folder / str(number)).open("a") as file:
        file.write("x")
    if number == 1 and (folder / str(number)).stat().st_size == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.05)
    return number * number


def die(folder: Path) -> None:
    with (folder / "died").open("a") as file:
        file.write("x")
    os.kill(os.getpid(), signal.SIGKILL)


def refuse(text: str) -> None:
    raise ValueError(text)


def test_a_killed_process_is_replaced_and_nothing_is_lost(tmp_path: Path) -> None:
    with processes(2, nothing) as executor:
        futures = [executor.submit(die_at_first, number, tmp_path) for number in range(6)]
        assert [future.result(120) for future in futures] == [0, 1, 4, 9, 16, 25]


def test_a_task_that_always_kills_its_process_is_given_up_alone(tmp_path: Path) -> None:
    with processes(1, nothing) as executor:
        hopeless = executor.submit(die, tmp_path)
        with pytest.raises(WorkerDiedError, match="its process died 3 times"):
            hopeless.result(120)
        assert executor.submit(abs, -3).result(120) == 3
    assert (tmp_path / "died").stat().st_size == ATTEMPTS


def test_what_a_task_raises_comes_back(tmp_path: Path) -> None:
    with processes(1, nothing) as executor, pytest.raises(ValueError, match="odd"):
        executor.submit(refuse, "odd").result(120)
