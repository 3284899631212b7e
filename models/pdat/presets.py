"""Sizes and recipes of P-DAT: as the published code has it, and smaller ones in the sound form."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bitsearch.core.task import Recipe, Recipes
from bitsearch.models.pdat.network import Architecture
from bitsearch.models.pdat.tasks import PDATTask

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
