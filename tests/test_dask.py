"""Tasks on a real Dask scheduler with two worker processes, on loopback."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bitsearch.core.errors import ConfigurationError
from bitsearch.core.processes import WorkerDiedError
from bitsearch.network import dask_cluster, workers
from bitsearch.network.spec import Spec

PATIENCE = 600
"""Seconds until a task that does not end fails its test, also on a machine with much else to do."""


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the file of a scheduler."""
    folder = tmp_path_factory.mktemp("dask")
    file = folder / "scheduler.json"
    python, where = (sys.executable, "-W", "ignore", "-m"), ("--scheduler-file", str(file))
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parent),
        "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1",
    }
    address = ("--host", "127.0.0.1", "--no-dashboard")
    commands: list[tuple[str, ...]] = [
        (*python, "distributed.cli.dask_scheduler", "--port", "0", *address, *where)
    ]
    commands += [
        (
            *python,
            "distributed.cli.dask_worker",
            "--nthreads",
            "1",
            *address,
            *where,
            "--local-directory",
            str(folder),
        )
    ] * 2
    running = [
        subprocess.Popen(command, env=environment, cwd=folder, stderr=subprocess.DEVNULL)
        for command in commands
    ]
    try:
        until = time.monotonic() + 120
        while not file.is_file():
            assert time.monotonic() < until
            time.sleep(0.1)
        while dask_cluster.count(str(file)) < 2:
            assert time.monotonic() < until
            time.sleep(0.1)
        yield str(file)
    finally:
        for process in reversed(running):
            process.terminate()
        for process in running:
            process.wait(60)


def spec(folder: Path) -> Spec:
    return Spec("caloinn", "ds1-photon", "smoke", (), folder, 1)


def at_work(seconds: float) -> tuple[int, str]:
    """Tell which process this is, and which folder it has been set up for."""
    time.sleep(seconds)
    return os.getpid(), str(workers._here().spec.folder)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def refuse(text: str) -> None:
    raise ValueError(text)


def test_tasks_run_on_both_workers(scheduler: str, tmp_path: Path) -> None:
    with dask_cluster.cluster(spec(tmp_path), scheduler) as executor:
        found = [future.result(PATIENCE) for future in [executor.submit(at_work, 0.2) for _ in range(8)]]
    assert len({process for process, _ in found}) == 2
    assert os.getpid() not in {process for process, _ in found}
    assert {folder for _, folder in found} == {str(tmp_path)}


def test_what_a_task_raises_comes_back(scheduler: str, tmp_path: Path) -> None:
    with dask_cluster.cluster(spec(tmp_path), scheduler) as executor:
        with pytest.raises(ValueError, match="odd"):
            executor.submit(refuse, "odd").result(PATIENCE)
        assert executor.submit(abs, -3).result(PATIENCE) == 3


def test_a_task_that_always_kills_its_worker_is_given_up_alone(scheduler: str, tmp_path: Path) -> None:
    with dask_cluster.connected(scheduler) as client:
        executor = dask_cluster._Cluster(client, spec(tmp_path))
        with pytest.raises(WorkerDiedError, match="Dask worker died"):
            executor.submit(die).result(PATIENCE)
        assert executor.submit(abs, -3).result(PATIENCE) == 3


def test_no_scheduler_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_cluster, "SECONDS_TO_CONNECT", "1s")
    with pytest.raises(
        ConfigurationError, match=r"--dask tcp://127.0.0.1:9: no scheduler answers .*scheduler file"
    ):
        dask_cluster.count("tcp://127.0.0.1:9")


def test_missing_library_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_cluster, "find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match=r"pip install 'bitsearch\[dask\]'"):
        dask_cluster.count("tcp://127.0.0.1:9")
