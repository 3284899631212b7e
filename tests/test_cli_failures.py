"""Whatever a verb raises ends in one line and an exit status, never in a traceback."""

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bitsearch import cli
from bitsearch.cli import main
from bitsearch.cli.failures import require
from bitsearch.cli.table import VERBS
from bitsearch.core.errors import ConfigurationError, DataError, one_of

Capture = pytest.CaptureFixture[str]
LIST = next(verb for verb in VERBS if verb.name == "list")
CASES: dict[str, tuple[BaseException, int, str]] = {
    "ours": (DataError("a line\n  in two"), 2, "a line in two"),
    "missing": (FileNotFoundError(errno.ENOENT, "No such file or directory", "x.onnx"), 2, "x.onnx: No such file"),
    "full": (OSError(errno.ENOSPC, "No space left on device"), 2, "No space left on device"),
    "bytes": (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), 2, "are not UTF-8 (invalid"),
    "deep": (RecursionError("maximum recursion depth exceeded"), 2, "nested too deeply"),
    "huge": (MemoryError(), 2, "more memory than there is"),
    "torch": (ModuleNotFoundError("No module named 'torch'", name="torch.nn"), 2, "pip install 'bitsearch[search]'"),
    "interrupt": (KeyboardInterrupt(), 130, "interrupted"),
    "slip": (KeyError("layer"), 1, "KeyError: 'layer' (test_cli_failures.py, line "),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_one_line_and_a_status(case: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    error, status, text = CASES[case]

    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr(cli, "VERBS", (replace(LIST, execute=fail),))
    assert main(["list"]) == status
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith("bitsearch list: ")
    assert text in line


def test_traceback_on_demand(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    def fail(_: object) -> None:
        raise KeyError("layer")

    monkeypatch.setattr(cli, "VERBS", (replace(LIST, execute=fail),))
    monkeypatch.setenv("BITSEARCH_TRACEBACK", "1")
    assert main(["list"]) == 1
    assert capsys.readouterr().err.startswith("Traceback")


def test_a_reader_that_leaves_is_no_error() -> None:
    command = [sys.executable, "-m", "bitsearch", "list", "--json"]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, cwd="/")
    os.close(write)
    assert done.stderr == ""
    assert done.returncode == 1


@pytest.mark.parametrize("verb", ["inspect", "verify", "bench", "ternarize"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"text", b"\x08" * 2000], ids=repr)
def test_files_that_are_no_onnx(verb: str, content: bytes, tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "bad.onnx"
    file.write_bytes(content)
    more = ["--out", str(tmp_path / "out.onnx")] if verb == "ternarize" else []
    assert main([verb, str(file), *more]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe", b"[" * 200_000, b'{"a": ' * 100_000, b"null", b'{"a": 1}'],
    ids=["bytes", "list", "nested", "null", "number"],
)
def test_assignments_that_are_none(content: bytes, tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "assignment.json"
    file.write_bytes(content)
    begin = [
        "train",
        "--model",
        "caloinn",
        "--preset",
        "smoke",
        "--out",
        str(tmp_path / "x.pt"),
        "--assignment",
    ]
    assert main([*begin, str(file)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ("lsit", "expected one of list, layers; did you mean list?"),
        ("LAYERS", "expected one of list, layers; did you mean layers?"),
        ("lay", "expected one of list, layers; did you mean layers?"),
        ("xyz", "expected one of list, layers"),
        ("", "expected one of list, layers"),
    ],
)
def test_nearest_name(found: str, expected: str) -> None:
    assert one_of(found, ("list", "layers")) == expected


def test_version(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("bitsearch ")


def test_ops_prints_the_library(capsys: Capture) -> None:
    assert main(["ops"]) == 0
    path = capsys.readouterr().out.strip()
    assert Path(path).is_file()
    assert main(["ops", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["library"] == path


def test_an_extra_that_is_missing_stops_before_anything_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bitsearch.cli.failures.find_spec", lambda name: None if name == "optuna" else name)
    with pytest.raises(ConfigurationError, match=r"^needs optuna, not installed here: pip .*\[search\]"):
        require("search")
