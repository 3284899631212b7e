"""`run`, `report`, `status`: a search and its run folder."""

import argparse
import json
import sys
from pathlib import Path

from bitsearch.cli.catalogue import add_model
from bitsearch.cli.output import add_json, add_seed, show


def add(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verbs."""
    verb = verbs.add_parser("run", help="search mixed precisions and report, or continue with the same --out")
    add_model(verb)
    verb.add_argument(
        "--data",
        nargs="+",
        type=Path,
        default=[],
        metavar="PATH",
        help="data files (default: generated data)",
    )
    verb.add_argument(
        "--trials", type=int, default=100, help="configurations to measure in total (default 100)"
    )
    add_seed(verb)
    verb.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    verb.add_argument("--workers", type=int, help="processes side by side (default: one a core, up to 8)")
    verb.add_argument("--storage", metavar="URL", help="an Optuna storage (default: study.db in --out)")
    verb.add_argument("--sampler", default="TPESampler", help="an Optuna sampler's class name")
    verb.add_argument(
        "--out", type=Path, metavar="DIR", help="the run folder (default: runs/MODEL-DATASET-PRESET)"
    )
    add_json(verb)
    verb.set_defaults(execute=_run)
    verb = verbs.add_parser("report", help="build the report again from what is on disk")
    verb.add_argument("folder", type=Path, metavar="DIR")
    add_json(verb)
    verb.set_defaults(execute=_report)
    verb = verbs.add_parser("status", help="how a run stands")
    verb.add_argument("folder", type=Path, metavar="DIR")
    add_json(verb)
    verb.set_defaults(execute=_status)


def _run(arguments: argparse.Namespace) -> None:
    from bitsearch.core.rundir import RunFolder
    from bitsearch.network import catalogue
    from bitsearch.run.pipeline import RunRequest, run
    from bitsearch.run.terminal import Terminal

    entry = catalogue.find(arguments.model)
    dataset = entry.task(arguments.dataset, arguments.preset).dataset
    out = arguments.out or Path("runs") / f"{entry.name}-{dataset}-{arguments.preset}"
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
    )
    with Terminal() as terminal:
        page = run(request, terminal)
    if arguments.json:
        front = [json.loads(item.to_json()) for item in RunFolder(out).front()]
        _say(json.dumps({"folder": str(out), "report": str(page), "front": front}))
    else:
        _say(str(page))


def _report(arguments: argparse.Namespace) -> None:
    from bitsearch import report
    from bitsearch.core.rundir import RunFolder

    page = report.build(RunFolder.open(arguments.folder))
    _say(json.dumps({"report": str(page)}) if arguments.json else str(page))


def _status(arguments: argparse.Namespace) -> None:
    from bitsearch.core.rundir import RunFolder

    folder = RunFolder.open(arguments.folder)
    settings, results = folder.settings(), folder.results()
    searched = {item.digest for item in results if item.fidelity != "full"}
    content = {
        "folder": str(folder.path),
        "model": settings["model"],
        "dataset": settings["dataset"],
        "preset": settings["preset"],
        "measured": len(searched),
        "trials": settings["trials"],
        "failed": len({item.digest for item in results if item.failure}),
        "finally_trained": len({item.digest for item in results if item.fidelity == "full"}),
        "front": len(folder.front()),
        "started": settings["started"],
        "ended": settings.get("ended"),
    }
    rows = [{"": key, " ": "" if value is None else str(value)} for key, value in content.items()]
    show(arguments.json, content, f"Run in {folder.path}", rows)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
