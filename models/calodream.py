"""CaloDREAM: flow matching with transformers for calorimeter showers, as quantised in BitHEP section 5.2.

One network makes the energies of the layers, the other distributes them over the voxels (Favaro et al., 2024).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bitsearch.models.matching.attention import LoneAttention
from bitsearch.models.matching.chains import LOG10_RANGE, Postprocessing, Standardization
from bitsearch.models.matching.checkpoints import convert
from bitsearch.models.matching.energy import EnergyNetwork, EnergySizes
from bitsearch.models.matching.shape import ShapeNetwork, ShapeSizes
from bitsearch.models.matching.solver import fold, integrate, stages
from bitsearch.models.showers import dataset as showers
from bitsearch.models.showers.coarse import coarsen
from bitsearch.models.showers.comparison import SHOWERS, EvaluationSettings, compare_file, compare_sampler
from bitsearch.models.showers.dataset import ShowerData
from bitsearch.models.showers.geometry import Geometry, embedded
from bitsearch.models.showers.normalization import MEV_PER_GEV, Selection
from bitsearch.records import Evaluation, Metric, Quantity, Yardstick
from bitsearch.task import Graph, Progress, Recipe, Recipes, Session

BATCH = 500
PARTS = ("energy", "shape")


@dataclass(frozen=True)
class Architecture:
    """Grid (layers, angles, radii) of the showers and the sizes of both networks."""

    grid: tuple[int, int, int]
    threshold_mev: float
    energy: EnergySizes
    shape: ShapeSizes

    @property
    def layers(self) -> int:
        """Number of calorimeter layers."""
        return self.grid[0]

    @property
    def voxels(self) -> int:
        """Number of voxels."""
        return math.prod(self.grid)


class CaloDREAM(nn.Module):
    """Both networks, and the transformation of normalised showers that they are trained on.

    Showers are columns `(batch, voxels + layers)`: voxels as shares of their layer, then the energy ratios u.
    The condition `(batch, 1)` is log10 of the incident energy in GeV.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = a = architecture
        self.standardization = Standardization(a.voxels, a.layers)
        self.energy = EnergyNetwork(a.layers, a.energy)
        self.shape = ShapeNetwork(a.grid, 1 + a.layers, a.shape)
        self.never_run = tuple(
            f"{name}.{part}"
            for name, module in self.named_modules()
            if isinstance(module, LoneAttention)
            for part in module.NEVER_RUN
        )

    def losses(
        self, columns: Tensor, condition: Tensor, t: Tensor, noise: Tensor, parts: Sequence[str] = PARTS
    ) -> Tensor:
        """Give the mean squared errors of the velocities `(batch, parts)` on straight paths from noise to data.

        `t` `(batch, layers + 1)` holds one time for the energy of each layer, then one for all voxels; `noise` is
        like `columns`. Each layer knows the true layers before it, the shape the true energies.
        """
        a = self.architecture
        data = self.standardization(columns)
        times = torch.cat([t[:, -1:].expand(-1, a.voxels), t[:, :-1]], 1)
        target = data - noise
        path = noise + times * target
        energy = condition / LOG10_RANGE
        ratios = data[:, a.voxels :]
        errors = []
        if "energy" in parts:
            velocity = self.energy(energy, ratios, path[:, a.voxels :], t[:, :-1])
            errors.append((velocity - target[:, a.voxels :]).square().mean(1))
        if "shape" in parts:
            velocity = self.shape(path[:, : a.voxels], t[:, -1:], torch.cat([energy, ratios], 1))
            errors.append((velocity - target[:, : a.voxels]).square().mean(1))
        return torch.stack(errors, 1)


class Generator(nn.Module):
    """The served graph: noise and incident energies in MeV to showers in MeV, solvers included."""

    def __init__(self, network: CaloDREAM) -> None:
        super().__init__()
        a = network.architecture
        self.network = network
        self.energy_stages = stages(a.energy.step)
        self.shape_stages = stages(a.shape.step)
        self.postprocessing = Postprocessing(a.layers, a.threshold_mev)

    def forward(self, incident_energy: Tensor, noise_energy: Tensor, noise_shape: Tensor) -> Tensor:
        """Map `(batch, 1)`, `(batch, layers)` and `(batch, voxels)` to voxel energies `(batch, voxels)`."""
        condition = torch.log(incident_energy / MEV_PER_GEV) * (1 / (LOG10_RANGE * math.log(10)))
        ratios = self.ratios(condition, noise_energy)
        voxels = self.voxels(torch.cat([condition, ratios], 1), noise_shape)
        columns = self.network.standardization.invert(torch.cat([voxels, ratios], 1))
        generated: Tensor = self.postprocessing(columns, incident_energy)
        return generated

    def ratios(self, condition: Tensor, noise: Tensor) -> Tensor:
        """Make standardised energy ratios `(batch, layers)`, one layer after the other."""
        network = self.network.energy
        memory = network.encode(condition)
        times = network.embed_time(self.energy_stages.times.to(noise.device))

        def layer(state: Sequence[Tensor], row: Sequence[Tensor]) -> list[Tensor]:
            (values,), (chosen,) = state, row
            context = (network.decode(memory, values) * chosen[:, None]).sum(1)
            start = (noise * chosen).sum(1, keepdim=True)
            end = integrate(
                lambda x, time: network.move(x, time.expand(x.shape[0], -1), context),
                start,
                self.energy_stages,
                times,
            )
            return [values + end * chosen]

        one_hot = torch.eye(network.layers, device=noise.device)
        return fold(layer, [torch.zeros_like(noise)], [one_hot])[0]

    def voxels(self, condition: Tensor, noise: Tensor) -> Tensor:
        """Make standardised voxels `(batch, voxels)` for `condition` `(batch, 1 + layers)`."""
        network = self.network.shape
        steered = network.condition(condition)
        times = network.embed_time(self.shape_stages.times.to(noise.device))
        return integrate(lambda x, time: network.move(x, time + steered), noise, self.shape_stages, times)


class Losses(nn.Module):
    """The measured graph: normalised showers, times and noise to the losses of both networks."""

    def __init__(self, network: CaloDREAM) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, condition: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Map to `(batch, 2)`: energy, shape."""
        return self.network.losses(x, condition, t, noise)


class EnergyContext(nn.Module):
    """What the energy network knows before each layer."""

    def __init__(self, network: CaloDREAM) -> None:
        super().__init__()
        self.network = network

    def forward(self, condition: Tensor, values: Tensor) -> Tensor:
        """Map `(batch, 1)` and `(batch, layers)` to `(batch, layers, width)`."""
        energy = self.network.energy
        return energy.decode(energy.encode(condition), values)


class EnergyVelocity(nn.Module):
    """The velocity of one layer's energy ratio."""

    def __init__(self, network: CaloDREAM) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        """Map `(batch, 1)`, `(batch, 1)` and `(batch, width)` to `(batch, 1)`."""
        energy = self.network.energy
        return energy.move(x, energy.embed_time(t), context)


class ShapeVelocity(nn.Module):
    """The velocity of all voxels."""

    def __init__(self, network: CaloDREAM) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """Map `(batch, voxels)`, `(batch, 1)` and `(batch, 1 + layers)` to `(batch, voxels)`."""
        v: Tensor = self.network.shape(x, t, condition)
        return v


DATASETS = ("ds2",)
PRESETS = ("smoke", "laptop", "paper")
HOW_LOSS = (
    "mean over n trainings with different seeds and their standard deviation; of a single training, mean over n "
    "validation events and its standard error; times, noise and events are the same for every configuration"
)
HOW_AUC = "mean and standard deviation over classifiers"
METRICS = (
    Metric("loss", "Validation loss of both networks", "", "minimize", HOW_LOSS),
    Metric("loss_energy", "Validation loss, energy network", "", "minimize", HOW_LOSS),
    Metric("loss_shape", "Validation loss, shape network", "", "minimize", HOW_LOSS),
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


@dataclass(frozen=True)
class CaloDREAMTask:
    """CaloDREAM on dataset 2 or sums of its voxels: what `bitsearch.task.Task` asks for.

    `measured_times` is the number of times and noises that each validation event is measured with.
    """

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
    dataset: str = "ds2"
    metrics: tuple[Metric, ...] = METRICS
    objective: str = "loss"
    served: str = "generator"
    measured: tuple[str, ...] = ("losses",)

    @property
    def settings(self) -> Mapping[str, Any]:
        """Architecture, selection, recipes and evaluation as JSON values."""
        names = (
            "architecture",
            "selection",
            "default_events",
            "validation_fraction",
            "measured_times",
            "recipes",
            "evaluation",
        )
        raw = asdict(self)
        return {name: raw[name] for name in names}

    def network(self, options: Mapping[str, str], seed: int) -> CaloDREAM:
        """Build both float networks; no structure depends on `options` or `seed`."""
        return CaloDREAM(self.architecture)

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

    def yardsticks(self, data: ShowerData) -> tuple[Yardstick, ...]:
        """Give none: no simple generator is known."""
        return ()

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


# Beyond 1/0.35 the logit of the scaled response is not defined.
SELECTION = Selection((0.0, 2.8))


def task(dataset: str = "ds2", preset: str = "laptop") -> CaloDREAMTask:
    """Set up CaloDREAM: `paper` as published, the others smaller and on sums of voxels."""
    return {"smoke": _smoke, "laptop": _laptop, "paper": _paper}[preset]()


def _paper() -> CaloDREAMTask:
    """Both networks in full size, trained one after the other."""
    geometry = embedded("ds2")
    energy_epoch, shape_epoch = 25, 1563
    # One cycle takes beta1 from 0.95 to 0.85 and back, as published.
    energy = Recipe(500 * energy_epoch, 4000, 2e-3, 0.0, 1e-10, part="energy.")
    shape = Recipe(800 * shape_epoch, 64, 1e-3, 1e-5, 1e-10, schedule="cosine", clip=100.0, part="shape.")
    recipe = replace(energy, then=shape)
    candidate = replace(energy, steps=12 * energy_epoch, then=replace(shape, steps=20 * shape_epoch))
    return CaloDREAMTask(
        preset="paper",
        geometry=geometry,
        architecture=Architecture(
            (45, 16, 9),
            geometry.threshold_mev,
            EnergySizes(64, 4, 4, 512, 64, 512, 8, 0.02),
            ShapeSizes((3, 16, 1), 480, 6, 6, 4, 0.05),
        ),
        selection=SELECTION,
        default_events=100_000,
        validation_fraction=0.01,
        measured_times=8,
        recipes=Recipes(
            recipe,
            candidate,
            replace(recipe, scratch=True),
            finalists=24,
            repetitions=3,
        ),
        evaluation=EvaluationSettings(100_000, "full", 10),
        latency_batches=(1, 100),
    )


# Core seconds of a laptop run, from 0.07 (float) and 0.09 (quantised) a step of 128 showers, 0.5 for 100 generated
# showers and 2 for the torch side of the parity: three references 430, a hundred candidates 1060, nine final
# configurations with three trainings each 890, their evaluation 300. Steps of 0.1 move the total energy by 0.07 %.
def _laptop() -> CaloDREAMTask:
    geometry = coarsen(embedded("ds2"), layers_each=5, angles_each=2, radii=(0, 1, 2, 3, 5, 7))
    reference = Recipe(2000, 128, 2e-3, 1e-5, 1e-10, clip=100.0)
    tuned = replace(reference, max_learning_rate=1e-3, warm_up=0.1, quantized_rate=2.0)
    return CaloDREAMTask(
        preset="laptop",
        geometry=geometry,
        architecture=Architecture(
            (9, 8, 6),
            geometry.threshold_mev,
            EnergySizes(32, 4, 2, 128, 32, 128, 8, 0.1),
            ShapeSizes((3, 8, 1), 48, 3, 3, 4, 0.1),
        ),
        selection=SELECTION,
        default_events=20_000,
        validation_fraction=0.1,
        measured_times=2,
        recipes=Recipes(
            reference, replace(tuned, steps=40), replace(tuned, steps=300), finalists=3, repetitions=3
        ),
        evaluation=EvaluationSettings(3000, "fast", 2),
        latency_batches=(1, 100),
    )


def _smoke() -> CaloDREAMTask:
    geometry = coarsen(embedded("ds2"), layers_each=15, angles_each=4, radii=(0, 3, 6))
    laptop = _laptop()
    recipe = replace(laptop.recipes.reference, steps=20, batch_size=32)
    tuned = replace(laptop.recipes.final, steps=8, batch_size=32)
    return replace(
        laptop,
        preset="smoke",
        geometry=geometry,
        architecture=Architecture(
            (3, 4, 3),
            geometry.threshold_mev,
            EnergySizes(8, 2, 1, 16, 8, 16, 4, 0.5),
            ShapeSizes((1, 4, 1), 12, 1, 2, 2, 0.5),
        ),
        default_events=800,
        measured_times=1,
        recipes=Recipes(recipe, replace(tuned, steps=4), tuned, finalists=1, repetitions=1),
        evaluation=EvaluationSettings(600, "fast", 1),
        latency_batches=(1,),
    )
