"""Run a file every way that may change its bits: kernels, threads, batch splits, versions of onnxruntime."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bitsearch import ops
from bitsearch.core.errors import ConfigurationError, ExportError
from bitsearch.onnxfile import inputs
from bitsearch.onnxfile.inputs import Feed

BATCH = 12
THREADS = range(1, 9)
SPLITS = (BATCH, 1, 5)
"""Events a run; a file of a fixed batch runs whole."""

# It runs in other environments too, which have onnxruntime and numpy alone. A NaN has one form here: which of its
# bits are set is the processor's choice.
WORKER = """
import hashlib, json, os, sys
import numpy as np
import onnxruntime
task = json.loads(sys.argv[1])
with np.load(task["inputs"]) as stored:
    feed = {name: stored[f"arr_{i}"] for i, name in enumerate(task["names"])}
for kernel in task["kernels"]:
    os.environ["BITSEARCH_KERNEL"] = kernel
    for threads in task["threads"]:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = threads
        # Threads that spin would wait for cores which the machine may not have.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.register_custom_ops_library(task["library"])
        session = onnxruntime.InferenceSession(task["file"], options, providers=["CPUExecutionProvider"])
        for split in task["splits"]:
            parts = [
                session.run(None, {name: array[i : i + split] for name, array in feed.items()})
                for i in range(0, task["batch"], split)
            ]
            content = hashlib.sha256()
            for outputs in zip(*parts):
                whole = np.ascontiguousarray(np.concatenate([np.atleast_1d(item) for item in outputs]))
                if whole.dtype.kind == "f":
                    whole = np.where(np.isnan(whole), np.array(np.nan, whole.dtype), whole)
                content.update(whole.tobytes())
            print(json.dumps([onnxruntime.__version__, kernel, threads, split, content.hexdigest()]), flush=True)
"""


@dataclass(frozen=True)
class Run:
    """One way to run a file, and the SHA-256 of what came out: all outputs of all events, in order."""

    onnxruntime: str
    kernel: str
    threads: int
    split: int
    digest: str


def runs(
    path: Path,
    runtimes: Sequence[Path] = (),
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
    known: inputs.Known | None = None,
    threads: Sequence[int] | None = None,
) -> tuple[Run, ...]:
    """Run a file on the same events with every kernel of this processor, `threads` (1 to 8) and batch splits.

    `runtimes` are virtual environments, or their Pythons, that hold other versions of onnxruntime.

    Raises:
        ExportError: the file cannot be opened, here or by another onnxruntime.
        ConfigurationError: an environment holds no Python.
    """
    session = inputs.open_file(path)
    fixed = inputs.fixed_batch(session)
    batch = BATCH if fixed is None else fixed
    feed = inputs.draw(session, batch, seed, sizes, known)
    task = {
        "file": str(path),
        "library": str(ops.library_path()),
        "names": list(feed),
        "batch": batch,
        "kernels": [kernel.name for kernel in ops.kernels() if kernel.usable],
        "threads": list(threads or THREADS),
        "splits": SPLITS if fixed is None else [batch],
    }
    pythons = [Path(sys.executable), *map(_python, runtimes)]
    return tuple(run for python in pythons for run in _runs(python, task, feed))


def _python(environment: Path) -> Path:
    python = environment / "bin" / "python" if environment.is_dir() else environment
    if not python.is_file():
        raise ConfigurationError(
            f"--runtime {environment}: found no Python there; expected a virtual environment with onnxruntime"
        )
    return python


def _runs(python: Path, task: Mapping[str, object], feed: Feed) -> list[Run]:
    with tempfile.TemporaryDirectory() as folder:
        stored = Path(folder) / "inputs.npz"
        np.savez(stored, *feed.values())
        given = json.dumps({**task, "inputs": str(stored)})
        done = subprocess.run([python, "-c", WORKER, given], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ExportError(f"{python} does not run {task['file']}: {reason}")
    return [Run(*json.loads(line)) for line in done.stdout.splitlines()]
