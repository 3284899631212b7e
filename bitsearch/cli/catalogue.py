"""`list`, `strategies`, `layers`: what there is, without training."""

import argparse
from dataclasses import asdict

from bitsearch.cli.output import add_json, add_model, show

LIST = """\
Say which models, data sets, strategies and presets there are, and which kernels this processor runs.

  bitsearch list --json

Takes a second.
"""
STRATEGIES = """\
Show what each handmade strategy quantises: layers, parameters, and the fractions by three definitions (`fraction` is
the paper's). Nothing is trained.

  bitsearch strategies --model caloinn --preset paper

Takes a few seconds.
"""
LAYERS = """\
Show every linear layer that a search may quantise. Layers of one group are quantised together.

  bitsearch layers --model pdat

Takes a few seconds.
"""


def list_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of `list`."""
    add_json(verb)


def model_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of `strategies` and `layers`."""
    add_model(verb)
    add_json(verb)


def list_all(arguments: argparse.Namespace) -> None:
    """Print models and kernels."""
    from bitsearch import ops
    from bitsearch.network import catalogue

    models = []
    for name in catalogue.names():
        entry = catalogue.built_in(name)
        models.append(
            {
                "model": name,
                "datasets": list(entry.datasets),
                "presets": list(entry.presets),
                "strategies": list(entry.strategies),
            }
        )
    kernels = [asdict(kernel) for kernel in ops.kernels()]
    rows = [
        {key: value if isinstance(value, str) else ", ".join(value) for key, value in m.items()}
        for m in models
    ]
    show(arguments.json, {"models": models, "kernels": kernels}, "Models", rows)
    if not arguments.json:
        show(False, {}, "Kernels", kernels)


def strategies(arguments: argparse.Namespace) -> None:
    """Print the handmade strategies of a model."""
    from bitsearch.network import catalogue

    entry = catalogue.find(arguments.model)
    task = entry.task(arguments.dataset, arguments.preset)
    space = entry.space(task)
    published = {item.strategy: item for item in entry.published_fractions(task.dataset)}
    found = []
    for strategy in space.strategies:
        configuration = strategy.configuration
        fractions = catalogue.inventory(task, configuration.options).fractions(configuration.assignment)
        found.append(
            {
                "name": strategy.name,
                **asdict(fractions),
                "quantized_layers": list(configuration.assignment.quantized),
                "options": dict(configuration.options),
                "description": strategy.description,
                "printed": published[strategy.name].printed if strategy.name in published else None,
                "printed_note": published[strategy.name].note if strategy.name in published else None,
            }
        )
    content = {
        "model": entry.name,
        "dataset": task.dataset,
        "preset": arguments.preset,
        "strategies": found,
    }
    columns = (
        "name",
        "quantized_parameters",
        "total_parameters",
        "fraction",
        "weight_fraction",
        "executed_fraction",
    )
    rows = [
        {key: strategy[key] for key in columns}
        | {
            "printed in the paper": strategy["printed"] or "",
            "layers": len(strategy["quantized_layers"]),
            "description": strategy["description"],
        }
        for strategy in found
    ]
    show(arguments.json, content, f"{entry.name} on {task.dataset}, preset {arguments.preset}", rows)
    notes = [
        {"strategy": item.strategy, "printed number": item.note} for item in published.values() if item.note
    ]
    if notes and not arguments.json:
        show(False, {}, "What the printed percentages count", notes)


def layers(arguments: argparse.Namespace) -> None:
    """Print the layers of a model."""
    from bitsearch.network import catalogue

    entry = catalogue.find(arguments.model)
    task = entry.task(arguments.dataset, arguments.preset)
    inventory = catalogue.inventory(task, entry.options_of_reference(task.preset))
    group_of = {name: group.name for group in entry.space(task).groups for name in group.layers}
    rows = [
        {
            "name": layer.name,
            "out_features": layer.out_features,
            "in_features": layer.in_features,
            "parameters": layer.parameters,
            "share": layer.parameters / inventory.total_parameters,
            "executed": layer.executed,
            "group": group_of[layer.name],
        }
        for layer in inventory.layers
    ]
    content = {"model": entry.name, "dataset": task.dataset, "preset": arguments.preset, "layers": rows}
    show(arguments.json, content, f"{entry.name} on {task.dataset}, preset {arguments.preset}", rows)
