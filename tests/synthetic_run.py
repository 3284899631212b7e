"""A run folder made of invented numbers, whole or in part, without any training."""

import dataclasses
import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bitsearch.core.assignment import Assignment
from bitsearch.core.front import Front
from bitsearch.core.manifest import Manifest
from bitsearch.core.measurement import (
    Curve,
    Evaluation,
    Fidelity,
    Histogram,
    Latency,
    Map,
    Measurement,
    Metric,
    Parity,
    Profile,
    Quantity,
)
from bitsearch.core.records import decode
from bitsearch.core.rundir import RunFolder
from bitsearch.core.space import Inventory, Layer
from bitsearch.core.strategy import Configuration
from bitsearch.report import view

BLOCKS, PARTS = 8, {"first": (64, 46), "central": (64, 64), "last": (1104, 64)}
LAYERS = tuple(
    Layer(f"blocks.{block}.subnet.layers.{index}", *shape, bias=True)
    for block in range(BLOCKS)
    for index, shape in enumerate(PARTS.values())
)
GROUPS = [
    {"name": f"blocks.{block}.{part}", "layers": [f"blocks.{block}.subnet.layers.{index}"], "role": part}
    for block in range(BLOCKS)
    for index, part in enumerate(PARTS)
]
TOTAL = sum(layer.parameters for layer in LAYERS) + 2000
INVENTORY = Inventory(LAYERS, TOTAL, TOTAL)
METRICS = [
    Metric(
        "nll", "validation NLL", "nats", "minimize", "mean over the validation events; spread over 3 seeds"
    ),
    Metric("auc_low", "classifier AUC, low level", "", "minimize", "fast mode, 3 trainings; 0.5 is perfect"),
    Metric(
        "auc_high", "classifier AUC, high level", "", "minimize", "fast mode, 3 trainings; 0.5 is perfect"
    ),
    Metric("mean_separation", "mean separation power", "", "minimize", "mean over all histograms"),
]
STRATEGIES: dict[str, tuple[str, Callable[[int, int], bool]]] = {
    "default": ("random", lambda block, part: False),
    "exchange-permutation": ("exchange", lambda block, part: False),
    "nncentral": ("random", lambda block, part: part == 1),
    "blockcentral": ("exchange", lambda block, part: 0 < block < BLOCKS - 1),
    "all": ("random", lambda block, part: True),
}


def configuration(permutation: str, chosen: Callable[[int, int], bool]) -> Configuration:
    quantized = [layer.name for i, layer in enumerate(LAYERS) if chosen(i // 3, i % 3)]
    return Configuration(Assignment.of(INVENTORY.names, quantized), {"permutation": permutation})


BASELINES = {name: configuration(*strategy) for name, strategy in STRATEGIES.items()}


def measure(
    config: Configuration, origin: str, fidelity: Fidelity, rng: random.Random, failure: str | None = None
) -> Measurement:
    """Make a measurement whose loss grows with what is quantised, the last layers hurting most."""
    fractions = INVENTORY.fractions(config.assignment)
    hurt = {"first": 2.0, "central": 0.7, "last": 9.0}
    quantized = set(config.assignment.quantized)
    ranks = [(i // 3, list(PARTS)[i % 3]) for i, layer in enumerate(LAYERS) if layer.name in quantized]
    edge = (0, BLOCKS - 1)
    cost = sum(hurt[part] * (1.2 if block in edge else 0.2 + 0.16 * block) for block, part in ranks) / 30
    cost += 0.5 * (config.options["permutation"] == "exchange") + (0.9 if fidelity == "finetuned" else 0.0)
    metrics = {"nll": Quantity(-612.4 + cost + rng.gauss(0, 0.06), 0.05 + rng.random() * 0.06, 3)}
    if fidelity == "full":
        metrics["auc_low"] = Quantity(min(0.999, 0.633 + 0.04 * cost + rng.gauss(0, 0.003)), 0.003, 3)
        metrics["auc_high"] = Quantity(min(0.999, 0.651 + 0.05 * cost + rng.gauss(0, 0.003)), 0.002, 3)
        metrics["mean_separation"] = Quantity(0.0021 + 0.002 * cost, 0.0004, 3)
    latencies = tuple(
        Latency(batch, 1, "avx2", base * (1 - 0.4 * fractions.fraction), 0.03 * base, 50)
        for batch, base in ((1, 310.0), (100, 4200.0), (1000, 38500.0))
    )
    measurement = Measurement(
        digest=config.digest,
        origin=origin,
        assignment=dict(config.assignment),
        options=dict(config.options),
        fraction=fractions.fraction,
        weight_fraction=fractions.weight_fraction,
        executed_fraction=fractions.executed_fraction,
        fidelity=fidelity,
        seed=1,
        metrics={} if failure else metrics,
        size_bytes=round(4 * INVENTORY.total_parameters * (1 - fractions.weight_fraction * 15 / 16)),
        train_seconds=12.5,
        failure=failure,
    )
    if fidelity != "full":
        return measurement
    parity = Parity(2.4e-7, len(LAYERS), 0.9987, 3.1e-5, 1000)
    model = f"models/{config.digest}.onnx"
    return dataclasses.replace(measurement, latency_us=latencies, parity=parity, model=model)


def evaluation(digest: str, shift: float, rng: np.random.Generator) -> Evaluation:
    """Make generated showers that are `shift` off the reference."""
    histograms = []
    for name, label, logarithmic in (
        ("e_ratio", r"$E_\mathrm{tot}\,/\,E_\mathrm{inc}$", False),
        ("layer_0", r"$E_0$ [MeV]", True),
        ("ec_eta_1", r"$\langle\eta\rangle_1$ [mm]", False),
    ):
        edges = np.geomspace(0.01, 1e4, 40) if logarithmic else np.linspace(-60, 60, 61)
        draws = [
            rng.lognormal(3, 1.5, 20_000) if logarithmic else rng.normal(0, 12, 20_000),
            rng.lognormal(3 + shift, 1.5, 20_000)
            if logarithmic
            else rng.normal(8 * shift, 12 + 10 * shift, 20_000),
        ]
        reference, generated = (np.histogram(values, edges)[0].astype(float) for values in draws)
        h, g = reference / reference.sum(), generated / generated.sum()
        separation = 0.5 * float(np.sum((h - g) ** 2 / (h + g + 1e-16)))
        quantity = Quantity(separation, 0.1 * separation + 2e-4, 10)
        histograms.append(
            Histogram(
                name, label, tuple(edges.tolist()), tuple(reference), tuple(generated), quantity, logarithmic
            )
        )
    layers = (0.0, 1.0, 2.0, 3.0, 12.0)
    means = (120.0, 2100.0, 8900.0, 410.0, 6.0)
    moved = tuple(mean * (1 + shift * 0.3 * (i - 2)) for i, mean in enumerate(means))
    profile = Profile("energy", "mean energy [MeV]", "calorimeter layer", layers, means, moved)
    x = tuple(i / 10 for i in range(11))
    roc = Curve(
        "roc", "background efficiency", "signal efficiency", x, tuple(v * v for v in x), diagonal=True
    )
    low, high = tuple(0.9 * v for v in x), tuple(1.1 * v for v in x)
    calibration = Curve("calibration", "share of signal", "score", x, x, low, high, diagonal=True)
    counts = tuple(tuple(float(i == j) for j in range(10)) for i in range(10))
    truth = Map("truth-prediction", "events", "truth", "prediction", x, x, counts)
    return Evaluation(digest, 20_000, tuple(histograms), (profile,), (roc, calibration), (truth,))


def manifest() -> Manifest:
    raw = {
        "version": "0.1.0",
        "command": ["bitsearch", "run", "--model", "caloinn", "--trials", "60", "--out", "runs/photon"],
        "model": "caloinn", "dataset": "ds1-photon", "preset": "laptop", "seed": 1, "trials": 60,
        "device": "cpu", "workers": 1, "title": "CaloINN on ds1-photon",
        "data": {
            "generated": True,
            "statement": "Parametrised showers, generated; not Geant4, not CaloChallenge data.",
            "files": [
                {"role": role, "name": f"{role}.hdf5", "events": 20_000, "sha256": "5d" * 32}
                for role in ("train", "validation")
            ],
        },
        "settings": {"network": {"width": 64, "blocks": 8}, "training": {"epochs": 30}},
        "metrics": [vars(metric) for metric in METRICS], "objective": "nll",
        "layers": [
            {**vars(layer), "group": group["name"]} for layer, group in zip(LAYERS, GROUPS, strict=True)
        ],
        "groups": GROUPS, "options": {"permutation": ["random", "exchange"]},
        "strategies": [
            {"name": name, "digest": config.digest, "description": f"the paper's {name}"}
            for name, config in BASELINES.items()
        ],
        "published": {
            "source": "BitHEP Table 3",
            "results": [
                {"strategy": name, "metric": metric, "value": value, "std": 0.003}
                for name, low, high in (("default", 0.633, 0.656), ("all", 0.759, 0.828))
                for metric, value in (("auc_low", low), ("auc_high", high))
            ],
        },
        "yardsticks": [
            {"name": "a constant", "metric": "nll", "quantity": {"value": 1e6, "std": None, "n": 1}},
            {"name": "an oracle", "metric": "nll", "quantity": {"value": -1e6, "std": None, "n": 1}},
        ],
        "environment": {"python": "3.11.7", "processor": "A processor", "cores": 2, "accelerator": None},
        "stages": [{"name": "float reference", "seconds": 61.2}, {"name": "search", "seconds": 812.0}],
        "started": "2026-05-01T10:00:00+00:00",
    }  # fmt: skip
    return decode(json.dumps(raw), Manifest, "run.json", "")


def begin(path: Path) -> RunFolder:
    folder = RunFolder(path)
    folder.write_manifest(manifest())
    return folder


def baselines(folder: RunFolder, fidelity: Fidelity, rng: random.Random) -> list[Measurement]:
    items = [measure(config, f"baseline:{name}", fidelity, rng) for name, config in BASELINES.items()]
    for item in items:
        folder.append(item)
    return items


def search(folder: RunFolder, trials: int, rng: random.Random) -> list[Configuration]:
    """Append `trials` short measurements, two of them failed, and give what of them is on the front."""
    tried = []
    for trial in range(trials):
        level = rng.random()
        drawn = [rng.random() < level * (1.7 - 0.17 * (i // 3)) for i in range(len(LAYERS))]
        names = [layer.name for layer, chosen in zip(LAYERS, drawn, strict=True) if chosen]
        permutation = {"permutation": rng.choice(["random", "exchange"])}
        config = Configuration(Assignment.of(INVENTORY.names, names), permutation)
        failure = (
            "loss became NaN in epoch 2 of the quantisation-aware training" if trial in (7, 23) else None
        )
        folder.append(measure(config, "search", "finetuned", rng, failure))
        tried.append(config)
    run = view.read(folder)
    return [item.configuration for item in run.front if item.digest not in run.names]


def finish(folder: RunFolder, chosen: list[Configuration], rng: random.Random) -> None:
    """Train the search's front fully, write front, models and evaluations."""
    final = baselines(folder, "full", rng)
    for config in chosen:
        final.append(measure(config, "final", "full", rng))
        folder.append(final[-1])
    handmade = [config.digest for config in BASELINES.values()]
    folder.write_front(Front.of(final, METRICS[0], handmade))
    folder.models.mkdir()
    for item in final:
        assert item.model
        with (folder.path / item.model).open("wb") as file:
            file.truncate(item.size_bytes)
        shift = 0.03 + 0.3 * item.executed_fraction
        folder.write_evaluation(evaluation(item.digest, shift, np.random.default_rng(1)))
    folder.update(ended="2026-05-01T10:31:12+00:00")


def complete(path: Path) -> RunFolder:
    """Make a whole run of about 60 measurements."""
    folder, rng = begin(path), random.Random(5)
    baselines(folder, "finetuned", rng)
    finish(folder, search(folder, 50, rng), rng)
    return folder
