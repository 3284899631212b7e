"""CaloINN: a normalising flow for calorimeter showers (Ernst et al., 2023), as quantised in BitHEP section 5.1."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bitsearch.core.measurement import Evaluation, Metric, Quantity, Yardstick
from bitsearch.core.task import Graph, Progress, Recipe, Recipes, Session
from bitsearch.models.flows.coupling import CouplingBlock, OutOfBounds, Subnet
from bitsearch.models.flows.freia import convert
from bitsearch.models.flows.splines import SPLINES
from bitsearch.models.showers.comparison import SHOWERS, EvaluationSettings, compare_file, compare_sampler
from bitsearch.models.showers.dataset import ShowerData, load
from bitsearch.models.showers.geometry import embedded
from bitsearch.models.showers.normalization import MEV_PER_GEV, Denormalization, Selection

LOG_OFFSET = 1e-8
LARGEST_LOG = 30.0
OUTER_BLOCKS = 2
BATCH = 1000
ACTIVATIONS: Mapping[str, type[nn.Module]] = {"silu": nn.SiLU, "leaky-relu": nn.LeakyReLU}


@dataclass(frozen=True)
class Architecture:
    """Sizes and choices of one CaloINN; `linears` counts the linear layers of a subnet."""

    boundaries: tuple[int, ...]
    blocks: int
    linears: int
    hidden: int
    spline: str
    bins: int
    bound: float
    normalization: bool
    activation: str
    noise: float
    out_of_bounds: OutOfBounds

    @property
    def layers(self) -> int:
        """Number of calorimeter layers."""
        return len(self.boundaries) - 1

    @property
    def dimension(self) -> int:
        """Voxels and one energy ratio a layer."""
        return self.boundaries[-1] + self.layers


class CaloINN(nn.Module):
    """Flow between normalised showers with energy ratios, `(batch, dimension)`, and a normal latent space.

    The first and last two blocks either permute at random like all others or exchange the halves, without an
    ActNorm in front (`exchange`). The condition `(batch, 1)` is log10 of the incident energy in GeV.
    """

    def __init__(self, architecture: Architecture, permutation: str = "random", seed: int = 0) -> None:
        super().__init__()
        self.architecture = architecture
        generator = torch.Generator().manual_seed(seed)
        blocks = [
            self._block(index, permutation == "exchange", generator) for index in range(architecture.blocks)
        ]
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Map showers to the latent space; the log-determinant `(batch,)` is that of ln x, as published."""
        v = torch.log(x + LOG_OFFSET)
        log_det = v.new_zeros(())
        for block in self._couplings:
            v, block_log_det = block(v, condition)
            log_det = log_det + block_log_det
        return v, log_det

    def inverse(self, z: Tensor, condition: Tensor) -> Tensor:
        """Map latent vectors to showers; ln x is capped at 30, far above any normalised shower, to stay finite."""
        for block in reversed(self._couplings):
            z = block.inverse(z, condition)
        # Both bounds: onnx's reference evaluator confuses an omitted input with the splines' omitted output.
        return torch.exp(z.clamp(-math.inf, LARGEST_LOG)) - LOG_OFFSET

    def negative_log_likelihood(self, x: Tensor, condition: Tensor) -> Tensor:
        """Give -ln p(ln x | condition) of every event in nats, `(batch,)`."""
        z, log_det = self.forward(x, condition)
        return 0.5 * z.square().sum(1) - log_det + 0.5 * z.shape[1] * math.log(2 * math.pi)

    @torch.no_grad()
    def initialize(self, x: Tensor, condition: Tensor) -> None:
        """Set every ActNorm so that this batch has mean 0 and standard deviation 1 behind it."""
        training = self.training
        self.eval()
        v = torch.log(x + LOG_OFFSET)
        for block in self._couplings:
            if block.actnorm is not None:
                block.actnorm.initialize(v)
            v, _ = block(v, condition)
        self.train(training)

    @property
    def _couplings(self) -> list[CouplingBlock]:
        return [block for block in self.blocks if isinstance(block, CouplingBlock)]

    def _block(self, index: int, exchange: bool, generator: torch.Generator) -> CouplingBlock:
        a = self.architecture
        outer = exchange and not OUTER_BLOCKS <= index < a.blocks - OUTER_BLOCKS
        transformed = a.dimension // 2
        passive = a.dimension - transformed
        order = torch.arange(a.dimension)
        sizes = [
            passive + 1,
            *[a.hidden] * (a.linears - 1),
            transformed * SPLINES[a.spline].parameters(a.bins),
        ]
        return CouplingBlock(
            Subnet(sizes, a.normalization, ACTIVATIONS[a.activation]),
            order.roll(-passive) if outer else torch.randperm(a.dimension, generator=generator),
            spline=a.spline,
            bins=a.bins,
            bound=a.bound,
            out_of_bounds=a.out_of_bounds,
            normalize=index > 0 and not outer,
        )


class Sampler(nn.Module):
    """The served graph: latent vectors and incident energies in MeV to showers in MeV."""

    def __init__(self, network: CaloINN) -> None:
        super().__init__()
        self.network = network
        self.denormalization = Denormalization(network.architecture.boundaries, network.architecture.noise)

    def forward(self, z: Tensor, incident_energy: Tensor) -> Tensor:
        """Map `(batch, dimension)` and `(batch, 1)` to voxel energies `(batch, voxels)`."""
        condition = torch.log(incident_energy / MEV_PER_GEV) * (1 / math.log(10))
        showers: Tensor = self.denormalization(self.network.inverse(z, condition), incident_energy)
        return showers


class Density(nn.Module):
    """The measured graph: normalised showers to the negative log-likelihood of ln x."""

    def __init__(self, network: CaloINN) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Map `(batch, dimension)` and `(batch, 1)` to nats `(batch,)`."""
        return self.network.negative_log_likelihood(x, condition)


DATASETS = ("ds1-photon", "ds1-pion", "ds2")
PRESETS = ("smoke", "laptop", "paper")
HOW_NLL = (
    "mean over n trainings and their standard deviation, which below the paper's size leaves out the spread of "
    "the float reference that all of them start from; of a single training, mean over n validation events and "
    "its standard error"
)
METRICS = (
    Metric(
        "nll",
        "Validation NLL of ln x",
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


@dataclass(frozen=True)
class CaloINNTask:
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

    @property
    def settings(self) -> Mapping[str, Any]:
        """Architecture, selection, recipes and evaluation as JSON values."""
        raw = asdict(self)
        return {name: raw[name] for name in ("architecture", "selection", "recipes", "evaluation")}

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
        """Compute the validation NLL with the same noise for every configuration."""
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

    def yardsticks(self, data: ShowerData) -> tuple[Yardstick, ...]:
        """Give none: no simple generator is known."""
        return ()

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


# The laptop keeps the twelve blocks: with fewer, random permutations leave coordinates that no block transforms.
# Blocks, hidden width, bins; steps for reference, candidate and finalist; batch; finalists; evaluated events.
SIZES = {
    "smoke": (5, 8, 4, (20, 4, 8), 64, 1, 600),
    "laptop": (12, 48, 4, (800, 40, 100), 128, 4, 6000),
}
# ds2 has eighteen times as many voxels to train on in the same time.
SIZES_DS2 = {
    "smoke": (5, 8, 4, (8, 2, 4), 16, 1, 300),
    "laptop": (6, 32, 4, (400, 20, 60), 48, 4, 2000),
}


def task(dataset: str = "ds1-photon", preset: str = "laptop") -> CaloINNTask:
    """Set up CaloINN on `dataset`: `paper` as published, the others smaller and with the textbook bounds rule."""
    published = _published(dataset)
    if preset == "paper":
        return published
    sizes = SIZES_DS2 if dataset == "ds2" else SIZES
    blocks, hidden, bins, (reference, candidate, final), batch, finalists, events = sizes[preset]
    float_recipe = Recipe(reference, batch, 3e-3, 0.01, 1e-10)
    recipe = replace(float_recipe, max_learning_rate=1e-3, warm_up=0.1, quantized_rate=2.0)
    return replace(
        published,
        preset=preset,
        architecture=replace(
            published.architecture, blocks=blocks, hidden=hidden, bins=bins, out_of_bounds="scalar"
        ),
        validation_fraction=0.02 if preset == "smoke" else 0.1,
        recipes=Recipes(
            float_recipe,
            replace(recipe, steps=candidate),
            replace(recipe, steps=final),
            finalists,
            repetitions=1 if preset == "smoke" else 3,
            independent=False,
        ),
        evaluation=EvaluationSettings(events, "fast", 1 if preset == "smoke" else 2),
        latency_batches=(1, 100) if preset == "smoke" else (1, 100, 1000),
    )


def _published(dataset: str) -> CaloINNTask:
    geometry = embedded(dataset)
    electron = dataset == "ds2"
    steps = 400 * 176 if electron else 450 * 234
    recipe = Recipe(steps, 512, 1e-4, 0.01, 1e-10)
    return CaloINNTask(
        dataset=dataset,
        preset="paper",
        architecture=Architecture(
            boundaries=geometry.boundaries,
            blocks=14 if electron else 12,
            linears=3 if electron else 4,
            hidden=256,
            spline="cubic" if electron else "rational-quadratic",
            bins=10,
            bound=15.0 if electron else 18.0,
            normalization=not electron,
            activation="leaky-relu" if electron else "silu",
            noise=1e-6 if electron else 5e-6,
            out_of_bounds="event",
        ),
        selection=Selection((0.0, 7.0)) if electron else Selection((0.0, 3.5), 600.0),
        validation_fraction=0.1 if electron else 0.01,
        recipes=Recipes(recipe, replace(recipe, steps=steps // 8), replace(recipe, scratch=True), 24, 3),
        evaluation=EvaluationSettings(100_000, "full", 10),
        latency_batches=(1, 100, 1000),
    )
