"""Float references are trained once; configurations start from them."""

import dataclasses

import pytest
import torch
from conftest import Bench

from bitsearch.network import trainer


def test_reference_is_the_same_for_everyone(bench: Bench) -> None:
    options = {"permutation": "exchange"}
    one, other = (bench.trial.trainer.reference(options).network.state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)
    initial = bench.spec.network(options).state_dict()
    weights = [name for name in one if name.endswith("layers.0.weight")]
    assert weights
    assert not any(torch.equal(one[name], initial[name]) for name in weights)


def test_candidates_start_from_the_reference_and_leave_it_alone(bench: Bench) -> None:
    configuration = bench.strategy("all")
    before = bench.trial.trainer.reference(configuration.options).network.state_dict()
    recipe = dataclasses.replace(bench.task.recipes.candidate, steps=2, max_learning_rate=1e-12)
    trained = bench.trial.trainer.train(configuration, recipe).network.state_dict()
    name = "blocks.1.subnet.layers.0.weight"
    torch.testing.assert_close(trained[name], before[name], rtol=1e-5, atol=1e-8)
    after = bench.trial.trainer.reference(configuration.options).network.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_final_trainings_see_other_batches_than_candidates(bench: Bench) -> None:
    """What was chosen by the luck of one seed is not reported with the same luck."""
    configuration, recipe = bench.strategy("all"), bench.task.recipes.final
    (final,) = bench.trial.trainer.finally_train(configuration, 1)
    candidate = bench.trial.trainer.train(configuration, recipe, 0)
    name = "blocks.1.subnet.layers.0.weight"
    assert not torch.equal(final.network.state_dict()[name], candidate.network.state_dict()[name])


def test_every_candidate_trains_with_random_numbers_of_its_own(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Noise that many configurations share is not averaged away; the same configuration has the same numbers."""
    seeds: list[int] = []
    configurations = [bench.strategy(name) for name in ("all", "blockcentral", "all")]
    for configuration in configurations:
        bench.trial.trainer.reference(configuration.options)
    monkeypatch.setattr(trainer, "train", lambda *_, seed, **_more: seeds.append(seed))
    for configuration in configurations:
        bench.trial.trainer.candidate(configuration)
    bench.trial.trainer.finally_train(configurations[0], 3)
    first, other, again, *finals = seeds
    assert first == again
    assert len({first, other, *finals}) == 5
