"""A run folder that processes die in: whole files or none, one writer, a torn line costs only itself."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bitsearch.core.assignment import Assignment
from bitsearch.core.errors import ConfigurationError, RecordError
from bitsearch.core.front import Front
from bitsearch.core.manifest import FORMAT, Manifest, Stage
from bitsearch.core.measurement import Evaluation, Measurement, Metric, Quantity
from bitsearch.core.rundir import RunFolder
from bitsearch.core.strategy import Configuration


def measurement(option: str) -> Measurement:
    digest = Configuration(Assignment({"a": "ternary"}), {"o": option}).digest
    return Measurement(
        digest, "search", {"a": "ternary"}, {"o": option}, 0.5, 0.5, 0.5, "full", 1, {"nll": Quantity(1.0)}
    )


def manifest() -> Manifest:
    return Manifest("net", "toy", "smoke", 1, 5, (Metric("nll", "NLL", "", "minimize", ""),), "nll")


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
    assert [item.options["o"] for item in folder.results()] == ["d0"]
    folder.write_manifest(manifest())
    with folder.locked():
        assert [item.options["o"] for item in folder.results()] == ["d0"]
        folder.append(measurement("d1"))
    assert [item.options["o"] for item in folder.results()] == ["d0", "d1"]


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


def test_fields_of_run_json_are_changed_one_by_one(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert not folder.begun
    folder.write_manifest(manifest())
    folder.update(trials=9, stages=(Stage("data", 1.5),))
    assert folder.manifest() == dataclasses.replace(manifest(), trials=9, stages=(Stage("data", 1.5),))
    assert json.loads((tmp_path / "run.json").read_text())["format"] == FORMAT


def test_results_without_what_they_were_measured_with_are_refused(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.append(measurement("d0"))
    with pytest.raises(ConfigurationError, match=r"holds results\.jsonl without run\.json"), folder.locked():
        pass


def test_what_killed_writers_left_goes(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    left = tmp_path / "work" / ".x.pt.123.unfinished"
    left.write_bytes(b"half")
    with RunFolder(tmp_path).locked():
        assert not left.exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"digest": "0" * 12}, "digest 000000000000 is not that of its assignment"),
        ({"fraction": 7}, "fraction is 7.0, expected 0 to 1"),
        ({"assignment": {"a": "quaternary"}}, "layer a has precision 'quaternary'"),
        ({"seed": "1"}, r"Expected `int`, got `str` - at `\$.seed`"),
        ({"metrics": {"nll": 1.0}}, "Expected `object`, got `float`"),
    ],
)
def test_a_record_that_cannot_be_is_refused_with_its_line(
    tmp_path: Path, change: dict[str, object], words: str
) -> None:
    folder = RunFolder(tmp_path)
    folder.append(measurement("d0"))
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write(json.dumps(json.loads(measurement("d1").to_json()) | change) + "\n")
    with pytest.raises(RecordError, match=f"results.jsonl, line 2.*{words}.*remove the line"):
        folder.results()


def test_front_and_evaluations_come_back(tmp_path: Path) -> None:
    folder, front = RunFolder(tmp_path), Front("nll", (measurement("d0"), measurement("d1")))
    assert folder.front() is None
    folder.write_front(front)
    assert folder.front() == front
    assert [
        item["options"]["o"] for item in json.loads((tmp_path / "front.json").read_text())["members"]
    ] == [
        "d0",
        "d1",
    ]
    evaluation = Evaluation("d0", 5, ())
    assert folder.evaluation("d0") is None
    folder.write_evaluation(evaluation)
    assert folder.evaluation("d0") == evaluation


def test_open_wants_a_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"holds no run.json"):
        RunFolder.open(tmp_path)
    RunFolder(tmp_path).write_manifest(manifest())
    assert RunFolder.open(tmp_path).path == tmp_path


@pytest.mark.parametrize(("bytes_written", "name"), [(100, "x.onnx"), (7, "../x.onnx"), (None, "x.onnx")])
def test_files_that_are_cut_or_elsewhere_are_not_served(
    tmp_path: Path, bytes_written: int | None, name: str
) -> None:
    folder = RunFolder(tmp_path / "run")
    item = dataclasses.replace(measurement("d0"), model=name, size_bytes=7)
    folder.path.mkdir()
    if bytes_written is not None:
        (folder.path / name).write_bytes(bytes(bytes_written))
    assert folder.model_file(item) is None
    (folder.path / "x.onnx").write_bytes(bytes(7))
    found = folder.model_file(dataclasses.replace(item, model="x.onnx"))
    assert found == (folder.path / "x.onnx").resolve()


def test_last_sign_of_life_is_that_of_the_newest_file(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_manifest(manifest())
    os.utime(tmp_path / "run.json", (100, 100))
    assert folder.sign_of_life() == 100
    folder.work.mkdir()
    (folder.work / "c.pt").write_bytes(b"")
    os.utime(folder.work / "c.pt", (200, 200))
    assert folder.sign_of_life() == 200
