"""What a search may change in the user's model."""

from collections.abc import Sequence

from bitsearch.core.assignment import Assignment
from bitsearch.core.measurement import PublishedFraction, PublishedResult
from bitsearch.core.space import Group
from bitsearch.core.strategy import Configuration, Strategy

PUBLISHED_SOURCE = "nothing was published"


def options(_preset: str) -> dict[str, tuple[str, ...]]:
    return {}


def groups(layers: Sequence[str]) -> tuple[Group, ...]:
    return tuple(Group(name, (name,), "linear") for name in layers)


def strategies(layers: Sequence[str], _preset: str) -> tuple[Strategy, ...]:
    def strategy(name: str, quantized: Sequence[str]) -> Strategy:
        return Strategy(name, Configuration(Assignment.of(layers, quantized)), name)

    return strategy("regular", ()), strategy("all", layers)


def published(_dataset: str) -> tuple[PublishedResult, ...]:
    return ()


def published_fractions(_dataset: str) -> tuple[PublishedFraction, ...]:
    return ()
