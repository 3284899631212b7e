"""The front holds what no other configuration beats, whatever the order of the records."""

import dataclasses
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitsearch.core import pareto
from bitsearch.core.measurement import Direction, Fidelity, Measurement, Metric, Quantity

NLL = Metric("nll", "NLL", "nats", "minimize", "validation")
AUC = Metric("auc", "AUC", "", "maximize", "validation")


def record(
    digest: str, value: float, fraction: float, fidelity: Fidelity = "full", failure: str | None = None
) -> Measurement:
    metrics = {"nll": Quantity(value), "auc": Quantity(value)}
    shares = (fraction, fraction, fraction)
    return Measurement(digest, "search", {}, {}, *shares, fidelity, seed=1, metrics=metrics, failure=failure)


def digests(members: list[Measurement]) -> list[str]:
    return [member.digest for member in members]


# Few distinct values, so that ties occur.
points = st.lists(
    st.tuples(st.integers(-4, 4).map(float), st.integers(0, 4).map(lambda i: i / 4)), max_size=12
)


def records(values: list[tuple[float, float]]) -> list[Measurement]:
    return [record(f"d{index:02}", value, fraction) for index, (value, fraction) in enumerate(values)]


def dominates(one: Measurement, other: Measurement, objective: Metric) -> bool:
    better = pareto.loss(one, objective) <= pareto.loss(other, objective)
    larger = one.executed_fraction >= other.executed_fraction
    here = (pareto.loss(one, objective), one.executed_fraction)
    return better and larger and here != (pareto.loss(other, objective), other.executed_fraction)


@pytest.mark.parametrize("objective", [NLL, AUC], ids=lambda metric: metric.direction)
@given(values=points)
def test_front_is_the_non_dominated_set(objective: Metric, values: list[tuple[float, float]]) -> None:
    measured = records(values)
    members = pareto.front(measured, objective)
    for item in measured:
        beaten = any(dominates(member, item, objective) for member in members)
        assert beaten is (item not in members)
    losses = [pareto.loss(member, objective) for member in members]
    assert losses == sorted(losses)
    assert [m.executed_fraction for m in members] == sorted(m.executed_fraction for m in members)


@given(values=points, seed=st.integers(0, 9))
def test_order_of_records_does_not_matter(values: list[tuple[float, float]], seed: int) -> None:
    measured = records(values)
    shuffled = random.Random(seed).sample(measured, len(measured))
    assert pareto.front(shuffled, NLL) == pareto.front(measured, NLL)
    assert pareto.hypervolume(shuffled, NLL, 5.0) == pareto.hypervolume(measured, NLL, 5.0)


@given(values=points, extra=st.tuples(st.floats(-4, 4), st.floats(0, 1)))
def test_hypervolume_never_shrinks(values: list[tuple[float, float]], extra: tuple[float, float]) -> None:
    before = pareto.hypervolume(records(values), NLL, 5.0)
    assert pareto.hypervolume(records([*values, extra]), NLL, 5.0) >= before - 1e-12


@given(values=points)
def test_maximising_mirrors_minimising(values: list[tuple[float, float]]) -> None:
    mirrored = records([(-value, fraction) for value, fraction in values])
    assert digests(pareto.front(records(values), NLL)) == digests(pareto.front(mirrored, AUC))
    assert pareto.hypervolume(records(values), NLL, 5.0) == pareto.hypervolume(mirrored, AUC, -5.0)


def test_failures_and_lower_fidelities_stay_out() -> None:
    measured = [
        record("float", 1.0, 0.0),
        record("short", 0.1, 0.9, fidelity="finetuned"),
        record("failed", 0.0, 1.0, failure="NaN loss"),
        dataclasses.replace(record("unmeasured", 0.0, 1.0), metrics={}),
        record("nan", float("nan"), 1.0),
    ]
    assert digests(pareto.front(measured, NLL)) == ["float"]
    assert digests(pareto.front(measured[1:], NLL)) == ["short"]
    assert pareto.front([], NLL) == []


def test_a_configuration_counts_once_and_its_latest_record_wins() -> None:
    assert [
        m.metrics["nll"].value for m in pareto.front([record("a", 1.0, 0.5), record("a", 2.0, 0.5)], NLL)
    ] == [2.0]


@pytest.mark.parametrize(
    ("direction", "worst", "values"),
    [
        ("minimize", 4.0, [(1.0, 0.0), (2.0, 0.5), (3.0, 1.0)]),
        ("maximize", 0.0, [(3.0, 0.0), (2.0, 0.5), (1.0, 1.0)]),
    ],
)
def test_hypervolume_by_hand(direction: Direction, worst: float, values: list[tuple[float, float]]) -> None:
    objective = dataclasses.replace(NLL, direction=direction)
    assert pareto.hypervolume(records(values), objective, worst) == pytest.approx(2 * 0.5 + 1 * 0.5)
    assert pareto.hypervolume([], objective, worst) == 0.0


def test_knee_by_hand() -> None:
    bent = records([(0.0, 0.0), (0.1, 0.7), (0.5, 0.9), (1.0, 1.0)])
    assert pareto.knee(bent, NLL) == bent[1]
    assert pareto.knee(bent[:2], NLL) is None
    assert pareto.knee(records([(0.0, 0.0), (0.9, 0.1), (1.0, 1.0)]), NLL) is None
