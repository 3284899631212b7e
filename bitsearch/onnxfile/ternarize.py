"""Turn linear layers of a finished ONNX file into `TernaryMatMul` or 8 bits, without torch and without re-training.

Takes any opset: files older than 13 are upgraded. Ensures that nodes which are not converted stay byte for byte what
they were; those that cannot be converted are declined with a reason.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import onnx
from onnx import helper

import bitsearch
from bitsearch.core.errors import ExportError
from bitsearch.core.precision import Precision
from bitsearch.core.rounding import Rounding, is_lossless, round_rows
from bitsearch.onnxfile import graph, inspect, upgrade
from bitsearch.onnxfile.edit import Edit, Outcome, Rounded, Rounder
from bitsearch.onnxfile.graph import STANDARD
from bitsearch.onnxfile.linear import LinearNode, is_linear, layer_name
from bitsearch.ops import DOMAIN, add_functions


def rounder(rounding: Rounding | str = Rounding.OPTIMAL) -> Rounder:
    """Make a rounder that sees weights alone; what is ternary already is kept exactly, however it rounds the rest."""

    def round_weights(layer: str, linear: LinearNode, precision: Precision) -> Rounded:
        del layer
        codes, scale = round_rows(linear.weight, Rounding.OPTIMAL, precision)
        if rounding != Rounding.OPTIMAL and not is_lossless(linear.weight, codes, scale):
            codes, scale = round_rows(linear.weight, rounding, precision)
        return Rounded(codes, scale)

    return round_weights


def layer_names(model: onnx.ModelProto) -> tuple[str, ...]:
    """Name every linear layer of the file's graphs, in order."""
    names = (
        layer_name(scope, node)
        for scope in graph.scopes(model)
        for node in scope.nodes
        if is_linear(scope, node)
    )
    return tuple(dict.fromkeys(names))


def layer_sizes(model: onnx.ModelProto) -> dict[str, int]:
    """Count the weights of every linear layer by name; 0 where they are no initialiser."""
    sizes: dict[str, int] = {}
    for scope in graph.scopes(model):
        for node in scope.nodes:
            if is_linear(scope, node):
                dims = scope.dims(node.input[1]) if len(node.input) > 1 else None
                name = layer_name(scope, node)
                sizes[name] = max(sizes.get(name, 0), math.prod(dims or (0,)))
    sizes |= {item.layer: 0 for item in _inside_functions(model) if item.layer not in sizes}
    return sizes


def ternarize(
    source: onnx.ModelProto, choose: Callable[[str], Precision], round_weights: Rounder | None = None
) -> tuple[onnx.ModelProto, tuple[Outcome, ...]]:
    """Give a model whose layers have the precisions that `choose` tells by name, and what became of each.

    Raises:
        ExportError: none of the chosen nodes could be converted, or the file's opset is too old to be upgraded.
    """
    model = upgrade.prepare(source)
    layers = layer_names(model)
    edit = Edit(model, round_weights or rounder())
    outcomes = [
        edit.convert(scope, node, precision)
        for scope in edit.scopes
        for node in scope.nodes
        if is_linear(scope, node) and (precision := choose(layer_name(scope, node))) is not Precision.FLOAT32
    ]
    outcomes += [item for item in _inside_functions(model) if choose(item.layer).is_quantized]
    converted = {item.layer: item.precision for item in outcomes if item.reason is None}
    if not converted:
        reasons = "; ".join(f"{item.layer}: {item.reason}" for item in outcomes[:5])
        found = f"{len(outcomes)} that cannot be converted ({reasons})" if outcomes else "none"
        raise ExportError(
            f"of the chosen linear layers found {found}; expected one with constant float32 weights"
        )
    edit.drop_unused()
    notes = edit.kept()
    edit.apply()
    if any(item.is_quantized for item in converted.values()):
        add_functions(model)
    _describe(model, converted, layers)
    return model, tuple(
        replace(item, note="; ".join(filter(None, (item.note, notes.get(item.layer)))) or None)
        for item in outcomes
    )


def _inside_functions(model: onnx.ModelProto) -> list[Outcome]:
    """Decline what lies in model-local functions, whose weights are arguments."""
    return [
        Outcome(
            f"{function.name}/{node.name or node.output[0]}",
            node.op_type,
            Precision.TERNARY,
            f"it is in the function {function.domain}::{function.name}; onnx cannot inline it",
        )
        for function in model.functions
        if function.domain != DOMAIN
        for node in function.node
        if node.domain in STANDARD and node.op_type in ("MatMul", "Gemm") and node.output
    ]


def _describe(model: onnx.ModelProto, converted: Mapping[str, Precision], layers: tuple[str, ...]) -> None:
    """Write the metadata of the contract's section 2, keeping what stays true of what the file says of itself."""
    known = graph.metadata(model)
    known.pop("bitsearch.strategy", None)
    before = inspect.json_value(known.get("bitsearch.assignment", "")) or dict.fromkeys(layers, "float32")
    config = inspect.json_value(known.get("bitsearch.config", "")) or {}
    quantized, total = inspect.parameters(model)
    properties = {
        "bitsearch.model": model.graph.name or "unknown",
        "bitsearch.dataset": "unknown",
        **known,
        "bitsearch.version": bitsearch.__version__,
        "bitsearch.assignment": json.dumps({**before, **{name: str(p) for name, p in converted.items()}}),
        "bitsearch.fraction": repr(quantized / total),
        "bitsearch.config": json.dumps({**config, "ternarized_after_export": sorted(converted)}),
    }
    helper.set_model_props(model, properties)
