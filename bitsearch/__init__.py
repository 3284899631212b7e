"""Automatic mixed-precision search and real low-bit inference for high-energy-physics networks."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from bitsearch.core.assignment import Assignment
from bitsearch.core.errors import BitsearchError
from bitsearch.core.precision import Precision
from bitsearch.core.strategy import Configuration, Strategy

__version__ = version("bitsearch")

if TYPE_CHECKING:
    from bitsearch.network.public_export import export_onnx
    from bitsearch.run.own import search
    from bitsearch.run.result import SearchResult

__all__ = [
    "Assignment",
    "BitsearchError",
    "Configuration",
    "Precision",
    "SearchResult",
    "Strategy",
    "__version__",
    "export_onnx",
    "search",
]

# What needs torch is imported at its first use: the base install has none.
LAZY = {
    "export_onnx": "bitsearch.network.public_export",
    "search": "bitsearch.run.own",
    "SearchResult": "bitsearch.run.result",
}
MODULES = ("ops", "quant")


def __getattr__(name: str) -> Any:
    if name in MODULES:
        return import_module(f"bitsearch.{name}")
    if name in LAZY:
        return getattr(import_module(LAZY[name]), name)
    raise AttributeError(f"module 'bitsearch' has no attribute {name!r}")
