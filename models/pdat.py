"""P-DAT: a dual attention transformer that tells quark from gluon jets (He and Wang, 2023), BitHEP section 3."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from bitsearch.core.measurement import Evaluation, Metric, Quantity, Yardstick
from bitsearch.core.task import Graph, Progress, Recipe, Recipes, Session
from bitsearch.models.jets import authors_pdat, classification
from bitsearch.models.jets.dual_attention import ChannelAttention, ChannelLayout, ParticleAttention
from bitsearch.models.jets.edge_convolution import (
    FeatureConvolution,
    FeatureNeighbours,
    SpaceConvolution,
    over_real,
)
from bitsearch.models.jets.pair_features import (
    CODES,
    NEIGHBOUR_FEATURES,
    Convention,
    Inputs,
    Pairs,
    Preparation,
)
from bitsearch.models.jets.prepared import PreparedJets, load

BATCH = 500
PROBABILITY = "quark_probability"
CONSTITUENT = ("pt", "eta", "phi", "pdg_id")
Loss = Literal["logits", "double_softmax"]


@dataclass(frozen=True)
class Architecture:
    """Sizes and choices of one P-DAT; the published choices are named at each.

    particles: leading constituents that are looked at (100), of at most `slots` that the served graph takes.
    neighbours: nearest in space, itself included (21); `feature_neighbours`: nearest in feature space (20).
    edge_width, width: features behind the first and the second edge convolution (128, 64).
    heads, pair_widths: heads of the particle attention (8) and widths of their bias net (32, 16).
    dropout, head_dropout: (0.1, 0.5); pair_dropout: in the bias nets of the attentions (0.1).
    mask: empty slots take no part in attention, means and batch statistics (False: they all do).
    edgeconv2: neighbours of the second edge convolution by `knn`, or none as the published code has it.
    layout: of the channel attention's Q, K, V; see `ChannelAttention`.
    preparation: azimuths `wrapped`, or treated `as_coded`; see `Preparation`.
    loss: cross entropy of `logits`, or of the softmax's output (`double_softmax`), as in the published code.
    legacy_dead: hold the layers that the published network holds and never calls.
    unordered_pairs: compute the bias of each pair once (False: of (a, b) and of (b, a), which is the same).
    shared_bias: compute the attentions' biases once (False: at each use, which draws other dropouts).
    """

    particles: int
    neighbours: int
    feature_neighbours: int
    edge_width: int
    width: int
    heads: int
    pair_widths: tuple[int, ...]
    slots: int
    dropout: float = 0.1
    pair_dropout: float = 0.1
    head_dropout: float = 0.5
    mask: bool = True
    edgeconv2: FeatureNeighbours = "knn"
    layout: ChannelLayout = "transpose"
    preparation: Convention = "wrapped"
    loss: Loss = "logits"
    legacy_dead: bool = False
    unordered_pairs: bool = True
    shared_bias: bool = True


class PDAT(nn.Module):
    """Edge convolutions, then a particle and a channel attention, each used twice, then a pooled classifier.

    Submodules in `never_run` exist because the published network holds them.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = a = architecture
        self.pairs = Pairs.of(a.particles, a.unordered_pairs)
        self.edge1 = SpaceConvolution((NEIGHBOUR_FEATURES, *[a.edge_width] * 3))
        self.edge2 = FeatureConvolution((a.edge_width, *[a.width] * 3), a.feature_neighbours, a.edgeconv2)
        self.particle = ParticleAttention(a.width, a.heads, a.pair_widths, a.dropout, a.pair_dropout)
        self.channel = ChannelAttention(
            a.width, a.particles, a.layout, a.dropout, a.pair_dropout, a.legacy_dead
        )
        self.pooled = nn.Linear(5 * a.width, 4 * a.width)
        self.head = nn.Sequential(
            nn.Linear(4 * a.width, 2 * a.width),
            nn.BatchNorm1d(2 * a.width),
            nn.GELU(),
            nn.Dropout(a.head_dropout),
            nn.Linear(2 * a.width, 2),
        )
        self.never_run: tuple[str, ...] = ()
        if a.legacy_dead:
            self.linear = nn.Linear(4 * a.width, a.width)
            self.bn = nn.BatchNorm1d(a.width)
            self.never_run = ("linear", "bn", *(f"channel.{name}" for name in ChannelAttention.LEGACY))

    def forward(self, inputs: Inputs) -> Tensor:
        """Map what `Preparation` gives to the logits of gluon and quark, `(batch, 2)`."""
        real = inputs.real if self.architecture.mask else None
        x = self.edge2(over_real(self.edge1, inputs.neighbours, real), real)
        features = [x]
        pair_bias = jet_bias = None
        for _ in range(2):
            if pair_bias is None or jet_bias is None or not self.architecture.shared_bias:
                pair_bias = self.particle.bias(inputs.pairs, self.pairs, real)
                jet_bias = self.channel.bias(inputs.jet)
            features.append(self.particle(features[-1], pair_bias))
            features.append(self.channel(features[-1], jet_bias, real))
        # The published pointwise layer comes before the mean; it is linear, so this is the same, cheaper.
        logits: Tensor = self.head(self.pooled(_mean(torch.cat(features, 2), real)))
        return logits


def _mean(x: Tensor, real: Tensor | None) -> Tensor:
    """Average over particles `(batch, particles, width)`, over the real ones where they are told."""
    if real is None:
        return x.mean(1)
    weight = real.to(x.dtype)
    return (weight[:, None] @ x)[:, 0] / weight.sum(1, keepdim=True).clamp_min(1)


class Classifier(nn.Module):
    """The served graph: constituents of jets to the probability that a quark made them."""

    def __init__(self, network: PDAT) -> None:
        super().__init__()
        self.network = network
        self.preparation = preparation(network.architecture)

    def forward(self, pt: Tensor, eta: Tensor, phi: Tensor, pdg_id: Tensor) -> Tensor:
        """Map pT in GeV, rapidity, azimuth in rad and PDG id, `(batch, slots)` each, to `(batch,)`."""
        logits = self.network(self.preparation(pt, eta, phi, pdg_id))
        return torch.softmax(logits, 1)[:, 1]


def preparation(architecture: Architecture) -> Preparation:
    """Set up what turns constituents into a network's inputs."""
    a = architecture
    return Preparation(a.particles, a.neighbours, a.preparation, a.unordered_pairs)


DATASETS = ("quark-gluon",)
PRESETS = ("smoke", "laptop", "paper")
HOW = "mean over n trainings and their standard deviation, on the same held-out jets"
METRICS = (
    Metric("cross_entropy", "Validation cross entropy", "nats", "minimize", HOW),
    Metric("accuracy", "Accuracy", "", "maximize", HOW),
    Metric("auc", "AUC", "", "maximize", HOW),
    Metric("rejection_50", "Gluon rejection at 50 % quark efficiency", "", "maximize", HOW),
    Metric("rejection_30", "Gluon rejection at 30 % quark efficiency", "", "maximize", HOW),
)


@dataclass(frozen=True)
class PDATTask:
    """P-DAT on quark and gluon jets: what `bitsearch.core.task.Task` asks for.

    The search follows the cross entropy of the validation jets: it uses every jet's probability and so tells
    configurations apart that agree within the error of their AUC. It stays the validation jets'; the paper's
    metrics are replaced by those of the test jets, which no choice was made on, when a front is evaluated.
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

    @property
    def settings(self) -> Mapping[str, Any]:
        """Architecture, selection and recipes as JSON values."""
        raw = asdict(self)
        return {name: raw[name] for name in ("architecture", "most_jets", "recipes")}

    def network(self, options: Mapping[str, str], seed: int) -> PDAT:
        """Build the float network; it has no options."""
        return PDAT(self.architecture)

    def load(self, paths: Sequence[Path], seed: int, progress: Progress) -> PreparedJets:
        """Read files of quark and gluon jets, or the sample that comes with the package."""
        a = self.architecture
        return load(paths, preparation(a), a.slots, self.most_jets, seed, progress)

    def prepare(self, network: PDAT, data: PreparedJets, generator: torch.Generator) -> None:
        """Leave the network as it is: nothing in it depends on data before training."""

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
        del found[self.objective]
        return found, classification.evaluation(scores, data.test.quark, digest)


def classify(session: Session, columns: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
    """Give the quark probability of every jet, from pT, rapidity, azimuth and PDG id."""
    parts = []
    for start in range(0, len(columns[0]), BATCH):
        batch = {name: x[start : start + BATCH] for name, x in zip(CONSTITUENT, columns, strict=True)}
        parts.append(session.run([PROBABILITY], batch)[0])
    return np.concatenate(parts).astype(np.float64)


# Particles, neighbours, of which in feature space, widths of the edge convolutions and behind, widths of the pair
# bias; steps for reference, candidate and finalist; batch; finalists; slots; jets. A step of the laptop's takes 0.12 s
# on one core. Drawing the published dropout would take a tenth of it; few epochs leave it little to do.
SIZES: Mapping[str, tuple[Any, ...]] = {
    "smoke": (24, 5, 4, 16, 16, (8,), (60, 4, 20), 32, 1, 64, 1000),
    "laptop": (64, 9, 8, 32, 32, (16, 8), (2000, 32, 300), 64, 3, 128, 40_000),
}


def task(dataset: str = "quark-gluon", preset: str = "laptop") -> PDATTask:
    """Set up P-DAT: `paper` as the published code has it, the others smaller and in the sound form."""
    if preset == "paper":
        return _published(dataset)
    particles, neighbours, near, edge, width, pair, steps, batch, finalists, slots, jets = SIZES[preset]
    reference = Recipe(steps[0], batch, 3e-3, 0.01, 1e-8)
    recipe = replace(reference, max_learning_rate=1e-3, warm_up=0.1, quantized_rate=2.0)
    return PDATTask(
        dataset=dataset,
        preset=preset,
        architecture=Architecture(
            particles, neighbours, near, edge, width, 4, pair, slots, dropout=0.0, pair_dropout=0.0
        ),
        most_jets=jets,
        recipes=Recipes(
            reference,
            replace(recipe, steps=steps[1]),
            replace(recipe, steps=steps[2]),
            finalists,
            repetitions=1 if preset == "smoke" else 3,
        ),
        latency_batches=(1, 10) if preset == "smoke" else (1, 100),
    )


def _published(dataset: str) -> PDATTask:
    epoch = 1_600_000 // 64
    recipe = Recipe(100 * epoch, 64, 1e-4, 0.01, 1e-8, schedule="steps", decay_every=10 * epoch)
    candidate = replace(recipe, steps=epoch, schedule="constant")
    return PDATTask(
        dataset=dataset,
        preset="paper",
        architecture=Architecture(
            particles=100,
            neighbours=21,
            feature_neighbours=20,
            edge_width=128,
            width=64,
            heads=8,
            pair_widths=(32, 16),
            slots=160,
            mask=False,
            edgeconv2="pointwise_as_coded",
            layout="as_coded",
            preparation="as_coded",
            loss="double_softmax",
            legacy_dead=True,
            unordered_pairs=False,
            shared_bias=False,
        ),
        most_jets=None,
        recipes=Recipes(recipe, candidate, replace(recipe, scratch=True), 24, 5),
        latency_batches=(1, 100),
    )
