"""The picture and the number of the first page, from the trainings in `data`.

  python benchmarks/first_page.py docs/front.svg

Every configuration was trained twice. A best of hundreds is better than it looks by what its luck was, so the number is
taken as one would take it to deploy: chosen by one training, given by the other, and the other way round.
"""

import argparse
import gzip
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from bitsearch.report import numbers, style

TABLE = Path(__file__).parent / "data" / "caloinn.json.gz"
HANDMADE = "strategy "


@dataclass(frozen=True)
class Row:
    """A configuration: its quantised fraction, the losses of its two trainings, and who proposed it."""

    fraction: float
    losses: tuple[float, float]
    origin: str

    @property
    def mean(self) -> float:
        """The loss over both trainings."""
        return statistics.mean(self.losses)

    @property
    def handmade(self) -> bool:
        """Whether it is one of the paper's strategies."""
        return self.origin.startswith(HANDMADE)


@dataclass(frozen=True)
class Result:
    """How much better the best configuration at no smaller fraction is than a handmade one, and than float."""

    strategy: Row
    fractions: tuple[float, float]
    gain: float
    over_float: float
    error: float


def read(path: Path = TABLE) -> list[Row]:
    """Read a table of trainings."""
    table = json.loads(gzip.decompress(path.read_bytes()))
    gains = list(table["gains"].values())
    return [
        Row(
            sum(own[int(level)] for own, level in zip(gains, mask, strict=True)),
            (losses[0], losses[1]),
            origin,
        )
        for mask, _, origin, losses, _ in table["rows"]
    ]


def scatter(rows: Sequence[Row]) -> float:
    """Give the standard deviation of a single training, pooled over all configurations."""
    return math.sqrt(statistics.mean(statistics.variance(row.losses) for row in rows))


def front(rows: Sequence[Row]) -> list[Row]:
    """Give what none beats in the mean of both trainings and in the fraction, the best mean first."""
    members: list[Row] = []
    for row in sorted(rows, key=lambda row: (row.mean, -row.fraction)):
        if not members or row.fraction > members[-1].fraction:
            members.append(row)
    return members


def result(rows: Sequence[Row], name: str = "blockcentral") -> Result:
    """Compare with a handmade strategy, and with the float network; each half chooses for the other."""
    strategy = next(row for row in rows if row.origin == HANDMADE + name)
    baseline = next(row for row in rows if row.handmade and row.fraction == 0)
    rivals = [row for row in rows if not row.handmade and row.fraction >= strategy.fraction]
    chosen = [min(rivals, key=lambda row: row.losses[0]), min(rivals, key=lambda row: row.losses[1])]
    given = statistics.mean(row.losses[1 - half] for half, row in enumerate(chosen))
    error = scatter(rows)  # of a mean over two differences of two trainings each: sqrt(2) / sqrt(2)
    return Result(
        strategy,
        (chosen[0].fraction, chosen[1].fraction),
        strategy.mean - given,
        baseline.mean - given,
        error,
    )


def sentence(rows: Sequence[Row]) -> str:
    """Say the result."""
    found = result(rows)
    return (
        f"At {numbers.percent(min(found.fractions))} quantised or more, the best found is "
        f"{numbers.plus_minus(found.gain, found.error, 'nats')} better than the handmade strategy of "
        f"{numbers.percent(found.strategy.fraction)}, and "
        f"{numbers.plus_minus(found.over_float, found.error, 'nats')} better than float32"
    )


@rc_context(style.STYLE)
def draw(rows: Sequence[Row]) -> Figure:
    """Draw the loss against the quantised fraction."""
    figure = Figure(figsize=(7.6, 4.2), layout="constrained")
    axes = figure.add_subplot()
    found, members = [row for row in rows if not row.handmade], front(rows)
    handmade = [row for row in rows if row.handmade]
    error = scatter(rows) / math.sqrt(2)
    baseline = next(row for row in handmade if row.fraction == 0)
    axes.axhspan(baseline.mean - error, baseline.mean + error, color=style.FAINT, linewidth=0, zorder=0)
    axes.axhline(baseline.mean, color=style.INK, linestyle=(0, (4, 3)), linewidth=0.9, label="float32")
    at = [(100 * row.fraction, row.mean) for row in found]
    axes.plot(*zip(*at, strict=True), "o", color=style.MUTED, mfc="none", ms=3.5, mew=0.7, label="measured")
    at = [(100 * row.fraction, row.mean) for row in members]
    axes.plot(
        *zip(*at, strict=True),
        color=style.BLUE,
        drawstyle="steps-pre",
        linewidth=1.8,
        label="front of the search",
    )
    for number, row in enumerate(handmade):
        label = "handmade strategies" if number == 0 else None
        look: dict[str, Any] = {"color": style.ORANGE, "ms": 8, "mec": style.PAPER, "capsize": 2}
        axes.errorbar(100 * row.fraction, row.mean, error, fmt="D", label=label, **look)
    axes.set(xlim=(-3, 103), ylim=(min(row.mean for row in rows) - 2, max(row.mean for row in handmade) + 4))
    axes.set_xlabel("parameters in ternary layers [%]")
    axes.set_ylabel("negative log-likelihood [nats], lower is better")
    axes.legend(loc="upper left")
    style.stamp(axes, "CaloINN, generated ds1 photons, laptop size")
    return figure


def main() -> None:
    """Write the picture and print the sentence."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("out", type=Path, help="an SVG or PNG file")
    arguments = parser.parse_args()
    rows = read()
    with rc_context({**style.STYLE, "svg.fonttype": "path", "savefig.dpi": 120}):
        # A picture on a page that is light or dark: paper of its own, letters that need no font.
        draw(rows).savefig(arguments.out, metadata={"Date": None} if arguments.out.suffix == ".svg" else None)
    print(f"{len(rows)} configurations, trained twice each. {sentence(rows)}.")


if __name__ == "__main__":
    main()
