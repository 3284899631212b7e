"""SMEFTNet's task: its data, its loss, and what it measures and draws."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import wz_toy
from numpy.typing import NDArray

from bitsearch.core.errors import DataError
from bitsearch.core.task import Recipe, Task
from bitsearch.models.base import Sample
from bitsearch.models.jets import wz
from bitsearch.models.jets.files import Label
from bitsearch.models.metrics import angles
from bitsearch.models.smeftnet import task
from bitsearch.models.smeftnet.data import TARGET, columns
from bitsearch.models.smeftnet.tasks import SMEFTNetTask
from bitsearch.network.loop import train

TASK = task("wz", "smoke")
LABEL = Label("toy", "1", "wz", 0, {}, {})


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("wz") / "toy.h5"
    wz.write(path, wz_toy.jets(1200), LABEL)
    return path


@pytest.fixture(scope="module")
def data(file: Path) -> Sample:
    return TASK.load([file], 1, lambda _text, _share: None)


class Shifted:
    """A session that knows the truth and misses it by given amounts."""

    def __init__(self, data: Sample, miss: Any) -> None:
        self.truth = {
            pt.tobytes(): angle
            for jets in (data.validation, data.test)
            for pt, angle in zip(jets["pt"], jets[TARGET], strict=True)
        }
        self.miss = miss

    def run(self, outputs: Any, inputs: Mapping[str, NDArray[np.float32]]) -> list[Any]:
        assert set(inputs) == {"pt", "theta", "phi", "jet_pt"}
        truth = np.array([self.truth[pt.tobytes()] for pt in inputs["pt"]])
        return [truth - self.miss(truth)]


def test_jets_are_split_once(data: Sample) -> None:
    assert TASK.jets == 1000
    assert (data.events, len(data.validation[TARGET]), len(data.test[TARGET])) == (800, 100, 100)
    assert data.identity.generated
    assert {name: tuple(x.shape) for name, x in data.training.items()} == {
        "pt": (800, 16), "theta": (800, 16), "phi": (800, 16), "jet_pt": (800, 1), "angle": (800,)
    }  # fmt: skip
    parts = (data.training["pt"], data.validation["pt"], data.test["pt"])
    assert len({tuple(row) for part in parts for row in part.tolist()}) == 1000
    assert data.to("cpu").events == 800


def test_short_jets_are_padded() -> None:
    made = columns(wz_toy.jets(5, particles=10), 16)
    assert made["pt"].shape == (5, 16)
    assert not made["pt"][:, 10:].any()


def test_too_few_jets_are_refused(tmp_path: Path) -> None:
    wz.write(tmp_path / "few.h5", wz_toy.jets(3), LABEL)
    with pytest.raises(DataError, match="3 events leave"):
        TASK.load([tmp_path / "few.h5"], 1, lambda _text, _share: None)


def test_loss_is_blind_to_half_turns(data: Sample) -> None:
    network = TASK.network({}, 0).eval()
    rows, generator = torch.arange(50), torch.Generator()
    loss = TASK.loss(network, data, rows, generator)
    batch = {name: column[:50] for name, column in data.training.items()}
    truth = batch.pop(TARGET)
    expected = (1 - torch.cos(2 * (network(**batch)[0] - truth))).mean() / 2
    torch.testing.assert_close(loss, expected)
    turned = replace(data, training={**data.training, TARGET: data.training[TARGET] + math.pi})
    torch.testing.assert_close(TASK.loss(network, turned, rows, generator), loss, rtol=1e-4, atol=1e-5)


def test_a_search_measures_on_validation_and_reports_on_test(data: Sample) -> None:
    sessions = {"angle": Shifted(replace(data, test=data.validation), lambda truth: 0 * truth + 0.3)}
    assert TASK.measure(sessions, data)["sin2"].value == pytest.approx(math.sin(0.3) ** 2, rel=1e-4)
    with pytest.raises(KeyError):
        evaluate(TASK, list(sessions.values()), (), data)


def test_measure_and_yardstick(data: Sample) -> None:
    found = TASK.measure({"angle": Shifted(data, lambda truth: 0 * truth + 0.2 + math.pi)}, data)
    assert found["sin2"].value == pytest.approx(math.sin(0.2) ** 2, rel=1e-4)
    assert [found[name].value for name in ("q50", "q68", "q95")] == pytest.approx([0.2] * 3, rel=1e-4)
    assert found["sin2"].n == 100
    axis = {item.metric: item for item in TASK.yardsticks(data)}
    assert set(axis) == {"sin2", "q50", "q68", "q95"}
    assert axis["sin2"].name == "principal axis"
    assert axis["sin2"].quantity.value < 0.02
    assert {metric.name for metric in TASK.metrics} >= set(axis) | {TASK.objective}


def evaluate(made: SMEFTNetTask, sessions: Any, baseline: Any, data: Sample) -> Any:
    return made.evaluate(sessions, baseline, data, "d", 1, lambda _text, _share: None)


def test_evaluation_against_the_float_network(data: Sample) -> None:
    exact = Shifted(data, lambda truth: 0 * truth)
    sessions = [Shifted(data, lambda truth, s=shift: 0 * truth + s) for shift in (0.3, 0.5)]
    metrics, evaluation = evaluate(TASK, sessions, [exact, sessions[0]], data)
    assert metrics["wasserstein"].value == pytest.approx(0.4, rel=1e-4)
    assert metrics["wasserstein"].std == pytest.approx(0.2 / math.sqrt(2), rel=1e-3)
    assert (metrics["wasserstein"].n, metrics["sin2"].n) == (2, 2)
    assert metrics["separation_paper"].value == pytest.approx(2)
    names = [histogram.name for histogram in evaluation.histograms]
    assert names == ["residual", "residual-modulo-pi"]
    assert sum(evaluation.histograms[0].generated) == evaluation.events == 100
    assert evaluation.histograms[0].separation.value == pytest.approx(1)
    assert set(metrics) == {metric.name for metric in TASK.metrics}


def test_float_trainings_are_compared_with_their_first(data: Sample) -> None:
    sessions = [Shifted(data, lambda truth, s=shift: 0 * truth + s) for shift in (0.1, 0.2, 0.4)]
    metrics, _ = evaluate(TASK, sessions, sessions, data)
    assert metrics["wasserstein"].value == pytest.approx(0.2, rel=1e-4)
    assert metrics["wasserstein"].n == 2
    alone, evaluation = evaluate(TASK, single := sessions[:1], single, data)
    assert set(alone) == {"sin2", "q50", "q68", "q95"}
    assert evaluation.histograms[0].separation.value == 0


def test_without_a_float_network_nothing_is_compared(data: Sample) -> None:
    metrics, evaluation = evaluate(TASK, [Shifted(data, lambda truth: 0 * truth + 2 * math.pi)], (), data)
    assert set(metrics) == {"sin2", "q50", "q68", "q95"}
    assert evaluation.histograms == ()
    (drawn,) = evaluation.maps
    counts = np.array(drawn.counts)
    assert counts.shape == (30, 30)
    assert counts.sum() == 100
    # The prediction is wrapped, so that it equals the truth but for rounding at the edges of bins.
    assert np.trace(counts) > 95


def test_learns_the_decay_plane_of_the_toy(data: Sample) -> None:
    torch.manual_seed(0)
    network = TASK.network({}, 0)
    recipe = Recipe(250, 100, 5e-3, 0.0, 1e-8, schedule="linear")
    losses = [loss for _, loss in train(network, cast(Task, TASK), data, recipe, seed=1).losses]
    assert np.mean(losses[:3]) > 0.4
    assert np.mean(losses[-3:]) < 0.3
    test = {name: torch.from_numpy(column) for name, column in data.test.items()}
    truth = test.pop(TARGET)
    with torch.no_grad():
        residuals = truth - network(**test)[0]
    assert angles.spread(residuals.numpy())["sin2"].value < 0.45
