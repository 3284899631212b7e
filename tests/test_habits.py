"""The files around the code agree with it."""

import re
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()


def test_versions_agree() -> None:
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.search(rf"^version: {re.escape(PROJECT['version'])}$", citation, re.MULTILINE)
    assert re.search(rf"^license: {PROJECT['license']}$", citation, re.MULTILINE)
    assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text()


def test_paths_that_contributors_are_sent_to_exist() -> None:
    names = re.findall(
        r"`((?:bitsearch|models|ops|search_spaces|tests|benchmarks|docs)/[\w./]*)`", CONTRIBUTING
    )
    assert len(names) > 10
    for name in names:
        if "NAME" not in name and "ISA" not in name:
            assert (ROOT / name).exists(), name


def test_targets_that_contributors_run_exist() -> None:
    rules = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make(?: PYTHON=\S+)? ([\w-]+)`", CONTRIBUTING)) <= rules


def test_commits_that_contributors_look_at_exist() -> None:
    """A clone without history, as of a source archive, has nothing to look at."""
    found = re.findall(r"\b[0-9a-f]{7}\b", CONTRIBUTING)
    assert found
    inside = subprocess.run(
        ["git", "rev-parse", "--is-shallow-repository"], cwd=ROOT, capture_output=True, text=True
    )
    if inside.stdout.strip() != "false":
        return
    for commit in found:
        subprocess.run(["git", "cat-file", "-e", f"{commit}^{{commit}}"], cwd=ROOT, check=True)
