"""Records survive the round trip through JSON, and say no to what JSON cannot hold."""

import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitsearch.core.measurement import (
    Evaluation,
    Histogram,
    Latency,
    Measurement,
    Parity,
    Profile,
    Quantity,
    finite,
    over_trainings,
)

numbers = st.floats(allow_nan=False, allow_infinity=False)
counts = st.integers(0, 2**40)
texts = st.text(max_size=8)
shares = st.floats(0, 1)
quantities = st.builds(Quantity, numbers, st.none() | numbers, counts)
latencies = st.builds(Latency, counts, counts, texts, numbers, numbers, counts)
parities = st.builds(Parity, numbers, counts, numbers, st.none() | numbers, counts)
measurements = st.builds(
    Measurement,
    digest=texts,
    origin=texts,
    assignment=st.dictionaries(texts, st.sampled_from(["float32", "ternary", "binary"]), max_size=3),
    options=st.dictionaries(texts, texts, max_size=3),
    fraction=shares,
    weight_fraction=shares,
    executed_fraction=shares,
    fidelity=st.sampled_from(["shared-weights", "finetuned", "full"]),
    seed=counts,
    metrics=st.dictionaries(texts, quantities, max_size=3),
    size_bytes=counts,
    latency_us=st.lists(latencies, max_size=3).map(tuple),
    parity=st.none() | parities,
    train_seconds=numbers,
    model=st.none() | texts,
    failure=st.none() | texts,
)
series = st.lists(numbers, max_size=4).map(tuple)
histograms = st.builds(Histogram, texts, texts, series, series, series, quantities, st.booleans())
profiles = st.builds(Profile, texts, texts, texts, series, series, series)
evaluations = st.builds(
    Evaluation,
    texts,
    counts,
    st.lists(histograms, max_size=2).map(tuple),
    st.lists(profiles, max_size=2).map(tuple),
)

CONTRACT = {
    "digest", "origin", "assignment", "options", "fraction", "weight_fraction", "executed_fraction", "metrics",
    "fidelity", "size_bytes", "latency_us", "parity", "train_seconds", "seed",
}  # fmt: skip


@given(item=measurements)
def test_measurement_survives_a_line_of_json(item: Measurement) -> None:
    line = item.to_json()
    assert "\n" not in line
    assert Measurement.from_json(line) == item
    assert json.loads(line).keys() >= CONTRACT


@given(item=evaluations)
def test_evaluation_survives_json(item: Evaluation) -> None:
    assert Evaluation.from_json(item.to_json()) == item


def measurement() -> Measurement:
    return Measurement("d", "search", {"a": "ternary"}, {"o": "x"}, 0.5, 0.5, 0.5, "full", 1)


def test_unknown_keys_of_a_later_version_are_left_out() -> None:
    raw = json.loads(measurement().to_json()) | {"invented": 1}
    assert Measurement.from_json(json.dumps(raw)) == measurement()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_that_json_lacks_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        dataclasses.replace(measurement(), metrics={"nll": Quantity(value)}).to_json()
    assert finite(value) is None
    assert finite(1.5) == 1.5


def test_strategy_is_read_from_the_origin() -> None:
    assert measurement().strategy is None
    assert dataclasses.replace(measurement(), origin="baseline:all").strategy == "all"
    assert dataclasses.replace(measurement(), origin="final").strategy is None


def test_configuration_is_what_was_measured() -> None:
    configuration = measurement().configuration
    assert configuration.assignment.quantized == ("a",)
    assert dict(configuration.options) == {"o": "x"}


def test_values_of_single_trainings_are_kept_in_order() -> None:
    """So that two configurations can be compared training by training."""
    repeated = [{"nll": Quantity(value, 0.5, 100)} for value in (3.0, 1.0, 2.0)]
    assert over_trainings(repeated)["nll"] == Quantity(2.0, 1.0, 3, (3.0, 1.0, 2.0))
    assert over_trainings(repeated[:1])["nll"] == Quantity(3.0, 0.5, 100, (3.0,))
    assert over_trainings([]) == {}
