"""Sessions of ONNX Runtime and how long they take."""

import os
import platform
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from bitsearch import ops
from bitsearch.core.measurement import Latency

MINIMUM_REPEATS = 3
MAXIMUM_REPEATS = 200
TIMING_SECONDS = 0.3


def open_session(model: onnx.ModelProto | Path, threads: int = 1) -> onnxruntime.InferenceSession:
    """Open a model with the operator library and `threads` intra-op threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    source = model if isinstance(model, Path) else model.SerializeToString()
    return ops.session(source, sess_options=options)


def chosen_kernel() -> str:
    """Name the kernel that sessions made now use."""
    return next(kernel.name for kernel in ops.kernels() if kernel.chosen)


def environment() -> dict[str, Any]:
    """Describe the processor, the kernel and the versions of what serves a model."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "kernel": chosen_kernel(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("bitsearch", "onnx", "onnxruntime")},
    }


def timing_seconds(latency_us: float) -> float:
    """Give how long `time_session` takes for a file whose runs take so long."""
    return max(TIMING_SECONDS, (MINIMUM_REPEATS + 1) * latency_us / 1e6)


def time_session(
    session: onnxruntime.InferenceSession,
    inputs: Mapping[str, NDArray[np.float32]],
    threads: int,
    seconds: float = TIMING_SECONDS,
) -> Latency:
    """Run at least three times and for about `seconds`; give the median and the interquartile range in µs."""
    feed = dict(inputs)
    session.run(None, feed)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < MINIMUM_REPEATS or (time.perf_counter() < end and len(times) < MAXIMUM_REPEATS):
        begin = time.perf_counter()
        session.run(None, feed)
        times.append((time.perf_counter() - begin) * 1e6)
    low, median, high = np.percentile(times, [25, 50, 75])
    return Latency(
        batch=len(next(iter(feed.values()))),
        threads=threads,
        kernel=chosen_kernel(),
        median_us=float(median),
        spread_us=float(high - low),
        repeats=len(times),
    )
