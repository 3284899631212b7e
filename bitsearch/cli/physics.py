"""`evaluate`, `suggest`: what a model is worth in physics, and where to begin with quantising one."""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from bitsearch.cli import columns
from bitsearch.cli.columns import add_columns
from bitsearch.cli.output import add_data, add_json, add_model, add_seed, show
from bitsearch.core.errors import ConfigurationError

if TYPE_CHECKING:
    from bitsearch.core.measurement import Evaluation, Quantity
    from bitsearch.core.task import Data, Progress, Task

EVALUATE = """\
FILE is a model (.onnx), or a file of generated showers in the CaloChallenge format (HDF5), made by anyone. Each is
compared with reference events: those of --data, else the generated default's.

  bitsearch evaluate --model caloinn runs/caloinn/models/all.onnx
  bitsearch evaluate --model caloinn --dataset ds1-photon --data dataset_1_photons_2.hdf5 mine.hdf5 theirs.hdf5

Takes about a minute a file.
"""
SUGGEST = """\
Layers are scored by the loss that rounding their weights would add (from gradients alone), and the least harmful set
that holds the target fraction is chosen. The JSON on stdout goes to --assignment of `train` and `ternarize`.

  bitsearch suggest --model caloinn --target-fraction 0.5 --run runs/caloinn > half.json
  bitsearch suggest --model caloinn --target-fraction 0.5 --checkpoint float.pt > half.json

Takes seconds.
"""


def evaluate_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of `evaluate`."""
    verb.add_argument("files", nargs="+", type=Path, metavar="FILE", help="models (.onnx) or showers (HDF5)")
    add_model(verb, preset=None)
    verb.add_argument("--data", type=Path, metavar="REF", help="reference events (default: generated data)")
    verb.add_argument(
        "--full",
        action="store_true",
        help="of showers: the published protocol, which takes hours (default: the preset's)",
    )
    add_seed(verb)
    add_json(verb)


def suggest_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of `suggest`."""
    add_model(verb)
    verb.add_argument("--target-fraction", type=float, required=True, metavar="F", help="between 0 and 1")
    source = verb.add_mutually_exclusive_group()
    source.add_argument("--run", type=Path, metavar="DIR", help="the folder of a run, for its sensitivities")
    source.add_argument("--checkpoint", type=Path, metavar="FILE", help="a trained float network of ours")
    add_data(verb)
    add_columns(verb)
    add_seed(verb)


def evaluate(arguments: argparse.Namespace) -> None:
    """Print the metrics of every file."""
    from dataclasses import asdict, replace

    from bitsearch.core.task import GeneratorTask
    from bitsearch.models.columns.files import located
    from bitsearch.network import catalogue
    from bitsearch.run.terminal import Terminal

    reference = [located(arguments.data)[0]] if arguments.data else []
    missing = [str(path) for path in (*arguments.files, *reference) if not path.is_file()]
    if missing:
        raise ConfigurationError(f"there is no file {', '.join(missing)}; expected models or HDF5 files")
    entry = catalogue.find(arguments.model)
    said = [_said(path) for path in arguments.files if path.suffix == ".onnx"]
    dataset = arguments.dataset or _common("dataset", [item.get("dataset") for item in said])
    preset = arguments.preset or _common("preset", [item.get("preset") for item in said]) or "laptop"
    task = entry.task(dataset, preset)
    published = _protocol(entry.task(dataset, "paper")) if "paper" in entry.presets else None
    if arguments.full:
        if published is None:
            raise ConfigurationError(
                f"--full: {entry.name} has one protocol at every preset; leave the flag out"
            )
        task = replace(cast(Any, task), evaluation=published)
    evaluated = []
    sessions = {path: [_open(task, path)] for path in arguments.files if path.suffix == ".onnx"}
    baseline = next(iter(sessions.values()), [])
    with Terminal() as terminal:
        terminal.stage("data")
        # Generators take training and reference files: one is the reference as a whole, whatever trained.
        copies = 2 if isinstance(task, GeneratorTask) else 1
        paths = (arguments.data,) * copies if arguments.data else ()
        data = task.load(paths, arguments.seed, terminal.progress)
        for path in arguments.files:
            terminal.stage(f"evaluating {path}")
            metrics, evaluation = _compare(
                task, sessions.get(path, []), baseline, path, data, arguments.seed, terminal.progress
            )
            evaluated.append((path, metrics, evaluation))
        yardsticks = task.yardsticks(data)
    reference = data.identity.files[-1]
    statement = f"{reference.name}, {reference.events:,} events. {data.identity.statement}"
    full = _protocol(task) == published
    if published is not None:
        fast = "Fast protocol, not comparable with published numbers."
        statement += f" {'Published protocol.' if full else fast}"
    content = {
        "model": arguments.model,
        "dataset": task.dataset,
        "preset": task.preset,
        "reference": {
            **asdict(reference),
            "generated": data.identity.generated,
            "statement": data.identity.statement,
        },
        "protocol": "full" if full else "fast",
        "files": [_content(path, metrics, evaluation) for path, metrics, evaluation in evaluated],
        "yardsticks": [asdict(item) for item in yardsticks],
    }
    names = list(dict.fromkeys(name for _, metrics, _ in evaluated for name in metrics))
    labels = {metric.name: metric.label for metric in task.metrics}
    rows = [
        {"file": path.name, "events": evaluation.events}
        | {labels.get(name, name.replace("_", " ")): _shown(metrics.get(name)) for name in names}
        for path, metrics, evaluation in evaluated
    ]
    rows += [
        {"file": f"{item.name} alone", labels.get(item.metric, item.metric): _shown(item.quantity)}
        for item in yardsticks
    ]
    show(arguments.json, content, f"Against {statement}", rows)


def _said(path: Path) -> dict[str, str]:
    """Read which data set and preset an exported file says it is of."""
    from bitsearch.onnxfile import graph

    found = graph.metadata(graph.read(path))
    try:
        config = json.loads(found.get("bitsearch.config", "{}"))
    except ValueError:
        config = {}
    said = {
        "dataset": found.get("bitsearch.dataset"),
        "preset": isinstance(config, dict) and config.get("preset"),
    }
    return {name: value for name, value in said.items() if isinstance(value, str) and value != "unknown"}


def _common(what: str, said: "list[str | None]") -> str | None:
    """Give what all files say; raises ConfigurationError where they disagree."""
    different = list(dict.fromkeys(filter(None, said)))
    if len(different) > 1:
        raise ConfigurationError(
            f"the files are of {what} {' and '.join(different)}; choose one with --{what}"
        )
    return different[0] if different else None


def _protocol(task: "Task") -> Any:
    """Give how a task compares events, where that is its own setting: showers are compared, jets have labels."""
    return getattr(task, "evaluation", None)


def _open(task: "Task", path: Path) -> Any:
    """Open a model and hold its inputs to those of the task; raises ConfigurationError where they differ."""
    from bitsearch.onnxfile import inputs

    session = inputs.open_file(path, threads=0)
    found = {item.name: tuple(item.shape[1:]) for item in session.get_inputs()}
    expected = {name: array.shape[1:] for name, array in task.inputs(1, seed=0).items()}
    if found != expected:
        raise ConfigurationError(
            f"{path} takes {found} for each event; expected {expected}, as exports of {task.model} on {task.dataset}"
        )
    return session


def _compare(
    task: "Task",
    sessions: list[Any],
    baseline: list[Any],
    path: Path,
    data: "Data",
    seed: int,
    progress: "Progress",
) -> "tuple[Mapping[str, Quantity], Evaluation]":
    from bitsearch.core.task import GeneratorTask

    if sessions:
        return task.evaluate(sessions, baseline, data, path.stem, seed, progress)
    if not isinstance(task, GeneratorTask):
        raise ConfigurationError(f"{path}: {task.model} has no files of generated events; expected an .onnx")
    return task.evaluate_file(path, data, path.stem, seed, progress)


def _content(path: Path, metrics: "Mapping[str, Quantity]", evaluation: "Evaluation") -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "file": str(path),
        "events": evaluation.events,
        "metrics": {name: asdict(value) for name, value in metrics.items()},
        "separations": {item.name: asdict(item.separation) for item in evaluation.histograms},
    }


def _shown(quantity: "Quantity | None") -> str:
    if quantity is None:
        return ""
    if quantity.value == int(quantity.value) and quantity.std is None:
        return f"{quantity.value:,.0f}"
    return f"{quantity.value:.4f}" + (f" ± {quantity.std:.4f}" if quantity.std is not None else "")


def suggest(arguments: argparse.Namespace) -> None:
    """Print an assignment."""
    if arguments.run is None and arguments.checkpoint is None:
        raise ConfigurationError(
            "sensitivities need a trained float network and there is none; give --run, the folder of a "
            "`bitsearch run`, or --checkpoint, of `bitsearch train --strategy default`"
        )
    from bitsearch.run.suggest import from_checkpoint, from_run
    from bitsearch.run.terminal import Terminal

    asked = arguments.model, columns.dataset(arguments), arguments.target_fraction
    if arguments.run is not None:
        suggested = from_run(arguments.run, *asked)
    else:
        with Terminal() as terminal:
            terminal.stage("layer sensitivities")
            suggested = from_checkpoint(
                arguments.checkpoint, *asked, arguments.data, arguments.seed, terminal.progress
            )
    fractions = suggested.fractions
    sys.stderr.write(
        f"quantised fraction {fractions.executed_fraction:.4f} of what runs (target "
        f"{arguments.target_fraction:g}), {fractions.fraction:.4f} of all parameters; "
        f"{len(suggested.assignment.quantized)} of {len(suggested.assignment)} layers; "
        f"expected increase of the loss {suggested.loss_increase:.4g}\n"
    )
    sys.stdout.write(json.dumps({name: str(value) for name, value in suggested.assignment.items()}, indent=1))
    sys.stdout.write("\n")
