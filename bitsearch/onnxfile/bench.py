"""Time ONNX files side by side in one process: interleaved blocks of runs, so that all meet the same machine."""

import json
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from bitsearch import ops
from bitsearch.core.errors import ConfigurationError, ExportError
from bitsearch.onnxfile import energy, graph, inputs, runtime

PROFILED_RUNS = 20
BATCHES = (1, 100, 1000)

MEMORY = """
import json
import sys
import numpy as np
from bitsearch.onnxfile import runtime
from pathlib import Path

def peak(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

with np.load(sys.argv[2]) as stored:
    feed = {name: stored[f"arr_{i}"] for i, name in enumerate(json.loads(sys.argv[4]))}
before = peak("VmRSS")
session = runtime.open_session(Path(sys.argv[1]), int(sys.argv[3]))
session.run(None, feed)
print(max(peak("VmHWM") - before, 0))
"""


@dataclass(frozen=True)
class Contender:
    """A file to time under a name of its own."""

    name: str
    path: Path


@dataclass(frozen=True)
class Timing:
    """Wall time of one `session.run` in µs over blocks of runs: least, median and interquartile range.

    `p99_us` is the 99th percentile of single runs. `finite` is the share of output numbers that are; `speedup` is how
    many times faster than the first contender, by medians. `energy_uj` is the energy of one run, as `energy_source`
    of the benchmark says.
    """

    name: str
    batch: int
    threads: int
    minimum_us: float
    median_us: float
    spread_us: float
    p99_us: float
    events_per_second: float
    speedup: float
    finite: float
    blocks: int
    energy_uj: float | None = None


@dataclass(frozen=True)
class Footprint:
    """Size on disk, time to open, how far memory rose from before that to its peak at the largest batch.

    `kernel` runs its ternary layers, empty where there are none. `profile` gives the share of the time that each kind
    of operator takes, where that was asked for.
    """

    name: str
    size_bytes: int
    peak_memory_bytes: int | None
    load_ms: float = 0.0
    kernel: str = ""
    profile: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Benchmark:
    """Timings of all contenders at all batches, and on what they were taken.

    `load` is the share of the other cores that was busy meanwhile, None where it is not known; the times of a `busy`
    machine are to be doubted, their ratios less so.
    """

    timings: tuple[Timing, ...]
    footprints: tuple[Footprint, ...]
    environment: Mapping[str, Any]
    energy_source: str = ""
    load: float | None = None
    busy: bool = False


def bench(
    files: Sequence[Contender],
    batches: Sequence[int] = BATCHES,
    threads: int = 1,
    blocks: int = 15,
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
    known: inputs.Known | None = None,
    given: Path | None = None,
    profile: bool = False,
    clock: Callable[[], float] = time.perf_counter,
) -> Benchmark:
    """Time all contenders on the same inputs; a fixed batch in the first file replaces `batches`.

    `given` is a file of inputs to take as they are instead of drawn ones. `time.thread_time` as `clock` leaves out
    what other processes take from a busy machine, and counts one thread alone.

    Raises:
        ConfigurationError: the files do not take the same inputs.
        ExportError: a file cannot be read.
    """
    sessions, load_ms = {}, {}
    for item in files:
        begin = time.perf_counter()
        sessions[item.name] = inputs.open_file(item.path, threads)
        load_ms[item.name] = (time.perf_counter() - begin) * 1e3
    signatures = {name: _signature(session) for name, session in sessions.items()}
    first, *others = signatures
    for name in others:
        if signatures[name] != signatures[first]:
            raise ConfigurationError(
                f"{name} takes {signatures[name]} and {first} takes {signatures[first]}; expected the same inputs"
            )
    feeds = _feeds(sessions[first], batches, seed, sizes, known, given)
    meter = energy.Meter({item.name: item.path for item in files})
    load = runtime.Load()
    timings = [
        timing
        for batch, feed in feeds
        for timing in _compare(sessions, feed, batch, threads, blocks, meter, clock)
    ]
    share = load.share()
    _, feed = max(feeds, key=lambda pair: pair[0])
    footprints = tuple(
        replace(
            _footprint(item, feed, threads),
            load_ms=load_ms[item.name],
            kernel=runtime.kernel_of(item.path),
            profile=_profile(item.path, feed, threads) if profile else None,
        )
        for item in files
    )
    busy = runtime.is_busy(share)
    return Benchmark(tuple(timings), footprints, runtime.environment(), meter.source, share, busy)


def _feeds(
    session: onnxruntime.InferenceSession,
    batches: Sequence[int],
    seed: int,
    sizes: Mapping[str, int] | None,
    known: inputs.Known | None,
    given: Path | None,
) -> list[tuple[int, inputs.Feed]]:
    """Give the inputs of every batch size; of a file its first batch."""
    if given is not None:
        feed = inputs.fit(session, next(inputs.load(given)), given)
        return [(next((len(item) for item in feed.values() if item.ndim), 1), feed)]
    fixed = inputs.fixed_batch(session)
    return [
        (batch, inputs.draw(session, batch, seed, sizes, known))
        for batch in (batches if fixed is None else (fixed,))
    ]


def _profile(path: Path, feed: inputs.Feed, threads: int) -> dict[str, float]:
    """Let onnxruntime time its operators; give each kind's share."""
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = ops.session(path, sess_options=options)
        for _ in range(PROFILED_RUNS):
            session.run(None, feed)
        events = json.loads(Path(session.end_profiling()).read_text())
    times: dict[str, float] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            kind = event["args"]["op_name"]
            times[kind] = times.get(kind, 0.0) + event["dur"]
    total = sum(times.values()) or 1.0
    return {kind: times[kind] / total for kind in sorted(times, key=lambda kind: -times[kind])}


def contenders(paths: Sequence[Path]) -> list[Contender]:
    """Name files by their stems, and by their paths where stems repeat."""
    stems = [path.stem for path in paths]
    names = [path.stem if stems.count(path.stem) == 1 else str(path) for path in paths]
    if len(set(names)) < len(names):
        raise ConfigurationError(f"found a file twice among {', '.join(names)}; expected different ones")
    return [Contender(name, path) for name, path in zip(names, paths, strict=True)]


def quantized_to_int8(given: Sequence[Contender], folder: Path) -> Contender:
    """Let onnxruntime quantise the first float file dynamically to 8 bits, its usual way to a faster model.

    Raises:
        ConfigurationError: every file holds `com.bithep` layers.
        ExportError: onnxruntime fails.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    for item in given:
        model = graph.read(item.path)
        if runtime.kernel_of(model):
            continue
        # onnxruntime transposes weights without their noted shapes, and then refuses its own work.
        del model.graph.value_info[:]
        out = folder / f"{item.path.stem}-int8.onnx"
        try:
            with _quiet():
                quantize_dynamic(model, out, weight_type=QuantType.QInt8)
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ExportError(
                f"onnxruntime cannot quantise {item.path} ({reason}); leave out --int8"
            ) from error
        return Contender(f"{item.name} int8", out)
    names = ", ".join(item.name for item in given)
    raise ConfigurationError(
        f"--int8 quantises a float file and {names} hold TernaryMatMul; expected a float one, as FILE or --against"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep onnxruntime's advice on pre-processing off the terminal."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)


def _compare(
    sessions: Mapping[str, onnxruntime.InferenceSession],
    feed: inputs.Feed,
    batch: int,
    threads: int,
    blocks: int,
    meter: energy.Meter,
    clock: Callable[[], float],
) -> list[Timing]:
    """Take turns, a block of runs each; the first block of everyone warms up and is not counted."""
    runs: dict[str, Callable[[], list[Any]]] = {
        name: partial(session.run, None, feed) for name, session in sessions.items()
    }
    try:
        finite = {name: _finite(run()) for name, run in runs.items()}
    except Exception as error:
        reason = str(error).splitlines()[0]
        shapes = {name: array.shape for name, array in feed.items()}
        raise ExportError(
            f"a file cannot be run on inputs of shapes {shapes}: {reason}; --size sets the size of a free axis"
        ) from error
    repeats = {
        name: max(1, int(runtime.BLOCK_SECONDS / runtime.block(run, 1, clock)[0]))
        for name, run in runs.items()
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    single: dict[str, list[float]] = {name: [] for name in runs}
    spent: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(blocks):
        for name, run in runs.items():
            before = meter.read()
            found = runtime.block(run, repeats[name], clock)
            after = meter.read()
            if (
                before is not None and after is not None and after > before
            ):  # the counter starts again at its end
                spent[name].append((after - before) / repeats[name])
            times[name].append(float(np.mean(found)) * 1e6)
            single[name] += [value * 1e6 for value in found]
    timings = []
    reference = float(np.median(next(iter(times.values()))))
    for name, found in times.items():
        low, median, high = (float(value) for value in np.percentile(found, [25, 50, 75]))
        timings.append(
            Timing(
                name,
                batch,
                threads,
                min(found),
                median,
                high - low,
                float(np.percentile(single[name], 99)),
                batch / median * 1e6,
                reference / median,
                finite[name],
                blocks,
                float(np.median(spent[name])) if spent[name] else meter.estimate(name, batch),
            )
        )
    return timings


def _finite(outputs: Sequence[Any]) -> float:
    arrays = [np.asarray(item) for item in outputs]
    floats = [item for item in arrays if item.dtype.kind == "f" and item.size]
    return float(np.mean([np.isfinite(item).mean() for item in floats])) if floats else 1.0


def _footprint(contender: Contender, feed: inputs.Feed, threads: int) -> Footprint:
    size = graph.size_on_disk(contender.path)
    if sys.platform != "linux":
        return Footprint(contender.name, size, None)
    with tempfile.TemporaryDirectory() as folder:
        stored = Path(folder) / "feed.npz"
        np.savez(stored, *feed.values())  # by number: names of inputs are anything, `file` too
        command = [sys.executable, "-c", MEMORY, str(contender.path), str(stored), str(threads)]
        command.append(json.dumps(list(feed)))
        done = subprocess.run(command, capture_output=True, text=True)
    return Footprint(contender.name, size, int(done.stdout) if done.returncode == 0 else None)


def _signature(session: onnxruntime.InferenceSession) -> str:
    """Describe inputs; free axes may have other names from file to file."""
    return "; ".join(
        f"{item.name} {item.type} ({', '.join(str(n) if isinstance(n, int) else 'free' for n in item.shape)})"
        for item in sorted(session.get_inputs(), key=lambda item: str(item.name))
    )
