"""What a caller can meet."""

from collections.abc import Iterable
from difflib import get_close_matches


class BitsearchError(Exception):
    """Say what was found, what was expected and what to do; the command line prints it as one line."""


class ConfigurationError(BitsearchError):
    """A name, flag, assignment or setting that does not fit."""


class DataError(BitsearchError):
    """A data file that is missing, foreign, truncated or unphysical."""


class TrainingError(BitsearchError):
    """A training that cannot go on, for example because its loss became NaN."""


class ExportError(BitsearchError):
    """A network or file that cannot be turned into a servable ONNX model."""


class CheckpointError(BitsearchError):
    """A checkpoint whose keys or shapes do not fit the network."""


class RecordError(BitsearchError):
    """A file of a run folder that is damaged, or that another version has written."""


def few(names: Iterable[str], most: int = 5) -> str:
    """List the first names in order, and how many more there are."""
    names = sorted(names)
    shown = str(names[:most]) if names else "none"
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def one_of(found: str, known: Iterable[str], otherwise: str = "") -> str:
    """Say what was expected in place of `found`, and which of the known names is spelt most like it."""
    known = list(known)
    folded = {name.casefold(): name for name in known}
    short = found.casefold()
    near = get_close_matches(short, folded, 1) or [name for name in folded if short and short in name]
    return f"expected one of {', '.join(known)}{otherwise}" + (
        f"; did you mean {folded[near[0]]}?" if near else ""
    )
