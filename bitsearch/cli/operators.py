"""`ops`: where the compiled libraries are, for programs in other languages."""

import argparse
from pathlib import Path

from bitsearch.cli.output import add_json, show


def add(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb."""
    verb = verbs.add_parser("ops", help="paths of the operator library, for C++, CMake and LD_PRELOAD")
    one = verb.add_mutually_exclusive_group()
    for name, text in (
        ("path", "print the library's path alone, for RegisterCustomOpsLibrary"),
        ("preload", "print the path for LD_PRELOAD alone, for programs that cannot be changed"),
        ("include", "print the folder of bitsearch/ops.h alone"),
        ("cmake-dir", "print the folder for CMAKE_PREFIX_PATH alone"),
    ):
        one.add_argument(f"--{name}", dest="one", action="store_const", const=name, help=text)
    add_json(verb)
    verb.set_defaults(execute=_ops)


def _ops(arguments: argparse.Namespace) -> None:
    from bitsearch import ops

    paths: dict[str, Path] = {
        "path": ops.library_path(),
        "preload": ops.preload_path(),
        "include": ops.include_path(),
        "cmake-dir": ops.cmake_path(),
    }
    if arguments.one:
        print(paths[arguments.one])  # noqa: T201 (for the shell, alone)
        return
    rows = [{"what": name, "path": str(path)} for name, path in paths.items()]
    show(arguments.json, {name: str(path) for name, path in paths.items()}, "Operator library", rows)
