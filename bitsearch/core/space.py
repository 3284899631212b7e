"""What a search may change."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from bitsearch.core.assignment import Assignment
from bitsearch.core.errors import ConfigurationError
from bitsearch.core.precision import Precision
from bitsearch.core.strategy import Configuration, Strategy


@dataclass(frozen=True)
class Layer:
    """A linear layer of the network, with `parameters` = weights + biases."""

    name: str
    out_features: int
    in_features: int
    bias: bool
    executed: bool = True

    @property
    def weights(self) -> int:
        """Number of weights."""
        return self.out_features * self.in_features

    @property
    def parameters(self) -> int:
        """Number of weights and biases."""
        return self.weights + (self.out_features if self.bias else 0)


@dataclass(frozen=True)
class Inventory:
    """All linear layers of a network in forward order and the numbers of its trainable parameters.

    `executed_parameters` leaves out the modules that the forward pass never calls.
    """

    layers: tuple[Layer, ...]
    total_parameters: int
    executed_parameters: int

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the linear layers."""
        return tuple(layer.name for layer in self.layers)

    def fractions(self, assignment: Assignment) -> "Fractions":
        """Count what `assignment` quantises, as the contract's section 3 defines it (BitHEP Table 3)."""
        quantized = [layer for layer in self.layers if assignment[layer.name].is_quantized]
        parameters = sum(layer.parameters for layer in quantized)
        executed = sum(layer.parameters for layer in quantized if layer.executed)
        return Fractions(
            quantized_parameters=parameters,
            total_parameters=self.total_parameters,
            fraction=parameters / self.total_parameters,
            weight_fraction=sum(layer.weights for layer in quantized)
            / sum(layer.weights for layer in self.layers),
            executed_fraction=executed / self.executed_parameters,
        )

    def mean_bits(self, assignment: Assignment) -> float:
        """Give the bits that a weight takes in the mean, in the linear layers that run."""
        layers = [layer for layer in self.layers if layer.executed]
        bits = sum(layer.weights * assignment[layer.name].bits for layer in layers)
        return bits / sum(layer.weights for layer in layers)


@dataclass(frozen=True)
class Fractions:
    """The three quantised fractions and the counts behind the first."""

    quantized_parameters: int
    total_parameters: int
    fraction: float
    weight_fraction: float
    executed_fraction: float


@dataclass(frozen=True)
class Group:
    """Layers that change precision together, and what they are in the network's own terms."""

    name: str
    layers: tuple[str, ...]
    role: str


def group(layers: Sequence[str], patterns: Mapping[str, str | Sequence[str]]) -> tuple[Group, ...]:
    """Take the layers that a name's patterns match together; a layer that none matches is a group of its own.

    A pattern is a layer's name, that of a module around it, or a glob.

    Raises:
        ConfigurationError: a pattern matches no layer, or a layer is in two groups.
    """
    floats = dict.fromkeys(layers, Precision.FLOAT32)
    taken: dict[str, str] = {}
    for name, several in patterns.items():
        for pattern in [several] if isinstance(several, str) else several:
            for layer in Assignment.matching({pattern: Precision.TERNARY}, floats).quantized:
                if taken.setdefault(layer, name) != name:
                    raise ConfigurationError(f"layer {layer} is in the groups {taken[layer]} and {name}")
    members: dict[str, list[str]] = {}
    for layer in layers:
        members.setdefault(taken.get(layer, layer), []).append(layer)
    return tuple(Group(name, tuple(found), "") for name, found in members.items())


def handmade(layers: Sequence[str], patterns: Mapping[str, Mapping[str, str]]) -> tuple[Strategy, ...]:
    """Give the float network and strategies of one's own, `{"body": {"block.*": "ternary"}}`.

    Raises:
        ConfigurationError: a pattern matches no layer.
    """
    floats = dict.fromkeys(layers, Precision.FLOAT32)
    return tuple(
        Strategy(name, Configuration(Assignment.matching(chosen, floats)), "")
        for name, chosen in {"float32": {}, **patterns}.items()
    )


@dataclass(frozen=True)
class SearchSpace:
    """Groups of layers to quantise or keep, and model options to choose among.

    `layers` are all linear layers in forward order; `groups` must name each of them exactly once.
    The first choice of every option is the one of the paper's float reference. Groups are kept in float32 or get
    `precision`, or one of `others` where there are any.
    """

    layers: tuple[str, ...]
    groups: tuple[Group, ...]
    options: Mapping[str, tuple[str, ...]]
    strategies: tuple[Strategy, ...]
    precision: Precision = Precision.TERNARY
    others: tuple[Precision, ...] = ()

    def __post_init__(self) -> None:
        grouped = [name for group in self.groups for name in group.layers]
        if sorted(grouped) != sorted(self.layers):
            wrong = sorted(set(grouped).symmetric_difference(self.layers)) or "a layer twice"
            raise ConfigurationError(f"groups must hold every layer exactly once; at fault: {wrong}")
        for strategy in self.strategies:
            made = self.choose(self.precisions_of(strategy.configuration), strategy.configuration.options)
            if made != strategy.configuration:
                raise ConfigurationError(
                    f"strategy {strategy.name} is outside of the search space; expected options "
                    f"{dict(self.options)} and precisions that are the same within every group"
                )

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """What a group may have, float32 first."""
        return Precision.FLOAT32, *self.others, self.precision

    def among(self, precisions: Sequence[Precision]) -> "SearchSpace":
        """Let a network's groups have these precisions.

        Raises:
            ConfigurationError: one cannot be trained with, or one of the handmade strategies is missing.
        """
        found = " ".join(precisions)
        if Precision.INT8 in precisions:
            raise ConfigurationError(
                f"--precisions {found}: nothing trains with int8, which onnxruntime has in finished files; leave it "
                "out, or use `bitsearch search FILE.onnx --precisions float32 int8 ternary` on a file"
            )
        if not {Precision.FLOAT32, self.precision} <= {*precisions}:
            raise ConfigurationError(
                f"--precisions {found}: expected float32 and {self.precision} among them, which the handmade "
                "strategies have"
            )
        others = tuple(item for item in Precision if item in precisions)
        return replace(
            self, others=tuple(item for item in others if item not in (Precision.FLOAT32, self.precision))
        )

    def configuration(self, quantized_groups: Sequence[str], options: Mapping[str, str]) -> Configuration:
        """Quantise the layers of `quantized_groups` and keep the rest in float32."""
        return self.choose(dict.fromkeys(quantized_groups, self.precision), options)

    def choose(self, precisions: Mapping[str, Precision | str], options: Mapping[str, str]) -> Configuration:
        """Give groups their precisions by name and keep the rest in float32."""
        chosen = {
            layer: precisions.get(group.name, Precision.FLOAT32)
            for group in self.groups
            for layer in group.layers
        }
        return Configuration(Assignment({layer: chosen[layer] for layer in self.layers}), dict(options))

    def precisions_of(self, configuration: Configuration) -> dict[str, Precision]:
        """Invert `choose`; a group whose layers differ counts as float32."""
        found = {
            group.name: {configuration.assignment[name] for name in group.layers} for group in self.groups
        }
        return {
            name: own.pop() if len(own) == 1 and own <= {*self.precisions} else Precision.FLOAT32
            for name, own in found.items()
        }

    def quantized_groups(self, configuration: Configuration) -> tuple[str, ...]:
        """Invert `configuration`; a group counts as quantised when all of its layers are."""
        quantized = set(configuration.assignment.quantized)
        return tuple(group.name for group in self.groups if quantized.issuperset(group.layers))
