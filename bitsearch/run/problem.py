"""What a search knows of its space before anything is measured, and the ladder that follows from it alone."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import product
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution

from bitsearch.core.budget import Budget
from bitsearch.core.errors import ConfigurationError
from bitsearch.core.knapsack import covers
from bitsearch.core.space import SearchSpace

GOLDEN = (math.sqrt(5) - 1) / 2
MOST_RUNGS = 8
RESOLUTION = 1000
"""Steps of the knapsack: what is known of effects is coarser."""


@dataclass(frozen=True)
class Problem:
    """What is known before any result.

    `groups` lists the precisions that each group may have, the first of them the one that gains nothing; `gains`
    says what each adds to the second objective, `scores` how much each group is expected to suffer. `fractions` are
    those of the handmade strategies. Proposals gain `least` or more, leave the groups of `kept` as they are and keep to
    `budgets`; `max_loss` is how much worse than the float network those may be that a model of the loss proposes.
    """

    groups: Mapping[str, tuple[str, ...]]
    gains: Mapping[str, tuple[float, ...]]
    options: Mapping[str, tuple[str, ...]]
    fractions: tuple[float, ...] = ()
    scores: Mapping[str, float] | None = None
    least: float = 0.0
    kept: frozenset[str] = frozenset()
    budgets: tuple[Budget, ...] = ()
    max_loss: float = math.inf

    @cached_property
    def space(self) -> dict[str, BaseDistribution]:
        """Give the parameters as Optuna knows them."""
        choices = {**self.groups, **self.options}
        return {name: CategoricalDistribution(values) for name, values in choices.items()}

    @cached_property
    def reachable(self) -> list[tuple[float, ...]]:
        """Give the gains that proposals may have, of every group and level."""
        return [own[:1] if name in self.kept else own for name, own in self.gains.items()]

    @cached_property
    def most(self) -> float:
        """Give the largest value of the second objective that a proposal can have."""
        return sum(max(own) for own in self.reachable)

    @property
    def limited(self) -> bool:
        """Whether proposals are held to anything."""
        return self.least > 0 or bool(self.kept or self.budgets) or self.max_loss < math.inf

    def gain(self, parameters: Mapping[str, Any]) -> float:
        """Give the second objective."""
        return sum(own[i] for own, i in zip(self.gains.values(), self.levels(parameters), strict=True))

    def allows(self, parameters: Mapping[str, Any]) -> bool:
        """Tell whether parameters keep to the limits."""
        kept = all(parameters[name] == self.groups[name][0] for name in self.kept)
        if not kept or self.gain(parameters) < self.least * (1 - 1e-9):
            return False
        options = tuple(parameters[name] for name in self.options)
        levels = dict(zip(self.groups, self.levels(parameters), strict=True))
        return all(budget.predicted(options, levels) <= budget.most for budget in self.budgets)

    @cached_property
    def reachable_fractions(self) -> list[float]:
        """Give the handmade fractions within the limits."""
        return [share for share in self.fractions if self.least < share <= self.most]

    def between(self, share: float) -> float:
        """Give the gain at a share of the way from the least to the most."""
        return self.least + share * (self.most - self.least)

    @cached_property
    def combinations(self) -> list[dict[str, str]]:
        """List the choices of all options together."""
        return [dict(zip(self.options, values, strict=True)) for values in product(*self.options.values())]

    def levels(self, parameters: Mapping[str, Any]) -> list[int]:
        """Give the index of every group's precision."""
        return [values.index(parameters[name]) for name, values in self.groups.items()]

    def parameters(self, levels: Sequence[int], options: Mapping[str, str]) -> dict[str, str]:
        """Name the precision of every group."""
        groups = {
            name: values[level] for (name, values), level in zip(self.groups.items(), levels, strict=True)
        }
        return {**groups, **options}

    def covers(self, costs: Sequence[Sequence[float]], targets: Sequence[float]) -> list[list[int]]:
        """Choose the levels of least cost that gain each of `targets`."""
        gains = self.reachable
        allowed = [own[: len(gain)] for own, gain in zip(costs, gains, strict=True)]
        return covers(allowed, gains, targets, RESOLUTION)

    def by_score(self, target: float) -> list[int]:
        """Give the groups that suffer least for what they gain their largest gain first, until `target`."""
        scores = self.scores or {}

        def density(name: str) -> float:
            return scores.get(name, 0.0) / max(*self.gains[name], 1e-12)

        levels, reached = dict.fromkeys(self.groups, 0), 0.0
        for name in sorted(self.groups.keys() - self.kept, key=lambda name: (density(name), name)):
            if reached >= target * (1 - 1e-9):
                break
            # Of several that gain as much the last: the precision of the handmade strategies.
            levels[name] = max(
                range(len(self.gains[name])), key=lambda level: (self.gains[name][level], level)
            )
            reached += max(self.gains[name])
        return list(levels.values())


def describe(
    space: SearchSpace,
    gains: Mapping[str, float] | None = None,
    least: float = 0.0,
    keep: Sequence[str] = (),
) -> Problem:
    """Say what is known of a space before anything is measured.

    `gains` is what each group adds to the quantised fraction, where left out its share of the layers; among more than
    two precisions its share of the weights, and what it gains are the bits saved. Proposals have the fraction `least`
    or more, and keep the groups in float32 whose names match a pattern of `keep`.

    Raises:
        ConfigurationError: a pattern matches no group, or `least` is not reachable.
    """
    share = 1 / len(space.layers)
    gained = {group.name: gains[group.name] if gains else share * len(group.layers) for group in space.groups}
    saved = {
        value: 1 - value.bits / 32 if space.others else float(value.is_quantized)
        for value in space.precisions
    }
    handmade = {
        sum(gained[name] * saved[value] for name, value in space.precisions_of(item.configuration).items())
        for item in space.strategies
    }
    precisions = tuple(map(str, space.precisions))
    kept: set[str] = set()
    for pattern in keep:
        found = {name for name in gained if name == pattern or fnmatchcase(name, pattern)}
        if not found:
            raise ConfigurationError(f"--keep {pattern}: no group matches; there are {', '.join(gained)}")
        kept |= found
    problem = Problem(
        groups={group.name: precisions for group in space.groups},
        gains={
            name: tuple(gain * saved[value] for value in space.precisions) for name, gain in gained.items()
        },
        options=space.options,
        fractions=tuple(sorted(share for share in handmade if share > 0)),
        least=least,
        kept=frozenset(kept),
    )
    if not 0 <= least <= 1:
        raise ConfigurationError(f"--min-fraction {least:g}: expected 0 to 1")
    if kept == gained.keys():
        raise ConfigurationError(
            f"--keep {' '.join(keep)}: that is every group, and nothing is left to search"
        )
    if least > problem.most * (1 + 1e-9):
        raise ConfigurationError(
            f"--min-fraction {least:g} cannot be reached: all groups{' but those of --keep' if kept else ''} together "
            f"are {problem.most:.4f}"
        )
    return problem


def ladder(problem: Problem, most: int = MOST_RUNGS) -> list[dict[str, str]]:
    """Give up to `most` parameters that quantise the groups that gradients call harmless first, options in turn.

    Everything under every option, rungs just above each handmade fraction, then fractions that lie ever closer; all
    of them within the limits.
    """
    combinations = problem.combinations
    rungs = [problem.parameters(problem.by_score(problem.most), options) for options in combinations]
    spread = [problem.between((GOLDEN * index) % 1) for index in range(1, most + 1)]
    for index, target in enumerate([*problem.reachable_fractions, *spread]):
        rung = problem.parameters(problem.by_score(target), combinations[index % len(combinations)])
        if rung not in rungs:
            rungs.append(rung)
    return rungs[:most]
