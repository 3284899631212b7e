"""The command line: one module a group of verbs, each importing what it needs only when it runs."""

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from bitsearch.cli import catalogue, data, files, networks, physics, runs
from bitsearch.core.errors import BitsearchError

EPILOG = "Exit status: 0 done, 2 bad input (one line on stderr), 1 anything else."


class _Parser(argparse.ArgumentParser):
    """A parser that complains in one line; argparse puts its usage in front."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def parser() -> argparse.ArgumentParser:
    """Build the parser of all verbs."""
    main = _Parser("bitsearch", description=__doc__, epilog=EPILOG)
    main.description = (
        "Automatic mixed-precision search and low-bit inference for high-energy-physics networks."
    )
    verbs = main.add_subparsers(dest="verb", required=True, metavar="VERB")
    for group in (runs, catalogue, data, networks, files, physics):
        group.add(verbs)
    return main


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; give the exit status."""
    from bitsearch.ops import OperatorError

    chosen = parser().parse_args(arguments)
    try:
        chosen.execute(chosen)
    except (BitsearchError, OperatorError) as error:
        # Libraries word some of their errors in several lines.
        print(f"bitsearch {chosen.verb}: {' '.join(str(error).split())}", file=sys.stderr)  # noqa: T201
        return 2
    except (
        FileNotFoundError,
        FileExistsError,
        IsADirectoryError,
        NotADirectoryError,
        PermissionError,
    ) as error:
        print(f"bitsearch {chosen.verb}: {error.filename}: {error.strerror}", file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt:
        print("bitsearch: interrupted; the same command continues", file=sys.stderr)  # noqa: T201
        return 130
    return 0
