"""Options that verbs share, and what verbs print on stdout: a table for people, or one JSON object."""

import argparse
import json
import math
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from bitsearch.core.budget import Limits, bytes_of
from bitsearch.core.names import printable

GAP = 2
"""Spaces between columns."""
PROSE = 14
"""Characters that a column of several words gets at least, as far as its texts are that long."""


def add_model(verb: argparse.ArgumentParser, preset: str | None = "laptop") -> None:
    """Let a verb choose a model, its data set and its preset."""
    verb.add_argument("--model", required=True, help="a model's name, or the path of a model file")
    verb.add_argument("--dataset", help="the data set (default: the model's first)")
    default = preset or "what the file says of itself"
    verb.add_argument("--preset", default=preset, help=f"smoke, laptop or paper (default: {default})")


def add_recipe(verb: argparse.ArgumentParser) -> None:
    """Let a verb that trains choose how."""
    verb.add_argument(
        "--recipe",
        choices=("paper", "improved"),
        help="how to train quantised layers (default: improved, with --preset paper as the paper does)",
    )


def add_data(verb: argparse.ArgumentParser) -> None:
    """Let a verb take data files."""
    verb.add_argument(
        "--data",
        nargs="+",
        type=Path,
        default=[],
        metavar="PATH",
        help="data files (default: generated data)",
    )


def add_device(verb: argparse.ArgumentParser) -> None:
    """Let a verb choose where to train."""
    verb.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="where to train (default: auto, a GPU where there is one)",
    )


def add_limits(verb: argparse.ArgumentParser, what: str) -> None:
    """Add what a configuration may cost; `what` it is that keeps to it."""
    verb.add_argument(
        "--max-size",
        type=_bytes,
        default=math.inf,
        metavar="BYTES",
        help=f"{what} whose file is no larger: 300kB, 3MB, 2MiB or a number of bytes",
    )
    verb.add_argument(
        "--max-loss",
        type=float,
        default=math.inf,
        metavar="LOSS",
        help=f"{what} that is no more than this worse than the float network, in units of the objective",
    )
    verb.add_argument(
        "--max-latency",
        type=float,
        default=math.inf,
        metavar="US",
        help=f"{what} whose median time for the smallest batch, on one thread, is no more µs than this",
    )


def limits(arguments: argparse.Namespace) -> Limits:
    """Read what `add_limits` has added.

    Raises:
        ConfigurationError: a limit that nothing can keep.
    """
    return Limits(arguments.max_size, arguments.max_loss, arguments.max_latency)


def _bytes(text: str) -> float:
    try:
        return bytes_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_json(verb: argparse.ArgumentParser) -> None:
    """Let a verb print JSON."""
    verb.add_argument("--json", action="store_true", help="print one JSON object instead of a table")


def add_seed(verb: argparse.ArgumentParser, default: int = 1) -> None:
    """Let a verb choose the seed that everything random follows from."""
    verb.add_argument(
        "--seed",
        type=_seed,
        default=default,
        metavar="S",
        help="what everything random follows from (default: %(default)s)",
    )


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"found {text}, expected a whole number from 0 on")
    return int(text)


def fill(text: str) -> str:
    """Fill the paragraphs of a text to the terminal; lines that begin with a space stay as they are."""
    width = min(shutil.get_terminal_size().columns, 100) - 2
    blocks = (
        block if block.startswith(" ") else textwrap.fill(block, width, break_long_words=False)
        for block in text.strip("\n").split("\n\n")
    )
    return "\n\n".join(blocks)


def show(as_json: bool, content: Mapping[str, Any], title: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Print `content` as JSON, or `rows` as a table under `title`.

    Rows need not have the same keys. No word and no number is broken: a table that is too wide for the terminal goes
    on below with its first column again, or becomes a list for each row.
    """
    if as_json:
        sys.stdout.write(json.dumps(content) + "\n")
        return
    console = Console(highlight=False, markup=False, soft_wrap=True)
    # Lines of a file or a pipe have no width, unless somebody gives them one.
    width = console.width if console.is_terminal or "COLUMNS" in os.environ else 10_000
    for line in _wrapped(title, width):
        console.print(line, style="italic")
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = [_Column.of(name, [row.get(name, "") for row in rows]) for name in names]
    if len(columns) > 2 and columns[0].least + GAP + max(item.least for item in columns[1:]) > width:
        for row in rows:
            show(False, {}, "", [{"": name, " ": _text(value)} for name, value in row.items()])
        return
    for number, page in enumerate(_pages(columns, width)):
        if number:
            console.print()
        for index, lines in enumerate(_rows(page)):
            for line in filter(None, lines):
                console.print(line, style="bold" if index == 0 else None)


@dataclass(frozen=True)
class _Column:
    """A column's texts; at the width `least` no word and no number breaks, at `widest` every text is one line."""

    texts: tuple[str, ...]
    numeric: bool
    least: int
    widest: int

    @classmethod
    def of(cls, title: str, values: Sequence[object]) -> "_Column":
        title, cells = title.replace("_", " "), tuple(map(_text, values))
        present = [value for value in values if value not in ("", None)]
        numeric = bool(present) and all(
            isinstance(value, int | float) and not isinstance(value, bool) for value in present
        )
        words = [word for text in (title, *cells) for word in _glued(text).split(" ")]
        widest = max(map(len, (title, *cells)))
        longest = max(map(len, words))
        return cls((title, *cells), numeric, min(widest, max(longest, PROSE)), widest)

    def lines(self, text: str, width: int) -> list[str]:
        """Give a cell's lines, filled with spaces to the width."""
        return [line.rjust(width) if self.numeric else line.ljust(width) for line in _wrapped(text, width)]


def _pages(columns: list[_Column], width: int) -> Iterator[list[tuple[_Column, int]]]:
    """Put as many columns side by side as fit, behind the first one on every page, and share out what is left."""
    first, page = columns[:1], columns[:1]
    for column in columns[1:]:
        if len(page) > 1 and sum(item.least for item in (*page, column)) + GAP * len(page) > width:
            yield _spread(page, width)
            page = list(first)
        page.append(column)
    yield _spread(page, width)


def _spread(page: list[_Column], width: int) -> list[tuple[_Column, int]]:
    """Widen the columns that wrap most, as far as the width allows."""
    widths = [column.least for column in page]
    for _ in range(width - sum(widths) - GAP * (len(page) - 1)):
        ratios = [column.widest / taken for column, taken in zip(page, widths, strict=True)]
        if max(ratios, default=1) <= 1:
            break
        widths[ratios.index(max(ratios))] += 1
    return list(zip(page, widths, strict=True))


def _rows(page: list[tuple[_Column, int]]) -> Iterator[list[str]]:
    """Give the lines of every row of a page, the titles first."""
    for index in range(len(page[0][0].texts) if page else 0):
        cells = [column.lines(column.texts[index], width) for column, width in page]
        blank = [" " * width for _, width in page]
        yield [
            (" " * GAP)
            .join(cell[line] if line < len(cell) else empty for cell, empty in zip(cells, blank, strict=True))
            .rstrip()
            for line in range(max(map(len, cells)))
        ]


def _wrapped(text: str, width: int) -> list[str]:
    lines = textwrap.wrap(_glued(text), max(width, 1), break_long_words=False, break_on_hyphens=False)
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines] or [""]


def _glued(text: str) -> str:
    """Keep together what is one number: 0.633 ± 0.003, 8.4 %."""
    return re.sub(r"(?<=\d) (?=[±%])|(?<=±) (?=\d)", "\N{NO-BREAK SPACE}", text)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}" if isinstance(value, float) else printable(str(value))
