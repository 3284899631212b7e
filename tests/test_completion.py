"""The tab key in a real shell."""

import shutil
import subprocess
from pathlib import Path

import pytest

from bitsearch.cli import main
from bitsearch.cli.table import VERBS
from bitsearch.network import catalogue

COMPLETE = """
source completion.bash
COMP_WORDS=({words} "")
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
COMP_WORDS[COMP_CWORD]={start}
_shtab_bitsearch bitsearch {start} ""
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture
def script(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    assert main(["completion", "bash"]) == 0
    file = Path("completion.bash")
    file.write_text(capsys.readouterr().out)
    return file


def completed(words: str, start: str = '""') -> set[str]:
    done = subprocess.run(
        ["bash", "-c", COMPLETE.format(words=f"bitsearch {words}".strip(), start=start)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return set(done.stdout.split("\n")) - {""}


@pytest.mark.usefixtures("script")
def test_bash_completes_verbs_options_and_names() -> None:
    assert {verb.name.split()[0] for verb in VERBS} <= completed("")
    assert completed("", "ter") == {"ternarize"}
    assert completed("data") >= {"make", "check"}
    assert {"--model", "--trials", "--serve"} <= completed("run", "--")
    assert completed("run --device") == {"auto", "cpu", "cuda"}
    assert set(catalogue.names()) <= completed("run --model")


@pytest.mark.usefixtures("script")
def test_bash_completes_files() -> None:
    Path("small.onnx").touch()
    assert completed("inspect", "sm") == {"small.onnx"}
    assert completed("run --model", "sm") == {"small.onnx", "smeftnet"}


def test_other_shells_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["completion", "fish"])
    assert "bash" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh on this machine: its script was not read")
def test_zsh_reads_its_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "zsh"]) == 0
    file = tmp_path / "_bitsearch"
    file.write_text(capsys.readouterr().out)
    subprocess.run(["zsh", "-n", str(file)], check=True)


def test_zsh_script_holds_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "zsh"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("#compdef bitsearch")
    assert all(f"    {verb.name.split()[0]}:" in text for verb in VERBS)
