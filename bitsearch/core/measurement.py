"""What a run writes down: plain values that survive a round trip through JSON."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from bitsearch.core.assignment import Assignment
from bitsearch.core.records import decode, encode
from bitsearch.core.strategy import Configuration

Direction = Literal["minimize", "maximize"]
Fidelity = Literal["untrained", "shared-weights", "finetuned", "full"]


@dataclass(frozen=True)
class Metric:
    """What a number means: `label` and `unit` are for people, `direction` for the search."""

    name: str
    label: str
    unit: str
    direction: Direction
    how: str


@dataclass(frozen=True)
class Quantity:
    """A measured value with its standard deviation over `n` repetitions or samples (as the metric's `how` says).

    `values` are those of the single trainings, in the order of their repetitions, where they are known.
    """

    value: float
    std: float | None = None
    n: int = 1
    values: tuple[float, ...] = ()


@dataclass(frozen=True)
class Latency:
    """Wall time of one `session.run` in µs: median and interquartile range over `repeats` runs.

    `kernel` ran the file's ternary layers; it is empty where there are none. `ratio` is the time over that of the
    float file, timed in turns with it: machines slow down for both. `load` is the share of the other cores that was
    busy meanwhile, None where it is not known; a `busy` machine's times are not those of the file alone.
    """

    batch: int
    threads: int
    kernel: str
    median_us: float
    spread_us: float
    repeats: int
    ratio: float | None = None
    load: float | None = None
    busy: bool = False


@dataclass(frozen=True)
class Parity:
    """ONNX Runtime against torch on the same inputs.

    `layer_max_error` is the largest difference of any linear layer's output, relative to that layer's largest
    output; every layer is fed the same inputs. `output_*` compare whole-network outputs, where a quantised
    activation that sits on a rounding edge may flip: the share of events that agree to 1e-3 of the largest output,
    and the relative difference of the mean outputs over events where both are finite, None where none is.
    """

    layer_max_error: float
    layers: int
    output_agreement: float
    output_mean_difference: float | None
    events: int


@dataclass(frozen=True)
class Measurement:
    """One configuration, trained, exported and measured in ONNX Runtime: one line of `results.jsonl`.

    `mean_bits` of a linear layer's weight are told where more than two precisions are searched.
    """

    digest: str
    origin: str
    assignment: Mapping[str, str]
    options: Mapping[str, str]
    fraction: float
    weight_fraction: float
    executed_fraction: float
    fidelity: Fidelity
    seed: int
    metrics: Mapping[str, Quantity] = field(default_factory=dict)
    size_bytes: int = 0
    latency_us: tuple[Latency, ...] = ()
    parity: Parity | None = None
    train_seconds: float = 0.0
    model: str | None = None
    failure: str | None = None
    mean_bits: float | None = None

    @property
    def reduction(self) -> float:
        """The second objective, 0 to 1: the quantised fraction; among more than two precisions, bits saved of 32."""
        return self.executed_fraction if self.mean_bits is None else 1 - self.mean_bits / 32

    @property
    def configuration(self) -> Configuration:
        """What was measured."""
        return Configuration(Assignment(self.assignment), self.options)

    @property
    def strategy(self) -> str | None:
        """Name of the paper's strategy that this measures, if it measures one."""
        kind, _, name = self.origin.partition(":")
        return name if kind == "baseline" else None

    def to_json(self) -> str:
        """Write one line of JSON."""
        return encode(self)

    @classmethod
    def from_json(cls, line: str) -> "Measurement":
        """Read what `to_json` wrote; unknown keys are left out."""
        return decode(line, cls, "the record", "expected a measurement")


@dataclass(frozen=True)
class Histogram:
    """Counts of generated and reference events in the same bins, and how far apart they are.

    `separation` is ½Σ(h-g)²/(h+g) of the normalised counts: 0 for equal, 1 for disjoint histograms.
    """

    name: str
    label: str
    edges: tuple[float, ...]
    reference: tuple[float, ...]
    generated: tuple[float, ...]
    separation: Quantity
    logarithmic: bool = False


@dataclass(frozen=True)
class Profile:
    """Mean of a quantity along `positions`, for reference and generated events."""

    name: str
    label: str
    position_label: str
    positions: tuple[float, ...]
    reference: tuple[float, ...]
    generated: tuple[float, ...]


@dataclass(frozen=True)
class Curve:
    """A function such as a ROC curve; `low` and `high` bound its spread over trainings, where it was taken."""

    name: str
    label: str
    position_label: str
    positions: tuple[float, ...]
    values: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    diagonal: bool = False
    logarithmic: bool = False


@dataclass(frozen=True)
class Map:
    """Counts of events in two dimensions: `counts[ix][iy]` lies between the edges `ix` and `iy`."""

    name: str
    label: str
    x_label: str
    y_label: str
    x_edges: tuple[float, ...]
    y_edges: tuple[float, ...]
    counts: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Evaluation:
    """The physics plots of one configuration: `evaluation/<digest>.json` of a run folder."""

    digest: str
    events: int
    histograms: tuple[Histogram, ...] = ()
    profiles: tuple[Profile, ...] = ()
    curves: tuple[Curve, ...] = ()
    maps: tuple[Map, ...] = ()

    def to_json(self) -> str:
        """Write JSON."""
        return encode(self)

    @classmethod
    def from_json(cls, text: str) -> "Evaluation":
        """Read what `to_json` wrote."""
        return decode(text, cls, "the record", "expected an evaluation")


@dataclass(frozen=True)
class PublishedResult:
    """A number printed in the paper, to stand beside ours."""

    strategy: str
    metric: str
    value: float
    std: float | None


@dataclass(frozen=True)
class PublishedFraction:
    """A quantised share as the paper prints it, and what to know of it where our count differs."""

    strategy: str
    printed: str
    note: str = ""


@dataclass(frozen=True)
class Yardstick:
    """What a simple estimator without any training reaches in a metric, on the same events."""

    name: str
    metric: str
    quantity: Quantity


def over_trainings(repeated: Sequence[Mapping[str, Quantity]]) -> dict[str, Quantity]:
    """Average over trainings, with their standard deviation; a single training's spread stays as it is."""
    if len(repeated) < 2:
        return {
            name: replace(item, values=(item.value,))
            for metrics in repeated
            for name, item in metrics.items()
        }
    values = {name: tuple(metrics[name].value for metrics in repeated) for name in repeated[0]}
    return {
        name: Quantity(statistics.mean(items), statistics.stdev(items), len(items), items)
        for name, items in values.items()
    }


def finite(value: float) -> float | None:
    """Give None for NaN and infinities, which JSON does not have."""
    return value if math.isfinite(value) else None
