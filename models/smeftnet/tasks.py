"""SMEFTNet's task: its jets, its loss, what is exported, and its metrics."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bitsearch.core.measurement import Evaluation, Map, Metric, Quantity, Yardstick, over_trainings
from bitsearch.core.task import Graph, Progress, Recipes, Session
from bitsearch.models.base import Sample, TaskBase
from bitsearch.models.metrics import angles
from bitsearch.models.smeftnet.data import TARGET, Columns, load
from bitsearch.models.smeftnet.graphs import Angle
from bitsearch.models.smeftnet.network import EDGE_STYLES, READOUT_STYLES, Architecture, SMEFTNet
from bitsearch.models.smeftnet.published_weights import convert, strategy_of

BATCH = 256
MAP_EDGES = np.linspace(-math.pi, math.pi, 31)
HOW = "mean over n trainings and their standard deviation; of a single training, over n jets"
AGAINST = "against the residuals of the first float training; " + HOW
METRICS = (
    Metric("sin2", "Mean sin² of the residual", "", "minimize", HOW + " with its standard error"),
    Metric("q50", "Median |residual mod π|", "rad", "minimize", HOW),
    Metric("q68", "68 % quantile of |residual mod π|", "rad", "minimize", HOW),
    Metric("q95", "95 % quantile of |residual mod π|", "rad", "minimize", HOW),
    Metric("wasserstein", "Wasserstein distance", "rad", "minimize", AGAINST),
    Metric("separation", "Separation power S", "", "minimize", AGAINST),
    Metric("separation_paper", "2S, comparable with the paper", "", "minimize", AGAINST),
)


@dataclass(frozen=True, kw_only=True)
class SMEFTNetTask(TaskBase):
    """SMEFTNet on jets of boosted W bosons: what `bitsearch.core.task.Task` asks for."""

    dataset: str
    preset: str
    architecture: Architecture
    jets: int | None
    held_out_fraction: float
    recipes: Recipes
    latency_batches: tuple[int, ...]
    model: str = "smeftnet"
    metrics: tuple[Metric, ...] = METRICS
    objective: str = "sin2"
    served: str = "angle"
    measured: tuple[str, ...] = ("angle",)

    def network(self, options: Mapping[str, str], seed: int) -> SMEFTNet:
        """Build the float network; options name the styles of its blocks."""
        a = self.architecture
        edges, readout = options.get("edge_blocks"), options.get("readout_blocks")
        return SMEFTNet(
            replace(
                a,
                edge_style=EDGE_STYLES[edges] if edges else a.edge_style,
                readout_style=READOUT_STYLES[readout] if readout else a.readout_style,
            )
        )

    def load(self, paths: Sequence[Path], seed: int, progress: Progress) -> Sample:
        """Read files of WZ jets, or the shipped sample."""
        return load(paths, self.architecture.particles, self.jets, self.held_out_fraction, seed)

    def loss(self, network: SMEFTNet, data: Sample, indices: Tensor, generator: torch.Generator) -> Tensor:
        """Compute the mean of sin²(prediction - truth), which knows angles up to multiples of π."""
        batch = {name: column[indices] for name, column in data.training.items()}
        truth = batch.pop(TARGET)
        prediction, _ = network(**batch)
        return torch.sin(prediction - truth).square().mean()

    def graphs(self, network: SMEFTNet) -> Mapping[str, Graph]:
        """Give the graph that users run and the search measures."""
        example = self.inputs(2, 0)
        return {
            "angle": Graph(
                Angle(network),
                {name: torch.from_numpy(array) for name, array in example.items()},
                ("angle",),
                "transverse momenta in GeV (0 where there is no particle), angles to the jet axis and azimuths in "
                "radians, and the jet's transverse momentum in GeV to the angle of the decay plane in radians, "
                "defined up to multiples of π",
            )
        }

    def inputs(self, batch: int, seed: int) -> Mapping[str, NDArray[np.float32]]:
        """Draw jets with two prongs of particles, the hardest first, zero-padded."""
        rng = np.random.default_rng(seed)
        shape = batch, self.architecture.particles
        shares = np.sort(rng.exponential(size=shape) ** 2)[:, ::-1]
        shares = shares * (np.arange(shape[1]) < rng.integers(shape[1] // 2, shape[1] + 1, (batch, 1)))
        jet_pt = 500 + rng.exponential(130, (batch, 1))
        plane, prong = rng.uniform(-math.pi, math.pi, (batch, 1)), rng.integers(0, 2, shape)
        center = 0.2 * np.exp(1j * (plane + math.pi * prong))
        position = center + 0.05 * (rng.standard_normal(shape) + 1j * rng.standard_normal(shape))
        real = shares > 0
        columns = {
            "pt": jet_pt * shares / shares.sum(1, keepdims=True),
            "theta": np.abs(position) * real,
            "phi": np.angle(position) * real,
            "jet_pt": jet_pt,
        }
        return {name: column.astype(np.float32) for name, column in columns.items()}

    def convert(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename the state dict of the original authors' SMEFTNet to ours."""
        return convert(state)

    def strategy_of(self, state: Mapping[str, Tensor]) -> str | None:
        """Tell by its names what the authors' scripts quantised."""
        return strategy_of(state)

    def measure(self, sessions: Mapping[str, Session], data: Sample) -> Mapping[str, Quantity]:
        """Compute how far the residuals of the validation jets spread."""
        return angles.spread(_residuals(sessions["angle"], data.validation))

    def yardsticks(self, data: Sample) -> tuple[Yardstick, ...]:
        """Give what the principal axis of the particles, a closed form, reaches on the test jets."""
        columns = data.test
        axis = angles.principal_axis(columns["pt"], columns["theta"], columns["phi"])
        spread = angles.spread(columns[TARGET] - axis)
        return tuple(Yardstick("principal axis", name, quantity) for name, quantity in spread.items())

    def evaluate(
        self,
        sessions: Sequence[Session],
        baseline: Sequence[Session],
        data: Sample,
        digest: str,
        seed: int,
        progress: Progress,
    ) -> tuple[Mapping[str, Quantity], Evaluation]:
        """Compare residuals of the test jets with the first float training's, and of its own repetitions too."""
        residuals = [_residuals(session, data.test) for session in sessions]
        metrics = over_trainings([angles.spread(item) for item in residuals])
        truth = data.test[TARGET]
        maps = (_map(truth, truth - residuals[0]),)
        if not baseline:
            return metrics, Evaluation(digest, len(truth), maps=maps)
        itself = baseline is sessions
        reference = residuals[0] if itself else _residuals(baseline[0], data.test)
        compared = residuals[1:] if itself else residuals
        metrics |= over_trainings([angles.distances(reference, item) for item in compared])
        histograms = angles.histograms(reference, (compared or residuals)[0])
        return metrics, Evaluation(digest, len(truth), histograms, maps=maps)


def _residuals(session: Session, jets: Columns) -> NDArray[np.float32]:
    """Compute truth - prediction in radians, not reduced modulo π."""
    truth = jets[TARGET]
    inputs = {name: column for name, column in jets.items() if name != TARGET}
    predictions = [
        session.run(["angle"], {name: column[rows] for name, column in inputs.items()})[0]
        for rows in np.array_split(np.arange(len(truth)), math.ceil(len(truth) / BATCH))
    ]
    return np.asarray(truth - np.concatenate(predictions))


def _map(truth: NDArray[np.float32], prediction: NDArray[np.float32]) -> Map:
    """Count truth against prediction, the latter brought to (-π, π]."""
    wrapped = np.angle(np.exp(1j * prediction))
    counts, _, _ = np.histogram2d(truth, wrapped, [MAP_EDGES, MAP_EDGES])
    edges = tuple(MAP_EDGES.tolist())
    rows = tuple(tuple(row) for row in counts.tolist())
    return Map("truth-prediction", "Jets", "Truth [rad]", "Prediction [rad]", edges, edges, rows)
