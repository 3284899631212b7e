"""Prove the search on real trainings: collect a table of them, then replay every sampler on it.

    .venv/bin/python benchmarks/search_quality.py collect --model caloinn --minutes 60
    .venv/bin/python benchmarks/search_quality.py replay --model caloinn --figure docs/search_caloinn.svg

`collect` trains configurations as candidates of a search are trained, `SEEDS` times each with other batches and noise,
and measures the exported graphs on validation events. The points lie where policies go: handmade strategies, ladders
over all options, flips of what is on the front, random masks at uniform fractions, and proposals of `mask`, `tpe` and
`gp` that know the rows so far. A table of random masks alone would flatter every model of the mask. The table is one
file a network in `data/`; a further call goes on, also beside others.
"""

import argparse
import fcntl
import gzip
import json
import math
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any, cast

import numpy as np
import optuna
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from numpy.typing import NDArray
from search_landscape import Landscapes

from bitsearch.core.atomic import write_atomically
from bitsearch.core.front import MARGIN
from bitsearch.core.seeds import derive
from bitsearch.core.strategy import Configuration
from bitsearch.network import catalogue, loop, measuring, quant, sensitivity
from bitsearch.network.exporter import Exporter
from bitsearch.network.spec import Spec
from bitsearch.network.trainer import Trainer
from bitsearch.run.problem import MOST_RUNGS, Problem, describe, ladder
from bitsearch.run.samplers import LadderSampler, MaskSampler, StratifiedSampler, fit

DATA = Path(__file__).parent / "data"
SEEDS = 2
MIXTURE = ["mask", "flip", "greedy", "stratified", "mask", "ladder", "tpe", "greedy", "flip", "gp"]
"""Where rows come from in turn, behind handmade strategies and the seeds of a search."""
Parameters = Mapping[str, str]


@dataclass(frozen=True)
class Row:
    """A configuration by the level of every group and the choice of every option, its losses, and what they cost."""

    levels: str
    options: tuple[int, ...]
    origin: str
    losses: tuple[float, ...]
    seconds: float


@dataclass
class Table:
    """Real trainings of one network, and what has to be known to propose more."""

    model: str
    dataset: str
    preset: str
    seed: int
    recipe: Mapping[str, Any]
    objective: str
    direction: str
    groups: Mapping[str, tuple[str, ...]]
    gains: Mapping[str, tuple[float, ...]]
    options: Mapping[str, tuple[str, ...]]
    scores: Mapping[str, float]
    strategies: Mapping[str, Parameters]
    sittings: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> "Table":
        """Read what `write` wrote."""
        raw = json.loads(gzip.decompress(path.read_bytes()))
        rows = [Row(a, tuple(b), c, tuple(d), e) for a, b, c, d, e in raw.pop("rows")]
        for name in ("groups", "gains", "options"):
            raw[name] = {key: tuple(values) for key, values in raw[name].items()}
        return cls(**raw, rows=rows)

    def write(self, path: Path) -> None:
        """Write compressed JSON, the same bytes for the same content."""
        raw = {**asdict(self), "rows": [list(asdict(row).values()) for row in self.rows]}
        write_atomically(path, gzip.compress(json.dumps(raw).encode(), mtime=0))

    @cached_property
    def problem(self) -> Problem:
        """Give what a search knows of the network."""
        bare = Problem(self.groups, self.gains, self.options)
        fractions = sorted({bare.gain(item) for item in self.strategies.values()} - {0.0})
        return Problem(self.groups, self.gains, self.options, tuple(fractions), self.scores)

    @property
    def sign(self) -> int:
        """Give 1 where less is better, else -1."""
        return 1 if self.direction == "minimize" else -1

    def parameters(self, row: Row) -> dict[str, str]:
        """Name the choices of a row."""
        options = {
            name: values[i] for (name, values), i in zip(self.options.items(), row.options, strict=True)
        }
        return self.problem.parameters([int(level) for level in row.levels], options)

    def row(
        self, parameters: Parameters, origin: str, losses: Sequence[float] = (), seconds: float = 0.0
    ) -> Row:
        """Make a row of parameters."""
        levels = "".join(str(level) for level in self.problem.levels(parameters))
        options = tuple(values.index(parameters[name]) for name, values in self.options.items())
        return Row(levels, options, origin, tuple(losses), seconds)

    def study(self, sampler: optuna.samplers.BaseSampler) -> optuna.Study:
        """Give a study that has measured all rows."""
        study = optuna.create_study(sampler=sampler, directions=[cast(Any, self.direction), "maximize"])
        for row in self.rows:
            parameters = self.parameters(row)
            study.add_trial(
                optuna.trial.create_trial(
                    params=parameters,
                    distributions=self.problem.space,
                    values=[float(np.mean(row.losses)), self.problem.gain(parameters)],
                )
            )
        return study


def propose(table: Table) -> Iterator[tuple[Parameters, str]]:
    """Yield parameters and origins, the same for the same table."""
    problem = table.problem
    for name, parameters in table.strategies.items():
        yield parameters, f"strategy {name}"
    for parameters in ladder(problem, 20):
        yield parameters, "seed"
    for number in count(len(table.rows)):
        kind = MIXTURE[number % len(MIXTURE)]
        if kind == "flip":
            yield _flipped(table, np.random.default_rng(number)), kind
        else:
            yield table.study(_sampler(kind, problem, number)).ask(problem.space).params, kind


def _sampler(kind: str, problem: Problem, seed: int) -> optuna.samplers.BaseSampler:
    match kind:
        case "mask" | "greedy":
            return MaskSampler(problem, seed, greedy=0 if kind == "mask" else 10**9)
        case "stratified":
            return StratifiedSampler(problem, seed)
        case "ladder":
            return LadderSampler(problem, seed)
        case "tpe":
            return optuna.samplers.TPESampler(seed=seed, multivariate=True)
        case _:
            return optuna.samplers.GPSampler(seed=seed)


def _flipped(table: Table, rng: np.random.Generator) -> Parameters:
    """Give one to three groups of a configuration of the front another level."""
    levels = [int(level) for level in table.rows[int(rng.choice(_front(table)))].levels]
    options = {name: values[rng.integers(len(values))] for name, values in table.options.items()}
    for group in rng.choice(len(levels), min(len(levels), 1 + int(rng.integers(3))), replace=False).tolist():
        others = [i for i in range(len(list(table.groups.values())[group])) if i != levels[group]]
        levels[group] = int(rng.choice(others))
    return table.problem.parameters(levels, options)


def _front(table: Table) -> list[int]:
    """Give the rows that no other beats."""
    losses = [table.sign * float(np.mean(row.losses)) for row in table.rows]
    reached, members = -1.0, []
    for index in np.argsort(losses).tolist():
        gain = table.problem.gain(table.parameters(table.rows[index]))
        if gain > reached:
            members.append(index)
            reached = gain
    return members


class Bench:
    """Trains rows of one network."""

    def __init__(self, model: str, dataset: str | None, preset: str, seed: int, work: Path) -> None:
        self.entry = catalogue.find(model)
        name = self.entry.task(dataset, preset).dataset
        self.spec = Spec(model, name, preset, (), work / model, seed, progress=_say)
        self.trainer, self.exporter = Trainer(self.spec), Exporter(self.spec)
        self.space = self.entry.space(self.spec.task)

    def begin(self) -> Table:
        """Describe the space before anything is measured."""
        spec, task = self.spec, self.spec.task
        options = self.entry.options_of_reference(spec.preset)
        inventory = spec.inventory(options)
        layers = {layer.name: layer for layer in inventory.layers if layer.executed}
        gains = {
            group.name: sum(layers[name].parameters for name in group.layers if name in layers)
            / inventory.executed_parameters
            for group in self.space.groups
        }
        problem = describe(self.space, gains)
        network = self.trainer.reference(options).network
        return Table(
            spec.model,
            spec.dataset,
            spec.preset,
            spec.seed,
            self.recipe,
            task.objective,
            next(metric.direction for metric in task.metrics if metric.name == task.objective),
            dict(problem.groups),
            dict(problem.gains),
            dict(problem.options),
            sensitivity.fisher(network, task, spec.data, self.space, spec.seed),
            {item.name: self._parameters(item.configuration) for item in self.space.strategies},
        )

    @property
    def recipe(self) -> Mapping[str, Any]:
        """Give the candidate's recipe as JSON values."""
        recipes = self.spec.task.recipes
        recipe: Mapping[str, Any] = json.loads(json.dumps(asdict(recipes.candidate)))
        return {**recipe, "name": recipes.name, "rounding": [list(item) for item in recipes.rounding]}

    def losses(self, parameters: Parameters) -> tuple[list[float], float]:
        """Train and measure with every seed; also give the processor time, in seconds."""
        began, spec = time.process_time(), self.spec
        quantized = [group.name for group in self.space.groups if parameters[group.name] != "float32"]
        options = {name: parameters[name] for name in self.space.options}
        configuration = self.space.configuration(quantized, options)
        recipes, found = spec.task.recipes, []
        for seed in range(SEEDS):
            network = self.trainer.reference(options).network
            quant.apply(
                network, configuration.assignment, rounding=recipes.roundings(configuration.assignment)
            )
            trained = loop.train(
                network, spec.task, spec.data, recipes.candidate, seed=derive(spec.seed, seed)
            )
            models = {
                graph: self.exporter.export(trained.network, configuration, graph)
                for graph in spec.task.measured
            }
            found.append(measuring.metrics(spec, models, spec.data)[spec.task.objective].value)
        return found, time.process_time() - began

    def _parameters(self, configuration: Configuration) -> Parameters:
        quantized = set(self.space.quantized_groups(configuration))
        groups = {
            group.name: str(self.space.precision) if group.name in quantized else "float32"
            for group in self.space.groups
        }
        return {**groups, **configuration.options}


def collect(arguments: argparse.Namespace) -> None:
    """Go on with a table until the time is over or it has the rows asked for."""
    torch.set_num_threads(1)
    until = time.monotonic() + 60 * arguments.minutes
    bench = Bench(arguments.model, arguments.dataset, arguments.preset, 1, arguments.work)
    path = DATA / f"{arguments.model}.json.gz"
    path.parent.mkdir(exist_ok=True)
    table = Table.read(path) if path.is_file() else bench.begin()
    if table.recipe != bench.recipe:
        raise SystemExit(
            f"{path} was trained with {table.recipe}, expected {bench.recipe}; move it away to begin anew"
        )
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True)
    sitting = f"{commit.stdout.strip()}: {' '.join(['search_quality.py', *sys.argv[1:]])}"
    while time.monotonic() < until and len(table.rows) < arguments.rows:
        with _locked(bench.spec.folder):
            table = Table.read(path) if path.is_file() else table
            row, parameters = _claimed(table, bench.spec.folder / "claims")
        losses, seconds = bench.losses(parameters)
        with _locked(bench.spec.folder):  # other processes have written meanwhile
            table = Table.read(path) if path.is_file() else table
            table.sittings += [sitting] if sitting not in table.sittings else []
            table.rows.append(replace(row, losses=tuple(losses), seconds=round(seconds, 2)))
            table.write(path)
        _say(
            f"{len(table.rows)} {row.origin}: {table.problem.gain(parameters):.3f} {losses} {seconds:.1f} s",
            1,
        )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _claimed(table: Table, claims: Path) -> tuple[Row, Parameters]:
    """Take the first proposal that neither is in the table nor another process, still alive, is training."""
    taken = {(row.levels, row.options) for row in table.rows}
    lines = claims.read_text().splitlines() if claims.is_file() else []
    kept = [
        line
        for line in lines
        if Path("/proc", line.split()[0]).is_dir() and int(line.split()[0]) != os.getpid()
    ]
    for line in kept:
        _, levels, *options = line.split()
        taken.add((levels, tuple(int(item) for item in options)))
    fresh = ((table.row(item, origin), item) for item, origin in propose(table))
    row, parameters = next(pair for pair in fresh if (pair[0].levels, pair[0].options) not in taken)
    claims.write_text("\n".join([*kept, " ".join(map(str, (os.getpid(), row.levels, *row.options)))]))
    return row, parameters


# --- replay ----------------------------------------------------------------------------------------------------

Seen = list[tuple[dict[str, str], float]]
"""Parameters and the loss that a single training showed, in the order of trials."""
CHECKPOINTS = 13, 25, 50, 100


@dataclass(frozen=True)
class Arm:
    """A policy: does it begin with the handmade strategies, with which rungs, and what proposes after."""

    handmade: bool
    rungs: Callable[[Problem, int], list[dict[str, str]]]
    sampler: Callable[[Problem, int], optuna.samplers.BaseSampler]
    integers: bool = False


def _no_rungs(_problem: Problem, _trials: int) -> list[dict[str, str]]:
    return []


def _seeds(problem: Problem, trials: int) -> list[dict[str, str]]:
    return ladder(problem, min(MOST_RUNGS, trials // 3))


def _old_seeds(problem: Problem, _trials: int) -> list[dict[str, str]]:
    """Give the rungs of commit b0cef51: eight, under the first choice of every option."""
    shares = 0.15, 0.27, 0.38, 0.5, 0.61, 0.73, 0.84, 0.95
    levels = [problem.by_score(share * problem.most) for share in shares]
    return [problem.parameters(item, problem.combinations[0]) for item in levels]


def _tpe(_problem: Problem, seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.TPESampler(seed=seed, multivariate=True)


def _gp(_problem: Problem, seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.GPSampler(seed=seed)


def _nsga2(_problem: Problem, seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.NSGAIISampler(seed=seed, population_size=20)


def _random(_problem: Problem, seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.RandomSampler(seed=seed)


ARMS: Mapping[str, Arm] = {
    "mask": Arm(True, _seeds, MaskSampler),
    "ladder": Arm(True, _no_rungs, LadderSampler),
    "b0cef51": Arm(True, _old_seeds, _tpe, integers=True),
    "stratified": Arm(True, _no_rungs, StratifiedSampler),
    "random": Arm(False, _no_rungs, _random),
    "tpe": Arm(False, _no_rungs, _tpe),
    "nsga2": Arm(False, _no_rungs, _nsga2),
    "seeds + tpe": Arm(True, _seeds, _tpe),
    "seeds + gp": Arm(True, _seeds, _gp),
}


class Replay:
    """One landscape, on which policies search; losses are signed so that less is better.

    Noise is independent, or `common`, as where all trials train with one seed: most of it is then the same for similar
    masks.
    """

    def __init__(self, table: Table, landscapes: Landscapes, seed: int, common: bool = False) -> None:
        self.table, self.problem, self.landscapes, self.seed = table, table.problem, landscapes, seed
        self._losses: dict[tuple[object, ...], float] = {}
        self.weights = landscapes.draw(np.random.default_rng((seed, 0)))
        self.seen_weights, noise = self.weights, landscapes.noise
        if common:
            added, noise = landscapes.common(seed % SEEDS)
            self.seen_weights = self.weights + added
        self.noise = noise * np.random.default_rng((seed, 1)).standard_normal(10_000)
        self.handmade = [self.loss(item) for item in table.strategies.values()]
        self.ideal = self.handmade[0]
        self.worst = self.ideal + (1 + MARGIN) * (max(self.handmade) - self.ideal)

    def loss(self, parameters: Parameters) -> float:
        """Give the true loss."""
        key = *self.problem.levels(parameters), *(parameters[name] for name in self.problem.options)
        if key not in self._losses:
            self._losses[key] = self.landscapes.loss(self.weights, parameters)
        return self._losses[key]

    def search(self, arm: Arm, trials: int) -> tuple[Seen, float]:
        """Search; also give the processor time of all proposals, in seconds."""
        problem = self.problem
        choices = {**problem.groups, **problem.options}
        space = problem.space
        if arm.integers:
            kind = optuna.distributions.IntDistribution
            space = {name: kind(0, len(values) - 1) for name, values in choices.items()}

        def coded(parameters: Parameters) -> dict[str, Any]:
            indices = {name: choices[name].index(value) for name, value in parameters.items()}
            return indices if arm.integers else dict(parameters)

        study = optuna.create_study(
            sampler=arm.sampler(problem, self.seed), directions=["minimize", "maximize"]
        )
        queued = [*self.table.strategies.values()] if arm.handmade else []
        for parameters in [*queued, *arm.rungs(problem, trials)]:
            study.enqueue_trial(coded(parameters), skip_if_exists=True)
        seen: Seen = []
        known: dict[tuple[str, ...], float] = {}
        rng, spent = np.random.default_rng((self.seed, 2)), 0.0
        while len(seen) < trials:
            began = time.process_time()
            trial = study.ask(space)
            spent += time.process_time() - began
            found = {
                name: values[value] if arm.integers else value
                for (name, values), value in zip(
                    choices.items(), (trial.params[name] for name in choices), strict=True
                )
            }
            if (key := tuple(found.values())) not in known:
                shown = self.landscapes.loss(self.seen_weights, found)
                known[key] = shown + float(self.noise[len(seen)])
                seen.append((dict(found), known[key]))
                study.tell(trial, [known[key], problem.gain(found)])
                continue
            study.tell(trial, [known[key], problem.gain(found)])
            while tuple(found.values()) in known:  # as the product does: a neighbour in place of a repeat
                name = str(rng.choice(list(choices)))
                found[name] = str(rng.choice([value for value in choices[name] if value != found[name]]))
            study.enqueue_trial(coded(found))
        return seen, spent

    def area(self, seen: Seen) -> float:
        """Give the relative hypervolume of the true losses of the front that was seen."""
        members, reached = [], -1.0
        for parameters, _ in sorted(seen, key=lambda item: item[1]):
            if (gain := self.problem.gain(parameters)) > reached:
                members.append((self.loss(parameters), gain))
                reached = gain
        area = reached = 0.0
        for loss, gain in sorted(members):
            if gain > reached:
                area += max(0.0, self.worst - loss) * (gain - reached)
                reached = gain
        return area / (self.worst - self.ideal)

    def modelled(self, seen: Seen) -> Seen:
        """Give what was tried with the losses that a model of all expects, by which a run chooses its finalists."""
        tried, losses = [item for item, _ in seen], np.array([loss for _, loss in seen])
        return list(zip(tried, fit(self.problem, tried, losses).expected().tolist(), strict=True))

    def gaps(self, seen: Seen) -> list[float]:
        """Give by how much the best seen at no smaller fraction is truly worse than each handmade strategy."""
        found = []
        for strategy, loss in zip(self.table.strategies.values(), self.handmade, strict=True):
            least = self.problem.gain(strategy) - 1e-9
            enough = [item for item in seen if self.problem.gain(item[0]) >= least]
            best = min(enough, key=lambda item: item[1], default=None)
            found.append(self.loss(best[0]) - loss if best else math.nan)
        return found


def replay(arguments: argparse.Namespace) -> None:
    """Let every policy search on landscapes of a table, and print what it found."""
    torch.set_num_threads(1)
    table = Table.read(DATA / f"{arguments.model}.json.gz")
    rows = [table.parameters(row) for row in table.rows]
    landscapes = Landscapes(table.problem, rows, table.sign * np.array([row.losses for row in table.rows]))
    common = math.sqrt(max(landscapes.noise**2 - landscapes.common(0)[1] ** 2, 0.0))
    explained = ", ".join(f"{share:.3f} ({name})" for name, share in landscapes.explained().items())
    seconds = float(np.mean([row.seconds for row in table.rows])) / SEEDS
    print(f"{table.model}, {table.dataset}, {table.preset}: {len(rows)} configurations x {SEEDS} trainings")
    print(
        f"explained by leave-one-out: {explained}; noise of one training {landscapes.noise:.3g}, "
        f"{common:.3g} of it common to similar masks"
    )
    print(
        f"{seconds:.1f} s of a core a training; columns: relative hypervolume at {CHECKPOINTS} trials ± standard "
        f"error of {arguments.seeds} searches; loss at {len(table.strategies)} handmade fractions less theirs"
    )
    found: dict[str, NDArray[np.float64]] = {}
    curves: dict[str, NDArray[np.float64]] = {}
    for name in arguments.arms:
        arm, areas, modelled, courses, gaps, spent = ARMS[name], [], [], [], [], []
        for seed in range(arguments.first, arguments.first + arguments.seeds):
            place = Replay(table, landscapes, seed, arguments.common_noise)
            seen, seconds_spent = place.search(arm, CHECKPOINTS[-1])
            # With fewer trials a search has fewer rungs.
            parts = [
                place.search(arm, trials)[0]
                if len(arm.rungs(place.problem, trials)) < rungs
                else seen[:trials]
                for rungs in [len(arm.rungs(place.problem, CHECKPOINTS[-1]))]
                for trials in CHECKPOINTS
            ]
            areas.append([place.area(part) for part in parts])
            modelled.append([place.area(place.modelled(part)) for part in parts])
            courses.append([place.area(seen[: trials + 1]) for trials in range(len(seen))])
            gaps.append(place.gaps(place.modelled(seen)))
            spent.append(seconds_spent / len(seen))
        curves[name] = np.array(courses)
        found |= {name: np.array(areas), f"{name}, by model": np.array(modelled)}
        print(f"{name:20}{_with_errors(found[name])}  | {np.mean(spent):.3f} s a proposal")
        print(f"{'chosen by the model':20}{_with_errors(found[f'{name}, by model'])}  |", end=" ")
        print(*(f"{gap:+.3g}" for gap in np.mean(gaps, 0)), flush=True)
    first, *others = arguments.arms
    for other in others:
        print(f"{first} - {other:12}{_with_errors(found[first] - found[other], '+')}")
        apart = found[f"{first}, by model"] - found[other]
        print(f"{first}, by model - {other:12}{_with_errors(apart, '+')}", flush=True)
    if arguments.figure:
        draw(arguments.figure, table, curves)


def draw(path: Path, table: Table, curves: Mapping[str, NDArray[np.float64]]) -> None:
    """Draw the mean hypervolume of every policy against trials, with its standard error."""
    figure = Figure((6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    for number, (name, areas) in enumerate(curves.items()):
        trials, mean = np.arange(1, areas.shape[1] + 1), areas.mean(0)
        error = areas.std(0, ddof=1) / math.sqrt(len(areas))
        (line,) = axes.plot(trials, mean, label=name, linewidth=2.4 if number == 0 else 1.2)
        axes.fill_between(trials, mean - error, mean + error, color=line.get_color(), alpha=0.2, linewidth=0)
    axes.set(
        xlabel="trials",
        ylabel="relative hypervolume",
        title=f"{table.model}, {len(table.rows)} configurations x {SEEDS} real trainings, {len(areas)} searches",
    )
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, ncols=2, fontsize=8)
    with rc_context({"svg.hashsalt": "bitsearch", "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None})


def _with_errors(values: NDArray[np.float64], sign: str = "") -> str:
    errors = values.std(0, ddof=1) / math.sqrt(len(values))
    return "  ".join(f"{m:{sign}.3f} ± {e:.3f}" for m, e in zip(values.mean(0), errors, strict=True))


def _say(text: str, share: float) -> None:
    if share == 1:
        print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Collect or replay."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(required=True)
    verb = verbs.add_parser("collect", help="train more rows")
    verb.add_argument("--model", default="caloinn")
    verb.add_argument("--dataset")
    verb.add_argument("--preset", default="laptop")
    verb.add_argument("--minutes", type=float, default=60.0)
    verb.add_argument("--rows", type=int, default=400)
    verb.add_argument(
        "--skip", type=int, default=0, help="proposals that other processes take: 1 for a second"
    )
    verb.add_argument("--work", type=Path, default=Path(".build/search_quality"), help="float references")
    verb.set_defaults(run=collect)
    verb = verbs.add_parser("replay", help="let policies search on what was collected")
    verb.add_argument("--model", default="caloinn")
    verb.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS)[:-1])
    verb.add_argument("--first", type=int, default=0, help="the first search seed")
    verb.add_argument("--seeds", type=int, default=10)
    verb.add_argument(
        "--common-noise", action="store_true", help="noise as where all trials train with one seed"
    )
    verb.add_argument("--figure", type=Path, help="an SVG file for the curves")
    verb.set_defaults(run=replay)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
