"""The covering knapsack against every choice there is."""

from itertools import product

import numpy as np
import pytest

from bitsearch.core.knapsack import cover, covers


def total(table: list[list[float]], levels: list[int]) -> float:
    return sum(own[level] for own, level in zip(table, levels, strict=True))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("levels", [2, 3])
def test_no_choice_is_cheaper(seed: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    # Whole hundredths, so that rounding to steps hides nothing.
    gains = [[0.0, *np.cumsum(rng.integers(1, 50, levels - 1)).tolist()] for _ in range(7)]
    costs = [[0.0, *(rng.normal(0.5, 1.0, levels - 1) * own[-1]).tolist()] for own in gains]
    needed = float(rng.integers(1, int(sum(own[-1] for own in gains)) + 1))
    found = cover(costs, gains, needed)
    choices = [list(item) for item in product(range(levels), repeat=7)]
    least = min(total(costs, item) for item in choices if total(gains, item) >= needed)
    assert total(gains, found) >= needed
    assert total(costs, found) == pytest.approx(least, abs=1e-9 + 1e-3 * abs(least))


def test_no_need_takes_what_lowers_the_cost() -> None:
    assert cover([[0.0, -1.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]], 0.0) == [1, 0]


def test_more_than_there_is_takes_everything() -> None:
    assert cover([[0.0, 1.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]], 5.0) == [1, 1]


@pytest.mark.parametrize("seed", range(5))
def test_several_needs_cost_what_each_costs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    gains = [[0.0, float(gain)] for gain in rng.integers(1, 50, 9)]
    costs = [[0.0, float(cost)] for cost in rng.normal(0.5, 1.0, 9)]
    most = sum(own[-1] for own in gains)
    # One step is one unit of gain.
    needs = [0.0, *rng.integers(1, int(most), 6).astype(float).tolist(), most]
    for needed, found in zip(needs, covers(costs, gains, needs, int(most)), strict=True):
        assert total(gains, found) >= needed
        assert total(costs, found) <= total(costs, cover(costs, gains, needed)) + 1e-9
