"""Disks that fill up, folders and databases that go while a search runs: one line, status 2, and it continues."""

import errno
import multiprocessing.synchronize
import os
import resource
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import onnx_files
import pytest
from test_search import BASELINES, ORIGINS, World, on_disk

from bitsearch.cli import main
from bitsearch.core import atomic, processes
from bitsearch.core.errors import BitsearchError, ConfigurationError
from bitsearch.core.measurement import Measurement
from bitsearch.core.rundir import RunFolder
from bitsearch.models import writing
from bitsearch.models.showers import generator
from bitsearch.network import workers
from bitsearch.onnxfile.judge import Judge
from bitsearch.run import files, storage
from bitsearch.run.search import search

Capture = pytest.CaptureFixture[str]
Change = Callable[[Path], object]
WHOLE = 3 + 3 + 3


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let every file end at `size` bytes, as on a full disk, where the system says EFBIG in place of ENOSPC."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A search of three whole files, three single layers and three trials, without what follows it."""
    monkeypatch.setattr(files._Search, "_keep", lambda *_: None)
    monkeypatch.setattr("bitsearch.report.build", lambda folder: folder.report / "index.html")
    onnx_files.classifier(tmp_path / "model.onnx")
    onnx_files.events(tmp_path / "events.npz")
    place = [str(tmp_path / name) for name in ("model.onnx", "events.npz", "run")]
    return ["search", place[0], "--data", place[1], "--out", place[2], "--trials", "3"]


@pytest.fixture
def in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep studies in memory, where a test is about the other files: results.jsonl is what continues."""
    monkeypatch.setattr(files._Search, "_storage", None)


@pytest.fixture
def at_the_fifth(monkeypatch: pytest.MonkeyPatch) -> Callable[[Change], None]:
    """Let something happen to the run folder while the fifth configuration is measured."""

    def plan(change: Change) -> None:
        count, measure = 0, Judge.measure

        def measured(self: Judge, model: Any) -> Any:
            nonlocal count
            count += 1
            if count == 5:
                change(Path("run"))
            return measure(self, model)

        monkeypatch.setattr(Judge, "measure", measured)

    return plan


def ends_in_one_line(words: list[str], capsys: Capture) -> str:
    assert main(words) == 2
    errors = capsys.readouterr().err.splitlines()
    (line,) = [line for line in errors if line.startswith("bitsearch search: ")]
    assert errors[-1] == line
    return line


def goes_on(words: list[str], before: list[Measurement]) -> None:
    assert main(words) == 0
    after = RunFolder(words[5]).results()
    assert after[: len(before)] == before
    assert len({item.digest for item in after}) == len(after) == WHOLE


@pytest.mark.parametrize("size", [0, 3000, 110_000])
def test_a_full_disk_is_one_line_and_loses_nothing(
    words: list[str], capsys: Capture, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a disk on which not even run.json fits to one that only the study fills."""
    if size < 100_000:
        monkeypatch.setattr(files._Search, "_storage", None)
    with largest_file(size):
        line = ends_in_one_line(words, capsys)
    assert "File too large" in line or "disk" in line
    folder = RunFolder(words[5])
    assert not list(folder.path.rglob(f"*{atomic.UNFINISHED}"))
    goes_on(words, folder.results() if folder.begun else [])


@pytest.mark.usefixtures("in_memory")
def test_a_full_disk_while_a_line_is_written_names_the_file(
    words: list[str], capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of a line is on disk when it fills up."""
    count, sync = 0, os.fsync

    def fsync(descriptor: int) -> None:
        nonlocal count
        if Path(f"/proc/self/fd/{descriptor}").readlink().name == "results.jsonl":
            count += 1
            if count == 4:
                os.ftruncate(descriptor, os.fstat(descriptor).st_size - 20)
                raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        line = ends_in_one_line(words, capsys)
    assert line == f"bitsearch search: {words[5]}/results.jsonl: No space left on device"
    before = RunFolder(words[5]).results()
    assert len(before) == 3
    goes_on(words, before)


@pytest.mark.usefixtures("in_memory")
def test_a_folder_that_becomes_read_only(
    words: list[str], capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tests may run as root, whom permissions do not stop: a file system that has become read-only is played."""
    opened, count = Path.open, 0

    def refuse(self: Path, mode: str = "r", *more: Any, **keywords: Any) -> Any:
        nonlocal count
        count += self.name == "results.jsonl" and mode == "a"
        if count > 4 and mode in ("a", "wb"):
            raise OSError(errno.EROFS, "Read-only file system", str(self))
        return opened(self, mode, *more, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        line = ends_in_one_line(words, capsys)
    assert line == f"bitsearch search: {words[5]}/results.jsonl: Read-only file system"
    before = RunFolder(words[5]).results()
    assert len(before) == 4
    goes_on(words, before)


@pytest.mark.usefixtures("in_memory")
@pytest.mark.parametrize("how", ["removed", "moved", "made again"])
def test_a_folder_that_goes_is_not_made_anew(
    words: list[str], at_the_fifth: Callable[[Change], None], capsys: Capture, how: str
) -> None:
    out = Path(words[5])

    def change(_: Path) -> None:
        out.rename(out.with_name("elsewhere"))
        if how == "removed":
            shutil.rmtree(out.with_name("elsewhere"))
        elif how == "made again":
            out.mkdir()

    at_the_fifth(change)
    line = ends_in_one_line(words, capsys)
    assert f"{out} was removed or moved while a run was writing to it" in line
    assert out.exists() == (how == "made again")
    assert not list(out.glob("*"))
    if how == "moved":
        out.with_name("elsewhere").rename(out)
        before = RunFolder(out).results()
        assert len(before) == 4
        goes_on(words, before)


def damage(file: Path) -> None:
    with file.open("r+b") as stream:
        stream.write(b"\0" * file.stat().st_size)


STUDIES: dict[str, tuple[Change, str]] = {
    "damaged": (damage, "file is not a database|malformed|no such table"),
    "emptied": (lambda file: file.write_bytes(b""), "no such table|malformed|disk I/O"),
}


@pytest.mark.parametrize("how", STUDIES)
def test_a_study_that_breaks_is_one_line_and_can_be_removed(
    words: list[str], at_the_fifth: Callable[[Change], None], capsys: Capture, how: str
) -> None:
    change, reason = STUDIES[how]
    study = Path(words[5], "study.db")
    at_the_fifth(lambda _: change(study))
    line = ends_in_one_line(words, capsys)
    assert f"the storage sqlite:///{study} has failed (" in line
    assert any(part in line for part in reason.split("|")), line
    before = RunFolder(words[5]).results()
    assert len(before) >= 4
    study.unlink()
    goes_on(words, before)


def test_a_locked_study_is_one_line(
    words: list[str], at_the_fifth: Callable[[Change], None], capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "SECONDS_LOCKED", 0.2)
    held = []

    def lock(_: Path) -> None:
        held.append(sqlite3.connect(Path(words[5], "study.db"), isolation_level=None))
        held[0].execute("BEGIN EXCLUSIVE")

    at_the_fifth(lock)
    assert "has failed ((sqlite3.OperationalError) database is locked)" in ends_in_one_line(words, capsys)
    held[0].close()
    before = RunFolder(words[5]).results()
    assert len(before) == 5
    goes_on(words, before)


def test_a_read_only_study_is_one_line(words: list[str], capsys: Capture, tmp_path: Path) -> None:
    study = tmp_path / "study.db"
    assert main([*words, "--storage", f"sqlite:///{study}"]) == 0
    more = ["--storage", f"sqlite:///file:{study}?mode=ro&uri=true", "--trials", "6"]
    before = RunFolder(words[5]).results()
    capsys.readouterr()
    line = ends_in_one_line([*words, *more], capsys)
    assert "(sqlite3.OperationalError) attempt to write a readonly database" in line
    assert RunFolder(words[5]).results() == before


class Later(Executor):
    """Five measurements end at once, and the first says that the disk is full."""

    def __init__(self) -> None:
        self.futures: list[Future[Any]] = []
        self.tasks: list[Callable[[], Any]] = []

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **keywords: Any) -> Future[Any]:
        self.futures.append(Future())
        if len(self.futures) < 5:
            self.tasks.append(partial(function, *arguments, **keywords))
            return self.futures[-1]
        for future, task in zip(self.futures[1:], self.tasks[1:], strict=False):
            future.set_result(task())
        self.futures[0].set_exception(OSError(errno.ENOSPC, "No space left on device"))
        return self.futures[-1]


def test_what_was_measured_beside_a_failure_is_kept(tmp_path: Path) -> None:
    world, study = World(), on_disk(tmp_path)
    study.enqueue(BASELINES)
    with pytest.raises(OSError, match="No space left"):
        search(study, world.measure, 9, {}, world.recorded.append, ORIGINS, Later(), 4)
    assert {item.digest for item in world.recorded} == {*world.measured}
    assert len(world.recorded) == 3


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.ENOENT, errno.ENOSYS])
def test_without_shared_memory_processes_side_by_side_are_refused_in_one_line(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(multiprocessing.synchronize._multiprocessing, "SemLock", refuse)  # type: ignore[attr-defined]
    with (
        pytest.raises(ConfigurationError, match=rf"/dev/shm \({os.strerror(number)}\).*or give --workers 1"),
        workers.workers(None, 2),  # type: ignore[arg-type]
    ):
        pass
    with pytest.raises(ConfigurationError, match="mount it or make room"), processes.processes(1, abs):
        pass


@pytest.mark.parametrize("size", [0, 2000, 30_000])
def test_data_that_do_not_fit_on_the_disk_leave_nothing(tmp_path: Path, size: int) -> None:
    out = tmp_path / "photon.h5"
    with largest_file(size), pytest.raises(BitsearchError, match="cannot be written"):
        generator.make("ds1-photon", 50, 3, out, workers=1)
    assert list(tmp_path.iterdir()) == []
    with (
        largest_file(size // 10),
        pytest.raises(BitsearchError, match="cannot be written"),
        writing.replacing(out) as partial,
    ):
        partial.write_bytes(b"a" * 4000)
    assert list(tmp_path.iterdir()) == []
