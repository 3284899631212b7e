"""Run folders with damaged files: one clear line, whatever stands in them."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from synthetic_run import complete

from bitsearch.cli import main
from bitsearch.core.errors import BitsearchError
from bitsearch.core.rundir import RunFolder
from bitsearch.report import view

CONTENTS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "truncated": lambda text: text[: len(text) // 2],
    "list": lambda _: b"[]\n",
    "number": lambda _: b"3\n",
    "mark": lambda text: b"\xef\xbb\xbf" + text,
    "nul": lambda text: b"\0" * 8 + text,
    "junk": lambda _: b"junk\n",
    "not UTF-8": lambda text: text.replace(b'"', b'"\xff', 1),
    "nested": lambda _: b'{"assignment":' * 100_000 + b"\n",
    "blank line": lambda text: b"\n" + text,
    "huge number": lambda text: text.replace(b": 1", b": 1e999", 1),
}
FILES = ["run.json", "results.jsonl", "front.json", "evaluation"]


def read_everything(folder: RunFolder) -> None:
    """Read all that any verb reads."""
    run = view.read(folder)
    run.shown()


def evaluation_of(folder: Path) -> Path:
    front = json.loads((folder / "front.json").read_text())
    return folder / "evaluation" / f"{front['members'][0]['digest']}.json"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return complete(tmp_path_factory.mktemp("damage") / "run").path


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


@pytest.mark.parametrize("how", CONTENTS)
@pytest.mark.parametrize("name", FILES)
def test_damaged_content_is_named_in_one_line(copy: Path, name: str, how: str) -> None:
    file = evaluation_of(copy) if name == "evaluation" else copy / name
    before = file.read_bytes()
    file.write_bytes(CONTENTS[how](before))
    try:
        read_everything(RunFolder(copy))
    except BitsearchError as error:
        assert "\n" not in str(error)  # noqa: PT017
        assert file.name in str(error)  # noqa: PT017
    else:
        # A torn end is what a killed process leaves; JSON may begin with white space.
        assert (how, name) in {
            ("empty", "results.jsonl"),
            ("truncated", "results.jsonl"),
            ("blank line", "run.json"),
            ("blank line", "front.json"),
            ("blank line", "evaluation"),
            ("huge number", "evaluation"),
        }


def places(value: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """List where a JSON value can be changed."""
    found = [path]
    if isinstance(value, dict):
        for key, inner in value.items():
            found += places(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value[:2]):
            found += places(inner, (*path, index))
    return found


WRONG = [None, True, -1, 1.5, "text", "", [], {}, [None], {"x": 1}]


@pytest.mark.parametrize("name", FILES)
def test_any_value_replaced_or_removed_ends_in_a_line_or_in_numbers(copy: Path, name: str) -> None:
    """150 changes a file, one value each."""
    file = evaluation_of(copy) if name == "evaluation" else copy / name
    before = file.read_text()
    rng = random.Random(name)
    lines = before.splitlines() if name == "results.jsonl" else [before]
    refused = 0
    for _ in range(150):
        index = rng.randrange(len(lines))
        raw = json.loads(lines[index])
        *way, last = rng.choice(places(raw)[1:])
        inner = raw
        for step in way:
            inner = inner[step]
        if rng.random() < 0.3 and isinstance(inner, dict):
            del inner[last]
        else:
            inner[last] = rng.choice(WRONG)
        changed = [*lines[:index], json.dumps(raw), *lines[index + 1 :]]
        file.write_text("\n".join(changed) + "\n")
        try:
            read_everything(RunFolder(copy))
        except BitsearchError as error:
            assert file.name in str(error)  # noqa: PT017
            refused += 1
    assert refused > 50


@pytest.mark.parametrize("verb", ["status", "report"])
@pytest.mark.parametrize("name", ["run.json", "results.jsonl", "front.json"])
def test_verbs_say_it_in_one_line(
    copy: Path, capsys: pytest.CaptureFixture[str], name: str, verb: str
) -> None:
    (copy / name).write_text("junk\n")
    assert main([verb, str(copy)]) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert f"{name}" in errors
    assert "is damaged (JSON is malformed" in errors
