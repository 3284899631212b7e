"""`completion`: what the tab key adds in a shell."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

COMPLETION = """\
Print a script that completes verbs, options, names of models and files in bash or zsh. For the next shells:

  bitsearch completion bash > ~/.local/share/bash-completion/completions/bitsearch

In zsh, write it as _bitsearch into a folder of $fpath. For this shell alone: eval "$(bitsearch completion bash)".

Takes a second.
"""


def completion_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of `completion`."""
    verb.add_argument("shell", choices=("bash", "zsh"), help="the shell to write for")


def completion(arguments: argparse.Namespace) -> None:
    """Print the script, made from the parser."""
    import shtab

    from bitsearch.cli import parser
    from bitsearch.network import catalogue

    names = " ".join(catalogue.names())
    models = {
        "bash": "_bitsearch_models",
        "zsh": "_bitsearch_models",
        "preamble": {
            "bash": f'_bitsearch_models() {{ compgen -W "{names}" -- "$1"; compgen -f -- "$1"; }}',
            "zsh": f"_bitsearch_models() {{ _alternative 'models:model:({names})' 'files:file:_files'; }}",
        },
    }
    main = parser()
    for action in _actions(main):
        complete = models if action.dest == "model" else shtab.FILE if action.type is Path else None
        if complete:
            action.complete = complete  # type: ignore[attr-defined]
    sys.stdout.write(shtab.complete(main, arguments.shell) + "\n")


def _actions(of: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in of._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from _actions(child)
        else:
            yield action
