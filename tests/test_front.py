"""What is said of a front as a whole, against values found by hand."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic_run import complete
from test_pareto import AUC, NLL, record

from bitsearch.core.errors import RecordError
from bitsearch.core.front import Front, Reference
from bitsearch.core.measurement import Measurement, Quantity


def spread(item: Measurement, std: float) -> Measurement:
    quantity = Quantity(item.metrics["nll"].value, std, 3)
    return replace(item, metrics={"nll": quantity, "auc": quantity})


FLOAT, ALL = spread(record("float", 10.0, 0.0), 0.3), record("all", 20.0, 0.9)
FOUND = [spread(record("half", 10.5, 0.5), 0.4), spread(record("more", 12.0, 0.8), 0.4)]


def test_numbers_by_hand() -> None:
    """The box goes from 10 to 21, so its area is 11; the steps below 21 are 10.5, 9 and 1 high."""
    front = Front.of([ALL, *FOUND, FLOAT], NLL, ["float", "all"])
    assert [item.digest for item in front.members] == ["float", "half", "more", "all"]
    assert front.reference == Reference(worst=21.0, ideal=10.0)
    area = 0.5 * 10.5 + 0.3 * 9 + 0.1 * 1
    assert front.hypervolume == pytest.approx(area)
    assert front.relative_hypervolume == pytest.approx(area / 11)
    assert front.performance_per_quantized_fraction == pytest.approx(area / 11 / 0.9)
    assert front.knee == "more"
    # 0.5 worse, and the standard deviation of the difference is 0.5; 2.0 worse is beyond it.
    assert front.tolerance_pick == "half"


def test_the_reference_is_that_of_the_handmade_alone() -> None:
    diverged = record("diverged", 1e6, 0.95)
    assert Front.of([FLOAT, ALL, diverged], NLL, ["float", "all"]).reference == Reference(21.0, 10.0)


def test_maximised_objectives_mirror() -> None:
    high, low = record("float", 0.9, 0.0), record("all", 0.7, 1.0)
    front = Front.of([high, low], AUC, ["float", "all"])
    assert front.reference is not None
    assert (front.reference.worst, front.reference.ideal) == pytest.approx((0.68, 0.9))
    assert front.hypervolume == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("measured", "strategies"), [([ALL], ["float", "all"]), ([FLOAT, *FOUND], ["float"]), ([], ["float"])]
)
def test_without_a_reference_nothing_is_claimed(measured: list[Measurement], strategies: list[str]) -> None:
    front = Front.of(measured, NLL, strategies)
    assert (front.reference, front.hypervolume, front.relative_hypervolume) == (None, None, None)
    assert front.performance_per_quantized_fraction is None


def test_unknown_spreads_give_no_tolerance_pick() -> None:
    assert Front.of([FLOAT, record("half", 10.0, 0.5)], NLL, ["float"]).tolerance_pick is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 2}, "format 2, expected 1"),
        ({"knee": "0" * 12}, "knee 000000000000 is none of its members"),
    ],
)
def test_a_front_that_contradicts_itself_is_refused(
    tmp_path: Path, change: dict[str, object], words: str
) -> None:
    folder = complete(tmp_path / "run")
    file = folder.path / "front.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(RecordError, match=words):
        folder.front()
