"""`new` writes a pair that runs as it is, and never writes over anything."""

import json
from pathlib import Path
from typing import ClassVar

import pytest

from bitsearch.cli import main
from bitsearch.testing import Contract


class TestWritten(Contract):
    """The pair keeps the contract as it is."""

    dataset: ClassVar[str | None] = None
    data: ClassVar[tuple[Path, ...]] = ()

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def written(cls, tmp_path_factory: pytest.TempPathFactory) -> None:
        folder = tmp_path_factory.mktemp("new")
        assert main(["new", "tagger", "--out", str(folder)]) == 0
        cls.model = str(folder / "tagger.py")


def test_files_are_named_and_stand_in_a_new_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "some" / "folder"
    assert main(["new", "my_tagger", "--out", str(folder)]) == 0
    written = [folder / "my_tagger.py", folder / "my_tagger_space.py"]
    assert capsys.readouterr().out.splitlines() == [str(file) for file in written]
    assert sorted(folder.iterdir()) == written
    for file in written:
        text = file.read_text()
        compile(text, file.name, "exec")
        assert "my_tagger" in text
        assert "NAME" not in text
        assert "CHANGE" in text
        assert len(text.splitlines()) < 60


def test_the_folder_is_the_current_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new", "tagger"]) == 0
    assert {file.name for file in tmp_path.iterdir()} == {"tagger.py", "tagger_space.py"}


@pytest.mark.parametrize("there", ["tagger.py", "tagger_space.py"])
def test_nothing_is_overwritten(there: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / there).write_text("mine")
    assert main(["new", "tagger", "--out", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path / there} is there already" in line
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {there: "mine"}


@pytest.mark.parametrize("name", ["", "7up", "my-tagger", "tagger.py", "../tagger", "a b", "class", "nul\0"])
def test_names_that_python_cannot_import_are_refused(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["new", name, "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"bitsearch new: {name!r} cannot name a Python file; expected letters")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_pair_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new", "tagger"]) == 0
    words = "run --model tagger.py --preset smoke --trials 3 --out run --device cpu --workers 1"
    assert main(words.split()) == 0
    results = [json.loads(line) for line in Path("run/results.jsonl").read_text().splitlines()]
    assert {f"baseline:{name}" for name in ("float32", "body", "all")} <= {
        result["origin"] for result in results
    }
