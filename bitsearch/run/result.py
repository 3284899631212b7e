"""What a search has found, from the files of its run folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitsearch import report
from bitsearch.core import pareto
from bitsearch.core.errors import ConfigurationError
from bitsearch.core.measurement import Measurement
from bitsearch.core.rundir import RunFolder
from bitsearch.report import view

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class SearchResult:
    """The result of a run folder, which `bitsearch run` and `bitsearch.search` both write."""

    run: view.Run

    @classmethod
    def open(cls, folder: str | Path) -> "SearchResult":
        """Read a run folder.

        Raises:
            BitsearchError: there is none, or one of its files is damaged.
        """
        return cls(view.read(RunFolder.open(folder)))

    @property
    def front(self) -> list[Measurement]:
        """What no other configuration beats in the objective and the quantised fraction, best objective first."""
        return self.run.front

    @property
    def files(self) -> dict[str, Path]:
        """The ONNX file of every strategy and of every member of the front, by name."""
        found = {
            self.run.name(item): self.run.model_file(item) for item in [*self.run.baselines, *self.front]
        }
        return {name: self.run.folder.path / path for name, path in found.items() if path}

    @property
    def report(self) -> Path:
        """The page."""
        return self.run.folder.report / "index.html"

    def table(self) -> list[dict[str, Any]]:
        """Give one record a configuration of the front, ready for `pandas.DataFrame`; sizes in bytes, times in µs."""
        return [self._record(item) for item in self.front]

    def best(self, min_fraction: float = 0.0, max_size_bytes: float = float("inf")) -> Measurement:
        """Give the best objective among configurations that are quantised enough, of those trained longest.

        Raises:
            ConfigurationError: there is none; the message says what there is.
        """
        objective = self.run.objective
        fitting = [
            item
            for item in self.run.measured
            if item.executed_fraction >= min_fraction and item.size_bytes <= max_size_bytes
        ]
        if not fitting:
            largest = max((item.executed_fraction for item in self.run.measured), default=0.0)
            smallest = min((item.size_bytes for item in self.run.measured), default=0)
            raise ConfigurationError(
                f"no configuration has a fraction of {min_fraction:g} or more and {max_size_bytes:g} bytes or less; "
                f"found fractions up to {largest:.3f} and sizes from {smallest} bytes"
            )
        return min(fitting, key=lambda item: pareto.loss(item, objective))

    def file(self, item: Measurement) -> Path:
        """Give the ONNX file of a configuration; raises ConfigurationError where it was not kept."""
        path = self.run.model_file(item)
        if path is None:
            raise ConfigurationError(
                f"no file of {item.digest} was kept; files are those of {list(self.files)}"
            )
        return self.run.folder.path / path

    def plot(self) -> "Figure":
        """Draw the objective against the quantised fraction, as in the report."""
        return report.front(self.run)

    def _record(self, item: Measurement) -> dict[str, Any]:
        metrics: Mapping[str, Any] = {
            key: value
            for name, quantity in item.metrics.items()
            for key, value in ((name, quantity.value), (f"{name}_std", quantity.std))
        }
        path = self.run.model_file(item)
        return {
            "name": self.run.name(item),
            "executed_fraction": item.executed_fraction,
            **metrics,
            "size_bytes": item.size_bytes,
            **{f"latency_us_batch_{latency.batch}": latency.median_us for latency in item.latency_us},
            "file": str(self.run.folder.path / path) if path else None,
        }

    def _repr_html_(self) -> str:
        rows = self.table()
        if not rows:
            return f"<p>{escape(str(self.run.folder.path))}: nothing is measured yet.</p>"
        head = "".join(f"<th>{escape(name)}</th>" for name in rows[0])
        body = "".join(
            "<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in row.values()) + "</tr>" for row in rows
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else escape("" if value is None else str(value))
