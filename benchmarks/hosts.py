"""Print which runtimes open exported files, how far they agree and how fast they are: docs/hosts.md.

    .venv/bin/python benchmarks/hosts.py [--preset laptop] [--folder .build/hosts] [--hosts NAME ...] > docs/hosts.md

Networks have random weights, and four events at a time. Every host is an environment of its own, installed into the
folder at first use by pip or npm. A cell says how far a file's output is from that of the newest onnxruntime with the
library (the same bits, or the largest difference over the largest number), and how many times as fast the file is as
the float32 file in the same host without the library: the least processor time of calls on one thread.
"""

import argparse
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

from bitsearch import ops
from bitsearch.network import catalogue, export
from bitsearch.onnxfile.backends import rewrite
from bitsearch.onnxfile.inputs import draw
from bitsearch.onnxfile.portable import portable
from bitsearch.onnxfile.products import Backend
from bitsearch.onnxfile.reproducible import reproducible
from bitsearch.onnxfile.runtime import environment, open_session

NETWORKS = {
    "caloinn": ("ds1-photon", "sampler", "all"),
    "calodream": ("ds2", "shape_velocity", "shape-full"),
    "pdat": ("quark-gluon", "classifier", "bit"),
    "smeftnet": ("wz", "angle", "bit"),
}
BATCH, LARGE_BATCH = 4, 64
REFUSED = "refused: "
SAME = "same bits"
INSTALL_SECONDS = 240  # a registry that does not answer is one that is not there
Array = NDArray[np.float32]

ONNXRUNTIME = """
import json, sys, time, numpy as np, onnxruntime
from concurrent.futures import ThreadPoolExecutor
model, feed, out, library, pattern = sys.argv[1:]
options = onnxruntime.SessionOptions()
options.intra_op_num_threads, options.log_severity_level = 1, 3
if library != "-":
    options.register_custom_ops_library(library)
if pattern == "Par04":
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
def call(feed): return session.run(None, feed)[0]
def run(feed):
    if pattern == "Par04":
        count = len(next(iter(feed.values())))
        return np.concatenate([call({k: v[i : i + 1] for k, v in feed.items()}) for i in range(count)])
    if pattern == "CMSSW":
        with ThreadPoolExecutor(4) as streams:
            first, *others = streams.map(call, [feed] * 4)
        for other in others:
            np.testing.assert_array_equal(other, first)
        return first
    return call(feed)
"""
OPENVINO = """
import json, sys, time, numpy as np, openvino
model, feed, out, *_ = sys.argv[1:]
settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
compiled = openvino.Core().compile_model(model, "CPU", settings)
def run(feed): return compiled(feed)[compiled.output(0)]
"""
REFERENCE = """
import json, sys, time, numpy as np
from onnx.reference import ReferenceEvaluator
model, feed, out, *_ = sys.argv[1:]
evaluator = ReferenceEvaluator(model)
def run(feed): return evaluator.run(None, feed)[0]
"""
FINISH = """
feed, times = dict(np.load(feed)), []
while len(times) < 5 or (sum(times) < 0.2 and len(times) < 100):
    start = time.process_time()
    y = run(feed)
    times.append(time.process_time() - start)
np.save(out, y)
print(json.dumps(min(times)))
"""
NODE = """
const ort = require(process.env.PACKAGE), fs = require('fs');
const [model, folder, out] = process.argv.slice(1);
(async () => {
  const session = await ort.InferenceSession.create(model, {intraOpNumThreads: 1, logSeverityLevel: 3});
  const feeds = {}, shapes = JSON.parse(fs.readFileSync(folder + '/shapes.json'));
  for (const [name, dims] of Object.entries(shapes)) {
    const bytes = fs.readFileSync(`${folder}/${name}.bin`);
    const data = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
    feeds[name] = new ort.Tensor('float32', data, dims);
  }
  let best = Infinity, total = 0, results;
  for (let i = 0; i < 5 || (total < 2e5 && i < 100); i++) {
    const start = process.cpuUsage();
    results = await session.run(feeds);
    const {user, system} = process.cpuUsage(start);
    best = Math.min(best, user + system);
    total += user + system;
  }
  const y = results[session.outputNames[0]].data;
  fs.writeFileSync(out, Buffer.from(y.buffer, y.byteOffset, y.length * 4));
  console.log(best / 1e6);
})().catch((error) => { console.error(String(error.message || error)); process.exit(1); });
"""


class NotInstalledError(RuntimeError):
    """A host's packages do not exist for this Python or machine."""


@dataclass(frozen=True)
class Host:
    """A runtime in an environment of its own; no packages are this environment's.

    `pattern` is whose calls are repeated: one event a call without optimisation (`Par04`), or one session for several
    threads (`CMSSW`).
    """

    name: str
    client: str
    packages: tuple[str, ...] = ()
    library: bool = False
    preload: bool = False
    pattern: str = "-"

    def environment(self, folder: Path) -> Path:
        """Install at first use; give the folder.

        Raises:
            NotInstalledError: pip or npm failed.
        """
        place = folder / "-".join(self.packages).replace("==", "-").replace("@", "-").replace("/", "-")
        if not self.packages or (place / ".installed").exists():
            return place
        place.mkdir(parents=True, exist_ok=True)
        with (place / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (place / ".installed").exists():
                self._install(place)
        return place

    def _install(self, place: Path) -> None:
        if self.client == NODE and not shutil.which("npm"):
            raise NotInstalledError("found no npm, expected node with npm")
        if self.client == NODE:
            # Without scripts: they fetch libraries for graphics cards.
            words = ["npm", "install", "--ignore-scripts", "--prefix", str(place), *self.packages]
        else:
            words = [sys.executable, "-m", "pip", "install", "-q", "--target", str(place), *self.packages]
        try:
            subprocess.run(words, capture_output=True, text=True, check=True, timeout=INSTALL_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise NotInstalledError(f"{self.name}: not installed within {INSTALL_SECONDS} s") from error
        except subprocess.CalledProcessError as error:
            raise NotInstalledError(f"{self.name}: {error.stderr[-500:].strip()}") from error
        (place / ".installed").touch()

    def run(self, model: Path, feed: Path, folder: Path) -> tuple[Array, float]:
        """Run a file in the host; give its first output and the seconds of a call.

        Raises:
            RuntimeError: the host refused; the message is its own.
        """
        with tempfile.TemporaryDirectory() as work:
            return self._run(model, feed, folder, Path(work) / "y.npy")

    def _run(self, model: Path, feed: Path, folder: Path, out: Path) -> tuple[Array, float]:
        place = self.environment(folder)
        environment = os.environ | {"PYTHONPATH": str(place)}
        if self.preload:
            environment["LD_PRELOAD"] = str(ops.preload_path())
        if self.client == NODE:
            package = self.packages[0].rpartition("@")[0] or self.packages[0]
            environment["PACKAGE"] = str(place / "node_modules" / package)
            words = ["node", "-e", NODE, str(model), str(feed.parent), str(out)]
        else:
            library = str(ops.library_path()) if self.library else "-"
            words = [sys.executable, "-c", self.client + FINISH, str(model), str(feed), str(out)]
            words += [library, self.pattern]
        done = subprocess.run(words, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(_reason(done.stderr, done.returncode))
        found: Array = np.fromfile(out, np.float32) if self.client == NODE else np.load(out).ravel()
        return found, float(done.stdout.splitlines()[-1])


def _reason(message: str, status: int) -> str:
    """Give the end of what a host said, without names of classes, signatures and folders."""
    if status < 0:
        return f"ended by signal {-status}"
    (*_, last) = message.strip().splitlines() or ["no message"]
    return re.split(r"\) |\] |Error " if "ONNXRuntimeError" in last else "Error: ", last)[-1].lstrip("- ")


NEWEST = onnxruntime.__version__
VERSIONS = {
    **{version: (f"onnxruntime=={version}", "numpy==1.26.4") for version in ("1.17.1", "1.20.1")},
    NEWEST: (),
}
HOSTS = [
    *(
        host
        for version, packages in VERSIONS.items()
        for host in (
            Host(f"onnxruntime {version}, library", ONNXRUNTIME, packages, library=True),
            Host(f"onnxruntime {version}, preload", ONNXRUNTIME, packages, preload=True),
            Host(f"onnxruntime {version}", ONNXRUNTIME, packages),
        )
    ),
    *(
        host
        for pattern, version in (("Par04", NEWEST), ("CMSSW", "1.20.1"))
        for host in (
            Host(
                f"{pattern}'s calls, preload", ONNXRUNTIME, VERSIONS[version], preload=True, pattern=pattern
            ),
            Host(f"{pattern}'s calls", ONNXRUNTIME, VERSIONS[version], pattern=pattern),
        )
    ),
    Host("onnxruntime-node 1.17.0, preload", NODE, ("onnxruntime-node@1.17.0",), preload=True),
    Host("onnxruntime-node 1.17.0", NODE, ("onnxruntime-node@1.17.0",)),
    Host("onnxruntime-node 1.30.0, preload", NODE, ("onnxruntime-node@1.30.0",), preload=True),
    Host("onnxruntime-node 1.30.0", NODE, ("onnxruntime-node@1.30.0",)),
    Host("onnxruntime-web 1.30.0", NODE, ("onnxruntime-web@1.30.0",)),
    Host("OpenVINO 2026.4.1", OPENVINO, ("openvino==2026.4.1",)),
    Host("onnx.reference", REFERENCE),
]
NEWEST_LIBRARY = next(host for host in HOSTS if host.library and not host.packages)

SOFIE_OPERATORS = """
    Sqrt Reciprocal Neg Exp Log Sin Cos Abs Softplus Atan Floor Add Sub Mul Div Pow Mod Max Min Mean Sum Equal Less
    LessOrEqual Greater GreaterOrEqual IsInf IsNaN Not ReduceMean ReduceSum ReduceSumSquare ReduceProd
    BatchNormalization Constant ConstantOfShape Cast Concat Conv ConvTranspose Gemm GRU Identity LeakyRelu LSTM
    AveragePool GlobalAveragePool MaxPool Relu Reshape Flatten Squeeze Unsqueeze RNN Gelu Selu Shape Sigmoid Swish
    Slice Softmax LogSoftmax Tanh Transpose MatMul LayerNormalization Expand Gather GatherND Erf Elu HardSigmoid
    HardSwish EyeLike Range TopK Tile Split If InstanceNormalization Pad Where Einsum RandomNormal RandomNormalLike
    RandomUniform RandomUniformLike ScatterElements ScatterND NonZero Clip
"""
"""What ROOT's SOFIE registers in tmva/sofie_parsers/src/RModelParser_ONNX.cxx at commit 80ab68e26ed3."""
FILES = {
    "ternary": "as exported, with functions",
    "reproducible": "by `bitsearch export --reproducible`: one order of all operations",
    "portable": "by `bitsearch export --portable`: standard operators alone",
    **{
        str(backend): f"by `--backend {backend}`"
        for backend in Backend
        if backend not in (Backend.TERNARY, "float32")
    },
}


@dataclass(frozen=True)
class Case:
    """One network's files, an input and what is expected."""

    name: str
    files: dict[str, Path]
    feed: Path
    outputs: dict[str, Array]

    def expected(self, file: str) -> Array:
        """Give what the newest onnxruntime and the library make of it; another order of operations is another file."""
        return self.outputs["reproducible" if file == "reproducible" else "ternary"]


def case(name: str, folder: Path, preset: str = "smoke") -> Case:
    """Export a network with random weights: as float32 in standard operators alone, and ternary in every form."""
    dataset, graph, ternary = NETWORKS[name]
    entry = catalogue.find(name)
    task = entry.task(dataset, preset)
    place = folder / "cases" / f"{name}-{preset}"
    place.mkdir(parents=True, exist_ok=True)
    files = {name: place / f"{name}.onnx" for name in ("float32", *FILES)}
    strategies = {item.name: item.configuration for item in entry.space(task).strategies}
    traces: dict[str, onnx.ModelProto] = {}
    for label, strategy in (("float32", next(iter(strategies))), ("ternary", ternary)):
        torch.manual_seed(0)
        configuration = strategies[strategy]
        network = task.network(configuration.options, seed=0).eval()
        with torch.no_grad():
            for parameter in network.parameters():  # some start as zeros, which would agree anywhere
                parameter.add_(0.02 * torch.randn_like(parameter))
        metadata = export.Metadata("hosts", name, dataset, 0.0, {})
        options = repr(configuration.options)
        if options not in traces:
            traces[options] = export.trace(task.graphs(network)[graph])
        model = export.lower(traces[options], network.state_dict(), configuration.assignment, metadata)
        onnx.save(portable(model) if label == "float32" else model, files[label])
    onnx.save(portable(model), files["portable"])
    onnx.save(reproducible(model), files["reproducible"])
    for backend in FILES.keys() & set(Backend):
        onnx.save(rewrite(model, backend), files[backend])
    sessions = {label: open_session(files[label]) for label in ("ternary", "reproducible")}
    # Inputs that a network is not made for, such as negative momenta, would make it a chaos of 1e34.
    feed = draw(sessions["ternary"], BATCH, known=lambda *_: dict(task.inputs(BATCH, 0)))
    np.savez(place / "feed.npz", **cast(Any, feed))
    (place / "shapes.json").write_text(json.dumps({key: array.shape for key, array in feed.items()}))
    for key, array in feed.items():
        array.tofile(place / f"{key}.bin")
    outputs = {label: np.asarray(session.run(None, feed)[0]).ravel() for label, session in sessions.items()}
    return Case(name, files, place / "feed.npz", outputs)


def agreement(found: Array, expected: Array) -> str:
    """Say how far two outputs agree, relative to the largest number."""
    if np.array_equal(found, expected, equal_nan=True):
        return SAME
    return f"{np.nanmax(np.abs(found - expected)) / np.nanmax(np.abs(expected)):.0e}"


def cell(host: Host, made: Case, file: str, folder: Path, float32: dict[tuple[Host, str], float]) -> str:
    """Run one file in one host; give the table's cell."""
    bare = replace(host, name="", library=False, preload=False)
    try:
        found, seconds = host.run(made.files[file], made.feed, folder)
    except NotInstalledError:
        return "not installed"
    except RuntimeError as error:
        return f"{REFUSED}{error}"
    if (bare, made.name) not in float32:
        try:
            _, float32[bare, made.name] = bare.run(made.files["float32"], made.feed, folder)
        except RuntimeError:
            float32[bare, made.name] = float("nan")
    ratio = float32[bare, made.name] / seconds
    return f"{agreement(found, made.expected(file))}, " + (
        "float32 refused" if np.isnan(ratio) else f"{ratio:.1f}\N{NO-BREAK SPACE}x"
    )


def takes(host: Host, file: str) -> bool:
    """Tell whether a row says something: the library is for files as exported, other backends are onnxruntime's own."""
    if file in ("ternary", "reproducible"):
        return True
    plain = not (host.library or host.preload)
    return plain and (file == "portable" or (host.client == ONNXRUNTIME and host.pattern == "-"))


def bits(made: Case, file: str, folder: Path) -> dict[str, str]:
    """Say for one file which of kernels, threads, batch and version of onnxruntime changes its bits, and how far."""
    path = made.files[file]
    session = open_session(path)
    given = dict(np.load(made.feed))
    feed = {name: np.concatenate([value] * (LARGE_BATCH // BATCH)) for name, value in given.items()}

    def outputs(session: onnxruntime.InferenceSession, feed: dict[str, Array]) -> Array:
        return np.asarray(session.run(None, feed)[0])

    expected = outputs(session, feed)
    kernels = []
    for kernel in ops.kernels():
        if kernel.usable:
            with patch.dict(os.environ, BITSEARCH_KERNEL=kernel.name):
                kernels.append(outputs(open_session(path), feed))
    rows = [outputs(session, {k: v[i : i + 1] for k, v in feed.items()}) for i in range(LARGE_BATCH)]
    versions, small = [], outputs(session, given)
    for version in VERSIONS.keys() - {NEWEST}:
        (host,) = (host for host in HOSTS if host.name == f"onnxruntime {version}, library")
        with suppress(RuntimeError):
            versions.append(host.run(path, made.feed, folder)[0])
    return {
        f"{len(kernels)} kernels": _worst(kernels, expected),
        "1 or 2 threads": _worst([outputs(open_session(path, 2), feed)], expected),
        f"batch {LARGE_BATCH} or {LARGE_BATCH} times 1": _worst([np.concatenate(rows)], expected),
        "versions of onnxruntime": _worst(versions, small) + f" ({1 + len(versions)})",
    }


def _worst(found: Sequence[Array], expected: Array) -> str:
    distances = [agreement(array.ravel(), expected.ravel()) for array in found]
    return max((item for item in distances if item != SAME), key=float, default=SAME)


def missing_in_sofie(path: Path) -> list[str]:
    """Name the operators of a file that SOFIE does not register."""
    return sorted({node.op_type for node in onnx.load(path).graph.node} - set(SOFIE_OPERATORS.split()))


def main(words: Sequence[str] | None = None) -> None:
    """Print the matrix."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="laptop")
    parser.add_argument("--folder", type=Path, default=Path(".build/hosts"))
    parser.add_argument("--hosts", nargs="+", metavar="NAME", help="parts of names (default: all)")
    parser.add_argument(
        "--jobs", type=int, default=1, help="files at a time (more disturb each other's times)"
    )
    arguments = parser.parse_args(words)
    folder = arguments.folder.resolve()
    chosen = [host for host in HOSTS if any(part in host.name for part in arguments.hosts or [""])]
    cases = [case(name, folder, arguments.preset) for name in NETWORKS]
    facts = ", ".join(f"{key} {value}" for key, value in environment().items())
    networks = ", ".join(
        f"{name} `{ternary}` ({graph}, {dataset})" for name, (dataset, graph, ternary) in NETWORKS.items()
    )
    print(f"# Hosts\n\n{INTRODUCTION}\n\n{__doc__.split(GAP)[2]}")
    print(f"Networks: {networks}, preset `{arguments.preset}`. Machine: {facts}.")
    float32: dict[tuple[Host, str], float] = {}
    for file, text in FILES.items():
        print(f"\n## The ternary file {text}\n\n| host |", " | ".join(made.name for made in cases), "|")
        print("|---|" + "---|" * len(cases), flush=True)
        refusals: dict[str, int] = {}
        for host in chosen:
            if not takes(host, file):
                continue
            with ThreadPoolExecutor(arguments.jobs) as pool:
                cells = list(pool.map(partial(cell, host, file=file, folder=folder, float32=float32), cases))
            print(
                f"| {host.name} |", " | ".join(_numbered(text, refusals) for text in cells), "|", flush=True
            )
        if refusals:
            print("\nWhat those said:\n")
        for reason, number in refusals.items():
            print(f"{number}. `{reason}`")
    print(f"\n## Bits\n\n{BITS}\n")
    for number, (made, file) in enumerate((made, file) for made in cases for file in ("float32", *FILES)):
        found = bits(made, file, folder)
        if not number:
            print("| network | file |", " | ".join(found), "|\n|" + "---|" * (2 + len(found)))
        print(f"| {made.name} | {file} |", " | ".join(found.values()), "|", flush=True)
    print(f"\n## ROOT's SOFIE\n\n{SOFIE_TEXT}\n\n| network | missing |\n|---|---|")
    for made in cases:
        print(f"| {made.name} |", ", ".join(missing_in_sofie(made.files["portable"])) or "none", "|")


def _numbered(text: str, refusals: dict[str, int]) -> str:
    """Put a number for the reason of a refusal."""
    if not text.startswith(REFUSED):
        return text
    reason = text.removeprefix(REFUSED).replace("`", "'")
    return f"refused ({refusals.setdefault(reason, len(refusals) + 1)})"


GAP = "\n\n"
INTRODUCTION = f"""Which runtime takes which of the files that `bitsearch export` writes, how far they agree there, and
how fast they are. *Library* means that the host registers `libbitsearch_ops.so`, *preload* that it does not know of it
and is started with `LD_PRELOAD=$(bitsearch ops --preload)`. Par04's calls, in onnxruntime {NEWEST}, switch optimisation
off and give one event at a time; CMSSW's, in 1.20.1, share one session among threads.
`python benchmarks/hosts.py > docs/hosts.md` prints this page."""
BITS = """With the library: outputs of the same inputs in two ways, as far from each other as above. The operators of
bitsearch give the same bits in every row; what differs are onnxruntime's float operators, such as its ReduceSum, whose
order of additions depends on the batch. Files of `--reproducible` have none of them. How many versions run the file
stands in brackets."""
SOFIE_TEXT = f"""ROOT turns files into C++ for {len(SOFIE_OPERATORS.split())} operators
([its parser](https://github.com/root-project/root/blob/80ab68e26ed3/tmva/sofie_parsers/src/RModelParser_ONNX.cxx) at
commit 80ab68e26ed3), without custom ones or functions. Portable files hold others, so that SOFIE refuses them:"""


if __name__ == "__main__":
    main()
