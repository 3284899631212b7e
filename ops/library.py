"""The compiled library: where it is, what it can run, sessions that use it."""

import ctypes
import sys
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitsearch.ops.errors import OperatorError

if TYPE_CHECKING:
    import onnxruntime

_FILE = "libbitsearch_ops.so"
_PRELOAD = "libbitsearch_preload.so"


@dataclass(frozen=True)
class Kernel:
    """One instruction set of the table: does this processor run it, do sessions made now use it."""

    name: str
    usable: bool
    chosen: bool


def library_path() -> Path:
    """Find the shared library, which C++ programs give to `RegisterCustomOpsLibrary`.

    Raises:
        OperatorError: the package was installed without it.
    """
    return _installed(_FILE)


def preload_path() -> Path:
    """Find the library for `LD_PRELOAD`, which gives the operators to programs that cannot be changed.

    Raises:
        OperatorError: the package was installed without it.
    """
    return _installed(_PRELOAD)


def cmake_path() -> Path:
    """Find the folder of `bitsearch-config.cmake`, for `CMAKE_PREFIX_PATH`.

    Raises:
        OperatorError: the package was installed without it.
    """
    return _installed("cmake")


def include_path() -> Path:
    """Find the folder to include `bitsearch/ops.h` from.

    Raises:
        OperatorError: the package was installed without it.
    """
    return _installed("include")


def _installed(name: str) -> Path:
    # An editable install has two folders: the sources, and the one that libraries were installed to.
    folders = [Path(folder) for folder in sys.modules["bitsearch.ops"].__path__]
    for folder in folders:
        if (folder / name).exists():
            return folder / name
    found = ", ".join(map(str, folders))
    raise OperatorError(f"{name}: found none in {found}, expected one: install bitsearch again")


def kernels() -> list[Kernel]:
    """List the kernels, best first.

    Raises:
        OperatorError: there is no library.
    """
    library = ctypes.CDLL(str(library_path()))
    library.bitsearch_kernel_name.restype = ctypes.c_char_p
    chosen = library.bitsearch_kernel_chosen()
    table: list[Kernel] = []
    while name := library.bitsearch_kernel_name(len(table)):
        usable = bool(library.bitsearch_kernel_usable(len(table)))
        table.append(Kernel(name.decode(), usable, len(table) == chosen))
    return table


def register(options: "onnxruntime.SessionOptions") -> None:
    """Make sessions with these options run `com.bithep` operators in the library; twice is as good as once.

    Raises:
        OperatorError: there is no library.
        RuntimeError: `BITSEARCH_KERNEL` names no usable kernel (onnxruntime raises it).
    """
    options.register_custom_ops_library(str(library_path()))


def session(path: str | PathLike[str] | bytes, **kw: Any) -> "onnxruntime.InferenceSession":
    """Open a model file, or its bytes, with the library registered; keywords are `InferenceSession`'s."""
    import onnxruntime

    options = kw.pop("sess_options", None) or onnxruntime.SessionOptions()
    register(options)
    kw.setdefault("providers", ["CPUExecutionProvider"])
    model = path if isinstance(path, bytes) else fspath(path)
    return onnxruntime.InferenceSession(model, sess_options=options, **kw)
