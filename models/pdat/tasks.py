"""P-DAT's task: its jets, its loss, what is exported, and its metrics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from bitsearch.core.measurement import Evaluation, Metric, Quantity, Yardstick
from bitsearch.core.task import Graph, Progress, Recipes, Session
from bitsearch.models.base import TaskBase
from bitsearch.models.metrics import classification
from bitsearch.models.pdat import published_weights as authors_pdat
from bitsearch.models.pdat.data import PreparedJets, load
from bitsearch.models.pdat.graphs import Classifier, preparation
from bitsearch.models.pdat.network import PDAT, Architecture
from bitsearch.models.pdat.pair_features import (
    CODES,
)

BATCH = 500
PROBABILITY = "quark_probability"
CONSTITUENT = ("pt", "eta", "phi", "pdg_id")


HOW = "mean over n trainings and their standard deviation, on the same held-out jets"
METRICS = (
    Metric("cross_entropy", "Cross entropy", "nats", "minimize", HOW),
    Metric("accuracy", "Accuracy", "", "maximize", HOW),
    Metric("auc", "AUC", "", "maximize", HOW),
    Metric("rejection_50", "Gluon rejection at 50 % quark efficiency", "", "maximize", HOW),
    Metric("rejection_30", "Gluon rejection at 30 % quark efficiency", "", "maximize", HOW),
)


@dataclass(frozen=True, kw_only=True)
class PDATTask(TaskBase):
    """P-DAT on quark and gluon jets: what `bitsearch.core.task.Task` asks for.

    The search follows the cross entropy: it uses every jet's probability and so tells configurations apart that
    agree within the error of their AUC.
    """

    dataset: str
    preset: str
    architecture: Architecture
    most_jets: int | None
    recipes: Recipes
    latency_batches: tuple[int, ...]
    model: str = "pdat"
    metrics: tuple[Metric, ...] = METRICS
    objective: str = "cross_entropy"
    served: str = "classifier"
    measured: tuple[str, ...] = ("classifier",)

    def network(self, options: Mapping[str, str], seed: int) -> PDAT:
        """Build the float network; it has no options."""
        return PDAT(self.architecture)

    def load(self, paths: Sequence[Path], seed: int, progress: Progress) -> PreparedJets:
        """Read files of quark and gluon jets, or the sample that comes with the package."""
        a = self.architecture
        return load(paths, preparation(a), a.slots, self.most_jets, seed, progress)

    def loss(self, network: PDAT, data: PreparedJets, indices: Tensor, generator: torch.Generator) -> Tensor:
        """Compute the mean cross entropy; dropout follows from the generator's seed."""
        torch.manual_seed(generator.initial_seed())  # what nn.Dropout draws from
        output = network(data.inputs(indices))
        if self.architecture.loss == "double_softmax":
            output = torch.softmax(output, 1)
        return functional.cross_entropy(output, data.quark[indices])

    def graphs(self, network: PDAT) -> Mapping[str, Graph]:
        """Give the classifier, which is served and measured."""
        example = {name: torch.from_numpy(x) for name, x in self.inputs(2, 0).items()}
        doc = "constituents: pT in GeV, rapidity, azimuth in rad, PDG id, zero-padded -> quark probability"
        return {"classifier": Graph(Classifier(network), example, (PROBABILITY,), doc)}

    def inputs(self, batch: int, seed: int) -> Mapping[str, NDArray[np.float32]]:
        """Draw jets of about 40 particles around random axes, with 525 GeV in all."""
        rng, slots = np.random.default_rng(seed), self.architecture.slots
        count = rng.integers(10, min(slots, 80) + 1, (batch, 1)).clip(max=slots)
        pt = np.where(np.arange(slots) < count, rng.exponential(size=(batch, slots)) ** 2 + 1e-3, 0)
        pt *= 525 / pt.sum(1, keepdims=True)
        eta, phi = rng.uniform([[[-1.5]], [[0.0]]], [[[1.5]], [[2 * np.pi]]], (2, batch, 1))
        d_eta, d_phi = rng.laplace(0, 0.08, (2, batch, slots))
        pdg_id = rng.choice(list(CODES), (batch, slots))
        columns = (np.where(pt > 0, x, 0) for x in (pt, eta + d_eta, phi + d_phi, pdg_id))
        return {name: x.astype(np.float32) for name, x in zip(CONSTITUENT, columns, strict=True)}

    def convert(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename the state dict of the original authors' P-DAT to ours."""
        return authors_pdat.convert(state)

    def measure(self, sessions: Mapping[str, Session], data: PreparedJets) -> Mapping[str, Quantity]:
        """Compute all metrics on the validation jets; of one training, with their statistical errors."""
        validation = data.validation
        scores = classify(sessions["classifier"], validation.columns)
        return classification.metrics(scores, validation.quark)

    def yardsticks(self, data: PreparedJets) -> tuple[Yardstick, ...]:
        """Classify the test jets by their number of constituents alone: gluon jets have more."""
        multiplicity = (data.test.columns[0] > 0).sum(1)
        found = classification.metrics(-multiplicity.astype(np.float64), data.test.quark)
        return tuple(
            Yardstick("multiplicity", name, found[name]) for name in ("auc", "rejection_50", "rejection_30")
        )

    def evaluate(
        self,
        sessions: Sequence[Session],
        baseline: Sequence[Session],
        data: PreparedJets,
        digest: str,
        seed: int,
        progress: Progress,
    ) -> tuple[Mapping[str, Quantity], Evaluation]:
        """Compute the paper's metrics on the test jets and draw ROC, rejection and calibration curves."""
        scores = []
        for index, session in enumerate(sessions):
            progress("classifying test jets", index / len(sessions))
            scores.append(classify(session, data.test.columns))
        found = classification.over_trainings(scores, data.test.quark)
        return found, classification.evaluation(scores, data.test.quark, digest)


def classify(session: Session, columns: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
    """Give the quark probability of every jet, from pT, rapidity, azimuth and PDG id."""
    parts = []
    for start in range(0, len(columns[0]), BATCH):
        batch = {name: x[start : start + BATCH] for name, x in zip(CONSTITUENT, columns, strict=True)}
        parts.append(session.run([PROBABILITY], batch)[0])
    return np.concatenate(parts).astype(np.float64)
