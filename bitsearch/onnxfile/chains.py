"""Runs of ternary layers as one operator, and back: files hold `TernaryChain`, what reads files sees layers.

    TernaryMatMul → activation → TernaryMatMul → …                       ⇄  TernaryChain2 … TernaryChain8
    TernaryMatMul → LayerNormalization → activation → TernaryMatMul → …  ⇄  TernaryNormChain2 … TernaryNormChain8

The way back is exact, names of layers and properties of their nodes included.
"""

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import onnx
from onnx import helper

from bitsearch.ops import DOMAIN, add_functions
from bitsearch.ops.ternary_chain.function import NAMES, NORMAL_PREFIX, PREFIX, ROLES
from bitsearch.ops.ternary_chain.reference import ACTIVATIONS, LENGTHS

CHAIN = "bitsearch.chain"
"""Property of chains: names and properties of the nodes that it is made of, as JSON."""
LAYER = "TernaryMatMul"
ACT_QMAX, ALPHA, EPSILON = 127.0, 0.01, 1e-5


@dataclass(frozen=True)
class Activation:
    """What stands behind a layer: places of its nodes, what it puts out, its settings in a chain."""

    places: tuple[int, ...]
    output: str
    settings: Mapping[str, Any]
    norm: tuple[str, ...] = ()
    """Gain and shift of a normalisation before the activation."""


def chain(model: onnx.ModelProto, activations: Collection[str] = tuple(ACTIVATIONS)) -> None:
    """Write, in place, runs of ternary layers with some of the activations between them as chains, in all graphs."""
    graphs = list(_graphs(model.graph))
    read = Counter(name for graph in graphs for node in graph.node for name in node.input)
    read.update(value.name for graph in graphs for value in graph.output)
    # Bodies first: a graph whose nodes are replaced holds copies of them.
    made = [_chain_graph(graph, read, activations) for graph in reversed(graphs)]
    if any(made):
        add_functions(model)


def unchain(model: onnx.ModelProto) -> None:
    """Write, in place, every chain as its layers and activations, in all graphs."""
    found = False
    for graph in _graphs(model.graph):
        nodes = list(graph.node)
        if not any(map(is_chain, nodes)):
            continue
        found = True
        del graph.node[:]
        for node in nodes:
            graph.node.extend(_links(node) if is_chain(node) else [node])
    if found:
        kept = [item for item in model.functions if item.domain != DOMAIN or item.name not in NAMES]
        del model.functions[:]
        model.functions.extend(kept)
        add_functions(model)


def unchained(model: onnx.ModelProto) -> onnx.ModelProto:
    """Give a model with its chains as layers: itself where it has none, else a copy."""
    if not any(is_chain(node) for graph in _graphs(model.graph) for node in graph.node):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    unchain(copy)
    return copy


def is_chain(node: onnx.NodeProto) -> bool:
    """Tell chains from other nodes; one whose inputs do not fit its name is none."""
    return node.domain == DOMAIN and len(node.input) == 1 + len(ROLES.get(node.op_type, ())) > 1


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node:
                    yield from _graphs(inner)


def _chain_graph(graph: onnx.GraphProto, read: Mapping[str, int], activations: Collection[str]) -> bool:
    nodes = list(graph.node)
    readers: dict[str, list[int]] = {}
    for place, node in enumerate(nodes):
        for name in dict.fromkeys(node.input):
            readers.setdefault(name, []).append(place)

    def here(name: str) -> list[int]:
        """Give the places of all readers of a value; none where some stand in other graphs or behind this one."""
        found = readers.get(name, [])
        return found if sum(list(nodes[place].input).count(name) for place in found) == read[name] else []

    made: dict[int, onnx.NodeProto] = {}
    gone: set[int] = set()
    for first, node in enumerate(nodes):
        if first in gone or not _is_layer(node):
            continue
        layers, between = [first], list[Activation]()
        while len(layers) < LENGTHS[-1]:
            activation = _activation(nodes, layers[-1], here)
            following = here(activation.output) if activation else []
            if activation is None or len(following) != 1 or not _is_layer(nodes[following[0]]):
                break
            if nodes[following[0]].input[0] != activation.output or _q_max(node) != _q_max(
                nodes[following[0]]
            ):
                break
            if activation.settings["activation"] not in activations:
                break
            if between and between[0].settings != activation.settings:
                break
            layers.append(following[0])
            between.append(activation)
        if between:
            gone.update(layers, *(activation.places for activation in between))
            made[layers[-1]] = _chain([nodes[place] for place in layers], between)
    kept = [made.get(place, node) for place, node in enumerate(nodes) if place in made or place not in gone]
    if made:
        del graph.node[:]
        graph.node.extend(kept)
    return bool(made)


def _is_layer(node: onnx.NodeProto) -> bool:
    return (node.domain, node.op_type, len(node.input)) == (DOMAIN, LAYER, 4) and all(node.input)


def _q_max(node: onnx.NodeProto) -> float:
    return float(_attributes(node).get("act_qmax", ACT_QMAX))


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {item.name: helper.get_attribute_value(item) for item in node.attribute}


def _activation(
    nodes: list[onnx.NodeProto], layer: int, here: Callable[[str], list[int]]
) -> Activation | None:
    """Find what alone reads a layer, if chains know it: an activation, or a normalisation and an activation."""
    y = nodes[layer].output[0]
    places = here(y)
    if len(places) != 1 or not _is_normalization(nodes[places[0]]):
        return _bare_activation(nodes, y, here)
    node = nodes[places[0]]
    found = _bare_activation(nodes, node.output[0], here)
    if found is None:
        return None
    settings = {**found.settings, "epsilon": _attributes(node).get("epsilon", EPSILON)}
    return Activation((*places, *found.places), found.output, settings, tuple(node.input[1:]))


def _is_normalization(node: onnx.NodeProto) -> bool:
    """Tell a LayerNormalization over the last axis, with gain and shift, of which nothing else is read."""
    return (
        (node.domain, node.op_type, len(node.input), len(node.output)) == ("", "LayerNormalization", 3, 1)
        and all(node.input)
        and _attributes(node).get("axis", -1) == -1
        and _attributes(node).get("stash_type", 1) == 1
    )


def _bare_activation(
    nodes: list[onnx.NodeProto], y: str, here: Callable[[str], list[int]]
) -> Activation | None:
    places = here(y)
    if len(places) == 1:
        node = nodes[places[0]]
        attributes = _attributes(node)
        settings = {
            "Relu": {"activation": "relu"},
            "LeakyRelu": {"activation": "leaky-relu", "alpha": attributes.get("alpha", ALPHA)},
            "Gelu": {"activation": "gelu"} if attributes.get("approximate") == b"tanh" else None,
        }.get(node.op_type if node.domain == "" else "")
        return Activation(tuple(places), node.output[0], settings) if settings else None
    if len(places) == 2:
        gate, product = (nodes[place] for place in places)
        is_silu = (
            (gate.domain, gate.op_type, product.domain, product.op_type) == ("", "Sigmoid", "", "Mul")
            and sorted(product.input) == sorted([y, gate.output[0]])
            and here(gate.output[0]) == places[1:]
        )
        return Activation(tuple(places), product.output[0], {"activation": "silu"}) if is_silu else None
    return None


def _chain(layers: list[onnx.NodeProto], between: list[Activation]) -> onnx.NodeProto:
    first, last = layers[0], layers[-1]
    norms = [*(activation.norm for activation in between), ()]
    made = helper.make_node(
        f"{NORMAL_PREFIX if norms[0] else PREFIX}{len(layers)}",
        [
            first.input[0],
            *(name for layer, norm in zip(layers, norms, strict=True) for name in (*layer.input[1:], *norm)),
        ],
        [last.output[0]],
        first.name and f"{first.name}...{last.name}",
        domain=DOMAIN,
        act_qmax=_q_max(first),
        **{f"K{index}": _attributes(layer)["K"] for index, layer in enumerate(layers)},
        **between[0].settings,
    )
    described = [[layer.name, {item.key: item.value for item in layer.metadata_props}] for layer in layers]
    made.metadata_props.add(key=CHAIN, value=json.dumps(described))
    return made


def _links(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """Write a chain's layers and what is between them; values there are named after what it puts out."""
    attributes, length = _attributes(node), NAMES[node.op_type]
    given = dict(zip(ROLES[node.op_type], node.input[1:], strict=True))
    x, output = node.input[0], node.output[0]
    for index, (name, properties) in enumerate(_described(node, length)):
        is_last = index + 1 == length
        y = output if is_last else f"{output}.{index}"
        layer = helper.make_node(
            LAYER,
            [x, *(given[f"{role}{index}"] for role in ("W", "scale", "bias"))],
            [y],
            name,
            domain=DOMAIN,
            K=attributes.get(f"K{index}", 0),
            act_qmax=attributes.get("act_qmax", ACT_QMAX),
        )
        for key, value in properties.items():
            layer.metadata_props.add(key=key, value=value)
        yield layer
        if is_last:
            continue
        x = f"{y}.active"
        if f"gain{index}" in given:
            z = f"{y}.normal"
            yield helper.make_node(
                "LayerNormalization",
                [y, given[f"gain{index}"], given[f"shift{index}"]],
                [z],
                f"{z}.node",
                axis=-1,
                epsilon=attributes.get("epsilon", EPSILON),
            )
            y = z
        yield from _activation_nodes(attributes, y, x)


def _activation_nodes(attributes: Mapping[str, Any], y: str, output: str) -> Iterator[onnx.NodeProto]:
    match attributes.get("activation"):
        case b"relu":
            yield helper.make_node("Relu", [y], [output], f"{output}.node")
        case b"leaky-relu":
            alpha = attributes.get("alpha", ALPHA)
            yield helper.make_node("LeakyRelu", [y], [output], f"{output}.node", alpha=alpha)
        case b"gelu":
            yield helper.make_node("Gelu", [y], [output], f"{output}.node", approximate="tanh")
        case _:
            yield helper.make_node("Sigmoid", [y], [f"{y}.gate"], f"{y}.gate.node")
            yield helper.make_node("Mul", [y, f"{y}.gate"], [output], f"{output}.node")


def _described(node: onnx.NodeProto, length: int) -> list[tuple[str, dict[str, str]]]:
    """Read the names and properties of a chain's layers; numbers where the file does not tell them well."""
    given = next((item.value for item in node.metadata_props if item.key == CHAIN), "")
    try:
        found = [
            (str(name), {str(k): str(v) for k, v in properties.items()})
            for name, properties in json.loads(given)
        ]
    except (ValueError, TypeError, AttributeError):
        found = []
    if len(found) == length:
        return found
    return [(f"{node.name or node.output[0]}.{index}", {}) for index in range(length)]
