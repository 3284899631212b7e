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
# From the bottom to the top; a module may import what stands in an earlier row, or in its own package.
LAYERS = (
    ("errors", "precision", "ops", "indexing", "processes"),
    ("assignment",),
    ("strategy",),
    ("records",),
    ("space", "task", "rundir", "pareto"),
    ("onnx_files",),
    ("linear_nodes",),
    ("models", "search_spaces"),
    ("quant", "runtime", "search", "report", "terminal"),
    ("catalogue", "checkpoint", "export", "sensitivity", "training"),
    ("parity",),
    ("laboratory",),
    ("workers",),
    ("pipeline",),
    ("cli",),
    ("testing",),
)
# Tools on ONNX files and what they are made of: they know files, not networks.
FILE_TOOLS = {
    "benchmarking",
    "feeds",
    "inspection",
    "suggestion",
    "ternarize",
    "truths",
    "verification",
}
HEAVY = {
    "torch",
    "optuna",
    "onnxruntime",
    "onnx",
    "onnx_ir",
    "onnxscript",
    "h5py",
    "scipy",
    "sklearn",
    "matplotlib",
    "rich",
    "jinja2",
    "pythia8mc",
    "fastjet",
}
# Third parties by module; what is not named here may import none of HEAVY.
THIRD = {
    "models": {"torch", "h5py", "scipy", "sklearn", "pythia8mc", "fastjet"},
    "ops": {"onnx", "onnxruntime"},
    "indexing": {"torch"},
    "onnx_files": {"onnx"},
    "linear_nodes": {"onnx"},
    "quant": {"torch"},
    "runtime": {"onnx", "onnxruntime"},
    "search": {"optuna"},
    "report": {"matplotlib", "jinja2"},
    "terminal": {"rich"},
    "catalogue": {"torch"},
    "checkpoint": {"torch"},
    "export": {"torch", "onnx", "onnx_ir", "onnxscript"},
    "sensitivity": {"torch"},
    "training": {"torch"},
    "parity": {"torch", "onnx"},
    "laboratory": {"torch", "onnx", "onnxruntime"},
    "workers": {"torch"},
    "pipeline": {"torch"},
    "cli": {"rich"},
    "testing": {"torch", "onnx", "onnxruntime"},
}


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


def rank(part: str) -> int:
    return next(index for index, row in enumerate(LAYERS) if part in row)


KNOWN = {part for row in LAYERS for part in row}


def test_every_module_has_its_place() -> None:
    found = {part_of(module) for module in MODULES} - {""}
    assert found <= KNOWN | FILE_TOOLS
    assert found >= KNOWN


@pytest.mark.parametrize("module", sorted(name for name in MODULES if part_of(name) in KNOWN))
def test_arrows_point_down(module: str) -> None:
    own = part_of(module)
    for imported in imports(MODULES[module]):
        if not imported.startswith("bitsearch.") or part_of(imported) in (own, ""):
            continue
        other = part_of(imported)
        if own == "cli" and other in FILE_TOOLS:
            continue
        # The catalogue finds models and reads their layers.
        if (own, other) == ("catalogue", "quant"):
            continue
        assert other in KNOWN, f"{module} imports {imported}"
        assert rank(other) < rank(own), f"{module} imports {imported}, which stands above or beside it"


@pytest.mark.parametrize("module", sorted(name for name in MODULES if part_of(name) in KNOWN))
def test_heavy_libraries_stay_where_they_belong(module: str) -> None:
    found = {name.split(".")[0] for name in imports(MODULES[module])} & HEAVY
    assert found <= THIRD.get(part_of(module), set())


@pytest.mark.parametrize("module", sorted(name for name in MODULES if part_of(name) == "models"))
def test_networks_know_nothing_of_quantisation(module: str) -> None:
    """An assignment is applied from outside; a model file sees values, tasks and its own field."""
    allowed = {"errors", "indexing", "models", "processes", "records", "task"}
    found = {part_of(name) for name in imports(MODULES[module]) if name.startswith("bitsearch")}
    assert found <= allowed


@pytest.mark.parametrize("module", sorted(name for name in MODULES if part_of(name) == "search_spaces"))
def test_search_spaces_are_values(module: str) -> None:
    found = {part_of(name) for name in imports(MODULES[module]) if name.startswith("bitsearch")}
    assert found <= {"assignment", "precision", "records", "search_spaces", "space", "strategy"}


@pytest.mark.parametrize("module", sorted(name for name in MODULES if part_of(name) == "ops"))
def test_operators_import_nothing_else_of_the_package(module: str) -> None:
    found = {part_of(name) for name in imports(MODULES[module]) if name.startswith("bitsearch")}
    assert found <= {"ops"}


@pytest.mark.parametrize("module", sorted(name for name in MODULES if part_of(name) == "cli"))
def test_verbs_import_what_they_need_only_when_they_run(module: str) -> None:
    """`bitsearch --help` is quick: nothing heavier than the table printer is imported to build the parser."""
    at_once = set(imports(MODULES[module], everywhere=False))
    assert {name.split(".")[0] for name in at_once} & HEAVY <= {"rich"}
    inside = {part_of(name) for name in at_once if name.startswith("bitsearch.")}
    assert inside <= {"cli", "errors"}


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
            "bitsearch, bitsearch.ops, bitsearch.ops.reference, bitsearch.rundir, bitsearch.pareto",
        ),
        (HEAVY - {"optuna"}, "bitsearch.search"),
        (HEAVY - {"matplotlib", "jinja2"}, "bitsearch.report"),
        (HEAVY - {"onnx", "onnxruntime"}, "bitsearch.runtime, bitsearch.search_spaces.caloinn"),
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
