import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from bitsearch.core.errors import DataError
from bitsearch.models.showers.classifier import (
    FAST,
    FULL,
    PROTOCOLS,
    evaluate,
    inputs,
    network,
    score,
    split_counts,
)
from bitsearch.models.showers.detector import STACKS
from bitsearch.models.showers.files import Events
from bitsearch.models.showers.generator import incident_energies, simulate
from bitsearch.models.showers.geometry import build, embedded

TOY = build("toy", "electron", {0: ((0.0, 1.0, 2.0), 2)})
TINY = replace(FAST, events=1000, nodes=32, epochs=5, batch_size=100)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Keep small matrices on one core: more threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def toy(factor: float, seed: int, events: int = 1000) -> Events:
    rng = np.random.default_rng(seed)
    return Events(np.full(events, 100.0), factor * rng.gamma(9.0, 1.0, (events, 4)))


@pytest.mark.parametrize(
    ("columns", "parameters"),
    [
        (369, 9_152_513),
        (534, 9_490_433),
        (6481, 21_669_889),
        (30, 8_458_241),
        (46, 8_491_009),
        (362, 9_138_177),
    ],
)
def test_parameter_counts_are_the_challenges(columns: int, parameters: int) -> None:
    with torch.device("meta"):
        model = network(columns, FULL.nodes)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert sum(isinstance(layer, torch.nn.LeakyReLU) for layer in model) == 3


def test_protocols() -> None:
    assert (FULL.nodes, FULL.epochs, FULL.batch_size, FULL.learning_rate) == (2048, 50, 1000, 2e-4)
    assert FULL.dtype is torch.float64
    assert FULL.events is None
    assert not FULL.standardize
    assert PROTOCOLS == {"full": FULL, "fast": FAST}


@pytest.mark.parametrize(
    ("name", "events", "expected"),
    [
        ("ds1-photon", 121_000, (80_000, 20_000, 21_000)),
        ("ds1-pion", 120_800, (80_000, 20_000, 20_800)),
        ("ds2", 100_000, (60_000, 20_000, 20_000)),
        ("ds1-photon", 6_000, (3966, 991, 1043)),
    ],
)
def test_splits_are_the_challenges(name: str, events: int, expected: tuple[int, int, int]) -> None:
    assert split_counts(events, embedded(name)) == expected


@pytest.mark.parametrize("name", ["ds1-photon", "ds1-pion"])
def test_low_level_input(name: str) -> None:
    geometry = embedded(name)
    events = simulate(np.random.default_rng(0), name, incident_energies(name, 20, 0, "test"))
    events.showers_mev[:, 0] = 0.5
    table = inputs(events, geometry, "low")
    assert table.shape == (20, 1 + geometry.voxels)
    np.testing.assert_allclose(table[:, 0], np.log10(events.incident_mev))
    assert (table[:, 1] == 0).all()
    np.testing.assert_allclose(table[:, 2:] * events.incident_mev[:, None], events.showers_mev[:, 1:])


def test_evaluation_of_useless_and_perfect_outputs() -> None:
    labels = np.tile([0.0, 1.0], 500)
    auc, jsd = evaluate(np.full(1000, 0.9), labels, np.full(1000, 0.9), labels)
    assert auc == 0.5
    assert jsd == pytest.approx(0, abs=1e-12)
    auc, jsd = evaluate(labels, labels, labels, labels)
    assert auc == 1.0
    assert jsd == pytest.approx(1, abs=1e-4)


def test_calibration_by_hand() -> None:
    # Outputs 0.1, 0.2 hold one positive in four, 0.8 three in four: isotonic regression gives 1/4 and 3/4.
    test = np.array([0.1, 0.1, 0.2, 0.2, 0.8, 0.8, 0.8, 0.8])
    test_labels = np.array([0, 1, 0, 0, 1, 1, 1, 0], float)
    val, val_labels = np.array([0.05, 0.2, 0.8, 0.99]), np.array([0.0, 1.0, 0.0, 1.0])
    auc, jsd = evaluate(test, test_labels, val, val_labels)
    entropy = -(2 * math.log(0.75) + 2 * math.log(0.25)) / 4
    assert jsd == pytest.approx(1 - entropy / math.log(2))
    assert auc == pytest.approx((0.5 + 1 + 0 + 0.5) / 4)  # ties count one half


def test_separable_samples() -> None:
    result = score(toy(1, 0), toy(4, 1), TOY, "low", TINY, repetitions=2)
    assert result.auc.value > 0.99
    assert result.jsd.value > 0.9
    assert result.auc.n == 2
    assert result.split == (600, 200, 200)
    assert result.protocol is TINY


def test_identical_samples() -> None:
    result = score(toy(1, 0, 3000), toy(1, 1, 3000), TOY, "high", replace(TINY, events=None), repetitions=3)
    assert result.auc.value == pytest.approx(0.5, abs=0.04)
    assert result.jsd.value < 0.02
    assert result.split == (1800, 600, 600)


def test_known_overlap() -> None:
    # Gamma(9) against 1.2 Gamma(9) in one direction: the best AUC is that of the sum of four voxels.
    a, b = toy(1, 0, 4000), toy(1.2, 1, 4000)
    best = (b.showers_mev.sum(axis=1)[:, None] > a.showers_mev.sum(axis=1)[None, :]).mean()
    result = score(a, b, TOY, "low", replace(TINY, events=4000), repetitions=2)
    assert result.auc.value == pytest.approx(best, abs=0.03)


def test_scores_are_reproducible_and_leave_the_random_state() -> None:
    torch.manual_seed(11)
    state = torch.get_rng_state()
    quick = replace(TINY, epochs=2)
    results = [score(toy(1, 0), toy(1.5, 1), TOY, "low", quick, 2, seed) for seed in (3, 3, 4)]
    assert results[0] == results[1]
    assert results[0].auc != results[2].auc
    assert torch.equal(torch.get_rng_state(), state)


def test_full_protocol_runs_at_reduced_size() -> None:
    small = replace(FULL, nodes=16, epochs=1)
    result = score(toy(1, 0, 50), toy(1, 1, 40), TOY, "low", small)
    assert result.split == (24, 8, 8)


def test_larger_sampling_term_is_seen() -> None:
    name = "ds1-photon"
    incident = incident_energies(name, 4000, 0, "test")
    stack = STACKS[name]
    wide = replace(stack, mediums=tuple(replace(m, sampling=1.2 * m.sampling) for m in stack.mediums))
    samples = [
        simulate(np.random.default_rng(i), name, incident, s) for i, s in enumerate((stack, stack, wide))
    ]
    protocol = replace(FAST, events=4000, nodes=128, batch_size=100)
    same = score(samples[0], samples[1], embedded(name), "high", protocol)
    other = score(samples[0], samples[2], embedded(name), "high", protocol)
    assert abs(same.auc.value - 0.5) < 0.05
    assert other.auc.value > 0.6


def test_too_few_events_are_refused() -> None:
    with pytest.raises(DataError, match="3 events of each class"):
        score(toy(1, 0, 3), toy(1, 1), TOY, "low", TINY)


def test_nan_is_refused() -> None:
    broken = toy(1, 0)
    broken.showers_mev[5, 2] = np.nan
    with pytest.raises(DataError, match="generated showers: event 5 has voxel 2 = nan"):
        score(toy(1, 1), broken, TOY, "high", TINY)
