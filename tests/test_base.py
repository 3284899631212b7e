"""Defaults of tasks, and events in three sets."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import wz_toy
from torch import nn

from bitsearch.core.errors import DataError
from bitsearch.core.measurement import Metric, Quantity
from bitsearch.core.task import DataIdentity
from bitsearch.models import caloinn, smeftnet
from bitsearch.models.base import Sample, TaskBase, split
from bitsearch.models.jets import wz
from bitsearch.models.jets.files import Label


class Mean(TaskBase):
    """The shortest task: it measures how far the mean output is from the mean target."""

    metrics = (Metric("distance", "Distance", "", "minimize", "of means"),)

    def network(self, _options: Mapping[str, str], _seed: int) -> nn.Module:
        return nn.Linear(2, 1)

    def inputs(self, batch: int, seed: int) -> Mapping[str, Any]:
        return {"x": np.random.default_rng(seed).standard_normal((batch, 2), np.float32)}

    def measure(self, sessions: Mapping[str, Any], data: Any) -> Mapping[str, Quantity]:
        (found,) = sessions["network"].run(None, {"x": data.validation["x"]})
        return {
            "distance": Quantity(abs(float(found.mean() - data.validation["y"].mean())), None, len(found))
        }


class Constant:
    """A session whose output is everywhere the same."""

    def __init__(self, value: float) -> None:
        self.value = value

    def run(self, _outputs: Any, inputs: Mapping[str, Any]) -> list[Any]:
        return [np.full((len(inputs["x"]), 1), self.value)]


def sample() -> Sample:
    rng = np.random.default_rng(1)
    columns = {"x": rng.standard_normal((100, 2)).astype(np.float32), "y": np.arange(100, dtype=np.float32)}
    return Sample.split(columns, DataIdentity(True, "numbers", ()), seed=3)


def test_a_short_task_is_evaluated_on_test_events() -> None:
    task, data = Mean("numbers", "smoke"), sample()
    assert (task.model, task.objective, task.measured) == ("test_base", "distance", ("network",))
    assert set(task.settings) == {"recipes"}
    sessions = [Constant(value) for value in (0.0, 2.0)]
    found, evaluation = task.evaluate(sessions, [], data, "d", 0, lambda *_: None)
    expected = [abs(value - float(data.test["y"].mean())) for value in (0.0, 2.0)]
    assert found["distance"].value == pytest.approx(np.mean(expected))
    assert found["distance"].n == 2
    assert evaluation.events == len(data.test["y"]) == 10
    assert task.graphs(task.network({}, 0))["network"].inputs.keys() == {"x"}


def rows(*columns: Any) -> set[bytes]:
    return {row.tobytes() for row in np.concatenate([np.asarray(item) for item in columns], 1)}


def test_held_out_events_are_in_no_other_set(shower_file: Path, tmp_path: Path) -> None:
    """What finals are measured on was neither trained on nor looked at by the search."""
    data = caloinn.task(preset="smoke").load([shower_file], 1, lambda *_: None)
    train = rows(data.columns, data.condition)
    validation = rows(data.validation_columns, data.validation_condition)
    held_out = data.held_out
    test = rows(held_out.validation_columns, held_out.validation_condition)
    assert len(test) == 2 * len(validation)
    assert not test & (train | validation)
    assert torch.equal(held_out.columns, data.columns)

    wz.write(tmp_path / "toy.h5", wz_toy.jets(400), Label("toy", "1", "wz", 0, {}, {}))
    jets = smeftnet.task(preset="smoke").load([tmp_path / "toy.h5"], 1, lambda *_: None)
    sets = [rows(item["pt"]) for item in (jets.training, jets.validation, jets.held_out.validation)]
    assert len(set.union(*sets)) == sum(map(len, sets)) == 400


def test_split() -> None:
    parts = split(101, 7)
    sizes = [len(part) for part in (parts.train, parts.validation, parts.test)]
    assert sizes == [81, 10, 10]
    rows = np.concatenate([parts.train, parts.validation, parts.test])
    np.testing.assert_array_equal(np.sort(rows), np.arange(101))
    np.testing.assert_array_equal(split(101, 7).test, parts.test)
    assert not np.array_equal(split(101, 8).test, parts.test)
    assert len(split(100, 1, 0.2, 0.3).test) == 30
    with pytest.raises(DataError, match="4 events leave 4 to train, 0 to validate and 0 to test"):
        split(4, 1)
