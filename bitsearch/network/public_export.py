"""Three lines to a servable file, for any network that somebody trained in a loop of their own."""

import copy
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import bitsearch
from bitsearch.core.assignment import Assignment
from bitsearch.core.errors import ExportError
from bitsearch.core.measurement import Parity
from bitsearch.core.space import Fractions
from bitsearch.core.task import Graph
from bitsearch.network import export, parity, quant
from bitsearch.network.convert import declined
from bitsearch.onnxfile import chains
from bitsearch.onnxfile import graph as onnx_graph
from bitsearch.onnxfile.linear import FOLDED, LAYERS

PARITY_EVENTS = 64
Inputs = Tensor | Sequence[Tensor] | Mapping[str, Tensor]


@dataclass(frozen=True)
class Exported:
    """What was written and how well ONNX Runtime agrees with torch on the example inputs.

    `declined` names the modules whose products stay in float32 because they cannot be low-bit layers, each with the
    reason. `fractions` is None where a network has no linear layer.
    """

    path: Path
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    assignment: Assignment
    declined: Mapping[str, str]
    fractions: Fractions | None
    parity: Parity
    size_bytes: int


def export_onnx(
    network: nn.Module,
    inputs: Inputs,
    path: str | Path,
    outputs: Sequence[str] | None = None,
    *,
    name: str | None = None,
    dataset: str = "",
) -> Exported:
    """Write `network` to an ONNX file that any runtime serves, its `BitLinear` layers as `TernaryMatMul`.

    `inputs` are example events: one tensor `(batch, ...)`, several in the order of the network's arguments, or by
    argument name. Axis 0 of every input and output is the batch, which stays free. Inputs are named as the
    arguments, outputs as declared (`output`, or `output_0`, `output_1`, ... where nothing is). The network is left
    as it is; the file holds its evaluation mode. `name` and `dataset` go into the file's metadata.

    Raises:
        ExportError: torch cannot trace the network with a free batch, names do not fit, or a quantised layer is not
            called by the forward pass.
    """
    module = Served(_copy(nn.Sequential(network) if isinstance(network, nn.Linear) else network))
    examples = named(network, inputs)
    with torch.no_grad():
        returned = module(*(value[:2] for value in examples.values()))
    returned = returned if isinstance(returned, tuple) else (returned,)
    names = _output_names(len(returned), outputs, examples)
    for key, value in zip(names, returned, strict=True):
        if value.dim() < 1 or len(value) != min(2, len(next(iter(examples.values())))):
            raise ExportError(f"output {key} has shape {tuple(value.shape)}; expected the batch on axis 0")
    few = {key: value if len(value) > 1 else torch.cat([value, value]) for key, value in examples.items()}
    graph = Graph(module, {key: value[:2] for key, value in few.items()}, names, "")
    assignment = quant.precisions(module.network)
    fractions = quant.inventory(module.network).fractions(assignment) if assignment else None
    metadata = export.Metadata(
        version=bitsearch.__version__,
        model=name or type(network).__name__,
        dataset=dataset,
        fraction=fractions.fraction if fractions else 0.0,
        config={},
    )
    scales = {key: getattr(layer, "act_qmax", 127.0) for key, layer in quant.linear_layers(module.network)}
    rounding = quant.roundings(module.network)
    state = module.network.state_dict()
    model = export.lower(export.trace(graph), state, assignment, metadata, scales, rounding)
    _require_called(model, assignment, module.network)
    events = {key: value[:PARITY_EVENTS].numpy() for key, value in examples.items()}
    found = parity.compare(model, graph, events)
    path = Path(path)
    onnx_graph.write(model, path)
    return Exported(
        path,
        tuple(examples),
        names,
        assignment,
        dict(declined(module.network)),
        fractions,
        found,
        onnx_graph.size_on_disk(path),
    )


def _copy(network: nn.Module) -> nn.Module:
    """Copy a network to the processor, in evaluation."""
    try:
        return copy.deepcopy(network).cpu().eval()
    except RuntimeError as error:
        raise ExportError(f"the network cannot be copied: {str(error).splitlines()[0]}") from error


class Served(nn.Module):
    """A network as its own graph, whose results are a tensor or a tuple of them."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Map what the network maps."""
        found = self.network(*inputs)
        values = tuple(found.values()) if isinstance(found, dict) else found
        if isinstance(values, Tensor):
            return values
        if isinstance(values, tuple | list) and values and all(isinstance(item, Tensor) for item in values):
            return tuple(values)
        raise ExportError(
            f"the network returns {type(found).__name__}; expected a tensor, or a tuple or dict of tensors"
        )


def named(network: nn.Module, inputs: Inputs) -> dict[str, Tensor]:
    """Give the example inputs by argument name, in the order of the arguments."""
    try:
        arguments = [
            item.name
            for item in inspect.signature(network.forward).parameters.values()
            if item.kind in (item.POSITIONAL_ONLY, item.POSITIONAL_OR_KEYWORD)
        ]
    except (TypeError, ValueError):
        arguments = []
    if isinstance(inputs, Mapping):
        if unknown := sorted(set(inputs).difference(arguments)):
            raise ExportError(f"the network takes no {unknown[0]!r}; expected names among {arguments}")
        named: dict[str, Any] = {key: inputs[key] for key in arguments if key in inputs}
        if list(named) != arguments[: len(named)]:
            raise ExportError(f"found inputs {list(named)}; expected the first ones of {arguments}")
    else:
        given = [inputs] if isinstance(inputs, Tensor) else list(inputs)
        # nn.Sequential calls its argument `input`; a network of *arguments has no names.
        arguments += [f"input_{index}" for index in range(len(arguments), len(given))]
        named = dict(zip(arguments, given, strict=False))
    for key, value in named.items():
        if not isinstance(value, Tensor) or value.dim() < 1 or not len(value):
            found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ExportError(
                f"example input {key} is {found}; expected a tensor (batch, ...) of one event or more"
            )
    batches = {len(value) for value in named.values()}
    if len(batches) != 1:
        raise ExportError(
            f"example inputs have {sorted(batches)} events; expected the same number in every input"
        )
    return {key: value.detach().cpu() for key, value in named.items()}


def _output_names(
    count: int, declared: Sequence[str] | None, inputs: Mapping[str, Tensor]
) -> tuple[str, ...]:
    if declared is None:
        return ("output",) if count == 1 else tuple(f"output_{index}" for index in range(count))
    names = (declared,) if isinstance(declared, str) else tuple(declared)
    if len(names) != count or len(set(names)) != count or set(names).intersection(inputs):
        raise ExportError(
            f"found outputs {list(names)}; expected {count} different names, none of an input ({', '.join(inputs)})"
        )
    return names


def _require_called(model: Any, assignment: Assignment, network: nn.Module) -> None:
    """Refuse a file that says a layer is quantised when nothing in it is."""
    called = {
        node.name.partition(export.USE)[0]
        for scope in onnx_graph.scopes(chains.unchained(model))
        for node in scope.graph.node
        if any(item.key == FOLDED for item in node.metadata_props)
    }
    for scope in onnx_graph.scopes(model):
        for node in scope.graph.node:
            called.update(
                name for item in node.metadata_props if item.key == LAYERS for name in item.value.split()
            )
    idle = tuple(f"{name}." for name in getattr(network, "never_run", ()))
    lost = [name for name in assignment.quantized if name not in called and not f"{name}.".startswith(idle)]
    if lost:
        raise ExportError(
            f"the forward pass never calls {', '.join(lost)}: their weights are read past the layer, or not at all; "
            "leave them in float32, or name them in the network's `never_run`"
        )
