"""Options that verbs on any ONNX file share."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from bitsearch.cli.output import add_json
from bitsearch.core.errors import ConfigurationError

if TYPE_CHECKING:
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
