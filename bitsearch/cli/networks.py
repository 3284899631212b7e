"""`train`, `export`: one network at a time."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bitsearch.cli import columns
from bitsearch.cli.columns import add_columns
from bitsearch.cli.files import add_backend, guard_of
from bitsearch.cli.output import (
    add_data,
    add_device,
    add_json,
    add_limits,
    add_model,
    add_recipe,
    add_seed,
    limits,
    show,
)
from bitsearch.core.budget import Limits
from bitsearch.core.errors import CheckpointError, ConfigurationError

if TYPE_CHECKING:
    import onnx
    from torch import Tensor

    from bitsearch.core.strategy import Configuration
    from bitsearch.core.task import Progress
    from bitsearch.network.checkpoint import Checkpoint
    from bitsearch.network.spec import Spec


TRAIN = """\
Train one configuration by the preset's final recipe: one of the handmade strategies, or an assignment from a JSON file
that maps layers to precisions. What is interrupted goes on with the same command.

  bitsearch train --model caloinn --strategy nncentral --out nncentral.pt

Takes about a minute a training at laptop size on two cores; paper size wants a GPU.
"""
EXPORT = """\
Turn a checkpoint into an ONNX file that onnxruntime serves, and hold it to torch on random inputs. Checkpoints of the
original authors need --model and --strategy, since they do not say what they are. From a run folder, copy the file of
the best front member that quantises --min-fraction of the executed parameters or more.

  bitsearch export nncentral.pt --out nncentral.onnx
  bitsearch export theirs.pt --model caloinn --dataset ds1-photon --strategy nncentral --out theirs.onnx
  bitsearch export runs/caloinn --min-fraction 0.8 --out small.onnx
  bitsearch export ds2.pt --interface par04 --out shower.onnx
  bitsearch export nncentral.onnx --reproducible --out same-bits.onnx

Takes seconds at laptop size, minutes for CaloDREAM at paper size.
"""


AS_TYPED = ", or --model FILE.py: a file is run as code only where you name it yourself"


def train_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of `train`."""
    add_model(verb)
    add_recipe(verb)
    which = verb.add_mutually_exclusive_group(required=True)
    which.add_argument("--strategy", metavar="NAME", help="one of the handmade strategies")
    which.add_argument("--assignment", type=Path, metavar="FILE", help="JSON: layer to precision")
    verb.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a model option, with --assignment; may be given several times",
    )
    add_data(verb)
    add_columns(verb)
    add_seed(verb)
    add_device(verb)
    verb.add_argument(
        "--out", type=Path, required=True, metavar="CHECKPOINT", help="the checkpoint; work lies beside it"
    )


def export_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of `export`."""
    verb.add_argument(
        "checkpoint",
        type=Path,
        nargs="+",
        metavar="CHECKPOINT",
        help="a .pt file, the files of a foreign checkpoint, a run folder with --min-fraction, or an .onnx file with "
        "--backend, --portable, --reproducible or --interface",
    )
    verb.add_argument("--model", help="for foreign checkpoints and models of your own")
    verb.add_argument("--dataset", help="for foreign checkpoints: the data set")
    verb.add_argument(
        "--preset", default="paper", help="for foreign checkpoints: the preset (default: paper)"
    )
    verb.add_argument("--strategy", metavar="NAME", help="for foreign checkpoints: what was quantised")
    verb.add_argument(
        "--min-fraction",
        type=float,
        metavar="F",
        help="for run folders: the least quantised fraction, 0 to 1",
    )
    add_limits(verb, "for run folders: a member of the front")
    verb.add_argument("--out", type=Path, required=True, metavar="FILE.onnx", help="the file to write")
    add_backend(verb)
    verb.add_argument(
        "--portable", action="store_true", help="standard operators alone, for hosts that take no functions"
    )
    verb.add_argument(
        "--reproducible",
        action="store_true",
        help="one order of operations: the same bits for any kernel, threads, batch and onnxruntime",
    )
    verb.add_argument(
        "--opset",
        type=int,
        default=20,
        metavar="N",
        help="with --portable: the opset, 13 to 20 (default: 20)",
    )
    verb.add_argument(
        "--solver",
        metavar="METHOD-STEPS",
        help="for calodream: how velocities are integrated, such as midpoint-4, or kutta-10/adams-8 for energies and "
        "voxels (default: as published, or the preset's)",
    )
    verb.add_argument(
        "--interface",
        choices=["par04", "par04-calodit"],
        help="for generators of ds2: what Geant4's example Par04 calls, by the convention of its VAE or of its "
        "CaloDiT-2, with a macro beside the file",
    )
    add_json(verb)


def train(arguments: argparse.Namespace) -> None:
    """Train and save, then print the path."""
    from bitsearch.network import quant
    from bitsearch.network.checkpoint import Checkpoint
    from bitsearch.network.trainer import Trainer
    from bitsearch.network.workers import one_thread
    from bitsearch.run.terminal import Terminal

    arguments.dataset = columns.dataset(arguments)
    with Terminal() as terminal:
        spec = _spec(arguments, terminal.progress)
        configuration = _configuration(arguments)
        one_thread(spec.device)
        trained = Trainer(spec).train(
            configuration,
            spec.task.recipes.final,
            checkpoint=spec.folder / "work" / f"training-{configuration.digest}.pt",
        )
    Checkpoint(
        model=arguments.model,
        dataset=spec.dataset,
        preset=arguments.preset,
        configuration=configuration,
        strategy=arguments.strategy,
        seed=arguments.seed,
        state=trained.network.cpu().state_dict(),
        recipe=spec.task.recipes.name,
        rounding=quant.roundings(trained.network),
    ).save(arguments.out)
    sys.stdout.write(f"{arguments.out}\n")


def export(arguments: argparse.Namespace) -> None:
    """Export and say how the file agrees with torch; an exported file is written again in another form."""
    first, *others = arguments.checkpoint
    if arguments.portable and arguments.reproducible:
        raise ConfigurationError(
            "--portable has standard operators alone, --reproducible has ours; expected one"
        )
    if arguments.portable and arguments.backend in ("nbits", "int2"):
        raise ConfigurationError(
            f"--backend {arguments.backend} needs onnxruntime's own operators, which --portable does without; "
            "expected --backend ternary, int8 or float32"
        )
    if first.is_dir() and not others:
        _export_from_run(first, arguments)
        return
    if arguments.min_fraction is not None or limits(arguments) != Limits():
        flags = "--min-fraction, --max-size, --max-loss and --max-latency choose"
        raise ConfigurationError(f"{flags} from one run folder; found {first}")
    if first.suffix == ".onnx":
        _export_again(first, arguments)
        return
    import tempfile
    from dataclasses import asdict, replace

    from bitsearch.network import catalogue, checkpoint, measuring
    from bitsearch.network.exporter import Exporter
    from bitsearch.network.spec import Spec

    rewritten = _Rewriter(arguments)
    found = checkpoint.read_foreign(arguments.checkpoint) if others else checkpoint.read(first)
    foreign = isinstance(found, dict)
    if isinstance(found, dict):
        found = _adopt(found, arguments)
    else:
        found = replace(found, model=arguments.model or catalogue.built_in(found.model, AS_TYPED).name)
    with tempfile.TemporaryDirectory() as work:
        spec = Spec(found.model, found.dataset, found.preset, (), Path(work), found.seed, recipe=found.recipe)
        found = _solved(found, arguments)
        network = checkpoint.load_network(spec, found.configuration, found.state, found.rounding)
        exporter, served = Exporter(spec), spec.task.served
        models = {served: rewritten(exporter.export(network, found.configuration, served, found.strategy))}
        for graph in measuring.graphs_of_parity(spec.task, models[served]):
            if graph not in models:
                models[graph] = exporter.export(network, found.configuration, graph)
                models[graph] = rewritten.with_backend(models[graph])
        measured = measuring.parity(spec, models, network)
    content = {**_write(models[served], arguments), **rewritten.slower, "parity": asdict(measured)}
    if foreign:
        assignment = found.configuration.assignment
        content["quantised"] = f"{len(assignment.quantized)} of {len(assignment)} layers"
    rows = [
        {"": key, " ": str(value)}
        for key, value in {**content, **asdict(measured)}.items()
        if key != "parity"
    ]
    show(arguments.json, content, str(arguments.out), rows)


def _export_from_run(path: Path, arguments: argparse.Namespace) -> None:
    """Copy the file of the best front member that is quantised enough, portable where that is asked for."""
    from bitsearch.core import pareto
    from bitsearch.core.atomic import write_atomically
    from bitsearch.core.front import float_among
    from bitsearch.core.rundir import RunFolder
    from bitsearch.onnxfile import graph

    rewritten = _Rewriter(arguments)
    least, most = arguments.min_fraction, limits(arguments)
    if least is None and most != Limits():
        least = 0.0
    if least is None or not 0 <= least <= 1:
        found = "nothing" if least is None else f"{least:g}"
        raise ConfigurationError(f"{path} is a folder: expected --min-fraction of 0 to 1, found {found}")
    folder = RunFolder.open(path)
    front = folder.front()
    if front is None:
        raise ConfigurationError(
            f"{path} holds no front.json yet; the same `bitsearch run` goes on and writes it"
        )
    objective = folder.manifest().objective_metric
    baseline = float_among(pareto.best_fidelity(folder.results(), objective))
    enough = [item for item in front.members if item.executed_fraction >= least]
    item = next((item for item in enough if most.keeps(item, baseline, objective)), None)
    if item is None and enough:
        there = ", ".join(f"{item.executed_fraction:.4f} of {item.size_bytes} bytes" for item in enough)
        raise ConfigurationError(f"nothing of the front of {path} keeps to the limits; it has {there}")
    if item is None:
        # Rounded down, so that what is printed can be typed.
        there = ", ".join(f"{int(item.executed_fraction * 10_000) / 10_000:g}" for item in front.members)
        raise ConfigurationError(
            f"--min-fraction {least:g}: the front of {path} has the fractions {there or 'none'}"
        )
    file = folder.model_file(item)
    if file is None:
        raise ConfigurationError(
            f"the file {item.model} of {item.digest} is missing in {path} or not as the run wrote it; "
            "the same `bitsearch run` makes it again"
        )
    if rewritten.changes or arguments.interface:
        written = {**_write(rewritten(graph.read(file)), arguments), **rewritten.slower}
    else:
        write_atomically(arguments.out, file.read_bytes())
        written = {"file": str(arguments.out), "bytes": arguments.out.stat().st_size}
    quantity = item.metrics[front.objective]
    content = {
        **written,
        "digest": item.digest,
        "strategy": item.strategy,
        "executed_fraction": item.executed_fraction,
        front.objective: quantity.value,
        f"{front.objective}_std": quantity.std,
    }
    rows = [{"": key, " ": "" if value is None else str(value)} for key, value in content.items()]
    show(arguments.json, content, str(arguments.out), rows)


def _export_again(path: Path, arguments: argparse.Namespace) -> None:
    """Write an exported file for another kernel, in operators of another kind, or for Par04."""
    from bitsearch.onnxfile import graph

    rewritten = _Rewriter(arguments)
    if not rewritten.changes and not arguments.interface:
        raise ConfigurationError(
            f"{path} is exported already; expected a .pt file, --backend, --portable, --reproducible or --interface"
        )
    with graph.refusals(path):
        content = {**_write(rewritten(graph.read(path)), arguments), **rewritten.slower}
    show(arguments.json, content, str(arguments.out), [{"": key, " ": str(v)} for key, v in content.items()])


def _solved(found: "Checkpoint", arguments: argparse.Namespace) -> "Checkpoint":
    """Choose another solver for a network that has one."""
    from dataclasses import replace

    if arguments.solver is None:
        return found
    if found.model != "calodream":
        raise ConfigurationError(
            f"--solver is for calodream, whose generator integrates; found {found.model}"
        )
    options = {**found.configuration.options, "solver": arguments.solver}
    return replace(found, configuration=replace(found.configuration, options=options))


class _Rewriter:
    """Writes a file for the backend and in the operators that were asked for."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments, self.guard = arguments, guard_of(arguments)
        form = arguments.portable or arguments.reproducible
        self.changes = form or arguments.backend != "ternary" or self.guard is not None

    @property
    def slower(self) -> dict[str, object]:
        """What stays in float32 and why, if anything was timed."""
        return {} if self.guard is None else {"slower": dict(self.guard.kept)}

    def with_backend(self, model: "onnx.ModelProto") -> "onnx.ModelProto":
        from bitsearch.onnxfile.backends import rewrite

        keep = None if self.guard is None else self.guard.keeps
        return rewrite(model, self.arguments.backend, keep)

    def __call__(self, model: "onnx.ModelProto") -> "onnx.ModelProto":
        from bitsearch.onnxfile.portable import portable
        from bitsearch.onnxfile.reproducible import reproducible

        model = self.with_backend(model)
        if self.arguments.reproducible:
            return reproducible(model)
        return portable(model, self.arguments.opset) if self.arguments.portable else model


def _write(model: "onnx.ModelProto", arguments: argparse.Namespace) -> dict[str, object]:
    """Write a file, dressed for Par04 with the macro beside it where that is asked for; say what was written."""
    from bitsearch.core.atomic import write_atomically
    from bitsearch.onnxfile import graph, par04

    out, written = arguments.out, {}
    if arguments.interface:
        model = par04.par04(model, arguments.interface)
    graph.write(model, out)
    if arguments.interface:
        macro = out.with_name(f"{out.name.removesuffix('.onnx')}.mac")
        write_atomically(macro, par04.macro(model, arguments.interface, out.resolve()))
        written = {"macro": str(macro)}
    return {"file": str(out), "bytes": graph.size_on_disk(out), **written}


def _adopt(state: "dict[str, Tensor]", arguments: argparse.Namespace) -> "Checkpoint":
    """Name what a foreign checkpoint cannot say of itself."""
    from bitsearch.core.task import PublishedTask
    from bitsearch.network import catalogue
    from bitsearch.network.checkpoint import Checkpoint

    if not arguments.model or not arguments.strategy:
        raise ConfigurationError(
            f"{arguments.checkpoint[0]} is not one of ours; expected --model and --strategy to say what it is"
        )
    entry = catalogue.find(arguments.model)
    task = entry.task(arguments.dataset, arguments.preset)
    configuration = entry.strategy(task, arguments.strategy).configuration
    fits = task.strategy_of(state) if isinstance(task, PublishedTask) else None
    if fits not in (None, arguments.strategy):
        raise CheckpointError(
            f"{arguments.checkpoint[0]} was trained as strategy {fits}, as its keys tell, not {arguments.strategy}; "
            f"expected --strategy {fits}"
        )
    return Checkpoint(
        entry.name, task.dataset, arguments.preset, configuration, arguments.strategy, 0, task.convert(state)
    )


def _spec(arguments: argparse.Namespace, progress: "Progress") -> "Spec":
    """Set up beside the checkpoint, in a folder for these settings and data alone."""
    from dataclasses import replace

    from bitsearch.core.assignment import digest
    from bitsearch.network import catalogue
    from bitsearch.network.loop import choose_device
    from bitsearch.network.spec import Spec

    task = catalogue.find(arguments.model).task(arguments.dataset, arguments.preset)
    work = arguments.out.with_name(f"{arguments.out.name}.work")
    spec = Spec(
        model=arguments.model,
        dataset=task.dataset,
        preset=arguments.preset,
        paths=tuple(path.resolve() for path in arguments.data),
        folder=work,
        seed=arguments.seed,
        device=choose_device(arguments.device),
        threads=1,
        progress=progress,
        recipe=arguments.recipe,
    )
    return replace(spec, folder=work / digest(spec.identity))


def _configuration(arguments: argparse.Namespace) -> "Configuration":
    """Read what is to be trained from the flags."""
    from bitsearch.core.assignment import Assignment
    from bitsearch.core.strategy import Configuration
    from bitsearch.network import catalogue

    entry = catalogue.find(arguments.model)
    task = entry.task(arguments.dataset, arguments.preset)
    if arguments.strategy:
        return entry.strategy(task, arguments.strategy).configuration
    assignment = Assignment.read(arguments.assignment)
    assignment.require(entry.space(task).layers)
    known, options = entry.options(task.preset), entry.options_of_reference(task.preset)
    for text in arguments.option:
        name, _, value = text.partition("=")
        if value not in known.get(name, ()):
            raise ConfigurationError(f"--option {text}: expected one of {dict(known)}")
        options[name] = value
    return Configuration(assignment, options)
