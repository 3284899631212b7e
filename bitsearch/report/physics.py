"""Physics plots: generated against reference, every shown configuration in one picture."""

import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Generic, TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from bitsearch.core.measurement import Curve, Evaluation, Histogram, Map, Profile
from bitsearch.core.names import safe_name
from bitsearch.report import hepdata, numbers, style
from bitsearch.report.style import Draw, Drawing, Key
from bitsearch.report.view import Run

COLOURS = (style.BLUE, style.ORANGE, style.GREEN, style.PURPLE)
WIDTHS = (2.6, 1.8, 1.3, 1.0)
"""Points, wide below narrow, so that curves which agree all stay visible."""
DRAWN = 12
"""Histograms on the page; the table of all lies beside it."""
FEW = 5
"""A ratio is drawn where the reference has at least this many entries: below, it says nothing."""
STEEP = 0.5
"""Where one bin holds more than this share, only a logarithmic axis shows the others."""
LARGE = 1e4
"""MeV up to which an axis stays in them."""
LABEL = 34
"""Characters of an axis label that fit beside the upper panel."""
Plot = TypeVar("Plot", Histogram, Profile, Curve, Map)


@dataclass(frozen=True)
class Drawn(Generic[Plot]):
    """One configuration's version of a plot."""

    label: str
    colour: str
    width: float
    plot: Plot


def figures(run: Run) -> Iterator[tuple[str, Draw]]:
    """Give (file name, function that draws) of every plot of the shown evaluations.

    A new kind of plot takes a field of `Evaluation`, a function like `histogram` and a line here.
    """
    shown = run.shown()
    drawings = [
        *_each(shown, _in_units(telling(shown)), histogram, hepdata.histogram, "histogram"),
        *_each(shown, lambda evaluation: evaluation.profiles, profile, hepdata.profile, "profile"),
        *_each(shown, lambda evaluation: evaluation.curves, curve, hepdata.curve, "curve"),
        *_each(shown, lambda evaluation: evaluation.maps, density, hepdata.density, "map"),
    ]
    yield from ((name, partial(_stamped, draw, run.stamp)) for name, draw in drawings)


def plots(shown: Sequence[tuple[str, Evaluation]]) -> dict[str, tuple[str, ...]]:
    """Name the figures that show each evaluation, by its digest."""
    chosen = telling(shown)
    return {
        evaluation.digest: tuple(
            f"{kind}-{safe_name(plot.name)}"
            for kind, members in (
                ("histogram", chosen(evaluation)),
                ("profile", evaluation.profiles),
                ("curve", evaluation.curves),
                ("map", evaluation.maps),
            )
            for plot in members
        )
        for _, evaluation in shown
    }


def _stamped(draw: Callable[[], Drawing], text: str) -> Drawing:
    drawing = draw()
    last = drawing.description.startswith("map ")  # panels stand side by side
    style.stamp(drawing.figure.axes[-1 if last else 0], text)
    return drawing


def telling(shown: Sequence[tuple[str, Evaluation]]) -> Callable[[Evaluation], Sequence[Histogram]]:
    """Choose the histograms to draw: the one furthest apart of every kind, then the next; kinds differ in numbers."""
    separation: dict[str, float] = {}
    for _, evaluation in shown:
        for item in evaluation.histograms:
            separation[item.name] = max(separation.get(item.name, 0.0), item.separation.value)
    rank: dict[str, tuple[int, float]] = {}
    seen: dict[str, int] = {}
    for name in sorted(separation, key=lambda name: separation[name], reverse=True):
        kind = re.sub(r"\d+", "#", name)
        rank[name] = seen.get(kind, 0), -separation[name]
        seen[kind] = seen.get(kind, 0) + 1
    chosen = set(sorted(rank, key=lambda name: rank[name])[:DRAWN])
    return lambda evaluation: [item for item in evaluation.histograms if item.name in chosen]


def _each(
    shown: Sequence[tuple[str, Evaluation]],
    plots: Callable[[Evaluation], Sequence[Plot]],
    draw: Callable[[Sequence[Drawn[Plot]]], Figure],
    tabulate: Callable[[Mapping[str, Plot]], str],
    kind: str,
) -> Iterator[tuple[str, Callable[[], Drawing]]]:
    """Bring the same plot of all evaluations together, to be drawn once."""
    curves: dict[str, list[Drawn[Plot]]] = {}
    for (label, evaluation), colour, width in zip(shown, COLOURS, WIDTHS, strict=False):
        for plot in plots(evaluation):
            curves.setdefault(plot.name, []).append(Drawn(label, colour, width, plot))
    for name, members in curves.items():
        yield f"{kind}-{safe_name(name)}", partial(_drawn, draw, tabulate, members, f"{kind} {name}")


def _drawn(
    draw: Callable[[Sequence[Drawn[Plot]]], Figure],
    tabulate: Callable[[Mapping[str, Plot]], str],
    members: Sequence[Drawn[Plot]],
    what: str,
) -> Drawing:
    data = tabulate({item.label: item.plot for item in members})
    keys = tuple(Key(item.label, item.colour, _separation(item.plot)) for item in members)
    figure = draw(members)
    drawing = Drawing(figure, what, data=data)
    if not what.startswith("map "):  # whose panels have titles instead
        # A little below the legend, for numbers at the top of the axis.
        drawing.keys, drawing.above = keys, 1 - figure.subplotpars.top - 0.02
    return drawing


def _separation(plot: object) -> str:
    return f"S = {numbers.short(plot.separation)}" if isinstance(plot, Histogram) else ""


def _in_units(
    chosen: Callable[[Evaluation], Sequence[Histogram]],
) -> Callable[[Evaluation], Sequence[Histogram]]:
    return lambda evaluation: [scaled(item) for item in chosen(evaluation)]


def scaled(plot: Histogram) -> Histogram:
    """Give a histogram of MeV that goes beyond ten thousand in GeV, beyond ten million in TeV."""
    label, found, _ = plot.label.rpartition("[MeV]")
    if not found or plot.edges[-1] <= LARGE:
        return plot
    unit, factor = ("TeV", 1e6) if plot.edges[-1] > 1e3 * LARGE else ("GeV", 1e3)
    return replace(plot, label=f"{label}[{unit}]", edges=tuple(edge / factor for edge in plot.edges))


def histogram(curves: Sequence[Drawn[Histogram]]) -> Figure:
    """Draw shares per bin and their ratio to the reference; the legend holds the separation power S."""
    first = curves[0].plot
    edges = np.asarray(first.edges)
    figure, main, ratio = _panels(len(curves))
    reference = _shares(first.reference)
    main.stairs(reference, edges, fill=True, color=style.FAINT, label="reference")
    main.stairs(reference, edges, color=style.MUTED, linewidth=0.9)
    counts = np.asarray(first.reference, np.float64)
    error = np.where(counts >= FEW, _ratio(np.sqrt(counts), counts), np.nan)
    ratio.stairs(1 + error, edges, baseline=1 - error, fill=True, color=style.FAINT)
    for curve in curves:
        generated = _shares(curve.plot.generated)
        label = f"{curve.label}, $S$ = {numbers.short(curve.plot.separation)}"
        main.stairs(generated, edges, color=curve.colour, linewidth=curve.width, label=label)
        shares, spreads = _compared(curve.plot)
        ratio.stairs(shares, edges, baseline=None, color=curve.colour, linewidth=curve.width)
        centres = np.sqrt(edges[1:] * edges[:-1]) if _geometric(first) else (edges[1:] + edges[:-1]) / 2
        ratio.errorbar(centres, shares, spreads, fmt="none", ecolor=curve.colour, elinewidth=0.8, capsize=0)
    highest = np.max([reference, *(_shares(curve.plot.generated) for curve in curves)], axis=0)
    steep = first.logarithmic or bool(highest.max() > STEEP)
    occupied = np.flatnonzero(highest > (0 if steep else 1e-3 * highest.max()))
    if occupied.size:
        main.set_xlim(edges[occupied[0]], edges[occupied[-1] + 1])
    if steep:
        main.set_yscale("log")
    else:
        main.set_ylim(bottom=0)
    if _geometric(first):
        main.set_xscale("log")
    main.set_ylabel("share of entries per bin")
    _finish(main, ratio, first.label)
    return figure


def profile(curves: Sequence[Drawn[Profile]]) -> Figure:
    """Draw means along a coordinate and their ratio to the reference."""
    first = curves[0].plot
    figure, main, ratio = _panels(len(curves))
    reference = np.asarray(first.reference)
    main.plot(first.positions, reference, "o", color=style.MUTED, markersize=6, label="reference")
    for curve in curves:
        generated = np.asarray(curve.plot.generated)
        main.plot(
            curve.plot.positions, generated, ".-", color=curve.colour, lw=curve.width, label=curve.label
        )
        ratio.plot(
            curve.plot.positions, _ratio(generated, reference), ".-", color=curve.colour, lw=curve.width
        )
    ratio.axhline(1, color=style.MUTED, linewidth=0.9, zorder=0)
    if reference.min() > 0 and reference.max() > 50 * reference.min():
        main.set_yscale("log")
    _label(main, first.label)
    _finish(main, ratio, first.position_label)
    return figure


def curve(curves: Sequence[Drawn[Curve]]) -> Figure:
    """Draw a curve of every configuration, with its band over trainings."""
    first = curves[0].plot
    figure = Figure(figsize=(4.6, 4.3))
    figure.subplots_adjust(left=0.16, right=0.94, bottom=0.125, top=0.94 - 0.045 * len(curves))
    axes = figure.subplots()
    if first.diagonal:
        axes.plot((0, 1), (0, 1), color=style.MUTED, linewidth=0.9, linestyle="--")
    for item in curves:
        plot = item.plot
        axes.plot(plot.positions, plot.values, color=item.colour, lw=item.width, label=item.label)
        if plot.low and plot.high:
            axes.fill_between(plot.positions, plot.low, plot.high, color=item.colour, alpha=0.2, linewidth=0)
    if first.logarithmic:
        axes.set_yscale("log")
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=1, borderaxespad=0.2, labelspacing=0.25)
    axes.set_xlabel(first.position_label)
    axes.set_ylabel(first.label)
    return figure


def density(maps: Sequence[Drawn[Map]]) -> Figure:
    """Draw events in two dimensions, one panel a configuration, all with the same scale of shares."""
    width = 1.1 + 3.2 * len(maps)
    figure = Figure(figsize=(width, 3.7))
    figure.subplots_adjust(left=0.7 / width, right=1 - 0.4 / width, bottom=0.15, top=0.9, wspace=0.06)
    panels = figure.subplots(1, len(maps), sharex=True, sharey=True, squeeze=False)[0]
    shares = [np.asarray(item.plot.counts) / max(np.sum(item.plot.counts), 1.0) for item in maps]
    highest = max(float(values.max()) for values in shares) or 1.0
    for axes, item, values in zip(panels, maps, shares, strict=True):
        edges = item.plot.x_edges, item.plot.y_edges
        # One colour of the page, more opaque where more events lie, over two decades.
        opacity = np.clip(1 + 0.45 * np.log10(np.maximum(values.T / highest, 1e-9)), 0.1, 1)
        visible = np.ma.masked_where(values.T == 0, np.zeros_like(values.T))
        axes.pcolormesh(*edges, visible, cmap=ListedColormap([style.BLUE]), alpha=opacity)
        axes.set_title(item.label)
        axes.set_xlabel(item.plot.x_label)
    # The last number of a panel would meet the first of the next.
    panels[0].xaxis.set_major_locator(MaxNLocator(5, prune="upper"))
    panels[0].set_ylabel(maps[0].plot.y_label)
    return figure


def _panels(curves: int) -> tuple[Figure, Axes, Axes]:
    """Leave room for the legend above; margins are fixed, since computing them doubles the time."""
    figure = Figure(figsize=(4.6, 4.3))
    figure.subplots_adjust(left=0.16, right=0.94, bottom=0.125, top=0.94 - 0.045 * curves, hspace=0.08)
    main, ratio = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1))
    return figure, main, ratio


def _finish(main: Axes, ratio: Axes, label: str) -> None:
    main.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=1, borderaxespad=0.2, labelspacing=0.25)
    ratio.set_xlabel(label)
    ratio.set_ylabel("ratio", loc="center", fontsize=11)
    ratio.set_ylim(0.5, 1.5)
    ratio.set_yticks([0.75, 1.0, 1.25])  # off the border, where the upper panel's lowest number stands


def _label(axes: Axes, text: str) -> None:
    """Label the upper panel; a long label takes two lines, for which the panel makes room."""
    lines = textwrap.wrap(text, LABEL, break_long_words=False) if "$" not in text else [text]
    axes.set_ylabel("\n".join(lines))
    if len(lines) > 1:
        assert isinstance(axes.figure, Figure)
        axes.figure.subplots_adjust(left=0.16 + 0.05 * (len(lines) - 1))


def _geometric(plot: Histogram) -> bool:
    return plot.logarithmic and plot.edges[0] > 0


def _compared(plot: Histogram) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Divide generated by reference shares, with the statistical uncertainty; gaps where the reference has few."""
    reference, generated = np.asarray(plot.reference, np.float64), np.asarray(plot.generated, np.float64)
    enough = reference >= FEW
    ratio = np.where(enough, _ratio(_shares(plot.generated), _shares(plot.reference)), np.nan)
    relative = np.sqrt(
        _ratio(np.ones_like(generated), generated) + _ratio(np.ones_like(reference), reference)
    )
    return ratio, np.where(enough & (generated > 0), ratio * relative, np.nan)


def _shares(counts: Sequence[float]) -> NDArray[np.float64]:
    values = np.asarray(counts, dtype=np.float64)
    return np.divide(values, values.sum() or 1.0, dtype=np.float64)


def _ratio(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide, with gaps where the reference is empty."""
    gaps = np.full(len(below), np.nan)
    np.divide(above, below, out=gaps, where=below > 0)
    return gaps
