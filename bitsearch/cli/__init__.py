"""The command line: a table of verbs, whose functions import what they need only when they run."""

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from bitsearch import __version__
from bitsearch.cli.failures import explain, require
from bitsearch.cli.output import fill
from bitsearch.cli.table import GROUPS, VERBS
from bitsearch.core.errors import one_of
from bitsearch.core.signals import watched

TEXT = "Automatic mixed-precision search and low-bit inference for high-energy-physics networks."
EPILOG = (
    "Exit status: 0 done, 2 bad input (one line on stderr), 1 anything else. Each verb has its own --help."
)


class _Parser(argparse.ArgumentParser):
    """A parser that complains in one line; argparse puts its usage in front."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def parser() -> argparse.ArgumentParser:
    """Build the parser of all verbs."""
    main = _Parser("bitsearch", description=TEXT, epilog=EPILOG)
    main.add_argument("--version", action="version", version=f"bitsearch {__version__}")
    verbs = main.add_subparsers(required=True, metavar="VERB")
    groups = {}
    for name, text in GROUPS.items():
        group = verbs.add_parser(name, help=text, description=text)
        groups[name] = group.add_subparsers(required=True, metavar="ACTION")
    for verb in VERBS:
        first, _, last = verb.name.rpartition(" ")
        child = groups.get(first, verbs).add_parser(
            last,
            help=verb.help,
            description=fill(verb.text),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        verb.options(child)
        child.set_defaults(verb=verb, parser=child)
    return main


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; give the exit status."""
    chosen = _parse(list(sys.argv[1:] if arguments is None else arguments))
    verb = chosen.verb
    try:
        require(verb.extra)
        with watched():
            verb.execute(chosen)
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        status, line = explain(error, verb.extra)
        if line:
            print(f"bitsearch {verb.name}: {line}", file=sys.stderr)  # noqa: T201
        return status
    return 0


def _parse(words: list[str]) -> argparse.Namespace:
    """Read a command; argparse alone would name neither the verb nor what is nearest to a slip of the pen."""
    main = parser()
    names = [verb.name.split() for verb in VERBS]
    for place, word in enumerate(words[:2]):
        before = words[:place]
        known = dict.fromkeys(name[place] for name in names if name[:place] == before and len(name) > place)
        if known and word not in known and not word.startswith("-"):
            main.exit(
                2, f"{' '.join(['bitsearch', *before])}: there is no verb {word!r}; {one_of(word, known)}\n"
            )
    chosen, unknown = main.parse_known_args(words)
    if unknown:
        options = [text for action in chosen.parser._actions for text in action.option_strings]
        chosen.parser.error(f"found {' '.join(unknown)}; {one_of(unknown[0], options)}")
    return chosen
