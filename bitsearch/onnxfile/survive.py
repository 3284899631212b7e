"""Which layers of a file survive few bits: each alone first, then together, as long as the data allows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bitsearch.core.errors import ConfigurationError, DataError, one_of
from bitsearch.core.measurement import Metric, Quantity
from bitsearch.core.precision import Precision
from bitsearch.onnxfile.candidates import Candidates
from bitsearch.onnxfile.judge import ERROR, Judge

Progress = Callable[[str, float], None]
"""Called with what is being done and the share done."""


@dataclass(frozen=True)
class Limit:
    """By how much a metric may be worse than the original's."""

    metric: Metric
    most: float

    @classmethod
    def of(cls, judge: Judge, max_error: float | None, max_drop: str | None) -> "Limit":
        """Read `--max-error E` or `--max-drop METRIC=X`.

        Raises:
            ConfigurationError: there is no such metric, or the number is not positive.
        """
        if max_drop is None:
            metric, text, flag = ERROR, f"{max_error:g}", "--max-error"
        else:
            name, _, text = max_drop.rpartition("=")
            flag = "--max-drop"
            known = {item.name: item for item in judge.metrics if item is not ERROR}
            if name not in known:
                more = "" if judge.labels is not None else "; those of labels need --labels"
                raise ConfigurationError(
                    f"{flag} {max_drop}: {one_of(name, [f'{item}=X' for item in known] or ['--max-error E'], more)}"
                )
            metric = known[name]
        try:
            most = float(text)
        except ValueError:
            most = 0.0
        if not 0 < most < float("inf"):
            raise ConfigurationError(f"{flag} {text}: expected a number above 0")
        return cls(metric, most)

    def allows(self, found: Mapping[str, Quantity], original: Mapping[str, Quantity]) -> bool:
        """Tell whether a file is good enough."""
        return self.drop(found, original) <= self.most

    def drop(self, found: Mapping[str, Quantity], original: Mapping[str, Quantity]) -> float:
        """Give how much worse a file is than the original."""
        name = self.metric.name
        off = found[name].value - original[name].value
        return off if self.metric.direction == "minimize" else -off


def alone(
    candidates: Candidates, judge: Judge, precisions: Mapping[str, Precision], progress: Progress
) -> dict[str, dict[str, Quantity]]:
    """Measure every layer by itself at its precision; one that leads to NaN or infinity gets no metrics."""
    found: dict[str, dict[str, Quantity]] = {}
    for number, (name, precision) in enumerate(precisions.items(), 1):
        progress("layers measured alone", number / len(precisions))
        model, _ = candidates.make({name: precision})
        try:
            found[name], _ = judge.measure(model)
        except DataError:
            found[name] = {}
    return found


def survivors(
    candidates: Candidates,
    judge: Judge,
    precisions: Mapping[str, Precision],
    limit: Limit,
    by_itself: Mapping[str, Mapping[str, Quantity]],
    progress: Progress,
) -> tuple[dict[str, Precision], dict[str, Quantity]]:
    """Take layers in the order of harm for the bytes they save, each as long as all together keep to the limit.

    Raises:
        ConfigurationError: no layer does.
    """
    original, _ = judge.measure(candidates.model)
    weights = {layer.name: layer.weights for layer in candidates.layers.inventory.layers}
    drops = {name: limit.drop(found, original) for name, found in by_itself.items() if found}
    saved = {name: weights[name] * (32 - precisions[name].bits) / 8 for name in drops}
    chosen: dict[str, Precision] = {}
    reached: dict[str, Quantity] = {}
    order = sorted(drops, key=lambda name: (drops[name] / saved[name], -saved[name], name))
    for number, name in enumerate(order, 1):
        progress("layers tried together", number / len(order))
        if drops[name] > limit.most and not chosen:
            continue  # what is too much alone is no beginning
        tried = {**chosen, name: precisions[name]}
        try:
            found, _ = judge.measure(candidates.make(tried)[0])
        except DataError:
            continue
        if limit.allows(found, original):
            chosen, reached = tried, found
    if not chosen:
        raise ConfigurationError(_nothing(limit, drops))
    return chosen, reached


def _nothing(limit: Limit, drops: Mapping[str, float]) -> str:
    if not drops:
        return "no layer survives: each of them alone leads to NaN or infinity on the data"
    best = min(drops, key=lambda name: drops[name])
    return (
        f"no layer survives: {best}, the least harmful, alone is worse by {limit.metric.name} {drops[best]:.4g}; "
        f"expected {limit.most:g} or less, allow more"
    )
