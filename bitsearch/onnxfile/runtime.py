"""Sessions of ONNX Runtime and how long they take."""

import os
import platform
import time
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from bitsearch import ops
from bitsearch.core.measurement import Latency
from bitsearch.onnxfile import chains, graph

MINIMUM_BLOCKS = 3
BLOCK_SECONDS = 0.02
TIMING_SECONDS = 0.3
BUSY = 0.25
"""Share of the other cores that may be busy before times are doubted."""
TICKS = 20
"""A clock of ticks says nothing about fewer."""


def open_session(model: onnx.ModelProto | Path, threads: int = 1) -> onnxruntime.InferenceSession:
    """Open a model with the operator library and `threads` intra-op threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # errors are raised
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


def kernel_of(model: onnx.ModelProto | Path) -> str:
    """Name the kernel that runs a file's ternary layers; empty where it has none."""
    content = onnx.load(model, load_external_data=False) if isinstance(model, Path) else model
    ternary = any(
        chains.is_chain(node)
        or (node.domain == ops.DOMAIN and (node.op_type == "TernaryMatMul" or _has_low_bit_layer(node)))
        for scope in graph.scopes(content)
        for node in scope.graph.node
    )
    return chosen_kernel() if ternary else ""


def _has_low_bit_layer(node: onnx.NodeProto) -> bool:
    """Tell nodes of several layers of which one has a largest 8-bit activation."""
    return any(item.name.startswith("act_qmax") and item.f > 0 for item in node.attribute)


class Load:
    """How busy the cores are that this process leaves to others, since the last time that it was asked."""

    def __init__(self) -> None:
        self._before = _ticks()

    def share(self) -> float | None:
        """Give the busy share of the other cores, 0 to 1, where one of ours has been busy; None if it is not known."""
        before, now = self._before, _ticks()
        self._before = now
        others = (os.cpu_count() or 1) - 1
        if before is None or now is None or not others or now[1] - before[1] < TICKS:
            return None
        busy, every = (after - earlier for after, earlier in zip(now, before, strict=True))
        return min(max(busy / every * (others + 1) - 1, 0.0) / others, 1.0)


def is_busy(load: float | None) -> bool:
    """Tell whether times that are taken at such a load are to be doubted."""
    return load is not None and load > BUSY


def _ticks() -> tuple[float, float] | None:
    """Give the ticks that all cores together were busy, and all that went by."""
    try:
        words = (
            Path("/proc/stat").read_text().split(None, 9)[1:9]
        )  # user nice system idle iowait irq softirq steal
        times = [float(word) for word in words]
    except (OSError, ValueError):
        return None
    return (sum(times) - times[3] - times[4], sum(times)) if len(times) == 8 else None


def block(
    run: Callable[[], object], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Time every run of a block, in seconds."""
    marks = [clock()]
    for _ in range(repeats):
        run()
        marks.append(clock())
    return [after - before for before, after in pairwise(marks)]


def timing_seconds(latency_us: float) -> float:
    """Give how long `time_session` takes in turns with the float file, for files whose runs take so long."""
    return 2 * max(TIMING_SECONDS, (MINIMUM_BLOCKS + 2) * latency_us / 1e6)


def time_session(
    session: onnxruntime.InferenceSession,
    inputs: Mapping[str, NDArray[np.float32]],
    threads: int,
    seconds: float | None = None,
    kernel: str = "",
    beside: onnxruntime.InferenceSession | None = None,
) -> Latency:
    """Time runs in turns with those of the file `beside`: a block of runs each, three at least.

    It takes about `seconds` a file, by default TIMING_SECONDS. The ratio to it is the median of the blocks'.
    """
    seconds = TIMING_SECONDS if seconds is None else seconds
    feed = dict(inputs)
    runs = [partial(item.run, None, feed) for item in (session, beside) if item is not None]
    for run in runs:
        run()
    repeats = [max(1, int(BLOCK_SECONDS / block(run, 1)[0])) for run in runs]
    turns: list[list[list[float]]] = []
    load, end = Load(), time.perf_counter() + seconds * len(runs)
    while len(turns) < MINIMUM_BLOCKS or time.perf_counter() < end:
        turns.append([block(run, count) for run, count in zip(runs, repeats, strict=True)])
    share = load.share()
    times = np.concatenate([own for own, *_ in turns]) * 1e6
    low, median, high = np.percentile(times, [25, 50, 75])
    ratios = [float(np.mean(own) / np.mean(others[0])) for own, *others in turns if others]
    return Latency(
        batch=len(next(iter(feed.values()))),
        threads=threads,
        kernel=kernel,
        median_us=float(median),
        spread_us=float(high - low),
        repeats=len(times),
        ratio=float(np.median(ratios)) if ratios else None,
        load=share,
        busy=is_busy(share),
    )
