"""Which of the configurations that a search measured are worth a final training, and which of those are hopeless."""

from collections.abc import Collection, Iterable, Sequence

import numpy as np

from bitsearch.core import pareto
from bitsearch.core.measurement import Measurement, Metric

CHALLENGERS = 3
"""How many are held against every handmade strategy: one training cannot tell which of them is the better."""
TRIALS_A_FINALIST = 8
"""A hundred trials earn a dozen finalists."""
HOPELESS = 3.0
"""In standard deviations of the difference between two configurations that were trained with the same seed."""


def choose(
    candidates: Iterable[Measurement], handmade: Iterable[float], objective: Metric, limit: int
) -> list[Measurement]:
    """Choose up to `limit`, those that decide most first.

    For every handmade fraction the best at no smaller fraction, then the second and third best of each, then what
    adds most to the hypervolume of those chosen.
    """
    usable = [item for item in candidates if pareto.usable(item, objective)]
    ranked = sorted(usable, key=lambda item: (pareto.loss(item, objective), item.digest))
    fractions = sorted({fraction for fraction in handmade if fraction > 0}, reverse=True)
    chosen: list[Measurement] = []
    for place in range(CHALLENGERS):
        for fraction in fractions:
            rivals = [item for item in ranked if item.reduction >= fraction - 1e-12]
            chosen += [item for item in rivals[place : place + 1] if item not in chosen]
    chosen = chosen[:limit]
    rest = [item for item in ranked if item not in chosen]
    area = _area(chosen, ranked, objective)
    while rest and len(chosen) < limit:
        areas = [_area([*chosen, item], ranked, objective) for item in rest]
        if max(areas) <= area:
            break
        area = max(areas)
        chosen.append(rest.pop(areas.index(area)))
    return chosen


def hopeless(
    finalists: Collection[Measurement], repeated: Collection[Measurement], objective: Metric
) -> set[str]:
    """Give the digests of finalists that their first training already tells to be beaten.

    Another one with the same seed reduces no less and is better by `HOPELESS` standard deviations of such a
    difference, which the `repeated` trainings tell: what their losses vary by beside configuration and seed. Nobody
    is hopeless where fewer than two were repeated.
    """
    usable = [item for item in finalists if pareto.usable(item, objective)]
    values = [item.metrics[objective.name].values for item in repeated if pareto.usable(item, objective)]
    trainings = min((len(own) for own in values), default=0)
    if len(values) < 2 or trainings < 2:
        return set()
    table = np.array([own[:trainings] for own in values])
    left = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    variance = float((left**2).sum()) / ((len(table) - 1) * (trainings - 1))
    margin = HOPELESS * (2 * variance) ** 0.5

    def first(item: Measurement) -> float:
        value = item.metrics[objective.name].values[0]
        return value if objective.direction == "minimize" else -value

    return {
        item.digest
        for item in usable
        if any(
            other.reduction >= item.reduction - 1e-12 and first(other) < first(item) - margin
            for other in usable
        )
    }


def _area(chosen: Sequence[Measurement], ranked: Sequence[Measurement], objective: Metric) -> float:
    """Give the hypervolume of `chosen` below the worst of all."""
    if not chosen:
        return 0.0
    worst = ranked[-1].metrics[objective.name].value
    return pareto.hypervolume(chosen, objective, worst)
