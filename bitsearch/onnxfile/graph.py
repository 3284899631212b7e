"""Read and write any ONNX file: its nested graphs, which of their values are constant, data that lies beside it.

In memory the location of external data is an absolute path: tensors are read from where they lie when they are asked
for, one at a time, and copied when the model is written.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from bitsearch.core.atomic import replacing, write_atomically
from bitsearch.core.errors import BitsearchError, ExportError
from bitsearch.onnxfile import chains, folding, stored

_FIRST_TYPES = {
    onnx.TensorProto.FLOAT8E4M3FN: 9,
    onnx.TensorProto.UINT4: 10,
    onnx.TensorProto.FLOAT4E2M1: 11,
    24: 12,  # FLOAT8E8M0
    25: 13,  # UINT2, INT2
}
"""Types of tensors by number, and the version of the format that brought them and those below the next."""
LARGEST_PROTOBUF = 2**31 - 2**20  # bytes; one message ends at 2 GiB
INLINE = 2**28  # bytes up to which external data is written into the file itself
STANDARD = ("", "ai.onnx")


def read(path: Path, *, chained: bool = False) -> onnx.ModelProto:
    """Read a model; its external data is checked and stays on disk. Chains become layers, unless `chained` says not to.

    Raises:
        ExportError: the file, or its external data, is missing or is no ONNX model.
    """
    with refusals(path):
        if not path.is_file():
            raise ExportError(f"there is no file {path}; expected an ONNX model")
        model = onnx.load(path, load_external_data=False)
        if not model.HasField("graph") or not model.opset_import:
            raise ExportError(f"{path} holds no graph; expected an ONNX model")
        _check_texts(model)
        for tensor in tensors(model):
            if tensor.data_location == TensorProto.EXTERNAL:
                stored.locate(tensor, path)
            elif tensor.raw_data or any(length < 0 for length in tensor.dims):
                stored.check_size(tensor)
        if not chained:
            chains.unchain(model)
    return model


@contextmanager
def refusals(path: Path) -> Iterator[None]:
    """Turn whatever libraries raise on a broken file into one clear error.

    Raises:
        ExportError: protobuf, onnx, onnxruntime or numpy cannot make sense of the file.
    """
    try:
        yield
    except (BitsearchError, OSError, KeyboardInterrupt):
        raise
    except Exception as error:
        lines = str(error).splitlines() or [""]
        reason = " ".join(f"{type(error).__name__} {lines[0]}".split())[:300]
        raise ExportError(f"{path} cannot be read as ONNX ({reason}); expected a valid model file") from error


def write(model: onnx.ModelProto, path: Path, limit: int = LARGEST_PROTOBUF) -> None:
    """Write a model atomically; above `limit` bytes its tensors go to `<name>.data` beside it.

    What the file at `path` was stays whole until the new one is, its external data included.
    """
    old = data_files(path)
    outside = [tensor for tensor in tensors(model) if tensor.data_location == TensorProto.EXTERNAL]
    total = sum(map(stored.byte_size, tensors(model)))
    data = next(new for i in count() if not (new := _data_name(path, i)).exists())
    try:
        if total >= limit or (outside and total >= INLINE):
            with replacing(data) as stream:
                for tensor in tensors(model):
                    stored.move_out(tensor, stream, data.name)
        else:
            for tensor in outside:
                stored.move_in(tensor)
        write_atomically(path, model.SerializeToString())
    except BaseException:
        data.unlink(missing_ok=True)
        raise
    for tensor in tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL:
            stored.locate(tensor, path)
    # Data of the file that was here before, where it was this function's: nothing reads it any more.
    for name in old:
        if name != data and name.name.startswith(f"{path.name}.data"):
            name.unlink(missing_ok=True)


def data_files(path: Path) -> list[Path]:
    """List the files beside a model that its tensors lie in; none where there is no such model."""
    with suppress(ExportError, OSError):
        return _data_files(read(path)) if path.is_file() else []
    return []


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    """Copy a model in memory; external data stays where it is."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def size_on_disk(path: Path, model: onnx.ModelProto | None = None) -> int:
    """Sum the bytes of a file and of its external data; `model` is what was read from it, or written."""
    files = data_files(path) if model is None else _data_files(model)
    return path.stat().st_size + sum(name.stat().st_size for name in files)


def is_external(model: onnx.ModelProto) -> bool:
    """Tell whether some tensor lies beside the file."""
    return any(tensor.data_location == TensorProto.EXTERNAL for tensor in tensors(model))


def tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Yield every constant tensor: initialisers, sparse ones, and attributes of nodes, functions included."""
    for scope in scopes(model):
        yield from scope.graph.initializer
        for sparse in scope.graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
        yield from _attribute_tensors(scope.graph.node)
    for function in model.functions:
        yield from _attribute_tensors(function.node)


class Scope:
    """A graph and the graphs around it, whose values it sees; `path` names the way to it, `If_3/then_branch/`.

    `node` is the one whose body the graph is.
    """

    def __init__(
        self,
        graph: onnx.GraphProto,
        outer: "Scope | None" = None,
        path: str = "",
        node: onnx.NodeProto | None = None,
        opsets: Sequence[onnx.OperatorSetIdProto] = (),
        functions: Sequence[onnx.FunctionProto] = (),
    ) -> None:
        self.graph = graph
        self.outer = outer
        self.path = path
        self.node = node
        self.opsets = opsets
        self.functions = functions
        self.opset = max((item.version for item in opsets if item.domain in STANDARD), default=0)

    @cached_property
    def initializers(self) -> dict[str, TensorProto]:
        """Constant tensors of this graph by name."""
        return {tensor.name: tensor for tensor in self.graph.initializer}

    @cached_property
    def sparse(self) -> dict[str, onnx.SparseTensorProto]:
        """Constant tensors of this graph that are stored sparsely, by name."""
        return {tensor.values.name: tensor for tensor in self.graph.sparse_initializer}

    @cached_property
    def nodes(self) -> tuple[onnx.NodeProto, ...]:
        """Nodes of this graph."""
        return tuple(self.graph.node)

    @cached_property
    def producers(self) -> dict[str, onnx.NodeProto]:
        """Nodes of this graph by what they put out."""
        return {name: node for node in self.nodes for name in node.output if name}

    @cached_property
    def inputs(self) -> frozenset[str]:
        """Names that are fed to this graph, with a default or without."""
        return frozenset(value.name for value in self.graph.input)

    @cached_property
    def names(self) -> frozenset[str]:
        """Everything that this graph itself defines."""
        return self.inputs.union(self.initializers, self.sparse, self.producers)

    @cached_property
    def _readers(self) -> dict[str, list[onnx.NodeProto]]:
        found: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                found.setdefault(name, []).append(node)
        return found

    def readers(self, name: str) -> list[onnx.NodeProto]:
        """List the nodes of this graph that read a value."""
        return self._readers.get(name, [])

    def owner(self, name: str) -> "Scope | None":
        """Find the innermost graph that defines a value."""
        scope: Scope | None = self
        while scope is not None and name not in scope.names:
            scope = scope.outer
        return scope

    def dims(self, name: str) -> tuple[int, ...] | None:
        """Give the shape of an initialiser; None for every other value."""
        owner = self.owner(name)
        return tuple(owner.initializers[name].dims) if owner and name in owner.initializers else None

    def shape(self, name: str) -> tuple[int | None, ...] | None:
        """Give the shape of a value as far as the file tells, None for free axes; None where its rank is unknown."""
        root = self
        while root.outer is not None:
            root = root.outer
        owner = self.owner(name)
        return None if owner is None else root._shapes.get((owner.path, name))

    @cached_property
    def _shapes(self) -> dict[tuple[str, str], tuple[int | None, ...]]:
        """Shapes of this graph and of those inside, told or inferred."""
        model = helper.make_model(self.graph, opset_imports=[*self.opsets], functions=[*self.functions])
        with suppress(Exception):  # a model that is too large or at fault keeps what is written in it
            model = onnx.shape_inference.infer_shapes(model)
        return {
            (scope.path, value.name): tuple(
                dim.dim_value if dim.HasField("dim_value") else None
                for dim in value.type.tensor_type.shape.dim
            )
            for scope in _scopes(Scope(model.graph))
            for value in (*scope.graph.input, *scope.graph.value_info, *scope.graph.output)
            if value.type.tensor_type.HasField("shape")
        }

    def constant(self, name: str) -> NDArray[Any] | None:
        """Compute a value that follows from constants alone; None for all others."""
        return self._constant(name, {}, folding.DEEPEST)

    def origin(self, name: str) -> "tuple[Scope, str] | None":
        """Follow a value that a loop carries unchanged to where it comes from; None where a graph computes it."""
        owner = self.owner(name)
        while owner is not None and (outside := owner.carried.get(name)) is not None:
            assert owner.outer is not None
            name, owner = outside, owner.outer.owner(outside)
        return None if owner is None else (owner, name)

    @cached_property
    def carried(self) -> Mapping[str, str]:
        """States of the loop whose body this graph is that never change: name here to name outside."""
        if self.node is None or self.node.op_type not in ("Loop", "Scan"):
            return {}
        first, last = (2, 1) if self.node.op_type == "Loop" else (0, 0)
        states = len(self.node.input) - first
        if self.node.op_type == "Scan":
            states -= attributes(self.node).get("num_scan_inputs", 0)
        found = {}
        for index in range(states):
            if first + index >= len(self.graph.input) or last + index >= len(self.graph.output):
                break
            name, out = self.graph.input[first + index].name, self.graph.output[last + index].name
            for _ in range(folding.DEEPEST):
                node = self.producers.get(out)
                if node is None or node.op_type != "Identity" or not node.input:
                    break
                out = node.input[0]
            if out == name:
                found[name] = self.node.input[first + index]
        return found

    def _constant(
        self, name: str, known: dict[tuple[int, str], NDArray[Any] | None], deep: int
    ) -> NDArray[Any] | None:
        origin = self.origin(name)
        if origin is None or deep == 0:
            return None
        owner, name = origin
        key = (id(owner), name)
        if key not in known:
            known[key] = None  # what leads back to itself is no constant
            known[key] = owner._own_constant(name, known, deep)
        return known[key]

    def _own_constant(
        self, name: str, known: dict[tuple[int, str], NDArray[Any] | None], deep: int
    ) -> NDArray[Any] | None:
        if name in self.initializers:
            return stored.array(self.initializers[name])
        if name in self.sparse:
            return stored.dense(self.sparse[name])
        node = self.producers.get(name)
        if node is None or not folding.is_foldable(node):
            return None
        if node.op_type == "Constant":
            return _constant_node(node)
        inputs = {given: self._constant(given, known, deep - 1) for given in node.input if given}
        arrays = {given: found for given, found in inputs.items() if found is not None}
        if len(arrays) < len(inputs):
            return None
        return folding.fold(node, arrays, name, self.opset)


def scopes(model: onnx.ModelProto) -> Iterator[Scope]:
    """Yield the main graph, then the bodies of its If, Loop and Scan nodes, at any depth."""
    yield from _scopes(Scope(model.graph, opsets=model.opset_import, functions=model.functions))


def uses(found: list[Scope]) -> Counter[tuple[str, str]]:
    """Count how often each value is read, by nodes or as an output; keys are the path of its graph and its name."""
    counts: Counter[tuple[str, str]] = Counter()
    for scope in found:
        names = [name for node in scope.nodes for name in node.input]
        for name in (*names, *(value.name for value in scope.graph.output)):
            owner = scope.owner(name)
            if owner is not None:
                counts[owner.path, name] += 1
    return counts


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Give the attributes of a node by name."""
    return {item.name: helper.get_attribute_value(item) for item in node.attribute}


def opset(model: onnx.ModelProto) -> int:
    """Give the version of the standard operators, 0 where the model imports none."""
    versions: list[int] = [item.version for item in model.opset_import if item.domain in STANDARD]
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
    taken = set[str]()
    for index, node in enumerate(scope.nodes):
        name = node.name or f"{node.op_type}_{index}"
        for attribute in node.attribute:
            for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                while f"{name}/{attribute.name}" in taken:
                    name += "_"
                taken.add(f"{name}/{attribute.name}")
                path = f"{scope.path}{name}/{attribute.name}/"
                yield from _scopes(Scope(graph, scope, path, node, scope.opsets))


def _attribute_tensors(nodes: Any) -> Iterator[TensorProto]:
    for node in nodes:
        for item in node.attribute:
            if item.HasField("t"):
                yield item.t
            if item.HasField("sparse_tensor"):
                yield from (item.sparse_tensor.values, item.sparse_tensor.indices)
            yield from item.tensors


def _constant_node(node: onnx.NodeProto) -> NDArray[Any] | None:
    given = attributes(node)
    if "value" in given:
        return stored.array(given["value"])
    if "sparse_value" in given:
        return stored.dense(given["sparse_value"])
    kinds = {
        "value_float": np.float32,
        "value_floats": np.float32,
        "value_int": np.int64,
        "value_ints": np.int64,
    }
    return next((np.asarray(given[name], kind) for name, kind in kinds.items() if name in given), None)


def _check_texts(model: onnx.ModelProto) -> None:
    """Read every name and text.

    Raises:
        ExportError: one is not UTF-8.
    """
    entries: list[str | bytes] = [text for item in model.metadata_props for text in (item.key, item.value)]
    entries += [model.producer_name, model.producer_version, model.graph.name]
    for scope in scopes(model):
        for node in scope.nodes:
            entries += [node.name, node.op_type, node.domain, *node.input, *node.output]
            entries += [item.name for item in node.attribute]
        entries += [tensor.name for tensor in scope.graph.initializer]
        entries += [value.name for value in (*scope.graph.input, *scope.graph.output)]
    for text in entries:
        if isinstance(text, bytes):  # which protobuf gives for what it cannot decode
            raise ExportError(f"the model holds the text {text[:60]!r}; expected UTF-8")


def _data_name(path: Path, index: int) -> Path:
    return path.with_name(f"{path.name}.data{index or ''}")


def _data_files(model: onnx.ModelProto) -> list[Path]:
    """List the files beside a model that its tensors lie in."""
    outside = [tensor for tensor in tensors(model) if tensor.data_location == TensorProto.EXTERNAL]
    return list(dict.fromkeys(stored.place(tensor)[0] for tensor in outside))
