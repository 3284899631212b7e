"""`compare`: several runs on one page."""

import argparse
import json
import sys
from pathlib import Path

from bitsearch.cli.output import add_json

COMPARE = """\
Hold runs of one model against each other that differ in seed, recipe, sampler or machine: their fronts in one figure,
the settings that differ, their hypervolumes in one box, and the configurations that several have measured, with paired
differences where trainings had common seeds. Runs that differ in their seeds alone are taken as repetitions.

  bitsearch compare runs/seed1 runs/seed2 --out comparison

Takes some seconds.
"""


def compare_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of `compare`."""
    verb.add_argument(
        "folders", nargs="+", type=Path, metavar="DIR", help="--out folders of two runs or more"
    )
    verb.add_argument(
        "--out",
        type=Path,
        default=Path("comparison"),
        metavar="DIR",
        help="where index.html and its figures go (default: comparison)",
    )
    add_json(verb)


def compare(arguments: argparse.Namespace) -> None:
    """Write the page and print its path."""
    from bitsearch.report import compare, compare_page

    comparison = compare.read(arguments.folders)
    page = compare_page.build(comparison, arguments.out).resolve()
    text = (
        json.dumps({"page": str(page), **compare_page.content(comparison)}) if arguments.json else str(page)
    )
    sys.stdout.write(text + "\n")
