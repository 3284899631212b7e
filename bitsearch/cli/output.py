"""What verbs print on stdout: a table for people, or one JSON object."""

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


def add_json(verb: argparse.ArgumentParser) -> None:
    """Let a verb print JSON."""
    verb.add_argument("--json", action="store_true", help="print one JSON object instead of a table")


def add_seed(verb: argparse.ArgumentParser) -> None:
    """Let a verb choose the seed that everything random follows from."""
    verb.add_argument("--seed", type=_seed, default=1)


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"found {text}, expected a whole number from 0 on")
    return int(text)


def show(as_json: bool, content: Mapping[str, Any], title: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Print `content` as JSON, or `rows` as a table under `title`."""
    console = Console(highlight=False, soft_wrap=as_json)
    if as_json:
        console.print(json.dumps(content), markup=False)
        return
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for name in rows[0] if rows else ():
        numeric = isinstance(rows[0][name], int | float)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_text(value) for value in row.values()))
    if not console.is_terminal:
        console.width = 10_000
    console.print(table, markup=False)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
