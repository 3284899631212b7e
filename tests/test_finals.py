"""Who goes into final training: challengers of every handmade strategy first, then the hypervolume."""

import pytest

from bitsearch.core.measurement import Measurement, Metric, Quantity
from bitsearch.run.finals import choose

NLL = Metric("nll", "NLL", "nats", "minimize", "made up")


def measured(name: str, fraction: float, loss: float, failure: str | None = None) -> Measurement:
    metrics = {} if failure else {"nll": Quantity(loss)}
    return Measurement(
        name, "search", {}, {}, fraction, fraction, fraction, "finetuned", 1, metrics, failure=failure
    )


def chosen(candidates: list[Measurement], handmade: tuple[float, ...], limit: int) -> list[str]:
    return [item.digest for item in choose(candidates, handmade, NLL, limit)]


CANDIDATES = [
    measured("a", 0.1, 1.0),
    measured("b", 0.5, 1.5),
    measured("c", 0.7, 2.0),
    measured("d", 0.8, 2.1),
    measured("e", 0.9, 4.0),
    measured("f", 0.2, 5.0),
]


def test_every_handmade_fraction_has_its_challengers_first() -> None:
    # At no less than 0.85 only e stands, at no less than 0.6 c and d are the best.
    assert chosen(CANDIDATES, (0.0, 0.6, 0.85), 3) == ["e", "c", "d"]


def test_the_rest_adds_most_hypervolume() -> None:
    # Below c: b adds 0.5 x (2 - 1.5) = 0.25, a adds 0.1 x (2 - 1) = 0.1; f is no better than the worst.
    assert chosen(CANDIDATES, (0.6, 0.85), 5) == ["e", "c", "d", "b", "a"]
    assert chosen(CANDIDATES, (0.6, 0.85), 12) == ["e", "c", "d", "b", "a"]


@pytest.mark.parametrize("limit", [0, 1, 2])
def test_limit(limit: int) -> None:
    assert len(chosen(CANDIDATES, (0.6,), limit)) == limit


def test_failures_and_nothing_are_left_out() -> None:
    assert chosen([measured("x", 0.5, 0.0, "the loss became nan")], (0.3,), 4) == []
    assert chosen([], (0.3,), 4) == []
