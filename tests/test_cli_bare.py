"""What every verb does where nothing but numpy, onnx, onnxruntime and rich is installed."""

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import onnx
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from ternary_layer import Layer, dense

from bitsearch.cli.failures import EXTRAS
from bitsearch.cli.table import VERBS, Verb

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
CALLS = {
    "run": "--model caloinn",
    "report": "run",
    "watch": "run",
    "compare": "run other",
    "status": "run",
    "new": "tagger",
    "list": "",
    "strategies": "--model caloinn",
    "layers": "--model caloinn",
    "data make": "ds1-photon --out made.h5",
    "data check": "text",
    "train": "--model caloinn --strategy all --out trained.pt",
    "export": "text --out made.onnx",
    "ternarize": "float.onnx --out small.onnx",
    "search": "float.onnx --data data.npz --out found",
    "inspect": "layer.onnx",
    "verify": "layer.onnx",
    "bench": "layer.onnx --batch 1 --blocks 2",
    "diff": "layer.onnx layer.onnx",
    "evaluate": "layer.onnx --model caloinn",
    "suggest": "--model caloinn --target-fraction 0.5",
    "completion": "bash",
    "ops": "",
}
SCRIPT = """
import contextlib, io, json, sys
blocked = set(sys.argv[1].split())
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in blocked:
            raise ModuleNotFoundError("No module named " + repr(name), name=name)
sys.meta_path.insert(0, Block())
from bitsearch.cli import main
found = {}
for command in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(command.split())
        except SystemExit as error:
            status = error.code
    found[command] = status, out.getvalue(), err.getvalue()
json.dump(found, sys.stdout)
"""


def outcomes(folder: Path, blocked: Iterable[str], *flags: str, **environment: str) -> dict[str, Any]:
    """Give status, output and errors of every verb's help and of a call of each, from a process of their own."""
    (folder / "text").write_text("text")
    onnx.save(dense(8), folder / "float.onnx")
    (folder / "layer.onnx").write_bytes(Layer.random(12, 8).model().SerializeToString())
    commands = [f"{verb.name} {rest}".strip() for verb in VERBS for rest in ("--help", CALLS[verb.name])]
    done = subprocess.run(
        [sys.executable, "-P", *flags, "-c", SCRIPT, " ".join(blocked)],
        input=json.dumps(commands),
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def help_is_printed(found: dict[str, Any], verb: Verb) -> None:
    status, out, err = found[f"{verb.name} --help"]
    assert (status, err) == (0, "")
    assert out.startswith(f"usage: bitsearch {verb.name}")


def works_or_names_the_extra(found: dict[str, Any], verb: Verb) -> None:
    status, out, err = found[f"{verb.name} {CALLS[verb.name]}".strip()]
    if verb.name == "status":
        assert (status, out) == (2, "")
        assert "run holds no run.json" in err
    elif verb.extra:
        assert (status, out) == (2, "")
        assert err.startswith(f"bitsearch {verb.name}: needs ")
        assert err.endswith(f"pip install 'bitsearch[{verb.extra}]'\n")
        assert err.count("\n") == 1
    else:
        assert status == 0, err
        assert out


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Run all in one process that cannot import what the extras bring."""
    return outcomes(tmp_path_factory.mktemp("bare"), EXTRAS["search"] + EXTRAS["completion"])


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_help_needs_nothing(bare: dict[str, Any], verb: Verb) -> None:
    help_is_printed(bare, verb)


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_call_works_or_names_the_extra(bare: dict[str, Any], verb: Verb) -> None:
    works_or_names_the_extra(bare, verb)


def test_list_names_everything_without_torch(bare: dict[str, Any]) -> None:
    out = bare["list"][1]
    assert all(word in out for word in ("caloinn", "ds1-pion", "launch-script", "shape-full", "portable"))


def test_modules_of_the_extras_are_those_of_the_project() -> None:
    def required(extra: str) -> set[str]:
        if extra == "bitsearch":
            return set()
        names: set[str] = set()
        for text in PROJECT["optional-dependencies"][extra]:
            item = Requirement(text)
            inner = set().union(*map(required, item.extras)) if item.name == "bitsearch" else {item.name}
            names |= {canonicalize_name(name) for name in inner}
        return names

    modules = packages_distributions()
    for extra in ("completion", "data", "files", "search"):
        found = {canonicalize_name(modules[name][0]) for name in EXTRAS[extra]}
        assert found == required(extra)
