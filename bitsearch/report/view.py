"""A run folder as the report sees it: who is compared with whom, at which fidelity, under which name."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bitsearch.core import pareto
from bitsearch.core.front import Front, float_among
from bitsearch.core.manifest import Manifest
from bitsearch.core.measurement import Evaluation, Fidelity, Measurement, Metric, Yardstick
from bitsearch.core.rundir import RunFolder
from bitsearch.core.space import Group
from bitsearch.report import numbers

TRAINING: Mapping[Fidelity, str] = {
    "untrained": "nothing trained",
    "shared-weights": "shared weights",
    "finetuned": "short training",
    "full": "full training",
}
LONGEST = 24  # characters of a name on a figure
CARDS = 60
"""Cards on a page; the table of every measurement holds the rest."""


@dataclass(frozen=True)
class Run:
    """Everything that was read from a run folder.

    `final` is `front.json`, if it has been written. `front`, `measured`, `baselines` and `reference` all have the same
    `fidelity`; `candidates` are what the search measured, at `search_fidelity`.
    """

    folder: RunFolder
    manifest: Manifest
    metrics: Mapping[str, Metric]
    objective: Metric
    results: list[Measurement]
    final: Front | None
    front: list[Measurement]
    fidelity: Fidelity
    search_fidelity: Fidelity
    names: Mapping[str, str]

    @property
    def measured(self) -> list[Measurement]:
        """Every configuration measured at the front's fidelity."""
        return pareto.at_fidelity(self.results, self.fidelity, self.objective)

    @property
    def candidates(self) -> list[Measurement]:
        """Every configuration measured at the search's fidelity."""
        return pareto.at_fidelity(self.results, self.search_fidelity, self.objective)

    @property
    def baselines(self) -> list[Measurement]:
        """The paper's strategies at the front's fidelity, in the paper's order."""
        return self.strategies_among(self.measured)

    @property
    def reference(self) -> Measurement | None:
        """The float network: the first strategy that quantises nothing."""
        return self.reference_among(self.measured)

    @cached_property
    def carded(self) -> dict[str, Measurement]:
        """What has a card of its own, by digest: front and strategies, then what else was trained as long."""
        rest = self.measured if self.is_final else []
        members = {item.digest: item for item in (*self.front, *self.baselines, *rest)}
        return dict(list(members.items())[:CARDS])

    @property
    def knee(self) -> Measurement | None:
        """The front member with the best trade, if the front bends at all."""
        return pareto.knee(self.front, self.objective)

    @property
    def failures(self) -> list[Measurement]:
        """What could not be measured."""
        return [item for item in self.results if item.failure is not None]

    @property
    def yardsticks(self) -> tuple[Yardstick, ...]:
        """What simple estimators reach on the same events."""
        return self.manifest.yardsticks

    @property
    def searched(self) -> bool:
        """Whether the search has measured anything beyond the paper's strategies."""
        return any(item.digest not in self.names for item in self.results)

    @property
    def stamp(self) -> str:
        """What every figure says about its data."""
        generated = self.manifest.data is not None and self.manifest.data.generated
        names = (_elided(self.manifest.model), _elided(self.manifest.dataset))
        return ", ".join([*names, *(["generated data"] if generated else [])])

    @property
    def title(self) -> str:
        """Which data the run has seen, and that they are generated if they are."""
        title = self.manifest.title or f"{self.manifest.model} on {self.manifest.dataset}"
        generated = self.manifest.data is not None and self.manifest.data.generated
        return f"{title} (generated data)" if generated and "generated" not in title.lower() else title

    @property
    def settings(self) -> dict[str, Any]:
        """The task's settings, by dotted names."""
        return dict(_flat(self.manifest.settings))

    @property
    def rivals(self) -> str:
        """What the search is held to, in words."""
        return "files of one precision" if self.fidelity == "untrained" else "handmade strategies"

    @property
    def choices(self) -> int | None:
        """How many configurations there are, where the layers of a file choose among precisions and nothing else."""
        if self.fidelity != "untrained":
            return None
        return int(len(self.manifest.settings.get("precisions", ())) ** len(self.manifest.groups))

    @property
    def is_final(self) -> bool:
        """Whether the front went through final training, or nothing is ever trained."""
        return self.fidelity in ("full", "untrained")

    @property
    def counts_bits(self) -> bool:
        """Whether configurations are held to each other by bits a weight, not by the quantised fraction."""
        return any(item.mean_bits is not None for item in self.results)

    @cached_property
    def groups(self) -> dict[str, dict[str, int]]:
        """The weights of each layer of each group, in network order."""
        weights = {layer.name: layer.weights for layer in self.manifest.layers}
        order = {name: index for index, name in enumerate(weights)}
        groups = self.manifest.groups or [Group(name, (name,), "") for name in weights]
        groups = sorted(groups, key=lambda group: min(order[name] for name in group.layers))
        return {group.name: {name: weights[name] for name in group.layers} for group in groups}

    def strategies_among(self, measured: list[Measurement]) -> list[Measurement]:
        """Pick the paper's strategies, in the paper's order."""
        found = {item.digest: item for item in measured}
        return [found[digest] for digest in self.names if digest in found]

    def reference_among(self, measured: list[Measurement]) -> Measurement | None:
        """Pick the float network."""
        return float_among(self.strategies_among(measured))

    def name(self, item: Measurement) -> str:
        """Name a configuration by its strategy, else by its digest."""
        return self.names.get(item.digest, item.digest)

    def place(self, item: Measurement) -> str:
        """Number a front member from 1, best performance first; empty for all others."""
        return next((str(i) for i, member in enumerate(self.front, 1) if member.digest == item.digest), "")

    def anchor(self, item: Measurement) -> str:
        """Give where the page says more of a configuration: its card, else its row among all measurements."""
        return f"c-{item.digest}" if item.digest in self.carded else f"m-{item.digest}-{item.fidelity}"

    def model_file(self, item: Measurement) -> Path | None:
        """Give the file to serve, relative to the run folder, if it was kept and is whole."""
        path = self.folder.model_file(item)
        return path.relative_to(self.folder.path.resolve()) if path else None

    def shown(self) -> list[tuple[str, Evaluation]]:
        """Give the evaluations to plot, each once: float, best quantised, knee and most quantised."""
        quantized = [item for item in self.front if item.reduction > 0]
        best, most = (quantized[0], quantized[-1]) if quantized else (None, None)
        picks = {"float": self.reference, "best quantised": best, "most quantised": most, "knee": self.knee}
        # Reversed, so that where two picks are one configuration the earlier name stays.
        distinct = {item.digest: (kind, item) for kind, item in reversed(picks.items()) if item}
        ordered = sorted(distinct.values(), key=lambda pick: pick[1].reduction)
        found = [(kind, item, self.folder.evaluation(item.digest)) for kind, item in ordered]
        return [
            (f"{kind} ({numbers.reach(item)})", evaluation) for kind, item, evaluation in found if evaluation
        ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _elided(name: str) -> str:
    """Keep both ends of a name that would be longer than a small figure is high."""
    return name if len(name) <= LONGEST else f"{name[: LONGEST // 2 - 1]}…{name[-(LONGEST // 2) :]}"


def read(folder: RunFolder) -> Run:
    """Read a run folder in whatever state the run has left it."""
    manifest, results = folder.manifest(), folder.results()
    objective = manifest.objective_metric
    searched = [item for item in results if item.origin == "search" and pareto.usable(item, objective)]
    in_search = max((item.fidelity for item in searched), key=pareto.FIDELITIES.index, default=None)
    final = folder.front()
    front = list(final.members) if final else []
    if not front:  # before final training has ended, the search's own front is all there is
        comparable = pareto.at_fidelity(results, in_search, objective) if in_search else results
        front = pareto.front(comparable, objective)
    return Run(
        folder=folder,
        manifest=manifest,
        metrics={metric.name: metric for metric in manifest.metrics},
        objective=objective,
        results=results,
        final=final,
        front=front,
        fidelity=front[0].fidelity if front else "full",
        search_fidelity=in_search or "finetuned",
        names={item.digest: item.name for item in manifest.strategies}
        | {item.digest: item.strategy for item in results if item.strategy},
    )
