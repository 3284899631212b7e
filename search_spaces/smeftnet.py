"""What a search may change in SMEFTNet, and the strategies of BitHEP Table 2."""

from collections.abc import Mapping, Sequence

from bitsearch.core.assignment import Assignment
from bitsearch.core.measurement import PublishedFraction, PublishedResult
from bitsearch.core.space import Group
from bitsearch.core.strategy import Configuration, Strategy

DATASETS = ("wz",)
PRESETS = ("smoke", "laptop", "paper", "launch-script")
STRATEGIES = ("regular", "bit", "bit70", "bit30")
READOUT = "readout."
AS_CODED = ("paper", "launch-script")


def options(preset: str) -> Mapping[str, tuple[str, ...]]:
    """Choose, for networks as published, the normalisation and activation that go with float or low-bit blocks.

    The other presets have the same ones everywhere, so that nothing but the precision differs.
    """
    styles = ("float", "bit")
    return {"edge_blocks": styles, "readout_blocks": styles} if preset in AS_CODED else {}


def groups(layers: Sequence[str]) -> tuple[Group, ...]:
    """Let every linear layer choose on its own: there are seven."""
    return tuple(Group(_title(name), (name,), _role(name)) for name in layers)


def strategies(layers: Sequence[str], preset: str) -> tuple[Strategy, ...]:
    """Build the strategies of Table 2; as published, a quantised block changes its style too."""

    def strategy(name: str, edges: bool, readout: bool, description: str) -> Strategy:
        quantized = [layer for layer in layers if (readout if layer.startswith(READOUT) else edges)]
        styles = ["bit" if chosen else "float" for chosen in (edges, readout)]
        chosen = dict(zip(options(preset), styles, strict=False))
        return Strategy(name, Configuration(Assignment.of(layers, quantized), chosen), description)

    return (
        strategy("regular", False, False, "all layers in float"),
        strategy("bit", True, True, "every linear layer"),
        strategy("bit70", False, True, "the readout"),
        strategy("bit30", True, False, "the edge networks of the message passing"),
    )


def _title(layer: str) -> str:
    """Name `convolutions.0.mlp.linears.1` as a person would."""
    parts = layer.split(".")
    return f"readout {parts[-1]}" if _role(layer) == "readout" else f"convolution {parts[1]} edge {parts[-1]}"


def _role(layer: str) -> str:
    return "readout" if layer.startswith(READOUT) else "edge"


PUBLISHED_SOURCE = (
    "BitHEP Table 2: residuals of one training each against those of the first float network, about 625,000 WZ jets. "
    "Bins and normalisation of its separation power are not given; 2S is what its values above 1 allow"
)
_TABLE_2 = {
    "regular": (0.0021, 0.0001),
    "bit": (0.4546, 1.4860),
    "bit70": (0.2528, 0.6138),
    "bit30": (0.1040, 0.1503),
}


def published(_dataset: str) -> tuple[PublishedResult, ...]:
    """Give Table 2: Wasserstein distance in radians and separation power; `regular` is a second float training."""
    metrics = ("wasserstein", "separation_paper")
    return tuple(
        PublishedResult(name, metric, value, None)
        for name, row in _TABLE_2.items()
        for metric, value in zip(metrics, row, strict=True)
    )


def published_fractions(_dataset: str) -> tuple[PublishedFraction, ...]:
    """Give the quantised shares that the names stand for."""
    of_linears = "share of the linear layers' weights and biases with edge layers [10, 10] twice"
    launched = "the published launch script's [20, 20] twice"
    return (
        PublishedFraction("bit", "100 %", "all linear layers; normalisation stays in float and counts here"),
        PublishedFraction("bit70", "70 %", f"70.9 %, {of_linears}; {launched} give 45.1 %"),
        PublishedFraction("bit30", "30 %", f"29.1 %, {of_linears}; {launched} give 54.9 %"),
    )
