"""Fractions by hand, and a space whose groups hold every layer once."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitsearch.core.assignment import Assignment
from bitsearch.core.errors import ConfigurationError
from bitsearch.core.precision import Precision
from bitsearch.core.space import Group, Inventory, Layer, SearchSpace
from bitsearch.core.strategy import Configuration, Strategy

A = Layer("a", out_features=4, in_features=3, bias=True)
B = Layer("b", out_features=5, in_features=4, bias=False)
IDLE = Layer("idle", out_features=10, in_features=5, bias=True, executed=False)
# 16 + 20 + 60 parameters of linear layers, 4 of something else.
INVENTORY = Inventory((A, B, IDLE), 100, 40)
GROUPS = (Group("ends", ("a", "c"), "edge"), Group("middle", ("b",), "central"))
OPTIONS = {"permutation": ("random", "exchange")}


def space(precision: Precision = Precision.TERNARY, *strategies: Strategy) -> SearchSpace:
    return SearchSpace(("a", "b", "c"), GROUPS, OPTIONS, strategies, precision)


def test_counts_of_a_layer() -> None:
    assert (A.weights, A.parameters) == (12, 16)
    assert (B.weights, B.parameters) == (20, 20)
    assert INVENTORY.names == ("a", "b", "idle")


@pytest.mark.parametrize(
    ("quantized", "parameters", "weights", "executed"),
    [
        ((), 0, Fraction(0), Fraction(0)),
        (("a",), 16, Fraction(12, 82), Fraction(16, 40)),
        (("b",), 20, Fraction(20, 82), Fraction(20, 40)),
        (("idle",), 60, Fraction(50, 82), Fraction(0)),
        (("a", "b", "idle"), 96, Fraction(1), Fraction(36, 40)),
    ],
)
def test_fractions_by_hand(
    quantized: tuple[str, ...], parameters: int, weights: Fraction, executed: Fraction
) -> None:
    for precision in (Precision.TERNARY, Precision.BINARY):
        found = INVENTORY.fractions(Assignment.of(INVENTORY.names, quantized, precision))
        assert (found.quantized_parameters, found.total_parameters) == (parameters, 100)
        assert found.fraction == parameters / 100
        assert found.weight_fraction == float(weights)
        assert found.executed_fraction == float(executed)


def test_bits_of_a_weight_by_hand() -> None:
    mixed = Assignment({"a": "ternary", "b": "float32", "idle": "ternary"})
    assert INVENTORY.mean_bits(mixed) == (12 * 2 + 20 * 32) / 32
    assert INVENTORY.mean_bits(Assignment({"a": "binary", "b": "ternary", "idle": "float32"})) == 2


def test_among_precisions() -> None:
    body = Strategy("body", space().configuration(["middle"], {"permutation": "random"}), "")
    found = space(Precision.TERNARY, body).among([Precision.TERNARY, Precision.BINARY, Precision.FLOAT32])
    assert found.precisions == (Precision.FLOAT32, Precision.BINARY, Precision.TERNARY)
    assert found.choose({"ends": "binary", "middle": "ternary"}, {}).assignment == {
        "a": "binary",
        "b": "ternary",
        "c": "binary",
    }
    assert space().among([Precision.FLOAT32, Precision.TERNARY]) == space()


@pytest.mark.parametrize(
    ("precisions", "words"),
    [
        (("float32", "binary"), "expected float32 and ternary among them"),
        (("ternary", "binary"), "expected float32 and ternary among them"),
        (("float32", "int8", "ternary"), "nothing trains with int8"),
    ],
)
def test_precisions_that_nothing_trains_with(precisions: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigurationError, match=f"--precisions {' '.join(precisions)}: {words}"):
        space().among([Precision(name) for name in precisions])


@given(
    chosen=st.sets(st.sampled_from([group.name for group in GROUPS])),
    permutation=st.sampled_from(OPTIONS["permutation"]),
)
def test_groups_invert_configurations(chosen: set[str], permutation: str) -> None:
    configuration = space().configuration(sorted(chosen), {"permutation": permutation})
    assert set(space().quantized_groups(configuration)) == chosen
    assert list(configuration.assignment) == ["a", "b", "c"]


def test_configurations_use_the_space_precision() -> None:
    configuration = space(Precision.BINARY).configuration(["ends"], {"permutation": "random"})
    assert dict(configuration.assignment) == {"a": "binary", "b": "float32", "c": "binary"}


@pytest.mark.parametrize(
    ("groups", "fault"),
    [
        (GROUPS[:1], r"\['b'\]"),
        ((*GROUPS, Group("other", ("d",), "")), r"\['d'\]"),
        ((*GROUPS, Group("again", ("b",), "")), "a layer twice"),
    ],
)
def test_groups_must_hold_every_layer_once(groups: tuple[Group, ...], fault: str) -> None:
    with pytest.raises(ConfigurationError, match=f"every layer exactly once; at fault: {fault}"):
        SearchSpace(("a", "b", "c"), groups, OPTIONS, ())


def test_strategies_inside_the_space_are_welcome() -> None:
    made = space().configuration(["ends"], {"permutation": "exchange"})
    assert space(Precision.TERNARY, Strategy("ends", made, "")).strategies[0].configuration == made


@pytest.mark.parametrize(
    "quantized",
    [{"a": "ternary", "b": "float32", "c": "float32"}, {"a": "binary", "b": "float32", "c": "binary"}],
    ids=["half a group", "another precision"],
)
def test_strategies_outside_of_the_space_are_refused(quantized: dict[str, str]) -> None:
    made = Configuration(Assignment(quantized), {"permutation": "random"})
    with pytest.raises(ConfigurationError, match="strategy odd is outside of the search space"):
        space(Precision.TERNARY, Strategy("odd", made, ""))
