"""What a run would train, before anything is read or written."""

from dataclasses import dataclass
from itertools import product

from bitsearch.core.space import SearchSpace
from bitsearch.core.task import Recipe, Recipes
from bitsearch.run import finals


@dataclass(frozen=True)
class Work:
    """Trainings of one kind, at most; `steps` are the optimiser's and `events` those that all of them see together."""

    kind: str
    trainings: int
    steps: int
    events: int


def most_challengers(recipes: Recipes, trials: int) -> int:
    """Give how many configurations of a search may go into final training."""
    return max(recipes.finalists, trials // finals.TRIALS_A_FINALIST)


def plan(space: SearchSpace, recipes: Recipes, trials: int) -> list[Work]:
    """List the trainings of a whole run from nothing; finals that a run chooses not to train are counted."""
    choices = len(list(product(*space.options.values())))
    repeated = 0 if recipes.final.scratch or not recipes.independent else recipes.repetitions - 1
    finalists = len(space.strategies) + most_challengers(recipes, trials)
    return [
        _work("float references", choices * (1 + repeated), recipes.reference),
        _work("candidates", trials, recipes.candidate),
        _work("finals", finalists * recipes.repetitions, recipes.final),
    ]


def _work(kind: str, trainings: int, recipe: Recipe) -> Work:
    steps = sum(stage.steps for stage in recipe.stages)
    events = sum(stage.steps * stage.batch_size * stage.accumulate for stage in recipe.stages)
    return Work(kind, trainings, trainings * steps, trainings * events)
