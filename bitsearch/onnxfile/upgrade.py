"""Bring files of old opsets to the oldest one that the operator's function body can be written in."""

import math
from collections import Counter
from contextlib import suppress
from graphlib import CycleError, TopologicalSorter
from itertools import count

import onnx
from onnx import TensorProto, defs, helper, inliner, version_converter

from bitsearch.core.errors import ExportError
from bitsearch.onnxfile import graph
from bitsearch.onnxfile.graph import STANDARD
from bitsearch.ops import DOMAIN, add_functions
from bitsearch.ops.ternary_matmul.function import OPSET_MIN

PRODUCTS = ("MatMul", "Gemm")
BODIES = {"If": {"then_branch", "else_branch"}, "Loop": {"body"}, "Scan": {"body"}}
LARGE = 1024  # numbers; the converter needs to see shapes and axes, not weights


def prepare(source: onnx.ModelProto) -> onnx.ModelProto:
    """Copy a model as `copy` does; functions that hold products with their arguments are inlined where onnx can.

    Raises:
        ExportError: the file is younger than onnx here; nodes lack bodies or outputs, put out what another does, read
            what nothing puts out or what follows from their own result; or onnx cannot upgrade.
    """
    _check_age(source)
    model = copy(source)
    _check_nodes(model)
    _check_functions(model)
    _check_order(model)
    inside = {
        (f.domain, f.name)
        for f in model.functions
        if f.domain != DOMAIN and any(node.op_type in PRODUCTS and node.domain in STANDARD for node in f.node)
    }
    for _ in model.functions:  # also what calls them, as deep as they lie
        inside |= {
            (f.domain, f.name)
            for f in model.functions
            if any((node.domain, node.op_type) in inside for node in f.node)
        }
    if inside:
        with suppress(Exception):  # what onnx cannot inline stays, and its layers are declined
            return inliner.inline_selected_functions(model, sorted(inside))
    return model


def _check_age(model: onnx.ModelProto) -> None:
    for what, found, newest in (
        ("opset", graph.opset(model), defs.onnx_opset_version()),
        ("version of the format", model.ir_version, onnx.IR_VERSION),
    ):
        if found > newest:
            raise ExportError(
                f"the file's {what} is {found} and the installed onnx knows up to {newest}; expected no younger one"
            )


def _check_nodes(model: onnx.ModelProto) -> None:
    """Hold that nodes have their bodies and put out something, and no value comes twice."""
    for scope in graph.scopes(model):
        given = Counter(name for node in scope.nodes for name in node.output if name)
        given.update(scope.inputs.union(scope.initializers, scope.sparse))
        if twice := next((name for name, times in given.items() if times > 1), None):
            raise ExportError(f"{twice!r} is put out twice; expected every value once")
        for node in scope.nodes:
            label = f"{node.op_type} {node.name or next(iter(node.output), '')!r}"
            bodies = {item.name for item in node.attribute if item.HasField("g")}
            lacking = BODIES.get(node.op_type, set()) - bodies if node.domain in STANDARD else ()
            if lacking:
                raise ExportError(f"{label} lacks {', '.join(sorted(lacking))}; expected a graph")
            if not any(node.output):
                raise ExportError(f"{label} puts out nothing; expected a name of its result")


def _check_functions(model: onnx.ModelProto) -> None:
    """Hold that no function calls itself, through others either."""
    functions = {(item.domain, item.name, item.overload): item for item in model.functions}
    calls = {
        key: {(node.domain, node.op_type, node.overload) for node in item.node} & functions.keys()
        for key, item in functions.items()
    }
    try:
        TopologicalSorter(calls).prepare()
    except CycleError as error:
        names = ", ".join(name for _, name, _ in error.args[1][:4])
        raise ExportError(f"the functions {names} call themselves; expected such that end") from error


def _check_order(model: onnx.ModelProto) -> None:
    """Hold that nodes can run one after the other, each with the bodies inside of it."""
    sorter = TopologicalSorter[tuple[str, str]]()
    for scope in graph.scopes(model):
        for node in scope.nodes:
            for name in filter(None, node.input):
                inner, reader, owner = scope, node, scope.owner(name)
                if owner is None:
                    raise ExportError(
                        f"{node.op_type} {node.name or next(iter(node.output), '')!r} reads {name!r}, "
                        "which nothing puts out; expected a node, an input or a constant of that name"
                    )
                while inner is not owner:
                    outer, holder = inner.outer, inner.node
                    assert outer is not None
                    assert holder is not None
                    inner, reader = outer, holder
                # Any output tells the node; the first may be left out.
                result = next(filter(None, reader.output), "")
                producer = owner.producers.get(name)
                if producer is not None and result:
                    sorter.add((owner.path, result), (owner.path, next(filter(None, producer.output))))
    try:
        sorter.prepare()
    except CycleError as error:
        names = ", ".join(name for _, name in error.args[1][:4])
        raise ExportError(
            f"the graph runs in a circle through {names}; expected nodes that can run one after the other"
        ) from error


def copy(source: onnx.ModelProto, least: int = OPSET_MIN) -> onnx.ModelProto:
    """Copy a model, upgraded to opset `least` where it is older.

    In the copy the standard domain has one name, no two nodes of a graph have the same, and no key comes twice.

    Raises:
        ExportError: onnx cannot upgrade the file.
    """
    model = onnx.ModelProto()
    model.CopyFrom(source)
    version = graph.opset(model)
    kept = [item for item in model.opset_import if item.domain not in STANDARD]
    del model.opset_import[:]
    model.opset_import.extend([helper.make_opsetid("", version), *kept])
    helper.set_model_props(model, graph.metadata(model))
    for scope in graph.scopes(model):
        names = {node.name for node in scope.nodes}
        seen = set[str]()
        for node in scope.nodes:
            if node.domain == "ai.onnx":
                node.domain = ""
            if node.name and node.name in seen:  # which onnxruntime refuses
                node.name = next(new for i in count(1) if (new := f"{node.name}.{i}") not in names)
                names.add(node.name)
            seen.add(node.name)
    return model if version >= least else _upgrade(model, version, least)


def _upgrade(model: onnx.ModelProto, version: int, wanted: int) -> onnx.ModelProto:
    """Let onnx convert the graphs; it drops functions, so those that need it are inlined and the others put back."""
    foreign = [function for function in model.functions if function.domain != DOMAIN]
    ours = len(foreign) < len(model.functions)
    changed = [(f.domain, f.name) for f in foreign if _changes(f, version, wanted)]
    try:
        if changed:
            model = inliner.inline_selected_functions(model, changed)
        functions = [function for function in model.functions if function.domain != DOMAIN]
        described = list(model.metadata_props)
        bare = onnx.ModelProto()
        bare.CopyFrom(model)
        del bare.functions[:]
        weights = _take_weights(bare)
        converted = version_converter.convert_version(bare, wanted)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ExportError(
            f"onnx cannot upgrade opset {version} to {wanted} ({reason}); "
            f"export the network again with opset {wanted} or newer"
        ) from error
    added = {tensor.name for tensor in weights}.difference(value.name for value in model.graph.input)
    given = [value for value in converted.graph.input if value.name not in added]
    del converted.graph.input[:]
    converted.graph.input.extend(given)
    converted.graph.initializer.extend(weights)
    for function in functions:
        for item in function.opset_import:
            if item.domain in STANDARD:
                item.version = wanted
        converted.functions.append(function)
    for item in model.opset_import:
        if item.domain not in {other.domain for other in converted.opset_import}:
            converted.opset_import.append(item)
    del converted.metadata_props[:]
    converted.metadata_props.extend(described)
    converted.ir_version = max(model.ir_version, 7)
    converted.producer_name, converted.producer_version = model.producer_name, model.producer_version
    _describe_nodes(model, converted)
    if ours:  # whose bodies are of the model's opset
        add_functions(converted)
    return converted


def _describe_nodes(source: onnx.ModelProto, converted: onnx.ModelProto) -> None:
    """Give nodes back what the converter leaves out: what they say of themselves."""
    known = {
        (scope.path, node.output[0]): node.metadata_props
        for scope in graph.scopes(source)
        for node in scope.nodes
        if node.metadata_props and node.output
    }
    for scope in graph.scopes(converted) if known else ():
        for node in scope.nodes:
            if node.output and not node.metadata_props:
                node.metadata_props.extend(known.get((scope.path, node.output[0]), ()))


def _changes(function: onnx.FunctionProto, version: int, wanted: int) -> bool:
    """Tell whether an operator of a function means something else in the newer opset."""
    return any(
        not defs.has(node.op_type)
        or _form(defs.get_schema(node.op_type, version)) != _form(defs.get_schema(node.op_type, wanted))
        for node in function.node
        if node.domain in STANDARD
    )


def _form(schema: defs.OpSchema) -> object:
    """Give what a node of an operator must look like; versions that only add types are the same."""
    defaults = {
        name: item.default_value.SerializeToString(deterministic=True)
        for name, item in schema.attributes.items()
    }
    return [item.name for item in schema.inputs], [item.name for item in schema.outputs], defaults


def _take_weights(model: onnx.ModelProto) -> list[TensorProto]:
    """Turn large initialisers of the main graph into inputs, and give them."""
    taken = [t for t in model.graph.initializer if math.prod(t.dims) >= LARGE]
    kept = [t for t in model.graph.initializer if math.prod(t.dims) < LARGE]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    fed = {value.name for value in model.graph.input}
    for tensor in taken:
        if tensor.name not in fed:
            model.graph.input.append(
                helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            )
    return taken
