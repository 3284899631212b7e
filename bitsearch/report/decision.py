"""What to deploy, what that gains and costs, and what it would take to know more."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bitsearch.core import pareto
from bitsearch.core.difference import LEVEL, POWER, Difference, difference
from bitsearch.core.front import reference_of, without_loss
from bitsearch.core.measurement import Latency, Measurement
from bitsearch.report import numbers
from bitsearch.report.tables import Cell
from bitsearch.report.view import Run

SIGNIFICANT = 2.0
"""A gain counts when it exceeds this many standard errors."""
IQR_PER_SIGMA = 1.349
"""Interquartile range of a normal distribution in standard deviations."""
LATE = 0.8
"""A front that grew in the last fifth of the measurements is still growing."""


@dataclass(frozen=True)
class Fact:
    """One number of a decision: what it is, the number, and how it came about."""

    title: str
    text: str
    note: str = ""


@dataclass(frozen=True)
class Deployment:
    """The configuration to deploy: why this one, its file (a link where it was kept), and its numbers."""

    item: Measurement
    advice: str
    file: Cell
    facts: tuple[Fact, ...]


@dataclass(frozen=True)
class Ratio:
    """How many times as fast a file is as another under the same conditions, ± one standard deviation of calls."""

    of: Latency
    to: Latency

    @property
    def value(self) -> float:
        """Time of the other over time of this, from calls in turns with it where there were any."""
        return 1 / self.of.ratio if self.of.ratio else self.to.median_us / self.of.median_us

    @property
    def std(self) -> float:
        """The spread of single calls, from both interquartile ranges."""
        relative = (entry.spread_us / entry.median_us / IQR_PER_SIGMA for entry in (self.of, self.to))
        return self.value * math.hypot(*relative)


def equal(run: Run, items: Sequence[Measurement]) -> list[Measurement]:
    """Keep what is quantised and not measurably worse than float, where a loss that matters would have been seen.

    One that matters: from the float network to the poorest handmade strategy.
    """
    if run.reference is None:
        return []
    box = reference_of(run.baselines, run.objective)
    reach = box.height if box else math.inf
    found = without_loss(items, run.reference, run.objective)
    return [item for item in found if _reaches(difference(item, run.reference, run.objective), reach)]


def _reaches(gap: Difference, loss: float) -> bool:
    return gap.detectable is not None and gap.detectable <= loss


def power(run: Run, gap: Difference) -> str:
    """Say which loss would have been seen; empty where no spread is known."""
    if not gap.detectable:
        return ""
    unit = f" {run.objective.unit}" if run.objective.unit else ""
    return (
        f"a loss of {numbers.number(gap.detectable, 2)}{unit} would have been seen "
        f"({100 * POWER:.0f} % power at the {100 * LEVEL:.0f} % level, {basis(gap)})"
    )


def basis(gap: Difference) -> str:
    """Say what a difference was taken over."""
    return f"{gap.pairs} paired trainings" if gap.pairs else "spreads in quadrature"


def deployment(run: Run) -> Deployment | None:
    """Choose the most quantised member without a measurable loss, else the knee, else the best that is quantised.

    None where the float network is not measured or nothing quantised is on the front.
    """
    quantized = [item for item in run.front if item.reduction > 0]
    if run.reference is None or not quantized:
        return None
    free = equal(run, quantized)
    knee = run.knee if run.knee in quantized else None
    item = free[-1] if free else knee or quantized[0]
    gap = difference(item, run.reference, run.objective)
    if free:
        advice = "The most quantised file without a measurable loss."
    elif gap.error is None:
        advice = (
            "No spread was measured, so whether this file loses anything is not known: train more than once."
        )
    else:
        which = "the knee of the front" if item is knee else "the best quantised member"
        advice = (
            "No quantised file is known to be free of loss. "
            f"This is {which}: a trade, if its loss may be given; else serve the float file."
        )
    path = run.model_file(item)
    name = f"`{run.name(item)}`"
    file = Cell(path.name, href=f"../{path.as_posix()}") if path else Cell(name, "its file was not kept")
    return Deployment(item, advice, file, tuple(_facts(run, item, run.reference, gap)))


def _facts(run: Run, item: Measurement, reference: Measurement, gap: Difference) -> Iterator[Fact]:
    groups = sum(
        any(item.assignment.get(name) != "float32" for name in group) for group in run.groups.values()
    )
    of_groups = f"{groups} of {len(run.groups)} groups of layers"
    if run.counts_bits:
        yield Fact("weights", f"{numbers.reach(item)} in the mean", of_groups)
    else:
        yield Fact("quantised", f"{numbers.reach(item)} of executed parameters", of_groups)
    if item.size_bytes:
        smaller = numbers.smaller(item.size_bytes, reference.size_bytes)
        was = f"float {numbers.size(reference.size_bytes)}" if reference.size_bytes else ""
        yield Fact("file size", ", ".join(filter(None, (numbers.size(item.size_bytes), smaller))), was)
    yield from speeds(item, reference)
    yield Fact(numbers.in_prose(run.objective.label), change(run, gap), power(run, gap))


def speeds(item: Measurement, reference: Measurement) -> Iterator[Fact]:
    """Say how fast a file is at the smallest and the largest batch."""
    for ratio in ends(item, reference):
        times = (ratio.to.median_us, ratio.of.median_us)
        busy = "busy machine" if ratio.of.busy or ratio.to.busy else ""
        notes = (" \N{RIGHTWARDS ARROW} ".join(map(numbers.duration_us, times)), ratio.of.kernel, busy)
        text = f"{numbers.plus_minus(ratio.value, ratio.std)} \N{MULTIPLICATION SIGN} float's"
        if ratio.std > ratio.value:
            text = "not known: single calls scatter by more than they take"
        yield Fact(f"speed, {numbers.batch(ratio.of)}", text, ", ".join(filter(None, notes)))


def change(run: Run, gap: Difference) -> str:
    """Write a difference from float with its significance."""
    amount = numbers.plus_minus(abs(gap.gain), gap.error, run.objective.unit)
    known = "" if gap.error == 0 else " (no spread was measured)"
    if gap.sigmas is not None:
        known = f" ({numbers.sigmas(abs(gap.sigmas))})"
    return f"{amount} {'worse' if gap.gain < 0 else 'better'}{known}"


def ratios(item: Measurement, reference: Measurement) -> list[Ratio]:
    """Compare the latencies of two files at every batch and number of threads that both were timed with."""
    theirs = {(entry.batch, entry.threads): entry for entry in reference.latency_us}
    return [
        Ratio(entry, theirs[entry.batch, entry.threads])
        for entry in sorted(item.latency_us, key=lambda entry: (entry.threads, entry.batch))
        if (entry.batch, entry.threads) in theirs and entry.median_us > 0
    ]


def ends(item: Measurement, reference: Measurement) -> list[Ratio]:
    """Keep the smallest and the largest batch."""
    both = ratios(item, reference)
    return list(dict.fromkeys((both[0], both[-1]))) if both else []


def needed(run: Run, gaps: Sequence[tuple[str, Difference]]) -> list[str]:
    """Say what would be needed to show a gain where none was; of `gaps`, what was compared, the first leads most."""
    return [*_more_trainings(run, gaps), *_more_trials(run)]


def _more_trainings(run: Run, gaps: Sequence[tuple[str, Difference]]) -> Iterator[str]:
    """Estimate from the spread how many trainings, or events where there was one training, would tell."""
    if any(gap.error is None for _, gap in gaps):
        yield "Trainings: no spread was measured; three of each configuration with common seeds give one."
        return
    for what, gap in gaps[:1]:
        amount = numbers.plus_minus(gap.gain, gap.error, run.objective.unit)
        wanted = f"to tell {what}, {amount}, from none."
        if gap.sigmas is not None and gap.sigmas <= -SIGNIFICANT:
            more = "data" if run.fidelity == "untrained" else "trainings"
            yield f"More {more} alone will not do: {what} is {amount}."
        elif count := gap.pairs_needed(SIGNIFICANT):
            yield f"Trainings: {numbers.estimate(count)} of each, {gap.pairs} now, {wanted}"
        elif times := gap.repetitions_needed(SIGNIFICANT):
            what = "Rows of data" if run.fidelity == "untrained" else "Trainings or test events"
            yield f"{what}: {numbers.estimate(times)} times as many, {wanted}"


def _more_trials(run: Run) -> Iterator[str]:
    """Say when the front of the search last grew."""
    tried = [item for item in run.results if item.fidelity == run.search_fidelity]
    if not run.searched or not tried:
        yield "Trials: the search has measured nothing of its own yet."
        return
    members = {item.digest for item in pareto.front(tried, run.objective)}
    order = list(dict.fromkeys(item.digest for item in tried))
    if len(order) == run.choices:
        yield f"Trials: all {len(order)} choices have been measured."
        return
    last = max((place for place, name in enumerate(order, 1) if name in members), default=0)
    outlook = "more trials may well help" if last > LATE * len(order) else "more of the same will hardly help"
    yield f"Trials: the front last grew at configuration {last} of {len(order)}; {outlook}."
