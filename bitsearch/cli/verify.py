"""`verify`: the operators of a file against their numpy truth."""

import argparse
import sys

from bitsearch.cli.files import add_file, add_inputs, add_size, free_sizes, known_inputs
from bitsearch.cli.output import add_seed, show

VERIFY = """\
Hold every com.bithep node to its numpy truth, on random and hostile inputs: each kernel that this processor runs bit
for bit, the function body (what runs without the library) closely. Then compare the whole file with and without the
library. The exit status is 1 when something differs.

  bitsearch verify model.onnx

Takes seconds to a minute, with the size of the layers.
"""


def verify_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of `verify`."""
    add_file(verb)
    add_seed(verb, default=0)
    add_size(verb)
    add_inputs(verb)


def verify(arguments: argparse.Namespace) -> None:
    """Print every comparison; exits with 1 when something differs."""
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


def _finite(value: float) -> float | None:
    from bitsearch.core.measurement import finite

    return finite(value)
