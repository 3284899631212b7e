"""Write a file in standard operators alone: no local functions, no control flow, no strings, the opset asked for.

Weights become float32 again. For hosts that take neither functions nor the library (OpenVINO, Geant4's Par04 with
optimisation switched off, importers of a few operators); everywhere else the file as exported is smaller and faster.
"""

import tempfile
from collections.abc import Generator, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference

from bitsearch.core.errors import ExportError
from bitsearch.onnxfile import graph as onnx_graph
from bitsearch.onnxfile.graph import lowest_ir_version
from bitsearch.onnxfile.lowering import NEWEST, lowered, readable
from bitsearch.ops import DOMAIN, add_functions

OPSETS = range(13, 21)
LARGEST_LOOP = 1000
"""Iterations that are written one after the other."""
LARGEST_GRAPH = 30_000
"""Nodes; onnxruntime takes a minute to open 18,000 of unrolled loops."""


def portable(model: onnx.ModelProto, opset: int = 20) -> onnx.ModelProto:
    """Give the same computation in standard operators of one opset, under the same names.

    onnxruntime inlines and folds; loops of known length are unrolled; operators younger than the opset are
    written in older ones.

    Raises:
        ExportError: the opset is out of range, the file does not open, or an operator has no older form.
    """
    if opset not in OPSETS:
        raise ExportError(f"opset: found {opset}, expected {OPSETS[0]} to {OPSETS[-1]}")
    folded = _folded(_raised(model))
    _unroll(folded)
    folded = shape_inference.infer_shapes(folded)
    lowered(folded.graph, opset)
    foreign = sorted({node.op_type for node in folded.graph.node if node.domain not in ("", "ai.onnx")})
    if foreign:
        raise ExportError(f"found the operators {', '.join(foreign)}, expected standard ones alone")
    read = {name for node in folded.graph.node for name in node.input}
    read |= {value.name for value in folded.graph.output}
    kept = [tensor for tensor in folded.graph.initializer if tensor.name in read]
    del folded.graph.initializer[:]
    folded.graph.initializer.extend(kept)
    del folded.opset_import[:]
    folded.opset_import.append(helper.make_opsetid("", opset))
    folded.ir_version = lowest_ir_version(folded)
    _restore(folded, model)
    try:
        onnx.checker.check_model(folded)
    except onnx.checker.ValidationError as error:
        reason = str(error).splitlines()[0]
        raise ExportError(
            f"the file lacks what every host asks for ({reason}); expected a complete one"
        ) from error
    return folded


def _raised(model: onnx.ModelProto) -> onnx.ModelProto:
    """Give the newest opset to a file whose nodes read the same in it, with our functions' bodies of that opset."""
    foreign = any(function.domain != DOMAIN for function in model.functions)
    if foreign or onnx_graph.opset(model) >= NEWEST or not readable(model, NEWEST):
        return model
    raised = onnx.ModelProto()
    raised.CopyFrom(model)
    del raised.functions[:]
    for item in raised.opset_import:
        if item.domain in onnx_graph.STANDARD:
            item.version = NEWEST
    add_functions(raised)
    return raised


def _folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """Let onnxruntime inline functions, choose branches and fold constants, without its own operators."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 4
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder) / "model.onnx", Path(folder) / "folded.onnx"
        onnx.save(model, path, save_as_external_data=model.ByteSize() > 2**30)
        options.optimized_model_filepath = str(out)
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights")
        options.add_session_config_entry(
            "session.optimized_model_external_initializers_min_size_in_bytes", str(2**20)
        )
        try:
            onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has a dozen classes without a common one
            raise ExportError(f"onnxruntime does not open the file: {str(error).splitlines()[0]}") from error
        return onnx.load(out)


def _restore(folded: onnx.ModelProto, model: onnx.ModelProto) -> None:
    """Put back what the file says of itself and the shapes of its inputs and outputs, as far as it has them."""
    del folded.metadata_props[:]
    folded.metadata_props.extend(model.metadata_props)
    folded.producer_name, folded.producer_version = model.producer_name, model.producer_version
    folded.graph.name, folded.graph.doc_string = model.graph.name or "graph", model.graph.doc_string
    for found, given in ((folded.graph.input, model.graph.input), (folded.graph.output, model.graph.output)):
        values = {value.name: value for value in given}
        inferred = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in found]
        del found[:]
        for value in inferred:
            told = values[value.name].type.tensor_type.HasField("shape")
            found.append(values[value.name] if told else value)


def _unroll(model: onnx.ModelProto) -> None:
    """Write the iterations of Scan and Loop nodes one after the other.

    Raises:
        ExportError: a loop's length is not known, the graph gets too large, or an If is left.
    """
    graph, unique = model.graph, count()
    while any(node.op_type in ("Scan", "Loop", "If") for node in graph.node):
        constants = {tensor.name: tensor for tensor in graph.initializer}
        lengths = _first_sizes(model)
        nodes = list(graph.node)
        del graph.node[:]
        for node in nodes:
            if node.op_type not in ("Scan", "Loop", "If"):
                graph.node.append(node)
                continue
            attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
            body = attributes.get("body")
            if body is None:
                raise ExportError(
                    f"{node.op_type} {node.name!r}: found a branch that depends on data, expected none"
                )
            _own_names(body, f".{next(unique)}")
            graph.initializer.extend(body.initializer)
            if node.op_type == "Scan":
                graph.node.extend(_scan(node, body, attributes, lengths, unique))
            else:
                graph.node.extend(_loop(node, body, constants, unique))
            if len(graph.node) > LARGEST_GRAPH:
                raise ExportError(
                    f"{node.op_type} {node.name!r}: found more than {LARGEST_GRAPH} nodes with its iterations written "
                    "out, expected fewer; hosts with loops take the file as exported"
                )


def _scan(
    node: onnx.NodeProto,
    body: onnx.GraphProto,
    attributes: Mapping[str, Any],
    lengths: Mapping[str, int],
    unique: Iterator[int],
) -> Iterator[onnx.NodeProto]:
    scanned = attributes["num_scan_inputs"]
    others = {name: value for name, value in attributes.items() if name not in ("body", "num_scan_inputs")}
    if any(np.any(value) for value in others.values()):
        raise ExportError(f"Scan {node.name!r}: found {others}, expected axis 0 forwards")
    states = len(node.input) - scanned
    sequences = list(node.input[states:])
    found = {lengths.get(name, -1) for name in sequences}
    if len(found) != 1 or not 0 < (length := found.pop()) <= LARGEST_LOOP:
        raise ExportError(f"Scan {node.name!r}: found no known length, expected 1 to {LARGEST_LOOP}")
    current = list(node.input[:states])
    stacked: list[list[str]] = [[] for _ in node.output[states:]]
    for step in range(length):
        index = f"unrolled_index_{next(unique)}"
        yield _constant(index, np.int64(step))
        elements = [f"{index}.{name}" for name in sequences]
        for element, name in zip(elements, sequences, strict=True):
            yield helper.make_node("Gather", [name, index], [element], element, axis=0)
        results = yield from _iteration(body, [*current, *elements], unique)
        current = results[:states]
        for collected, name in zip(stacked, results[states:], strict=True):
            collected.append(name)
    yield from _finish(node, current, stacked, unique)


def _loop(
    node: onnx.NodeProto,
    body: onnx.GraphProto,
    constants: Mapping[str, onnx.TensorProto],
    unique: Iterator[int],
) -> Iterator[onnx.NodeProto]:
    trips = constants.get(node.input[0])
    length = int(numpy_helper.to_array(trips).item()) if trips is not None else -1
    if not 0 < length <= LARGEST_LOOP:
        raise ExportError(f"Loop {node.name!r}: found no known length, expected 1 to {LARGEST_LOOP}")
    current = list(node.input[2:])
    stacked: list[list[str]] = [[] for _ in node.output[len(current) :]]
    for step in range(length):
        index, going = f"unrolled_index_{next(unique)}", f"unrolled_going_{next(unique)}"
        yield _constant(index, np.int64(step))
        yield _constant(going, np.bool_(True))
        results = yield from _iteration(body, [index, going, *current], unique)
        current = results[1 : len(current) + 1]
        for collected, name in zip(stacked, results[len(current) + 1 :], strict=True):
            collected.append(name)
    yield from _finish(node, current, stacked, unique)


def _iteration(
    body: onnx.GraphProto, given: list[str], unique: Iterator[int]
) -> Generator[onnx.NodeProto, None, list[str]]:
    """Copy the body's nodes under new names; return those of its outputs."""
    names = {value.name: name for value, name in zip(body.input, given, strict=True)}
    suffix = f".{next(unique)}"
    for node in body.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.name = f"{node.name}{suffix}" if node.name else ""
        names |= {name: f"{name}{suffix}" for name in node.output if name}
        copy.output[:] = [names.get(name, name) for name in node.output]
        _rename(copy, names)
        yield copy
    return [names.get(value.name, value.name) for value in body.output]


def _own_names(body: onnx.GraphProto, suffix: str) -> None:
    """Give a body's constants names of their own: those of another loop's may be the same."""
    names = {tensor.name: f"{tensor.name}{suffix}" for tensor in body.initializer}
    for tensor in body.initializer:
        tensor.name = names[tensor.name]
    for node in body.node:
        _rename(node, names)
    for value in body.output:
        value.name = names.get(value.name, value.name)


def _rename(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    """Rename what a node reads, and what the graphs inside of it read of the graph around them."""
    node.input[:] = [names.get(name, name) for name in node.input]
    for attribute in node.attribute:
        for inner in (attribute.g, *attribute.graphs):
            own = {value.name for value in (*inner.input, *inner.initializer)}
            own |= {name for item in inner.node for name in item.output}
            outer = {name: new for name, new in names.items() if name not in own}
            for item in inner.node:
                _rename(item, outer)


def _finish(
    node: onnx.NodeProto, current: list[str], stacked: list[list[str]], unique: Iterator[int]
) -> Iterator[onnx.NodeProto]:
    """Give the last states and the stacked outputs the names that the loop gave them."""
    for name, last in zip(node.output, current, strict=False):
        if name:
            yield helper.make_node("Identity", [last], [name], f"unrolled_state_{next(unique)}")
    axis = f"unrolled_axis_{next(unique)}"
    if any(node.output[len(current) :]):
        yield _constant(axis, np.array([0], np.int64))
    for name, parts in zip(node.output[len(current) :], stacked, strict=True):
        if not name:
            continue
        rows = [f"{part}.row" for part in parts]
        for part, row in zip(parts, rows, strict=True):
            yield helper.make_node("Unsqueeze", [part, axis], [row], row)
        yield helper.make_node("Concat", rows, [name], f"unrolled_rows_{next(unique)}", axis=0)


def _constant(name: str, value: Any) -> onnx.NodeProto:
    return helper.make_node(
        "Constant", [], [name], name, value=numpy_helper.from_array(np.asarray(value), name)
    )


def _first_sizes(model: onnx.ModelProto) -> dict[str, int]:
    """Give the first size of the main graph's values, where it is known."""
    graph = shape_inference.infer_shapes(model).graph
    found = {tensor.name: tensor.dims[0] for tensor in graph.initializer if tensor.dims}
    for value in (*graph.input, *graph.value_info, *graph.output):
        sizes = value.type.tensor_type.shape.dim
        if sizes and sizes[0].HasField("dim_value"):
            found[value.name] = sizes[0].dim_value
    return found
