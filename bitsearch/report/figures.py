"""Figures of the search: performance against quantised fraction, which layers, hypervolume."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from bitsearch.core import pareto
from bitsearch.core.front import reference_of
from bitsearch.core.measurement import Measurement, Metric, Quantity
from bitsearch.core.names import printable
from bitsearch.core.precision import Precision
from bitsearch.report import hepdata, numbers, style
from bitsearch.report.style import Drawing, Point
from bitsearch.report.view import TRAINING, Run

LONG_NAME = 24
LEGEND_ROW = 0.22
"""Inches, so that a long legend takes nothing from the axes."""
MARKERS = "sD^vp<>h"
DASHED = (0, (4, 3))
COLOURS = {Precision.TERNARY: style.BLUE, Precision.BINARY: style.PURPLE, Precision.INT8: style.GREEN}


def performance(
    run: Run, metric: Metric, measured: Sequence[Measurement], front: Sequence[Measurement]
) -> Drawing:
    """Draw `metric` against the executed quantised fraction for configurations of one fidelity.

    The staircase and the knee belong to the front of the objective, and are left out for any other metric.
    """
    having = [item for item in measured if metric.name in item.metrics]
    front = [item for item in front if metric.name in item.metrics]
    strategies = run.strategies_among(having)
    is_objective = metric == run.objective
    figure = Figure(layout="constrained")
    against = "bits saved" if run.counts_bits else "quantised fraction"
    drawing = Drawing(figure, f"{metric.label} against {against}, {TRAINING[measured[0].fidelity]}")
    core = {item.digest for item in [*front, *strategies]} if is_objective else set()
    plane = _Plane(figure.add_subplot(), drawing, run, metric, core)
    plane.limit([*front, *strategies] or having, having)
    plane.reference(run.reference_among(having))
    chosen = {item.digest for item in [*front, *strategies]}
    plane.cloud([item for item in having if item.digest not in chosen])
    if is_objective:
        plane.staircase(front)
    plane.points(
        [item for item in front if item.digest not in run.names], "o", style.BLUE, "front of the search"
    )
    for index, item in enumerate(strategies):
        plane.points([item], MARKERS[index % len(MARKERS)], style.ORANGE, run.name(item))
    plane.number([item for item in front if item.fidelity == run.fidelity])
    style.stamp(plane.axes, f"{run.stamp}, {TRAINING[measured[0].fidelity]}")
    longest = max((len(name) for name in run.names.values()), default=0)
    columns = (3 if is_objective else 2) - (longest > LONG_NAME)
    legend = figure.legend(loc="outside lower center", ncols=columns)
    width, height = (6.4, 4.2) if is_objective else (4.6, 3.3)
    rows = math.ceil(len(legend.get_texts()) / columns)
    figure.set_size_inches(width, height + rows * LEGEND_ROW)
    names, places = [run.name(item) for item in having], [run.place(item) for item in having]
    drawing.data = hepdata.performance(reach_label(run), metric, having, names, places)
    if not is_objective:  # the marks are those of the first figure of a page
        drawing.below = rows * LEGEND_ROW / (height + rows * LEGEND_ROW)
    return drawing


def reach_label(run: Run) -> str:
    """Label the axis that configurations are held to each other along."""
    if run.counts_bits:
        return "bits saved of a linear weight's 32, in the mean [%]"
    return "quantised fraction of the executed parameters [%]"


@dataclass(frozen=True)
class _Plane:
    """Axes of one metric against quantised fraction; call `limit` first, it says what is outside.

    The keyboard reaches the points of `core`; the pointer reaches all.
    """

    axes: Axes
    drawing: Drawing
    run: Run
    metric: Metric
    core: set[str]

    def quantity(self, item: Measurement) -> Quantity:
        return item.metrics[self.metric.name]

    def at(self, item: Measurement) -> tuple[float, float]:
        """Place a configuration; one beyond the range sits on its edge."""
        low, high = self.axes.get_ylim()
        return 100 * item.reduction, min(max(self.quantity(item).value, low), high)

    def limit(self, core: Sequence[Measurement], everything: Sequence[Measurement]) -> None:
        """Fit the axes to `core` and a little beyond: one diverged trial must not flatten the front."""
        bounds = [(self.quantity(item).value, self.quantity(item).std or 0.0) for item in core]
        low, high = min(value - std for value, std in bounds), max(value + std for value, std in bounds)
        reach = 0.35 * (high - low) or 0.1 * abs(high) or 1.0
        values = [self.quantity(item).value for item in everything]
        low, high = min(low, max(min(values), low - reach)), max(high, min(max(values), high + reach))
        margin = 0.08 * (high - low) or reach
        self.axes.set(xlim=(-4, 104), ylim=(low - margin, high + margin))
        self.axes.set_xlabel(reach_label(self.run))
        self.axes.set_ylabel(f"{numbers.axis(self.metric)}, {numbers.better(self.metric)}")

    def reference(self, item: Measurement | None) -> None:
        if item is None:
            return
        value, std = self.quantity(item).value, self.quantity(item).std or 0.0
        self.axes.axhline(value, color=style.INK, linestyle=DASHED, linewidth=0.9, label="float reference")
        self.axes.axhspan(value - std, value + std, color=style.FAINT, linewidth=0, zorder=0)

    def cloud(self, items: Sequence[Measurement]) -> None:
        for item in items:
            self._mark(item, "o", style.MUTED, "none", 4.5)
        if items:
            self.axes.plot(
                [], [], "o", color=style.MUTED, mfc="none", ms=4.5, label="measured, not on the front"
            )

    def points(self, items: Sequence[Measurement], marker: str, colour: str, label: str) -> None:
        for item in items:
            if std := self.quantity(item).std:
                self.axes.errorbar(*self.at(item), std, color=colour, linewidth=1)
            self._mark(item, marker, colour, colour, 7)
        if items:
            self.axes.plot([], [], marker, color=colour, mec=style.PAPER, ms=7, label=label)

    def staircase(self, front: Sequence[Measurement]) -> None:
        """Join the front by what it guarantees: the best performance at or above a fraction."""
        self.axes.plot(
            *zip(*map(self.at, front), strict=True), color=style.BLUE, ds="steps-pre", linewidth=1.2
        )
        if knee := pareto.knee(front, self.metric):
            self.axes.plot(*self.at(knee), "o", color=style.GREEN, mfc="none", ms=15)
            self.axes.plot([], [], "o", color=style.GREEN, mfc="none", ms=9, label="knee of the front")

    def number(self, front: Sequence[Measurement]) -> None:
        """Number the members on the better side; where they crowd, only some (the pointer finds all)."""
        down = -1 if self.metric.direction == "minimize" else 1
        to_axes = self.axes.transData + self.axes.transAxes.inverted()
        placed: list[tuple[float, float]] = []
        for item in front:
            right = item.reduction < 0.95
            x, y = to_axes.transform(self.at(item))
            x += 0.02 if right else -0.05  # where the number stands, not its point
            if any(abs(x - other) < 0.045 and abs(y - height) < 0.05 for other, height in placed):
                continue
            placed.append((x, y))
            self.axes.annotate(
                self.run.place(item),
                self.at(item),
                (8 if right else -18, 9 * down),
                textcoords="offset points",
                va="center",
                fontsize=10,
            )

    def _mark(self, item: Measurement, marker: str, colour: str, face: str, size: float) -> None:
        """Draw one point as its own artist, so that it can carry its own text; an arrow if out of range."""
        low, high = self.axes.get_ylim()
        value = self.quantity(item).value
        outside = not low <= value <= high
        edge = colour if face == "none" else style.PAPER
        (line,) = self.axes.plot(
            *self.at(item),
            color=colour,
            marker=("^" if value > high else "v") if outside else marker,
            clip_on=not outside,
            zorder=2 if face == "none" else 4,
        )
        line.set(markersize=size, markerfacecolor=face, markeredgecolor=edge, markeredgewidth=0.8)
        line.set_gid(f"point-{item.digest}")
        place = self.run.place(item)
        self.drawing.points[f"point-{item.digest}"] = Point(
            f"{self.run.name(item)}{f' (front member {place})' if place else ''}: "
            f"{self.metric.label} {numbers.short(self.quantity(item))}, "
            f"{numbers.reach(item)}{'' if self.run.counts_bits else ' quantised'}, {numbers.size(item.size_bytes)}",
            item.digest,
            self.run.anchor(item),
            item.digest in self.core,
        )


def layers(run: Run) -> Drawing | None:
    """Draw which groups of layers each front member quantises; None where groups or front are missing."""
    groups = run.groups
    if not groups or not run.front:
        return None
    total = sum(sum(weights.values()) for weights in groups.values())
    rows, columns = len(groups), len(run.front)
    figure = Figure(figsize=(3.6 + 0.34 * columns, max(3.0, 1.5 + 0.235 * rows)), layout="constrained")
    share, cells = figure.subplots(1, 2, sharey=True, width_ratios=(1.0, max(0.34 * columns, 0.7)))
    shares = [100 * sum(weights.values()) / total for weights in groups.values()]
    share.barh(range(rows), shares, color=style.MUTED, height=0.6)
    share.set_xlabel("share of linear\nweights [%]", loc="center", fontsize=10.5)
    share.set_yticks(range(rows), [printable(name) for name in groups])
    share.set_ylim(rows - 0.5, -0.5)
    for row, weights in enumerate(groups.values()):
        for column, item in enumerate(run.front):
            _cell(cells, column, row, weights, item)
    cells.set_xlim(-0.5, columns - 0.5)
    heads = [
        f"{run.place(item)}:  {numbers.reach(item)}  {run.names.get(item.digest, '')}" for item in run.front
    ]
    cells.set_xticks(range(columns), heads, rotation=90, fontsize=10.5)
    cells.xaxis.set_ticks_position("top")
    heading = "bits a weight" if run.counts_bits else "executed fraction"
    cells.set_title(f"front member: {heading}", fontsize=10.5, loc="center")
    for axes in (share, cells):
        axes.tick_params(which="both", length=0)
        axes.minorticks_off()
        axes.spines[:].set_visible(False)
    style.stamp(cells, run.stamp)
    precisions = {
        f"{head.strip()} ({item.digest})": [_precisions(weights, item) for weights in groups.values()]
        for head, item in zip(heads, run.front, strict=True)
    }
    data = hepdata.series("group of layers", list(groups), "precision", precisions)
    return Drawing(figure, "groups of layers that each front member quantises", data=data)


def _precisions(weights: Mapping[str, int], item: Measurement) -> str:
    """Name the precisions of a group."""
    return ", ".join(dict.fromkeys(item.assignment.get(name, "") for name in weights))


def _cell(axes: Axes, column: int, row: int, weights: Mapping[str, int], item: Measurement) -> None:
    """Fill a cell from the left by the share of its weights in each precision below float32."""
    left, bottom, width, height = column - 0.42, row - 0.4, 0.84, 0.8
    total = sum(weights.values()) or 1
    axes.add_patch(Rectangle((left, bottom), width, height, fc="none", ec=style.FAINT, linewidth=0.8))
    for precision, colour in COLOURS.items():
        part = sum(count for name, count in weights.items() if item.assignment.get(name) == precision)
        if part:
            axes.add_patch(Rectangle((left, bottom), width * part / total, height, fc=colour, ec="none"))
            left += width * part / total


def hypervolume(run: Run) -> Drawing | None:
    """Draw the hypervolume of the search against the number of measurements; None before it has begun."""
    records = [item for item in run.results if item.fidelity == run.search_fidelity]
    usable = [item for item in records if pareto.usable(item, run.objective)]
    strategies = run.strategies_among(usable)
    reference = reference_of(strategies, run.objective)
    if not run.searched or reference is None:
        return None
    counts = range(1, len(records) + 1)
    worst, ideal = reference.worst, reference.height
    reached = [pareto.hypervolume(records[:count], run.objective, worst) / ideal for count in counts]
    handmade = pareto.hypervolume(strategies, run.objective, worst) / ideal
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(counts, reached, color=style.BLUE, drawstyle="steps-post", label="all measurements so far")
    axes.axhline(handmade, color=style.ORANGE, linestyle=DASHED, label=f"{run.rivals} alone")
    axes.set_xlabel(f"number of measurements ({TRAINING[run.search_fidelity]})")
    axes.set_ylabel("relative hypervolume")
    axes.set_ylim(0, 1.08 * max(*reached, handmade, 0.1))
    axes.legend(loc="lower right")
    style.stamp(axes, run.stamp)
    rows = {"all measurements so far": reached, f"{run.rivals} alone": [handmade] * len(reached)}
    data = hepdata.series("number of measurements", list(counts), "relative hypervolume", rows)
    return Drawing(figure, "hypervolume against the number of measurements", data=data)
