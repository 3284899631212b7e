"""Samplers on made-up landscapes whose truth is known, also with interactions that no model knows."""

from collections.abc import Callable

import numpy as np
import optuna
import pytest

from bitsearch.run.problem import Problem
from bitsearch.run.samplers import (
    LadderSampler,
    MaskSampler,
    ProposingSampler,
    StratifiedSampler,
    fit,
)

GROUPS = 24
Loss = Callable[[dict[str, str]], float]
Make = Callable[[Problem, int], optuna.samplers.BaseSampler]


def landscape(
    seed: int, pairs: float = 0.0, precisions: tuple[str, ...] = ("float32", "ternary")
) -> tuple[Problem, Loss]:
    """Make sizes and effects; `scores` know the effects up to a factor of about four."""
    rng = np.random.default_rng(seed)
    sizes = rng.lognormal(0, 1.2, GROUPS)
    effects = rng.lognormal(0, 1, GROUPS) * np.sqrt(sizes)
    effects /= effects.sum()
    by_option = np.stack([effects, effects * rng.lognormal(0, 0.5, GROUPS)])
    coupling = pairs * np.triu(rng.standard_normal((GROUPS, GROUPS)), 1) / GROUPS**1.5
    names = [f"g{index}" for index in range(GROUPS)]
    gains = np.linspace(0, 1, len(precisions))
    problem = Problem(
        dict.fromkeys(names, precisions),
        {name: tuple((gains * size).tolist()) for name, size in zip(names, sizes / sizes.sum(), strict=True)},
        {"permutation": ("random", "exchange")},
        (0.3, 0.66),
        dict(zip(names, (effects * rng.lognormal(0, 1.5, GROUPS)).tolist(), strict=True)),
    )

    def loss(parameters: dict[str, str]) -> float:
        option = problem.options["permutation"].index(parameters["permutation"])
        # Twice the gain costs four times the loss.
        mask = np.array([gains[level] ** 2 for level in problem.levels(parameters)])
        return float(by_option[option] @ mask + mask @ coupling @ mask + 0.02 * option)

    return problem, loss


def gain(problem: Problem, parameters: dict[str, str]) -> float:
    return sum(own[i] for own, i in zip(problem.gains.values(), problem.levels(parameters), strict=True))


def hypervolume(make: Make, problem: Problem, loss: Loss, seed: int, trials: int, rungs: int = 0) -> float:
    """Give the area that the true losses of everything tried dominate, below a loss of 1.1."""
    study = optuna.create_study(directions=["minimize", "maximize"], sampler=make(problem, seed))
    rng = np.random.default_rng(seed)
    for rung in range(rungs):
        levels = problem.by_score(rung / max(rungs - 1, 1) * problem.most)
        study.enqueue_trial(problem.parameters(levels, problem.combinations[rung % 2]))
    choices = {**problem.groups, **problem.options}
    points = []
    for _ in range(trials):
        trial = study.ask()
        parameters = {name: trial.suggest_categorical(name, values) for name, values in choices.items()}
        gained = sum(
            own[i] for own, i in zip(problem.gains.values(), problem.levels(parameters), strict=True)
        )
        points.append((loss(parameters), gained))
        study.tell(trial, (points[-1][0] + 0.02 * rng.standard_normal(), gained))
    area = reached = 0.0
    for value, gained in sorted(points):
        if gained > reached:
            area += max(0.0, 1.1 - value) * (gained - reached)
            reached = gained
    return area


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.mark.parametrize("pairs", [0.0, 1.0], ids=["additive", "coupled"])
def test_the_model_beats_no_model_by_a_wide_margin(pairs: float) -> None:
    areas: dict[str, list[float]] = {"random": [], "stratified": [], "ladder": [], "mask": []}
    for seed in range(3):
        problem, loss = landscape(seed, pairs)
        random = hypervolume(lambda _, s: optuna.samplers.RandomSampler(seed=s), problem, loss, seed, 40)
        areas["random"].append(random)
        areas["stratified"].append(hypervolume(StratifiedSampler, problem, loss, seed, 40))
        areas["ladder"].append(hypervolume(LadderSampler, problem, loss, seed, 40))
        areas["mask"].append(hypervolume(MaskSampler, problem, loss, seed, 40, rungs=10))
    mean = {name: float(np.mean(values)) for name, values in areas.items()}
    assert mean["mask"] > mean["ladder"] + 0.02
    assert mean["mask"] > mean["stratified"] + 0.05
    assert mean["mask"] > mean["random"] + 0.1


def test_three_precisions() -> None:
    problem, loss = landscape(1, precisions=("float32", "int8", "ternary"))
    assert hypervolume(MaskSampler, problem, loss, 1, 30, rungs=8) > hypervolume(
        StratifiedSampler, problem, loss, 1, 30
    )


@pytest.mark.parametrize("pairs", [0.0, 1.0], ids=["additive", "coupled"])
def test_the_model_of_all_is_nearer_to_the_truth_than_single_trainings(pairs: float) -> None:
    problem, loss = landscape(5, pairs)
    rng = np.random.default_rng(5)
    tried = [
        problem.parameters(rng.integers(0, 2, GROUPS).tolist(), problem.combinations[index % 2])
        for index in range(160)
    ]
    true = np.array([loss(item) for item in tried])
    measured = true + 0.1 * rng.standard_normal(len(true))
    expected = fit(problem, tried, measured).expected()
    assert np.std(expected - true) < 0.8 * np.std(measured - true)
    assert abs(np.mean(expected - measured)) < 0.01


def test_without_noise_the_model_agrees_with_what_was_measured() -> None:
    problem, loss = landscape(6)
    tried = [
        problem.parameters(np.random.default_rng(index).integers(0, 2, GROUPS).tolist(), options)
        for index, options in enumerate(problem.combinations * 60)
    ]
    true = np.array([loss(item) for item in tried])
    assert np.std(fit(problem, tried, true).expected() - true) < 0.05 * np.std(true)


@pytest.mark.parametrize("kind", [MaskSampler, StratifiedSampler, LadderSampler])
def test_limits_hold(kind: type[ProposingSampler]) -> None:
    """Groups that are kept stay in float32; what is proposed quantises no less than was asked for."""
    problem, loss = landscape(2)
    kept = frozenset(list(problem.groups)[:3])
    limited = Problem(problem.groups, problem.gains, problem.options, (), problem.scores, 0.4, kept)
    study = optuna.create_study(directions=["minimize", "maximize"], sampler=kind(limited, 1))
    for _ in range(12):
        trial = study.ask(limited.space)
        assert all(trial.params[name] == "float32" for name in kept)
        gained = gain(problem, trial.params)
        assert gained >= 0.4 - 1e-9
        study.tell(trial, (loss(trial.params), gained))


def test_processes_side_by_side_draw_different_masks() -> None:
    problem, loss = landscape(3)
    study = optuna.create_study(directions=["minimize", "maximize"], sampler=MaskSampler(problem, 1))
    for index in range(60):
        trial = study.ask(problem.space)
        study.tell(trial, (loss(trial.params), float(index)))
    asked = [tuple(study.ask(problem.space).params.items()) for _ in range(6)]
    assert len(set(asked)) == 6


def test_failures_are_learnt_from_and_not_repeated() -> None:
    """Everything fails that quantises the group which looks cheapest."""
    problem, loss = landscape(4)
    bad = min(
        problem.groups,
        key=lambda name: problem.scores[name] / problem.gains[name][1] if problem.scores else 0,
    )
    study = optuna.create_study(directions=["minimize", "maximize"], sampler=MaskSampler(problem, 1))
    failed = []
    for _ in range(40):
        trial = study.ask(problem.space)
        failed.append(trial.params[bad] == "ternary")
        if failed[-1]:
            trial.set_user_attr("failure", "the loss became nan")
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            gained = sum(
                problem.gains[name][i]
                for name, i in zip(problem.groups, problem.levels(trial.params), strict=True)
            )
            study.tell(trial, (loss(trial.params), gained))
    assert len({tuple(trial.params.items()) for trial in study.trials}) == 40
    assert sum(failed[25:]) <= 7
