"""Metrics of classifiers against scikit-learn and cases counted by hand."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score, roc_curve

from bitsearch.core.measurement import Evaluation
from bitsearch.models.metrics import classification

# Ten quark and ten gluon jets; the cut at 0.5 keeps six quarks and two gluons.
QUARKS = [0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.45, 0.4, 0.3, 0.2]
GLUONS = [0.75, 0.55, 0.42, 0.35, 0.25, 0.18, 0.15, 0.1, 0.05, 0.02]
SCORES = np.array(QUARKS + GLUONS)
LABELS = np.arange(20) < 10


def sample(n: int = 3000, seed: int = 0, ties: bool = False) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    quark = rng.random(n) < 0.4
    scores = 1 / (1 + np.exp(-rng.normal(np.where(quark, 1.0, -1.0), 1.2)))
    return (np.round(scores, 1) if ties else scores), quark


@pytest.mark.parametrize("ties", [False, True])
def test_metrics_agree_with_scikit_learn(ties: bool) -> None:
    scores, quark = sample(ties=ties)
    found = classification.metrics(scores, quark)
    assert found["auc"].value == pytest.approx(roc_auc_score(quark, scores))
    assert found["accuracy"].value == pytest.approx(accuracy_score(quark, scores > 0.5))
    clipped = np.clip(scores, 1e-7, 1 - 1e-7)
    assert found["cross_entropy"].value == pytest.approx(log_loss(quark, clipped), rel=1e-5)
    gluon, efficiency, _ = roc_curve(quark, scores, drop_intermediate=False)
    for percent in (50, 30):
        distinct, first = np.unique(efficiency, return_index=True)
        expected = 1 / np.interp(percent / 100, distinct, gluon[first])
        assert found[f"rejection_{percent}"].value == pytest.approx(expected)


def test_by_hand() -> None:
    found = classification.metrics(SCORES, LABELS)
    assert found["accuracy"].value == pytest.approx((6 + 8) / 20)
    # Five quarks stand above the cut at 0.7, and one gluon, at 0.75.
    assert found["rejection_50"].value == pytest.approx(10)
    # Three quarks and no gluon: the ten gluons that there are bound the rejection.
    assert found["rejection_30"].value == pytest.approx(10)
    above = sum(q > g for q in QUARKS for g in GLUONS)
    assert found["auc"].value == pytest.approx(above / 100)


def test_rejection_is_linear_between_cuts() -> None:
    """One cut keeps all quarks and half of the gluons: half of the quarks come with a quarter of the gluons."""
    scores, quark = np.array([0.9] * 6 + [0.1] * 4), np.array([True] * 2 + [False] * 4 + [False] * 4)
    assert classification.rejection(scores, quark, 0.5) == pytest.approx(4.0)
    assert classification.rejection(scores, quark, 1.0) == pytest.approx(2.0)


def test_errors_are_the_spread_of_samples() -> None:
    found = [classification.metrics(*sample(seed=seed)) for seed in range(60)]
    for name in found[0]:
        spread = np.std([item[name].value for item in found])
        assert found[0][name].std == pytest.approx(spread, rel=0.5), name


def test_perfect_useless_and_one_sided_scores_stay_finite() -> None:
    quark = np.arange(100) % 2 == 0
    perfect = classification.metrics(quark.astype(float), quark)
    assert perfect["auc"].value == 1.0
    assert perfect["rejection_50"].value == 50
    useless = classification.metrics(np.full(100, 0.5), quark)
    assert useless["auc"].value == pytest.approx(0.5)
    assert useless["rejection_50"].value == pytest.approx(2)
    wrong = classification.metrics(1.0 - quark, quark)
    assert wrong["cross_entropy"].value == pytest.approx(-math.log(1e-7))
    for found in (perfect, useless, wrong, classification.metrics(SCORES[:10], LABELS[:10])):
        json.dumps({name: [item.value, item.std] for name, item in found.items()}, allow_nan=False)


def test_order_of_events_does_not_matter() -> None:
    scores, quark = sample(ties=True)
    order = np.random.default_rng(1).permutation(len(scores))
    for name, item in classification.metrics(scores, quark).items():
        assert classification.metrics(scores[order], quark[order])[name].value == pytest.approx(item.value)


def test_calibration_by_hand() -> None:
    """60 jets at 0.12 of which 6 are quarks, 19 at 0.5, which are too few, 40 at 1.0 of which 30 are quarks."""
    scores = np.repeat([0.12, 0.5, 1.0], [60, 19, 40])
    quark = np.concatenate([np.arange(60) < 6, np.arange(19) < 9, np.arange(40) < 30])
    mean, share = classification.calibration(scores, quark)
    assert np.flatnonzero(np.isfinite(mean)).tolist() == [2, 19]
    assert mean[[2, 19]] == pytest.approx([0.12, 1.0])
    assert share[[2, 19]] == pytest.approx([0.1, 0.75])


def test_true_probabilities_are_calibrated() -> None:
    rng = np.random.default_rng(3)
    scores = rng.random(50_000)
    mean, share = classification.calibration(scores, rng.random(50_000) < scores)
    assert np.abs(mean - share).max() < 0.03


def test_bands_are_spreads_over_trainings() -> None:
    scores, quark = sample()
    other = np.clip(scores + np.random.default_rng(0).normal(0, 0.05, len(scores)), 0, 1)
    trainings = [scores, other, 0.9 * scores]
    evaluation = classification.evaluation(trainings, quark, "digest")
    roc, rejections, calibration = evaluation.curves
    at = np.array(roc.positions)
    curves = [classification.gluon_efficiency(item, quark, at) for item in trainings]
    np.testing.assert_allclose(roc.values, np.mean(curves, 0))
    np.testing.assert_allclose(np.subtract(roc.high, roc.values), np.std(curves, 0, ddof=1), atol=1e-12)
    assert rejections.logarithmic
    assert min(rejections.low) >= 1
    assert calibration.diagonal
    (histogram,) = evaluation.histograms
    assert sum(histogram.generated) == quark.sum()
    assert sum(histogram.reference) == (~quark).sum()
    assert 0 < histogram.separation.value < 1
    assert Evaluation.from_json(evaluation.to_json()) == evaluation
    alone = classification.evaluation(trainings[:1], quark, "digest")
    assert {curve.low for curve in alone.curves} == {()}


def test_no_calibration_is_drawn_of_too_few_jets() -> None:
    few = classification.evaluation([np.linspace(0, 1, 100)], np.arange(100) % 2 == 0, "digest")
    assert [curve.name for curve in few.curves] == ["roc", "rejection"]


def test_metrics_over_trainings() -> None:
    scores, quark = sample()
    trainings = [scores, scores**2, np.sqrt(scores)]
    found = classification.over_trainings(trainings, quark)
    each = [classification.metrics(item, quark)["accuracy"].value for item in trainings]
    assert found["accuracy"].value == pytest.approx(np.mean(each))
    assert found["accuracy"].std == pytest.approx(np.std(each, ddof=1))
    assert found["accuracy"].n == 3
    assert found["auc"].std == pytest.approx(0, abs=1e-12)  # blind to the probabilities' scale
    single = classification.over_trainings([scores], quark)
    for name, quantity in classification.metrics(scores, quark).items():
        assert single[name] == replace(quantity, values=(quantity.value,))
