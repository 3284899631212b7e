"""What configurations may cost."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitsearch.core.budget import Budget, Limits, bytes_of
from bitsearch.core.errors import ConfigurationError
from bitsearch.core.front import Front
from bitsearch.core.measurement import Latency, Measurement, Metric, Quantity

AUC = Metric("auc", "AUC", "", "maximize", "")
NLL = Metric("nll", "NLL", "nats", "minimize", "")


def item(digest: str, fraction: float, value: float, size: int, latency: float = 10.0) -> Measurement:
    times = (Latency(1000, 1, "portable", 5e5, 0, 3), Latency(1, 1, "portable", latency, 0, 3))
    return Measurement(
        digest, "final", {}, {}, fraction, fraction, fraction, "full", 1,
        {"nll": Quantity(value), "auc": Quantity(value)}, size, times,
    )  # fmt: skip


FLOAT = item("float", 0.0, 10.0, 4000)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1500", 1500),
        ("3MB", 3e6),
        ("300 kB", 3e5),
        ("2MiB", 2 * 2**20),
        ("2.5kb", 2500),
        (".5GB", 5e8),
        ("7B", 7),
    ],
)
def test_sizes_are_read(text: str, expected: float) -> None:
    assert bytes_of(text) == expected


@pytest.mark.parametrize("text", ["", "MB", "3XB", "-1", "1e6", "3MB4", "nan"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a size such as 300kB"):
        bytes_of(text)


def test_each_limit_is_held_at_its_value() -> None:
    candidate = item("a", 0.5, 12.0, 3000, 20.0)
    for kept in (Limits(max_size_bytes=3000), Limits(max_loss=2.0), Limits(max_latency_us=20.0), Limits()):
        assert kept.keeps(candidate, FLOAT, NLL)
    for broken in (Limits(max_size_bytes=2999), Limits(max_loss=1.9), Limits(max_latency_us=19.9)):
        assert not broken.keeps(candidate, FLOAT, NLL)


def test_loss_points_to_worse_values() -> None:
    better, worse = item("a", 0.5, 10.5, 1), item("b", 0.5, 9.5, 1)
    limits = Limits(max_loss=0.1)
    assert limits.keeps(better, FLOAT, AUC)
    assert not limits.keeps(worse, FLOAT, AUC)
    assert limits.keeps(worse, FLOAT, NLL)


def test_failures_are_within_no_loss() -> None:
    failed = replace(item("a", 0.5, 10.0, 1), metrics={}, failure="nan")
    assert not Limits(max_loss=1.0).keeps(failed, FLOAT, NLL)
    assert Limits(max_loss=1.0).keeps(item("b", 0.5, 99.0, 1), failed, NLL)


def test_front_is_that_of_what_keeps_to_the_limits() -> None:
    measured = [
        FLOAT,
        item("small", 0.9, 14.0, 900),
        item("middle", 0.5, 11.0, 2000),
        item("poor", 0.7, 20.0, 1500),
    ]
    everything = Front.of(measured, NLL, ["float", "poor"])
    assert [member.digest for member in everything.members] == ["float", "middle", "small"]
    within = Front.of(measured, NLL, ["float", "poor"], Limits(max_size_bytes=2000, max_loss=2.0))
    assert [member.digest for member in within.members] == ["middle"]
    assert within.reference == everything.reference
    # Worst 10 + 1.1 · (20 - 10) = 21: a box of (21 - 11) · 0.5.
    assert within.hypervolume == pytest.approx(5.0)
    assert Front.of(measured, NLL, ["float", "poor"], Limits(max_size_bytes=1)).members == ()


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"max_size_bytes": 0}, "--max-size 0: expected more than 0"),
        ({"max_latency_us": float("nan")}, "--max-latency nan: expected more than 0"),
        ({"max_loss": -1}, "--max-loss -1: expected 0 or more"),
    ],
)
def test_limits_that_nothing_keeps_are_refused(limits: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Limits(**limits)


@given(st.floats(0, 100), st.lists(st.floats(-50, 0), min_size=1, max_size=5))
def test_budgets_add_up(base: float, changes: list[float]) -> None:
    names = [str(index) for index in range(len(changes))]
    table = {name: (0.0, change) for name, change in zip(names, changes, strict=True)}
    budget = Budget("--max-size", base + sum(changes) + 1e-6, {("a",): base}, table)
    assert budget.predicted(("a",), dict.fromkeys(names, 0)) == base
    assert budget.predicted(("a",), dict.fromkeys(names, 1)) == pytest.approx(base + sum(changes))
    budget.check(dict.fromkeys(names, 2))
    kept = dict.fromkeys(names, 1)
    if sum(changes) < -1e-3:
        with pytest.raises(ConfigurationError, match=r"--max-size .* cannot be reached: the least is about"):
            budget.check(kept)
