"""Write the ternary layers of a file for another kernel, with the same codes and scales."""

from enum import StrEnum
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from bitsearch.core.errors import ExportError
from bitsearch.onnxfile import graph, upgrade
from bitsearch.onnxfile.graph import Scope
from bitsearch.onnxfile.linear import MICROSOFT
from bitsearch.ops import DOMAIN

BLOCK_SIZES = (
    128,
    64,
    32,
)  # inputs that share a step of the activations; below 32 onnxruntime multiplies in float
INT8 = 4  # accuracy_level: activations are rounded to 8 bits a block, as TernaryMatMul rounds them a row
ZEROS = 0b01010101  # four codes 1, which stand for 0


class Backend(StrEnum):
    """What multiplies by ternary weights.

    `ternary` is `com.bithep::TernaryMatMul`; `nbits` is onnxruntime's `MatMulNBits` of 2 bits with zero point 1, which
    holds ternary weights without loss.
    """

    TERNARY = "ternary"
    NBITS = "nbits"


def rewrite(model: onnx.ModelProto, backend: Backend | str) -> onnx.ModelProto:
    """Give a copy of a model that holds `TernaryMatMul` for another backend.

    Raises:
        ExportError: weights or scales of a node are not constant.
    """
    if Backend(backend) is Backend.TERNARY:
        return model
    model = upgrade.copy(model)
    scopes = list(graph.scopes(model))
    taken = {name for scope in scopes for name in scope.names}
    made: dict[tuple[str, ...], str] = {}
    released: set[tuple[str, str]] = set()

    def constant(home: Scope, origin: tuple[str, ...], name: str, array: NDArray[Any]) -> str:
        """Add an initialiser, once for all nodes that need it."""
        key = (home.path, *origin)
        if key not in made:
            while name in taken:
                name += "_"
            taken.add(name)
            home.graph.initializer.append(numpy_helper.from_array(array, name))
            made[key] = name
        return made[key]

    for scope in scopes:
        for node in scope.nodes:
            if (node.domain, node.op_type) != (DOMAIN, "TernaryMatMul"):
                continue
            x, weights, scales, *bias = node.input
            packed, scale = scope.constant(weights), scope.constant(scales)
            owner, scale_owner = scope.owner(weights), scope.owner(scales)
            if packed is None or scale is None or owner is None or scale_owner is None:
                raise ExportError(
                    f"weights or scales of {node.name or node.output[0]} are not constant; expected constant ones, "
                    f"which {backend} needs"
                )
            released |= {(owner.path, weights), (scale_owner.path, scales)}
            n, k = len(packed), int(graph.attributes(node)["K"])
            size = next((size for size in BLOCK_SIZES if size <= k), BLOCK_SIZES[-1])
            blocks = -(-k // size)
            codes = np.full((n, blocks * size // 4), ZEROS, np.uint8)
            codes[:, : packed.shape[1]] = packed
            steps = np.repeat(np.broadcast_to(scale.reshape(-1, 1), (n, 1)), blocks, axis=1)
            points = np.full((n, -(-blocks // 4)), ZEROS, np.uint8)
            inputs = [
                x,
                constant(owner, (weights, ""), f"{weights}.nbits", codes.reshape(n, blocks, -1)),
                constant(scope, (scales, str(blocks)), f"{scales}.blocks", steps),
                constant(scope, ("zero points", str(points.shape)), "zero_points", points),
                *(["", *bias] if any(bias) else []),
            ]
            new = helper.make_node(
                "MatMulNBits",
                inputs,
                [node.output[0]],
                node.name,
                domain=MICROSOFT,
                K=k,
                N=n,
                bits=2,
                block_size=size,
                accuracy_level=INT8,
            )
            new.metadata_props.extend(node.metadata_props)
            node.CopyFrom(new)
    _drop(model, released)
    return model


def _drop(model: onnx.ModelProto, released: set[tuple[str, str]]) -> None:
    """Take out constants that nothing reads any more and the operator's function, and import what came in."""
    scopes = list(graph.scopes(model))
    uses = graph.uses(scopes)
    for scope in scopes:
        for entries in (scope.graph.initializer, scope.graph.input, scope.graph.value_info):
            for index in reversed(range(len(entries))):
                place = (scope.path, entries[index].name)
                if place in released and not uses[place]:
                    del entries[index]
    nodes = [node for scope in scopes for node in scope.nodes]
    inside = [node for function in model.functions for node in function.node]
    if ("TernaryMatMul", DOMAIN) not in {(node.op_type, node.domain) for node in (*nodes, *inside)}:
        kept = [item for item in model.functions if (item.domain, item.name) != (DOMAIN, "TernaryMatMul")]
        del model.functions[:]
        model.functions.extend(kept)
    used = {node.domain for node in (*nodes, *inside)} | {item.domain for item in model.functions}
    imports = [item for item in model.opset_import if item.domain != DOMAIN or DOMAIN in used]
    if MICROSOFT not in {item.domain for item in imports}:
        imports.append(helper.make_opsetid(MICROSOFT, 1))
    del model.opset_import[:]
    model.opset_import.extend(imports)
