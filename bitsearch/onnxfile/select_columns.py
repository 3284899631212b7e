"""Concatenations, splits, permutations and affine maps of columns as `SelectColumns`: one pass where there were ten.

    Concat → Sub → Mul → Transpose → Gather → Transpose → Split  →  SelectColumns

Every column of a matrix `(batch, n)` is followed to where it was computed. What others read of permuted columns is
taken from at most two matrices; where that does not do, nodes stay as they are.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bitsearch.onnxfile import graph as file
from bitsearch.onnxfile.graph import STANDARD, Scope
from bitsearch.ops import DOMAIN, add_functions
from bitsearch.ops.select_columns.function import NAME

SOURCES = 2  # matrices that one selection reads
AXES = 2
LEAST_SAVED = 8  # nodes; fewer are not worth another form of the file


@dataclass(frozen=True)
class Column:
    """Column `place` of the value `source`, less `offset`, times `factor`, where these are told."""

    source: str
    place: int
    offset: float | None = None
    factor: float | None = None


@dataclass(frozen=True)
class Matrix:
    """A value as columns; `turned` ones are its rows. Only what was `permuted` on the way is worth another form."""

    columns: tuple[Column, ...]
    turned: bool = False
    permuted: bool = False


@dataclass
class Follower:
    """What is known of a graph's values, node by node."""

    scope: Scope
    widths: Mapping[str, int]
    matrices: dict[str, Matrix] = field(default_factory=dict)
    home: dict[Column, Column] = field(default_factory=dict)
    computed: set[str] = field(default_factory=set)
    made: dict[int, list[onnx.NodeProto]] = field(default_factory=dict)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def matrix(self, name: str) -> Matrix | None:
        """Give a value as columns, by what was computed of them last."""
        if name not in self.matrices:
            if name not in self.widths:
                return None
            self.matrices[name] = Matrix(tuple(Column(name, place) for place in range(self.widths[name])))
        found = self.matrices[name]
        return replace(found, columns=tuple(map(self._latest, found.columns)))

    def _latest(self, column: Column) -> Column:
        """Find the last matrix that holds a column, so that all of one come from few."""
        while (found := self.home.get(column)) is not None:
            column = found
        return column

    def follow(self, node: onnx.NodeProto) -> bool:
        """Note what a node makes of columns; tell whether it does nothing else."""
        given = [self.matrix(name) for name in node.input]
        first = given[0] if given else None
        made: list[Matrix] | None = None
        match node.op_type if node.domain in STANDARD else "":
            case "Concat":
                made = self._concat(node, given)
            case "Transpose" if first and list(file.attributes(node).get("perm", ())) in ([1, 0], []):
                made = [replace(first, turned=not first.turned)]
            case "Gather" if first and first.turned and file.attributes(node).get("axis", 0) == 0:
                made = self._gather(node, first)
            case "Split" if first and not first.turned and file.attributes(node).get("axis", 0) in (1, -1):
                made = self._split(node, first)
            case "Sub" | "Mul":
                made = self._affine(node, given)
        if made is None:
            return False
        self.matrices.update(zip(node.output, made, strict=True))
        return True

    def _concat(self, node: onnx.NodeProto, given: list[Matrix | None]) -> list[Matrix] | None:
        if file.attributes(node).get("axis") not in (1, -1):
            return None
        if any(item is None or item.turned for item in given):
            return None
        known = [item for item in given if item]
        columns = tuple(column for item in known for column in item.columns)
        return [Matrix(columns, permuted=any(item.permuted for item in known))]

    def _gather(self, node: onnx.NodeProto, first: Matrix) -> list[Matrix] | None:
        index = self.scope.constant(node.input[1])
        size = len(first.columns)
        if index is None or index.ndim != 1 or np.any((index < -size) | (index >= size)):
            return None
        return [Matrix(tuple(first.columns[int(place)] for place in index), turned=True, permuted=True)]

    def _split(self, node: onnx.NodeProto, first: Matrix) -> list[Matrix] | None:
        sizes = self.scope.constant(node.input[1]) if len(node.input) > 1 else None
        if sizes is None or len(sizes) != len(node.output) or sizes.sum() != len(first.columns):
            return None
        ends = np.cumsum(sizes)
        return [
            replace(first, columns=first.columns[int(end - size) : int(end)])
            for size, end in zip(sizes, ends, strict=True)
        ]

    def _affine(self, node: onnx.NodeProto, given: list[Matrix | None]) -> list[Matrix] | None:
        """Take up a difference, then a product, with a constant for every column."""
        for which, other in ((0, 1), (1, 0)) if node.op_type == "Mul" else ((0, 1),):
            matrix, constant = given[which], self.scope.constant(node.input[other])
            if matrix is None or matrix.turned or constant is None or constant.dtype != np.float32:
                continue
            size = len(matrix.columns)
            if (
                constant.size not in (1, size)
                or constant.ndim > AXES
                or constant.shape[:-1] not in ((), (1,))
            ):
                continue
            numbers = np.broadcast_to(constant.reshape(-1), size)
            taken = "factor" if node.op_type == "Mul" else "offset"
            if any(
                column.factor is not None or getattr(column, taken) is not None for column in matrix.columns
            ):
                return None
            pairs = zip(matrix.columns, map(float, numbers), strict=True)
            columns = (
                replace(column, factor=number) if taken == "factor" else replace(column, offset=number)
                for column, number in pairs
            )
            return [replace(matrix, columns=tuple(columns))]
        return None

    def compute(self, name: str, place: int) -> bool:
        """Let `SelectColumns` compute a value before the node at `place`; tell whether it can."""
        matrix = self.matrix(name)
        if matrix is None or matrix.turned or not matrix.permuted:
            return False
        sources = list(dict.fromkeys(column.source for column in matrix.columns))
        if not 1 <= len(sources) <= SOURCES:
            return False
        first, second = sources[0], sources[-1]
        begin = {second: self.widths[first], first: 0}
        arrays: dict[str, NDArray[np.generic]] = {
            "index": np.array([begin[item.source] + item.place for item in matrix.columns], np.int64),
            "offset": np.array([item.offset or 0 for item in matrix.columns], np.float32),
            "factor": np.array(
                [1 if item.factor is None else item.factor for item in matrix.columns], np.float32
            ),
        }
        names = [f"{name}.{role}" for role in arrays]
        if not self.scope.names.isdisjoint(names):
            return False
        self.constants += [
            numpy_helper.from_array(array, made) for made, array in zip(names, arrays.values(), strict=True)
        ]
        node = helper.make_node(NAME, [first, second, *names], [name], f"{name}.columns", domain=DOMAIN)
        self.made.setdefault(place, []).append(node)
        here = tuple(Column(name, index) for index in range(len(matrix.columns)))
        self.home.update(zip(matrix.columns, here, strict=True))
        self.matrices[name] = Matrix(here)
        self.computed.add(name)
        return True


def select_columns(model: onnx.ModelProto) -> None:
    """Write, in place, permuted columns in the main graph as `SelectColumns`, if that saves nodes."""
    scope = next(iter(file.scopes(model)))
    graph = scope.graph
    follower = Follower(scope, dict(_widths(graph)))
    outputs = {value.name for value in graph.output}
    moving: dict[str, int] = {}
    kept: set[int] = set()

    def provide(name: str, place: int) -> None:
        """See to it that a value is computed before the node at `place`."""
        producer = moving.get(name)
        if producer is None or producer in kept or name in follower.computed:
            return
        if follower.compute(name, place):
            return
        kept.add(producer)
        for given in graph.node[producer].input:
            provide(given, producer)

    for place, node in enumerate(graph.node):
        if follower.follow(node):
            moving.update(dict.fromkeys(node.output, place))
        else:
            for name in (*node.input, *_read_inside(node)):
                provide(name, place)
        for name in outputs.intersection(node.output):
            provide(name, place + 1)
    gone = set(moving.values()) - kept
    made = sum(map(len, follower.made.values()))
    if len(gone) - made < LEAST_SAVED:
        return
    nodes = [
        item
        for place in range(len(graph.node) + 1)
        for item in (
            *follower.made.get(place, ()),
            *([graph.node[place]] if place < len(graph.node) and place not in gone else ()),
        )
    ]
    copies = [onnx.NodeProto.FromString(item.SerializeToString()) for item in _used(nodes, outputs)]
    del graph.node[:]
    graph.node.extend(copies)
    graph.initializer.extend(follower.constants)
    read = outputs.union(*((*item.input, *_read_inside(item)) for item in copies))
    made_here = {name for item in copies for name in item.output}
    for entries, alive in ((graph.initializer, read), (graph.value_info, made_here)):
        for index in reversed(range(len(entries))):
            if entries[index].name not in alive:
                del entries[index]
    add_functions(model)


def _used(nodes: Sequence[onnx.NodeProto], outputs: Collection[str]) -> list[onnx.NodeProto]:
    """Leave out nodes that nothing reads, such as what computed a constant."""
    read, kept = set(outputs), list[onnx.NodeProto]()
    for node in reversed(nodes):
        if read.intersection(filter(None, node.output)):
            kept.append(node)
            read.update(node.input, _read_inside(node))
    return kept[::-1]


def _widths(graph: onnx.GraphProto) -> Iterator[tuple[str, int]]:
    """Give values of floats that are matrices with a known number of columns."""
    for value in (*graph.input, *graph.value_info):
        kind = value.type.tensor_type
        sizes = kind.shape.dim
        if kind.elem_type == TensorProto.FLOAT and len(sizes) == AXES and sizes[1].dim_value > 0:
            yield value.name, sizes[1].dim_value


def _read_inside(node: onnx.NodeProto) -> Iterator[str]:
    """Give what graphs inside of a node read."""
    for attribute in node.attribute:
        for inner in (attribute.g, *attribute.graphs):
            for item in inner.node:
                yield from item.input
                yield from _read_inside(item)
            yield from (value.name for value in inner.output)
