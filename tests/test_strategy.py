"""A configuration is a value made of options and an assignment."""

import copy
import dataclasses
import pickle
from typing import cast

import pytest

from bitsearch.core.assignment import Assignment
from bitsearch.core.strategy import Configuration, Strategy

TERNARY, FLOAT = Assignment({"a": "ternary", "b": "float32"}), Assignment({"a": "float32", "b": "float32"})
OPTIONS = {"permutation": "random", "rule": "event"}


def test_equal_exactly_when_options_and_assignment_are() -> None:
    configuration = Configuration(TERNARY, OPTIONS)
    turned = Configuration(
        Assignment(dict(reversed(list(TERNARY.items())))), dict(reversed(list(OPTIONS.items())))
    )
    assert configuration == turned
    assert hash(configuration) == hash(turned)
    assert configuration.digest == turned.digest
    others = [Configuration(FLOAT, OPTIONS), Configuration(TERNARY, {**OPTIONS, "rule": "scalar"})]
    others += [Configuration(TERNARY), Configuration(TERNARY, {"permutation": "random"})]
    assert len({configuration, *others}) == 5
    assert len({configuration.digest, *(item.digest for item in others)}) == 5
    assert configuration != dict(OPTIONS)


def test_golden_digest() -> None:
    """Digests name files and records of earlier runs, so they must never change."""
    assert Configuration(TERNARY, {"permutation": "random"}).digest == "8ba6cd805f13"


def test_cannot_be_changed() -> None:
    source = dict(OPTIONS)
    configuration = Configuration(TERNARY, source)
    source["rule"] = "scalar"
    assert dict(configuration.options) == OPTIONS
    with pytest.raises(TypeError):
        cast(dict[str, str], configuration.options)["rule"] = "scalar"
    with pytest.raises(dataclasses.FrozenInstanceError):
        configuration.assignment = FLOAT  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        Strategy("all", configuration, "").name = "none"  # type: ignore[misc]


def test_survives_pickle_and_copy() -> None:
    configuration = Configuration(TERNARY, OPTIONS)
    for made in (pickle.loads(pickle.dumps(configuration)), copy.deepcopy(configuration)):
        assert made == configuration
        assert dict(made.options) == OPTIONS
