"""Print which runtimes open exported files, how far they agree and how fast they are: docs/hosts.md.

    .venv/bin/python benchmarks/hosts.py [--folder .build/hosts] [--hosts NAME ...] > docs/hosts.md

Networks are those of preset smoke with random weights. Every host is an environment of its own, installed into the
folder at first use by pip or npm. Each file is compared with the newest onnxruntime and the library; times are minima
of five calls on one thread, over the time of the float32 file in the same host.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

from bitsearch import ops
from bitsearch.network import catalogue, export
from bitsearch.onnxfile.inputs import draw
from bitsearch.onnxfile.portable import portable
from bitsearch.onnxfile.runtime import open_session

NETWORKS = {
    "caloinn": ("ds1-photon", "sampler", "all"),
    "calodream": ("ds2", "shape_velocity", "shape-full"),
    "pdat": ("quark-gluon", "classifier", "bit"),
    "smeftnet": ("wz", "angle", "bit"),
}
BATCH = 4
Array = NDArray[np.float32]

ONNXRUNTIME = """
import json, sys, time, numpy as np, onnxruntime
model, feed, out, library = sys.argv[1:]
options = onnxruntime.SessionOptions()
options.intra_op_num_threads, options.log_severity_level = 1, 3
if library != "-":
    options.register_custom_ops_library(library)
session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
def run(feed): return session.run(None, feed)[0]
"""
OPENVINO = """
import json, sys, time, numpy as np, openvino
model, feed, out, library = sys.argv[1:]
settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
compiled = openvino.Core().compile_model(model, "CPU", settings)
def run(feed): return compiled(feed)[compiled.output(0)]
"""
REFERENCE = """
import json, sys, time, numpy as np
from onnx.reference import ReferenceEvaluator
model, feed, out, library = sys.argv[1:]
evaluator = ReferenceEvaluator(model)
def run(feed): return evaluator.run(None, feed)[0]
"""
FINISH = """
feed, times = dict(np.load(feed)), []
for _ in range(5):
    start = time.perf_counter()
    y = run(feed)
    times.append(time.perf_counter() - start)
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
  let best = Infinity, results;
  for (let i = 0; i < 5; i++) {
    const start = performance.now();
    results = await session.run(feeds);
    best = Math.min(best, performance.now() - start);
  }
  const y = results[session.outputNames[0]].data;
  fs.writeFileSync(out, Buffer.from(y.buffer, y.byteOffset, y.length * 4));
  console.log(best / 1000);
})().catch((error) => { console.error(String(error.message || error)); process.exit(1); });
"""


class NotInstalledError(RuntimeError):
    """A host's packages do not exist for this Python or machine."""


@dataclass(frozen=True)
class Host:
    """A runtime in an environment of its own; no packages are this environment's."""

    name: str
    client: str
    packages: tuple[str, ...] = ()
    library: bool = False
    preload: bool = False

    def environment(self, folder: Path) -> Path:
        """Install at first use; give the folder.

        Raises:
            NotInstalledError: pip or npm failed.
        """
        place = folder / "-".join(self.packages).replace("==", "-").replace("@", "-").replace("/", "-")
        if not self.packages or (place / ".installed").exists():
            return place
        place.mkdir(parents=True, exist_ok=True)
        if self.client == NODE and not shutil.which("npm"):
            raise NotInstalledError("found no npm, expected node with npm")
        if self.client == NODE:
            # Without scripts: they fetch libraries for graphics cards.
            words = ["npm", "install", "--ignore-scripts", "--prefix", str(place), *self.packages]
        else:
            words = [sys.executable, "-m", "pip", "install", "-q", "--target", str(place), *self.packages]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            raise NotInstalledError(f"{self.name}: {done.stderr[-500:].strip()}")
        (place / ".installed").touch()
        return place

    def run(self, model: Path, feed: Path, folder: Path) -> tuple[Array, float]:
        """Run a file in the host; give its first output and the seconds of a call.

        Raises:
            RuntimeError: the host refused; the message is its own.
        """
        out = feed.parent / "y.npy"
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
            words = [sys.executable, "-c", self.client + FINISH, str(model), str(feed), str(out), library]
        done = subprocess.run(words, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError((done.stderr.strip().splitlines() or ["no message"])[-1][:200])
        found: Array = np.fromfile(out, np.float32) if self.client == NODE else np.load(out).ravel()
        return found, float(done.stdout.splitlines()[-1])


OLD = ("1.17.1", "1.20.1")
HOSTS = [
    host
    for name, packages in (
        *((version, (f"onnxruntime=={version}", "numpy==1.26.4")) for version in OLD),
        (onnxruntime.__version__, ()),
    )
    for host in (
        Host(f"onnxruntime {name}, library", ONNXRUNTIME, packages, library=True),
        Host(f"onnxruntime {name}", ONNXRUNTIME, packages),
    )
] + [
    Host("onnxruntime-node 1.17.0", NODE, ("onnxruntime-node@1.17.0",)),
    Host("onnxruntime-node 1.17.0, preload", NODE, ("onnxruntime-node@1.17.0",), preload=True),
    Host("onnxruntime-node 1.30.0", NODE, ("onnxruntime-node@1.30.0",)),
    Host("onnxruntime-node 1.30.0, preload", NODE, ("onnxruntime-node@1.30.0",), preload=True),
    Host("onnxruntime-web 1.30.0", NODE, ("onnxruntime-web@1.30.0",)),
    Host("OpenVINO 2026.4.1", OPENVINO, ("openvino==2026.4.1",)),
    Host("onnx.reference", REFERENCE),
]


@dataclass(frozen=True)
class Case:
    """One network's files, an input and what is expected."""

    name: str
    files: dict[str, Path]
    feed: Path
    expected: Array


def case(name: str, folder: Path) -> Case:
    """Export a network with random weights: as float32, ternary, and ternary in standard operators alone."""
    dataset, graph, ternary = NETWORKS[name]
    entry = catalogue.find(name)
    task = entry.task(dataset, "smoke")
    place = folder / "cases" / name
    place.mkdir(parents=True, exist_ok=True)
    files: dict[str, Path] = {}
    strategies = {item.name: item.configuration for item in entry.space(task).strategies}
    for label, strategy in (("float32", next(iter(strategies))), ("ternary", ternary)):
        torch.manual_seed(0)
        configuration = strategies[strategy]
        network = task.network(configuration.options, seed=0).eval()
        with torch.no_grad():
            for parameter in network.parameters():  # some start as zeros, which would agree anywhere
                parameter.add_(0.02 * torch.randn_like(parameter))
        metadata = export.Metadata("hosts", name, dataset, 0.0, {})
        template = export.trace(task.graphs(network)[graph])
        model = export.lower(template, network.state_dict(), configuration.assignment, metadata)
        files[label] = place / f"{label}.onnx"
        onnx.save(model, files[label])
        if label == "ternary":
            files["portable"] = place / "portable.onnx"
            onnx.save(portable(model), files["portable"])
    session = open_session(files["ternary"])
    # Inputs that a network is not made for, such as negative momenta, would make it a chaos of 1e34.
    feed = draw(session, BATCH, known=lambda *_: dict(task.inputs(BATCH, 0)))
    np.savez(place / "feed.npz", **cast(Any, feed))
    (place / "shapes.json").write_text(json.dumps({key: array.shape for key, array in feed.items()}))
    for key, array in feed.items():
        array.tofile(place / f"{key}.bin")
    return Case(name, files, place / "feed.npz", np.asarray(session.run(None, feed)[0]).ravel())


def agreement(found: Array, expected: Array) -> str:
    """Say how far two outputs agree, relative to the largest number."""
    if np.array_equal(found, expected, equal_nan=True):
        return "the same bits"
    return f"{np.nanmax(np.abs(found - expected)) / np.nanmax(np.abs(expected)):.0e}"


def cell(host: Host, made: Case, file: str, folder: Path) -> str:
    """Run one file in one host; give the table's cell."""
    try:
        found, seconds = host.run(made.files[file], made.feed, folder)
        _, float32 = replace(host, library=False, preload=False).run(made.files["float32"], made.feed, folder)
    except RuntimeError as error:
        return f"refused: {str(error).replace('|', ' ')[:60]}"
    return f"{agreement(found, made.expected)}; {float32 / seconds:.1f} x"


def main(words: Sequence[str] | None = None) -> None:
    """Print the matrix."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path(".build/hosts"))
    parser.add_argument("--hosts", nargs="+", metavar="NAME", help="parts of names (default: all)")
    arguments = parser.parse_args(words)
    folder = arguments.folder.resolve()
    chosen = [host for host in HOSTS if any(part in host.name for part in arguments.hosts or [""])]
    cases = [case(name, folder) for name in NETWORKS]
    print(
        "# Hosts\n\n`python benchmarks/hosts.py > docs/hosts.md` prints this page.", __doc__.split("\n\n")[2]
    )
    for file, text in (
        ("ternary", "as exported, with functions"),
        ("portable", "`bitsearch export --portable`: standard operators alone"),
    ):
        print(f"\n## The ternary file {text}\n")
        print("| host |", " | ".join(made.name for made in cases), "|")
        print("|---|" + "---|" * len(cases), flush=True)
        for host in chosen:
            if file == "portable" and (host.library or host.preload):
                continue
            cells = [cell(host, made, file, folder) for made in cases]
            print(f"| {host.name} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
