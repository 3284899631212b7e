"""Automatic mixed-precision search and real low-bit inference for high-energy-physics networks."""

from importlib.metadata import version

from bitsearch.core.assignment import Assignment
from bitsearch.core.errors import BitsearchError
from bitsearch.core.precision import Precision
from bitsearch.core.strategy import Configuration, Strategy

__version__ = version("bitsearch")

__all__ = ["Assignment", "BitsearchError", "Configuration", "Precision", "Strategy", "__version__"]
