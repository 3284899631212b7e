"""A wheel built from the sdist serves a model with numpy, onnx and onnxruntime alone."""

import os
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import onnx
import pytest
from packaging.requirements import Requirement
from ternary_layer import Layer
from test_cli_bare import PROJECT, help_is_printed, outcomes, works_or_names_the_extra

from bitsearch.cli.table import VERBS

SERVE = """
import sys
from importlib.util import find_spec
import numpy as np
from bitsearch import ops
assert not any(map(find_spec, ("torch", "optuna", "scipy"))), sys.path
session = ops.session(sys.argv[1])
x = np.load(sys.argv[2])
np.save(sys.argv[3], session.run(None, {"X": x})[0])
assert "site" in str(ops.library_path()), ops.library_path()
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Path:
    """Build the sdist, and the wheel from it; return their folder."""
    folder = tmp_path_factory.mktemp("dist")
    headers = pytestconfig.rootpath / ".build/onnxruntime/include"
    environment = os.environ | ({"ONNXRUNTIME_INCLUDE_DIR": str(headers)} if headers.exists() else {})
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder)]
    done = subprocess.run(command, cwd=pytestconfig.rootpath, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    return folder


def link_dependencies(names: list[str], folder: Path) -> None:
    """Link the installed distributions and what they need, and nothing else, into a folder."""
    folder.mkdir()
    seen: set[str] = set()
    while names:
        name = names.pop()
        if name in seen:
            continue
        seen.add(name)
        found = distribution(name)
        for top in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
            if not (folder / top).exists():
                (folder / top).symlink_to(str(found.locate_file(top)))
        needed = map(Requirement, found.requires or ())
        names += [each.name for each in needed if each.marker is None or each.marker.evaluate({"extra": ""})]


@pytest.mark.slow
def test_distributions_hold_what_they_should(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"pyproject.toml", "ops/CMakeLists.txt", "ops/parallel.h", "bitsearch/py.typed"} <= names
    assert not {name for name in names if name.startswith((".venv", ".build", ".ci", "runs"))}
    (wheel,) = built.glob("*.whl")
    assert "-py3-none-" in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {f"bitsearch/{name}/__init__.py" for name in ("models", "ops", "search_spaces")} <= names
    assert "bitsearch/ops/libbitsearch_ops.so" in names
    assert {f"bitsearch/cli/{name}.txt" for name in ("new", "new_space")} <= names
    assert not {name for name in names if name.endswith(".h5")}
    assert wheel.stat().st_size < 1_500_000
    operators = {"__init__.py", "reference.py", "function.py", "README.md"}
    folders = ("ternary_matmul", "ternary_chain", "monotone_spline", "message_passing", "reproducible")
    for folder in (*folders, "select_columns"):
        found = {name.rpartition("/")[2] for name in names if name.startswith(f"bitsearch/ops/{folder}/")}
        assert found == operators
    sources = {name for name in names if name.endswith((".cc", ".h", ".map", "CMakeLists.txt", ".pyc"))}
    assert sources == {"bitsearch/ops/include/bitsearch/ops.h"}
    assert {
        f"bitsearch/ops/{name}" for name in ("libbitsearch_preload.so", "cmake/bitsearch-config.cmake")
    } <= names
    assert not {name for name in names if "fetch_headers" in name}


@pytest.fixture(scope="module")
def path(built: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Install the wheel without extras: give the search path of a process that is started with -S."""
    folder = tmp_path_factory.mktemp("bare")
    (wheel,) = built.glob("*.whl")
    site, needed = folder / "site", folder / "needed"
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True)
    link_dependencies([Requirement(text).name for text in PROJECT["dependencies"]], needed)
    return f"{site}:{needed}"


@pytest.mark.slow
def test_wheel_serves_without_torch(path: str, tmp_path: Path) -> None:
    layer = Layer.random(100, 70)
    x = np.random.default_rng(1).normal(size=(5, 100)).astype(np.float32)
    onnx.save(layer.model(), tmp_path / "model.onnx")
    np.save(tmp_path / "x.npy", x)
    # -S: no site-packages, so that nothing but what is linked can be imported.
    done = subprocess.run(
        [sys.executable, "-S", "-c", SERVE, "model.onnx", "x.npy", "y.npy"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), layer.expect(x))


@pytest.mark.slow
def test_every_verb_of_the_wheel_without_extras(path: str, tmp_path: Path) -> None:
    found = outcomes(tmp_path, (), "-S", PYTHONPATH=path)
    for verb in VERBS:
        help_is_printed(found, verb)
        works_or_names_the_extra(found, verb)
