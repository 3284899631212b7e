"""`ternarize`, `inspect`, `verify`, `bench`: any ONNX file, without the network that it came from."""

import argparse
import fnmatch
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from bitsearch.cli.output import add_json, add_seed, show
from bitsearch.core.errors import ConfigurationError

if TYPE_CHECKING:
    from bitsearch.core.precision import Precision
    from bitsearch.onnxfile.inputs import Known

TERNARIZE = """\
Turn MatMul and Gemm nodes of any ONNX file into TernaryMatMul, by rounding their weights (BitHEP Eq. (1)). Nothing is
trained: accuracy falls, and re-training with `bitsearch train` or `run` wins it back. Without --assignment and
--layers every node that can be converted is. Layers are named by node, or by weights where the node has no name.

  bitsearch ternarize model.onnx --out small.onnx --layers 'encoder.*' 'head.0'

Takes seconds.
"""
INSPECT = """\
Say what is in an ONNX file: layers, precisions, shapes, bytes, zero weights, quantised fraction, metadata.

  bitsearch inspect runs/caloinn/models/all.onnx

Takes a second.
"""
VERIFY = """\
Hold every com.bithep node to its numpy truth, on random and hostile inputs: each kernel that this processor runs bit
for bit, the function body (what runs without the library) closely. Then compare the whole file with and without the
library. The exit status is 1 when something differs.

  bitsearch verify model.onnx

Takes seconds to a minute, with the size of the layers.
"""
BENCH = """\
Time files side by side in one process, in interleaved blocks, on inputs drawn to fit; the first is the yardstick.

  bitsearch bench small.onnx --against model.onnx --int8 --batch 1 1000

Takes 15 blocks a batch size: seconds for small networks, minutes for large ones.
"""


OPS = """\
Print the path of the operator library, which C++ programs give to RegisterCustomOpsLibrary, or of what else they need.

  bitsearch ops
  LD_PRELOAD=$(bitsearch ops --preload) ./program-that-cannot-be-changed
  cmake -DCMAKE_PREFIX_PATH=$(bitsearch ops --cmake-dir) ...

Takes a second.
"""


def ternarize_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of `ternarize`."""
    _add_file(verb)
    verb.add_argument("--out", type=Path, required=True, metavar="OUT.onnx", help="the file to write")
    which = verb.add_mutually_exclusive_group()
    which.add_argument("--assignment", type=Path, metavar="FILE", help="JSON: layer to precision")
    which.add_argument("--layers", nargs="+", metavar="GLOB", help="patterns of layers to make ternary")


def inspect_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of `inspect`."""
    _add_file(verb)


def verify_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of `verify`."""
    _add_file(verb)
    add_seed(verb, default=0)
    _add_size(verb)


def bench_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of `bench`."""
    _add_file(verb)
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
    _add_size(verb)


def ops_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of `ops`."""
    which = verb.add_mutually_exclusive_group()
    for name, text in (
        ("path", "the operator library (default)"),
        ("preload", "the library for LD_PRELOAD"),
        ("include", "the folder of bitsearch/ops.h"),
        ("cmake-dir", "the folder for CMAKE_PREFIX_PATH"),
    ):
        which.add_argument(
            f"--{name}", dest="what", action="store_const", const=name, default="path", help=text
        )
    add_json(verb)


def _add_file(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("file", type=Path, metavar="FILE.onnx", help="any ONNX file")
    add_json(verb)


def _add_size(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--size", action="append", default=[], metavar="AXIS=N", help="size of a free axis (default: 16)"
    )


def ternarize(arguments: argparse.Namespace) -> None:
    """Convert and say what became of every layer."""
    from dataclasses import asdict

    from bitsearch.onnxfile import graph, inspect, ternarize

    model = graph.read(arguments.file)
    choose = _chooser(arguments, ternarize.layer_names(model))
    converted, outcomes = ternarize.ternarize(model, choose)
    graph.write(converted, arguments.out)
    quantized, total = inspect.parameters(converted)
    content = {
        "file": str(arguments.out),
        "bytes": graph.size_on_disk(arguments.out),
        "bytes_before": graph.size_on_disk(arguments.file),
        "fraction": quantized / total,
        "retrained": False,
        "layers": [asdict(item) for item in outcomes],
    }
    rows = [
        {
            "layer": item.layer,
            "op": item.op,
            "shape": " x ".join(map(str, item.shape)),
            "zeros": "" if item.zeros is None else f"{item.zeros:.3f}",
            "weight error": "" if item.error is None else f"{item.error:.3f}",
            "result": item.note or str(item.precision) if item.reason is None else f"declined: {item.reason}",
        }
        for item in outcomes
    ]
    size = f"{content['bytes_before']:,} to {content['bytes']:,} bytes"
    show(arguments.json, content, f"{arguments.out}: {size}, fraction {quantized / total:.4f}", rows)
    sys.stderr.write(
        "bitsearch ternarize: weights were rounded and nothing was re-trained; check the accuracy before use\n"
    )


def _chooser(arguments: argparse.Namespace, layers: tuple[str, ...]) -> "Callable[[str], Precision]":
    """Tell which precision each layer shall have; raises ConfigurationError for layers that are not there."""
    from bitsearch.core.assignment import Assignment
    from bitsearch.core.precision import Precision

    if arguments.assignment is not None:
        assignment = Assignment.read(arguments.assignment)
        _require([name for name in assignment.quantized if name not in layers], layers)
        return lambda name: assignment.get(name, Precision.FLOAT32)
    if arguments.layers is None:
        return lambda name: Precision.TERNARY
    patterns = arguments.layers
    _require([pattern for pattern in patterns if not fnmatch.filter(layers, pattern)], layers)
    chosen = {name for pattern in patterns for name in fnmatch.filter(layers, pattern)}
    return lambda name: Precision.TERNARY if name in chosen else Precision.FLOAT32


def _require(missing: list[str], layers: tuple[str, ...]) -> None:
    if missing:
        known = ", ".join(layers[:20]) + (f" and {len(layers) - 20} more" if len(layers) > 20 else "")
        raise ConfigurationError(
            f"no MatMul or Gemm is named {', '.join(missing)}; expected one of {known or 'none'}"
        )


def inspect(arguments: argparse.Namespace) -> None:
    """Print what is in a file."""
    from dataclasses import asdict

    from bitsearch.onnxfile import inspect

    found = inspect.inspect(arguments.file)
    content = asdict(found)
    if arguments.json:
        show(True, content, "", [])
        return
    facts = {
        "bytes": f"{found.bytes:,}",
        "opset": ", ".join(f"{domain} {version}" for domain, version in found.opsets.items()),
        "IR version": str(found.ir_version),
        "producer": found.producer,
        "inputs": "; ".join(found.inputs),
        "outputs": "; ".join(found.outputs),
        "functions": ", ".join(found.functions),
        "nodes": ", ".join(f"{count} {name}" for name, count in found.nodes.items()),
        "low-bit parameters": f"{found.quantized_parameters:,} of {found.total_parameters:,}",
        "fraction": f"{found.fraction:.6f} (counted in the file)",
    } | {key: _brief(value) for key, value in found.metadata.items()}
    show(False, {}, str(found.path), [{"": key, " ": value} for key, value in facts.items()])
    rows = [
        {
            "layer": item.name,
            "op": item.op,
            "precision": item.precision,
            "shape": " x ".join(map(str, item.shape)),
            "parameters": item.parameters,
            "bytes": item.bytes,
            "zeros": "" if item.zeros is None else f"{item.zeros:.3f}",
        }
        for item in found.layers
    ]
    show(False, {}, "Layers with constant weights", rows)


def _brief(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 200 else f"{text[:200]} … (whole with --json)"


def verify(arguments: argparse.Namespace) -> None:
    """Print every comparison; exits with 1 when something differs."""
    from dataclasses import asdict

    from bitsearch.onnxfile import verify

    checks = verify.verify(arguments.file, arguments.seed, _sizes(arguments.size), _known_inputs())
    failed = [item for item in checks if item.passed is False]
    rows = [
        {
            "subject": item.subject,
            "compared": item.compared,
            "values": item.values,
            "differing": item.differing,
            "largest relative difference": f"{item.largest_difference:.3g}",
            "result": {True: "agrees", False: "DIFFERS", None: "not compared"}[item.passed],
            "detail": item.detail,
        }
        for item in checks
    ]
    content = {
        "file": str(arguments.file),
        "passed": not failed,
        "checks": [
            {**asdict(item), "largest_difference": _finite(item.largest_difference)} for item in checks
        ],
    }
    show(arguments.json, content, f"{arguments.file}: {len(checks)} checks, {len(failed)} failed", rows)
    if failed:
        sys.exit(1)


def _finite(value: float) -> float | None:
    from bitsearch.core.measurement import finite

    return finite(value)


def bench(arguments: argparse.Namespace) -> None:
    """Print times and sizes."""
    import tempfile
    from dataclasses import asdict

    from bitsearch.onnxfile import bench

    sizes = _sizes(arguments.size)
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
            known=_known_inputs(),
        )
    content = asdict(measured)
    if arguments.json:
        show(True, content, "", [])
        return
    environment = ", ".join(f"{key} {value}" for key, value in measured.environment.items())
    rows = [
        {
            "file": item.name,
            "batch": item.batch,
            "threads": item.threads,
            "minimum µs": f"{item.minimum_us:,.1f}",
            "median µs": f"{item.median_us:,.1f}",
            "spread µs": f"{item.spread_us:,.1f}",
            "events/s": f"{item.events_per_second:,.0f}",
            "speed": f"{item.speedup:.2f}",
            "finite": f"{item.finite:.4f}",
        }
        for item in measured.timings
    ]
    show(False, {}, environment, rows)
    footprints = [
        {
            "file": item.name,
            "bytes": item.size_bytes,
            "peak memory bytes": "" if item.peak_memory_bytes is None else f"{item.peak_memory_bytes:,}",
        }
        for item in measured.footprints
    ]
    show(False, {}, f"Size, and memory at batch {max(item.batch for item in measured.timings)}", footprints)


def _sizes(texts: list[str]) -> dict[str, int]:
    sizes = {}
    for text in texts:
        name, _, value = text.partition("=")
        if not value.isdigit() or int(value) < 1:
            raise ConfigurationError(f"--size {text}: expected AXIS=N, with N at least 1")
        sizes[name] = int(value)
    return sizes


def _known_inputs() -> "Known | None":
    """Give the built-in models' own inputs, where torch is installed to make them."""
    try:
        from bitsearch.network.catalogue import inputs_of
    except ImportError:
        return None
    return inputs_of


def ops(arguments: argparse.Namespace) -> None:
    """Print where the library, or what else C++ programs need, lies."""
    from bitsearch import ops

    if arguments.json:
        paths = {
            "library": ops.library_path(),
            "preload": ops.preload_path(),
            "include": ops.include_path(),
            "cmake_dir": ops.cmake_path(),
        }
        show(True, {name: str(path) for name, path in paths.items()}, "", [])
        return
    find = {
        "path": ops.library_path,
        "preload": ops.preload_path,
        "include": ops.include_path,
        "cmake-dir": ops.cmake_path,
    }
    sys.stdout.write(f"{find[arguments.what]()}\n")
