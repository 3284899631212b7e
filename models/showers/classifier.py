"""The classifier test of the CaloChallenge: can a network tell generated from reference showers?

Protocol and calibration follow the challenge's evaluation since November 2023. An AUC of 0.5 means it cannot;
a perfect generator scatters by a few 1e-3 around it, to either side.
"""

import copy
import math
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from typing import Literal

import numpy as np
import torch
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from bitsearch.core.errors import DataError
from bitsearch.core.measurement import Quantity
from bitsearch.core.task import Progress
from bitsearch.models.showers.features import compute, high_level
from bitsearch.models.showers.files import Events, validate
from bitsearch.models.showers.geometry import Array, Geometry

Level = Literal["low", "high"]
BATCH = 10_000


@dataclass(frozen=True)
class Protocol:
    """How classifiers are trained.

    `events` limits the events of each class, None takes all there are; `standardize` shifts and scales every
    input column to mean 0 and standard deviation 1, which the challenge does not do.
    """

    name: str
    events: int | None
    nodes: int
    epochs: int
    batch_size: int
    learning_rate: float
    dtype: torch.dtype
    standardize: bool


# The published protocol. A ds2 sample of 100,000 events needs about 30 GB of memory.
FULL = Protocol("full", None, 2048, 50, 1000, 2e-4, torch.float64, standardize=False)
# For laptops, a few seconds a repetition. With so few events a raw input hides what a standardised one shows:
# photons from a sampling term 20 % larger gave 0.51 raw and 0.71 standardised (high-level, 6,000 events).
FAST = Protocol("fast", 6000, 256, 20, 250, 1e-3, torch.float32, standardize=True)

PROTOCOLS = {protocol.name: protocol for protocol in (FULL, FAST)}

# Events for training, selection ("test" in the challenge) and evaluation ("val") in a whole file, per class.
_SPLIT = {"photon": (80_000, 20_000, 21_000), "pion": (80_000, 20_000, 20_800), "electron": (60, 20, 20)}


@dataclass(frozen=True)
class Score:
    """Means and standard deviations (ddof 0) over the repetitions, and how they came about."""

    level: Level
    protocol: Protocol
    split: tuple[int, int, int]
    auc: Quantity
    jsd: Quantity


def inputs(events: Events, geometry: Geometry, level: Level) -> Array:
    """Arrange what the classifier sees, `(events, columns)`.

    Low: log10 E_inc/MeV and all voxels above threshold over E_inc. High: the high-level features.
    """
    if level == "high":
        return high_level(compute(events.chunks(), geometry))
    incident = events.incident_mev[:, None].astype(np.float64)
    showers = events.above(geometry.threshold_mev).showers_mev
    return np.concatenate([np.log10(incident), showers / incident], axis=1)


def score(
    reference: Events,
    generated: Events,
    geometry: Geometry,
    level: Level,
    protocol: Protocol = FAST,
    repetitions: int = 1,
    seed: int = 0,
    device: str = "cpu",
    progress: Progress = lambda what, share: None,
) -> Score:
    """Train and evaluate `repetitions` classifiers, each with its own split, subset and initialisation.

    Raises:
        DataError: If there are too few events to split, or an energy is NaN, infinite or negative.
    """
    for name, sample in (("reference showers", reference), ("generated showers", generated)):
        validate(name, sample)
    events = min(len(reference), len(generated), protocol.events or len(reference))
    split = split_counts(events, geometry)
    x = np.concatenate([inputs(item, geometry, level) for item in (generated, reference)])
    if protocol.standardize:
        scale = x.std(axis=0)
        x -= x.mean(axis=0)
        x /= np.where(scale > 0, scale, 1)
    rows = torch.from_numpy(x).to(device, protocol.dtype)
    results = []
    for i in range(repetitions):
        progress(f"classifier on {level}-level input", i / repetitions)
        with torch.random.fork_rng():
            torch.manual_seed(seed * 1_000_003 + i)
            results.append(_train(rows, len(generated), split, protocol))
    progress(f"classifier on {level}-level input", 1.0)
    auc, jsd = (
        Quantity(float(np.mean(v)), float(np.std(v)), repetitions) for v in zip(*results, strict=True)
    )
    return Score(level, protocol, split, auc, jsd)


def split_counts(events: int, geometry: Geometry) -> tuple[int, int, int]:
    """Share the events of a class among training, selection and evaluation as the challenge does.

    Raises:
        DataError: If one of the three gets none.
    """
    parts = _SPLIT[geometry.particle]
    train, test = (events * part // sum(parts) for part in parts[:2])
    if not test:
        raise DataError(
            f"{events} events of each class cannot be split for the classifier; expected 10 or more"
        )
    return train, test, events - train - test


def network(columns: int, nodes: int) -> nn.Sequential:
    """Build the challenge's classifier, `(batch, columns)` to logits `(batch, 1)`."""
    sizes = [columns, nodes, nodes, nodes]
    hidden = [(nn.Linear(a, b), nn.LeakyReLU(0.01)) for a, b in pairwise(sizes)]
    return nn.Sequential(*chain.from_iterable(hidden), nn.Linear(nodes, 1))


def _train(x: Tensor, generated: int, split: tuple[int, int, int], protocol: Protocol) -> tuple[float, float]:
    """Train on a random split, keep the epoch with the best accuracy on the second part, give (AUC, JSD)."""
    train, test, val = (rows.to(x.device) for rows in _draw(generated, len(x) - generated, split))
    labels = (torch.arange(len(x)) >= generated).to(x)
    model = network(x.shape[1], protocol.nodes).to(x)
    optimizer = torch.optim.Adam(model.parameters(), protocol.learning_rate)
    loss = nn.BCEWithLogitsLoss()
    best, best_accuracy = model.state_dict(), 0.0
    for _ in range(protocol.epochs):
        order = train[torch.randperm(len(train)).to(x.device)]
        for start in range(0, len(order), protocol.batch_size):
            rows = order[start : start + protocol.batch_size]
            optimizer.zero_grad()
            loss(model(x[rows])[:, 0], labels[rows]).backward()
            optimizer.step()
        right = (_probabilities(model, x[test]) > 0.5) == (labels[test].cpu().numpy() > 0.5)
        if right.mean() > best_accuracy:
            best, best_accuracy = copy.deepcopy(model.state_dict()), float(right.mean())
        if best_accuracy == 1:
            break
    model.load_state_dict(best)
    y_test, y_val = (labels[rows].cpu().numpy() for rows in (test, val))
    return evaluate(_probabilities(model, x[test]), y_test, _probabilities(model, x[val]), y_val)


def _draw(generated: int, reference: int, split: tuple[int, int, int]) -> list[Tensor]:
    """Draw the rows of the three parts, each with equally many generated and reference events."""
    first, second = torch.randperm(generated), generated + torch.randperm(reference)
    edges = pairwise((0, *accumulate(split)))
    return [torch.cat([first[low:high], second[low:high]]) for low, high in edges]


@torch.no_grad()
def _probabilities(model: nn.Module, x: Tensor) -> Array:
    logits = torch.cat([model(x[i : i + BATCH])[:, 0] for i in range(0, len(x), BATCH)])
    return torch.sigmoid(logits).double().cpu().numpy()


def evaluate(test: Array, test_labels: Array, val: Array, val_labels: Array) -> tuple[float, float]:
    """Calibrate probabilities on one set by isotonic regression, give AUC and JSD of another, calibrated.

    JSD = (ln 2 - binary cross-entropy) / ln 2.
    """
    calibration = IsotonicRegression(out_of_bounds="clip", y_min=1e-6, y_max=1 - 1e-6).fit(test, test_labels)
    p = calibration.predict(val)
    entropy = -np.mean(np.where(val_labels > 0.5, np.log(p), np.log1p(-p)))
    return float(roc_auc_score(val_labels, p)), float(1 - entropy / math.log(2))
