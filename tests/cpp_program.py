"""Compile programs against the headers at hand and the onnxruntime that the Python wheel brings, and run them."""

import os
import subprocess
from pathlib import Path

import onnxruntime
import pytest

ROOT = Path(__file__).parents[1]
HEADERS = [
    Path(folder)
    for folder in (
        os.environ.get("ONNXRUNTIME_INCLUDE_DIR", ""),
        ROOT / ".build/onnxruntime/include",
        "/usr/include/onnxruntime",
        "/usr/local/include",
    )
    if folder and (Path(folder) / "onnxruntime_cxx_api.h").exists()
]
RUNTIME = next((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*"), None)
needs_cpp = pytest.mark.skipif(
    not HEADERS or RUNTIME is None, reason="needs onnxruntime's C++ headers and its library in the wheel"
)


def run(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    return subprocess.run(
        [str(word) for word in words], env=os.environ | environment, capture_output=True, text=True
    )


def link(folder: Path, runtime: Path | None = RUNTIME) -> Path:
    """Give an onnxruntime, the wheel's if none is named, under the name that programs look for."""
    assert runtime
    name = folder / "libonnxruntime.so.1"
    name.symlink_to(runtime)
    return name


def build(source: Path, folder: Path, runtime: Path | None = RUNTIME) -> Path:
    """Compile one file; the program takes the onnxruntime beside it, the wheel's if none is named."""
    assert runtime
    program = folder / source.stem
    paths = f"-Wl,-rpath,{folder}:{runtime.parent}"  # old ones are looked for under their whole name
    words = ("g++", "-std=c++17", "-O1", source, f"-I{HEADERS[0]}", link(folder, runtime))
    done = run(*words, paths, "-pthread", "-o", program)
    assert done.returncode == 0, done.stderr
    return program
