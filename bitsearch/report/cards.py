"""One card a configuration: its numbers, its layers, its plots, its file and the command that trains it again."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from bitsearch.core.measurement import Measurement
from bitsearch.core.names import safe_name
from bitsearch.report import numbers
from bitsearch.report.physics import plots
from bitsearch.report.tables import Cell, origin
from bitsearch.report.view import TRAINING, Run


@dataclass(frozen=True)
class Layers:
    """The groups of layers in one precision, and their share of the linear weights."""

    precision: str
    share: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Card:
    """What a point of a figure opens; `plots` are the names of figures that show the configuration."""

    item: Measurement
    name: str
    place: str
    numbers: tuple[tuple[str, str], ...]
    layers: tuple[Layers, ...]
    file: Cell | None
    command: str
    plots: tuple[str, ...]


def cards(run: Run) -> list[Card]:
    """Make every card of a page."""
    drawn = plots(run.shown())
    return [_card(run, item, drawn.get(item.digest, ())) for item in run.carded.values()]


def assignment_file(item: Measurement) -> str:
    """Name the file, beside the page, that holds a configuration's assignment."""
    return f"assignments/{safe_name(item.digest)}.json"


def _card(run: Run, item: Measurement, shown: tuple[str, ...]) -> Card:
    path = run.model_file(item)
    return Card(
        item=item,
        name=run.name(item),
        place=run.place(item),
        numbers=tuple(_numbers(run, item)),
        layers=tuple(_layers(run, item)),
        file=Cell(path.name, href=f"../{path.as_posix()}") if path else None,
        command=_command(run, item),
        plots=shown,
    )


def _numbers(run: Run, item: Measurement) -> Iterator[tuple[str, str]]:
    for metric in run.metrics.values():
        if quantity := item.metrics.get(metric.name):
            yield numbers.axis(metric), f"{numbers.short(quantity)}, n = {quantity.n}"
    yield (
        "quantised",
        (
            f"{numbers.percent(item.executed_fraction)} of executed, {numbers.percent(item.fraction)} of all parameters"
        ),
    )
    if item.size_bytes:
        yield "file size", numbers.size(item.size_bytes)
    for latency in item.latency_us:
        spread = numbers.duration_us(latency.spread_us)
        yield f"latency, {numbers.batch(latency)}", f"{numbers.duration_us(latency.median_us)}, IQR {spread}"
    yield from item.options.items()
    yield "training", f"{TRAINING[item.fidelity]}, {origin(item)}, {numbers.duration_s(item.train_seconds)}"


def _layers(run: Run, item: Measurement) -> Iterator[Layers]:
    """Sort groups by their precision; one that holds several is named with each."""
    total = sum(sum(weights.values()) for weights in run.groups.values()) or 1
    for precision in dict.fromkeys(item.assignment.values()):
        chosen = {
            group: sum(count for name, count in weights.items() if item.assignment.get(name) == precision)
            for group, weights in run.groups.items()
            if any(item.assignment.get(name) == precision for name in weights)
        }
        yield Layers(precision, numbers.percent(sum(chosen.values()) / total), tuple(chosen))


def _command(run: Run, item: Measurement) -> str:
    """Give the command that trains a configuration again, where the run was one of the command line."""
    manifest = run.manifest
    if manifest.command[1:2] != ("run",):
        return ""
    words = ["bitsearch", "train", "--model", manifest.model, "--dataset", manifest.dataset]
    words += ["--preset", manifest.preset, "--seed", str(manifest.seed)]
    words += ["--recipe", manifest.recipe] if manifest.recipe else []
    words += _data(manifest.command)
    if item.digest in run.names:
        words += ["--strategy", run.names[item.digest]]
    else:
        words += ["--assignment", (run.folder.report / assignment_file(item)).as_posix()]
        words += [word for option in item.options.items() for word in ("--option", "=".join(option))]
    return shlex.join([*words, "--out", f"{item.digest}.pt"])


def _data(command: tuple[str, ...]) -> list[str]:
    """Take `--data` and its files out of a command."""
    if "--data" not in command:
        return []
    start = command.index("--data")
    files = command[start + 1 :]
    end = next((place for place, word in enumerate(files) if word.startswith("-")), len(files))
    return list(command[start : start + 1 + end])
