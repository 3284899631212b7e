"""What a search may change in P-DAT, and the strategies of BitHEP Table 1."""

from collections.abc import Mapping, Sequence

from bitsearch.core.assignment import Assignment
from bitsearch.core.measurement import PublishedFraction, PublishedResult
from bitsearch.core.space import Group
from bitsearch.core.strategy import Configuration, Strategy

DATASETS = ("quark-gluon",)
PRESETS = ("smoke", "laptop", "paper")
STRATEGIES = ("regular", "bit")
ATTENTIONS = ("particle", "channel")
PROJECTIONS = ("query", "key", "value")


def options(_preset: str) -> dict[str, tuple[str, ...]]:
    """Offer no choice of the network."""
    return {}


def groups(layers: Sequence[str]) -> tuple[Group, ...]:
    """Let the parts that have a meaning of their own choose.

    Each edge convolution chooses for its first layer, which reads physical features, and for the others; each
    attention for its three projections, for what mixes their result, and for its two layers; then the nets of the
    pair bias, the pooling and the head.
    """
    found: dict[str, list[str]] = {}
    for layer in layers:
        found.setdefault(_part(layer), []).append(layer)
    return tuple(Group(name, tuple(members), name.split(" ")[-1]) for name, members in found.items())


def strategies(layers: Sequence[str], _preset: str) -> tuple[Strategy, ...]:
    """Build the two strategies of Table 1 for the layers of a P-DAT."""
    bit = [name for name in layers if name.split(".")[0] in ATTENTIONS and ".bias_net." not in name]
    return (
        Strategy("regular", Configuration(Assignment.of(layers, ())), "all layers in float"),
        Strategy(
            "bit",
            Configuration(Assignment.of(layers, bit)),
            "every linear layer of the particle and the channel attention",
        ),
    )


def _part(layer: str) -> str:
    module, _, rest = layer.partition(".")
    if module in ATTENTIONS:
        if rest.startswith("bias_net."):
            return "pair bias"
        if rest == "fcx":
            return "particle attention mixing" if module == "particle" else "channel attention unused"
        return f"{module} attention {'projections' if rest in PROJECTIONS else 'block'}"
    if module in ("edge1", "edge2"):
        first = rest == "pointwise.linears.0"
        return f"edge convolution {module[-1]} {'first' if first else 'rest'}"
    return {"pooled": "pooling", "head": "head"}.get(module, f"{module} unused")


_TABLE_1: Mapping[str, tuple[tuple[str, float, float | None], ...]] = {
    "regular": (
        ("accuracy", 0.839, None),
        ("auc", 0.9092, None),
        ("rejection_50", 39.2, 0.6),
        ("rejection_30", 95.1, 1.3),
    ),
    "bit": (
        ("accuracy", 0.834, None),
        ("auc", 0.9040, None),
        ("rejection_50", 35.0, 0.3),
        ("rejection_30", 83.3, 1.2),
    ),
}
PUBLISHED_SOURCE = "BitHEP Table 1: 1.6 million training and 200,000 test jets, five trainings"


def published(_dataset: str) -> tuple[PublishedResult, ...]:
    """Give Table 1."""
    return tuple(
        PublishedResult(strategy, metric, value, std)
        for strategy, results in _TABLE_1.items()
        for metric, value, std in results
    )


def published_fractions(_dataset: str) -> tuple[PublishedFraction, ...]:
    """Give the paper's share of quantised parameters and the shares that it can be read as.

    At the paper preset 307,200 ternary weights are 62.7 % of the weights of all linear layers as they are here,
    where pointwise convolutions are linear layers too, and 86.1 % of those that the published code calls linear.
    """
    return (
        PublishedFraction("regular", "0 %"),
        PublishedFraction(
            "bit",
            "63 %",
            "counts a layer that is never called and holds 53 % of all parameters (312,000 of 497,678); of the "
            "parameters that compute something 21.3 % are quantised (45,760 of 214,728)",
        ),
    )
