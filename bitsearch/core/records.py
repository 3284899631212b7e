"""Records on disk: frozen dataclasses as JSON, held to their types when they are read."""

import dataclasses
import json
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from bitsearch.core.errors import RecordError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")


def encode(record: "DataclassInstance", indent: int | None = None) -> str:
    """Write a record; raises ValueError for NaN and infinities, which JSON does not have."""
    return json.dumps(dataclasses.asdict(record), allow_nan=False, default=dict, indent=indent)


def decode(content: str | bytes, kind: type[T], where: str, advice: str) -> T:
    """Read a record; keys that `kind` does not know are left out.

    Raises:
        RecordError: it is no JSON, or lacks a key, or a value has another type.
    """
    try:
        return msgspec.json.decode(content, type=kind)
    except RecursionError:
        reason = "it is nested too deep"
    except (msgspec.MsgspecError, ValueError) as error:
        reason = str(error)
    if not content.strip():
        reason = "it is empty"
    raise RecordError(f"{where} is damaged ({reason}); {advice}")


def convert(value: Any, kind: type[T]) -> T:
    """Give plain values the types of `kind`; raises ValueError where they do not have them."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from error
