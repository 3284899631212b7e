"""Hold an exported file to the torch network that it came from."""

from collections.abc import Mapping

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from bitsearch.core.measurement import Parity
from bitsearch.core.task import Graph
from bitsearch.network.export import USE
from bitsearch.onnxfile import chains
from bitsearch.onnxfile.linear import FOLDED, LAYERS
from bitsearch.onnxfile.runtime import open_session

AGREEMENT = 1e-3
BLOCK_INPUTS = 3  # of a node that holds several layers, before their weights
FIRST = ("DynamicQuantizeLinear", "Gemm", "MatMul", "MatMulNBits", "TernaryMatMul")
"""Operators that read the activations of a layer, whatever multiplies."""


def compare(model: onnx.ModelProto, graph: Graph, inputs: Mapping[str, NDArray[np.float32]]) -> Parity:
    """Run `model` in ONNX Runtime and compare every linear layer, then the outputs, with torch; the worst one counts.

    Layers inside of chains are run one by one for that; outputs are those of the model as it is.

    Every layer of torch is fed what its layer in ONNX Runtime was fed: one flipped rounding would otherwise hide
    all layers behind it.
    """
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    chains.unchain(exposed)
    layers = [node for node in exposed.graph.node if _property(node, FOLDED) is not None]
    blocks = [node for node in exposed.graph.node if _property(node, LAYERS)]
    names = [name for node in layers for name in (_input(exposed, node), node.output[0])]
    names += [name for node in blocks for name in (*node.input[:BLOCK_INPUTS], node.output[0])]
    known = {output.name for output in model.graph.output}
    exposed.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in dict.fromkeys(names)
        if name not in known
    )
    outputs = [output.name for output in model.graph.output]
    wanted = list(dict.fromkeys(names))
    values = dict(zip(wanted, open_session(exposed).run(wanted, dict(inputs)), strict=True)) if wanted else {}
    served = open_session(model).run(outputs, dict(inputs))
    network = graph.module.get_submodule("network").cpu().eval()
    errors = [
        _layer_error(network, node, values[_input(exposed, node)], values[node.output[0]]) for node in layers
    ]
    errors += [_block_error(network, node, values) for node in blocks]
    with torch.no_grad():
        found = graph.module.eval()(*(torch.from_numpy(inputs[name]) for name in graph.inputs))
    expected = [item.numpy() for item in (found if isinstance(found, tuple | list) else (found,))]
    pairs = list(zip(served, expected, strict=True))
    means = [_mean_difference(*pair) for pair in pairs]
    return Parity(
        layer_max_error=max(errors, default=0.0),
        layers=len(layers) + sum(len((_property(node, LAYERS) or "").split()) for node in blocks),
        output_agreement=min(_agreement(*pair) for pair in pairs),
        output_mean_difference=max((item for item in means if item is not None), default=None),
        events=len(pairs[0][0]),
    )


def _mean_difference(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> float | None:
    rows = [np.isfinite(item.reshape(len(item), -1)).all(1) for item in (ours, theirs)]
    finite = rows[0] & rows[1]
    return _relative(ours[finite].mean(0), theirs[finite].mean(0)) if finite.any() else None


def _layer_error(
    network: nn.Module, node: onnx.NodeProto, x: NDArray[np.float32], y: NDArray[np.float32]
) -> float:
    layer = network.get_submodule(node.name.partition(USE)[0])
    folded = _property(node, FOLDED)
    with torch.no_grad():
        expected = layer(torch.from_numpy(x))
        if folded:
            expected = network.get_submodule(folded)(expected)
    return _relative(y, expected.numpy())


def _block_error(
    network: nn.Module, node: onnx.NodeProto, values: Mapping[str, NDArray[np.float32]]
) -> float:
    """Compare a node that holds several layers with its leaf, which takes the module of the layers last."""
    first = (_property(node, LAYERS) or "").split()[0]
    mlp = network.get_submodule(first.rpartition(".linears.")[0])
    with torch.no_grad():
        given = (torch.from_numpy(values[name]) for name in node.input[:BLOCK_INPUTS])
        expected = network.get_submodule(node.name)(*given, mlp)
    return _relative(values[node.output[0]], expected.numpy())


def _property(node: onnx.NodeProto, key: str) -> str | None:
    return next((item.value for item in node.metadata_props if item.key == key), None)


def _input(model: onnx.ModelProto, node: onnx.NodeProto) -> str:
    """Find what a layer reads; the last of its nodes stands for all of them."""
    while node.op_type not in FIRST:
        node = next(other for other in model.graph.node if node.input[0] in other.output)
    return str(node.input[0])


def _relative(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    scale = max(float(np.abs(expected).max(initial=0.0)), 1e-30)
    return float(np.abs(found - expected).max(initial=0.0)) / scale


def _agreement(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> float:
    ours, theirs = ours.reshape(len(ours), -1), theirs.reshape(len(theirs), -1)
    largest = np.maximum(np.abs(theirs).max(1), 1e-30)
    return float((np.abs(ours - theirs).max(1) <= AGREEMENT * largest).mean())
