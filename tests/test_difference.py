"""Differences between configurations, against tables of Student's t and values found by hand."""

import math

import pytest
from test_pareto import AUC, NLL, record

from bitsearch.core.difference import Difference, agreement, difference
from bitsearch.core.measurement import Measurement, Quantity


def trained(name: str, *values: float, std: float | None = None) -> Measurement:
    item = record(name, values[0], 0.5)
    quantity = Quantity(sum(values) / len(values), std, len(values), values if len(values) > 1 else ())
    item.metrics.update(nll=quantity, auc=quantity)  # type: ignore[attr-defined]
    return item


def test_common_seeds_are_compared_pair_by_pair() -> None:
    """Losses differ by 1, 2 and 3 although each alone scatters by ten: mean 2, standard error 1/sqrt(3)."""
    one, other = trained("one", 10.0, 20.0, 30.0), trained("other", 11.0, 22.0, 33.0)
    found = difference(one, other, NLL)
    assert (found.gain, found.pairs) == (2.0, 3)
    assert found.error == pytest.approx(1 / math.sqrt(3))
    assert difference(one, other, AUC).gain == -2.0


def test_only_common_seeds_count() -> None:
    """What was trained once more than the other is compared over the seeds that both have."""
    found = difference(trained("one", 1.0, 3.0, 100.0), trained("other", 2.0, 5.0), NLL)
    assert (found.gain, found.pairs) == (1.5, 2)


def test_without_pairs_spreads_add_in_quadrature() -> None:
    found = difference(trained("one", 1.0, std=0.3), trained("other", 2.0, std=0.4), NLL)
    assert (found.gain, found.pairs) == (1.0, 0)
    assert found.error == pytest.approx(0.5)
    assert found.sigmas == pytest.approx(2.0)
    assert difference(trained("one", 1.0), trained("other", 2.0, std=0.4), NLL).error is None


@pytest.mark.parametrize(
    ("ratio", "pairs", "sigmas"),
    [
        (4.303, 3, 1.960),  # 2.5 % beyond 4.303 for two degrees of freedom
        (12.706, 2, 1.960),
        (2.776, 5, 1.960),
        (9.925, 3, 2.576),  # 0.5 %
        (2.228, 11, 1.960),
        (-4.303, 3, -1.960),
    ],
)
def test_few_pairs_weigh_less(ratio: float, pairs: int, sigmas: float) -> None:
    """Student's t of any table has the tail of a normal distribution's deviation."""
    assert Difference(ratio, 1.0, pairs).sigmas == pytest.approx(sigmas, abs=1e-3)


def test_what_would_have_been_seen() -> None:
    """95 % and 80 % points: 2.920 + 1.061 for three pairs, 1.645 + 0.842 for a normal distribution."""
    assert Difference(0.0, 1.0, 3).detectable == pytest.approx(2.920 + 1.061, abs=2e-3)
    assert Difference(0.0, 2.0).detectable == pytest.approx(2 * (1.645 + 0.842), abs=2e-3)
    assert Difference(0.0, None).detectable is None


def test_what_would_be_needed() -> None:
    """At two standard errors and 80 % power a gain of one spread takes (2 + 0.842)² = 8.07 trainings, and two more."""
    assert Difference(1.0, 1 / math.sqrt(3), 3).pairs_needed(2.0) == 9 + 2
    assert Difference(1.0, 1.0).repetitions_needed(2.0) == 9
    assert Difference(1.0, 1.0).pairs_needed(2.0) is None
    assert Difference(0.0, 1.0, 3).pairs_needed(2.0) is None
    assert Difference(1.0, None).repetitions_needed(2.0) is None


def test_equal_trainings_have_no_significance() -> None:
    found = difference(trained("one", 1.0, 2.0), trained("other", 1.0, 2.0), NLL)
    assert (found.gain, found.error, found.sigmas) == (0.0, 0.0, None)


def test_rank_correlation_by_hand() -> None:
    """Spearman's formula, 1 - 6 Σd² / (n³ - n): two exchanges of neighbours among five make 1 - 24/120."""
    found = agreement([1, 2, 3, 4, 5], [20, 10, 40, 30, 500])
    assert found is not None
    assert found.rho == pytest.approx(0.8)
    assert found.count == 5
    width = 1.959964 * math.sqrt((1 + 0.32) / 2)
    assert math.atanh(found.low) == pytest.approx(math.atanh(0.8) - width, abs=1e-5)
    assert math.atanh(found.high) == pytest.approx(math.atanh(0.8) + width, abs=1e-5)
    tied = agreement([1, 2, 2, 3, 4], [1, 3, 3, 4, 5])
    assert tied is not None
    assert tied.rho == pytest.approx(1)
    assert tied.low < 0.95 < tied.high <= 1


def test_what_a_third_measure_explains_is_held() -> None:
    """Both follow the third alone; what is left of them, exchanged between neighbours, is opposed."""
    third = [1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0]
    one = [value + sign * 0.1 for value, sign in zip(third, [1, -1] * 4, strict=True)]
    other = [value - sign * 0.1 for value, sign in zip(third, [1, -1] * 4, strict=True)]
    alone, held = agreement(one, other), agreement(one, other, third)
    assert alone is not None
    assert held is not None
    assert alone.rho > 0.9
    assert held.rho == pytest.approx(-1)


@pytest.mark.parametrize("values", [[1.0, 2.0, 3.0, 4.0], [2.0] * 6, []])
def test_few_or_equal_values_have_no_order(values: list[float]) -> None:
    assert agreement(values, values) is None
