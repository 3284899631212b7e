"""Options that verbs on any ONNX file share."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from bitsearch.cli.output import add_json
from bitsearch.core.errors import ConfigurationError

if TYPE_CHECKING:
    from bitsearch.onnxfile.guard import Guard
    from bitsearch.onnxfile.inputs import Known


def add_file(verb: argparse.ArgumentParser) -> None:
    """Let a verb take any ONNX file."""
    verb.add_argument("file", type=Path, metavar="FILE.onnx", help="any ONNX file")
    add_json(verb)


def add_size(verb: argparse.ArgumentParser) -> None:
    """Let a verb give sizes to free axes."""
    verb.add_argument(
        "--size", action="append", default=[], metavar="AXIS=N", help="size of a free axis (default: 16)"
    )


def add_inputs(verb: argparse.ArgumentParser) -> None:
    """Let a verb take the inputs that it runs files on."""
    verb.add_argument(
        "--inputs", type=Path, metavar="FILE.npz", help="an array for each input (default: drawn to fit)"
    )


BACKENDS = ("ternary", "nbits", "int2", "int8", "float32")


def add_backend(verb: argparse.ArgumentParser) -> None:
    """Let a verb choose what multiplies by ternary weights."""
    verb.add_argument(
        "--backend",
        choices=BACKENDS,
        default="ternary",
        help="how ternary layers are written, with the same weights: com.bithep::TernaryMatMul, or onnxruntime's own "
        "MatMulNBits of 2 bits (nbits), DequantizeLinear of INT2 (int2, opset 25), dynamic 8 bits (int8), MatMul "
        "(float32); default: ternary",
    )
    verb.add_argument(
        "--batch",
        type=int,
        nargs="+",
        default=[],
        metavar="N",
        help="leave in float32 the layers that would be slower than float32 at a batch of N, timed here",
    )


def guard_of(arguments: argparse.Namespace) -> "Guard | None":
    """Give what times layers of the backend; None where no batch was given."""
    if not arguments.batch:
        return None
    from bitsearch.onnxfile.guard import Guard
    from bitsearch.onnxfile.products import Backend

    return Guard(Backend(arguments.backend), arguments.batch)


def free_sizes(texts: list[str]) -> dict[str, int]:
    """Read `AXIS=N` texts; raises ConfigurationError for others."""
    sizes = {}
    for text in texts:
        name, _, value = text.partition("=")
        if not value.isdigit() or int(value) < 1:
            raise ConfigurationError(f"--size {text}: expected AXIS=N, with N at least 1")
        sizes[name] = int(value)
    return sizes


def known_inputs() -> "Known | None":
    """Give the built-in models' own inputs, where torch is installed to make them."""
    try:
        from bitsearch.network.catalogue import inputs_of
    except ImportError:
        return None
    return inputs_of
