"""From a configuration to a measurement: what is measured, what is kept, what a failure leaves behind."""

import dataclasses
import json
import math
import pickle
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Bench, SmokeRun

from bitsearch import ops
from bitsearch.core.errors import CheckpointError, TrainingError
from bitsearch.core.measurement import Measurement, Quantity
from bitsearch.core.rounding import Rounding
from bitsearch.network import catalogue, quant
from bitsearch.network import laboratory as module
from bitsearch.network.laboratory import Laboratory, load_network


@pytest.fixture(scope="module")
def measured(bench: Bench) -> Measurement:
    return bench.laboratory.measure(bench.strategy("nncentral"), "baseline:nncentral", "finetuned", "kept")


def test_measurement_holds_what_the_contract_asks_for(bench: Bench, measured: Measurement) -> None:
    configuration = bench.strategy("nncentral")
    assert measured.failure is None
    assert measured.configuration == configuration
    assert (measured.digest, measured.fidelity, measured.seed) == (configuration.digest, "finetuned", 1)
    assert measured.metrics["nll"].n > 1
    assert math.isfinite(measured.metrics["nll"].value)
    assert measured.metrics["nll"].std
    assert measured.train_seconds > 0
    assert [item.batch for item in measured.latency_us] == list(bench.task.latency_batches)
    assert all(item.median_us > 0 and item.repeats >= 3 for item in measured.latency_us)
    assert {item.kernel for item in measured.latency_us} == {k.name for k in ops.kernels() if k.chosen}
    assert measured.parity is not None
    assert measured.parity.layer_max_error < 1e-5
    assert Measurement.from_json(measured.to_json()) == measured


def test_kept_file_is_what_was_measured(bench: Bench, measured: Measurement) -> None:
    assert measured.model == "models/kept.onnx"
    file = bench.laboratory.folder / measured.model
    assert file.stat().st_size == measured.size_bytes
    found = ops.session(file).get_modelmeta().custom_metadata_map
    assert found["bitsearch.strategy"] == "nncentral"
    assert float(found["bitsearch.fraction"]) == measured.fraction


def test_measuring_again_gives_the_same_numbers(smoke: SmokeRun, bench: Bench, measured: Measurement) -> None:
    """Also those of the run that the laboratory's references come from."""
    again = bench.laboratory.measure(bench.strategy("nncentral"), "search")
    assert again.metrics == measured.metrics
    assert again.model is None
    recorded = next(
        item for item in smoke.results if item.strategy == "nncentral" and item.fidelity == "finetuned"
    )
    assert recorded.metrics["nll"] == measured.metrics["nll"]


def test_failed_training_is_a_measurement_that_says_why(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise TrainingError("the loss became nan at step 3 of 4")

    monkeypatch.setattr(module, "train", fail)
    found = bench.laboratory.measure(bench.strategy("all"), "search")
    assert found.failure == "the loss became nan at step 3 of 4"
    assert found.metrics == {}
    assert json.loads(found.to_json())["digest"] == bench.strategy("all").digest


def test_any_exception_of_one_configuration_is_its_failure(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("odd\nshapes")

    monkeypatch.setattr(module, "train", fail)
    assert bench.laboratory.measure(bench.strategy("all"), "search").failure == "ValueError: odd shapes"


def test_a_full_disk_is_no_fault_of_a_configuration(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "train", fail)
    with pytest.raises(OSError, match="No space"):
        bench.laboratory.measure(bench.strategy("all"), "search")


def test_repetitions_of_neighbouring_seeds_share_no_weights(bench: Bench) -> None:
    options = {"permutation": "random"}
    one = dataclasses.replace(bench.laboratory, seed=1).network(options, 1).state_dict()
    two = dataclasses.replace(bench.laboratory, seed=2).network(options, 0).state_dict()
    weights = [name for name in one if name.endswith("layers.0.weight")]
    assert weights
    assert not any(torch.equal(one[name], two[name]) for name in weights)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_metric_that_is_not_finite_is_a_failure(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    def measure(self: Any, sessions: Mapping[str, Any], data: Any) -> dict[str, Quantity]:
        return {"nll": Quantity(value)}

    monkeypatch.setattr(type(bench.task), "measure", measure)
    found = bench.laboratory.measure(bench.strategy("default"), "search")
    assert found.failure == f"nll of the exported model is {value}, expected a finite value"
    found.to_json()


def test_references_and_traces_are_made_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    work = bench.laboratory.folder / "work"
    before = {path: path.stat().st_mtime_ns for path in work.glob("trace-*")}
    assert len(before) == 4
    monkeypatch.setattr("bitsearch.network.export.trace", None)
    for choice, graph in product(bench.space.options["permutation"], bench.laboratory.graphs):
        bench.laboratory.template({"permutation": choice}, graph)
        bench.laboratory.reference({"permutation": choice})
    assert {path: path.stat().st_mtime_ns for path in work.glob("trace-*")} == before


def test_reference_is_the_same_for_everyone(bench: Bench) -> None:
    options = {"permutation": "exchange"}
    one, other = (bench.laboratory.reference(options).network.state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)
    initial = bench.laboratory.network(options).state_dict()
    weights = [name for name in one if name.endswith("layers.0.weight")]
    assert weights
    assert not any(torch.equal(one[name], initial[name]) for name in weights)


def test_candidates_start_from_the_reference_and_leave_it_alone(bench: Bench) -> None:
    configuration = bench.strategy("all")
    before = bench.laboratory.reference(configuration.options).network.state_dict()
    recipe = dataclasses.replace(bench.task.recipes.candidate, steps=2, max_learning_rate=1e-12)
    trained = bench.laboratory.train(configuration, recipe).network.state_dict()
    name = "blocks.1.subnet.layers.0.weight"
    torch.testing.assert_close(trained[name], before[name], rtol=1e-5, atol=1e-8)
    after = bench.laboratory.reference(configuration.options).network.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_can_be_sent_to_another_process(bench: Bench) -> None:
    assert bench.laboratory.data is not None
    sent: Laboratory = pickle.loads(pickle.dumps(bench.laboratory.without_progress()))
    assert "data" not in vars(sent)
    assert sent == bench.laboratory.without_progress()


@pytest.mark.parametrize("change", [{"seed": 2}, {"preset": "laptop"}], ids=str)
def test_identity_covers_what_values_depend_on(bench: Bench, change: dict[str, Any]) -> None:
    now = dataclasses.replace(bench.laboratory, **change).identity
    differing = {name for name, value in bench.laboratory.identity.items() if now[name] != value}
    assert differing >= set(change)


def test_identity_is_content_not_place(bench: Bench, tmp_path: Path) -> None:
    (moved,) = (tmp_path / "moved.h5",)
    moved.write_bytes(bench.laboratory.paths[0].read_bytes())
    elsewhere = dataclasses.replace(bench.laboratory, folder=Path("elsewhere"), threads=7, paths=(moved,))
    assert elsewhere.identity == bench.laboratory.identity


def test_weights_that_do_not_fit_are_refused(bench: Bench) -> None:
    configuration = bench.strategy("blockcentral")
    state = bench.laboratory.network({"permutation": "random"}).state_dict()
    with pytest.raises(CheckpointError, match="unknown keys"):
        load_network(bench.laboratory, configuration, state)
    state = bench.laboratory.network(configuration.options).state_dict()
    network = load_network(bench.laboratory, configuration, state)
    assert not network.training


def test_a_checkpoint_rounds_as_it_was_trained(tmp_path: Path) -> None:
    laboratory = Laboratory("caloinn", "ds1-photon", "smoke", (), tmp_path, 1, "cpu", 1)
    configuration = catalogue.find("caloinn").strategy(laboratory.task, "all").configuration
    state = laboratory.network(configuration.options).state_dict()
    kinds = laboratory.task.recipes.roundings(configuration.assignment)
    assert set(kinds.values()) == {Rounding.OPTIMAL}
    assert quant.roundings(load_network(laboratory, configuration, state, kinds)) == kinds
    older = load_network(laboratory, configuration, state)
    assert quant.roundings(older) == dict.fromkeys(kinds, Rounding.PAPER)
