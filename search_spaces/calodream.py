"""What a search may change in CaloDREAM, and the strategies of BitHEP Table 4."""

from collections.abc import Sequence

from bitsearch.core.assignment import Assignment
from bitsearch.core.measurement import PublishedFraction, PublishedResult
from bitsearch.core.space import Group
from bitsearch.core.strategy import Configuration, Strategy

DATASETS = ("ds2",)
PRESETS = ("smoke", "laptop", "paper")
STRATEGIES = (
    "regular",
    "energy-quantized",
    "shape-no-embedding",
    "energy-quantized+shape-no-embedding",
    "shape-full",
    "energy-quantized+shape-full",
)

ROLES = {
    "shape.embedding": "patch embedding",
    "shape.time": "time embedding",
    "shape.condition": "condition embedding",
    "shape.final.modulation": "final modulation",
    "shape.final.linear": "final linear",
    "energy.time": "time embedding",
    "energy.velocity.first": "velocity first",
    "energy.velocity.last": "velocity last",
}
IN_BLOCKS = {
    "modulation": "modulation",
    "attention.qkv": "attention in",
    "attention.projection": "attention out",
    "fc1": "perceptron in",
    "fc2": "perceptron out",
}
EMBEDDINGS = ("patch embedding", "time embedding", "condition embedding")


def options(_preset: str) -> dict[str, tuple[str, ...]]:
    """Offer none: every CaloDREAM has the same structure."""
    return {}


def groups(layers: Sequence[str]) -> tuple[Group, ...]:
    """Let every part of every block of the shape network and every layer of the energy velocity choose on its own.

    The layers of an embedding go together, and in the energy network's transformer all attention and all
    feed-forward layers.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for layer in layers:
        found.setdefault(_place(layer), []).append(layer)
    return tuple(Group(name, tuple(members), role) for (name, role), members in found.items())


def strategies(layers: Sequence[str], preset: str) -> tuple[Strategy, ...]:
    """Build the six strategies of Table 4; at `paper`, `shape-full` has the final linear layer as the code has."""
    places = {layer: _place(layer) for layer in layers}
    energy = [layer for layer, (_, role) in places.items() if role == "velocity central"]
    blocks = [
        layer
        for layer, (name, role) in places.items()
        if name.startswith("shape block") and role != "modulation"
    ]
    embeddings = [
        layer for layer, (name, role) in places.items() if name.startswith("shape") and role in EMBEDDINGS
    ]
    full = [*embeddings, *blocks]
    described = "the shape network's blocks and embeddings"
    if preset == "paper":
        full += ["shape.final.linear"]
        described += " and its final linear layer, as in the authors' code"

    def strategy(name: str, quantized: Sequence[str], description: str) -> Strategy:
        return Strategy(name, Configuration(Assignment.of(layers, quantized), {}), description)

    central = "the central layers of the energy velocity"
    inner = "the shape network's blocks without modulation"
    return (
        strategy("regular", (), "all layers in float"),
        strategy("energy-quantized", energy, central),
        strategy("shape-no-embedding", blocks, inner),
        strategy("energy-quantized+shape-no-embedding", [*energy, *blocks], f"{central}; {inner}"),
        strategy("shape-full", full, described),
        strategy("energy-quantized+shape-full", [*energy, *full], f"{central}; {described}"),
    )


def _place(layer: str) -> tuple[str, str]:
    """Name the group and the role of a layer, of which `shape.blocks.3.attention.qkv` is one."""
    network, *parts = layer.split(".")
    if parts[0] in ("encoder", "decoder"):
        role = "feed-forward" if "feed_forward" in parts else "attention"
        return f"energy transformer {role}", role
    if parts[0] == "blocks":
        role = IN_BLOCKS[".".join(parts[2:])]
        return f"shape block {parts[1]} {role}", role
    if parts[1:2] == ["central"]:
        return f"energy velocity central {parts[2]}", "velocity central"
    role = next(role for start, role in ROLES.items() if f"{layer}.".startswith(f"{start}."))
    return f"{network} {role}", role


PUBLISHED_SOURCE = "BitHEP Table 4: CaloChallenge dataset 2, ten classifier trainings on one sample"
_TABLE_4 = {
    "regular": "531(3) 523(3)",
    "energy-quantized": "532(3) 525(3)",
    "shape-no-embedding": "611(2) 543(3)",
    "energy-quantized+shape-no-embedding": "610(5) 545(2)",
    "shape-full": "735(4) 942(2)",
    "energy-quantized+shape-full": "738(4) 944(3)",
}


def published(_dataset: str) -> tuple[PublishedResult, ...]:
    """Give Table 4's AUCs: value and spread in units of the third decimal."""
    results = []
    for name, cell in _TABLE_4.items():
        for metric, text in zip(("auc_low", "auc_high"), cell.split(), strict=True):
            value, spread = text.rstrip(")").split("(")
            results.append(PublishedResult(name, metric, int(value) / 1000, int(spread) / 1000))
    return tuple(results)


def published_fractions(_dataset: str) -> tuple[PublishedFraction, ...]:
    """Give the printed shares of both networks' parameters, with the counts that they belong to."""
    slip = "a rounding slip: with weights and biases it is"
    other = "the final linear layer in float, as the text says; the authors' code quantises it too"
    return (
        PublishedFraction("regular", "0 %"),
        PublishedFraction("energy-quantized", "5.5 %", "66.09 % of the energy network"),
        PublishedFraction(
            "shape-no-embedding", "58.5 %", f"{slip} 58.446 %; 63.8 % of the shape network is exact"
        ),
        PublishedFraction("energy-quantized+shape-no-embedding", "63.9 %", f"{slip} 63.990 %"),
        PublishedFraction(
            "shape-full", "60.7 %", f"60.667 % with {other} (60.748 %); 66.22 % of the shape network, 66.31 %"
        ),
        PublishedFraction("energy-quantized+shape-full", "66.2 %", f"66.210 % with {other} (66.291 %)"),
    )
