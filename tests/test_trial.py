"""From a configuration to a measurement: what is measured, what is kept, what a failure leaves behind."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from conftest import Bench, SmokeRun

from bitsearch import ops
from bitsearch.core.errors import TrainingError
from bitsearch.core.measurement import Measurement, Quantity
from bitsearch.core.precision import Precision
from bitsearch.network import trainer as module
from bitsearch.network.trial import Trial
from bitsearch.onnxfile.inspect import inspect


@pytest.fixture(scope="module")
def measured(bench: Bench) -> Measurement:
    return bench.trial.measure(bench.strategy("nncentral"), "baseline:nncentral", "finetuned", "kept")


def test_measurement_holds_what_the_contract_asks_for(bench: Bench, measured: Measurement) -> None:
    configuration = bench.strategy("nncentral")
    assert measured.failure is None
    assert measured.configuration == configuration
    assert (measured.digest, measured.fidelity, measured.seed) == (configuration.digest, "finetuned", 1)
    assert measured.metrics["nll"].n > 1
    assert math.isfinite(measured.metrics["nll"].value)
    assert measured.metrics["nll"].std
    assert measured.train_seconds > 0
    assert [item.batch for item in measured.latency_us] == list(bench.task.latency_batches[:1])
    assert all(item.median_us > 0 and item.repeats >= 3 for item in measured.latency_us)
    assert not any(item.busy and item.load is None for item in measured.latency_us)
    assert {item.kernel for item in measured.latency_us} == {k.name for k in ops.kernels() if k.chosen}
    assert measured.parity is not None
    assert measured.parity.layer_max_error < 1e-5
    assert Measurement.from_json(measured.to_json()) == measured


def test_kept_file_is_what_was_measured(bench: Bench, measured: Measurement) -> None:
    assert measured.model == "models/kept.onnx"
    file = bench.spec.folder / measured.model
    assert file.stat().st_size == measured.size_bytes
    found = ops.session(file).get_modelmeta().custom_metadata_map
    assert found["bitsearch.strategy"] == "nncentral"
    assert float(found["bitsearch.fraction"]) == measured.fraction


def test_measuring_again_gives_the_same_numbers(smoke: SmokeRun, bench: Bench, measured: Measurement) -> None:
    """Also those of the run that the bench's references come from."""
    again = bench.trial.measure(bench.strategy("nncentral"), "search")
    assert again.metrics == measured.metrics
    assert again.model is None
    recorded = next(
        item for item in smoke.results if item.strategy == "nncentral" and item.fidelity == "finetuned"
    )
    assert recorded.metrics["nll"] == measured.metrics["nll"]


def test_of_several_precisions_bits_are_counted(bench: Bench) -> None:
    """Layers are trained, exported and held to torch in the precision that each of them has."""
    precisions = Precision.FLOAT32, Precision.BINARY, Precision.TERNARY
    first, second, *_ = (group for group in bench.space.groups if group.name.endswith("last"))
    configuration = bench.space.choose(
        {first.name: "binary", second.name: "ternary"}, bench.strategy("nncentral").options
    )
    trial = Trial(replace(bench.spec, precisions=precisions))
    found = trial.measure(configuration, "search", keep="several")
    assert found.failure is None
    assert found.parity is not None
    assert found.parity.layer_max_error < 1e-5
    assert found.model
    layers = inspect(bench.spec.folder / found.model).layers
    kept = {layer.name: layer.precision for layer in layers}
    assert {kept[name] for name in first.layers} == {"binary"}
    assert {kept[name] for name in second.layers} == {"ternary"}
    weights = {layer.name: layer.weights for layer in bench.spec.inventory(configuration.options).layers}
    low = sum(weights[name] for name in (*first.layers, *second.layers))
    assert found.mean_bits == pytest.approx(32 - 30 * low / sum(weights.values()))


def test_failed_training_is_a_measurement_that_says_why(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise TrainingError("the loss became nan at step 3 of 4")

    monkeypatch.setattr(module, "train", fail)
    found = bench.trial.measure(bench.strategy("all"), "search")
    assert found.failure == "the loss became nan at step 3 of 4"
    assert found.metrics == {}
    assert json.loads(found.to_json())["digest"] == bench.strategy("all").digest


def test_any_exception_of_one_configuration_is_its_failure(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("odd\nshapes")

    monkeypatch.setattr(module, "train", fail)
    assert bench.trial.measure(bench.strategy("all"), "search").failure == "ValueError: odd shapes"


def test_a_full_disk_is_no_fault_of_a_configuration(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "train", fail)
    with pytest.raises(OSError, match="No space"):
        bench.trial.measure(bench.strategy("all"), "search")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_metric_that_is_not_finite_is_a_failure(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    def measure(self: Any, sessions: Mapping[str, Any], data: Any) -> dict[str, Quantity]:
        return {"nll": Quantity(value)}

    monkeypatch.setattr(type(bench.task), "measure", measure)
    found = bench.trial.measure(bench.strategy("default"), "search")
    assert found.failure == f"nll of the exported model is {value}, expected a finite value"
    found.to_json()
