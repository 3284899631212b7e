"""Arrows point down: which module may import which, and what runs without the heavy libraries."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {
    "bitsearch": "bitsearch",
    "models": "bitsearch.models",
    "ops": "bitsearch.ops",
    "search_spaces": "bitsearch.search_spaces",
}
# From the bottom to the top: a module may import its own wing and those before it, as the row says.
WINGS = {
    "core": set(),
    "ops": set(),
    "onnxfile": {"core", "ops"},
    "models": {"core"},
    "search_spaces": {"core"},
    "network": {"core", "ops", "onnxfile", "models", "search_spaces"},
    "report": {"core"},
    "run": {"core", "onnxfile", "network", "report"},
    "cli": {"core", "ops", "onnxfile", "models", "network", "report", "run"},
    "__main__": {"cli"},
    "quant": {"core", "network"},
    "testing": {"core", "ops", "onnxfile", "network", "cli"},
}
# Third parties by wing.
THIRD = {
    "core": set(),
    "ops": {"onnx", "onnxruntime"},
    "onnxfile": {"onnx", "onnx_ir", "onnxruntime"},
    "models": {"torch", "h5py", "scipy", "sklearn", "pythia8mc", "fastjet"},
    "search_spaces": set(),
    "network": {"torch", "onnx", "onnx_ir", "onnxruntime", "onnxscript"},
    "report": {"matplotlib", "jinja2"},
    "run": {"torch", "optuna", "rich"},
    "cli": {"rich"},
    "__main__": set(),
    "quant": set(),
    "testing": {"torch", "onnx", "onnxruntime"},
}
HEAVY = set().union(*THIRD.values())


def modules() -> Iterator[tuple[str, Path]]:
    """Give every Python file with its module name."""
    for folder, package in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            yield ".".join((package, *(part for part in parts if part != "__init__"))), path


MODULES = dict(modules())


def part_of(module: str) -> str:
    """Name the row entry that a module belongs to: `bitsearch.cli.runs` is of `cli`."""
    pieces = module.split(".")
    return pieces[1] if len(pieces) > 1 else ""


def imports(path: Path, everywhere: bool = True) -> Iterator[str]:
    """Give the modules that a file imports; with `everywhere` also inside of functions, never for types alone."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree) if everywhere else tree.body:
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            yield from (
                f"{node.module}.{alias.name}" if f"{node.module}.{alias.name}" in MODULES else node.module
                for alias in node.names
            )


INSIDE = sorted(name for name in MODULES if part_of(name))


def test_every_module_has_its_place() -> None:
    assert {part_of(module) for module in INSIDE} == set(WINGS)


@pytest.mark.parametrize("module", INSIDE)
def test_arrows_point_down(module: str) -> None:
    own = part_of(module)
    found = {part_of(name) for name in imports(MODULES[module]) if name.split(".")[0] == "bitsearch"}
    assert found <= WINGS[own] | {own, ""}


def test_no_wing_imports_one_above() -> None:
    order = list(WINGS)
    for wing, below in WINGS.items():
        assert {order.index(name) < order.index(wing) for name in below} <= {True}


@pytest.mark.parametrize("module", INSIDE)
def test_heavy_libraries_stay_where_they_belong(module: str) -> None:
    found = {name.split(".")[0] for name in imports(MODULES[module])} & HEAVY
    assert found <= THIRD[part_of(module)]


@pytest.mark.parametrize("module", [name for name in INSIDE if part_of(name) == "models"])
def test_networks_know_nothing_of_quantisation(module: str) -> None:
    """An assignment is applied from outside."""
    forbidden = ("bitsearch.core.assignment", "bitsearch.core.precision", "bitsearch.core.strategy")
    assert not [name for name in imports(MODULES[module]) if name.startswith(forbidden)]


@pytest.mark.parametrize("module", [name for name in INSIDE if part_of(name) == "cli"])
def test_verbs_import_what_they_need_only_when_they_run(module: str) -> None:
    """`bitsearch --help` is quick: nothing heavier than the table printer is imported to build the parser."""
    at_once = set(imports(MODULES[module], everywhere=False))
    assert {name.split(".")[0] for name in at_once} & HEAVY <= {"rich"}
    inside = {part_of(name) for name in at_once if name.startswith("bitsearch.")}
    assert inside <= {"cli", "core"}


BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked}:
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Block())
import {modules}
"""
ALL_BUT = HEAVY - {"rich"}


@pytest.mark.parametrize(
    ("blocked", "names"),
    [
        (
            HEAVY - {"onnx", "onnxruntime"},
            "bitsearch, bitsearch.ops, bitsearch.ops.reference, bitsearch.core.rundir, bitsearch.core.pareto",
        ),
        (HEAVY - {"optuna"}, "bitsearch.run.search"),
        (HEAVY - {"onnx", "onnxruntime", "optuna", "matplotlib", "jinja2", "rich"}, "bitsearch.run.files"),
        (HEAVY - {"matplotlib", "jinja2"}, "bitsearch.report"),
        (HEAVY - {"onnx", "onnxruntime"}, "bitsearch.onnxfile.runtime, bitsearch.search_spaces.caloinn"),
        (HEAVY - {"rich"}, "bitsearch.cli"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_imports_without_the_rest(blocked: set[str], names: str) -> None:
    # Optuna itself looks for what it can use; torch and onnxruntime are what a study must resume without.
    code = BLOCK.format(
        blocked=sorted({"torch", "onnxruntime", "onnx"} & blocked if "search" in names else blocked),
        modules=names,
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["models", "ops", "search_spaces"])
def test_bare_folders_do_not_import(name: str) -> None:
    done = subprocess.run([sys.executable, "-c", f"import {name}"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"found the bare folder '{name}': install bitsearch and import bitsearch.{name}" in done.stderr
