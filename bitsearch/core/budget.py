"""What a configuration may cost: limits on what is measured, and sums over groups that tell it beforehand."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf

from bitsearch.core import pareto
from bitsearch.core.errors import ConfigurationError
from bitsearch.core.measurement import Measurement, Metric

UNITS = {"": 1, "B": 1, "kB": 1000, "MB": 1000**2, "GB": 1000**3, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}


@dataclass(frozen=True)
class Limits:
    """What a configuration may cost at most: bytes of its file, loss against the float network, µs of one event.

    `max_loss` is in units of the objective, towards worse values; `max_latency_us` holds for the median of the smallest
    batch on one thread.
    """

    max_size_bytes: float = inf
    max_loss: float = inf
    max_latency_us: float = inf

    def __post_init__(self) -> None:
        named = ("--max-size", self.max_size_bytes), ("--max-latency", self.max_latency_us)
        for flag, value in named:
            if not value > 0:
                raise ConfigurationError(f"{flag} {value:g}: expected more than 0")
        if not self.max_loss >= 0:
            raise ConfigurationError(f"--max-loss {self.max_loss:g}: expected 0 or more")

    def keeps(self, item: Measurement, baseline: Measurement | None, objective: Metric) -> bool:
        """Tell whether a measurement is within the limits; `baseline` is the float network's at the same fidelity."""
        if item.size_bytes > self.max_size_bytes:
            return False
        latency = min(item.latency_us, key=lambda latency: latency.batch, default=None)
        if latency and latency.median_us > self.max_latency_us:
            return False
        if self.max_loss == inf or baseline is None or not pareto.usable(baseline, objective):
            return True
        if not pareto.usable(item, objective):
            return False
        return pareto.loss(item, objective) - pareto.loss(baseline, objective) <= self.max_loss


@dataclass(frozen=True)
class Budget:
    """A sum over groups, known before anything is trained, that proposals hold at `most`.

    `base` is the float network's, by the choices of its options in order; `changes` are by group and level.
    """

    flag: str
    most: float
    base: Mapping[tuple[str, ...], float]
    changes: Mapping[str, tuple[float, ...]]

    def predicted(self, options: tuple[str, ...], levels: Mapping[str, int]) -> float:
        """Add up what a configuration will cost."""
        return self.base[options] + sum(self.changes[name][level] for name, level in levels.items())

    def check(self, reachable: Mapping[str, int]) -> None:
        """Hold that some configuration keeps to it; `reachable` is the number of levels that each group may have.

        Raises:
            ConfigurationError: none does; the message has the least that is possible.
        """
        saved = sum(min(self.changes[name][:count]) for name, count in reachable.items())
        least = min(self.base.values()) + saved
        if least > self.most:
            raise ConfigurationError(
                f"{self.flag} {self.most:g} cannot be reached: the least is about {least:.4g}"
            )


def bytes_of(text: str) -> float:
    """Read a size such as `3MB`, `300 kB`, `2.5MiB` or a number of bytes; raises ValueError for others."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-z]*)\s*", text)
    units = {name.lower(): value for name, value in UNITS.items()}
    if not match or match[2].lower() not in units:
        raise ValueError(f"{text!r}; expected a size such as 300kB, 3MB or 2MiB")
    return float(match[1]) * units[match[2].lower()]
