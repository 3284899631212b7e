"""Export in two steps: trace a network once, then lower the trace for any weights and any assignment.

Leaf modules are traced in the forms of `forms.FORMS`: the trace holds one `com.bithep::Linear` node for every linear
layer. It takes all parameters as inputs, so it depends on the network's structure alone and a search traces once, not
once a candidate. Lowering fills in the parameters and turns each Linear into `TernaryMatMul` or standard operators,
folding a BatchNorm behind it.
"""

import copy
import inspect
import json
import logging
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from onnx_ir.passes import common
from onnxscript import optimizer
from torch import Tensor

from bitsearch import ops
from bitsearch.core.assignment import Assignment
from bitsearch.core.errors import ExportError
from bitsearch.core.precision import Precision
from bitsearch.core.rounding import Rounding
from bitsearch.core.task import Graph
from bitsearch.network import quant
from bitsearch.network.forms import LINEAR, MESSAGES, replace_leaves
from bitsearch.onnxfile import chains
from bitsearch.onnxfile.graph import lowest_ir_version
from bitsearch.onnxfile.linear import FOLDED, LAYERS
from bitsearch.onnxfile.lowering import lowest_opset
from bitsearch.onnxfile.select_columns import select_columns
from bitsearch.ops import reference

OPSET = 20
PREFIX = "network."
USE = ":"
"""Between a layer's name and the number of its use, in the names of nodes from its second use on."""
State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Metadata:
    """What every exported file says of itself (contract section 2)."""

    version: str
    model: str
    dataset: str
    fraction: float
    config: Mapping[str, object]
    strategy: str | None = None


def trace(graph: Graph) -> onnx.ModelProto:
    """Trace a graph into standard operators and Linear nodes; parameters become inputs named as in the state.

    Raises:
        ExportError: a parameter lies outside of `graph.module.network`, or torch cannot trace the graph.
    """
    # Loops refuse parameters that need gradients.
    module = copy.deepcopy(graph.module).cpu().eval().requires_grad_(False)
    network = module.get_submodule(PREFIX.rstrip("."))
    if taken := sorted({*graph.inputs, *graph.outputs}.intersection(network.state_dict())):
        raise ExportError(f"input or output {taken[0]} has the name of a parameter; expected another name")
    replace_leaves(module, PREFIX.rstrip("."))
    batch = torch.export.Dim("batch")
    shapes = tuple({0: batch} for _ in graph.inputs)
    # torch wants the shapes nested as the arguments are: `*inputs` is one tuple.
    rest = inspect.getfullargspec(module.forward).varargs is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for chatty in ("torch.onnx", "onnx_ir", "onnxscript"):
            logging.getLogger(chatty).setLevel(logging.ERROR)
        try:
            program = torch.onnx.export(
                module,
                # Copies, since torch takes one tensor given for two inputs for a single input.
                tuple(value.clone() for value in graph.inputs.values()),
                dynamo=True,
                opset_version=OPSET,
                input_names=list(graph.inputs),
                output_names=list(graph.outputs),
                dynamic_shapes=(shapes,) if rest else shapes,
                optimize=False,
                verbose=False,
            )
        except Exception as error:  # torch has no class of its own for what a network does wrong
            raise ExportError(f"torch cannot trace the network: {_cause(error)}") from error
    if program is None:
        raise ExportError("torch.onnx.export returned nothing; expected a program")
    model = program.model
    for value, name in zip(model.graph.inputs, graph.inputs, strict=True):
        value.name = name  # torch gives an input that is returned as it is the output's name
        if value.shape is None or isinstance(value.shape[0], int):
            raise ExportError(
                f"tracing fixed the batch of input {value.name} to {value.shape}; expected it dynamic"
            )
    # Constants that the network computes with carry its prefix too.
    state = network.state_dict()
    for name, value in list(model.graph.initializers.items()):
        if name.startswith(PREFIX) and name.removeprefix(PREFIX) in state:
            value.const_value = None
            model.graph.initializers.pop(name)
            value.name = name.removeprefix(PREFIX)
            model.graph.inputs.append(value)
        elif name in dict(module.named_parameters()):
            raise ExportError(f"parameter {name} lies outside of the module's `network`; expected it inside")
    _simplify(model)
    _keep_outputs(model.graph, graph.outputs)
    model.graph.doc_string = graph.doc
    _forget_origin(model)
    return ir.to_proto(model)


def lower(
    template: onnx.ModelProto,
    state: State,
    assignment: Assignment,
    metadata: Metadata,
    act_qmax: float | Mapping[str, float] = 127.0,
    rounding: Mapping[str, Rounding] | None = None,
) -> onnx.ModelProto:
    """Fill a trace with trained parameters and give every linear layer its assigned precision.

    Inputs and outputs keep the names that the graph declared. `rounding` is what the layers were trained with, as
    `quant.roundings` tells; others round as the paper does.

    Raises:
        ExportError: the trace and the assignment or the parameters do not fit.
    """
    model = ir.from_proto(template)
    graph = model.graph
    parameters = {str(value.name): value for value in graph.inputs if value.name in state}
    nodes: list[tuple[str, int, ir.Node]] = []
    messages: list[ir.Node] = []
    uses: Counter[str] = Counter()
    for node in graph.all_nodes():
        if node.op_type == LINEAR:
            name = node.attributes["name"].as_string()
            nodes.append((name, uses[name], node))
            uses[name] += 1
        elif node.op_type == MESSAGES:
            messages.append(node)
            uses.update(node.attributes["layers"].as_strings())
    if unknown := set(uses).difference(assignment):
        raise ExportError(f"the assignment lacks {sorted(unknown)}, which the traced network holds")
    largest = {name: act_qmax if isinstance(act_qmax, float) else act_qmax[name] for name in uses}
    kinds = {name: (rounding or {}).get(name, Rounding.PAPER) for name in uses}
    for name, use, node in nodes:
        _lower_linear(graph, node, name, use, state, assignment[name], kinds[name], largest[name])
    for node in messages:
        _lower_messages(graph, node, state, assignment, kinds, largest)
    for name, value in parameters.items():
        graph.inputs.remove(value)
        if value.uses():
            value.const_value = ir.tensor(state[name].detach().cpu().numpy(), name=name)
            graph.initializers[name] = value
    proto = ir.to_proto(model)
    for item in proto.opset_import:
        if item.domain == "":
            item.version = lowest_opset(proto)
    ops.add_functions(proto)
    chains.chain(proto)
    select_columns(proto)
    proto.ir_version = lowest_ir_version(proto)
    _describe(proto, assignment, metadata)
    return proto


@dataclass(frozen=True)
class Linear:
    """A linear layer as it is served: BatchNorm folded into `scale` and `bias`; `weight` holds codes or floats."""

    weight: NDArray[np.float32]
    scale: NDArray[np.float32] | None
    bias: NDArray[np.float32]


def fold(
    weight: Tensor,
    bias: Tensor | None,
    precision: Precision,
    normalization: "Normalization | None",
    rounding: Rounding = Rounding.PAPER,
) -> Linear:
    """Quantise a layer and fold the BatchNorm behind it, which must never touch ternary weights."""
    n = len(weight)
    offset = torch.zeros(n, dtype=torch.float64) if bias is None else bias.double()
    gain = torch.ones(n, dtype=torch.float64)
    if normalization is not None:
        gain = normalization.weight.double() / torch.sqrt(
            normalization.variance.double() + normalization.epsilon
        )
        offset = (offset - normalization.mean.double()) * gain + normalization.bias.double()
    if not precision.is_quantized:
        folded = weight if normalization is None else (weight.double() * gain[:, None]).float()
        return Linear(folded.numpy(), None, offset.float().numpy())
    codes, scale = quant.round_rows(weight, rounding, precision)
    folded_scale = scale if normalization is None else (scale.double() * gain).float()
    return Linear(codes.numpy(), folded_scale.numpy(), offset.float().numpy())


@dataclass(frozen=True)
class Normalization:
    """Parameters of a BatchNorm in evaluation."""

    weight: Tensor
    bias: Tensor
    mean: Tensor
    variance: Tensor
    epsilon: float


def _lower_linear(
    graph: ir.Graph,
    node: ir.Node,
    name: str,
    use: int,
    state: State,
    precision: Precision,
    rounding: Rounding,
    act_qmax: float,
) -> None:
    """Replace one use of a layer; layers that a network calls several times share their weights."""
    parameters = [state[value.name or ""].detach().cpu() for value in node.inputs[1:] if value is not None]
    last = node
    normalization, folded = None, ""
    if (behind := _batch_norm_behind(node, state)) is not None:
        values = [state[value.name or ""].detach().cpu() for value in behind.inputs[1:] if value is not None]
        gain, shift, mean, variance = values
        normalization = Normalization(gain, shift, mean, variance, behind.attributes["epsilon"].as_float())
        last, folded = behind, (behind.inputs[1].name or "").rpartition(".")[0]  # type: ignore[union-attr]
    offset = parameters[1] if len(parameters) > 1 else None
    linear = fold(parameters[0], offset, precision, normalization, rounding)
    x = node.inputs[0]
    inputs: dict[str, NDArray[np.generic]]
    if precision.is_quantized:
        packed = reference.pack(linear.weight.astype(np.int8))
        assert linear.scale is not None
        inputs = {"packed": packed, "scale": linear.scale, "bias": linear.bias}
        attributes = {"K": linear.weight.shape[1], "act_qmax": act_qmax}
        new = [
            ir.node("TernaryMatMul", [x, *_initializers(graph, name, inputs)], attributes, domain=ops.DOMAIN)
        ]
    elif len(node.outputs[0].shape or ()) == 2:
        inputs = {"weight": linear.weight, "bias": linear.bias}
        new = [ir.node("Gemm", [x, *_initializers(graph, f"{name}.float", inputs)], {"transB": 1})]
    else:
        weight, bias = _initializers(
            graph, f"{name}.float", {"weight": np.ascontiguousarray(linear.weight.T), "bias": linear.bias}
        )
        product = ir.node("MatMul", [x, weight])
        product.outputs[0].name = f"{name}.product{use or ''}"
        new = [product, ir.node("Add", [product.outputs[0], bias])]
    new[-1].name = f"{name}{USE}{use}" if use else name
    new[-1].metadata_props[FOLDED] = folded
    declared = last.outputs[0] in graph.outputs
    new[-1].outputs[0].name = last.outputs[0].name if declared else f"{name}.output{use or ''}"
    new[-1].outputs[0].shape, new[-1].outputs[0].type = last.outputs[0].shape, last.outputs[0].type
    # The node may lie in the body of a loop; its weights are constants of the main graph all the same.
    body = node.graph
    assert body is not None
    body.insert_before(node, new)
    last.outputs[0].replace_all_uses_with(new[-1].outputs[0], replace_graph_outputs=True)
    body.remove([last, node] if last is not node else node, safe=True)


def _lower_messages(
    graph: ir.Graph,
    node: ir.Node,
    state: State,
    assignment: Assignment,
    rounding: Mapping[str, Rounding],
    act_qmax: Mapping[str, float],
) -> None:
    """Give the layers inside of a MessagePassing node their precisions; the first may have a BatchNorm behind it."""
    attributes = node.attributes
    values = [state[value.name or ""].detach().cpu() for value in node.inputs[3:] if value is not None]
    (weight_1, bias_1, weight_2, bias_2), norm = values[:4], values[4:]
    folded = None
    if norm:
        gain, shift, mean, variance = norm
        folded = Normalization(gain, shift, mean, variance, attributes["epsilon"].as_float())
    settings = {name: attributes[name] for name in ("squared_radius", "weighted", "slope")}
    inputs = list(node.inputs[:3])
    names = attributes["layers"].as_strings()
    for index, (name, weight, bias, behind) in enumerate(
        zip(names, (weight_1, weight_2), (bias_1, bias_2), (folded, None), strict=True), 1
    ):
        linear = fold(weight, bias, assignment[name], behind, rounding[name])
        scale = np.ones(1, np.float32) if linear.scale is None else linear.scale
        low_bit = linear.scale is not None
        arrays: dict[str, NDArray[np.generic]] = {
            "codes" if low_bit else "float.weight": linear.weight.astype(np.int8)
            if low_bit
            else linear.weight,
            "scale": np.broadcast_to(scale, len(weight)),
            "bias" if low_bit else "float.bias": linear.bias,
        }
        factors, *rest = _initializers(graph, name, arrays)
        if low_bit:
            cast = ir.node("Cast", [factors], {"to": ir.DataType.FLOAT})
            cast.outputs[0].name = f"{name}.float.weight"
            graph.insert_before(node, cast)
            factors = cast.outputs[0]
        inputs += [factors, *rest]
        settings[f"act_qmax{index}"] = ir.AttrFloat32(f"act_qmax{index}", act_qmax[name] if low_bit else 0.0)
    new = ir.Node(ops.DOMAIN, MESSAGES, inputs, settings.values(), name=attributes["name"].as_string())
    new.metadata_props[LAYERS] = " ".join(names)
    old, made = node.outputs[0], new.outputs[0]
    made.name, made.shape, made.type = f"{new.name}.output", old.shape, old.type
    body = node.graph
    assert body is not None
    body.insert_before(node, new)
    old.replace_all_uses_with(made, replace_graph_outputs=True)
    body.remove(node, safe=True)


def _keep_outputs(graph: ir.Graph, declared: Sequence[str]) -> None:
    """Give every output a value of its own under its declared name; networks may return one twice, or an input."""
    if len(declared) != len(graph.outputs):
        raise ExportError(f"the network returns {len(graph.outputs)} tensors; expected {', '.join(declared)}")
    taken: set[int] = {id(value) for value in graph.inputs}
    for index, (value, name) in enumerate(zip(list(graph.outputs), declared, strict=True)):
        if id(value) in taken or value.name in graph.initializers:
            copied = ir.node("Identity", [value])
            copied.outputs[0].shape, copied.outputs[0].type = value.shape, value.type
            graph.append(copied)
            graph.outputs[index] = value = copied.outputs[0]
        taken.add(id(value))
        value.name = name


def _cause(error: BaseException) -> str:
    """Take the first line of what lies at the bottom of a chain of exceptions."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"


def _initializers(graph: ir.Graph, layer: str, arrays: Mapping[str, NDArray[np.generic]]) -> list[ir.Value]:
    values = []
    for role, array in arrays.items():
        if (shared := graph.initializers.get(f"{layer}.{role}")) is not None:
            values.append(shared)
            continue
        tensor = ir.tensor(np.asarray(array, order="C"), name=f"{layer}.{role}")
        value = ir.Value(
            name=tensor.name,
            shape=ir.Shape(array.shape),
            type=ir.TensorType(tensor.dtype),
            const_value=tensor,
        )
        graph.register_initializer(value)
        values.append(value)
    return values


def _batch_norm_behind(node: ir.Node, state: State) -> ir.Node | None:
    """Find a BatchNorm over the features that alone reads the node's output and has parameters of its own."""
    output = node.outputs[0]
    uses = list(output.uses())
    if len(uses) != 1 or output.is_graph_output() or len(output.shape or ()) != 2:
        return None
    behind = uses[0].node
    trained = all(value is not None and value.name in state for value in behind.inputs[1:])
    return behind if behind.op_type == "BatchNormalization" and trained else None


def _simplify(model: ir.Model) -> None:
    """Fold constants and drop what nothing reads.

    The optimizer's rewrite rules stay out: they take an added 1e-8 or 1e-10 for a zero and remove it.
    """
    common.InlinePass()(model)
    optimizer.fold_constants(model)
    for simplify in (
        common.RemoveUnusedNodesPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.LiftSubgraphInitializersToMainGraphPass(),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.RemoveUnusedOpsetsPass(),
        common.NameFixPass(),
    ):
        simplify(model)


def _forget_origin(model: ir.Model) -> None:
    """Drop source lines and stack traces, which name paths of the exporting machine."""
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()


def _describe(model: onnx.ModelProto, assignment: Assignment, metadata: Metadata) -> None:
    model.producer_name, model.producer_version = "bitsearch", metadata.version
    properties = {
        "version": metadata.version,
        "model": metadata.model,
        "dataset": metadata.dataset,
        "strategy": metadata.strategy,
        "assignment": json.dumps(dict(assignment)),
        "fraction": repr(metadata.fraction),
        "config": json.dumps(metadata.config),
    }
    onnx.helper.set_model_props(
        model, {f"bitsearch.{name}": value for name, value in properties.items() if value is not None}
    )
