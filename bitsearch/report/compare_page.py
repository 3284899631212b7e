"""The page of a comparison of runs, and the same as plain values."""

import math
import os
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bitsearch.core import pareto
from bitsearch.core.atomic import write_atomically
from bitsearch.core.difference import Difference
from bitsearch.core.front import reference_of
from bitsearch.core.measurement import Measurement
from bitsearch.report import decision, figures, hepdata, numbers, style
from bitsearch.report.compare import Comparison, Group, Side
from bitsearch.report.hepdata import Column
from bitsearch.report.style import STYLE, Draw, Drawing, Point, draw, publish
from bitsearch.report.tables import Cell, Table
from bitsearch.report.template import fill
from bitsearch.report.view import TRAINING

CONTENTS = {
    "outcome": "Outcome",
    "runs": "The runs",
    "settings": "Settings that differ",
    "members": "The fronts",
    "shared": "The same configurations",
    "progress": "Hypervolume by measurements",
}
COLOURS = (style.BLUE, style.ORANGE, style.GREEN, style.PURPLE)
LINES = ("solid", "dashed", "dotted", "dashdot")


def build(comparison: Comparison, folder: Path) -> Path:
    """Write `index.html` and its figures into `folder`; give the path of the page."""
    drawings: dict[str, Draw] = {
        "fronts": partial(fronts, comparison),
        "progress": partial(progress, comparison),
    }
    with rc_context(STYLE):
        drawn = {name: drawing for name, make in drawings.items() if (drawing := draw(make))}
        pictures = [publish(drawing, name, folder / "figures") for name, drawing in drawn.items()]
    shared = _shared(comparison)
    missing = {
        "settings": not comparison.differing,
        "shared": not shared.rows,
        "progress": "progress" not in drawn,
    }
    text = fill(
        "compare.html.jinja",
        title=f"{comparison.sides[0].run.title}: {len(comparison.sides)} runs compared",
        contents=[(name, text) for name, text in CONTENTS.items() if not missing.get(name)],
        comparison=comparison,
        pictures=pictures,
        headline=headline(comparison),
        warnings=list(_warnings(comparison)),
        runs=_runs(comparison, folder),
        settings=_settings(comparison),
        members=_members(comparison, folder),
        shared=shared,
        training=TRAINING[comparison.fidelity],
        numbers=numbers,
    )  # fmt: skip
    write_atomically(folder / "index.html", text)
    return folder / "index.html"


def headline(comparison: Comparison) -> str:
    """Say which settings reach the larger hypervolume, with no more certainty than repetitions allow."""
    if comparison.box is None:
        return "No hypervolume: the float network and a handmade strategy that is worse are needed"
    repeated = comparison.repeated
    if len(repeated) > 1 and len(repeated) == len(comparison.groups):
        return "; ".join(_step(comparison, one, other) for one, other in pairwise(repeated))
    if len(comparison.groups) == 1:
        if repeated:
            return (
                f"One search with {len(comparison.sides)} seeds: hypervolume {_mean(comparison, repeated[0])}"
            )
        return "One search with one seed, more than once: only the machines differ"
    volumes = [f"`{side.label}` {comparison.volume(side):.3f}" for side in comparison.sides]
    return f"Hypervolume {', '.join(volumes)}; without other seeds of each nobody knows whether that is a difference"


def content(comparison: Comparison) -> dict[str, Any]:
    """Give what the page says as plain values, for `--json`."""
    return {
        "model": comparison.sides[0].run.manifest.model,
        "dataset": comparison.sides[0].run.manifest.dataset,
        "objective": comparison.objective.name,
        "fidelity": comparison.fidelity,
        "headline": headline(comparison).replace("`", ""),
        "warnings": list(_warnings(comparison)),
        "box": vars(comparison.box) if comparison.box else None,
        "differing": comparison.differing,
        "runs": [
            {
                "label": side.label,
                "folder": str(side.run.folder.path),
                "seed": side.seed,
                "measured": len(side.measured),
                "front": [item.digest for item in side.front],
                "relative_hypervolume": comparison.volume(side),
            }
            for side in comparison.sides
        ],
        "groups": [
            {
                "name": group.name,
                "runs": [side.label for side in group.sides],
                "seeds": list(group.seeds),
                "relative_hypervolume": vars(comparison.mean(group)) if comparison.box else None,
            }
            for group in comparison.groups
        ],
        "gains": [
            {"of": one.name, "over": other.name, **_plain(comparison.gain(one, other))}
            for one, other in pairwise(comparison.repeated)
        ],
        "configurations": [
            {
                "digest": digest,
                "executed_fraction": next(iter(items.values())).executed_fraction,
                "runs": [_entry(comparison, items, number) for number in items],
            }
            for digest, items in comparison.shared().items()
        ],
    }


def fronts(comparison: Comparison) -> Drawing:
    """Draw the fronts of all runs over each other; a colour is a group, a kind of line one of its runs."""
    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    axes = figure.add_subplot()
    drawing = Drawing(figure, f"fronts of {len(comparison.sides)} runs, {TRAINING[comparison.fidelity]}")
    for number, side, look in _looks(comparison):
        at = [(100 * item.reduction, item.metrics[comparison.objective.name].value) for item in side.front]
        axes.plot(*zip(*at, strict=True), drawstyle="steps-pre", linewidth=1.2, **look)
        for item, (x, y) in zip(side.front, at, strict=True):
            if std := item.metrics[comparison.objective.name].std:
                axes.errorbar(x, y, std, color=look["color"], linewidth=0.8)
            (line,) = axes.plot(x, y, "o", color=look["color"], markeredgecolor=style.PAPER, markersize=6)
            line.set_gid(f"point-{number}-{item.digest}")
            drawing.points[f"point-{number}-{item.digest}"] = Point(
                _said(comparison, side, item), item.digest, f"m-{number}-{item.digest}"
            )
    axes.set_xlim(-4, 104)
    axes.set_xlabel(figures.reach_label(comparison.sides[0].run))
    axes.set_ylabel(f"{numbers.axis(comparison.objective)}, {numbers.better(comparison.objective)}")
    _legend(comparison, axes)
    style.stamp(axes, f"{comparison.sides[0].run.stamp}, {TRAINING[comparison.fidelity]}")
    drawing.data = _points(comparison)
    return drawing


def progress(comparison: Comparison) -> Drawing | None:
    """Draw the hypervolume of every search against the number of measurements; None where trainings differ."""
    searched = {side.run.search_fidelity for side in comparison.sides}
    handmade = [item for side in comparison.sides for item in side.run.strategies_among(side.run.candidates)]
    box = reference_of(handmade, comparison.objective)
    if len(searched) > 1 or box is None:
        return None
    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    axes = figure.add_subplot()
    rows: dict[str, list[float]] = {}
    for _, side, look in _looks(comparison):
        records = [item for item in side.run.results if item.fidelity == side.run.search_fidelity]
        reached = [
            pareto.hypervolume(records[:count], comparison.objective, box.worst) / box.height
            for count in range(1, len(records) + 1)
        ]
        axes.plot(range(1, len(records) + 1), reached, drawstyle="steps-post", linewidth=1.2, **look)
        rows[side.label] = reached
    axes.set_xlabel(f"number of measurements ({TRAINING[searched.pop()]})")
    axes.set_ylabel("relative hypervolume")
    axes.set_ylim(bottom=0)
    _legend(comparison, axes)
    style.stamp(axes, comparison.sides[0].run.stamp)
    longest = max(map(len, rows.values()))
    padded = {name: [*row, *[math.nan] * (longest - len(row))] for name, row in rows.items()}
    counts = list(range(1, longest + 1))
    data = hepdata.series("number of measurements", counts, "relative hypervolume", padded)
    return Drawing(figure, "hypervolume of every run against the number of measurements", data=data)


def _points(comparison: Comparison) -> str:
    """Give the members of every front as a table."""
    members = [(side, item) for side in comparison.sides for item in side.front]
    quantities = [item.metrics[comparison.objective.name] for _, item in members]
    independent = [
        Column("run", [side.label for side, _ in members]),
        Column(figures.reach_label(comparison.sides[0].run), [100 * item.reduction for _, item in members]),
    ]
    values = Column(
        numbers.axis(comparison.objective),
        [quantity.value for quantity in quantities],
        [quantity.std for quantity in quantities],
        "standard deviation",
    )
    return hepdata.text(independent, [values])


def _looks(comparison: Comparison) -> Iterator[tuple[int, Side, dict[str, Any]]]:
    """Number every run and choose its colour and line; where groups outnumber the colours, lines tell them apart."""
    for place, group in enumerate(comparison.groups):
        for repetition, side in enumerate(group.sides):
            turn = repetition if len(comparison.groups) <= len(COLOURS) else place // len(COLOURS)
            look: dict[str, Any] = {
                "color": COLOURS[place % len(COLOURS)],
                "linestyle": LINES[turn % len(LINES)],
            }
            yield comparison.sides.index(side), side, look | {"label": side.label}


def _legend(comparison: Comparison, axes: Axes) -> None:
    figure = axes.figure
    assert isinstance(figure, Figure)
    longest = max(len(side.label) for side in comparison.sides)
    legend = figure.legend(loc="outside lower center", ncols=max(1, min(4, 80 // (longest + 8))))
    rows = -(-len(legend.get_texts()) // max(1, min(4, 80 // (longest + 8))))
    figure.set_figheight(figure.get_figheight() + figures.LEGEND_ROW * rows)


def _said(comparison: Comparison, side: Side, item: Measurement) -> str:
    value = numbers.short(item.metrics[comparison.objective.name])
    return f"{side.label}, {side.run.name(item)}: {comparison.objective.label} {value}, {numbers.reach(item)}"


def _step(comparison: Comparison, one: Group, other: Group) -> str:
    gap = comparison.gain(one, other)
    basis = f"{gap.pairs} common seeds" if gap.pairs else "standard errors in quadrature"
    known = f"{numbers.sigmas(gap.sigmas)}, {basis}" if gap.sigmas is not None else basis
    return (
        f"{one.name} reaches hypervolume {_mean(comparison, one)}, {other.name} {_mean(comparison, other)}: "
        f"{numbers.plus_minus(gap.gain, gap.error)} more ({known})"
    )


def _mean(comparison: Comparison, group: Group) -> str:
    mean = comparison.mean(group)
    return f"{numbers.plus_minus(mean.value, mean.std)} over {mean.n} seeds"


def _warnings(comparison: Comparison) -> Iterator[str]:
    first = comparison.sides[0]
    if any(side.data != first.data for side in comparison.sides):
        yield "The runs have not seen the same data: their values differ for that alone."
    if any(side.run.manifest.preset != first.run.manifest.preset for side in comparison.sides):
        yield "The presets differ, so the networks do: compare what each gains over its own float network."
    open_ones = [side.label for side in comparison.sides if not side.run.manifest.ended]
    if open_ones:
        yield f"Not ended yet: {', '.join(open_ones)}."
    counts = {len(side.run.candidates) for side in comparison.sides}
    if len(counts) > 1:
        yield f"The searches have measured {min(counts)} to {max(counts)} configurations: more find more."


def _link(side: Side, folder: Path) -> Cell:
    page = side.run.folder.report / "index.html"
    href = os.path.relpath(page, folder) if page.is_file() else ""
    return Cell(side.label, f"seed {side.seed}", href)


def _runs(comparison: Comparison, folder: Path) -> Table:
    titles = ("run", "settings", "measured", "failed", "on the front", "relative hypervolume", "ended")
    groups = {side.label: group.name for group in comparison.groups for side in group.sides}

    def row(side: Side) -> tuple[Cell, ...]:
        volume = comparison.volume(side)
        return (
            _link(side, folder),
            Cell(groups[side.label]),
            Cell(str(len(side.measured)), value=len(side.measured)),
            Cell(str(len(side.run.failures)), value=len(side.run.failures)),
            Cell(str(len(side.front)), value=len(side.front)),
            Cell("" if volume is None else f"{volume:.3f}", value=volume),
            Cell((side.run.manifest.ended or "no")[:16].replace("T", " ")),
        )

    words = (True, True, False, False, False, False, True)
    return Table(titles, words, tuple(row(side) for side in comparison.sides))


def _settings(comparison: Comparison) -> Table:
    titles = ("setting", *(side.label for side in comparison.sides))
    rows = tuple((Cell(name), *map(Cell, values)) for name, values in comparison.differing.items())
    return Table(titles, (True,) * len(titles), rows)


def _members(comparison: Comparison, folder: Path) -> Table:
    titles = (
        "run",
        "#",
        "configuration",
        numbers.axis(comparison.objective),
        "quantised",
        "file size",
        "file",
    )
    rows: list[tuple[Cell, ...]] = []
    digests: list[str] = []
    anchors: list[str] = []
    for number, side in enumerate(comparison.sides):
        for place, item in enumerate(side.front, 1):
            quantity = item.metrics[comparison.objective.name]
            file = side.run.model_file(item)
            href = os.path.relpath(side.run.folder.path.resolve() / file, folder.resolve()) if file else ""
            rows.append((
                _link(side, folder),
                Cell(str(place), value=place),
                Cell(f"`{side.run.name(item)}`", ", ".join(item.options.values())),
                Cell(numbers.short(quantity), f"n = {quantity.n}", value=quantity.value),
                Cell(numbers.reach(item), value=item.reduction),
                Cell(numbers.size(item.size_bytes), value=item.size_bytes),
                Cell(file.name if file else "", href=href),
            ))  # fmt: skip
            digests.append(item.digest)
            anchors.append(f"{number}-{item.digest}")
    words = (True, False, True, False, False, False, True)
    return Table(titles, words, tuple(rows), tuple(digests), tuple(anchors))


def _shared(comparison: Comparison) -> Table:
    titles = ("configuration", "quantised", *(side.label for side in comparison.sides))

    def cell(items: Mapping[int, Measurement], number: int) -> Cell:
        if number not in items:
            return Cell("")
        quantity = items[number].metrics[comparison.objective.name]
        gap = comparison.difference(items, number)
        note = f"n = {quantity.n}" if gap is None else _note(comparison, gap)
        return Cell(numbers.short(quantity), note, value=quantity.value)

    shared = comparison.shared()
    rows = tuple(
        (
            Cell(f"`{comparison.sides[min(items)].run.name(items[min(items)])}`"),
            Cell(numbers.reach(items[min(items)]), value=items[min(items)].reduction),
            *(cell(items, number) for number in range(len(comparison.sides))),
        )
        for items in shared.values()
    )
    return Table(titles, (True, *(False,) * (len(titles) - 1)), rows, tuple(shared), tuple(shared))


def _note(comparison: Comparison, gap: Difference) -> str:
    if not gap.gain:
        return "the same"
    return ", ".join([decision.change(comparison.sides[0].run, gap), *(["paired"] if gap.pairs else [])])


def _entry(comparison: Comparison, items: Mapping[int, Measurement], number: int) -> dict[str, Any]:
    quantity = items[number].metrics[comparison.objective.name]
    gap = comparison.difference(items, number)
    entry = {
        "run": comparison.sides[number].label,
        "value": quantity.value,
        "std": quantity.std,
        "n": quantity.n,
    }
    return entry | ({"against_first": _plain(gap)} if gap else {})


def _plain(gap: Difference) -> dict[str, float | int | None]:
    return {"gain": gap.gain, "error": gap.error, "pairs": gap.pairs, "sigmas": gap.sigmas}
