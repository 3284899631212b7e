"""`front.json`: what no other configuration beats, and how good that is as a whole."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from bitsearch.core import pareto
from bitsearch.core.difference import difference
from bitsearch.core.measurement import Measurement, Metric

FORMAT = 1
MARGIN = 0.1
"""How far the reference lies beyond the poorest handmade strategy, in its distance to the float network."""


@dataclass(frozen=True)
class Reference:
    """The box that hypervolumes are given in: values of the objective, fractions from 0 to 1."""

    worst: float
    ideal: float

    @property
    def height(self) -> float:
        """The area of the box."""
        return abs(self.worst - self.ideal)


@dataclass(frozen=True)
class Front:
    """The content of `front.json`: members with the best performance first; `knee` and `tolerance_pick` are digests.

    `hypervolume` is in units of the objective, `relative_hypervolume` in those of the reference's box;
    `performance_per_quantized_fraction` is the latter over the largest fraction. All three are None where the float
    network, or a handmade strategy that is worse, has not been measured.
    """

    objective: str
    members: tuple[Measurement, ...] = ()
    format: int = FORMAT
    reference: Reference | None = None
    hypervolume: float | None = None
    relative_hypervolume: float | None = None
    performance_per_quantized_fraction: float | None = None
    knee: str | None = None
    tolerance_pick: str | None = None

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise ValueError(f"format {self.format}, expected {FORMAT}")
        digests = {item.digest for item in self.members}
        for name, digest in (("knee", self.knee), ("tolerance_pick", self.tolerance_pick)):
            if digest is not None and digest not in digests:
                raise ValueError(f"{name} {digest} is none of its members")

    @classmethod
    def of(cls, measurements: Iterable[Measurement], objective: Metric, strategies: Sequence[str]) -> "Front":
        """Describe the front of measurements; `strategies` are the digests of the handmade ones, float first."""
        measured = pareto.best_fidelity(measurements, objective)
        members = pareto.front(measured, objective)
        found = {item.digest: item for item in measured if item.digest in strategies}
        handmade = [found[digest] for digest in strategies if digest in found]
        reference = reference_of(handmade, objective)
        area = relative = share = None
        if reference:
            area = pareto.hypervolume(members, objective, reference.worst)
            relative = area / reference.height
            reached = members[-1].reduction
            share = relative / reached if reached else None
        knee = pareto.knee(members, objective)
        baseline = float_among(handmade)
        equal = without_loss(members, baseline, objective) if baseline else []
        return cls(
            objective=objective.name,
            members=tuple(members),
            reference=reference,
            hypervolume=area,
            relative_hypervolume=relative,
            performance_per_quantized_fraction=share,
            knee=knee.digest if knee else None,
            tolerance_pick=equal[-1].digest if equal else None,
        )


def float_among(handmade: Iterable[Measurement]) -> Measurement | None:
    """Give the float network: the first strategy that quantises nothing."""
    return next((item for item in handmade if item.reduction == 0), None)


def reference_of(handmade: Collection[Measurement], objective: Metric) -> Reference | None:
    """Give the reference of a model: 10 % beyond its poorest strategy, and the float network as the ideal.

    None where there is no float network, or no strategy that is worse.
    """
    baseline = float_among(handmade)
    if baseline is None:
        return None
    ideal = baseline.metrics[objective.name].value
    poorest = max(handmade, key=lambda item: pareto.loss(item, objective)).metrics[objective.name].value
    return Reference(ideal + (1 + MARGIN) * (poorest - ideal), ideal) if poorest != ideal else None


def without_loss(
    items: Iterable[Measurement], reference: Measurement, objective: Metric
) -> list[Measurement]:
    """Keep what is quantised and at most one standard error worse than `reference`, where that is known."""

    def tolerated(item: Measurement) -> bool:
        gap = difference(item, reference, objective)
        return gap.error is not None and -gap.gain <= gap.error

    return [item for item in items if item.reduction > 0 and tolerated(item)]
