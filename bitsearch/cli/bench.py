"""`bench`: files side by side, in time and size."""

import argparse
import sys
from pathlib import Path

from bitsearch.cli.files import add_file, add_inputs, add_size, free_sizes, known_inputs
from bitsearch.cli.output import show
from bitsearch.core.errors import ConfigurationError

BENCH = """\
Time files side by side in one process, in interleaved blocks, on inputs drawn to fit; the first is the yardstick.

  bitsearch bench small.onnx --against model.onnx --int8 --batch 1 1000

Takes 15 blocks a batch size: seconds for small networks, minutes for large ones.
"""


def bench_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of `bench`."""
    add_file(verb)
    verb.add_argument(
        "--against",
        type=Path,
        action="append",
        default=[],
        metavar="OTHER.onnx",
        help="another file to time; may be given several times",
    )
    verb.add_argument("--int8", action="store_true", help="add onnxruntime's own dynamic quantisation")
    verb.add_argument(
        "--batch",
        type=int,
        nargs="+",
        default=[1, 100, 1000],
        metavar="N",
        help="events a call (default: 1 100 1000)",
    )
    verb.add_argument("--threads", type=int, default=1, metavar="N", help="threads a call (default: 1)")
    verb.add_argument(
        "--blocks", type=int, default=15, metavar="N", help="blocks of runs a file (default: 15)"
    )
    verb.add_argument("--profile", action="store_true", help="the share of time of each kind of operator")
    add_size(verb)
    add_inputs(verb)


def bench(arguments: argparse.Namespace) -> None:
    """Print times and sizes."""
    import tempfile
    from dataclasses import asdict

    from bitsearch.onnxfile import bench

    sizes = free_sizes(arguments.size)
    for name in ("threads", "blocks", "batch"):
        if min(numbers := [getattr(arguments, name)] if name != "batch" else arguments.batch) < 1:
            raise ConfigurationError(f"--{name} {min(numbers)}: expected 1 or more")
    with tempfile.TemporaryDirectory() as folder:
        contenders = bench.contenders([arguments.file, *arguments.against])
        if arguments.int8:
            contenders.append(bench.quantized_to_int8(contenders, Path(folder)))
        measured = bench.bench(
            contenders,
            arguments.batch,
            arguments.threads,
            arguments.blocks,
            sizes=sizes,
            known=known_inputs(),
            given=arguments.inputs,
            profile=arguments.profile,
        )
    content = asdict(measured)
    if arguments.json:
        show(True, content, "", [])
        return
    ran = ", ".join(dict.fromkeys(item.kernel for item in measured.footprints if item.kernel))
    facts = {**measured.environment, "kernel": ran}
    environment = ", ".join(f"{key} {value}" for key, value in facts.items() if value)
    rows = [
        {
            "file": item.name,
            "batch": item.batch,
            "threads": item.threads,
            "minimum µs": f"{item.minimum_us:,.1f}",
            "median µs": f"{item.median_us:,.1f}",
            "spread µs": f"{item.spread_us:,.1f}",
            "p99 µs": f"{item.p99_us:,.1f}",
            "events/s": f"{item.events_per_second:,.0f}",
            "speed": f"{item.speedup:.2f}",
            "finite": f"{item.finite:.4f}",
            "energy µJ": "" if item.energy_uj is None else f"{item.energy_uj:,.3f}",
        }
        for item in measured.timings
    ]
    show(False, {}, environment, rows)
    footprints = [
        {
            "file": item.name,
            "bytes": item.size_bytes,
            "load ms": f"{item.load_ms:,.1f}",
            "kernel": item.kernel,
            "peak memory bytes": "" if item.peak_memory_bytes is None else f"{item.peak_memory_bytes:,}",
        }
        for item in measured.footprints
    ]
    show(False, {}, f"Size, and memory at batch {max(item.batch for item in measured.timings)}", footprints)
    for item in measured.footprints:
        if item.profile is not None:
            shares = [{"operator": kind, "share of time": share} for kind, share in item.profile.items()]
            show(False, {}, f"Operators of {item.name}", shares)
    if measured.busy:
        sys.stderr.write(
            f"bitsearch bench: {measured.load:.0%} of the other cores were busy; "
            "trust the speeds more than the times\n"
        )
    sys.stderr.write(f"bitsearch bench: energy is from {measured.energy_source}\n")
