"""`inspect`: what is in an ONNX file."""

import argparse
import json
from typing import TYPE_CHECKING

from bitsearch.cli.files import add_file
from bitsearch.cli.output import show

if TYPE_CHECKING:
    pass

INSPECT = """\
Say what is in an ONNX file: layers, precisions, shapes, bytes, zero weights, quantised fraction, metadata.

  bitsearch inspect runs/caloinn/models/all.onnx

Takes a second.
"""


def inspect_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of `inspect`."""
    add_file(verb)


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
