"""The report's records with every digit: tables as CSV, histograms in the UHI's JSON."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from bitsearch.core.measurement import Measurement
from bitsearch.report import numbers
from bitsearch.report.view import Run


def texts(run: Run) -> dict[str, str]:
    """Give the text of every file by its name."""
    return {
        "results.csv": _csv([_flat(run, item) for item in run.results]),
        "front.csv": _csv([_flat(run, item) for item in run.front]),
        "baselines.csv": _csv([_flat(run, item) for item in run.baselines]),
        "layers.csv": _csv(list(_layers(run))),
        "histograms.csv": _csv(list(_bins(run))),
        "histograms.json": json.dumps(dict(_histograms(run)), indent=1),
        "published.csv": _csv([asdict(item) for item in run.manifest.published.results]),
    }


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list({key: None for row in rows for key in row}), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _flat(run: Run, item: Measurement) -> dict[str, Any]:
    row: dict[str, Any] = {
        "digest": item.digest,
        "name": run.name(item),
        "origin": item.origin,
        "fidelity": item.fidelity,
        "seed": item.seed,
        "fraction": item.fraction,
        "weight_fraction": item.weight_fraction,
        "executed_fraction": item.executed_fraction,
        "mean_bits": item.mean_bits,
        "size_bytes": item.size_bytes,
        "train_seconds": item.train_seconds,
        "model": item.model,
        "failure": item.failure,
    }
    row |= {f"option {name}": value for name, value in item.options.items()}
    for name, quantity in item.metrics.items():
        row |= {name: quantity.value, f"{name} std": quantity.std, f"{name} n": quantity.n}
    for latency in item.latency_us:
        title = f"latency_us {numbers.batch(latency)}"
        row |= {title: latency.median_us, f"{title}, IQR": latency.spread_us}
        row |= {f"{title}, kernel": latency.kernel, f"{title}, of the float file": latency.ratio}
        row |= {f"{title}, load": latency.load, f"{title}, busy": latency.busy}
    if item.parity:
        row |= {f"parity {name}": value for name, value in vars(item.parity).items()}
    return row


def _layers(run: Run) -> Iterator[dict[str, Any]]:
    """Give one row a layer with its precision in every front member."""
    group_of = {name: group for group, weights in run.groups.items() for name in weights}
    for layer in run.manifest.layers:
        precisions = {item.digest: item.assignment.get(layer.name) for item in run.front}
        yield asdict(layer) | {"group": group_of.get(layer.name, "")} | precisions


def _bins(run: Run) -> Iterator[dict[str, Any]]:
    for kind, evaluation in run.shown():
        for plot in evaluation.histograms:
            bins = zip(plot.edges, plot.edges[1:], plot.reference, plot.generated, strict=False)
            for low, high, reference, generated in bins:
                yield {
                    "histogram": plot.name,
                    "configuration": kind,
                    "digest": evaluation.digest,
                    "low": low,
                    "high": high,
                    "reference": reference,
                    "generated": generated,
                }


def _histograms(run: Run) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give every histogram in the UHI's serialisation, which boost-histogram and hist read.

    Source: https://uhi.readthedocs.io/en/latest/serialization.html.
    """
    for kind, evaluation in run.shown():
        for plot in evaluation.histograms:
            for sample, values in (("reference", plot.reference), ("generated", plot.generated)):
                axis = {
                    "type": "variable",
                    "edges": plot.edges,
                    "underflow": False,
                    "overflow": False,
                    "circular": False,
                    "metadata": {"label": plot.label},
                }
                yield (
                    f"{kind}/{plot.name}/{sample}",
                    {
                        "uhi_schema": 1,
                        "metadata": {"digest": evaluation.digest, "configuration": kind, "sample": sample},
                        "axes": [axis],
                        "storage": {"type": "double", "values": values},
                    },
                )
