"""How far generated showers are from a reference: every metric and plot of the evaluation."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from bitsearch.models.showers import classifier, histograms
from bitsearch.models.showers.files import Events
from bitsearch.models.showers.geometry import Geometry
from bitsearch.records import Evaluation, Quantity
from bitsearch.task import Progress

LEVELS: tuple[classifier.Level, ...] = ("low", "high")


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
