"""Write the ternary layers of a file for another kernel, with the same codes and scales."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from bitsearch.core.errors import ExportError
from bitsearch.onnxfile import chains, graph, upgrade
from bitsearch.onnxfile.graph import Scope
from bitsearch.onnxfile.linear import FOLDED
from bitsearch.onnxfile.products import MICROSOFT, Backend, Product
from bitsearch.ops import DOMAIN
from bitsearch.ops.ternary_matmul.function import OPSET_MIN
from bitsearch.ops.ternary_matmul.reference import unpack

OPSET_OF_INT2 = 25

Keep = Callable[[Scope, onnx.NodeProto], bool]
"""Tells of a `TernaryMatMul` whether it shall multiply in float32 instead."""


def rewrite(model: onnx.ModelProto, backend: Backend | str, keep: Keep | None = None) -> onnx.ModelProto:
    """Give a copy of a model whose `TernaryMatMul` are of another backend, or of float32 where `keep` says so.

    Raises:
        ExportError: weights or scales of a node are not constant, or onnx cannot bring the file to opset 25.
    """
    backend = Backend(backend)
    if backend is Backend.TERNARY and keep is None:
        return model
    model = chains.unchained(model)
    model = upgrade.copy(model, OPSET_OF_INT2 if backend is Backend.INT2 else OPSET_MIN)
    _Rewriting(model, backend, keep).apply()
    return model


@dataclass
class _Rewriting:
    """Changes of a model; nodes that share weights and scales share what is made of them."""

    model: onnx.ModelProto
    backend: Backend
    keep: Keep | None
    made: dict[tuple[str, ...], str] = field(default_factory=dict)
    released: set[tuple[str, str]] = field(default_factory=set)

    def apply(self) -> None:
        scopes = list(graph.scopes(self.model))
        self.taken = {name for scope in scopes for name in scope.names}
        for scope in reversed(scopes):  # inner ones first: a graph is copied with what it holds
            nodes = [made for node in scope.nodes for made in self._replace(scope, node)]
            if len(nodes) > len(scope.nodes) or any(
                a is not b for a, b in zip(nodes, scope.nodes, strict=True)
            ):
                del scope.graph.node[:]
                scope.graph.node.extend(nodes)
        self._drop()

    def _replace(self, scope: Scope, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        if (node.domain, node.op_type) != (DOMAIN, "TernaryMatMul"):
            return [node]
        backend = Backend.FLOAT32 if self.keep is not None and self.keep(scope, node) else self.backend
        if backend is Backend.TERNARY:
            return [node]
        x, weights, scales, *bias = node.input
        packed, scale = scope.constant(weights), scope.constant(scales)
        home, scale_home = scope.owner(weights), scope.owner(scales)
        if packed is None or scale is None or home is None or scale_home is None:
            raise ExportError(
                f"weights or scales of {node.name or node.output[0]} are not constant; expected constant ones, "
                f"which {backend} needs"
            )
        self.released |= {(home.path, weights), (scale_home.path, scales)}
        if (
            backend is Backend.INT2
        ):  # onnxruntime looks for what it fuses in the same graph, or refuses the file
            home = scope
        codes = unpack(packed, int(graph.attributes(node)["K"]))
        product = Product(
            x,
            codes,
            np.broadcast_to(scale.reshape(-1), len(codes)).astype(np.float32),
            next(iter(bias), ""),
            node.output[0],
            node.name,
            partial(self._constant, home, (weights, scale_home.path, scales)),
            self._fresh,
        )
        nodes = product.write(backend)
        nodes[-1].metadata_props.extend(node.metadata_props)
        if FOLDED in {item.key for item in node.metadata_props}:  # such a layer is known by its last node
            next(item for item in nodes if item.name == node.name).name = f"{node.name}/product"
            nodes[-1].name = node.name
        return nodes

    def _constant(self, home: Scope, origin: tuple[str, ...], part: str, array: NDArray[Any]) -> str:
        """Add an initialiser, once for all nodes that need it."""
        key = (home.path, *origin, part)
        if key not in self.made:
            name = self._fresh(f"{origin[0].removesuffix('.packed')}.{part}")
            home.graph.initializer.append(numpy_helper.from_array(array, name))
            self.made[key] = name
        return self.made[key]

    def _fresh(self, name: str) -> str:
        free = next(new for i in count() if (new := f"{name}.{i}" if i else name) not in self.taken)
        self.taken.add(free)
        return free

    def _drop(self) -> None:
        """Take out constants that nothing reads any more and the operator's function, and import what came in."""
        model, scopes = self.model, list(graph.scopes(self.model))
        uses = graph.uses(scopes)
        for scope in scopes:
            for entries in (scope.graph.initializer, scope.graph.input, scope.graph.value_info):
                for index in reversed(range(len(entries))):
                    place = (scope.path, entries[index].name)
                    if place in self.released and not uses[place]:
                        del entries[index]
        nodes = [node for scope in scopes for node in scope.graph.node]
        nodes += [node for function in model.functions for node in function.node]
        if ("TernaryMatMul", DOMAIN) not in {(node.op_type, node.domain) for node in nodes}:
            kept = [f for f in model.functions if (f.domain, f.name) != (DOMAIN, "TernaryMatMul")]
            del model.functions[:]
            model.functions.extend(kept)
        used = {node.domain for node in nodes} | {item.domain for item in model.functions}
        imports = [item for item in model.opset_import if item.domain != DOMAIN or DOMAIN in used]
        if MICROSOFT in used.difference(item.domain for item in imports):
            imports.append(helper.make_opsetid(MICROSOFT, 1))
        del model.opset_import[:]
        model.opset_import.extend(imports)
        model.ir_version = max(model.ir_version, graph.lowest_ir_version(model))
