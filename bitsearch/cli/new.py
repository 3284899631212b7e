"""`new`: a starting pair of files for a network of one's own."""

import argparse
import keyword
from importlib.resources import files
from pathlib import Path

from bitsearch.core.atomic import write_atomically
from bitsearch.core.errors import ConfigurationError

NEW = """\
Write NAME.py, a network with its data, loss and metrics, and NAME_space.py, which says what a search may change in it.
Both run as they are, on toy events; what is marked CHANGE makes them yours. Nothing is ever overwritten.

  bitsearch new tagger
  bitsearch run --model tagger.py --preset smoke --trials 3

Takes a second.
"""


def new_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of `new`."""
    verb.add_argument("name", metavar="NAME", help="what the network is called: a Python identifier")
    verb.add_argument(
        "--out", type=Path, default=Path(), metavar="DIR", help="where to write (default: here)"
    )


def new(arguments: argparse.Namespace) -> None:
    """Write both files, or neither where one is there already."""
    name = arguments.name
    if not name.isidentifier() or keyword.iskeyword(name):
        raise ConfigurationError(
            f"{name!r} cannot name a Python file; expected letters, digits and underscores, as in my_tagger"
        )
    pair = {arguments.out / f"{name}{kind}.py": f"new{kind}.txt" for kind in ("", "_space")}
    for file in pair:
        if file.exists():
            raise ConfigurationError(
                f"{file} is there already; choose another name, or another folder with --out"
            )
    for file, template in pair.items():
        write_atomically(file, (files("bitsearch.cli") / template).read_text("utf-8").replace("NAME", name))
        print(file)  # noqa: T201
