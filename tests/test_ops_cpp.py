"""C++ programs: the example through CMake; libraries for old systems."""

import re
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from cpp_program import HEADERS, ROOT, link, needs_cpp, run
from ternary_layer import Layer

from bitsearch import ops
from bitsearch.cli import main

CMAKE = Path(sys.executable).parent / "cmake"
LAYER = Layer.random(100, 70)
OLDEST = {"GLIBC": (2, 28), "GLIBCXX": (3, 4, 25), "CXXABI": (1, 3, 11)}  # EL8's


@pytest.fixture(scope="module")
def bare_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file without the function body: only the library can run it."""
    path = tmp_path_factory.mktemp("model") / "bare.onnx"
    onnx.save(LAYER.model(portable=False), path)
    return path


@needs_cpp
def test_the_example_gives_the_numbers_of_python(tmp_path: Path, bare_model: Path) -> None:
    for step in (
        (
            CMAKE, "-S", ROOT / "examples/cpp", "-B", tmp_path / "build",
            f"-DCMAKE_PREFIX_PATH={ops.cmake_path()}",
            f"-DBITSEARCH_OPS_LIBRARY={ops.library_path()}",  # an editable install has it elsewhere
            f"-DONNXRUNTIME_INCLUDE={HEADERS[0]}",
            f"-DONNXRUNTIME_LIBRARY={link(tmp_path)}",
        ),
        (CMAKE, "--build", tmp_path / "build"),
    ):  # fmt: skip
        done = run(*step)
        assert done.returncode == 0, done.stdout + done.stderr
    x = np.random.default_rng(0).normal(size=(7, LAYER.K)).astype(np.float32)
    x.tofile(tmp_path / "x")
    done = run(tmp_path / "build/serve", bare_model, tmp_path / "y", tmp_path / "x")
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"490 numbers, \S+ us a call\n", done.stdout)
    np.testing.assert_array_equal(np.fromfile(tmp_path / "y", np.float32).reshape(7, 70), LAYER.expect(x))
    done = run(tmp_path / "build/serve", bare_model, tmp_path / "y", tmp_path / "x", tmp_path / "x")
    assert (done.returncode, done.stderr) == (1, "serve: found 2 inputs, expected 1\n")


@pytest.mark.parametrize("library", [ops.library_path(), ops.preload_path()], ids=lambda path: path.name)
def test_libraries_load_on_old_systems(library: Path) -> None:
    """No symbol is younger than EL8's glibc 2.28 and libstdc++ of gcc 8."""
    names = run("objdump", "-T", library).stdout
    found = re.findall(r"\b(GLIBC|GLIBCXX|CXXABI)_(\d[\d.]*)", names)
    assert found
    for name, version in found:
        assert tuple(map(int, version.split("."))) <= OLDEST[name], f"{library.name} needs {name}_{version}"


@pytest.mark.parametrize(
    ("flag", "ends"),
    [
        ([], "libbitsearch_ops.so"),
        (["--path"], "libbitsearch_ops.so"),
        (["--preload"], "libbitsearch_preload.so"),
        (["--include"], "bitsearch/ops.h"),
        (["--cmake-dir"], "bitsearch-config.cmake"),
    ],
)
def test_the_command_line_says_where_things_are(
    flag: list[str], ends: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ops", *flag]) == 0
    path = Path(capsys.readouterr().out.strip())
    assert str(path).endswith(ends) if path.is_file() else (path / ends).is_file()
