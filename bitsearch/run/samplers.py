"""Samplers that know what the second objective is: a sum over groups, known before anything is trained.

`MaskSampler` models the loss; `StratifiedSampler` and `LadderSampler` do not, and are what it has to beat.
"""

import math
import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from bitsearch.core.errors import ConfigurationError, one_of
from bitsearch.core.mask_model import MaskModel, Scales
from bitsearch.run.problem import GOLDEN, RESOLUTION, Problem

Array = NDArray[np.float64]

GREEDY = 50
"""Number of results up to which the model's mean decides; then draws of its posterior do."""
WIDTH = 0.5
"""How far draws lie from the mean, in widths of the posterior."""
FEWEST = 4
"""Results below which there is nothing to model."""
TURN = 4
"""Every how many proposals one is held to a handmade strategy's fraction."""
CANDIDATES = 32
"""Fractions along the front among which the hypervolume chooses."""
MARGIN = 0.1
ATTEMPTS = 16
SCORED = 0.5
"""Share of the variance of effects that goes in proportion to their scores."""
MOST_SPREAD = 4.0
SWAPS = 8
"""How many of the best groups to add and to remove are tried in pairs."""


class ProposingSampler(optuna.samplers.BaseSampler):
    """Propose all parameters of a trial at once, never those of an earlier one if it can be helped."""

    def __init__(self, problem: Problem, seed: int = 0) -> None:
        self.problem = problem
        self.seed = seed

    @abstractmethod
    def propose(
        self, study: optuna.Study, trial: FrozenTrial, attempt: int, rng: np.random.Generator
    ) -> dict[str, str]:
        """Propose parameters; `attempt` counts from 0 while what was proposed is known already."""

    def infer_relative_search_space(
        self, _study: optuna.Study, _trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Give the whole space, also before the first result."""
        return self.problem.space

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Propose, other draws in every trial, so that processes side by side differ."""
        if not search_space or "fixed_params" in trial.system_attrs:
            return {}
        rng = np.random.default_rng((self.seed, trial.number))
        others = (other for other in study.get_trials(deepcopy=False) if other.number != trial.number)
        known = {tuple(other.params.get(name) for name in search_space) for other in others}
        for attempt in range(ATTEMPTS):
            proposed = self.propose(study, trial, attempt, rng)
            if tuple(proposed[name] for name in search_space) not in known:
                break
        return proposed

    def sample_independent(
        self, _study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw a parameter that a queued trial left open."""
        rng = np.random.default_rng((self.seed, trial.number, *param_name.encode()))
        assert isinstance(param_distribution, CategoricalDistribution)
        return param_distribution.choices[rng.integers(len(param_distribution.choices))]

    def _random(self, target: float, rng: np.random.Generator) -> dict[str, str]:
        """Quantise groups in random order until `target` is reached."""
        levels, reached = [0] * len(self.problem.groups), 0.0
        gains = self.problem.reachable
        for group in rng.permutation(len(levels)).tolist():
            if reached >= target:
                break
            levels[group] = int(rng.integers(len(gains[group]) > 1, len(gains[group])))
            reached += gains[group][levels[group]]
        return self.problem.parameters(levels, self._options(rng))

    def _options(self, rng: np.random.Generator) -> dict[str, str]:
        return {name: str(values[rng.integers(len(values))]) for name, values in self.problem.options.items()}


class StratifiedSampler(ProposingSampler):
    """Draw random masks at uniform fractions."""

    def propose(
        self, study: optuna.Study, trial: FrozenTrial, attempt: int, rng: np.random.Generator
    ) -> dict[str, str]:
        """Draw a fraction, then groups up to it."""
        return self._random(self.problem.between(rng.uniform()), rng)


class LadderSampler(ProposingSampler):
    """Quantise by score up to fractions that lie ever closer, with the options in turn: no search."""

    def propose(
        self, study: optuna.Study, trial: FrozenTrial, attempt: int, rng: np.random.Generator
    ) -> dict[str, str]:
        """Take the next rung."""
        rungs = self.problem.combinations
        turn, option = divmod(trial.number, len(rungs))
        target = self.problem.between((GOLDEN * (turn + attempt) + 0.5) % 1)
        return self.problem.parameters(self.problem.by_score(target), rungs[option])


class MaskSampler(ProposingSampler):
    """Fit `MaskModel` to all results, and propose what adds most to the hypervolume that it expects.

    Candidates are the least losses at fractions all along the front, solved for exactly. Every `TURN`-th proposal is
    instead the least loss at a handmade strategy's fraction. The model's mean decides first, draws of its posterior
    later. Where the residual takes part, groups are exchanged while that helps.
    """

    def __init__(self, problem: Problem, seed: int = 0, greedy: int = GREEDY, width: float = WIDTH) -> None:
        super().__init__(problem, seed)
        self.greedy, self.width = greedy, width
        self._scales: Scales | None = None
        self._fitted: tuple[tuple[int, ...], MaskModel] | None = None
        self._moves = _Moves(problem)

    def propose(
        self, study: optuna.Study, trial: FrozenTrial, attempt: int, rng: np.random.Generator
    ) -> dict[str, str]:
        """Solve for the whole front, then choose from it."""
        model = self._model(study)
        if model is None:
            return self._random(self.problem.between((GOLDEN * trial.number + attempt / ATTEMPTS) % 1), rng)
        greedy = len(model.y) < self.greedy and attempt < ATTEMPTS // 4
        drawn = model.effects(None if greedy else rng, self.width)
        handmade = self.problem.reachable_fractions
        points, worth = [], []
        if trial.number % TURN == 0 and handmade and attempt < ATTEMPTS // 2:
            target = handmade[(trial.number // TURN) % len(handmade)] * (1 + 1e-9)
            points = self._front(model, drawn, [target])
            worth = [-loss for _, _, loss, _ in points]
        if not points:
            shares = (np.arange(CANDIDATES) + rng.uniform()) / CANDIDATES
            points = self._front(model, drawn, [self.problem.between(share) for share in shares])
            if not points:
                return self._random(self.problem.least, rng)
            worth = self._improvements(points, *self._expected(study, trial, model, drawn)).tolist()
        mask, option, _, target = points[int(np.argsort(worth)[-1 - attempt % len(points)])]
        mask, _ = self._exchange(mask, drawn[1][option], option, target, model)
        return self.problem.parameters(self._moves.levels(mask), self.problem.combinations[option])

    def _front(
        self, model: MaskModel, drawn: tuple[Array, Array], targets: Sequence[float]
    ) -> list[tuple[Array, int, float, float]]:
        """Give masks of least loss under every option: mask, option, loss, and the target that it reaches.

        What the model holds for worse than the float network by more than the budget is left out.
        """
        points, most = [], float(min(drawn[0])) + self.problem.max_loss
        for option, (offset, effects) in enumerate(zip(*drawn, strict=True)):
            found = self.problem.covers(self._moves.costs(effects), targets)
            masks = np.array([self._moves.mask(levels) for levels in found])
            losses = offset + masks @ effects + model.residual(masks, np.full(len(masks), option))
            points += [
                (mask, option, loss, target)
                for mask, loss, target in zip(masks, losses, targets, strict=True)
                if loss <= most
            ]
        return points

    def _expected(
        self, study: optuna.Study, trial: FrozenTrial, model: MaskModel, drawn: tuple[Array, Array]
    ) -> tuple[Array, Array]:
        """Give gains and modelled losses of all that has been tried or is under way."""
        masks, options = _encoded(
            self.problem,
            [
                other.params
                for other in study.get_trials(deepcopy=False)
                if other.number != trial.number and other.params.keys() >= self.problem.space.keys()
            ],
        )
        known = options < model.count
        masks, options = masks[known], options[known]
        losses = drawn[0][options] + (masks * drawn[1][options]).sum(1) + model.residual(masks, options)
        return masks @ self._moves.gains, losses

    def _improvements(
        self, points: Sequence[tuple[Array, int, float, float]], gains: Array, losses: Array
    ) -> Array:
        """Give the hypervolume that each point would add to what is known, a tenth below the poorest of the front."""
        own = np.array([loss for _, _, loss, _ in points])
        reached = np.array([mask @ self._moves.gains for mask, _, _, _ in points])
        worst = own[reached >= reached.max() - 1e-12].min()
        limit = worst + MARGIN * (worst - own.min())
        shares = np.linspace(self.problem.least, self.problem.most, RESOLUTION // 4)
        known = np.where(shares <= gains[:, None], losses[:, None], limit).min(0, initial=limit)
        improvements: Array = (np.maximum(known - own[:, None], 0.0) * (shares <= reached[:, None])).sum(1)
        return improvements

    def _model(self, study: optuna.Study) -> MaskModel | None:
        """Fit what is known; a failure counts as a bad result."""
        trials = [trial for trial in study.get_trials(deepcopy=False) if self._is_known(trial)]
        numbers = tuple(trial.number for trial in trials)
        if self._fitted and self._fitted[0] == numbers:
            return self._fitted[1]
        sign = 1 if study.directions[0] == optuna.study.StudyDirection.MINIMIZE else -1
        losses = np.array([sign * trial.values[0] if trial.values else math.nan for trial in trials])
        if np.isfinite(losses).sum() < FEWEST:
            return None
        model = fit(self.problem, [trial.params for trial in trials], losses, self._scales)
        self._scales, self._fitted = model.scales, (numbers, model)
        return model

    def _is_known(self, trial: FrozenTrial) -> bool:
        done = trial.state == TrialState.COMPLETE or (
            trial.state == TrialState.FAIL and "failure" in trial.user_attrs
        )
        return done and trial.params.keys() >= self.problem.space.keys()

    def _exchange(
        self, mask: Array, effects: Array, option: int, target: float, model: MaskModel
    ) -> tuple[Array, float]:
        """Change one group or exchange two while the loss with its residual falls and the target is kept."""

        def losses(masks: Array) -> Array:
            total: Array = masks @ effects + model.residual(masks, np.full(len(masks), option))
            return total

        best = float(losses(mask[None])[0])
        if not model.scales.residual:
            return mask, best
        moves = self._moves
        for _ in moves.groups:
            single = moves.apply(mask)
            gained, order = (single - mask) @ moves.gains, np.argsort(losses(single))
            up, down = order[gained[order] > 0][:SWAPS], order[gained[order] < 0][:SWAPS]
            pairs = [moves.apply(single[move])[down[moves.groups[down] != moves.groups[move]]] for move in up]
            tried = np.concatenate([single, *pairs])
            tried = tried[tried @ moves.gains >= target - 1e-12]
            found = losses(tried)
            if not len(found) or found.min() >= best - 1e-9 * abs(best):
                break
            mask, best = tried[int(found.argmin())], float(found.min())
        return mask, best


class _Moves:
    """Masks hold a 1 for the level above the first that each group has; a move gives one group another level."""

    def __init__(self, problem: Problem) -> None:
        counts = [len(values) for values in problem.groups.values()]
        self.first = np.concatenate(([0], np.cumsum([count - 1 for count in counts])))
        self.gains = np.array([gain for own in problem.gains.values() for gain in own[1:]])
        moves = [(group, level) for group, own in enumerate(problem.reachable) for level in range(len(own))]
        self.groups = np.array([group for group, _ in moves])
        self._kept = np.ones((len(moves), len(self.gains)))
        self._put = np.zeros((len(moves), len(self.gains)))
        for index, (group, level) in enumerate(moves):
            self._kept[index, self.first[group] : self.first[group + 1]] = 0.0
            if level:
                self._put[index, self.first[group] + level - 1] = 1.0

    def apply(self, mask: Array) -> Array:
        """Give the mask after every single move, `(moves, effects)`."""
        return mask * self._kept + self._put

    def mask(self, levels: Sequence[int]) -> Array:
        """Turn the level of every group into a mask."""
        mask = np.zeros(len(self.gains))
        for group, level in enumerate(levels):
            if level:
                mask[self.first[group] + level - 1] = 1.0
        return mask

    def levels(self, mask: Array) -> list[int]:
        """Invert `mask`."""
        return [int(np.argmax([0.5, *own])) for own in np.split(mask, self.first[1:-1])]

    def costs(self, effects: Array) -> list[list[float]]:
        """Give the cost of every level of every group."""
        return [[0.0, *own.tolist()] for own in np.split(effects, self.first[1:-1])]


def fit(
    problem: Problem, parameters: Sequence[Mapping[str, Any]], losses: Array, start: Scales | None = None
) -> MaskModel:
    """Fit `MaskModel` to losses `(n,)`, less being better; those that are not finite count as bad ones."""
    masks, options = _encoded(problem, parameters)
    scores = problem.scores or {}
    rows = [(gain, 1.0, scores.get(name, 0.0)) for name, gains in problem.gains.items() for gain in gains[1:]]
    trends = np.array(rows)
    mean = max(float(trends[:, 2].mean()), 1e-300)
    # What is expected to suffer little can hardly differ by much from that.
    spread = 1 - SCORED + SCORED * (trends[:, 2] / mean if trends[:, 2].any() else 1.0)
    return MaskModel(masks, options, _robust(losses), trends, start, np.minimum(spread, MOST_SPREAD))


def _encoded(problem: Problem, parameters: Sequence[Mapping[str, Any]]) -> tuple[Array, NDArray[np.int64]]:
    """Give masks `(n, effects)` and the numbers of the options' combinations `(n,)`."""
    moves = _Moves(problem)
    combinations = [tuple(item.values()) for item in problem.combinations]
    options = [combinations.index(tuple(item[name] for name in problem.options)) for item in parameters]
    return np.array([moves.mask(problem.levels(item)) for item in parameters]), np.array(options)


def _robust(losses: Array) -> Array:
    """Hold diverged trainings to four interquartile ranges above the median; failures stand there as well."""
    finite = losses[np.isfinite(losses)]
    low, middle, high = np.percentile(finite, (25, 50, 75))
    limit = max(middle + 4 * (high - low), float(finite.min()))
    held: Array = np.minimum(np.where(np.isfinite(losses), losses, limit), limit)
    return held


SAMPLERS: Mapping[str, Any] = {
    "mask": MaskSampler,
    "tpe": optuna.samplers.TPESampler,
    "gp": optuna.samplers.GPSampler,
    "nsga2": optuna.samplers.NSGAIISampler,
    "random": optuna.samplers.RandomSampler,
    "stratified": StratifiedSampler,
    "ladder": LadderSampler,
}
"""By name; `mask` is meant for use, the others are what it has to beat."""

# Optuna's own names, of those that search several objectives and need nothing but a seed.
CLASSES: Mapping[str, Any] = {
    name: getattr(optuna.samplers, name)
    for name in (
        "TPESampler",
        "NSGAIISampler",
        "NSGAIIISampler",
        "GPSampler",
        "RandomSampler",
        "QMCSampler",
        "BruteForceSampler",
    )
}


def check_sampler(name: str, limited: bool = False) -> None:
    """Raise ConfigurationError unless there is a sampler of this name, which knows limits where there are any."""
    if name not in SAMPLERS and name not in CLASSES:
        raise ConfigurationError(f"there is no sampler {name!r}; {one_of(name, SAMPLERS)}")
    ours = [name for name, kind in SAMPLERS.items() if issubclass(kind, ProposingSampler)]
    if limited and name not in ours:
        raise ConfigurationError(
            f"--sampler {name} knows neither --min-fraction nor --keep nor other limits; expected one of "
            + ", ".join(ours)
        )


def make(name: str, problem: Problem, seed: int) -> optuna.samplers.BaseSampler:
    """Make the sampler of a name that `check_sampler` has let pass."""
    kind = SAMPLERS.get(name) or CLASSES[name]
    if issubclass(kind, ProposingSampler):
        ours: optuna.samplers.BaseSampler = kind(problem, seed)
        return ours
    options = {"multivariate": True} if kind is optuna.samplers.TPESampler else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler: optuna.samplers.BaseSampler = kind(seed=seed, **options)
    return sampler
