"""What a search may change in the tagger of flat columns: every layer by itself."""

from collections.abc import Sequence

from bitsearch.core.space import handmade
from bitsearch.core.strategy import Strategy

DATASETS = ("toy",)
PRESETS = ("smoke", "laptop")
STRATEGIES = ("float32", "body", "all")


def strategies(layers: Sequence[str], _preset: str) -> tuple[Strategy, ...]:
    """Quantise what is between the first layer, which reads columns, and the last, which gives the logit."""
    return handmade(layers, {"body": dict.fromkeys(layers[1:-1], "ternary"), "all": {"*": "ternary"}})
