"""What a search may change in CaloINN, and the strategies of BitHEP Table 3."""

from collections.abc import Sequence
from itertools import groupby

from bitsearch.core.assignment import Assignment
from bitsearch.core.measurement import PublishedFraction, PublishedResult
from bitsearch.core.space import Group
from bitsearch.core.strategy import Configuration, Strategy

DATASETS = ("ds1-photon", "ds1-pion", "ds2")
PRESETS = ("smoke", "laptop", "paper")
STRATEGIES = ("default", "exchange-permutation", "nncentral", "blockcentral", "all")
OUTER_BLOCKS = 2


def options(_preset: str) -> dict[str, tuple[str, ...]]:
    """Let the outer blocks permute at random or exchange the halves."""
    return {"permutation": ("random", "exchange")}


def groups(layers: Sequence[str]) -> tuple[Group, ...]:
    """Let the first, the central (together) and the last linear layer of every block choose on their own."""
    found = []
    for block, members in groupby(layers, key=block_of):
        names = tuple(members)
        for role, part in (("first", names[:1]), ("central", names[1:-1]), ("last", names[-1:])):
            found.append(Group(f"block {block} {role}", part, role))
    return tuple(found)


def strategies(layers: Sequence[str], _preset: str) -> tuple[Strategy, ...]:
    """Build the five strategies of Table 3 for the layers of a CaloINN."""
    blocks = block_of(layers[-1]) + 1
    central = [name for group in groups(layers) if group.role == "central" for name in group.layers]
    inner = [name for name in layers if OUTER_BLOCKS <= block_of(name) < blocks - OUTER_BLOCKS]

    def strategy(name: str, permutation: str, quantized: Sequence[str], description: str) -> Strategy:
        configuration = Configuration(Assignment.of(layers, quantized), {"permutation": permutation})
        return Strategy(name, configuration, description)

    return (
        strategy("default", "random", (), "all layers in float"),
        strategy("exchange-permutation", "exchange", (), "float; the outer four blocks exchange the halves"),
        strategy("nncentral", "random", central, "the central layers of every subnet"),
        strategy(
            "blockcentral", "exchange", inner, "every layer of all but the outer four blocks, which exchange"
        ),
        strategy("all", "random", layers, "every layer of every subnet"),
    )


def block_of(layer: str) -> int:
    """Read the block's index from a name such as `blocks.3.subnet.layers.0`."""
    return int(layer.split(".")[1])


_TABLE_3 = {
    "ds1-photon": ("633(3) 656(3)", "640(4) 651(3)", "640(3) 650(2)", "680(3) 669(3)", "759(2) 828(2)"),
    "ds1-pion": ("793(3) 742(3)", "784(2) 736(3)", "801(2) 751(3)", "852(1) 807(2)", "882(2) 907(2)"),
    "ds2": ("738(4) 859(2)", "728(6) 857(3)", "780(3) 876(4)", "950(2) 979(1)", "993(1) 998(0)"),
}
PUBLISHED_SOURCE = "BitHEP Table 3: CaloChallenge data, ten classifier trainings on one sample"


_SHARES = {
    "ds1-photon": ("8.4 %", "66.6 %", "99.9 %"),
    "ds1-pion": ("5.9 %", "66.6 %", "99.9 %"),
    "ds2": ("0.3 %", "71.4 %", "99.9 %"),
}


def published_fractions(dataset: str) -> tuple[PublishedFraction, ...]:
    """Give the shares of quantised parameters printed with Table 3."""
    names = ("nncentral", "blockcentral", "all")
    return tuple(PublishedFraction(*item) for item in zip(names, _SHARES[dataset], strict=True))


def published(dataset: str) -> tuple[PublishedResult, ...]:
    """Give Table 3's AUCs: value and spread in units of the third decimal."""
    results = []
    for name, cell in zip(STRATEGIES, _TABLE_3[dataset], strict=True):
        for metric, text in zip(("auc_low", "auc_high"), cell.split(), strict=True):
            value, spread = text.rstrip(")").split("(")
            results.append(PublishedResult(name, metric, int(value) / 1000, int(spread) / 1000))
    return tuple(results)
