"""What the run found, in plain words, with no more certainty than its spreads allow."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bitsearch.core import pareto
from bitsearch.core.front import without_loss
from bitsearch.core.measurement import Latency, Measurement
from bitsearch.report import numbers
from bitsearch.report.tables import Cell, Table
from bitsearch.report.view import TRAINING, Run

SIGNIFICANT = 2.0
"""A gain counts when it exceeds this many combined standard deviations."""
SAME_FRACTION = 0.01
"""Configurations whose quantised fractions differ by no more can be held against each other either way."""


@dataclass(frozen=True)
class Difference:
    """How much better one configuration is than another (positive is better), with its standard deviation."""

    gain: float
    std: float | None

    @property
    def sigmas(self) -> float | None:
        """The gain in standard deviations; None where no spread was measured."""
        return self.gain / self.std if self.std else None


@dataclass(frozen=True)
class Comparison:
    """A handmade strategy and the search's best configuration that quantises at least as much."""

    strategy: Measurement
    challenger: Measurement | None
    difference: Difference | None

    @property
    def beaten(self) -> bool:
        """Whether the search is better by a significant margin."""
        sigmas = self.difference.sigmas if self.difference else None
        return sigmas is not None and sigmas >= SIGNIFICANT

    @property
    def apart(self) -> bool:
        """Whether the challenger is worse but quantises more: the two are then different trades, not a contest."""
        if self.challenger is None or self.difference is None or self.difference.gain >= 0:
            return False
        return self.challenger.reduction > self.strategy.reduction + SAME_FRACTION


@dataclass(frozen=True)
class Verdict:
    """A headline, the sentences that support it, and the file to deploy; names stand between backticks."""

    headline: str
    sentences: tuple[str, ...]
    deploy: Cell | None = None


def verdict(run: Run) -> Verdict:
    """Sum the run up."""
    if not run.front:
        count = len(run.failures)
        failed = f"; {count} measurement{'s' if count > 1 else ''} failed" if count else ""
        return Verdict("Nothing has been measured yet", (f"The run has written no usable result{failed}.",))
    sentences = [*_losses(run), *_handmade(run), *_yardsticks(run)]
    if not run.is_final:
        training = TRAINING[run.fidelity]
        sentences.append(
            f"These numbers come from {training}; the final training of the front has not ended."
        )
    return Verdict(_headline(run), tuple(sentences), _deploy(run))


def compare(run: Run) -> list[Comparison]:
    """Hold every handmade strategy that quantises anything against the search, at no smaller fraction.

    Single layers and the rungs of the ladder seed the search: it has not found them.
    """
    found = [
        item
        for item in run.measured
        if item.digest not in run.names and item.origin not in ("ladder", "alone")
    ]
    comparisons = []
    for strategy in run.baselines:
        if strategy.reduction == 0:
            continue
        rivals = [item for item in found if item.reduction >= strategy.reduction - 1e-12]
        best = min(rivals, key=lambda item: pareto.loss(item, run.objective), default=None)
        comparisons.append(Comparison(strategy, best, difference(run, best, strategy) if best else None))
    return comparisons


def difference(run: Run, one: Measurement, other: Measurement) -> Difference:
    """Compare two configurations by the objective."""
    stds = [item.metrics[run.objective.name].std for item in (one, other)]
    known = [std for std in stds if std is not None]
    std = math.hypot(*known) if len(known) == len(stds) else None
    return Difference(pareto.loss(other, run.objective) - pareto.loss(one, run.objective), std)


def comparison_table(run: Run) -> Table:
    """Show every comparison of `compare`."""
    label = numbers.axis(run.objective)
    titles = (
        "strategy",
        "quantised",
        label,
        "best of the search",
        "quantised",
        label,
        "gain",
        "significance",
    )
    words = tuple(title in ("strategy", "best of the search") for title in titles)
    return Table(titles, words, tuple(_row(run, item) for item in compare(run)))


def _row(run: Run, item: Comparison) -> tuple[Cell, ...]:
    def half(configuration: Measurement) -> tuple[Cell, Cell, Cell]:
        place = run.place(configuration)
        return (
            Cell(_name(run, configuration), f"front member {place}" if place else "not on the front"),
            Cell(numbers.reach(configuration)),
            Cell(numbers.short(configuration.metrics[run.objective.name])),
        )

    if item.challenger is None or item.difference is None:
        return (*half(item.strategy), Cell("none"), *(Cell("") for _ in range(4)))
    gap = item.difference
    significance = numbers.sigmas(gap.sigmas) if gap.sigmas is not None else "no spread"
    if item.apart:
        significance = "quantises more"
    gain = Cell(numbers.plus_minus(gap.gain, gap.std))
    return (*half(item.strategy), *half(item.challenger), gain, Cell(significance))


def _headline(run: Run) -> str:
    comparisons = compare(run)
    if not run.searched:
        return "Only the handmade strategies have been measured"
    if not comparisons:
        return "No handmade strategy has been measured to compare the search with"
    beaten = [_name(run, item.strategy) for item in comparisons if item.beaten]
    if not beaten:
        return _without_loss(run) or "No significant gain over the handmade strategies"
    if len(beaten) == len(comparisons):
        return f"The search beats every handmade strategy at {_no_less(run)}"
    return f"The search beats {_listed(beaten)} at {_no_less(run)}"


def _no_less(run: Run) -> str:
    return "equal or fewer bits a weight" if run.counts_bits else "equal or higher quantised fraction"


def _without_loss(run: Run) -> str | None:
    """Compare how far search and strategies get at no measurable loss; None where the search gets no further."""
    if run.reference is None:
        return None
    found, handmade = (
        max((item.reduction for item in _equal(run, items, run.reference)), default=0.0)
        for items in ([item for item in run.front if item.digest not in run.names], run.baselines)
    )
    if found <= handmade:
        return None
    if run.counts_bits:
        by_hand = f"{_bits(handmade)} where it is all of one precision" if handmade else "32 as a whole"
        return f"The search brings weights to {_bits(found)} bits without a measurable loss, {by_hand}"
    by_hand = (
        f"the handmade strategies {numbers.percent(handmade)}" if handmade else "no handmade strategy any"
    )
    return f"The search quantises {numbers.percent(found)} without a measurable loss, {by_hand}"


def _equal(run: Run, items: Sequence[Measurement], reference: Measurement) -> list[Measurement]:
    """Keep what is quantised and at most one standard deviation worse than the reference, where that is known."""
    return without_loss(items, reference, run.objective)


def _losses(run: Run) -> list[str]:
    """Say how much can be quantised at which loss."""
    reference, knee, last = run.reference, run.knee, run.front[-1]
    if reference is None:
        return ["The float reference has not been measured, so losses against it are unknown."]
    sentences = [_within(run, reference)]
    if knee and knee.reduction > 0:
        sentences.append(f"At the knee of the front, {_loss(run, knee, reference)}")
    if last.reduction > 0 and last is not knee:
        sentences.append(f"At the far end of the front, {_loss(run, last, reference)}")
    return sentences


def _within(run: Run, reference: Measurement) -> str:
    """Name the largest fraction whose loss lies within one standard deviation."""
    label = numbers.in_prose(run.objective.label)
    quantized = [item for item in run.front if item.reduction > 0]
    if all(difference(run, item, reference).std is None for item in quantized):
        return f"No spread of the {label} was measured, so no difference from the float reference is known to be one."
    if not (equal := _equal(run, run.front, reference)):
        return f"No quantised front member comes within one standard deviation of the float's {label}."
    if run.counts_bits:
        return (
            f"Weights can take {numbers.reach(equal[-1])} each in the mean with the {label} within one standard "
            f"deviation of the original's ({_member(run, equal[-1])})."
        )
    share = numbers.percent(equal[-1].executed_fraction)
    return (
        f"Up to {share} of the executed parameters can be quantised with the {label} within one standard "
        f"deviation of the float reference ({_member(run, equal[-1])})."
    )


def _loss(run: Run, item: Measurement, reference: Measurement) -> str:
    gap = difference(run, item, reference)
    amount = numbers.plus_minus(abs(gap.gain), gap.std, run.objective.unit)
    smaller = numbers.smaller(item.size_bytes, reference.size_bytes)
    label = numbers.in_prose(run.objective.label)
    return (
        f"{_extent(item)} and the {label} is {amount} "
        f"{'worse' if gap.gain < 0 else 'better'} than the float reference"
        + ("" if gap.std else " (no spread was measured)")
        + (f", with a file {smaller}" if smaller else "")
        + f" ({_member(run, item)})."
    )


def _extent(item: Measurement) -> str:
    if item.mean_bits is None:
        return f"{numbers.percent(item.executed_fraction)} are quantised"
    return f"weights take {numbers.reach(item)} each"


def _bits(reduction: float) -> str:
    return f"{32 * (1 - reduction):.2f}"


def _handmade(run: Run) -> list[str]:
    """Say which strategies the search beats and by how much, and which it does not."""
    comparisons = compare(run) if run.searched else []
    gains = [
        f"{_name(run, item.strategy)} by {_gain(run, item.difference)}" for item in comparisons if item.beaten
    ]
    unmatched = [_name(run, item.strategy) for item in comparisons if item.challenger is None]
    apart = [_name(run, item.strategy) for item in comparisons if item.apart]
    contests = [item for item in comparisons if item.challenger and not item.apart]
    level = [_name(run, item.strategy) for item in contests if not item.beaten]
    sentences = {
        f"At {_no_less(run)}, the search beats {_listed(gains)}.": gains,
        f"Nothing that the search found quantises as much as {_listed(unmatched)}.": unmatched,
        f"What the search found beyond {_listed(apart)} quantises more and is worse: another trade.": apart,
        f"Against {_listed(level)} the search shows no gain of {SIGNIFICANT:.0f} standard deviations.": level,
    }
    return [sentence for sentence, needed in sentences.items() if needed]


def _yardsticks(run: Run) -> list[str]:
    """Say which networks do not beat what a simple estimator reaches without training."""
    shown = {member.digest: member for member in (*run.front, *run.baselines)}.values()
    reached: dict[tuple[str, str], list[str]] = {}
    for item in run.yardsticks:
        metric = run.metrics.get(item.metric)
        known = [member for member in shown if item.metric in member.metrics]
        if metric is None or not known:
            continue
        sign = -1 if metric.direction == "maximize" else 1
        poorer = [
            _name(run, member)
            for member in known
            if sign * (member.metrics[item.metric].value - item.quantity.value) >= 0
        ]
        outcome = f", which {_listed(poorer)} did not beat"
        if not poorer:
            outcome = "; every network shown is better"
        elif len(poorer) == len(known):
            outcome = ", which no network shown beats"
        value = f"{numbers.in_prose(metric.label)} {numbers.short(item.quantity)}"
        reached.setdefault((item.name, outcome), []).append(value)
    return [
        f"{name.capitalize()} alone reaches {_listed(values)} on the same events{outcome}."
        for (name, outcome), values in reached.items()
    ]


def _gain(run: Run, gap: Difference | None) -> str:
    if gap is None or gap.sigmas is None:
        return "an unknown amount"
    return f"{numbers.plus_minus(gap.gain, gap.std, run.objective.unit)} ({numbers.sigmas(gap.sigmas)})"


def _member(run: Run, item: Measurement) -> str:
    place = run.place(item)
    return f"{_name(run, item)}, front member {place}" if place else _name(run, item)


def _name(run: Run, item: Measurement) -> str:
    """Name a configuration, to be set as code."""
    return f"`{run.name(item)}`"


def _deploy(run: Run) -> Cell | None:
    """Choose the file to deploy and say what it gains and costs; None where nothing quantised is on the front.

    The most quantised member without a measurable loss, else the knee, else the best of those that are quantised.
    """
    quantized = [item for item in run.front if item.reduction > 0]
    if run.reference is None or not quantized:
        return None
    equal = _equal(run, quantized, run.reference)
    knee = run.knee if run.knee in quantized else None
    item = equal[-1] if equal else knee or quantized[0]
    gap = difference(run, item, run.reference)
    label = numbers.in_prose(run.objective.label)
    cost = numbers.plus_minus(abs(gap.gain), gap.std, run.objective.unit)
    parts = [
        numbers.smaller(item.size_bytes, run.reference.size_bytes),
        *_speeds(item, run.reference),
        f"{label} {cost} {'worse' if gap.gain < 0 else 'better'}{'' if gap.std else ' (no spread was measured)'}",
    ]
    path = run.model_file(item)
    where = path.as_posix() if path else _name(run, item)
    note = f"against the float file {_listed([part for part in parts if part])}."
    return Cell(where, note, f"../{path.as_posix()}" if path else "")


def _speeds(item: Measurement, reference: Measurement) -> list[str]:
    """Compare the latencies of two files at the smallest and the largest batch that both were timed with."""
    theirs = {(entry.batch, entry.threads): entry for entry in reference.latency_us}
    both = [
        (entry, theirs[entry.batch, entry.threads])
        for entry in sorted(item.latency_us, key=lambda entry: entry.batch)
        if (entry.batch, entry.threads) in theirs and entry.median_us > 0
    ]
    return [
        f"{_times(entry, base):.2f} \N{MULTIPLICATION SIGN} as fast at batch {entry.batch} "
        f"({numbers.duration_us(base.median_us)} to {numbers.duration_us(entry.median_us)}"
        f"{', on a busy machine' if entry.busy or base.busy else ''})"
        for entry, base in dict.fromkeys((both[0], both[-1]) if both else ())
    ]


def _times(entry: Latency, base: Latency) -> float:
    """Give how many times faster a file is, where that is known from runs in turns with the float file."""
    return 1 / entry.ratio if entry.ratio else base.median_us / entry.median_us


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
