"""Files made from one original: what can change precision in it, and the file of any choice of precisions."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx

from bitsearch.core.errors import ExportError
from bitsearch.core.precision import Precision
from bitsearch.core.space import Inventory, Layer
from bitsearch.onnxfile import graph, inspect, ternarize, upgrade
from bitsearch.onnxfile.backends import rewrite
from bitsearch.onnxfile.edit import Outcome, Rounded, Rounder
from bitsearch.onnxfile.linear import LinearNode, examine, is_linear, layer_name
from bitsearch.onnxfile.products import Backend


@dataclass(frozen=True)
class Layers:
    """Linear layers of a file: those that can change, nodes that share the weights of one, and reasons of others.

    `same` maps the name of every node to that of the layer whose weights it has.
    """

    inventory: Inventory
    same: Mapping[str, str]
    declined: Mapping[str, str]

    @classmethod
    def of(cls, model: onnx.ModelProto, kept: Mapping[str, str]) -> "Layers":
        """List the layers of a prepared model; weights that several nodes share are one layer.

        Those that are `kept` for a reason are declined.

        Raises:
            ExportError: there is none that can change precision.
        """
        scopes = list(graph.scopes(model))
        uses = graph.uses(scopes)
        found: dict[tuple[str, str, str], Layer] = {}
        same, declined = dict[str, str](), dict[str, str]()
        for scope in scopes:
            for node in scope.nodes:
                if not is_linear(scope, node):
                    continue
                name, linear = layer_name(scope, node), examine(scope, node, uses)
                linear = kept.get(name, linear)
                if isinstance(linear, str):
                    declined[name] = linear
                    continue
                origin = scope.origin(linear.weights_name)
                assert origin is not None
                place = origin[0].path, origin[1], linear.orientation
                out, k = linear.weight.shape
                layer = found.setdefault(place, Layer(name, out, k, linear.bias is not None))
                same[name] = layer.name
        if not found:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in [*declined.items()][:5])
            raise ExportError(
                f"found no linear layer that can change precision ({reasons or 'there is none at all'}); "
                "expected one with constant weights"
            )
        _, total = inspect.parameters(model)
        layers = tuple(found.values())
        total = max(total, sum(layer.parameters for layer in layers))
        return cls(Inventory(layers, total, total), same, declined)


class Candidates:
    """Make the file of any precisions of `layers`; weights of a layer are rounded once and kept as codes."""

    def __init__(
        self,
        source: onnx.ModelProto,
        round_weights: Rounder,
        backend: Backend | str = "ternary",
        kept: Mapping[str, str] | None = None,
    ) -> None:
        self.model = upgrade.prepare(source)
        self.kept = kept or {}
        self.layers = Layers.of(self.model, self.kept)
        self.backend = Backend(backend)
        self._round = round_weights
        self._rounded: dict[tuple[str, str, Precision], Rounded] = {}

    def make(self, precisions: Mapping[str, Precision]) -> tuple[onnx.ModelProto, tuple[Outcome, ...]]:
        """Give the model whose layers have these precisions, others in float32, and what became of each."""
        if all(value is Precision.FLOAT32 for value in precisions.values()):
            return self.model, ()
        model, outcomes = ternarize.ternarize(self.model, self.choose(precisions), self._once)
        return rewrite(model, self.backend), outcomes

    def choose(self, precisions: Mapping[str, Precision]) -> Callable[[str], Precision]:
        """Tell the precision of every node by the layer whose weights it has."""
        return lambda name: precisions.get(self.layers.same.get(name, name), Precision.FLOAT32)

    def _once(self, layer: str, linear: LinearNode, precision: Precision) -> Rounded:
        key = linear.weights_name, layer, precision
        if key not in self._rounded:
            self._rounded[key] = self._round(layer, linear, precision)
        return self._rounded[key]


def mean_bits(layers: Layers, precisions: Mapping[str, Precision]) -> float:
    """Give the bits that a weight of a layer takes in the mean."""
    bits = [layer.weights * precisions[layer.name].bits for layer in layers.inventory.layers]
    return math.fsum(bits) / sum(layer.weights for layer in layers.inventory.layers)
