"""Automatic mixed-precision search and real low-bit inference for high-energy-physics networks."""

from importlib.metadata import version

from bitsearch.assignment import Assignment
from bitsearch.errors import BitsearchError
from bitsearch.precision import Precision
from bitsearch.strategy import Configuration, Strategy

__version__ = version("bitsearch")

__all__ = ["Assignment", "BitsearchError", "Configuration", "Precision", "Strategy", "__version__"]
