"""Who goes into final training: challengers of every handmade strategy first, then the hypervolume; who leaves it."""

import math
from dataclasses import replace

import pytest

from bitsearch.core.measurement import Measurement, Metric, Quantity
from bitsearch.run.finals import choose, hopeless

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


def trained(name: str, fraction: float, *values: float) -> Measurement:
    item = measured(name, fraction, values[0])
    return replace(item, metrics={"nll": Quantity(values[0], n=len(values), values=values)})


# The mean over configurations is (2, 2.2, 2.25), what is left of the first (0.0083, -0.0917, 0.0833), of the second its
# negative: the variance is their sum of squares over (2 - 1) (3 - 1), 0.01542.
REPEATED = [trained("float", 0.0, 1.0, 1.1, 1.325), trained("all", 1.0, 3.0, 3.3, 3.175)]
MARGIN = 3 * math.sqrt(2 * 0.0154167)


def test_the_first_training_tells_who_is_hopeless() -> None:
    finalists = [
        *REPEATED,
        trained("good", 0.8, 2.0),
        trained("level", 0.7, 2.0 + 0.99 * MARGIN),
        trained("beaten", 0.7, 2.0 + 1.01 * MARGIN),
        trained("more", 0.9, 2.0 + 1.01 * MARGIN),
    ]
    assert hopeless(finalists, REPEATED, NLL) == {"beaten"}
    # Where more is better, `all` with 3.0 at fraction 1 beats those that are more than the margin, 0.53, below.
    assert hopeless(finalists, REPEATED, replace(NLL, direction="maximize")) == {"float", "good"}


@pytest.mark.parametrize("repeated", [[], REPEATED[:1], [trained("a", 0.0, 1.0), trained("b", 0.5, 2.0)]])
def test_nobody_is_hopeless_without_repeated_trainings(repeated: list[Measurement]) -> None:
    assert hopeless([trained("good", 0.8, 2.0), trained("bad", 0.7, 99.0)], repeated, NLL) == set()
