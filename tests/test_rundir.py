"""A run folder that processes die in: whole files or none, one writer, a torn line costs only itself."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bitsearch.core.errors import ConfigurationError
from bitsearch.core.measurement import Evaluation, Measurement, Quantity
from bitsearch.core.rundir import RunFolder, write_atomically


def measurement(digest: str) -> Measurement:
    return Measurement(
        digest, "search", {"a": "ternary"}, {}, 0.5, 0.5, 0.5, "full", 1, {"nll": Quantity(1.0)}
    )


def test_results_come_back_in_order(tmp_path: Path) -> None:
    folder, items = RunFolder(tmp_path), [measurement(f"d{i}") for i in range(3)]
    assert folder.results() == []
    for item in items:
        folder.append(item)
    assert folder.results() == items
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    "torn", ['{"dig', "{", measurement("d9").to_json()], ids=["start", "brace", "no newline"]
)
def test_torn_last_line_is_dropped(tmp_path: Path, torn: str) -> None:
    folder = RunFolder(tmp_path)
    folder.append(measurement("d0"))
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write(torn)
    assert [item.digest for item in folder.results()] == ["d0"]
    with folder.locked():
        assert [item.digest for item in folder.results()] == ["d0"]
        folder.append(measurement("d1"))
    assert [item.digest for item in folder.results()] == ["d0", "d1"]


def test_second_writer_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    hold = (
        "import sys; from bitsearch.core.rundir import RunFolder\n"
        "with RunFolder(sys.argv[1]).locked():\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-P", "-c", hold, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(ConfigurationError, match=f"another run is writing to {tmp_path}"),
            RunFolder(tmp_path).locked(),
        ):
            pass
        holder.kill()
    with RunFolder(tmp_path).locked():
        assert (tmp_path / ".lock").is_file()


@pytest.mark.parametrize("content", ["text", b"bytes"])
def test_atomic_write_makes_folders_and_leaves_nothing_beside(tmp_path: Path, content: str | bytes) -> None:
    file = tmp_path / "new" / "file.json"
    for _ in range(2):
        write_atomically(file, content)
    assert file.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert list(file.parent.iterdir()) == [file]


def test_interrupted_write_keeps_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file.json"
    write_atomically(file, "old")

    def fail(self: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(file, "new")
    assert file.read_text() == "old"


def test_settings_are_merged(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.settings() == {}
    folder.update({"a": 1, "b": 2})
    folder.update({"b": 3})
    assert folder.settings() == {"a": 1, "b": 3}
    assert json.loads((tmp_path / "run.json").read_text()) == {"a": 1, "b": 3}


def test_front_and_evaluations_come_back(tmp_path: Path) -> None:
    folder, front = RunFolder(tmp_path), [measurement("d0"), measurement("d1")]
    assert folder.front() == []
    folder.write_front(front)
    assert folder.front() == front
    assert [item["digest"] for item in json.loads((tmp_path / "front.json").read_text())] == ["d0", "d1"]
    evaluation = Evaluation("d0", 5, ())
    assert folder.evaluation("d0") is None
    folder.write_evaluation(evaluation)
    assert folder.evaluation("d0") == evaluation


def test_open_wants_a_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"holds no run.json"):
        RunFolder.open(tmp_path)
    RunFolder(tmp_path).update({})
    assert RunFolder.open(tmp_path).path == tmp_path
