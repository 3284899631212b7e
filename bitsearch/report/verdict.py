"""What the run found, in plain words, with no more certainty than its spreads allow."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bitsearch.core import pareto
from bitsearch.core.difference import Agreement, Difference, agreement, difference
from bitsearch.core.front import without_loss
from bitsearch.core.measurement import Measurement
from bitsearch.report import decision, numbers
from bitsearch.report.decision import SIGNIFICANT, Deployment
from bitsearch.report.tables import Cell, Table
from bitsearch.report.view import TRAINING, Run

SAME_FRACTION = 0.01
"""Configurations whose quantised fractions differ by no more can be held against each other either way."""


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
    """A headline, the sentences that support it, the file to deploy, and what would be needed where nothing was gained.

    Names stand between backticks.
    """

    headline: str
    sentences: tuple[str, ...]
    deploy: Deployment | None = None
    needed: tuple[str, ...] = ()


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
    comparisons = compare(run)
    gained = any(item.beaten for item in comparisons) or _without_loss(run)
    wanted = () if gained else decision.needed(run, _promising(run, comparisons))
    return Verdict(_headline(run, comparisons), tuple(sentences), decision.deployment(run), tuple(wanted))


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
        comparisons.append(
            Comparison(strategy, best, difference(best, strategy, run.objective) if best else None)
        )
    return comparisons


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


def rank_agreement(run: Run) -> str:
    """Say how well the search's trainings order what was trained finally; nothing where they are the same."""
    if run.search_fidelity == run.fidelity:
        return ""
    short = {item.digest: item for item in run.candidates}
    both = [(short[item.digest], item) for item in run.measured if item.digest in short]
    searched = [pareto.loss(item, run.objective) for item, _ in both]
    final = [pareto.loss(item, run.objective) for _, item in both]
    found = agreement(searched, final)
    if found is None:
        return ""
    held = agreement(searched, final, [item.reduction for _, item in both])
    beside = f"; with the quantised fraction held fixed, {_interval(held)}" if held else ""
    return (
        f"The search's short trainings and the final ones order the {found.count} configurations that went through "
        f"both with a rank correlation (Spearman, 95 % interval) of {_interval(found)}{beside}."
    )


def _interval(found: Agreement) -> str:
    return f"{found.rho:.2f} ({found.low:.2f} to {found.high:.2f})"


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
    gain = Cell(numbers.plus_minus(gap.gain, gap.error))
    return (*half(item.strategy), *half(item.challenger), gain, Cell(significance))


def _promising(run: Run, comparisons: Sequence[Comparison]) -> list[tuple[str, Difference]]:
    """Put what leads by most of its error first, as what it is said of."""
    contests = [item for item in comparisons if item.challenger and item.difference and not item.apart]
    named = [
        (f"the gain of {_name(run, item.challenger)} over {_name(run, item.strategy)}", item.difference)
        for item in contests
        if item.challenger and item.difference
    ]
    if not named and run.reference:
        quantized = [item for item in run.measured if item.reduction > 0]
        named = [
            (f"the gain of {_name(run, item)} over float", difference(item, run.reference, run.objective))
            for item in quantized
        ]
    return sorted(named, key=lambda pair: -(pair[1].sigmas if pair[1].sigmas is not None else math.inf))


def _headline(run: Run, comparisons: Sequence[Comparison]) -> str:
    if not run.searched:
        return f"Only the {run.rivals} have been measured"
    if not comparisons:
        return f"No {run.rivals} have been measured to compare the search with"
    beaten = [_name(run, item.strategy) for item in comparisons if item.beaten]
    if not beaten:
        return _without_loss(run) or f"No significant gain over the {run.rivals}"
    if len(beaten) == len(comparisons):
        return f"The search beats all {run.rivals} at {_no_less(run)}"
    return f"The search beats {_listed(beaten)} at {_no_less(run)}"


def _no_less(run: Run) -> str:
    return "equal or fewer bits a weight" if run.counts_bits else "equal or higher quantised fraction"


def _without_loss(run: Run) -> str | None:
    """Compare how far search and strategies get at no measurable loss; None where the search gets no further."""
    if run.reference is None:
        return None
    found, handmade = (
        max((item.reduction for item in decision.equal(run, items)), default=0.0)
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
    """Name the largest fraction whose loss lies within one standard error, and what loss would have been seen."""
    label = numbers.in_prose(run.objective.label)
    quantized = [item for item in run.front if item.reduction > 0]
    gaps = {item.digest: difference(item, reference, run.objective) for item in quantized}
    if all(gap.error is None for gap in gaps.values()):
        return f"No spread of the {label} was measured, so no difference from the float reference is known to be one."
    level = without_loss(quantized, reference, run.objective)
    if not level:
        return f"No quantised front member comes within one standard error of the float's {label}."
    if not (free := decision.equal(run, level)):
        least = min((gaps[item.digest] for item in level), key=lambda gap: gap.detectable or 0.0)
        return (
            f"No loss of the {label} was seen up to {numbers.reach(level[-1])}, but nothing is claimed: only "
            f"{decision.power(run, least)}, more than the poorest of the {run.rivals} loses."
        )
    member = f"({_member(run, free[-1])}); {decision.power(run, gaps[free[-1].digest])}."
    if run.counts_bits:
        return (
            f"Weights can take {numbers.reach(free[-1])} each in the mean with the {label} within one standard "
            f"error of the original's {member}"
        )
    return (
        f"Up to {numbers.percent(free[-1].executed_fraction)} of the executed parameters can be quantised with the "
        f"{label} within one standard error of the float reference {member}"
    )


def _loss(run: Run, item: Measurement, reference: Measurement) -> str:
    smaller = numbers.smaller(item.size_bytes, reference.size_bytes)
    return (
        f"{_extent(item)} and the {numbers.in_prose(run.objective.label)} is "
        f"{decision.change(run, difference(item, reference, run.objective))} than the float reference"
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
        f"Against {_listed(level)} the search shows no gain of {SIGNIFICANT:.0f} standard errors.": level,
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
    return f"{numbers.plus_minus(gap.gain, gap.error, run.objective.unit)} ({numbers.sigmas(gap.sigmas)})"


def _member(run: Run, item: Measurement) -> str:
    place = run.place(item)
    return f"{_name(run, item)}, front member {place}" if place else _name(run, item)


def _name(run: Run, item: Measurement) -> str:
    """Name a configuration, to be set as code."""
    return f"`{run.name(item)}`"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
