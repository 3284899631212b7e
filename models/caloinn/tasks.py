"""CaloINN's task: its data, its loss, what is exported, and its metrics."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bitsearch.core.measurement import Evaluation, Metric, Quantity
from bitsearch.core.task import Graph, Progress, Recipes, Session
from bitsearch.models.base import TaskBase
from bitsearch.models.caloinn.graphs import Density, Sampler
from bitsearch.models.caloinn.network import Architecture, CaloINN
from bitsearch.models.caloinn.published_weights import convert
from bitsearch.models.showers.comparison import SHOWERS, EvaluationSettings, compare_file, compare_sampler
from bitsearch.models.showers.dataset import ShowerData, load
from bitsearch.models.showers.geometry import embedded
from bitsearch.models.showers.normalization import Selection

BATCH = 1000


HOW_NLL = (
    "mean over n trainings and their standard deviation, which below the paper's size leaves out the spread of "
    "the float reference that all of them start from; of a single training, mean over n events and its standard "
    "error; validation events in the search, test events in the final trainings"
)
METRICS = (
    Metric(
        "nll",
        "NLL of ln x",
        "nats",
        "minimize",
        HOW_NLL,
    ),
    Metric(
        "auc_low", "Classifier AUC, voxels", "", "minimize", "mean and standard deviation over classifiers"
    ),
    Metric(
        "auc_high", "Classifier AUC, features", "", "minimize", "mean and standard deviation over classifiers"
    ),
    Metric(
        "separation",
        "Mean separation power",
        "",
        "minimize",
        "mean over n histograms, bootstrap standard deviation",
    ),
)


@dataclass(frozen=True, kw_only=True)
class CaloINNTask(TaskBase):
    """CaloINN on one CaloChallenge geometry: what `bitsearch.core.task.Task` asks for."""

    dataset: str
    preset: str
    architecture: Architecture
    selection: Selection
    validation_fraction: float
    recipes: Recipes
    evaluation: EvaluationSettings
    latency_batches: tuple[int, ...]
    model: str = "caloinn"
    metrics: tuple[Metric, ...] = METRICS
    objective: str = "nll"
    served: str = "sampler"
    measured: tuple[str, ...] = ("density",)

    def network(self, options: Mapping[str, str], seed: int) -> CaloINN:
        """Build the float network; its permutations follow from `seed`."""
        return CaloINN(self.architecture, options.get("permutation", "random"), seed)

    def load(self, paths: Sequence[Path], seed: int, progress: Progress) -> ShowerData:
        """Read CaloChallenge files, or make the generated default."""
        geometry = embedded(self.dataset)
        return load(paths, geometry, self.selection, self.validation_fraction, seed, progress)

    def prepare(self, network: CaloINN, data: ShowerData, generator: torch.Generator) -> None:
        """Initialise the ActNorms from one batch."""
        batch = slice(0, self.recipes.reference.batch_size)
        network.initialize(self._with_noise(data.columns[batch], generator), data.condition[batch])

    def loss(self, network: CaloINN, data: ShowerData, indices: Tensor, generator: torch.Generator) -> Tensor:
        """Compute the mean negative log-likelihood with fresh noise."""
        x = self._with_noise(data.columns[indices], generator)
        return network.negative_log_likelihood(x, data.condition[indices]).mean()

    def graphs(self, network: CaloINN) -> Mapping[str, Graph]:
        """Give the sampler, which users run, and the density, which the search measures."""
        z = torch.zeros(2, self.architecture.dimension)
        one = torch.ones(2, 1)
        return {
            "sampler": Graph(
                Sampler(network),
                {"z": z, "incident_energy": one},
                (SHOWERS,),
                "z ~ N(0, 1) and incident energies in MeV to voxel energies in MeV",
            ),
            "density": Graph(
                Density(network),
                {"x": z + 1, "condition": one},
                ("nll",),
                "normalised showers and log10 of the incident energy in GeV to -ln p(ln x) in nats",
            ),
        }

    def inputs(self, batch: int, seed: int) -> Mapping[str, NDArray[np.float32]]:
        """Draw latent vectors and incident energies between 1 GeV and 1 TeV, uniform in the logarithm."""
        rng = np.random.default_rng(seed)
        noise = self._noise(batch, rng)
        incident_mev = 10 ** rng.uniform(3, 6, (batch, 1))
        return {**noise, "incident_energy": incident_mev.astype(np.float32)}

    def convert(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename the state dict of the original authors' CaloINN to ours."""
        return convert(state)

    def measure(self, sessions: Mapping[str, Session], data: ShowerData) -> Mapping[str, Quantity]:
        """Compute the NLL of the validation events with the same noise for every configuration."""
        noise = np.random.default_rng(0).random(data.validation_columns.shape, np.float32)
        x = data.validation_columns + np.float32(self.architecture.noise) * noise
        nll = np.concatenate(
            [
                sessions["density"].run(
                    ["nll"], {"x": x[rows], "condition": data.validation_condition[rows]}
                )[0]
                for rows in np.array_split(np.arange(len(x)), math.ceil(len(x) / BATCH))
            ]
        )
        error = nll.std(ddof=1) / math.sqrt(len(nll))
        return {"nll": Quantity(float(nll.mean()), float(error), len(nll))}

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

    def _noise(self, batch: int, rng: np.random.Generator) -> dict[str, NDArray[np.float32]]:
        return {"z": rng.standard_normal((batch, self.architecture.dimension), np.float32)}

    def _with_noise(self, columns: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.rand(columns.shape, generator=generator, device=columns.device)
        return columns + self.architecture.noise * noise
