"""Turn MatMul and Gemm nodes of a finished ONNX file into `TernaryMatMul`, without torch and without re-training.

Requires opset 13 or newer. Ensures that nodes which are not converted stay byte for byte what they were; those that
cannot be converted are declined with a reason.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

import bitsearch
from bitsearch.core.errors import ExportError
from bitsearch.core.precision import Precision
from bitsearch.onnxfile import graph, inspect
from bitsearch.onnxfile.graph import Scope
from bitsearch.onnxfile.linear import Array, LinearNode, examine, is_linear, layer_name
from bitsearch.ops import DOMAIN, add_functions
from bitsearch.ops.reference import pack
from bitsearch.ops.ternary_matmul.function import OPSET_MIN

SMALLEST_SCALE = 1e-8
ACT_QMAX = 127.0


@dataclass(frozen=True)
class Outcome:
    """What became of one MatMul or Gemm: converted to `precision`, or not, for `reason`.

    `zeros` is the share of weights that became 0, `error` is |W - scale · codes| / |W| in the Euclidean norm.
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


def quantize_weight(
    weight: Array, precision: Precision = Precision.TERNARY
) -> tuple[NDArray[np.int8], np.float32]:
    """Round `(out_features, in_features)` to codes in {-1, 0, 1} and one scale (BitHEP Eq. (1)).

    Ternary: scale = mean|W|, codes = clip(round(W / scale)), half to even. Binary: codes = sign(W - mean W).
    `bitsearch.network.quant.quantize_weight` is the same for torch.
    """
    scale = np.float32(max(float(np.abs(weight).mean(dtype=np.float64)), SMALLEST_SCALE))
    if precision is Precision.BINARY:
        return np.sign(weight - np.float32(weight.mean(dtype=np.float64))).astype(np.int8), scale
    return np.clip(np.rint(weight / scale), -1, 1).astype(np.int8), scale


def layer_names(model: onnx.ModelProto) -> tuple[str, ...]:
    """Name every MatMul and Gemm of the file's graphs, in order."""
    names = (
        layer_name(scope, node)
        for scope in graph.scopes(model)
        for node in scope.graph.node
        if is_linear(node)
    )
    return tuple(dict.fromkeys(names))


def ternarize(
    source: onnx.ModelProto, choose: Callable[[str], Precision]
) -> tuple[onnx.ModelProto, tuple[Outcome, ...]]:
    """Give a model whose layers have the precisions that `choose` tells by name, and what became of each.

    Raises:
        ExportError: the model's opset is older than 13, or none of the chosen nodes could be converted.
    """
    if (version := graph.opset(source)) < OPSET_MIN:
        raise ExportError(
            f"found opset {version}, expected {OPSET_MIN} or newer; "
            f"convert the file with onnx.version_converter.convert_version(model, {OPSET_MIN}) first"
        )
    model = onnx.ModelProto()
    model.CopyFrom(source)
    for item in model.opset_import:
        item.domain = "" if item.domain == "ai.onnx" else item.domain
    edit = _Edit(model)
    outcomes = [
        edit.convert(scope, node, precision)
        for scope in edit.scopes
        for node in list(scope.graph.node)
        if is_linear(node) and (precision := choose(layer_name(scope, node))).is_quantized
    ]
    outcomes += [item for item in _inside_functions(model) if choose(item.layer).is_quantized]
    converted = {item.layer: item.precision for item in outcomes if item.reason is None}
    if not converted:
        reasons = "; ".join(f"{item.layer}: {item.reason}" for item in outcomes[:5])
        found = f"{len(outcomes)} that cannot be converted ({reasons})" if outcomes else "none"
        raise ExportError(
            f"of the chosen MatMul and Gemm nodes found {found}; expected one with constant float32 weights"
        )
    edit.drop_unused()
    add_functions(model)
    _describe(model, converted, layer_names(source))
    return model, tuple(outcomes)


@dataclass
class _Edit:
    """A model under change; weights that several nodes share are packed once."""

    model: onnx.ModelProto
    made: dict[tuple[object, ...], str] = field(default_factory=dict)
    released: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.scopes = list(graph.scopes(self.model))
        self.uses = graph.uses(self.model)
        self.taken = {name for scope in self.scopes for name in scope.names}

    def convert(self, scope: Scope, node: onnx.NodeProto, precision: Precision) -> Outcome:
        """Turn one node into a `TernaryMatMul` in its place, or decline."""
        layer, op, weight_name = layer_name(scope, node), node.op_type, node.input[1]
        linear = examine(scope, node, self.uses)
        if isinstance(linear, str):
            return Outcome(layer, op, precision, linear)
        codes, scale = quantize_weight(linear.weight, precision)
        packed = pack(codes)
        home = scope.owner(weight_name)
        assert home is not None
        key = (id(home), weight_name, _is_transposed(node), precision)
        step = np.asarray(scale * np.float32(linear.gain), np.float32)
        inputs = [
            node.input[0],
            self._constant(home, (*key, "packed"), f"{weight_name}.packed", packed),
            self._constant(home, (*key, linear.gain), f"{weight_name}.scale", step),
        ]
        if linear.bias is not None:
            inputs.append(self._bias(scope, linear))
        self.released.update((weight_name, linear.bias_name))
        self._replace(scope, node, linear, inputs, layer)
        shadowed = weight_name in home.inputs
        return Outcome(
            layer,
            op,
            precision,
            shape=codes.shape,
            zeros=float((codes == 0).mean()),
            error=_error(linear.weight, codes, scale),
            bytes_before=linear.weight.nbytes,
            bytes_after=packed.nbytes,
            note=f"{weight_name} was an input with a default and can no longer be fed" if shadowed else None,
        )

    def drop_unused(self) -> None:
        """Remove constants that only converted nodes read, with the inputs of the same names."""
        pending, uses = list(self.released), graph.uses(self.model)
        while pending:
            name = pending.pop()
            for scope in self.scopes:
                if uses[name] or name not in scope.names:
                    continue
                if name in scope.initializers:
                    _remove(scope.graph.initializer, name)
                    _remove(scope.graph.input, name)
                    _remove(scope.graph.value_info, name)
                elif name in scope.producers:
                    node = scope.producers.pop(name)
                    uses.subtract(node.input)
                    pending.extend(node.input)
                    scope.graph.node.remove(node)
                    _remove(scope.graph.value_info, name)

    def _replace(
        self, scope: Scope, node: onnx.NodeProto, linear: LinearNode, inputs: list[str], layer: str
    ) -> None:
        output = node.output[0]
        if linear.addition is not None:
            _remove(scope.graph.value_info, output)
            output = linear.addition.output[0]
            scope.graph.node.remove(linear.addition)
        shape = {"K": linear.weight.shape[1], "act_qmax": ACT_QMAX}
        new = helper.make_node("TernaryMatMul", inputs, [output], layer, domain=DOMAIN, **shape)
        new.metadata_props.extend((linear.addition or node).metadata_props)
        node.CopyFrom(new)

    def _bias(self, scope: Scope, linear: LinearNode) -> str:
        """Use the bias that is there where it has the right shape and value, else add one."""
        assert linear.bias is not None
        owner, found = scope.owner(linear.bias_name), scope.constant(linear.bias_name)
        if (
            owner is not None
            and found is not None
            and linear.bias_name in owner.initializers
            and np.array_equal(found, linear.bias)
        ):
            return linear.bias_name
        key = (id(scope), linear.bias_name, linear.bias.tobytes())
        return self._constant(scope, key, f"{linear.bias_name}.bias", linear.bias)

    def _constant(self, home: Scope, key: tuple[object, ...], name: str, array: NDArray[Any]) -> str:
        if key not in self.made:
            free = next(new for i in count() if (new := f"{name}.{i}" if i else name) not in self.taken)
            home.graph.initializer.append(numpy_helper.from_array(np.asarray(array, order="C"), free))
            self.taken.add(free)
            self.made[key] = free
        return self.made[key]


def _inside_functions(model: onnx.ModelProto) -> list[Outcome]:
    """Decline what lies in model-local functions, whose weights are arguments."""
    return [
        Outcome(
            f"{function.name}/{node.name or node.output[0]}",
            node.op_type,
            Precision.TERNARY,
            f"it is in the function {function.domain}::{function.name}; inline it with onnx.inliner first",
        )
        for function in model.functions
        if function.domain != DOMAIN
        for node in function.node
        if is_linear(node)
    ]


def _is_transposed(node: onnx.NodeProto) -> bool:
    return any(item.name == "transB" and item.i for item in node.attribute)


def _error(weight: Array, codes: NDArray[np.int8], scale: np.float32) -> float:
    norm = float(np.linalg.norm(weight))
    return float(np.linalg.norm(weight - codes * scale)) / norm if norm else 0.0


def _remove(entries: Any, name: str) -> None:
    for index in reversed(range(len(entries))):
        if entries[index].name == name:
            del entries[index]


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
