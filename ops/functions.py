"""Model-local functions: what makes a file with our operators run where the library is not installed."""

from collections.abc import Iterator

import onnx
from onnx import helper

from bitsearch.ops.domain import DOMAIN, VERSION
from bitsearch.ops.errors import OperatorError
from bitsearch.ops.message_passing import function as message_passing
from bitsearch.ops.monotone_spline import function as monotone_spline
from bitsearch.ops.reproducible import function as reproducible
from bitsearch.ops.select_columns import function as select_columns
from bitsearch.ops.ternary_chain import function as ternary_chain
from bitsearch.ops.ternary_matmul import function as ternary_matmul

OTHERS = {
    monotone_spline.NAME: monotone_spline.monotone_spline_function,
    message_passing.NAME: message_passing.message_passing_function,
    select_columns.NAME: select_columns.select_columns_function,
}
"""Bodies that only models get which use them."""


def add_functions(model: onnx.ModelProto) -> None:
    """Make a model's `com.bithep` nodes runnable anywhere: functions, opset import, no defaults.

    Does nothing the second time.

    Raises:
        OperatorError: the model's opset is too old, or it imports another version of the domain.
    """
    versions = {entry.domain: entry.version for entry in model.opset_import}
    if versions.setdefault(DOMAIN, VERSION) != VERSION:
        raise OperatorError(f"opset of {DOMAIN}: found {versions[DOMAIN]}, expected {VERSION}")
    nodes = [node for node in _nodes(model.graph) if node.domain == DOMAIN]
    opset, kinds = versions.get("", 0), {node.op_type for node in nodes}
    functions = [ternary_matmul.ternary_matmul_function(opset)]
    functions += [make(opset) for name, make in OTHERS.items() if name in kinds]
    functions += [
        reproducible.reproducible_function(name, opset) for name in sorted(kinds & reproducible.INPUTS.keys())
    ]
    # Behind what they are made of: onnx's reference evaluator wants it so.
    functions += [
        ternary_chain.ternary_chain_function(
            length, opset, _activations(nodes, name), name.startswith(ternary_chain.NORMAL_PREFIX)
        )
        for name, length in ternary_chain.NAMES.items()
        if name in kinds
    ]
    for function in functions:
        # onnxruntime 1.20 names what it fuses after these nodes, and refuses two of one name.
        for i, inner in enumerate(function.node):
            inner.name = inner.name or f"{function.name}.{i}"
    if DOMAIN not in {entry.domain for entry in model.opset_import}:
        model.opset_import.append(helper.make_opsetid(DOMAIN, VERSION))
    # Whatever bodies a file brings along: the kernels, too, go by the name.
    names = {function.name for function in functions}
    others = [item for item in model.functions if item.domain != DOMAIN or item.name not in names]
    del model.functions[:]
    model.functions.extend([*others, *functions])
    model.ir_version = max(model.ir_version, 9)  # the first with default attributes of functions
    for node in nodes:
        for function in functions:
            if node.op_type == function.name:
                _complete(node, function)


def _activations(nodes: list[onnx.NodeProto], name: str) -> set[str]:
    """Collect the activations of the nodes of one kind."""
    return {
        attribute.s.decode(errors="replace")
        for node in nodes
        if node.op_type == name
        for attribute in node.attribute
        if attribute.name == "activation"
    }


def _complete(node: onnx.NodeProto, function: onnx.FunctionProto) -> None:
    """Write out what a node leaves to defaults: checker and reference evaluator fill in none of a function's."""
    node.input.extend([""] * (len(function.input) - len(node.input)))
    node.output.extend([""] * (len(function.output) - len(node.output)))
    given = {attribute.name for attribute in node.attribute}
    node.attribute.extend(default for default in function.attribute_proto if default.name not in given)


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for subgraph in (attribute.g, *attribute.graphs):
                yield from _nodes(subgraph)
