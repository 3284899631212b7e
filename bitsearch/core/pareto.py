"""Which configurations no other one beats: performance against quantised fraction."""

import math
from collections.abc import Iterable, Sequence
from typing import Final

from bitsearch.core.measurement import Fidelity, Measurement, Metric

FIDELITIES: Final[tuple[Fidelity, ...]] = ("untrained", "shared-weights", "finetuned", "full")
"""How a configuration can have been trained, cheapest first."""


def loss(measurement: Measurement, objective: Metric) -> float:
    """Give the objective's value with its sign turned so that lower is better."""
    value = measurement.metrics[objective.name].value
    return value if objective.direction == "minimize" else -value


def at_fidelity(
    measurements: Iterable[Measurement], fidelity: Fidelity, objective: Metric
) -> list[Measurement]:
    """Give the successful measurements of one fidelity, the latest of each configuration."""
    chosen = {
        item.digest: item for item in measurements if item.fidelity == fidelity and usable(item, objective)
    }
    return list(chosen.values())


def best_fidelity(measurements: Iterable[Measurement], objective: Metric) -> list[Measurement]:
    """Give the successful measurements of the highest fidelity that occurs, and leave out all others.

    A short training and a full one are never compared: a configuration that still lacks the highest fidelity
    is missing here.
    """
    usable_ones = [item for item in measurements if usable(item, objective)]
    highest = max((item.fidelity for item in usable_ones), key=FIDELITIES.index, default=FIDELITIES[-1])
    return at_fidelity(usable_ones, highest, objective)


def usable(measurement: Measurement, objective: Metric) -> bool:
    """Tell whether a measurement succeeded and holds a finite value of the objective."""
    quantity = measurement.metrics.get(objective.name)
    return measurement.failure is None and quantity is not None and math.isfinite(quantity.value)


def front(measurements: Iterable[Measurement], objective: Metric) -> list[Measurement]:
    """Give the configurations that none beats in objective and `reduction`, best performance first.

    Only the highest fidelity among `measurements` takes part (see `best_fidelity`).
    """
    members: list[Measurement] = []
    ranked = sorted(
        best_fidelity(measurements, objective), key=lambda item: (_rank(item, objective), item.digest)
    )
    for item in ranked:
        reached = members[-1].reduction if members else -1.0
        if item.reduction > reached or _rank(item, objective) == _rank(members[-1], objective):
            members.append(item)
    return members


def hypervolume(measurements: Iterable[Measurement], objective: Metric, worst: float) -> float:
    """Give the area that a front dominates, between fraction 0 and the performance `worst`.

    In units of the objective; configurations worse than `worst` add nothing.
    """
    limit = worst if objective.direction == "minimize" else -worst
    area, reached = 0.0, 0.0
    for member in front(measurements, objective):
        area += max(0.0, limit - loss(member, objective)) * (member.reduction - reached)
        reached = member.reduction
    return area


def knee(members: Sequence[Measurement], objective: Metric) -> Measurement | None:
    """Give the front member farthest above the straight line between the front's ends, both axes scaled to 1.

    None if the front is too short or nowhere better than that line.
    """
    if len(members) < 3:
        return None
    first, last = members[0], members[-1]
    width = last.reduction - first.reduction
    height = loss(last, objective) - loss(first, objective)
    if width <= 0 or height <= 0:
        return None

    def distance(item: Measurement) -> float:
        gained = (item.reduction - first.reduction) / width
        return gained - (loss(item, objective) - loss(first, objective)) / height

    best = max(members, key=distance)
    return best if distance(best) > 0 else None


def _rank(item: Measurement, objective: Metric) -> tuple[float, float]:
    return loss(item, objective), -item.reduction
