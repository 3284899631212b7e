"""Read any ONNX file: its nested graphs, and which of their values are constant."""

from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from bitsearch.core.atomic import write_atomically
from bitsearch.core.errors import ExportError

_FIRST_TYPES = {
    onnx.TensorProto.FLOAT8E4M3FN: 9,
    onnx.TensorProto.UINT4: 10,
    onnx.TensorProto.FLOAT4E2M1: 11,
    24: 12,  # FLOAT8E8M0
    25: 13,  # UINT2, INT2
}
"""Types of tensors by number, and the version of the format that brought them and those below the next."""
LARGEST_PROTOBUF = 2**31 - 2**20  # bytes; one message ends at 2 GiB


def read(path: Path) -> onnx.ModelProto:
    """Read a model with its external data.

    Raises:
        ExportError: the file, or its external data, is missing or is no ONNX model.
    """
    try:
        model = onnx.load(path)
    except FileNotFoundError:
        raise ExportError(f"there is no file {path}; expected an ONNX model") from None
    except Exception as error:  # protobuf and onnx each have their own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ExportError(f"{path} cannot be read as ONNX ({reason}); expected a model file") from error
    if not model.HasField("graph") or not model.opset_import:
        raise ExportError(f"{path} holds no graph; expected an ONNX model")
    return model


def write(model: onnx.ModelProto, path: Path, limit: int = LARGEST_PROTOBUF) -> None:
    """Write a model atomically; above `limit` bytes its tensors go to `<name>.data` beside it."""
    if model.ByteSize() < limit:
        write_atomically(path, model.SerializeToString())
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    data = path.with_name(f"{path.name}.data")
    data.unlink(missing_ok=True)
    onnx.save(model, path, save_as_external_data=True, location=data.name, size_threshold=1024)


def size_on_disk(path: Path) -> int:
    """Sum the bytes of a file and of its external data."""
    model = onnx.load(path, load_external_data=False)
    names: set[str] = {
        item.value
        for scope in scopes(model)
        for tensor in scope.graph.initializer
        for item in tensor.external_data
        if item.key == "location"
    }
    return path.stat().st_size + sum((path.parent / name).stat().st_size for name in names)


class Scope:
    """A graph and the graphs around it, whose values it sees; `path` names the way to it, `If_3/then_branch/`."""

    def __init__(self, graph: onnx.GraphProto, outer: "Scope | None" = None, path: str = "") -> None:
        self.graph = graph
        self.outer = outer
        self.path = path

    @cached_property
    def initializers(self) -> dict[str, onnx.TensorProto]:
        """Constant tensors of this graph by name."""
        return {tensor.name: tensor for tensor in self.graph.initializer}

    @cached_property
    def producers(self) -> dict[str, onnx.NodeProto]:
        """Nodes of this graph by what they put out."""
        return {name: node for node in self.graph.node for name in node.output if name}

    @cached_property
    def inputs(self) -> frozenset[str]:
        """Names that are fed to this graph, with a default or without."""
        return frozenset(value.name for value in self.graph.input)

    @property
    def names(self) -> frozenset[str]:
        """Everything that this graph itself defines."""
        return self.inputs.union(self.initializers, self.producers)

    @cached_property
    def _readers(self) -> dict[str, list[onnx.NodeProto]]:
        found: dict[str, list[onnx.NodeProto]] = {}
        for node in self.graph.node:
            for name in node.input:
                found.setdefault(name, []).append(node)
        return found

    def readers(self, name: str) -> list[onnx.NodeProto]:
        """List the nodes of this graph that read a value."""
        return self._readers.get(name, [])

    def owner(self, name: str) -> "Scope | None":
        """Find the innermost graph that defines a value."""
        if name in self.initializers or name in self.producers or name in self.inputs:
            return self
        return self.outer.owner(name) if self.outer else None

    def constant(self, name: str) -> NDArray[Any] | None:
        """Compute a value that is a constant, perhaps passed on or transposed; None for all others."""
        owner = self.owner(name)
        if owner is None:
            return None
        if name in owner.initializers:
            return numpy_helper.to_array(owner.initializers[name])
        node = owner.producers.get(name)
        if node is None or node.domain not in ("", "ai.onnx"):
            return None
        attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
        if node.op_type == "Constant":
            return numpy_helper.to_array(attributes["value"]) if "value" in attributes else None
        if node.op_type not in ("Identity", "Transpose"):
            return None
        array = owner.constant(node.input[0])
        if array is None or node.op_type == "Identity":
            return array
        return np.transpose(array, attributes.get("perm"))


def scopes(model: onnx.ModelProto) -> Iterator[Scope]:
    """Yield the main graph, then the bodies of its If, Loop and Scan nodes, at any depth."""
    yield from _scopes(Scope(model.graph))


def uses(model: onnx.ModelProto) -> Counter[str]:
    """Count how often each name is read, by nodes or as an output."""
    counts: Counter[str] = Counter()
    for scope in scopes(model):
        counts.update(name for node in scope.graph.node for name in node.input)
        counts.update(value.name for value in scope.graph.output)
    return counts


def opset(model: onnx.ModelProto) -> int:
    """Give the version of the standard operators, 0 where the model imports none."""
    versions: list[int] = [item.version for item in model.opset_import if item.domain in ("", "ai.onnx")]
    return max(versions, default=0)


def lowest_ir_version(model: onnx.ModelProto) -> int:
    """Give the oldest version of the file format that has what the model uses; hosts refuse younger ones."""
    standard = [item for item in model.opset_import if item.domain in ("", "ai.onnx")]
    needed: list[int] = [onnx.helper.find_min_ir_version_for(standard)]
    if model.functions:
        needed.append(8)
    if any(function.attribute_proto for function in model.functions):
        needed.append(9)
    types = [tensor.data_type for scope in scopes(model) for tensor in scope.graph.initializer]
    needed += [version for first, version in _FIRST_TYPES.items() if any(kind >= first for kind in types)]
    return max(needed)


def metadata(model: onnx.ModelProto) -> dict[str, str]:
    """Give what the file says of itself."""
    return {item.key: item.value for item in model.metadata_props}


def _scopes(scope: Scope) -> Iterator[Scope]:
    yield scope
    for index, node in enumerate(scope.graph.node):
        for attribute in node.attribute:
            for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                name = node.name or f"{node.op_type}_{index}"
                yield from _scopes(Scope(graph, scope, f"{scope.path}{name}/{attribute.name}/"))
