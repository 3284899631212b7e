"""The examples of docs/cluster.md: shell and Python parse, and `bitsearch` knows every option they use."""

import ast
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from bitsearch.cli import parser
from bitsearch.run.storage import DRIVERS

PAGE = (Path(__file__).parents[1] / "docs" / "cluster.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"bitsearch run (?:[^\n]*\\\n)*[^\n`]*", PAGE)


def blocks(language: str) -> list[str]:
    return [text for name, text in BLOCKS if name == language]


@pytest.mark.parametrize("script", blocks("bash"))
def test_shell_parses(script: str) -> None:
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


@pytest.mark.parametrize("script", blocks("python"))
def test_python_parses(script: str) -> None:
    ast.parse(script)


def test_condor_file_names_its_commands() -> None:
    """Every line of a submit file is `name = value`, a comment, or `queue`."""
    (text,) = blocks("condor")
    names = {line.partition("=")[0].strip() for line in text.splitlines() if "=" in line}
    assert {"executable", "arguments", "request_cpus", "output", "error", "log"} <= names
    assert [line for line in text.splitlines() if "=" not in line] == ["queue 8"]


def test_slurm_options_come_before_the_first_command() -> None:
    """sbatch stops reading at the first line that is no comment."""
    (script,) = [text for text in blocks("bash") if "#SBATCH" in text]
    lines = script.splitlines()
    first = next(index for index, line in enumerate(lines) if line and not line.startswith("#"))
    assert lines[0] == "#!/bin/bash"
    assert not any(line.startswith("#SBATCH") for line in lines[first:])


@pytest.mark.parametrize("command", [command for command in COMMANDS if "--" in command])
def test_commands_are_accepted(command: str) -> None:
    words = shlex.split(re.sub(r"\$\(\w+\)|\$\{?\w+\}?", "1", command.replace("\\\n", " ")).rstrip("&"))
    arguments = parser().parse_args(words[1:])
    assert arguments.model == "caloinn"
    assert arguments.storage is None or arguments.storage.split("://")[0] in DRIVERS


def test_every_storage_is_listed() -> None:
    for kind in ("postgresql", "mysql", "grpc", "journal", "sqlite"):
        assert re.search(rf"^\| `{kind}:", PAGE, re.MULTILINE)
