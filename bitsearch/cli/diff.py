"""`diff`: what changed from one file to another."""

import argparse
from pathlib import Path

from bitsearch.cli.files import add_inputs, add_size, free_sizes, known_inputs
from bitsearch.cli.output import add_json, add_seed, show

DIFF = """\
Compare two files: operators and layers that changed, and how far outputs (and layers of the same name) differ.

  bitsearch diff model.onnx small.onnx --inputs events.npz

Takes seconds.
"""


def diff_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of `diff`."""
    verb.add_argument("file", type=Path, metavar="A.onnx", help="the file to compare with")
    verb.add_argument("other", type=Path, metavar="B.onnx", help="the file that changed")
    add_json(verb)
    add_seed(verb, default=0)
    add_size(verb)
    add_inputs(verb)


def diff(arguments: argparse.Namespace) -> None:
    """Print what changed between two files."""
    from dataclasses import asdict

    from bitsearch.onnxfile import diff

    found = diff.diff(
        arguments.file,
        arguments.other,
        arguments.inputs,
        arguments.seed,
        free_sizes(arguments.size),
        known_inputs(),
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
        if rows:
            show(False, {}, f"{title}: absolute differences", rows)


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
