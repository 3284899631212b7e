"""How far generated showers are from a reference: every metric and plot of the evaluation."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitsearch.core.measurement import Evaluation, Quantity
from bitsearch.core.task import Progress, Session
from bitsearch.models.showers import classifier, dataset, files, histograms
from bitsearch.models.showers.dataset import ShowerData
from bitsearch.models.showers.files import Events
from bitsearch.models.showers.geometry import Geometry

LEVELS: tuple[classifier.Level, ...] = ("low", "high")
SHOWERS = "showers"
"""Name of every sampler's output; its other input is `incident_energy`."""
BATCH = 1000

Noise = Callable[[int, np.random.Generator], Mapping[str, NDArray[np.float32]]]
"""Draws a sampler's inputs beside the incident energies, for a batch of a given size."""


@dataclass(frozen=True)
class EvaluationSettings:
    """How many events are compared, by which classifier protocol and with how many repetitions of it."""

    events: int
    classifier: str
    repetitions: int


def compare(
    reference: Events,
    generated: Events,
    geometry: Geometry,
    settings: EvaluationSettings,
    digest: str,
    seed: int,
    progress: Progress,
) -> tuple[Mapping[str, Quantity], Evaluation]:
    """Compute classifier AUCs, separation powers, histograms and layer profiles of two sets of showers.

    Raises:
        DataError: there are too few events to split for a classifier.
    """
    compared = histograms.compare(reference, generated, geometry)
    separations = [item.separation for item in compared]
    spread = math.sqrt(sum((item.std or 0.0) ** 2 for item in separations)) / len(separations)
    mean = sum(item.value for item in separations) / len(separations)
    metrics = {"separation": Quantity(mean, spread, len(separations))}
    protocol = classifier.PROTOCOLS[settings.classifier]
    for level in LEVELS:
        score = classifier.score(
            reference, generated, geometry, level, protocol, settings.repetitions, seed, progress=progress
        )
        metrics[f"auc_{level}"] = score.auc
    profiles = histograms.profiles(reference, generated, geometry)
    return metrics, Evaluation(digest, len(generated), compared, profiles)


def compare_sampler(
    session: Session,
    noise: Noise,
    data: ShowerData,
    settings: EvaluationSettings,
    digest: str,
    seed: int,
    progress: Progress,
) -> tuple[Mapping[str, Quantity], Evaluation]:
    """Generate a shower for the energy of each reference event and compare; those not finite are lost and counted."""
    reference = data.reference(settings.events, seed)
    rng = np.random.default_rng(seed)
    incident = rng.permutation(reference.incident_mev).astype(np.float32)
    parts = []
    for start in range(0, len(incident), BATCH):
        batch = incident[start : start + BATCH, None]
        parts.append(session.run([SHOWERS], {**noise(len(batch), rng), "incident_energy": batch})[0])
        progress("generating showers", start / len(incident))
    events = Events(incident, np.concatenate(parts))
    finite = np.isfinite(events.showers_mev).all(1)
    generated = events[np.flatnonzero(finite)]
    metrics, evaluation = compare(reference, generated, data.geometry, settings, digest, seed, progress)
    lost = int(len(finite) - finite.sum())
    return {**metrics, "lost_events": Quantity(lost, None, len(reference))}, evaluation


def compare_file(
    path: Path, data: ShowerData, settings: EvaluationSettings, digest: str, seed: int, progress: Progress
) -> tuple[Mapping[str, Quantity], Evaluation]:
    """Compare showers that anyone generated, in a CaloChallenge file, with the reference.

    Raises:
        DataError: the file is missing, foreign or unphysical.
    """
    summary = files.check(path, dataset.in_files(data.geometry))
    rows = np.random.default_rng(seed).permutation(summary.events)[: settings.events]
    generated = dataset.read(path, data.geometry, np.sort(rows))
    reference = data.reference(settings.events, seed)
    return compare(reference, generated, data.geometry, settings, digest, seed, progress)
