"""Programs that cannot be changed get the operators by `LD_PRELOAD`, in C++ and Python, from onnxruntime 1.17 on."""

import re
import sys
from pathlib import Path
from platform import machine

import numpy as np
import onnx
import onnxruntime
import pytest
from _pytest.mark import ParameterSet
from cpp_program import ROOT, RUNTIME, build, needs_cpp, run
from other_hosts import hosts, installed
from ternary_layer import Layer

from bitsearch import ops

LAYER = Layer.random(100, 70)
SUM = pytest.approx(LAYER.expect(np.ones((3, LAYER.K), np.float32)).sum(dtype=np.float64), rel=1e-7)
NEWEST = onnxruntime.__version__
NODE_MACHINES = {"x86_64": "x64", "aarch64": "arm64"}
PYTHON = """
import sys, threading, numpy as np, onnxruntime as ort
model, threads, *library = sys.argv[1:]
sums = set()
def work():
    options = ort.SessionOptions()
    for path in library * 2:
        options.register_custom_ops_library(path)
    given = [(model, options), (open(model, "rb").read(), options)] + [(model, None)] * (not library)
    for source, settings in given:
        session = ort.InferenceSession(source, settings, providers=["CPUExecutionProvider"])
        (y,) = session.run(None, {"X": np.ones((3, 100), np.float32)})
        sums.add(float(y.sum(dtype=np.float64)))
workers = [threading.Thread(target=work) for _ in range(int(threads))]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
print(ort.__version__, *sums, sep="\\n")
"""
PRELOAD = {"LD_PRELOAD": str(ops.preload_path())}


def old(version: str) -> ParameterSet:
    return pytest.param(version, marks=[pytest.mark.hosts, pytest.mark.slow])


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file without the function body: only the library can run it."""
    path = tmp_path_factory.mktemp("model") / "bare.onnx"
    model = LAYER.model(portable=False)
    model.ir_version = 9  # the newest of onnxruntime 1.17
    onnx.save(model, path)
    return path


def check(printed: str, version: str) -> None:
    """The version asked for, and one sum from all sessions."""
    found, *sums = printed.split()
    assert found == version
    assert [float(line) for line in sums] == [SUM]


def c_library(version: str) -> Path:
    """Find the C library of a version: wheels bring it from 1.20 on, npm's packages before."""
    if version == NEWEST:
        assert RUNTIME
        return RUNTIME
    wheel = "capi/libonnxruntime.so.*"
    node = f"node_modules/onnxruntime-node/bin/*/linux/{NODE_MACHINES[machine()]}/libonnxruntime.so.*"
    for host in hosts.HOSTS:
        if host.name in (f"onnxruntime {version}", f"onnxruntime-node {version}"):
            for found in (*installed(host).glob(f"onnxruntime/{wheel}"), *installed(host).glob(node)):
                return found
    pytest.fail(f"found no C library of onnxruntime {version}")


@needs_cpp
@pytest.mark.parametrize("version", [old("1.17.0"), old("1.20.1"), NEWEST])
def test_cpp_programs(bare: Path, version: str, tmp_path: Path) -> None:
    program = build(ROOT / "tests/native/sessions.cc", tmp_path, c_library(version))
    without = run(program, bare, 1)
    assert without.returncode == 1
    assert "com.bithep" in without.stderr
    for words, more in (([], PRELOAD), ([ops.library_path()], {}), ([ops.library_path()], PRELOAD)):
        done = run(program, bare, 4, *words, **more)
        assert (done.returncode, done.stderr) == (0, "")
        check(done.stdout, version)


@pytest.mark.parametrize("version", [old("1.17.1"), old("1.20.1"), NEWEST])
def test_python_programs(bare: Path, version: str) -> None:
    environment = {}
    if version != NEWEST:
        (host,) = (host for host in hosts.HOSTS if host.name == f"onnxruntime {version}")
        environment = {"PYTHONPATH": str(installed(host))}
    without = run(sys.executable, "-c", PYTHON, bare, 1, **environment)
    assert "com.bithep" in without.stderr
    for words, more in (([], PRELOAD), ([ops.library_path()], {}), ([ops.library_path()], PRELOAD)):
        done = run(sys.executable, "-c", PYTHON, bare, 4, *words, **more, **environment)
        assert (done.returncode, done.stderr) == (0, "")
        check(done.stdout, version)


@needs_cpp
@pytest.mark.parametrize("language", ["C++", "Python"])
def test_it_says_why_it_does_nothing(language: str, tmp_path: Path) -> None:
    """A kernel that does not exist: one line, and the session goes without."""
    cpp = language == "C++"
    program = [build(ROOT / "tests/native/sessions.cc", tmp_path)] if cpp else [sys.executable, "-c", PYTHON]
    model = tmp_path / "portable.onnx"
    onnx.save(LAYER.model(), model)
    done = run(*program, model, 1, BITSEARCH_KERNEL="abacus", **PRELOAD)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == (4 if cpp else 3)  # one a session
    for line in lines:
        assert re.search("bitsearch_preload: a session goes without the operators: .*found 'abacus'", line)


def test_it_leaves_other_programs_alone() -> None:
    """Those without onnxruntime; no library comes with it that a program might want in another version."""
    done = run("/bin/echo", "hello", **PRELOAD)
    assert (done.stdout, done.stderr) == ("hello\n", "")
    needed = re.findall(r"NEEDED +(\S+)", run("objdump", "-p", ops.preload_path()).stdout)
    assert set(needed) == {"libc.so.6", "libdl.so.2"}
    done = run(sys.executable, "-c", "import sys; sys.audit('import'); sys.audit('import', 1, 2)", **PRELOAD)
    assert (done.returncode, done.stderr) == (0, "")
