"""`run`, `report`, `status`: a search and its run folder."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from bitsearch.cli import columns
from bitsearch.cli.columns import add_columns
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
from bitsearch.cli.watch import PORT

if TYPE_CHECKING:
    from bitsearch.core.precision import Precision
    from bitsearch.core.space import SearchSpace
    from bitsearch.run.plan import Plan

RUN = """\
Data, float reference, handmade strategies, search, export, measurement in onnxruntime, report. Run again with the
same --out, it goes on from what is on disk: --trials is the total. The path of the report ends on stdout.

  bitsearch run --model caloinn --preset smoke --trials 8
  bitsearch run --model caloinn --trials 100 --data train.hdf5 reference.hdf5 --out runs/photons
  bitsearch run --model tagger --data events.root:tree --label is_signal

Takes a minute with --preset smoke, about half an hour for 100 trials with laptop on two cores; paper trains the
networks of the publication and wants a GPU.
"""
REPORT = """\
Build report/index.html of a run folder again, with its figures and CSV files, whatever state the run is in.

  bitsearch report runs/caloinn

Takes about half a minute.
"""
STATUS = """\
Say which stage a run is in, how much of it is done, when the run last gave a sign of life, how long it still takes, and
how many configurations are measured, failed, and finally trained.

  bitsearch status runs/caloinn

Takes a second, also while the run goes on.
"""


def run_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of `run`."""
    add_model(verb)
    add_recipe(verb)
    add_data(verb)
    add_columns(verb)
    verb.add_argument(
        "--trials",
        type=int,
        default=100,
        metavar="N",
        help="configurations to measure in total (default: 100)",
    )
    add_seed(verb)
    add_device(verb)
    verb.add_argument(
        "--workers", type=int, metavar="N", help="processes side by side (default: one a core, up to 8)"
    )
    verb.add_argument(
        "--storage",
        metavar="URL",
        help="an Optuna storage, which any number of runs share: postgresql://USER@HOST/NAME, mysql://..., "
        "grpc://HOST:PORT, journal:FILE, sqlite:///FILE (default: study.db in --out)",
    )
    verb.add_argument(
        "--dask",
        metavar="ADDRESS",
        help="train on the workers of a Dask scheduler, tcp://HOST:PORT or its scheduler file",
    )
    verb.add_argument(
        "--sampler",
        default="mask",
        metavar="NAME",
        help="mask, tpe, gp, nsga2, random, stratified or ladder (default: mask)",
    )
    verb.add_argument(
        "--min-fraction",
        type=float,
        default=0.0,
        metavar="F",
        help="propose only what quantises this share of the executed parameters or more (default: 0)",
    )
    verb.add_argument(
        "--keep",
        action="append",
        default=[],
        metavar="GLOB",
        help="groups of layers that proposals keep in float32; may be given several times",
    )
    verb.add_argument(
        "--precisions",
        nargs="+",
        default=["float32", "ternary"],
        metavar="P",
        help="what a group of layers may have (default: float32 ternary); binary is the other choice, and of "
        "more than two the bits a weight count",
    )
    add_limits(verb, "propose and publish a configuration")
    verb.add_argument(
        "--timeout",
        type=float,
        metavar="SECONDS",
        help="propose nothing more so long after the search has begun, and go on to final training",
    )
    verb.add_argument(
        "--dry-run",
        action="store_true",
        help="read the data, time a few steps, and say what would be trained, how long each stage would take and how "
        "much disk it needs; nothing is kept",
    )
    verb.add_argument(
        "--serve",
        type=int,
        nargs="?",
        const=PORT,
        metavar="PORT",
        help=f"serve the report while the run goes on, to this machine alone (default: {PORT}, 0 for any port)",
    )
    verb.add_argument(
        "--out", type=Path, metavar="DIR", help="the run folder (default: runs/MODEL-DATASET-PRESET)"
    )
    add_json(verb)


def folder_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of `report` and `status`."""
    verb.add_argument("folder", type=Path, metavar="DIR", help="the --out folder of a run")
    add_json(verb)


def run(arguments: argparse.Namespace) -> None:
    """Search and print the path of the report."""
    from bitsearch.core.names import safe_name
    from bitsearch.core.records import encode
    from bitsearch.core.rundir import RunFolder
    from bitsearch.network import catalogue
    from bitsearch.run import pipeline
    from bitsearch.run.request import RunRequest
    from bitsearch.run.terminal import Terminal

    entry = catalogue.find(arguments.model)
    dataset = entry.task(columns.dataset(arguments), arguments.preset).dataset
    out = arguments.out or Path("runs") / safe_name(f"{entry.name}-{dataset}-{arguments.preset}")
    request = RunRequest(
        model=arguments.model,
        dataset=dataset,
        data=tuple(path.resolve() for path in arguments.data),
        preset=arguments.preset,
        trials=arguments.trials,
        seed=arguments.seed,
        device=arguments.device,
        workers=arguments.workers,
        storage=arguments.storage,
        out=out,
        sampler=arguments.sampler,
        recipe=arguments.recipe,
        min_fraction=arguments.min_fraction,
        keep=tuple(arguments.keep),
        precisions=_precisions(arguments.precisions),
        limits=limits(arguments),
        timeout=arguments.timeout,
        dask=arguments.dask,
    )
    if arguments.dry_run:
        with Terminal() as terminal:
            space, plan = pipeline.dry_run(request, terminal)
        _show_plan(arguments.json, out, space, plan)
        return
    with Terminal() as terminal, _served(arguments.serve, out) as address:
        if address:
            terminal.say(f"live at {address}")
        page = pipeline.run(request, terminal).resolve()
    if arguments.json:
        front = RunFolder(out).front()
        found = json.loads(encode(front)) if front else None
        _say(json.dumps({"folder": str(out), "report": str(page), "front": found}))
    else:
        _say(str(page))


def _served(port: int | None, out: Path) -> AbstractContextManager[str | None]:
    """Serve the page while a run goes on, if a port was given; give its address."""
    if port is None:
        return nullcontext()
    from bitsearch.report import live

    return live.beside(out.resolve(), port)


def _precisions(words: Sequence[str]) -> "tuple[Precision, ...]":
    """Read precisions that are set apart by spaces or commas."""
    from bitsearch.core.errors import ConfigurationError, one_of
    from bitsearch.core.precision import Precision

    names = [name for word in words for name in word.split(",") if name]
    for name in names:
        if name not in set(Precision):
            raise ConfigurationError(f"--precisions {name}: {one_of(name, Precision)}")
    return tuple(dict.fromkeys(map(Precision, names)))


def _show_plan(as_json: bool, out: Path, space: "SearchSpace", plan: "Plan") -> None:
    """Print what would be trained, and how long each stage would take."""
    from bitsearch.report.numbers import size
    from bitsearch.run.terminal import duration

    names = [item.name for item in space.strategies]
    trainings, stages = [asdict(item) for item in plan.work], [asdict(item) for item in plan.stages]
    content = {
        "folder": str(out),
        "groups": len(space.groups),
        "strategies": names,
        "trainings": trainings,
        "stages": stages,
        "seconds": plan.seconds,
        "disk_bytes": plan.disk_bytes,
    }
    title = f"{out}: {len(space.groups)} groups, strategies {', '.join(names)}; trainings at most"
    show(as_json, content, title, trainings)
    if not as_json:
        total = f"Predicted: {duration(plan.seconds)} and {size(plan.disk_bytes)} of disk"
        rows = [{"stage": item.name, "time": duration(item.seconds)} for item in plan.stages]
        show(False, {}, total, rows)


def report(arguments: argparse.Namespace) -> None:
    """Build the report and print its path."""
    from bitsearch.core.rundir import RunFolder
    from bitsearch.report import build

    page = build(RunFolder.open(arguments.folder)).resolve()
    _say(json.dumps({"report": str(page)}) if arguments.json else str(page))


def status(arguments: argparse.Namespace) -> None:
    """Print how a run stands."""
    from bitsearch.core.rundir import RunFolder

    folder = RunFolder.open(arguments.folder)
    manifest, results, front = folder.manifest(), folder.results(), folder.front()
    pulse = None if manifest.ended else folder.pulse()
    age = time.time() - folder.sign_of_life()
    left = pulse.seconds_left if pulse else None
    searched = {item.digest for item in results if item.fidelity != "full"}
    content = {
        "folder": str(folder.path),
        "model": manifest.model,
        "dataset": manifest.dataset,
        "preset": manifest.preset,
        "stage": "ended" if manifest.ended else manifest.stage,
        "share_of_stage": pulse.share if pulse else None,
        "seconds_since_last_write": round(age),
        "seconds_left": None if left is None else round(left),
        "measured": len(searched),
        "trials": manifest.trials,
        "failed": len({item.digest for item in results if item.failure}),
        "finally_trained": len({item.digest for item in results if item.fidelity == "full"}),
        "front": len(front.members) if front else 0,
        "started": manifest.started,
        "ended": manifest.ended,
    }
    rows = [{"": key, " ": "" if value is None else str(value)} for key, value in content.items()]
    show(arguments.json, content, f"Run in {folder.path}", rows)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
