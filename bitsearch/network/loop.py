"""Train a network, float or quantisation-aware, on any device, so that a killed training goes on where it was."""

import io
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bitsearch.core.atomic import write_atomically
from bitsearch.core.errors import CheckpointError, TrainingError
from bitsearch.core.task import Data, Progress, Recipe, Task
from bitsearch.network.quant import BitLinear

SECONDS_BETWEEN_CHECKPOINTS = 30.0
STEPS_BETWEEN_CHECKS = 10


@dataclass(frozen=True)
class Trained:
    """A trained network in evaluation mode, the seconds its training took, and its loss every few steps."""

    network: nn.Module
    seconds: float
    losses: tuple[tuple[int, float], ...]


def choose_device(name: str) -> str:
    """Turn `auto` into `cuda` where there is one, else `cpu`.

    Raises:
        TrainingError: `cuda` is asked for and not there.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise TrainingError("--device cuda: torch found no CUDA device; use --device cpu or auto")
    return ("cuda" if available else "cpu") if name == "auto" else name


def train(
    network: nn.Module,
    task: Task,
    data: Data,
    recipe: Recipe,
    *,
    seed: int,
    device: str = "cpu",
    checkpoint: Path | None = None,
    progress: Progress = lambda _text, _share: None,
) -> Trained:
    """Train for `recipe.steps` batches; batches and noise follow from `seed` and the step alone.

    With a `checkpoint` path, the state is kept there twice a minute and taken up again from there; what follows by
    `recipe.then` has files of its own beside it.

    Raises:
        TrainingError: the loss is no longer finite.
        CheckpointError: the checkpoint belongs to another recipe or seed.
    """
    network.to(device)
    data = data.to(device)
    seconds = 0.0
    losses: list[tuple[int, float]] = []
    for number, stage in enumerate(recipe.stages):
        begun = sum(item.steps for item in recipe.stages[:number])
        path = (
            checkpoint.with_suffix(f".{number}{checkpoint.suffix}") if checkpoint and number else checkpoint
        )
        with only(network, stage.part):
            trained = _train_stage(network.train(), task, data, stage, seed, device, path, progress)
        seconds += trained.seconds
        losses += [(begun + step, loss) for step, loss in trained.losses]
    return Trained(network.eval(), seconds, tuple(losses))


@contextmanager
def only(network: nn.Module, part: str) -> Iterator[None]:
    """Freeze what does not begin with `part`."""
    others = [p for name, p in network.named_parameters() if p.requires_grad and not name.startswith(part)]
    for parameter in others:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in others:
            parameter.requires_grad_(True)


def _train_stage(
    network: nn.Module,
    task: Task,
    data: Data,
    recipe: Recipe,
    seed: int,
    device: str,
    checkpoint: Path | None,
    progress: Progress,
) -> Trained:
    optimizer = torch.optim.AdamW(
        _parameter_groups(network, recipe),
        lr=recipe.max_learning_rate,
        betas=recipe.betas,
        eps=recipe.epsilon,
        weight_decay=recipe.weight_decay,
        fused=True,
    )
    scheduler = _scheduler(optimizer, recipe)
    state = _State(network, optimizer, scheduler, {**asdict(recipe), "seed": seed})
    first, spent, losses = state.restore(checkpoint)
    if first == recipe.steps:
        return Trained(network, spent, tuple(losses))
    began = saved = time.monotonic()
    noise = torch.Generator(device)
    for step in range(first, recipe.steps):
        optimizer.zero_grad(set_to_none=True)
        for batch in range(step * recipe.accumulate, (step + 1) * recipe.accumulate):
            noise.manual_seed(_mix(seed, batch))
            indices = batch_of(data.events, recipe.batch_size, batch, seed).to(device)
            loss = task.loss(network, data, indices, noise)
            loss.backward()  # type: ignore[no-untyped-call]
        if recipe.clip is not None:
            nn.utils.clip_grad_norm_(network.parameters(), recipe.clip)
        optimizer.step()
        scheduler.step()
        if step % STEPS_BETWEEN_CHECKS == 0 or step == recipe.steps - 1:
            losses.append((step, _finite(loss, step, recipe)))
            progress(f"loss {losses[-1][1]:.4g}", (step + 1) / recipe.steps)
            now = time.monotonic()
            if checkpoint and now - saved > SECONDS_BETWEEN_CHECKPOINTS:
                state.save(checkpoint, step + 1, spent + now - began, losses)
                saved = now
    seconds = spent + time.monotonic() - began
    if checkpoint:
        state.parts = {"network": network}  # a training that has ended needs no more of its optimiser
        state.save(checkpoint, recipe.steps, seconds, losses)
    return Trained(network, seconds, tuple(losses))


class _State:
    """Everything that a training needs to go on."""

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        scheduler: torch.optim.lr_scheduler.LRScheduler,
        signature: Mapping[str, Any],
    ) -> None:
        self.parts: dict[str, Any] = {"network": network, "optimizer": optimizer, "scheduler": scheduler}
        self.signature = dict(signature)

    def save(self, path: Path, step: int, seconds: float, losses: list[tuple[int, float]]) -> None:
        parts = {name: part.state_dict() for name, part in self.parts.items()}
        buffer = io.BytesIO()
        progress = {"signature": self.signature, "step": step, "seconds": seconds, "losses": losses}
        torch.save({**parts, **progress}, buffer)
        write_atomically(path, buffer.getvalue())

    def restore(self, path: Path | None) -> tuple[int, float, list[tuple[int, float]]]:
        if path is None or not path.is_file():
            return 0, 0.0, []
        try:
            saved = torch.load(path, weights_only=True, map_location="cpu")
            if saved["signature"] != self.signature:
                raise CheckpointError(
                    f"{path} was trained with {saved['signature']}, expected {self.signature}; "
                    "remove it or change --out"
                )
            for name, part in self.parts.items():
                if name in saved or saved["step"] < self.signature["steps"]:
                    part.load_state_dict(saved[name])
            return saved["step"], saved["seconds"], [(step, loss) for step, loss in saved["losses"]]
        except (OSError, CheckpointError):
            raise
        except Exception as error:  # torch has many ways to say that a file is not what it wrote
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise CheckpointError(
                f"{path} is damaged ({reason}); remove it, and its training begins again"
            ) from error


def _parameter_groups(network: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    low_bit = (module.weight for module in network.modules() if isinstance(module, BitLinear))
    quantized = [weight for weight in low_bit if weight.requires_grad]
    chosen = {id(weight) for weight in quantized}
    others = [p for p in network.parameters() if p.requires_grad and id(p) not in chosen]
    groups: list[dict[str, Any]] = [{"params": others, "lr": recipe.max_learning_rate}]
    if quantized:
        groups.append({"params": quantized, "lr": recipe.max_learning_rate * recipe.quantized_rate})
    return groups


def _scheduler(optimizer: torch.optim.Optimizer, recipe: Recipe) -> torch.optim.lr_scheduler.LRScheduler:
    if recipe.schedule == "one-cycle":
        steps = max(recipe.steps, 2)
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=[group["lr"] for group in optimizer.param_groups],
            total_steps=steps,
            pct_start=max(recipe.warm_up, 1.5 / steps),  # torch divides by the steps of the rise less one
        )
    shares: Mapping[str, Callable[[int], float]] = {
        "cosine": lambda step: 0.5 * (1 + math.cos(math.pi * step / recipe.steps)),
        "linear": lambda step: 1 - step / recipe.steps,
        "steps": lambda step: 0.5 ** (step // recipe.decay_every),
        "constant": lambda step: 1.0,
    }
    return torch.optim.lr_scheduler.LambdaLR(optimizer, shares[recipe.schedule])


def batch_of(events: int, size: int, step: int, seed: int) -> Tensor:
    """Take the step's batch of a walk through all events in a new order every epoch.

    The last, smaller batch of an epoch is kept unless it is a single event, which has no variance.
    """
    batches = math.ceil(events / size) - (events % size == 1 and events > 1)
    epoch, index = divmod(step, batches)
    return _order(events, _mix(seed, epoch))[index * size : (index + 1) * size]


@lru_cache(maxsize=2)
def _order(events: int, seed: int) -> Tensor:
    return torch.randperm(events, generator=torch.Generator().manual_seed(seed))


def _mix(seed: int, count: int) -> int:
    return (seed * 1_000_003 + count) % 2**63


def _finite(loss: Tensor, step: int, recipe: Recipe) -> float:
    value = float(loss.detach())
    if not math.isfinite(value):
        raise TrainingError(
            f"the loss became {value} at step {step} of {recipe.steps}; "
            f"expected a finite value, try a lower learning rate than {recipe.max_learning_rate:g}"
        )
    return value
