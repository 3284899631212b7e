"""The first steps of a run: its limits, its data, `run.json`, and how long everything will take."""

import math
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import torch

from bitsearch.core.budget import Budget
from bitsearch.core.manifest import GroupedLayer, Manifest, NamedStrategy, Published
from bitsearch.core.names import masked
from bitsearch.network import prospects
from bitsearch.onnxfile import runtime
from bitsearch.report.numbers import size
from bitsearch.run.context import Context
from bitsearch.run.plan import DATA, Forecast, Plan, predict
from bitsearch.run.problem import describe
from bitsearch.run.rehearsal import rehearse
from bitsearch.run.stages import add_time, require_same
from bitsearch.run.terminal import duration


def check_limits(run: Context) -> None:
    """Refuse limits that no configuration keeps, before anything is read or written."""
    describe(run.space, run.gains(), run.request.min_fraction, run.request.keep)


def budgets(run: Context) -> list[Budget]:
    """Predict what has a limit and is known before anything is trained."""
    limits = run.request.limits
    wanted = (prospects.sizes, limits.max_size_bytes), (prospects.latencies, limits.max_latency_us)
    return [foretell(run.spec, run.space, most) for foretell, most in wanted if most < math.inf]


def write_manifest(run: Context) -> None:
    """Read the data, then write what is known before any work, or check that the folder holds the same run."""
    known = run.folder.manifest() if run.folder.begun else None
    run.terminal.stage(DATA)
    began = time.monotonic()
    identity = run.spec.identity
    if known:
        require_same(run.folder, known.identity, identity)
    task, data = run.spec.task, run.spec.data
    yardsticks = task.yardsticks(data)
    for item in yardsticks:
        run.terminal.say(f"{item.name} alone: {item.metric} {item.quantity.value:.4g}")
    inventory = run.spec.inventory(run.entry.options_of_reference(task.preset))
    group_of = {name: group.name for group in run.space.groups for name in group.layers}
    manifest = Manifest(
        model=run.request.model,
        dataset=task.dataset,
        preset=task.preset,
        seed=run.request.seed,
        trials=run.request.trials,
        recipe=task.recipes.name,
        metrics=task.metrics,
        objective=task.objective,
        version=version("bitsearch"),
        command=tuple(masked(word) for word in run.request.command or ("bitsearch", *sys.argv[1:])),
        title=f"Mixed precision of {run.entry.name} on {task.dataset}",
        identity=identity,
        data=data.identity,
        workers=run.count,
        device=run.spec.device,
        sampler=run.request.sampler,
        min_fraction=run.request.min_fraction,
        keep=run.request.keep,
        **{name: most for name, most in asdict(run.request.limits).items() if most < math.inf},
        settings=task.settings,
        layers=tuple(GroupedLayer(**asdict(layer), group=group_of[layer.name]) for layer in inventory.layers),
        groups=run.space.groups,
        options=run.space.options,
        strategies=tuple(
            NamedStrategy(item.name, item.configuration.digest, item.description)
            for item in run.space.strategies
        ),
        published=Published(
            run.entry.published_source,
            run.entry.published(task.dataset),
            run.entry.published_fractions(task.dataset),
        ),
        yardsticks=yardsticks,
        sensitivities=known.sensitivities if known else None,
        environment={**runtime.environment(), **_training_environment()},
        started=known.started if known else datetime.now(UTC).isoformat(timespec="seconds"),
        stages=known.stages if known else (),
        costs=known.costs if known else None,
        predicted=known.predicted if known else (),
        disk_bytes=known.disk_bytes if known else 0,
        timed=known.timed if known else (),
    )
    run.folder.write_manifest(manifest)
    add_time(run.folder, DATA, time.monotonic() - began)


def predict_times(run: Context) -> Plan:
    """Predict the time of every stage and say it; what has been timed once is kept for the next sitting."""
    manifest, task = run.folder.manifest(), run.spec.task
    known = {item.name: item.seconds for item in manifest.stages}
    costs = manifest.costs
    if costs is None:
        run.terminal.stage("plan")
        began = time.monotonic()
        options = run.entry.options_of_reference(task.preset)
        costs = rehearse(run.spec, run.space, options, manifest, known[DATA])
        add_time(run.folder, "plan", time.monotonic() - began)
    found = predict(run.space, task.recipes, run.request.trials, costs, run.count, run.request.timeout)
    run.folder.update(costs=costs, predicted=found.stages, disk_bytes=found.disk_bytes)
    _, *ahead = found.stages
    run.forecast = Forecast(ahead)
    parts = ", ".join(f"{item.name} {duration(item.seconds)}" for item in ahead)
    run.terminal.say(f"predicted: {parts}")
    run.terminal.say(f"together {duration(found.seconds)} and {size(found.disk_bytes)} of disk from nothing")
    return found


def _training_environment() -> Mapping[str, Any]:
    """Describe what trained and searched."""
    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {**{name: version(name) for name in ("torch", "optuna", "numpy")}, "accelerator": accelerator}
