"""`ternarize`, `inspect`, `verify`, `bench`, `diff`: any ONNX file, without the network that it came from."""

import argparse
import fnmatch
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bitsearch.cli.output import add_json, add_seed, show
from bitsearch.core.errors import ConfigurationError

if TYPE_CHECKING:
    from bitsearch.core.precision import Precision
    from bitsearch.onnxfile.inputs import Known

TERNARIZE = """\
Turn linear layers of any ONNX file (MatMul, Gemm, Conv of kernel size 1, Einsum) into TernaryMatMul. Each output gets
the codes and the scale of least squared error; weights that are ternary already are kept exactly. Nothing is trained:
accuracy falls, less with --data, and re-training with `bitsearch train` or `run` wins it back. Without --assignment
and --layers every layer that can be converted is. Layers are named by node, or by weights where the node has no name.

  bitsearch ternarize model.onnx --out small.onnx --layers 'encoder.*' 'head.0'
  bitsearch ternarize model.onnx --out small.onnx --data events.npz

Takes seconds; with --data the time of the model on the data besides.
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


DIFF = """\
Compare two files: operators and layers that changed, and how far outputs (and layers of the same name) differ.

  bitsearch diff model.onnx small.onnx --inputs events.npz

Takes seconds.
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
    which.add_argument(
        "--layers", nargs="+", metavar="GLOB", help="names or patterns of layers to make ternary"
    )
    verb.add_argument(
        "--exclude",
        nargs="+",
        default=[],
        metavar="GLOB",
        help="names or patterns of layers to leave as they are",
    )
    verb.add_argument(
        "--least-size", type=int, default=0, metavar="N", help="leave layers with fewer weights as they are"
    )
    verb.add_argument(
        "--backend",
        choices=("ternary", "nbits"),
        default="ternary",
        help="nbits: the same weights for onnxruntime's own MatMulNBits, of 2 bits; needs no library",
    )
    how = verb.add_mutually_exclusive_group()
    how.add_argument(
        "--data",
        type=Path,
        metavar="DATA",
        help="inputs of the model in .npz files: weights are rounded for the least error of what layers put out",
    )
    how.add_argument(
        "--rounding",
        choices=("optimal", "mean", "paper"),
        default="optimal",
        help="optimal: least error an output; mean: by each output's mean; paper: BitHEP Eq. (1), one scale a layer",
    )


def inspect_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of `inspect`."""
    _add_file(verb)


def verify_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of `verify`."""
    _add_file(verb)
    add_seed(verb, default=0)
    _add_size(verb)
    _add_inputs(verb)


def diff_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of `diff`."""
    verb.add_argument("file", type=Path, metavar="A.onnx", help="the file to compare with")
    verb.add_argument("other", type=Path, metavar="B.onnx", help="the file that changed")
    add_json(verb)
    add_seed(verb, default=0)
    _add_size(verb)
    _add_inputs(verb)


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
    verb.add_argument("--profile", action="store_true", help="the share of time of each kind of operator")
    _add_size(verb)
    _add_inputs(verb)


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


def _add_inputs(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--inputs", type=Path, metavar="FILE.npz", help="an array for each input (default: drawn to fit)"
    )


def ternarize(arguments: argparse.Namespace) -> None:
    """Convert and say what became of every layer."""
    from dataclasses import asdict

    from bitsearch.onnxfile import backends, calibrate, graph, inspect, ternarize

    model = graph.read(arguments.file)
    before = graph.size_on_disk(arguments.file)
    with graph.refusals(arguments.file):
        choose = _chooser(arguments, ternarize.layer_sizes(model))
        if arguments.data is None:
            round_weights = ternarize.rounder(arguments.rounding)
        else:
            round_weights = calibrate.rounder(model, choose, arguments.data)
        converted, outcomes = ternarize.ternarize(model, choose, round_weights)
        converted = backends.rewrite(converted, arguments.backend)
        graph.write(converted, arguments.out)
    quantized, total = inspect.parameters(converted)
    content = {
        "file": str(arguments.out),
        "bytes": graph.size_on_disk(arguments.out),
        "bytes_before": before,
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
            "weight error": ""
            if item.error is None
            else "lossless"
            if item.lossless
            else f"{item.error:.3f}",
            "result": f"declined: {item.reason}"
            if item.reason
            else "; ".join(filter(None, (str(item.precision), item.note))),
        }
        for item in outcomes
    ]
    size = f"{content['bytes_before']:,} to {content['bytes']:,} bytes"
    show(arguments.json, content, f"{arguments.out}: {size}, fraction {quantized / total:.4f}", rows)
    if graph.size_on_disk(arguments.out) > before:
        kept = [f"{item.layer} ({item.note})" for item in outcomes if item.note]
        reason = "; ".join(kept[:3]) or "the operator's function body is larger than what the layers save"
        sys.stderr.write(f"bitsearch ternarize: the file grew from {size}: {reason}\n")
    sys.stderr.write(
        "bitsearch ternarize: weights were rounded and nothing was re-trained; check the accuracy before use\n"
    )


def _chooser(arguments: argparse.Namespace, sizes: Mapping[str, int]) -> "Callable[[str], Precision]":
    """Tell which precision each layer shall have; raises ConfigurationError for layers that are not there."""
    from bitsearch.core.assignment import Assignment
    from bitsearch.core.precision import Precision

    layers = tuple(sizes)
    left = {name for pattern in arguments.exclude for name in _matching(layers, pattern)}
    _require([pattern for pattern in arguments.exclude if not _matching(layers, pattern)], layers)
    left.update(name for name, size in sizes.items() if size < arguments.least_size)
    chosen: dict[str, Precision] = dict.fromkeys(layers, Precision.TERNARY)
    if arguments.assignment is not None:
        assignment = Assignment.read(arguments.assignment)
        _require([name for name in assignment.quantized if name not in layers], layers)
        chosen = dict(assignment)
    elif arguments.layers is not None:
        patterns = arguments.layers
        _require([pattern for pattern in patterns if not _matching(layers, pattern)], layers)
        names = [name for pattern in patterns for name in _matching(layers, pattern)]
        chosen = dict.fromkeys(names, Precision.TERNARY)
    default = (
        Precision.TERNARY if arguments.assignment is None and arguments.layers is None else Precision.FLOAT32
    )
    return lambda name: Precision.FLOAT32 if name in left else chosen.get(name, default)


def _matching(layers: tuple[str, ...], pattern: str) -> list[str]:
    """Give the layer of that very name, or those that fit the pattern: names may hold brackets."""
    return [pattern] if pattern in layers else fnmatch.filter(layers, pattern)


def _require(missing: list[str], layers: tuple[str, ...]) -> None:
    if missing:
        known = ", ".join(layers[:20]) + (f" and {len(layers) - 20} more" if len(layers) > 20 else "")
        raise ConfigurationError(
            f"no linear layer is named {', '.join(missing)}; expected one of {known or 'none'}"
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
        "precisions": "; ".join(
            f"{name}: {entry['weights']:,} weights, {entry['bytes']:,} bytes, {entry['fraction']:.4f}"
            for name, entry in found.precisions.items()
        ),
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
    text = " ".join((value if isinstance(value, str) else json.dumps(value)).split())
    return text if len(text) <= 200 else f"{text[:200]} … (whole with --json)"


def verify(arguments: argparse.Namespace) -> None:
    """Print every comparison; exits with 1 when something differs."""
    from dataclasses import asdict

    from bitsearch.onnxfile import verify

    checks = verify.verify(
        arguments.file, arguments.seed, _sizes(arguments.size), _known_inputs(), arguments.inputs
    )
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
            given=arguments.inputs,
            profile=arguments.profile,
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
            "peak memory bytes": "" if item.peak_memory_bytes is None else f"{item.peak_memory_bytes:,}",
        }
        for item in measured.footprints
    ]
    show(False, {}, f"Size, and memory at batch {max(item.batch for item in measured.timings)}", footprints)
    for item in measured.footprints:
        if item.profile is not None:
            shares = [{"operator": kind, "share of time": share} for kind, share in item.profile.items()]
            show(False, {}, f"Operators of {item.name}", shares)
    sys.stderr.write(f"bitsearch bench: energy is from {measured.energy_source}\n")


def diff(arguments: argparse.Namespace) -> None:
    """Print what changed between two files."""
    from dataclasses import asdict

    from bitsearch.onnxfile import diff

    found = diff.diff(
        arguments.file,
        arguments.other,
        arguments.inputs,
        arguments.seed,
        _sizes(arguments.size),
        _known_inputs(),
    )
    if arguments.json:
        show(True, asdict(found), "", [])
        return
    before, after = found.bytes
    operators = [{"operator": name, "A": a, "B": b} for name, (a, b) in found.operators.items()]
    show(False, {}, f"{arguments.file} and {arguments.other}: {before:,} and {after:,} bytes", operators)
    layers = [{"layer": name, "A": a, "B": b} for name, (a, b) in found.layers.items()]
    show(False, {}, "Layers that changed", layers)
    for title, items in (("Outputs", found.outputs), ("Layers of the same name", found.inner)):
        rows = [
            {
                "value": item.output,
                "numbers": item.values,
                "mean |A|": _short(item.scale),
                "mean": _short(item.mean),
                **{f"quantile {level}": _short(value) for level, value in (item.quantiles or {}).items()},
                "largest": _short(item.largest),
                "arg-max flips": _short(item.flips),
                "detail": item.detail,
            }
            for item in items
        ]
        show(False, {}, f"{title}: absolute differences", rows)


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


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
