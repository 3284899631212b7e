"""`list`, `strategies`, `layers`: what there is, without training."""

import argparse
from dataclasses import asdict

from bitsearch.cli.output import add_json, show


def add(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verbs."""
    verb = verbs.add_parser("list", help="models, datasets, strategies, presets, kernels")
    add_json(verb)
    verb.set_defaults(execute=_list)
    for name, execute, text in (
        ("strategies", _strategies, "the paper's strategies with parameter counts and quantised fractions"),
        ("layers", _layers, "every searchable layer: shape, parameters, share, group"),
    ):
        verb = verbs.add_parser(name, help=text)
        add_model(verb)
        add_json(verb)
        verb.set_defaults(execute=execute)


def add_model(verb: argparse.ArgumentParser) -> None:
    """Let a verb choose a model, its data set and its preset."""
    verb.add_argument("--model", required=True, help="a model's name, or the path of a model file")
    verb.add_argument("--dataset", help="the data set (default: the model's first)")
    verb.add_argument("--preset", default="laptop", help="smoke, laptop (default) or paper")


def _list(arguments: argparse.Namespace) -> None:
    from bitsearch import ops
    from bitsearch.network import catalogue

    models = []
    for name in catalogue.names():
        entry = catalogue.find(name)
        space = entry.space(entry.task(preset=entry.presets[0]))
        models.append(
            {
                "model": name,
                "datasets": list(entry.datasets),
                "presets": list(entry.presets),
                "strategies": [strategy.name for strategy in space.strategies],
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


def _strategies(arguments: argparse.Namespace) -> None:
    from bitsearch.network import catalogue

    entry = catalogue.find(arguments.model)
    task = entry.task(arguments.dataset, arguments.preset)
    space = entry.space(task)
    published = {item.strategy: item for item in entry.published_fractions(task.dataset)}
    strategies = []
    for strategy in space.strategies:
        configuration = strategy.configuration
        fractions = catalogue.inventory(task, configuration.options).fractions(configuration.assignment)
        strategies.append(
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
        "strategies": strategies,
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
        for strategy in strategies
    ]
    show(arguments.json, content, f"{entry.name} on {task.dataset}, preset {arguments.preset}", rows)
    notes = [
        {"strategy": item.strategy, "printed number": item.note} for item in published.values() if item.note
    ]
    if notes and not arguments.json:
        show(False, {}, "What the printed percentages count", notes)


def _layers(arguments: argparse.Namespace) -> None:
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
