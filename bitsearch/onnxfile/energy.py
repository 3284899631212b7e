"""Energy of a run: from the processor's own counter where that can be read, else a labelled estimate."""

from collections.abc import Mapping
from pathlib import Path

from bitsearch.onnxfile import graph, inspect

COUNTER = Path("/sys/class/powercap/intel-rapl:0/energy_uj")
# pJ, M. Horowitz, "Computing's energy problem", ISSCC 2014, 45 nm: products with sums, and a byte from memory.
PICOJOULES = {"float32": 3.7 + 0.9, "float16": 1.1 + 0.4, "int8": 0.2 + 0.1, "low-bit": 0.1}
MEMORY_PICOJOULES = 160.0
ESTIMATE = (
    "an estimate (Horowitz, ISSCC 2014, 45 nm) of reading weights once a run, multiplying once an event"
)


class Meter:
    """Microjoules of the whole package, or None where the counter cannot be read; then `estimate` stands in."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self.is_measured = self.read() is not None
        self.source = f"{COUNTER}, the whole processor" if self.is_measured else ESTIMATE
        self._layers = (
            {} if self.is_measured else {n: inspect.layer_contents(graph.read(p)) for n, p in files.items()}
        )

    def read(self) -> int | None:
        """Read the counter."""
        try:
            return int(COUNTER.read_text())
        except (OSError, ValueError):
            return None

    def estimate(self, name: str, batch: int) -> float:
        """Give µJ of one run of a file."""
        total = 0.0
        for layer in self._layers.get(name, ()):
            kind = "low-bit" if layer.precision in inspect.LOW_BIT else layer.precision.removeprefix("u")
            product = PICOJOULES.get(kind, PICOJOULES["float32"])
            total += layer.bytes * MEMORY_PICOJOULES + layer.parameters * batch * product
        return total / 1e6
