"""Keep in float32 what few bits would slow down: layers are timed alone, on the machine that this runs on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bitsearch.core.errors import ConfigurationError, ExportError
from bitsearch.core.precision import Precision
from bitsearch.onnxfile import graph, inputs, runtime
from bitsearch.onnxfile.backends import rewrite
from bitsearch.onnxfile.graph import Scope
from bitsearch.onnxfile.linear import LinearNode, examine, is_linear, layer_name
from bitsearch.onnxfile.products import Backend
from bitsearch.onnxfile.ternarize import ternarize

SECONDS = 0.05  # of timing a layer, each way

Choose = Callable[[str], Precision]
Key = tuple[object, ...]


@dataclass
class Guard:
    """Times layers of a backend against float32 at batch sizes; `kept` says by layer why some stay in float32.

    Free axes that are not the batch get the size 16. Layers that are alike are timed once.
    """

    backend: Backend
    batches: Sequence[int]
    kept: dict[str, str] = field(default_factory=dict)
    _ratios: dict[Key, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the batches; raises ConfigurationError where one is not positive."""
        if min(self.batches, default=0) < 1:
            raise ConfigurationError(f"--batch {' '.join(map(str, self.batches))}: expected 1 or more")

    def limit(self, model: onnx.ModelProto, choose: Choose) -> Choose:
        """Leave in float32 the layers of a file that would be slower as `choose` wants them.

        Raises:
            ExportError: that is every layer.
        """
        timed = set[str]()
        scopes = list(graph.scopes(model))
        uses = graph.uses(scopes)
        for scope in scopes:
            for node in scope.nodes:
                if not is_linear(scope, node):
                    continue
                name = layer_name(scope, node)
                precision = choose(name)
                linear = "" if precision is Precision.FLOAT32 else examine(scope, node, uses)
                if isinstance(linear, LinearNode):
                    timed.add(name)
                    constants = [
                        found for item in node.input[1:] if (found := scope.constant(item)) is not None
                    ]
                    self._time(name, precision, scope, node, constants, linear.weight)
        if timed and timed <= self.kept.keys():
            reasons = "; ".join(f"{name} {self.kept[name]}" for name in sorted(timed)[:3])
            raise ExportError(
                f"all {len(timed)} layers are slower than float32 ({reasons}); "
                "expected another --backend, other --batch or none"
            )
        return lambda name: Precision.FLOAT32 if name in self.kept else choose(name)

    def keeps(self, scope: Scope, node: onnx.NodeProto) -> bool:
        """Tell whether a `TernaryMatMul` would be slower than a MatMul."""
        name, packed = node.name or node.output[0], scope.constant(node.input[1])
        if packed is not None:
            shape = len(packed), int(graph.attributes(node)["K"])
            weight = np.random.default_rng(0).normal(size=shape).astype(np.float32)
            product = helper.make_node("MatMul", node.input[:2], node.output)
            self._time(name, Precision.TERNARY, scope, product, [weight.T], weight)
        return name in self.kept

    def _time(
        self,
        name: str,
        precision: Precision,
        scope: Scope,
        node: onnx.NodeProto,
        constants: list[NDArray[Any]],
        weight: NDArray[np.float32],
    ) -> None:
        """Time a node alone, or a MatMul of its weights where what it reads is not known well enough."""
        kind = precision if precision is Precision.INT8 else self.backend
        shape = scope.shape(node.input[0]) or ()
        for batch in self.batches:
            x = [size or (inputs.FREE if axis else batch) for axis, size in enumerate(shape)]
            forms = [(node, x, constants)] if x else []
            forms.append((helper.make_node("MatMul", [], []), [batch, weight.shape[1]], [weight.T]))
            ratio = next(found for form in forms if (found := self._ratio(precision, *form)) is not None)
            if ratio > 1:
                reason = f"at batch {batch} {kind} takes {ratio:.2f} times as long as float32 here"
                self.kept.setdefault(name, reason)
                return

    def _ratio(
        self, precision: Precision, node: onnx.NodeProto, x: list[int], constants: list[NDArray[Any]]
    ) -> float | None:
        """Give the time in few bits over that in float32; None where the node does not run on such activations."""
        given = [(array.shape, array.dtype.str) for array in constants]
        attributes = [item.SerializeToString() for item in node.attribute]
        key = (precision, node.op_type, *attributes, *x, *given)
        if key not in self._ratios:
            model = _alone(node, x, constants)
            try:
                converted = rewrite(ternarize(model, lambda _: precision)[0], self.backend)
                ours, theirs = (runtime.open_session(item) for item in (converted, model))
                feed = inputs.draw(theirs, x[0])
                timed = runtime.time_session(ours, feed, 1, SECONDS, beside=theirs)
            except Exception:  # whatever onnxruntime says to shapes that do not fit
                return None
            self._ratios[key] = timed.ratio or 0.0
        return self._ratios[key]


def _alone(node: onnx.NodeProto, x: list[int], constants: list[NDArray[Any]]) -> onnx.ModelProto:
    """Give a model of one node; what it reads beside activations and constants is left out."""
    names = [f"c{index}" for index in range(len(constants))]
    alone = helper.make_node(node.op_type, ["x", *names], ["y"], domain=node.domain)
    alone.attribute.extend(node.attribute)
    kind = helper.np_dtype_to_tensor_dtype(constants[0].dtype)
    kind = kind if constants[0].dtype.kind == "f" else TensorProto.FLOAT
    made = helper.make_graph(
        [alone],
        "layer",
        [helper.make_tensor_value_info("x", kind, x)],
        [helper.make_tensor_value_info("y", kind, None)],
        [
            numpy_helper.from_array(np.ascontiguousarray(array), name)
            for name, array in zip(names, constants, strict=True)
        ],
    )
    domains = [("", 20), *([(node.domain, 1)] if node.domain else [])]
    return helper.make_model(
        made, opset_imports=[helper.make_opsetid(*item) for item in domains], ir_version=10
    )
