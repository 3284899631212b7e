"""An assignment is a value: immutable, comparable, and the same whatever the order of its layers."""

import copy
import json
import pickle
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitsearch.core.assignment import Assignment, digest
from bitsearch.core.errors import ConfigurationError
from bitsearch.core.precision import Precision

assignments = st.dictionaries(st.text(min_size=1, max_size=5), st.sampled_from(list(Precision)), max_size=6)


@given(content=assignments, random=st.randoms(use_true_random=False))
def test_order_does_not_matter(content: dict[str, Precision], random: Any) -> None:
    shuffled = list(content.items())
    random.shuffle(shuffled)
    one, other = Assignment(content), Assignment(dict(shuffled))
    assert one == other
    assert hash(one) == hash(other)
    assert one.digest == other.digest


@given(one=assignments, other=assignments)
def test_digest_tells_assignments_apart(one: dict[str, Precision], other: dict[str, Precision]) -> None:
    assert (Assignment(one).digest == Assignment(other).digest) is (one == other)


@given(content=assignments)
def test_survives_json_pickle_and_copy(content: dict[str, Precision]) -> None:
    assignment = Assignment(content)
    assert Assignment(json.loads(json.dumps(dict(assignment)))) == assignment
    assert pickle.loads(pickle.dumps(assignment)) == assignment
    assert copy.deepcopy(assignment) == assignment


def test_golden_digest() -> None:
    """Digests name files and records of earlier runs, so they must never change."""
    assert Assignment({"a": "ternary", "b": "float32"}).digest == "5b5ae5507949"
    assert digest({"b": [1, None], "a": "x"}) == digest({"a": "x", "b": [1, None]}) == "a8d71f64d3dc"


def test_cannot_be_changed() -> None:
    source = {"a": Precision.TERNARY}
    assignment = Assignment(source)
    with pytest.raises(TypeError):
        cast(dict[str, Precision], assignment)["a"] = Precision.FLOAT32
    with pytest.raises(TypeError):
        del cast(dict[str, Precision], assignment)["a"]
    source["a"] = Precision.FLOAT32
    assert assignment["a"] is Precision.TERNARY


def test_of_keeps_the_order_of_the_layers() -> None:
    assignment = Assignment.of(["c", "a", "b"], ["b", "c"], Precision.BINARY)
    assert list(assignment.items()) == [("c", "binary"), ("a", "float32"), ("b", "binary")]
    assert assignment.quantized == ("c", "b")
    assert repr(assignment) == f"Assignment(2 of 3 layers quantised, {assignment.digest})"


def test_of_refuses_unknown_layers() -> None:
    with pytest.raises(ConfigurationError, match=r"no layer named x, y; the network has a, b$"):
        Assignment.of(["a", "b"], ["y", "a", "x"])


@pytest.mark.parametrize("value", ["int4", "TERNARY", "", None, 3])
def test_refuses_unknown_precisions(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"layer a has precision .*float32, ternary, binary"):
        Assignment({"a": value})


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["a", "b", "c"], r"lacks \['c'\] and names nothing"),
        (["a"], r"lacks nothing and names \['b'\]"),
        (["a", "c"], r"lacks \['c'\] and names \['b'\]"),
    ],
)
def test_require_lists_what_differs(layers: list[str], message: str) -> None:
    assignment = Assignment.of(["a", "b"])
    assignment.require(["b", "a"])
    with pytest.raises(ConfigurationError, match=message):
        assignment.require(layers)


@pytest.mark.parametrize("precision", Precision)
def test_ternary_and_binary_layers_run_as_the_operator(precision: Precision) -> None:
    assert precision.is_quantized is (precision.value in ("ternary", "binary"))
    assert Assignment({"a": precision}).quantized == (("a",) if precision.is_quantized else ())
