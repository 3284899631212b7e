"""Train the same configurations by several recipes, from the same float networks with the same batches, and compare.

    .venv/bin/python benchmarks/recipes.py --model caloinn --out .build/recipes

Every training is a line of OUT/MODEL.jsonl; the command goes on where it was stopped, and `--table` prints what there
is. Differences are to the first recipe, paired by seed, with their standard error where there are two seeds or more.
A configuration is a strategy's name, or layers by pattern: `last=*.layers.9` quantises those that match and calls it
`last`.
"""

import argparse
import json
import math
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, cast

import torch

from bitsearch.core.assignment import Assignment
from bitsearch.core.rounding import Rounding
from bitsearch.core.strategy import Configuration
from bitsearch.core.task import Recipes
from bitsearch.network import catalogue
from bitsearch.network.spec import Spec
from bitsearch.network.trial import Trial
from bitsearch.onnxfile.runtime import open_session

SEED = 1
ROUNDINGS: Mapping[str, tuple[tuple[str, Rounding], ...]] = {
    "paper": (),
    "mean": (("*", Rounding.MEAN),),
    "optimal": (("*", Rounding.OPTIMAL),),
}


@dataclass(frozen=True)
class Line:
    """One training: its recipe, configuration and seed, the fraction quantised and the loss on validation events."""

    recipe: str
    configuration: str
    seed: int
    fraction: float
    loss: float
    seconds: float


def changed(recipes: Recipes, name: str) -> Recipes:
    """Read a recipe such as `optimal:rate=1:steps=4`: a rounding, a low-bit rate, a factor of the steps."""
    kind, *texts = name.split(":")
    changes = dict(text.split("=") for text in texts)
    final = replace(
        recipes.final,
        quantized_rate=float(changes.get("rate", recipes.final.quantized_rate)),
        steps=round(recipes.final.steps * float(changes.get("steps", 1))),
    )
    return replace(recipes, name=name, rounding=ROUNDINGS[kind], final=final)


def recipes_of(model: str, names: list[str]) -> dict[str, Recipes]:
    """Find recipes by name: `improved` is the model's own, all others are changes of the paper's."""
    entry = catalogue.find(model)
    paper = entry.task(None, "laptop", "paper").recipes
    return {
        name: entry.task(None, "laptop", name).recipes if name == "improved" else changed(paper, name)
        for name in names
    }


def configuration_of(spec: Spec, text: str) -> Configuration:
    """Read a strategy's name or `name=pattern`."""
    entry = catalogue.find(spec.model)
    name, _, pattern = text.partition("=")
    if not pattern:
        return entry.strategy(spec.task, name).configuration
    layers = entry.space(spec.task).layers
    quantized = [layer for layer in layers if fnmatchcase(layer, pattern)]
    return Configuration(Assignment.of(layers, quantized), entry.options_of_reference("laptop"))


def measure(trial: Trial, configuration: Configuration, repetition: int) -> tuple[float, float]:
    """Train, export, and give the loss that onnxruntime finds with the seconds of the training."""
    task = trial.spec.task
    trained = trial.trainer.train(configuration, task.recipes.final, repetition)
    sessions = {
        graph: open_session(trial.exporter.export(trained.network.cpu(), configuration, graph), 1)
        for graph in task.measured
    }
    found = task.measure(sessions, trial.spec.data)
    return found[task.objective].value, trained.seconds


def lines(file: Path) -> list[Line]:
    """Read what has been measured."""
    text = file.read_text() if file.is_file() else ""
    return [Line(**json.loads(line)) for line in text.splitlines()]


def table(found: list[Line], recipes: list[str], configurations: list[str]) -> Iterator[str]:
    """Write a line for every configuration, and below it the differences to the first recipe."""
    losses = {(item.recipe, item.configuration, item.seed): item.loss for item in found}
    fractions = {item.configuration: item.fraction for item in found}
    yield "| configuration | quantised | " + " | ".join(recipes) + " |"
    yield "|---|---|" + "---|" * len(recipes)
    for name in configurations:
        cells = []
        for recipe in recipes:
            mine = {seed: loss for (r, c, seed), loss in losses.items() if (r, c) == (recipe, name)}
            first = {seed: loss for (r, c, seed), loss in losses.items() if (r, c) == (recipes[0], name)}
            text = " / ".join(
                f"{loss:.1f}" if loss > 10 else f"{loss:.4f}" for _, loss in sorted(mine.items())
            )
            paired = [mine[seed] - first[seed] for seed in sorted(mine.keys() & first.keys())]
            if recipe != recipes[0] and len(paired) > 1:
                error = statistics.stdev(paired) / math.sqrt(len(paired))
                text += f" ({statistics.mean(paired):+.3g} ± {error:.2g})"
            cells.append(text or "—")
        yield f"| {name} | {fractions.get(name, math.nan):.1%} | " + " | ".join(cells) + " |"


def main() -> None:
    """Measure what is missing, then print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="caloinn")
    parser.add_argument("--recipes", nargs="+", default=["paper", "improved"])
    parser.add_argument("--configurations", nargs="+", default=["default", "all"])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    file = arguments.out / f"{arguments.model}.jsonl"
    names = [text.partition("=")[0] for text in arguments.configurations]
    if not arguments.table:
        _measure(arguments, file)
    print("\n".join(table(lines(file), arguments.recipes, names)))


def _measure(arguments: argparse.Namespace, file: Path) -> None:
    task = catalogue.find(arguments.model).task()
    folder = arguments.out / arguments.model
    spec = Spec(arguments.model, task.dataset, "laptop", (), folder, SEED)
    trial = Trial(spec)
    wanted = recipes_of(arguments.model, arguments.recipes)
    done = {(item.recipe, item.configuration, item.seed) for item in lines(file)}
    for seed in range(arguments.seeds):
        for text in arguments.configurations:
            for name, recipes in wanted.items():
                if (name, text.partition("=")[0], seed) in done:
                    continue
                # All recipes and seeds start from one float network of the options.
                recipes = replace(recipes, independent=False)
                vars(spec)["task"] = replace(cast(Any, task), recipes=recipes)
                configuration = configuration_of(spec, text)
                fraction = spec.inventory(configuration.options).fractions(configuration.assignment)
                loss, seconds = measure(trial, configuration, seed)
                line = Line(name, text.partition("=")[0], seed, fraction.fraction, loss, seconds)
                file.parent.mkdir(parents=True, exist_ok=True)
                with file.open("a") as stream:
                    stream.write(json.dumps(line.__dict__) + "\n")


if __name__ == "__main__":
    main()
