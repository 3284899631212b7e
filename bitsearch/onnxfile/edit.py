"""Put other nodes in the place of linear layers: changes of a model, collected and applied at once."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bitsearch.core.precision import Precision
from bitsearch.core.rounding import Codes, is_lossless
from bitsearch.onnxfile import graph
from bitsearch.onnxfile.graph import Scope
from bitsearch.onnxfile.linear import Array, LinearNode, Step, examine, layer_name
from bitsearch.onnxfile.products import Product

BLOCK = 2**22  # weights looked at at a time


@dataclass(frozen=True)
class Outcome:
    """What became of one linear layer: converted to `precision`, or not, for `reason`.

    `zeros` is the share of weights that became 0, `error` is |W - scale · codes| / |W| in the Euclidean norm, 0 where
    the weights were ternary or binary times a scale already: then the layer is `lossless`.
    """

    layer: str
    op: str
    precision: Precision
    reason: str | None = None
    shape: tuple[int, ...] = ()
    zeros: float | None = None
    error: float | None = None
    bytes_before: int = 0
    bytes_after: int = 0
    note: str | None = None
    lossless: bool = False


@dataclass(frozen=True)
class Rounded:
    """Weights of one layer as codes `(out_features, in_features)` and scales `(out_features,)`.

    `shift` `(out_features,)` is what the product, before the gain, lacks on average; the bias makes up for it.
    """

    codes: Codes
    scale: Array
    shift: Array | None = None
    note: str | None = None


Rounder = Callable[[str, LinearNode, Precision], Rounded]
"""Rounds the weights of a layer, by its name."""


@dataclass
class Edit:
    """Changes of a model, collected and applied at once; weights that several nodes share are packed once.

    Nodes are known by the path of their graph and their first output.
    """

    model: onnx.ModelProto
    round_weights: Rounder
    made: dict[tuple[object, ...], str] = field(default_factory=dict)
    rounded: dict[tuple[object, ...], Rounded] = field(default_factory=dict)
    released: dict[tuple[str, str], str] = field(default_factory=dict)
    replaced: dict[tuple[str, str], list[onnx.NodeProto]] = field(default_factory=dict)
    added: dict[str, list[TensorProto]] = field(default_factory=dict)
    gone: set[tuple[str, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.scopes = list(graph.scopes(self.model))
        self.uses = graph.uses(self.scopes)
        self.taken = {name for scope in self.scopes for name in scope.names}

    def convert(self, scope: Scope, node: onnx.NodeProto, precision: Precision) -> Outcome:
        """Plan `TernaryMatMul` in place of a node, or decline."""
        layer = layer_name(scope, node)
        linear = examine(scope, node, self.uses)
        if isinstance(linear, str):
            return Outcome(layer, node.op_type, precision, linear)
        origin = scope.origin(linear.weights_name)
        assert origin is not None
        home, name = origin
        key = (home.path, name, linear.orientation, precision)
        found = self.rounded.get(key) or self.round_weights(layer, linear, precision)
        if self.uses[home.path, name] > 1:
            self.rounded[key] = found
        if found.shift is not None:
            before = 0 if linear.bias is None else linear.bias
            bias = np.asarray(before + np.float32(linear.gain) * found.shift, np.float32)
            linear = replace(linear, bias=bias, bias_name=linear.bias_name or f"{layer}.bias")
        self.released[home.path, name] = layer
        for used in filter(None, (linear.weights_name, linear.bias_name, *node.input[2:])):
            owner = scope.owner(used)
            if owner is not None:
                self.released.setdefault((owner.path, used), "")
        shadowed = (
            f"{name} was an input with a default and can no longer be fed" if name in home.inputs else None
        )
        after = self._plan(scope, node, linear, found, home, key, precision)
        return Outcome(
            layer,
            node.op_type,
            precision,
            shape=found.codes.shape,
            zeros=1 - np.count_nonzero(found.codes) / found.codes.size,
            error=_error(linear.weight, found),
            bytes_before=linear.stored_bytes,
            bytes_after=after,
            note="; ".join(filter(None, (found.note, shadowed))) or None,
            lossless=is_lossless(linear.weight, found.codes, found.scale),
        )

    def _plan(
        self,
        scope: Scope,
        node: onnx.NodeProto,
        linear: LinearNode,
        rounded: Rounded,
        home: Scope,
        key: tuple[object, ...],
        precision: Precision,
    ) -> int:
        layer, (out, k) = layer_name(scope, node), rounded.codes.shape
        # A name that the node did not have may be taken by another node of the same weights.
        name = "" if not node.name and layer in node.input else layer
        source, size, weights = linear.addition or node, out // linear.heads, str(key[1])
        nodes: list[onnx.NodeProto] = []
        value = self._steps(scope, nodes, linear.before, linear.x)
        values = [value] * linear.heads
        if linear.split:
            values = [self._fresh(f"{value}.head") for _ in values]
            lengths = self._constant(scope, ("ones", linear.heads), "ones", np.ones(linear.heads, np.int64))
            nodes.append(helper.make_node("Split", [value, lengths], values, axis=-3))
        products = []
        for head, x in enumerate(values):
            rows = slice(head * size, (head + 1) * size)
            scale = np.asarray(rounded.scale[rows] * np.float32(linear.gain), np.float32)
            bias = "" if linear.bias is None else self._bias(scope, linear)
            products.append(self._fresh(f"{node.output[0]}.product"))
            label = name if linear.heads == 1 else f"{name}/{head}" if name else ""
            constant = partial(self._part, home, (*key, head), linear.gain, weights)
            product = Product(x, rounded.codes[rows], scale, bias, products[-1], label, constant, self._fresh)
            if precision is Precision.INT8:
                nodes += product.int8()
                continue
            (made,) = product.ternary()
            made.metadata_props.extend(source.metadata_props)
            nodes.append(made)
        value = products[0]
        if linear.heads > 1:
            value = self._fresh(f"{node.output[0]}.heads")
            nodes.append(helper.make_node("Concat", products, [value], axis=-3))
        self._steps(scope, nodes, linear.after, value)
        nodes[-1].output[0] = source.output[0]
        self.replaced[scope.path, node.output[0]] = nodes
        if linear.addition is not None:
            self.replaced[scope.path, node.output[0]] = []
            self.replaced[scope.path, source.output[0]] = nodes
            self.gone.add((scope.path, node.output[0]))
        return out * k if precision is Precision.INT8 else int(out * -(-k // 4))

    def _steps(self, scope: Scope, nodes: list[onnx.NodeProto], steps: Sequence[Step], value: str) -> str:
        for step in steps:
            inputs = [
                item
                if isinstance(item, str)
                else self._constant(scope, (step.op, item.tobytes()), step.op.lower(), item)
                for item in step.inputs
            ]
            made = self._fresh(f"{value}.{step.op.lower()}")
            nodes.append(helper.make_node(step.op, [value, *inputs], [made], **step.attributes))
            value = made
        return value

    def _bias(self, scope: Scope, linear: LinearNode) -> str:
        """Use the bias that is there where it has the right shape and value, else add one."""
        assert linear.bias is not None
        owner, found = scope.owner(linear.bias_name), scope.constant(linear.bias_name)
        same = found is not None and found.dtype == np.float32 and np.array_equal(found, linear.bias)
        if owner is not None and same and linear.bias_name in owner.initializers:
            return linear.bias_name
        key = (scope.path, linear.bias_name, linear.bias.tobytes())
        name = linear.bias_name.removesuffix(".bias")
        return self._constant(scope, key, f"{name}.bias", linear.bias)

    def _part(
        self, home: Scope, key: tuple[object, ...], gain: float, weights: str, part: str, array: NDArray[Any]
    ) -> str:
        """Add a part of a product; nodes that share weights share what their gains do not change."""
        of_gain = (gain,) if part.endswith("scale") else ()
        return self._constant(home, (*key, part, *of_gain), f"{weights}.{part}", array)

    def _constant(self, home: Scope, key: tuple[object, ...], name: str, array: NDArray[Any]) -> str:
        key = (home.path, *key)
        if key not in self.made:
            free = self._fresh(name)
            tensor = numpy_helper.from_array(np.asarray(array, order="C"), free)
            self.added.setdefault(home.path, []).append(tensor)
            self.made[key] = free
        return self.made[key]

    def _fresh(self, name: str) -> str:
        free = next(new for i in count() if (new := f"{name}.{i}" if i else name) not in self.taken)
        self.taken.add(free)
        return free

    def _planned(self, scope: Scope) -> Iterable[onnx.NodeProto]:
        for node in scope.nodes:
            key = (scope.path, node.output[0] if node.output else "")
            if key in self.replaced:
                yield from self.replaced[key]
            elif key not in self.gone:
                yield node

    def drop_unused(self) -> None:
        """Give up constants that only converted nodes read, with the states of loops that carry them."""
        places = {scope.path: scope for scope in self.scopes}
        self.uses.clear()
        for scope in self.scopes:
            names = [name for node in self._planned(scope) for name in node.input]
            for name in (*names, *(value.name for value in scope.graph.output)):
                owner = scope.owner(name)
                if owner is not None:
                    self.uses[owner.path, name] += 1
        pending = [*self.released, *(key for scope in reversed(self.scopes) for key in self._uncarry(scope))]
        while pending:
            path, name = key = pending.pop()
            scope = places[path]
            if self.uses[key] or key in self.gone:
                continue
            if name in scope.initializers or name in scope.sparse:
                self.gone.add(key)
            elif (node := scope.producers.get(name)) is not None and not any(
                self.uses[path, output] for output in node.output
            ):
                self.gone.update((path, output) for output in node.output if output)
                for given in node.input:
                    owner = scope.owner(given)
                    if owner is not None:
                        self.uses[owner.path, given] -= 1
                        pending.append((owner.path, given))

    def _uncarry(self, scope: Scope) -> Iterable[tuple[str, str]]:
        """Take states that nothing reads any more out of the loop whose body this is."""
        node, outer = scope.node, scope.outer
        if node is None or outer is None or node.op_type != "Loop":
            return
        for index in reversed(range(len(node.input) - 2)):
            name = scope.graph.input[2 + index].name
            if name not in scope.carried or (scope.path, name) not in self.released:
                continue
            chain = [scope.graph.output[1 + index].name]
            while chain[-1] != name:
                chain.append(scope.producers[chain[-1]].input[0])
            result = node.output[index] if index < len(node.output) else ""
            owner = outer.owner(node.input[2 + index])
            if any(self.uses[scope.path, item] != 1 for item in chain) or self.uses[outer.path, result]:
                continue
            if len(node.output) == 1:
                continue  # a node must put something out
            self.gone.update((scope.path, item) for item in chain)
            if owner is not None:
                self.uses[owner.path, node.input[2 + index]] -= 1
                yield owner.path, node.input[2 + index]
            del scope.graph.input[2 + index], scope.graph.output[1 + index], node.input[2 + index]
            if index < len(node.output):
                del node.output[index]

    def kept(self) -> dict[str, str]:
        """Say which layers' weights stay in float beside the packed ones, and who reads them."""
        notes = {}
        for (path, name), layer in self.released.items():
            if not layer or (path, name) in self.gone:
                continue
            readers = [
                node.name or node.op_type
                for scope in self.scopes
                for node in self._planned(scope)
                if name in node.input and (owner := scope.owner(name)) is not None and owner.path == path
            ]
            notes[layer] = f"{name} stays beside it, for {', '.join(readers[:3]) or 'an output'}"
        return notes

    def apply(self) -> None:
        """Rewrite the graphs, inner ones first: a graph is copied with what it holds."""
        for scope in reversed(self.scopes):
            path, inner = scope.path, scope.graph
            nodes = list(self._planned(scope))
            if len(nodes) != len(scope.nodes) or any(key[0] == path for key in self.replaced):
                del inner.node[:]
                inner.node.extend(nodes)
            for entries in (inner.initializer, inner.input, inner.value_info):
                names = [item.name for item in entries]
                own = inner.input is entries
                for index in reversed(range(len(entries))):
                    if (path, names[index]) in self.gone and not (
                        own and names[index] not in scope.initializers
                    ):
                        del entries[index]
            for index in reversed(range(len(inner.sparse_initializer))):
                if (path, inner.sparse_initializer[index].values.name) in self.gone:
                    del inner.sparse_initializer[index]
            inner.initializer.extend(self.added.get(path, ()))


def _error(weight: Array, rounded: Rounded) -> float:
    """Give the relative error, a block of rows at a time."""
    off = total = 0.0
    rows = max(1, BLOCK // weight.shape[1])
    for begin in range(0, len(weight), rows):
        block = slice(begin, begin + rows)
        given = weight[block].astype(np.float64)
        off += float(((given - rounded.codes[block] * rounded.scale[block, None]) ** 2).sum())
        total += float((given**2).sum())
    return float(np.sqrt(off / total)) if total else 0.0
