"""Training with a toy: reproducible, resumable to the last bit, and honest when it cannot go on."""

import dataclasses
import math
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from bitsearch.core.assignment import Assignment
from bitsearch.core.errors import CheckpointError, TrainingError
from bitsearch.core.task import Data, Recipe, Schedule, Task
from bitsearch.network import loop, quant
from bitsearch.network.loop import Trained, train
from bitsearch.network.quant import BitLinear

RECIPE = Recipe(
    steps=60, batch_size=16, max_learning_rate=1e-2, weight_decay=0.01, epsilon=1e-10, quantized_rate=3.0
)


@dataclasses.dataclass(frozen=True)
class ToyData:
    x: Tensor
    y: Tensor

    @property
    def events(self) -> int:
        return len(self.x)

    def to(self, device: str) -> "ToyData":
        return ToyData(self.x.to(device), self.y.to(device))


class ToyTask:
    """Regression with noise; becomes NaN where it is told to."""

    def __init__(self, breaks_at: int | None = None) -> None:
        self.breaks_at, self.calls = breaks_at, 0
        self.batches: list[list[int]] = []

    def loss(self, network: nn.Module, data: Any, indices: Tensor, generator: torch.Generator) -> Tensor:
        self.calls += 1
        self.batches.append(indices.tolist())
        x = data.x[indices] + 0.01 * torch.rand(len(indices), 5, generator=generator)
        loss: Tensor = (network(x) - data.y[indices]).square().mean()
        return loss * math.nan if self.calls - 1 == self.breaks_at else loss


def toy_data(events: int = 100) -> Data:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(events, 5, generator=generator)
    return cast(Data, ToyData(x, x[:, :2] * 2 + 1))


def toy_network(quantized: bool = True) -> nn.Module:
    torch.manual_seed(2)
    network = nn.Sequential(nn.Linear(5, 12), nn.BatchNorm1d(12), nn.SiLU(), nn.Linear(12, 2))
    return quant.apply(network, Assignment.of(["0", "3"], ["0"] if quantized else []))


def run(task: ToyTask | None = None, recipe: Recipe = RECIPE, seed: int = 1, **more: Any) -> Trained:
    network = more.pop("network", None) or toy_network()
    data = more.pop("data", None) or toy_data()
    return train(network, cast(Task, task or ToyTask()), data, recipe, seed=seed, **more)


def same(one: Trained, other: Trained) -> bool:
    states = one.network.state_dict(), other.network.state_dict()
    return one.losses == other.losses and all(
        torch.equal(states[0][name], states[1][name]) for name in states[0]
    )


def test_same_seed_gives_the_same_bits() -> None:
    assert same(run(), run())
    assert not same(run(), run(seed=2))


def test_global_random_state_is_neither_used_nor_touched() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    network = toy_network()
    torch.set_rng_state(state)
    one = run(network=network)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(77)
    other = toy_network()
    torch.manual_seed(99)
    assert same(one, run(network=other))


@pytest.mark.parametrize("quantized", [False, True])
def test_loss_decreases(quantized: bool) -> None:
    trained = run(network=toy_network(quantized), recipe=dataclasses.replace(RECIPE, steps=300))
    assert trained.losses[-1][1] < 0.2 * trained.losses[0][1]
    assert [step for step, _ in trained.losses] == [*range(0, 300, 10), 299]
    assert not trained.network.training
    assert trained.seconds > 0


class InterruptedTrainingError(Exception):
    pass


@pytest.mark.parametrize("killed_at", [1, 3, 6])
def test_resumed_equals_uninterrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    checkpoint, calls = tmp_path / "work" / "c.pt", 0

    def kill(_text: str, _share: float) -> None:
        nonlocal calls
        calls += 1
        if calls > killed_at:
            raise InterruptedTrainingError

    first, second = ToyTask(), ToyTask()
    with pytest.raises(InterruptedTrainingError):
        run(first, checkpoint=checkpoint, progress=kill)
    assert list(checkpoint.parent.iterdir()) == [checkpoint]
    torch.manual_seed(123)
    other = toy_network()
    nn.init.zeros_(other.get_submodule("0").weight)  # type: ignore[arg-type]
    resumed = run(second, network=other, checkpoint=checkpoint)
    whole_task = ToyTask()
    whole = run(whole_task)
    assert same(resumed, whole)
    done = 10 * (killed_at - 1) + 1
    assert second.batches == whole_task.batches[done:]


def test_finished_training_is_read_not_repeated(tmp_path: Path) -> None:
    checkpoint = tmp_path / "c.pt"
    first, second = ToyTask(), ToyTask()
    one = run(first, checkpoint=checkpoint)
    other = run(second, checkpoint=checkpoint)
    assert same(one, other)
    assert (first.calls, second.calls) == (RECIPE.steps, 0)


def test_finished_training_keeps_no_optimiser(tmp_path: Path) -> None:
    run(checkpoint=tmp_path / "c.pt")
    kept = torch.load(tmp_path / "c.pt", weights_only=True)
    assert kept.keys() == {"network", "signature", "step", "seconds", "losses"}


@pytest.mark.parametrize("damage", ["cut", "empty", "junk", "list", "no step", "wrong types"])
def test_damaged_checkpoint_is_one_line(tmp_path: Path, damage: str) -> None:
    checkpoint = tmp_path / "c.pt"
    run(checkpoint=checkpoint)
    content = torch.load(checkpoint, weights_only=True)
    match damage:
        case "cut":
            checkpoint.write_bytes(checkpoint.read_bytes()[:100])
        case "empty":
            checkpoint.write_bytes(b"")
        case "junk":
            checkpoint.write_bytes(b"junk" * 100)
        case "list":
            torch.save([1], checkpoint)
        case "no step":
            torch.save({name: value for name, value in content.items() if name != "step"}, checkpoint)
        case _:
            torch.save({**content, "network": {"x": 1}}, checkpoint)
    with pytest.raises(CheckpointError, match=r"c\.pt is damaged \([^\n]*; remove it, and its training"):
        run(checkpoint=checkpoint)


HEAD_LAST = dataclasses.replace(RECIPE, part="0.", then=dataclasses.replace(RECIPE, steps=30, part="3."))


@pytest.mark.parametrize(("part", "trained"), [("0.", {"0"}), ("3.", {"3"}), ("", {"0", "1", "3"})])
def test_only_the_named_part_is_trained(part: str, trained: set[str]) -> None:
    before = {name: value.clone() for name, value in toy_network().named_parameters()}
    network = run(network=toy_network(), recipe=dataclasses.replace(RECIPE, part=part)).network
    after = dict(network.named_parameters())
    assert {name[0] for name in after if not torch.equal(before[name], after[name])} == trained
    assert all(parameter.requires_grad for parameter in after.values())


@pytest.mark.parametrize("killed_at", [3, 8])
def test_stages_follow_each_other_and_are_taken_up_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    alone = run(recipe=dataclasses.replace(HEAD_LAST, then=None))
    assert HEAD_LAST.then is not None
    expected = run(network=alone.network, recipe=HEAD_LAST.then)
    calls = 0

    def kill(_text: str, _share: float) -> None:
        nonlocal calls
        calls += 1
        if calls > killed_at:
            raise InterruptedTrainingError

    checkpoint, task = tmp_path / "c.pt", ToyTask()
    with pytest.raises(InterruptedTrainingError):
        run(recipe=HEAD_LAST, checkpoint=checkpoint, progress=kill)
    found = run(task, recipe=HEAD_LAST, checkpoint=checkpoint)
    assert task.calls < 90 - 10 * (killed_at - 2)
    assert found.losses == (*alone.losses, *((60 + step, loss) for step, loss in expected.losses))
    states = expected.network.state_dict(), found.network.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("step", [0, 23, 59])
def test_nan_loss_stops_with_a_reason(step: int) -> None:
    task = ToyTask(breaks_at=step)
    with pytest.raises(
        TrainingError, match=r"the loss became nan at step \d+ of 60; .* lower learning rate than 0.01"
    ):
        run(task)
    assert task.calls <= step + 1 + loop.STEPS_BETWEEN_CHECKS


@pytest.mark.parametrize(
    ("recipe", "seed"),
    [
        (dataclasses.replace(RECIPE, steps=70), 1),
        (dataclasses.replace(RECIPE, max_learning_rate=1e-3), 1),
        (RECIPE, 2),
    ],
)
def test_checkpoint_of_another_training_is_refused(tmp_path: Path, recipe: Recipe, seed: int) -> None:
    checkpoint = tmp_path / "c.pt"
    run(checkpoint=checkpoint)
    with pytest.raises(CheckpointError, match=r"c\.pt was trained with .*, expected .*; remove it"):
        run(recipe=recipe, seed=seed, checkpoint=checkpoint)


@pytest.mark.parametrize(
    ("events", "sizes"), [(32, [16, 16]), (33, [16, 16]), (34, [16, 16, 2]), (5, [5]), (1, [1])]
)
def test_batches_of_an_epoch(events: int, sizes: list[int]) -> None:
    """Every epoch is a new order of all events; a last batch of one event, which has no variance, is left out."""
    task = ToyTask()
    network = nn.Linear(5, 2)
    run(task, dataclasses.replace(RECIPE, steps=2 * len(sizes)), network=network, data=toy_data(events))
    assert [len(batch) for batch in task.batches] == 2 * sizes
    epochs = task.batches[: len(sizes)], task.batches[len(sizes) :]
    for epoch in epochs:
        seen = [index for batch in epoch for index in batch]
        assert len(set(seen)) == len(seen) == sum(sizes)
    assert events < 5 or epochs[0] != epochs[1]


def test_quantised_rate_is_for_latent_weights_only(monkeypatch: pytest.MonkeyPatch) -> None:
    groups: list[dict[str, Any]] = []

    class Spy(torch.optim.AdamW):
        def __init__(self, params: Any, **options: Any) -> None:
            super().__init__(params, **options)
            groups.extend(self.param_groups)

    monkeypatch.setattr(torch.optim, "AdamW", Spy)
    network = toy_network()
    network.get_parameter("3.bias").requires_grad_(False)
    run(network=network, recipe=dataclasses.replace(RECIPE, steps=1))
    first = network.get_submodule("0")
    assert isinstance(first, BitLinear)
    others, latent = groups
    assert [id(p) for p in latent["params"]] == [id(first.weight)]
    assert latent["max_lr"] == pytest.approx(3 * others["max_lr"]) == pytest.approx(3e-2)
    expected = {id(p) for p in network.parameters() if p.requires_grad} - {id(first.weight)}
    assert {id(p) for p in others["params"]} == expected
    assert all(group["weight_decay"] == 0.01 and group["eps"] == 1e-10 for group in groups)


def test_learning_rate_is_one_cycle() -> None:
    """Section 9: 30 % warm-up from max/25, cosine, down to max/250000; beta1 cycles 0.95, 0.85, 0.95."""
    seen: list[tuple[float, float]] = []

    class Spy(torch.optim.AdamW):
        def step(self, closure: Any = None) -> Any:
            group = self.param_groups[0]
            seen.append((group["lr"], group["betas"][0]))
            return super().step(closure)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim, "AdamW", Spy)
        run(recipe=dataclasses.replace(RECIPE, steps=100))
    rates, momenta = ([pair[index] for pair in seen] for index in (0, 1))
    assert rates[0] == pytest.approx(1e-2 / 25)
    assert max(rates) == pytest.approx(1e-2) == pytest.approx(rates[29])
    assert rates[-1] == pytest.approx(1e-2 / 25e4)
    assert (momenta[0], momenta[29], momenta[-1]) == pytest.approx((0.95, 0.85, 0.95))


def test_devices() -> None:
    assert loop.choose_device("cpu") == "cpu"
    if torch.cuda.is_available():
        assert loop.choose_device("auto") == loop.choose_device("cuda") == "cuda"
    else:
        assert loop.choose_device("auto") == "cpu"
        with pytest.raises(TrainingError, match="no CUDA device; use --device cpu"):
            loop.choose_device("cuda")


def rates(monkeypatch: pytest.MonkeyPatch, recipe: Recipe) -> list[float]:
    """Give the learning rate of every optimiser step."""
    found: list[float] = []
    step = torch.optim.AdamW.step

    def watched(self: torch.optim.AdamW, *arguments: Any, **keywords: Any) -> Any:
        found.append(self.param_groups[0]["lr"])
        return step(self, *arguments, **keywords)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    run(recipe=recipe)
    return found


@pytest.mark.parametrize(
    ("schedule", "shares"),
    [
        ("cosine", [0.5 * (1 + math.cos(math.pi * step / 8)) for step in range(8)]),
        ("linear", [1 - step / 8 for step in range(8)]),
        ("steps", [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25]),
        ("constant", [1] * 8),
    ],
)
def test_schedules(monkeypatch: pytest.MonkeyPatch, schedule: Schedule, shares: list[float]) -> None:
    recipe = dataclasses.replace(RECIPE, steps=8, schedule=schedule, decay_every=3)
    assert rates(monkeypatch, recipe) == pytest.approx([RECIPE.max_learning_rate * share for share in shares])


def test_accumulated_batches_make_one_step() -> None:
    task = ToyTask()
    run(task, dataclasses.replace(RECIPE, steps=3, accumulate=7))
    assert len(task.batches) == 21
    # 100 events are 7 batches of at most 16: each step has seen all of them once.
    for step in range(3):
        seen = [index for batch in task.batches[7 * step : 7 * step + 7] for index in batch]
        assert sorted(seen) == list(range(100))


def test_clipping_bounds_the_norm_of_the_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    norms = []
    step = torch.optim.AdamW.step

    def watched(self: torch.optim.AdamW, *arguments: Any, **keywords: Any) -> Any:
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        norms.append(float(torch.stack([item.norm() for item in gradients]).norm()))
        return step(self, *arguments, **keywords)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    run(recipe=dataclasses.replace(RECIPE, steps=5))
    assert max(norms) > 0.1
    norms.clear()
    run(recipe=dataclasses.replace(RECIPE, steps=5, clip=0.1))
    assert max(norms) < 0.1001


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 10])
def test_short_cycles_have_finite_rates(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    found = rates(monkeypatch, dataclasses.replace(RECIPE, steps=steps, warm_up=0.1))
    assert len(found) == steps
    assert all(0 < rate <= RECIPE.max_learning_rate for rate in found)
