"""Tables as the page prints them."""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from bitsearch.core import pareto
from bitsearch.core.measurement import Measurement, Metric, Quantity
from bitsearch.report import numbers
from bitsearch.report.view import TRAINING, Run


@dataclass(frozen=True)
class Cell:
    """What stands in a table: a text, a smaller note under it, a link, and the number that rows are sorted by.

    `strip` is a drawing in characters beside the text, which screen readers skip.
    """

    text: str
    note: str = ""
    href: str = ""
    value: float | None = None
    strip: str = ""


def origin(item: Measurement) -> str:
    """Say who proposed a configuration; what is finally trained and no ladder's was the search's."""
    kind = item.origin.partition(":")[0]
    return "search" if kind == "final" else kind


@dataclass(frozen=True)
class Column:
    """A title and how to fill its cells; `words` are set left, numbers right."""

    title: str
    cell: Callable[[Measurement], Cell]
    words: bool = False


@dataclass(frozen=True)
class Table:
    """Titles, for each column whether it holds words, and rows.

    `digests` says which configuration a row shows, `anchors` are the last parts of the ids of rows.
    """

    titles: tuple[str, ...]
    words: tuple[bool, ...]
    rows: tuple[tuple[Cell, ...], ...]
    digests: tuple[str, ...] = ()
    anchors: tuple[str, ...] = ()

    @classmethod
    def of(cls, members: Iterable[Measurement], columns: Sequence[Column]) -> "Table":
        """Fill one row a measurement; columns that would stay empty are left out."""
        members = list(members)
        filled = [(column, [column.cell(item) for item in members]) for column in columns]
        filled = [(column, cells) for column, cells in filled if any(cell.text for cell in cells)]
        return cls(
            titles=tuple(column.title for column, _ in filled),
            words=tuple(column.words for column, _ in filled),
            rows=tuple(zip(*(cells for _, cells in filled), strict=True)),
            digests=tuple(item.digest for item in members),
            anchors=tuple(item.digest for item in members),
        )


def performance(run: Run, members: Sequence[Measurement]) -> Table:
    """Show what a configuration achieves and how much of it is quantised."""
    reference = run.reference
    whole = reference.size_bytes if reference else 0

    def size(item: Measurement) -> Cell:
        is_reference = reference is not None and item.digest == reference.digest
        note = "float reference" if is_reference else numbers.smaller(item.size_bytes, whole)
        return Cell(numbers.size(item.size_bytes), note, value=item.size_bytes)

    columns = [
        _place(run),
        _configuration(run),
        *(_metric(metric, members) for metric in run.metrics.values()),
        Column("bits a weight", lambda item: _bits(item.mean_bits)),
        Column("quantised, executed layers", lambda item: _share(item.executed_fraction)),
        Column("all parameters", lambda item: _share(item.fraction)),
        Column("linear weights", lambda item: _share(item.weight_fraction)),
        Column("file size", size),
        Column("origin", lambda item: Cell(origin(item), TRAINING[item.fidelity]), words=True),
    ]
    table = Table.of(members, columns)
    return replace(table, rows=(*table.rows, *_yardsticks(run, members, table.titles)))


def _yardsticks(
    run: Run, members: Sequence[Measurement], titles: Sequence[str]
) -> Iterator[tuple[Cell, ...]]:
    """Give a row to every simple estimator, so that no result stands without its measure."""
    title_of = {name: _metric(metric, members).title for name, metric in run.metrics.items()}
    for name in dict.fromkeys(item.name for item in run.yardsticks):
        values = {
            title_of[item.metric]: numbers.short(item.quantity)
            for item in run.yardsticks
            if item.name == name and item.metric in title_of
        }
        values |= {"configuration": f"{name} alone", "origin": "no training"}
        yield tuple(Cell(values.get(title, "")) for title in titles)


def serving(run: Run, members: Sequence[Measurement]) -> Table:
    """Show how fast and how faithfully a configuration runs, and the file to serve."""
    conditions = {numbers.batch(latency): None for item in members for latency in item.latency_us}

    def latency(title: str, item: Measurement) -> Cell:
        found = next((entry for entry in item.latency_us if numbers.batch(entry) == title), None)
        if found is None:
            return Cell("")
        notes = [f"IQR {numbers.duration_us(found.spread_us)}"]
        notes += [] if found.ratio is None else [f"{numbers.number(found.ratio, 3)} of float"]
        notes += ["busy machine"] if found.busy else []
        return Cell(numbers.duration_us(found.median_us), ", ".join(notes), value=found.median_us)

    def parity(item: Measurement) -> Cell:
        if item.parity is None:
            return Cell("")
        difference = item.parity.output_mean_difference
        note = "means: none finite" if difference is None else f"means: {numbers.magnitude(difference)}"
        return Cell(f"{100 * item.parity.output_agreement:.2f} %", note, value=item.parity.output_agreement)

    def layer_error(item: Measurement) -> Cell:
        if item.parity is None:
            return Cell("")
        error = item.parity.layer_max_error
        return Cell(numbers.magnitude(error), f"{item.parity.layers} layers", value=error)

    def kernel(item: Measurement) -> Cell:
        return Cell(", ".join({entry.kernel: None for entry in item.latency_us if entry.kernel}))

    def file(item: Measurement) -> Cell:
        path = run.model_file(item)
        return Cell(path.as_posix(), href=f"../{path.as_posix()}") if path else Cell("")

    columns = [
        _place(run),
        Column("configuration", lambda item: _linked(run, item), words=True),
        *(Column(title.replace(", ", ",\n"), functools.partial(latency, title)) for title in conditions),
        Column("kernel", kernel, words=True),
        Column("events as in torch", parity),
        Column("layer error", layer_error),
        Column("file to serve", file, words=True),
    ]
    return Table.of(members, columns)


def measurements(run: Run) -> Table:
    """Show everything that was measured successfully, whatever its training."""
    names = list(run.groups)

    def strip(item: Measurement) -> Cell:
        weights = run.groups
        marks = [_mark({item.assignment.get(name, "") for name in weights[group]}) for group in names]
        quantized = sum(mark != FLOAT for mark in marks)
        return Cell(f"{quantized} of {len(marks)}", value=quantized, strip="".join(marks))

    def option(name: str, item: Measurement) -> Cell:
        return Cell(item.options.get(name, ""))

    usable = [item for item in run.results if pareto.usable(item, run.objective)]
    members = list({(item.digest, item.fidelity): item for item in usable}.values())
    columns = [
        Column("configuration", lambda item: _linked(run, item), words=True),
        *(Column(name, functools.partial(option, name), words=True) for name in run.manifest.options),
        _metric(run.objective, members),
        Column("quantised, executed layers", lambda item: _share(item.executed_fraction)),
        Column("file size", lambda item: Cell(numbers.size(item.size_bytes), value=item.size_bytes)),
        Column("training", lambda item: Cell(TRAINING[item.fidelity]), words=True),
        Column("origin", lambda item: Cell(origin(item)), words=True),
        Column("groups of layers", strip, words=True),
    ]
    anchors = tuple(f"{item.digest}-{item.fidelity}" for item in members)
    return replace(Table.of(members, columns), anchors=anchors)


FLOAT, MIXED, MARKS = (
    "\N{MIDDLE DOT}",
    "\N{MEDIUM SHADE}",
    {"ternary": "\N{FULL BLOCK}", "binary": "\N{DARK SHADE}"},
)
"""How a strip shows the precision of a group; what else is low-bit has its first letter."""


def _mark(precisions: set[str]) -> str:
    if precisions == {"float32"}:
        return FLOAT
    (first, *others) = sorted(precisions)
    return MIXED if others else MARKS.get(first, first[:1] or MIXED)


def _place(run: Run) -> Column:
    def cell(item: Measurement) -> Cell:
        place = run.place(item)
        return Cell(place, value=int(place) if place else None)

    return Column("#", cell)


def _bits(mean: float | None) -> Cell:
    return Cell("") if mean is None else Cell(f"{mean:.2f}", value=mean)


def _share(value: float) -> Cell:
    return Cell(numbers.percent(value), value=value)


def _linked(run: Run, item: Measurement, note: str = "") -> Cell:
    """Name a configuration and lead to its card, if it has one."""
    return Cell(f"`{run.name(item)}`", note, f"#c-{item.digest}" if item.digest in run.carded else "")


def _configuration(run: Run) -> Column:
    def cell(item: Measurement) -> Cell:
        digest = [item.digest] if item.digest in run.names else []
        return _linked(run, item, ", ".join([*digest, *item.options.values()]))

    return Column("configuration", cell, words=True)


def _metric(metric: Metric, members: Sequence[Measurement]) -> Column:
    """Print values with their spread; n stands in the title where it is the same for all."""
    counts = {item.metrics[metric.name].n for item in members if metric.name in item.metrics}

    def cell(item: Measurement) -> Cell:
        quantity = item.metrics.get(metric.name)
        if quantity is None:
            return Cell("")
        note = f"n = {quantity.n}" if len(counts) > 1 else ""
        return Cell(numbers.short(quantity), note, value=quantity.value)

    title = numbers.axis(metric)
    return Column(f"{title}\nn = {counts.pop()}" if len(counts) == 1 else title, cell)


def published(run: Run) -> Table | None:
    """Put the numbers that the paper prints beside ours, as its table has them: a row a strategy."""
    results = run.manifest.published.results
    shares = {item.strategy: item for item in run.manifest.published.fractions}
    if not results:
        return None
    ours = {run.names[item.digest]: item for item in run.baselines}
    strategies = list({result.strategy: None for result in results})
    metrics = list({result.metric: None for result in results})
    printed = {(result.strategy, result.metric): result for result in results}
    labels = [run.metrics[name].label if name in run.metrics else name for name in metrics]

    def pair(strategy: str, metric: str) -> tuple[Cell, Cell]:
        paper, mine = printed.get((strategy, metric)), ours.get(strategy)
        quantity = mine.metrics.get(metric) if mine else None
        return (
            Cell(numbers.short(Quantity(paper.value, paper.std)) if paper else ""),
            Cell(numbers.short(quantity), f"n = {quantity.n}") if quantity else Cell("not measured"),
        )

    def share(strategy: str) -> tuple[Cell, Cell]:
        paper, mine = shares.get(strategy), ours.get(strategy)
        return (
            Cell(paper.printed if paper else ""),
            Cell(numbers.percent(mine.fraction)) if mine else Cell(""),
        )

    return Table(
        titles=(
            "strategy",
            *(f"{label},\n{who}" for label in ("quantised", *labels) for who in ("paper", "this run")),
        ),
        words=(True, *(False for _ in range(2 * len(metrics) + 2))),
        rows=tuple(
            (
                Cell(f"`{strategy}`"),
                *share(strategy),
                *(cell for metric in metrics for cell in pair(strategy, metric)),
            )
            for strategy in strategies
        ),
    )


def alone(run: Run) -> Table:
    """Show every layer alone in few bits, the most harmful first."""
    shapes = {layer.name: layer for layer in run.manifest.layers}
    items = [item for item in run.results if item.origin == "alone" and pareto.usable(item, run.objective)]
    items = list({item.digest: item for item in items}.values())

    def name(item: Measurement) -> str:
        return next(name for name, value in item.assignment.items() if value != "float32")

    def shape(item: Measurement) -> Cell:
        layer = shapes.get(name(item))
        return Cell(f"{layer.out_features} \N{MULTIPLICATION SIGN} {layer.in_features}" if layer else "")

    columns = [
        Column("layer", lambda item: Cell(f"`{name(item)}`", item.assignment[name(item)]), words=True),
        Column("outputs \N{MULTIPLICATION SIGN} inputs", shape),
        *(_metric(metric, items) for metric in run.metrics.values()),
        Column("file size", lambda item: Cell(numbers.size(item.size_bytes))),
    ]
    return Table.of(sorted(items, key=lambda item: -pareto.loss(item, run.objective)), columns)


def failures(run: Run) -> Table:
    """List what could not be measured and why."""
    columns = [
        Column("configuration", lambda item: _linked(run, item), words=True),
        Column("training", lambda item: Cell(TRAINING[item.fidelity]), words=True),
        Column("quantised, executed layers", lambda item: _share(item.executed_fraction)),
        Column("reason", lambda item: Cell(item.failure or ""), words=True),
    ]
    return Table.of(run.failures, columns)
