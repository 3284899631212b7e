"""One constant tensor of a file: its numbers, wherever they lie, and moving them in and out of the file."""

import math
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from onnx import SparseTensorProto, StringStringEntryProto, TensorProto, helper, numpy_helper

from bitsearch.core.errors import BitsearchError, ExportError
from bitsearch.onnxfile import folding

EXTERNAL_FROM = 1024  # bytes from which a tensor is worth a place in the data file
CHUNK = 2**24
TWO_BITS = {number for name, number in TensorProto.DataType.items() if name in ("INT2", "UINT2")}
SUB_BYTE = TWO_BITS | {
    number for name, number in TensorProto.DataType.items() if name in ("INT4", "UINT4", "FLOAT4E2M1")
}


def array(tensor: TensorProto) -> NDArray[Any]:
    """Read a tensor; external ones are mapped, not copied.

    Raises:
        ExportError: its dims, type and data do not fit each other.
    """
    try:
        if any(length < 0 for length in tensor.dims):
            raise ValueError(f"negative dims {list(tensor.dims)}")
        if tensor.data_location != TensorProto.EXTERNAL:
            return np.asarray(numpy_helper.to_array(tensor))
        location, offset, length = place(tensor)
        if tensor.data_type in SUB_BYTE:
            copy = TensorProto()
            copy.CopyFrom(tensor)
            move_in(copy)
            return np.asarray(numpy_helper.to_array(copy))
        dtype, shape = helper.tensor_dtype_to_np_dtype(tensor.data_type), tuple(tensor.dims)
        if math.prod(shape) * dtype.itemsize != length:
            raise ValueError(f"{length} bytes for {shape} of {dtype}")
        if not length:
            return np.zeros(shape, dtype)
        mapped = np.memmap(location, np.uint8, "r", offset, (length,))
        return np.asarray(mapped).view(dtype).reshape(shape)
    except (BitsearchError, OSError):
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ExportError(
            f"constant {tensor.name!r} cannot be read ({reason}); expected data that fits its dims and type"
        ) from error


def dense(sparse: SparseTensorProto) -> NDArray[Any] | None:
    """Compute a sparse tensor as a whole one; None where that would be too large."""
    values, indices, shape = array(sparse.values), array(sparse.indices), tuple(sparse.dims)
    size = math.prod(shape)
    if any(length < 0 for length in shape) or size > folding.LARGEST:
        return None
    dense = np.zeros(size, values.dtype)
    flat = indices if indices.ndim == 1 else np.ravel_multi_index(tuple(indices.T), shape)
    dense[flat] = values
    return dense.reshape(shape)


def byte_size(tensor: TensorProto) -> int:
    """Give the bytes that a tensor's data takes in its file."""
    if tensor.data_location == TensorProto.EXTERNAL:
        return place(tensor)[2]
    return len(tensor.raw_data) or tensor.ByteSize()


def place(tensor: TensorProto) -> tuple[Path, int, int]:
    """Give file, offset and length of external data."""
    entries = {item.key: item.value for item in tensor.external_data}
    path, offset = Path(entries["location"]), int(entries.get("offset") or 0)
    return path, offset, int(entries["length"]) if "length" in entries else path.stat().st_size - offset


def locate(tensor: TensorProto, model: Path) -> None:
    """Check where external data lies, and make its location absolute.

    Raises:
        ExportError: it is missing, too short, or outside of the model's folder.
    """
    entries = {item.key: item.value for item in tensor.external_data}
    location, folder = entries.get("location", ""), model.parent.resolve()
    path = (folder / location).resolve()
    if not location or Path(location).is_absolute() or not path.is_relative_to(folder):
        raise ExportError(
            f"{model}: external data of {tensor.name!r} lies in {location!r}; expected a file in the model's folder"
        )
    if not path.is_file():
        raise ExportError(
            f"{model}: there is no file {location} with the data of {tensor.name!r}; expected it beside"
        )
    for item in tensor.external_data:
        if item.key == "location":
            item.value = str(path)
    _, offset, length = place(tensor)
    if offset < 0 or length < 0 or offset + length > path.stat().st_size:
        raise ExportError(
            f"{model}: the data of {tensor.name!r} ends at byte {offset + length} of {location}, "
            f"which has {path.stat().st_size}; expected a whole file"
        )


def check_size(tensor: TensorProto) -> None:
    """Compare the length of the data with dims and type.

    Raises:
        ExportError: they do not fit.
    """
    count = math.prod(tensor.dims)
    if tensor.data_type in SUB_BYTE:
        expected = -(-count // (4 if tensor.data_type in TWO_BITS else 2))
    else:
        expected = count * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    if any(length < 0 for length in tensor.dims) or len(tensor.raw_data) != expected:
        raise ExportError(
            f"constant {tensor.name!r} of dims {list(tensor.dims)} holds {len(tensor.raw_data)} bytes; "
            f"expected {max(expected, 0)}, and dims from 0 on"
        )


def move_in(tensor: TensorProto) -> None:
    """Read external data into the tensor."""
    path, offset, length = place(tensor)
    with path.open("rb") as file:
        file.seek(offset)
        tensor.raw_data = file.read(length)
    tensor.ClearField("external_data")
    tensor.data_location = TensorProto.DEFAULT


def move_out(tensor: TensorProto, file: BinaryIO, name: str) -> None:
    """Copy a tensor to the end of a data file of that name, a piece at a time; small ones stay."""
    external = tensor.data_location == TensorProto.EXTERNAL
    if not external and len(tensor.raw_data) < EXTERNAL_FROM:
        return
    file.seek(-file.tell() % 64, os.SEEK_CUR)
    offset = file.tell()
    if external:
        source, begin, length = place(tensor)
        with source.open("rb") as given:
            given.seek(begin)
            while length and (piece := given.read(min(CHUNK, length))):
                length -= file.write(piece)
    else:
        file.write(tensor.raw_data)
    entries = {"location": name, "offset": offset, "length": file.tell() - offset}
    tensor.ClearField("raw_data")
    tensor.ClearField("external_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.extend(
        StringStringEntryProto(key=key, value=str(value)) for key, value in entries.items()
    )
