"""Sizes and recipes of CaloINN: as published, and smaller ones for a laptop and for tests."""

from dataclasses import replace

from bitsearch.core.rounding import Rounding
from bitsearch.core.task import Recipe, Recipes
from bitsearch.models.caloinn.network import Architecture
from bitsearch.models.caloinn.tasks import CaloINNTask
from bitsearch.models.showers.comparison import EvaluationSettings
from bitsearch.models.showers.geometry import embedded
from bitsearch.models.showers.normalization import Selection

# The laptop keeps the twelve blocks: with fewer, random permutations leave coordinates that no block transforms.
# Blocks, hidden width, bins; steps for reference, candidate and finalist; batch of all, of candidates; finalists;
# evaluated events.
SIZES = {
    "smoke": (5, 8, 4, (20, 4, 8), (64, 64), 1, 600),
    "laptop": (12, 48, 4, (800, 24, 100), (128, 64), 4, 6000),
}
# ds2 has eighteen times as many voxels to train on in the same time.
SIZES_DS2 = {
    "smoke": (5, 8, 4, (8, 2, 4), (16, 16), 1, 300),
    "laptop": (6, 32, 4, (400, 20, 60), (48, 48), 4, 2000),
}


def task(dataset: str = "ds1-photon", preset: str = "laptop") -> CaloINNTask:
    """Set up CaloINN on `dataset`: `paper` as published, the others smaller and with the textbook bounds rule."""
    published = _published(dataset)
    if preset == "paper":
        return published
    sizes = SIZES_DS2 if dataset == "ds2" else SIZES
    blocks, hidden, bins, (reference, candidate, final), batches, finalists, events = sizes[preset]
    batch, small = batches
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
            replace(recipe, steps=candidate, batch_size=small),
            replace(recipe, steps=final),
            finalists,
            repetitions=1 if preset == "smoke" else 3,
            independent=False,
        ),
        evaluation=EvaluationSettings(events, "fast", 1 if preset == "smoke" else 2),
        latency_batches=(1, 100) if preset == "smoke" else (1, 100, 1000),
    )


def improved(task: CaloINNTask) -> CaloINNTask:
    """Round every output optimally; low-bit weights then want no larger rate (measured: docs/recipes.md)."""
    return replace(task, recipes=task.recipes.improved(("*", Rounding.OPTIMAL), quantized_rate=1.0))


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
