"""Which of the configurations that a search measured are worth a final training."""

from collections.abc import Iterable, Sequence

from bitsearch.core import pareto
from bitsearch.core.measurement import Measurement, Metric

CHALLENGERS = 2
"""How many are held against every handmade strategy: one training cannot tell which of them is the better."""
TRIALS_A_FINALIST = 8
"""A hundred trials earn a dozen finalists."""


def choose(
    candidates: Iterable[Measurement], handmade: Iterable[float], objective: Metric, limit: int
) -> list[Measurement]:
    """Choose up to `limit`, those that decide most first.

    For every handmade fraction the best at no smaller fraction, then the second best of each, then what adds most to
    the hypervolume of those chosen.
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
    while rest and len(chosen) < limit:
        best = max(rest, key=lambda item: _area([*chosen, item], ranked, objective))
        if _area([*chosen, best], ranked, objective) <= _area(chosen, ranked, objective):
            break
        chosen.append(best)
        rest.remove(best)
    return chosen


def _area(chosen: Sequence[Measurement], ranked: Sequence[Measurement], objective: Metric) -> float:
    """Give the hypervolume of `chosen` below the worst of all."""
    worst = ranked[-1].metrics[objective.name].value
    return pareto.hypervolume(chosen, objective, worst)
