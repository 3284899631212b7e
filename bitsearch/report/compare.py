"""Several runs of one model held against each other: seeds, recipes, samplers, machines."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bitsearch.core import pareto
from bitsearch.core.difference import Difference, between
from bitsearch.core.errors import ConfigurationError
from bitsearch.core.front import Reference, reference_of
from bitsearch.core.manifest import Manifest
from bitsearch.core.measurement import Fidelity, Measurement, Metric, Quantity
from bitsearch.core.rundir import RunFolder
from bitsearch.report import view
from bitsearch.report.view import TRAINING, Run

VOLUME = Metric("hypervolume", "relative hypervolume", "", "maximize", "in units of the common box")
SCATTER = ("seed", "device", "workers")
"""Settings that repetitions of one search may differ in."""


@dataclass(frozen=True)
class Side:
    """One of the runs: what it is called, its settings, and its measurements and front at the common fidelity."""

    run: Run
    label: str
    settings: Mapping[str, str]
    measured: Sequence[Measurement]
    front: Sequence[Measurement]

    @property
    def seed(self) -> int:
        """What everything random in the run followed from."""
        return self.run.manifest.seed

    @property
    def data(self) -> tuple[str, ...]:
        """The digests of the files that the run has seen."""
        data = self.run.manifest.data
        return tuple(file.sha256 for file in data.files) if data else ()


@dataclass(frozen=True)
class Group:
    """Runs of the same settings, that is repetitions with other seeds; `name` says what sets them apart."""

    name: str
    sides: tuple[Side, ...]

    @property
    def seeds(self) -> dict[int, Side]:
        """The runs by their seeds."""
        return {side.seed: side for side in self.sides}


@dataclass(frozen=True)
class Comparison:
    """Runs of one model, data set and objective, at the longest training that all of them have."""

    sides: tuple[Side, ...]
    fidelity: Fidelity

    @property
    def objective(self) -> Metric:
        """What all of them optimised."""
        return self.sides[0].run.objective

    @cached_property
    def differing(self) -> dict[str, tuple[str, ...]]:
        """The settings that are not the same in all runs, with the value of each."""
        names = dict.fromkeys(name for side in self.sides for name in side.settings)
        values = {name: tuple(side.settings.get(name, "") for side in self.sides) for name in names}
        return {name: found for name, found in values.items() if len(set(found)) > 1}

    @cached_property
    def box(self) -> Reference | None:
        """One box for all hypervolumes: the first float network, and just beyond the poorest strategy of any run."""
        handmade = [item for side in self.sides for item in side.run.strategies_among(list(side.measured))]
        return reference_of(handmade, self.objective)

    @cached_property
    def groups(self) -> list[Group]:
        """Repetitions together, in the order of the runs."""
        causes = [
            name for name in self.differing if name not in SCATTER and not name.startswith("environment")
        ]
        found: dict[tuple[str, ...], list[Side]] = {}
        for side in self.sides:
            found.setdefault(tuple(side.settings.get(name, "") for name in causes), []).append(side)
        told = [name for name in causes if name in _plain(self.sides[0].run.manifest)]
        return [Group(_name(told, sides), tuple(sides)) for sides in found.values()]

    @property
    def repeated(self) -> list[Group]:
        """Groups of two seeds or more, the largest hypervolume first; none where hypervolumes are not known."""
        groups = [group for group in self.groups if len(group.seeds) > 1]
        return sorted(groups, key=lambda group: -self.mean(group).value) if self.box else []

    def volume(self, side: Side) -> float | None:
        """Give a run's hypervolume in units of the box."""
        if self.box is None:
            return None
        return pareto.hypervolume(side.front, self.objective, self.box.worst) / self.box.height

    def mean(self, group: Group) -> Quantity:
        """Average the hypervolume over the seeds of a group; the uncertainty is that of the mean."""
        values = [self.volume(side) or 0.0 for side in group.seeds.values()]
        error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
        return Quantity(statistics.mean(values), error, len(values), tuple(values))

    def gain(self, one: Group, other: Group) -> Difference:
        """Say by how much the hypervolume of a group is larger: over common seeds where there are two or more."""
        common = [seed for seed in one.seeds if seed in other.seeds]
        if len(common) < 2:
            return between(self.mean(one), self.mean(other), VOLUME, paired=False)
        values = (tuple(self.volume(group.seeds[seed]) or 0.0 for seed in common) for group in (one, other))
        first, second = (Quantity(statistics.mean(items), n=len(items), values=items) for items in values)
        return between(first, second, VOLUME, paired=True)

    def shared(self) -> dict[str, dict[int, Measurement]]:
        """Give what two runs or more have measured: by digest, then by the number of the run; least quantised first."""
        found: dict[str, dict[int, Measurement]] = {}
        for number, side in enumerate(self.sides):
            for item in side.measured:
                found.setdefault(item.digest, {})[number] = item
        several = {digest: items for digest, items in found.items() if len(items) > 1}
        return dict(sorted(several.items(), key=lambda pair: next(iter(pair[1].values())).reduction))

    def difference(self, items: Mapping[int, Measurement], number: int) -> Difference | None:
        """Compare a configuration in run `number` with the first run that has it; None for that run itself.

        Trainings are paired where both runs drew them from one seed on the same data.
        """
        first = min(items)
        if number == first:
            return None
        one, other = self.sides[number], self.sides[first]
        paired = one.seed == other.seed and one.data == other.data
        mine, theirs = (items[place].metrics[self.objective.name] for place in (number, first))
        return between(mine, theirs, self.objective, paired=paired)


def read(paths: Sequence[Path]) -> Comparison:
    """Read run folders to compare.

    Raises:
        ConfigurationError: fewer than two, one of them twice or empty, or runs that cannot be held against each other.
    """
    if len(paths) < 2:
        raise ConfigurationError(f"found {len(paths)} run folder, expected two or more")
    twice = [path for number, path in enumerate(paths) if path.resolve() in map(Path.resolve, paths[:number])]
    if twice:
        raise ConfigurationError(f"found {twice[0]} twice, expected different run folders")
    runs = [view.read(RunFolder.open(path)) for path in paths]
    for path, run in zip(paths, runs, strict=True):
        if not run.measured:
            raise ConfigurationError(f"{path} holds no measurement yet, expected one at least")
        for what, found, expected in zip(
            ("model", "data set", "objective"), _aim(run), _aim(runs[0]), strict=True
        ):
            if found != expected:
                raise ConfigurationError(
                    f"{path} has the {what} {found}, expected {expected} as in {paths[0]}; "
                    "only runs with one aim can be compared"
                )
    fidelity = min((run.fidelity for run in runs), key=pareto.FIDELITIES.index)
    labels = [path.name or str(path) for path in paths]
    if len(set(labels)) < len(labels):
        labels = list(map(str, paths))
    return Comparison(
        tuple(_side(run, label, fidelity) for run, label in zip(runs, labels, strict=True)), fidelity
    )


def _aim(run: Run) -> tuple[str, str, str]:
    return run.manifest.model, run.manifest.dataset, f"{run.objective.name} ({run.objective.direction})"


def _side(run: Run, label: str, fidelity: Fidelity) -> Side:
    measured = pareto.at_fidelity(run.results, fidelity, run.objective)
    if not measured:
        raise ConfigurationError(
            f"{run.folder.path} has nothing after {TRAINING[fidelity]}, which another run has not gone beyond; "
            "compare when both have ended"
        )
    front = run.front if run.fidelity == fidelity else pareto.front(measured, run.objective)
    return Side(run, label, dict(_settings(run)), measured, front)


def _plain(manifest: Manifest) -> dict[str, Any]:
    """Name what the command line sets."""
    return {
        "preset": manifest.preset,
        "recipe": manifest.recipe,
        "sampler": manifest.sampler,
        "seed": manifest.seed,
        "trials": manifest.trials,
        "least fraction": manifest.min_fraction or "",
        "kept in float32": " ".join(manifest.keep),
        "largest file [bytes]": manifest.max_size_bytes or "",
        "largest loss": manifest.max_loss or "",
        "largest latency [µs]": manifest.max_latency_us or "",
        "device": manifest.device,
        "workers": manifest.workers,
        "bitsearch": manifest.version,
    }


def _settings(run: Run) -> Iterator[tuple[str, str]]:
    manifest = run.manifest
    files = manifest.data.files if manifest.data else ()
    values = {
        **_plain(manifest),
        **{
            f"data: {file.role}": f"{file.name}, {file.events} events, SHA-256 {file.sha256[:12]}"
            for file in files
        },
        **run.settings,
        **{
            f"environment: {name}": value
            for name, value in manifest.environment.items()
            if name != "bitsearch"
        },
    }
    yield from ((name, "" if value is None else str(value)) for name, value in values.items())


def _name(told: Sequence[str], sides: Sequence[Side]) -> str:
    named = [f"{name} {sides[0].settings.get(name) or 'none'}" for name in told]
    return ", ".join(named) or ", ".join(side.label for side in sides)
