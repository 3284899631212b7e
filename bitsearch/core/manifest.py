"""`run.json`: what a run is, how it stands, and what the report needs to know of its network."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bitsearch.core.measurement import Metric, PublishedFraction, PublishedResult, Yardstick
from bitsearch.core.space import Group, Layer
from bitsearch.core.task import DataIdentity

FORMAT = 1


@dataclass(frozen=True)
class Stage:
    """A part of a run and its wall time over all sittings."""

    name: str
    seconds: float


@dataclass(frozen=True)
class Costs:
    """What the pieces of a run cost one process of this machine, from short timings: seconds, then bytes.

    `reference`, `candidate` and `final` are one training each; `trace` is all graphs of one network, `measure` the
    export and quick metrics of one training, `evaluation` and `latency` one configuration's, `report` all figures.
    """

    data: float
    trace: float
    reference: float
    candidate: float
    final: float
    measure: float
    sensitivities: float
    evaluation: float
    latency: float
    report: float
    checkpoint_bytes: int
    trace_bytes: int
    model_bytes: int


@dataclass(frozen=True)
class Pulse:
    """How a run stands while it goes on: the share of its stage that is done, and the seconds left of the whole."""

    stage: str
    share: float
    seconds_left: float | None = None


@dataclass(frozen=True)
class GroupedLayer(Layer):
    """A linear layer and the group that it changes precision with."""

    group: str = ""


@dataclass(frozen=True)
class NamedStrategy:
    """One of the paper's strategies and the digest of its configuration."""

    name: str
    digest: str
    description: str = ""


@dataclass(frozen=True)
class Published:
    """What the paper prints, and where."""

    source: str = ""
    results: tuple[PublishedResult, ...] = ()
    fractions: tuple[PublishedFraction, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """The content of `run.json`.

    `identity` is everything that the measured values depend on, by name: a run goes on only where it is the same.
    `settings` are the task's own, resolved; `environment` describes machine and libraries,
    `stage` is what is under way and `stages` what has been gone through; `predicted` is how long each was expected
    to take before anything was trained, from `costs`, and `disk_bytes` what the folder was expected to grow to.
    """

    model: str
    dataset: str
    preset: str
    seed: int
    trials: int
    metrics: tuple[Metric, ...]
    objective: str
    format: int = FORMAT
    version: str = ""
    command: tuple[str, ...] = ()
    title: str = ""
    identity: Mapping[str, str] = field(default_factory=dict)
    data: DataIdentity | None = None
    workers: int = 1
    device: str = "cpu"
    sampler: str = ""
    min_fraction: float = 0.0
    keep: tuple[str, ...] = ()
    max_size_bytes: float | None = None
    max_loss: float | None = None
    max_latency_us: float | None = None
    recipe: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    layers: tuple[GroupedLayer, ...] = ()
    groups: tuple[Group, ...] = ()
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    strategies: tuple[NamedStrategy, ...] = ()
    published: Published = field(default_factory=Published)
    yardsticks: tuple[Yardstick, ...] = ()
    sensitivities: Mapping[str, float] | None = None
    environment: Mapping[str, str | int | float | None] = field(default_factory=dict)
    started: str = ""
    ended: str | None = None
    stage: str = ""
    stages: tuple[Stage, ...] = ()
    costs: Costs | None = None
    predicted: tuple[Stage, ...] = ()
    disk_bytes: int = 0
    timed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise ValueError(f"format {self.format}, expected {FORMAT}")
        if self.objective not in {metric.name for metric in self.metrics}:
            raise ValueError(f"objective {self.objective!r} is none of its metrics")
        known = {layer.name for layer in self.layers}
        if unknown := {name for group in self.groups for name in group.layers} - known:
            raise ValueError(f"groups name layers that are not listed: {', '.join(sorted(unknown))}")

    @property
    def objective_metric(self) -> Metric:
        """What the search optimises."""
        return next(metric for metric in self.metrics if metric.name == self.objective)
