"""`verify`: the operators of a file against their numpy truth."""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from bitsearch.cli.files import add_file, add_inputs, add_size, free_sizes, known_inputs
from bitsearch.cli.output import add_seed, show
from bitsearch.core.errors import ConfigurationError

VERIFY = """\
Hold every com.bithep node to its numpy truth, on random and hostile inputs: each kernel that this processor runs bit
for bit, the function body (what runs without the library) closely. Then compare the whole file with and without the
library. The exit status is 1 when something differs.

  bitsearch verify model.onnx

Takes seconds to a minute, with the size of the layers.

With --reproducible, the file runs on the same events with every kernel of this processor, 1 to 8 threads and three
ways to split the batch, in this onnxruntime and those of the environments given; the exit status is 1 unless all
outputs are the same bits.

  bitsearch verify model.onnx --reproducible --runtime ort-1.17 --runtime ort-1.23
"""


def verify_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of `verify`."""
    add_file(verb)
    add_seed(verb, default=0)
    add_size(verb)
    add_inputs(verb)
    verb.add_argument(
        "--reproducible", action="store_true", help="compare bits over all ways to run the file"
    )
    verb.add_argument(
        "--runtime",
        type=Path,
        action="append",
        default=[],
        metavar="VENV",
        help="with --reproducible: an environment with another onnxruntime; may be given several times",
    )


def verify(arguments: argparse.Namespace) -> None:
    """Print every comparison; exits with 1 when something differs."""
    if arguments.reproducible:
        _reproducible(arguments)
        return
    if arguments.runtime:
        raise ConfigurationError("--runtime names another onnxruntime for --reproducible; expected both")
    from dataclasses import asdict

    from bitsearch.onnxfile import verify

    checks = verify.verify(
        arguments.file, arguments.seed, free_sizes(arguments.size), known_inputs(), arguments.inputs
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


def _reproducible(arguments: argparse.Namespace) -> None:
    """Print the hash of every runtime and kernel; a line of its own for each other hash."""
    from dataclasses import asdict

    from bitsearch.onnxfile import bits

    if arguments.inputs is not None:
        raise ConfigurationError("--reproducible draws its own inputs; leave out --inputs")
    found = bits.runs(
        arguments.file, arguments.runtime, arguments.seed, free_sizes(arguments.size), known_inputs()
    )
    groups: dict[tuple[str, str, str], list[bits.Run]] = {}
    for item in found:
        groups.setdefault((item.onnxruntime, item.kernel, item.digest), []).append(item)
    rows = [
        {
            "onnxruntime": runtime,
            "kernel": kernel,
            "threads": _numbers(item.threads for item in group),
            "events a run": _numbers(item.split for item in group),
            "SHA-256 of the outputs": digest[:16],
        }
        for (runtime, kernel, digest), group in groups.items()
    ]
    different = len({item.digest for item in found})
    content = {
        "file": str(arguments.file),
        "passed": different == 1,
        "runs": [asdict(item) for item in found],
    }
    title = f"{arguments.file}: {len(found)} ways to run it, {different} different results"
    show(arguments.json, content, title, rows)
    if different > 1:
        sys.exit(1)


def _numbers(values: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(set(values))))


def _finite(value: float) -> float | None:
    from bitsearch.core.measurement import finite

    return finite(value)
