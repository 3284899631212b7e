"""Sizes and recipes of CaloDREAM: as published, and smaller ones on sums of voxels."""

from dataclasses import replace

from bitsearch.core.rounding import Rounding
from bitsearch.core.task import Recipe, Recipes
from bitsearch.models.calodream.energy import EnergySizes
from bitsearch.models.calodream.network import Architecture
from bitsearch.models.calodream.shape import ShapeSizes
from bitsearch.models.calodream.solver import Solver
from bitsearch.models.calodream.tasks import CaloDREAMTask
from bitsearch.models.showers.coarse import coarsen
from bitsearch.models.showers.comparison import EvaluationSettings
from bitsearch.models.showers.geometry import embedded
from bitsearch.models.showers.normalization import Selection

# Beyond 1/0.35 the logit of the scaled response is not defined.
SELECTION = Selection((0.0, 2.8))


def task(dataset: str = "ds2", preset: str = "laptop") -> CaloDREAMTask:
    """Set up CaloDREAM: `paper` as published, the others smaller and on sums of voxels."""
    return {"smoke": _smoke, "laptop": _laptop, "paper": _paper}[preset]()


def improved(task: CaloDREAMTask) -> CaloDREAMTask:
    """Round the energy network's outputs optimally, the shape network's by their means (docs/recipes.md)."""
    rounding = ("energy.*", Rounding.OPTIMAL), ("shape.*", Rounding.MEAN)
    return replace(task, recipes=task.recipes.improved(*rounding))


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
        dataset="ds2",
        preset="paper",
        geometry=geometry,
        architecture=Architecture(
            (45, 16, 9),
            geometry.threshold_mev,
            EnergySizes(64, 4, 4, 512, 64, 512, 8, Solver("kutta", 50)),
            ShapeSizes((3, 16, 1), 480, 6, 6, 4, Solver("kutta", 20)),
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
        dataset="ds2",
        preset="laptop",
        geometry=geometry,
        architecture=Architecture(
            (9, 8, 6),
            geometry.threshold_mev,
            EnergySizes(32, 4, 2, 128, 32, 128, 8, Solver("kutta", 10)),
            ShapeSizes((3, 8, 1), 48, 3, 3, 4, Solver("kutta", 10)),
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
            EnergySizes(8, 2, 1, 16, 8, 16, 4, Solver("kutta", 2)),
            ShapeSizes((1, 4, 1), 12, 1, 2, 2, Solver("kutta", 2)),
        ),
        default_events=800,
        measured_times=1,
        recipes=Recipes(recipe, replace(tuned, steps=4), tuned, finalists=1, repetitions=1),
        evaluation=EvaluationSettings(600, "fast", 1),
        latency_batches=(1,),
    )
