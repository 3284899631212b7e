"""What a verb ends with when it cannot go on: one line and an exit status, whatever was raised."""

import os
import traceback
from importlib.util import find_spec
from pathlib import Path
from signal import Signals

from bitsearch.core.errors import BitsearchError, ConfigurationError
from bitsearch.core.names import masked, printable
from bitsearch.core.signals import Interrupted

EXTRAS = {
    "": (),
    "completion": ("shtab",),
    "data": ("h5py", "platformdirs", "scipy"),
    "files": ("jinja2", "matplotlib", "optuna"),
    "search": (
        "h5py",
        "jinja2",
        "matplotlib",
        "onnx_ir",
        "onnxscript",
        "optuna",
        "platformdirs",
        "scipy",
        "sklearn",
        "torch",
    ),
}
"""The modules that each extra brings, as they are imported."""


def require(extra: str) -> None:
    """Hold that an extra is installed, before anything is done.

    Raises:
        ConfigurationError: it is not.
    """
    missing = [name for name in EXTRAS[extra] if not _installed(name)]
    if missing:
        raise ConfigurationError(_missing(", ".join(missing), extra))


def explain(error: BaseException, extra: str) -> tuple[int, str]:
    """Give the exit status and the line for what a verb has raised; an empty line says nothing.

    Passwords in addresses are masked, and nothing in it steers a terminal.
    """
    status, line = _explain(error, extra)
    return status, printable(masked(line))


def _explain(error: BaseException, extra: str) -> tuple[int, str]:
    from bitsearch.ops import OperatorError

    match error:
        case BitsearchError() | OperatorError():
            return 2, " ".join(str(error).split())  # libraries word some of their errors in several lines
        case Interrupted():
            return error.status, f"ended by {Signals(error.number).name}; the same command continues"
        case KeyboardInterrupt():
            return 130, "interrupted; the same command continues"
        case BrokenPipeError():
            # What reads stdout has gone, as `head` does; Python must not flush into it again when it ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            return 1, ""
        case OSError():
            reason = error.strerror or str(error)
            return 2, f"{error.filename}: {reason}" if error.filename else reason
        case UnicodeDecodeError():
            return 2, f"found bytes that are not UTF-8 ({error.reason}), expected text"
        case RecursionError():
            return 2, "found input that is nested too deeply to read"
        case MemoryError():
            return 2, "the input needs more memory than there is"
        case ModuleNotFoundError() if error.name and error.name.split(".")[0] in EXTRAS["search"]:
            return 2, _missing(error.name, extra or "search")
    if os.environ.get("BITSEARCH_TRACEBACK"):
        traceback.print_exception(error)
    where = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return (
        1,
        f"{text} ({Path(where.filename).name}, line {where.lineno}); BITSEARCH_TRACEBACK=1 shows all of it",
    )


def _installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ImportError:
        return False


def _missing(modules: str, extra: str) -> str:
    return f"needs {modules}, not installed here: pip install 'bitsearch[{extra}]'"
