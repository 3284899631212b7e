"""`ops`: where the operator library lies."""

import argparse
import sys
from typing import TYPE_CHECKING

from bitsearch.cli.output import add_json, show

if TYPE_CHECKING:
    pass

OPS = """\
Print the path of the operator library, which C++ programs give to RegisterCustomOpsLibrary, or of what else they need.

  bitsearch ops
  LD_PRELOAD=$(bitsearch ops --preload) ./program-that-cannot-be-changed
  cmake -DCMAKE_PREFIX_PATH=$(bitsearch ops --cmake-dir) ...

Takes a second.
"""


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
