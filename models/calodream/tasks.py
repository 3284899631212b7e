"""CaloDREAM's task: its data, its losses, what is exported, and its metrics."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bitsearch.core.measurement import Evaluation, Metric, Quantity
from bitsearch.core.task import Graph, Progress, Recipes, Session
from bitsearch.models.base import TaskBase
from bitsearch.models.calodream.graphs import EnergyContext, EnergyVelocity, Generator, Losses, ShapeVelocity
from bitsearch.models.calodream.network import PARTS, Architecture, CaloDREAM
from bitsearch.models.calodream.published_weights import convert
from bitsearch.models.showers import dataset as showers
from bitsearch.models.showers.comparison import SHOWERS, EvaluationSettings, compare_file, compare_sampler
from bitsearch.models.showers.dataset import ShowerData
from bitsearch.models.showers.geometry import Geometry
from bitsearch.models.showers.normalization import Selection

BATCH = 500
HOW_LOSS = (
    "mean over n trainings with different seeds and their standard deviation; of a single training, mean over n "
    "events and its standard error; times, noise and events are the same for every configuration: validation "
    "events in the search, test events in the final trainings"
)
HOW_AUC = "mean and standard deviation over classifiers"
METRICS = (
    Metric("loss", "Loss of both networks", "", "minimize", HOW_LOSS),
    Metric("loss_energy", "Loss, energy network", "", "minimize", HOW_LOSS),
    Metric("loss_shape", "Loss, shape network", "", "minimize", HOW_LOSS),
    Metric("auc_low", "Classifier AUC, voxels", "", "minimize", HOW_AUC),
    Metric("auc_high", "Classifier AUC, features", "", "minimize", HOW_AUC),
    Metric(
        "separation",
        "Mean separation power",
        "",
        "minimize",
        "mean over n histograms, bootstrap standard deviation",
    ),
)


@dataclass(frozen=True, kw_only=True)
class CaloDREAMTask(TaskBase):
    """CaloDREAM on dataset 2 or sums of its voxels: what `bitsearch.core.task.Task` asks for.

    `measured_times` is the number of times and noises that each validation event is measured with.
    """

    dataset: str
    preset: str
    geometry: Geometry
    architecture: Architecture
    selection: Selection
    default_events: int
    validation_fraction: float
    measured_times: int
    recipes: Recipes
    evaluation: EvaluationSettings
    latency_batches: tuple[int, ...]
    model: str = "calodream"
    metrics: tuple[Metric, ...] = METRICS
    objective: str = "loss"
    served: str = "generator"
    measured: tuple[str, ...] = ("losses",)

    @property
    def settings(self) -> Mapping[str, Any]:
        """All fields but the geometry, which the preset's grid and data set give."""
        return {name: value for name, value in super().settings.items() if name != "geometry"}

    def network(self, options: Mapping[str, str], seed: int) -> CaloDREAM:
        """Build both float networks; the option `solver` says how they are integrated, which training never does."""
        solver = options.get("solver")
        return CaloDREAM(self.architecture.solved(solver) if solver else self.architecture)

    def load(self, paths: Sequence[Path], seed: int, progress: Progress) -> ShowerData:
        """Read CaloChallenge files, or make the generated default."""
        return showers.load(
            paths,
            self.geometry,
            self.selection,
            self.validation_fraction,
            seed,
            progress,
            self.default_events,
        )

    def prepare(self, network: CaloDREAM, data: ShowerData, generator: torch.Generator) -> None:
        """Standardise by the training events."""
        network.standardization.fit(data.columns)

    def loss(
        self, network: CaloDREAM, data: ShowerData, indices: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Compute the sum of the mean losses, of the networks in training, at random times with fresh noise."""
        columns = data.columns[indices]
        device = columns.device
        t = torch.rand(len(columns), self.architecture.layers + 1, generator=generator, device=device)
        noise = torch.randn(columns.shape, generator=generator, device=device)
        trained = [
            part
            for part in PARTS
            if any(parameter.requires_grad for parameter in network.get_submodule(part).parameters())
        ]
        return network.losses(columns, data.condition[indices], t, noise, trained or PARTS).mean(0).sum()

    def graphs(self, network: CaloDREAM) -> Mapping[str, Graph]:
        """Give the whole generator, its three networks and the losses, which the search measures."""
        a = self.architecture
        one, ratios, voxels = torch.ones(2, 1), torch.zeros(2, a.layers), torch.zeros(2, a.voxels)
        columns = torch.cat([voxels, ratios], 1) + 0.5
        return {
            "generator": Graph(
                Generator(network),
                {"incident_energy": one, "noise_energy": ratios, "noise_shape": voxels},
                (SHOWERS,),
                "incident energies in MeV and noise ~ N(0, 1) to voxel energies in MeV",
            ),
            "losses": Graph(
                Losses(network),
                {"x": columns, "condition": one, "t": torch.cat([ratios, one], 1), "noise": columns},
                ("losses",),
                "normalised showers, log10 of the incident energy in GeV, times in [0, 1] and noise ~ N(0, 1) "
                "to the mean squared errors of the energy and the shape velocity",
            ),
            "energy_context": Graph(
                EnergyContext(network),
                {"condition": one, "values": ratios},
                ("context",),
                "log10 of the incident energy in GeV over 3 and standardised energy ratios to the context of "
                "each layer, which depends on the ratios before it",
            ),
            "energy_velocity": Graph(
                EnergyVelocity(network),
                {"x": one, "t": one, "context": torch.zeros(2, a.energy.width)},
                ("velocity",),
                "an energy ratio at time t and its layer's context to its velocity",
            ),
            "shape_velocity": Graph(
                ShapeVelocity(network),
                {"x": voxels, "t": one, "condition": torch.cat([one, ratios], 1)},
                ("velocity",),
                "standardised voxels at time t, log10 of the incident energy in GeV over 3 and the standardised "
                "energy ratios to the velocity of the voxels",
            ),
        }

    def inputs(self, batch: int, seed: int) -> Mapping[str, NDArray[np.float32]]:
        """Draw noise and incident energies between 1 GeV and 1 TeV, uniform in the logarithm."""
        rng = np.random.default_rng(seed)
        incident_mev = 10 ** rng.uniform(3, 6, (batch, 1))
        return {"incident_energy": incident_mev.astype(np.float32), **self._noise(batch, rng)}

    def convert(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename the state dicts of the original authors' two networks to ours."""
        return convert(state)

    def measure(self, sessions: Mapping[str, Session], data: ShowerData) -> Mapping[str, Quantity]:
        """Compute the validation losses with the same times and noise for every configuration."""
        rng = np.random.default_rng(0)
        found = np.stack([self._losses(sessions["losses"], data, rng) for _ in range(self.measured_times)])
        energy, shape = found.astype(np.float64).mean(0).T
        return {
            name: Quantity(
                float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values))), len(values)
            )
            for name, values in (("loss", energy + shape), ("loss_energy", energy), ("loss_shape", shape))
        }

    def evaluate(
        self,
        sessions: Sequence[Session],
        baseline: Sequence[Session],
        data: ShowerData,
        digest: str,
        seed: int,
        progress: Progress,
    ) -> tuple[Mapping[str, Quantity], Evaluation]:
        """Compare showers of the served training with the reference: classifier AUCs, histograms, layer profiles."""
        return compare_sampler(sessions[0], self._noise, data, self.evaluation, digest, seed, progress)

    def evaluate_file(
        self, path: Path, data: ShowerData, digest: str, seed: int, progress: Progress
    ) -> tuple[Mapping[str, Quantity], Evaluation]:
        """Compare showers that anyone generated, in a CaloChallenge file, with the reference."""
        return compare_file(path, data, self.evaluation, digest, seed, progress)

    def _losses(self, session: Session, data: ShowerData, rng: np.random.Generator) -> NDArray[np.float32]:
        """Give the losses of all validation events `(events, 2)` at random times with random noise."""
        parts = []
        for start in range(0, len(data.validation_columns), BATCH):
            x = data.validation_columns[start : start + BATCH]
            t = rng.random((len(x), self.architecture.layers + 1), np.float32)
            noise = rng.standard_normal(x.shape, np.float32)
            condition = data.validation_condition[start : start + BATCH]
            parts.append(session.run(["losses"], {"x": x, "condition": condition, "t": t, "noise": noise})[0])
        return np.concatenate(parts)

    def _noise(self, batch: int, rng: np.random.Generator) -> dict[str, NDArray[np.float32]]:
        a = self.architecture
        return {
            "noise_energy": rng.standard_normal((batch, a.layers), np.float32),
            "noise_shape": rng.standard_normal((batch, a.voxels), np.float32),
        }
