"""`bitsearch.search`: the run of the command line for a network, data, loss and metric of one's own."""

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

from torch import nn

from bitsearch.core.errors import ConfigurationError
from bitsearch.core.measurement import Direction, Metric
from bitsearch.core.task import Recipe, Recipes
from bitsearch.network import catalogue
from bitsearch.network.own import Events, Loss, Make, OwnTask, Score, entry
from bitsearch.run import pipeline
from bitsearch.run.request import RunRequest
from bitsearch.run.result import SearchResult
from bitsearch.run.terminal import Terminal

HOW = "mean over n trainings and their standard deviation, on the same held-out events"


def search(
    network: nn.Module | Make,
    data: Any,
    loss: Loss,
    metric: Score,
    direction: Direction,
    *,
    validation: Any = None,
    test: Any = None,
    groups: Mapping[str, str | Sequence[str]] | None = None,
    strategies: Mapping[str, Mapping[str, str]] | None = None,
    outputs: Sequence[str] = ("output",),
    trials: int = 50,
    epochs: int = 20,
    batch_size: int = 128,
    learning_rate: float = 3e-3,
    recipes: Recipes | None = None,
    out: str | Path = "runs/search",
    seed: int = 1,
    device: str = "auto",
    workers: int = 1,
    storage: str | None = None,
    sampler: str = "mask",
    name: str | None = None,
) -> SearchResult:
    """Search for every group of layers whether it can be low-bit; the folder `out` is that of a `bitsearch run`.

    Called again with the same arguments, it goes on from what is in `out`; `trials` is the total.

    Args:
        network: a float network, or a function that builds one. An object starts every training from its own weights;
            a function gives repeated trainings initial weights of their own.
        data: `(inputs, ..., targets)` as tensors or arrays, a `DataLoader` of such batches, or a function that gives
            either. Axis 0 counts the events; the inputs are the network's arguments in their order.
        loss: `loss(network(*inputs), targets)`, a scalar, as torch's losses.
        metric: `metric(targets, outputs)` of numpy arrays, as scikit-learn's; what the search optimises.
        direction: "maximize" or "minimize".
        validation: events to choose on, in the form of `data`; a tenth of `data` by default.
        test: events to report on, which nothing is chosen on; a tenth of `data` by default.
        groups: layers that change together, by pattern: `{"encoder": "encoder.*"}`; other layers are alone.
        strategies: handmade candidates by name, `{"body": {"block.*": "ternary"}}`; all layers ternary by default.
        outputs: names of the outputs in the exported files.
        trials: configurations to measure.
        epochs: of the float network; candidates train for a tenth of its steps, finalists for a third.
        batch_size: events of a step.
        learning_rate: the largest of a one-cycle schedule; low-bit candidates start from the float network at a third.
        recipes: all of the training, instead of these three numbers.
        out: the run folder.
        seed: of everything that is random.
        device: "auto", "cpu" or "cuda".
        workers: 1: the network lives in this process. `bitsearch run` on a model file has several.
        storage: an Optuna storage URL instead of `study.db` in `out`.
        sampler: as `--sampler` of `bitsearch run`.
        name: of the model; the network's class by default.

    Raises:
        BitsearchError: data, names or patterns that do not fit, or a folder of another run.
    """
    if workers != 1:
        raise ConfigurationError(
            f"workers={workers}: other processes cannot build a network that lives in this one; "
            "use workers=1, or put it into a file (`bitsearch new`) for `bitsearch run --workers`"
        )
    if direction not in ("maximize", "minimize"):
        raise ConfigurationError(f"direction {direction!r}; expected 'maximize' or 'minimize'")
    events = Events.of(data, validation, test, seed)
    task = OwnTask(
        model=_word(str(name or getattr(network, "__name__", type(network).__name__))),
        source=network,
        data=events,
        criterion=loss,
        score=metric,
        metrics=(_metric(metric, direction), Metric("loss", "Loss", "", "minimize", HOW)),
        recipes=recipes or _recipes(events.events, epochs, batch_size, learning_rate, network),
        outputs=tuple(outputs),
    )
    request = RunRequest(
        model=task.model,
        dataset=None,
        data=(),
        preset=task.preset,
        trials=trials,
        seed=seed,
        device=device,
        workers=1,
        storage=storage,
        out=Path(out),
        sampler=sampler,
        command=("python", *sys.argv) if sys.argv[0].endswith(".py") else ("bitsearch.search(...)",),
    )
    described = entry(task, groups or {}, {"ternary": {"*": "ternary"}} if strategies is None else strategies)
    with catalogue.offering(described), Terminal() as terminal:
        pipeline.run(request, terminal)
    return SearchResult.open(out)


def _word(text: str) -> str:
    """Make a name of letters, digits and underscores."""
    return re.sub(r"\W+", "_", text).strip("_") or "own"


def _metric(metric: Score, direction: Direction) -> Metric:
    name = _word(getattr(metric, "__name__", type(metric).__name__))
    name = "metric" if name in ("lambda", "loss") else name
    return Metric(name, name.replace("_", " "), "", direction, HOW)


def _recipes(events: int, epochs: int, batch: int, rate: float, network: object) -> Recipes:
    steps = max(1, epochs * ceil(events / batch))
    reference = Recipe(steps, min(batch, events), rate, weight_decay=0.01, epsilon=1e-8)
    tuned = replace(reference, max_learning_rate=rate / 3, warm_up=0.1, quantized_rate=2.0)
    return Recipes(
        reference,
        replace(tuned, steps=max(1, steps // 10)),
        replace(tuned, steps=max(1, steps // 3)),
        finalists=4,
        repetitions=3,
        independent=not isinstance(network, nn.Module),
        name="own",
    )
