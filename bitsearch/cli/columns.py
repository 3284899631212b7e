"""`--label` and `--features`: which columns of a user's files the generic taggers read."""

import argparse

from bitsearch.core.errors import ConfigurationError


def add_columns(verb: argparse.ArgumentParser) -> None:
    """Let a verb that takes data files choose columns of them."""
    verb.add_argument(
        "--label",
        metavar="COLUMN",
        help="with --model tagger or constituents: the column of --data that is 1 for signal and 0 for background",
    )
    verb.add_argument(
        "--features",
        nargs="+",
        default=["*"],
        metavar="GLOB",
        help="the columns that the network reads, in the file's order (default: all but the label)",
    )


def dataset(arguments: argparse.Namespace) -> str | None:
    """Give the data set that was asked for: by name, or by columns of the first data file.

    Raises:
        ConfigurationError: columns are chosen of no file, or a name and columns are given.
        DataError: the file cannot be read.
    """
    if arguments.label is None:
        if arguments.features != ["*"]:
            raise ConfigurationError("--features chooses columns beside a label; name it with --label COLUMN")
        return str(arguments.dataset) if arguments.dataset else None
    if arguments.dataset or not arguments.data:
        found = f"--dataset {arguments.dataset}" if arguments.dataset else "no --data"
        raise ConfigurationError(
            f"found --label {arguments.label} and {found}; expected --data FILE with columns"
        )
    from bitsearch.models.columns import files
    from bitsearch.models.columns.formula import Formula

    return str(Formula.choose(arguments.label, files.names(arguments.data[0]), arguments.features))
