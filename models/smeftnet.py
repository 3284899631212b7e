"""SMEFTNet: a graph network for the decay-plane angle of boosted W bosons, as quantised in BitHEP section 4."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bitsearch.core.measurement import Evaluation, Map, Metric, Quantity, Yardstick, over_trainings
from bitsearch.core.task import Graph, Progress, Recipe, Recipes, Session
from bitsearch.models.jets import angles
from bitsearch.models.jets.geometric import convert
from bitsearch.models.jets.message_passing import SMALLEST_WEIGHT, Convolution, Perceptron, Style, length
from bitsearch.models.jets.planes import TARGET, Columns, Planes, load

BATCH = 256
MAP_EDGES = np.linspace(-math.pi, math.pi, 31)
# Edge layers of the published class, and those that the published launch script asks for.
CLASS_DEFAULT = ((10, 10), (10, 10))
LAUNCH_SCRIPT = ((20, 20), (20, 20))
# As published, low-bit blocks also have another activation, and edge networks lose their normalisation.
EDGE_STYLES = {"float": Style(True, "relu"), "bit": Style(False, "leaky-relu")}
READOUT_STYLES = {"float": Style(True, "relu"), "bit": Style(True, "leaky-relu")}


@dataclass(frozen=True)
class Architecture:
    """Sizes and choices of one SMEFTNet; the defaults are the sound form.

    `coords`: particles lie at Θ(cos φ, sin φ), or, as the published code has it, at (Θ, φ), whose rotation has no
    meaning. `edge_weight`: messages are averaged with the transverse momenta of their senders, or, as the published
    code has it, uniformly. `scalar` and `vector_to_readout` feed the jet's transverse momentum and the pooled vector
    to the readout.
    """

    particles: int = 40
    coords: Literal["cartesian", "polar_as_coded"] = "cartesian"
    edge_weight: Literal["pt", "uniform_as_coded"] = "pt"
    convolutions: tuple[tuple[int, ...], ...] = CLASS_DEFAULT
    readout: tuple[int, ...] = (32, 32)
    radius: float = 0.4
    edge_style: Style = EDGE_STYLES["float"]
    readout_style: Style = READOUT_STYLES["float"]
    scalar: bool = True
    vector_to_readout: bool = True


class SMEFTNet(nn.Module):
    """Particles of a jet to an angle, an unbounded real in radians, and a vector that rotates with the particles."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        a = self.architecture = architecture
        features = [1, *(sizes[-1] for sizes in a.convolutions)]
        self.convolutions = nn.ModuleList(
            Convolution(size, sizes, a.edge_style, a.radius, a.edge_weight == "pt")
            for size, sizes in zip(features, a.convolutions, strict=False)
        )
        self.scalar_norm = nn.BatchNorm1d(1) if a.scalar else None
        pooled = a.scalar + features[-1] + 2 * a.vector_to_readout
        self.readout = Perceptron([pooled, *a.readout, 1], a.readout_style)

    def forward(self, pt: Tensor, theta: Tensor, phi: Tensor, jet_pt: Tensor) -> tuple[Tensor, Tensor]:
        """Map `(batch, particles)` three times and `(batch, 1)`, in GeV and radians, to `(batch,)` and `(batch, 2)`.

        There is no particle where `pt` is 0.
        """
        position = self.position(theta, phi)
        features = length(position)
        for convolution in self.convolutions:
            features, position = convolution(pt, features, position)
        weights = pt / pt.sum(1, keepdim=True).clamp_min(SMALLEST_WEIGHT)
        pooled = (weights[..., None] * torch.cat([features, position], -1)).sum(1)
        vector = pooled[:, -2:]
        inputs = pooled if self.architecture.vector_to_readout else pooled[:, :-2]
        if self.scalar_norm is not None:
            inputs = torch.cat([self.scalar_norm(jet_pt), inputs], -1)
        return self.readout(inputs)[:, 0], vector

    def position(self, theta: Tensor, phi: Tensor) -> Tensor:
        """Place the particles in the plane, `(batch, particles, 2)`."""
        if self.architecture.coords == "cartesian":
            return torch.stack([theta * torch.cos(phi), theta * torch.sin(phi)], -1)
        return torch.stack([theta, phi], -1)


class Angle(nn.Module):
    """The served graph: particles about the jet axis to the angle of the decay plane, defined up to multiples of π."""

    def __init__(self, network: SMEFTNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, pt: Tensor, theta: Tensor, phi: Tensor, jet_pt: Tensor) -> Tensor:
        """Map `(batch, particles)` three times and `(batch, 1)`, in GeV and radians, to radians `(batch,)`."""
        angle: Tensor = self.network(pt, theta, phi, jet_pt)[0]
        return angle


DATASETS = ("wz",)
PRESETS = ("smoke", "laptop", "paper", "launch-script")
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


@dataclass(frozen=True)
class SMEFTNetTask:
    """SMEFTNet on jets of boosted W bosons: what `bitsearch.core.task.Task` asks for."""

    preset: str
    architecture: Architecture
    jets: int | None
    held_out_fraction: float
    recipes: Recipes
    latency_batches: tuple[int, ...]
    dataset: str = "wz"
    model: str = "smeftnet"
    metrics: tuple[Metric, ...] = METRICS
    objective: str = "sin2"
    served: str = "angle"
    measured: tuple[str, ...] = ("angle",)

    @property
    def settings(self) -> Mapping[str, Any]:
        """Architecture, selection of jets and recipes as JSON values."""
        raw = asdict(self)
        return {name: raw[name] for name in ("architecture", "jets", "held_out_fraction", "recipes")}

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

    def load(self, paths: Sequence[Path], seed: int, progress: Progress) -> Planes:
        """Read files of WZ jets, or the shipped sample."""
        return load(paths, self.architecture.particles, self.jets, self.held_out_fraction, seed)

    def prepare(self, network: SMEFTNet, data: Planes, generator: torch.Generator) -> None:
        """Leave the network as it is: nothing in it depends on data before the first step."""

    def loss(self, network: SMEFTNet, data: Planes, indices: Tensor, generator: torch.Generator) -> Tensor:
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

    def measure(self, sessions: Mapping[str, Session], data: Planes) -> Mapping[str, Quantity]:
        """Compute how far the residuals of the validation jets spread."""
        return angles.spread(_residuals(sessions["angle"], data.validation))

    def yardsticks(self, data: Planes) -> tuple[Yardstick, ...]:
        """Give what the principal axis of the particles, a closed form, reaches on the test jets."""
        columns = data.test
        axis = angles.principal_axis(columns["pt"], columns["theta"], columns["phi"])
        spread = angles.spread(columns[TARGET] - axis)
        return tuple(Yardstick("principal axis", name, quantity) for name, quantity in spread.items())

    def evaluate(
        self,
        sessions: Sequence[Session],
        baseline: Sequence[Session],
        data: Planes,
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


# Particles; jets; batch; steps for reference, candidate and finalist; finalists; repetitions; batches to time.
SIZES = {
    "smoke": (16, 1000, 64, (300, 4, 20), 1, 2, (1,)),
    "laptop": (20, None, 128, (5000, 80, 1000), 4, 3, (1, 100)),
}


def task(dataset: str = "wz", preset: str = "laptop") -> SMEFTNetTask:
    """Set up SMEFTNet: `paper` and `launch-script` as published, the others smaller and in the sound form."""
    if preset in ("paper", "launch-script"):
        return _published(preset)
    particles, jets, batch, (reference, candidate, final), finalists, repetitions, timed = SIZES[preset]
    float_recipe = Recipe(reference, batch, 3e-3, 0.0, 1e-8, schedule="linear")
    recipe = replace(float_recipe, quantized_rate=2.0)
    return SMEFTNetTask(
        preset,
        Architecture(particles),
        jets,
        held_out_fraction=0.2,
        recipes=Recipes(
            float_recipe,
            replace(recipe, steps=candidate),
            replace(recipe, steps=final),
            finalists,
            repetitions,
        ),
        latency_batches=timed,
    )


def _published(preset: str) -> SMEFTNetTask:
    # One optimiser step for a walk through 200 files, whose gradients are summed.
    recipe = Recipe(300, 12_500, 1e-3, 0.0, 1e-8, schedule="constant", accumulate=200, scratch=True)
    return SMEFTNetTask(
        preset,
        Architecture(
            40,
            "polar_as_coded",
            "uniform_as_coded",
            convolutions=LAUNCH_SCRIPT if preset == "launch-script" else CLASS_DEFAULT,
        ),
        jets=None,
        held_out_fraction=0.2,
        recipes=Recipes(recipe, replace(recipe, steps=30, scratch=False), recipe, 24, 3),
        latency_batches=(1, 100, 1000),
    )
