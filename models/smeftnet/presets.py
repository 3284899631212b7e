"""Sizes and recipes of SMEFTNet: as published, and smaller ones in the sound form."""

from dataclasses import replace

from bitsearch.core.task import Recipe, Recipes
from bitsearch.models.smeftnet.network import CLASS_DEFAULT, LAUNCH_SCRIPT, Architecture
from bitsearch.models.smeftnet.tasks import SMEFTNetTask

# Particles; jets; batch; steps for reference, candidate and finalist; finalists; repetitions; batches to time.
SIZES = {
    "smoke": (16, 1000, 64, (300, 4, 20), 1, 2, (1,)),
    "laptop": (20, None, 128, (5000, 80, 1000), 4, 3, (1, 100)),
}


def task(dataset: str = "wz", preset: str = "laptop") -> SMEFTNetTask:
    """Set up SMEFTNet: `paper` and `launch-script` as published, the others smaller and in the sound form."""
    if preset in ("paper", "launch-script"):
        return _published(dataset, preset)
    particles, jets, batch, (reference, candidate, final), finalists, repetitions, timed = SIZES[preset]
    float_recipe = Recipe(reference, batch, 3e-3, 0.0, 1e-8, schedule="linear")
    recipe = replace(float_recipe, quantized_rate=2.0)
    return SMEFTNetTask(
        dataset=dataset,
        preset=preset,
        architecture=Architecture(particles),
        jets=jets,
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


def _published(dataset: str, preset: str) -> SMEFTNetTask:
    # One optimiser step for a walk through 200 files, whose gradients are summed.
    recipe = Recipe(300, 12_500, 1e-3, 0.0, 1e-8, schedule="constant", accumulate=200, scratch=True)
    return SMEFTNetTask(
        dataset=dataset,
        preset=preset,
        architecture=Architecture(
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
