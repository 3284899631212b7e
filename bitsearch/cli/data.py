"""`data make`, `data check`: files in the public formats."""

import argparse
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from bitsearch.cli.output import add_json, add_seed, show


def add(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verbs."""
    group = verbs.add_parser("data", help="generate a data file, or validate one in the public format")
    actions = group.add_subparsers(dest="action", required=True, metavar="ACTION")
    verb = actions.add_parser("make", help="generate a file; it says of itself that it is generated")
    verb.add_argument("dataset")
    verb.add_argument("--events", type=int, default=20_000)
    add_seed(verb)
    verb.add_argument(
        "--role", default="train", help="another role gives independent events of the same seed"
    )
    verb.add_argument("--out", type=Path, required=True, metavar="FILE")
    add_json(verb)
    verb.set_defaults(execute=_make)
    verb = actions.add_parser("check", help="validate a file and say what is in it")
    verb.add_argument("file", type=Path)
    add_json(verb)
    verb.set_defaults(execute=_check)


def _make(arguments: argparse.Namespace) -> None:
    from bitsearch.models.showers import generator
    from bitsearch.terminal import Terminal

    with Terminal() as terminal:
        generator.make(
            arguments.dataset,
            arguments.events,
            arguments.seed,
            arguments.out,
            arguments.role,
            progress=terminal.progress,
        )
    _describe(arguments.out, arguments.json)


def _check(arguments: argparse.Namespace) -> None:
    _describe(arguments.file, arguments.json)


def _describe(path: Path, as_json: bool) -> None:
    from bitsearch.models.showers import files

    summary = files.check(path)
    content = asdict(summary) | {"path": str(summary.path)}
    shown: Callable[[object], str] = lambda value: "" if value is None else str(value)  # noqa: E731
    show(as_json, content, str(path), [{"": key, " ": shown(value)} for key, value in content.items()])
