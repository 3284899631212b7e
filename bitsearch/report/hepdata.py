"""What a figure shows as data: one table a figure, in the YAML that HEPData takes."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from bitsearch.core.measurement import Curve, Histogram, Map, Measurement, Metric, Profile
from bitsearch.report import numbers

Value = float | str | tuple[float, float]
"""A number, a word, or the two edges of a bin."""
Error = float | tuple[float, float] | None
"""One standard deviation, or the way up and the way down; None where it is not known."""


@dataclass(frozen=True)
class Column:
    """A variable: its name with its unit in brackets, a value a row, and what was done to get them.

    `errors` are empty, or one a row, named by `error`.
    """

    name: str
    values: Sequence[Value]
    errors: Sequence[Error] = ()
    error: str = "stat"
    qualifiers: Mapping[str, str] = field(default_factory=dict)


def text(independent: Sequence[Column], dependent: Sequence[Column]) -> str:
    """Write a table of HEPData's data files."""
    lines = [
        "independent_variables:",
        *_variables(independent),
        "dependent_variables:",
        *_variables(dependent),
    ]
    return "\n".join(lines) + "\n"


def _variables(columns: Sequence[Column]) -> Iterator[str]:
    for column in columns:
        name, unit = _split(column.name)
        units = f", units: {_scalar(unit)}" if unit else ""
        yield f"- header: {{name: {_scalar(name)}{units}}}"
        if column.qualifiers:
            pairs = (
                f"{{name: {_scalar(key)}, value: {_scalar(value)}}}"
                for key, value in column.qualifiers.items()
            )
            yield f"  qualifiers: [{', '.join(pairs)}]"
        yield "  values:"
        for row, value in enumerate(column.values):
            error = column.errors[row] if column.errors else None
            yield f"  - {{{_value(value)}{_error(error, column.error)}}}"


def _split(label: str) -> tuple[str, str]:
    """Take the unit off the end of a label."""
    found = re.fullmatch(r"(.*?)\s*\[([^][]+)\]", label, re.DOTALL)
    return (found[1], found[2]) if found else (label, "")


def _value(value: Value) -> str:
    if isinstance(value, tuple):
        return f"low: {_scalar(value[0])}, high: {_scalar(value[1])}"
    return f"value: {_scalar(value)}"


def _error(error: Error, label: str) -> str:
    if not error or error == (0, 0):  # HEPData takes no uncertainty of zero: an empty bin has none
        return ""
    if isinstance(error, tuple):
        up, down = error
        kind = f"asymerror: {{plus: {_scalar(up)}, minus: {_scalar(-down)}}}"
    else:
        kind = f"symerror: {_scalar(error)}"
    return f", errors: [{{{kind}, label: {_scalar(label)}}}]"


def _scalar(value: float | str) -> str:
    """Write a scalar so that every YAML reader takes it for what it is."""
    if isinstance(value, str):
        quoted = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\x7f")
        return quoted.encode("ascii", "backslashreplace").decode()
    if not math.isfinite(value):
        return '"-"'  # HEPData's sign for what is not there
    number = repr(value)
    # YAML 1.1 takes 1e-05 for a word: its numbers have a point.
    return number.replace("e", ".0e") if "e" in number and "." not in number else number


def performance(
    reach: str, metric: Metric, items: Sequence[Measurement], names: Sequence[str], places: Sequence[str]
) -> str:
    """Give the points of a front: how far each goes, its name, its value, and its place on the front."""
    quantities = [item.metrics[metric.name] for item in items]
    independent = [
        Column(reach, [100 * item.reduction for item in items]),
        Column("configuration", list(names)),
    ]
    values = Column(
        numbers.axis(metric),
        [quantity.value for quantity in quantities],
        [quantity.std for quantity in quantities],
        "standard deviation",
        {"obtained as": metric.how},
    )
    return text(independent, [values, Column("front member", [place or "-" for place in places])])


def series(along: str, positions: Sequence[Value], values: str, rows: Mapping[str, Sequence[Value]]) -> str:
    """Give several rows of values of one kind along one coordinate, by the names of the rows."""
    columns = [Column(values, list(row), qualifiers={"sample": name}) for name, row in rows.items()]
    return text([Column(along, positions)], columns)


def histogram(plots: Mapping[str, Histogram]) -> str:
    """Give the counts of reference and configurations in their bins, with Poisson errors."""
    first = next(iter(plots.values()))
    bins = [(low, high) for low, high in pairwise(first.edges)]
    columns = [
        Column("entries", first.reference, _poisson(first.reference), qualifiers={"sample": "reference"})
    ]
    for name, plot in plots.items():
        qualifiers = {"sample": name, "separation power": numbers.short(plot.separation)}
        columns.append(Column("entries", plot.generated, _poisson(plot.generated), qualifiers=qualifiers))
    return text([Column(first.label, bins)], columns)


def profile(plots: Mapping[str, Profile]) -> str:
    """Give the means of reference and configurations along a coordinate."""
    first = next(iter(plots.values()))
    rows = {"reference": first.reference} | {name: plot.generated for name, plot in plots.items()}
    return series(first.position_label, first.positions, first.label, rows)


def curve(plots: Mapping[str, Curve]) -> str:
    """Give the curve of every configuration with its band; curves need not have the same positions."""
    first = next(iter(plots.values()))
    samples = [name for name, plot in plots.items() for _ in plot.positions]
    positions = [position for plot in plots.values() for position in plot.positions]
    values = [value for plot in plots.values() for value in plot.values]
    bands: list[Error] = []
    for plot in plots.values():
        band = zip(plot.high, plot.low, plot.values, strict=True) if plot.low and plot.high else None
        bands += (
            [(high - value, value - low) for high, low, value in band] if band else [None] * len(plot.values)
        )
    independent = [Column("sample", samples), Column(first.position_label, positions)]
    return text(independent, [Column(first.label, values, bands, "standard deviation over trainings")])


def density(plots: Mapping[str, Map]) -> str:
    """Give the counts of every configuration in two dimensions."""
    first = next(iter(plots.values()))
    cells = [(x, y) for x in pairwise(first.x_edges) for y in pairwise(first.y_edges)]
    independent = [
        Column(first.x_label, [x for x, _ in cells]),
        Column(first.y_label, [y for _, y in cells]),
    ]
    columns = [
        Column("entries", [count for row in plot.counts for count in row], qualifiers={"sample": name})
        for name, plot in plots.items()
    ]
    return text(independent, columns)


def _poisson(counts: Sequence[float]) -> list[float]:
    return [math.sqrt(max(count, 0.0)) for count in counts]
