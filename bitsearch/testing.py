"""Contract tests for pytest: whatever the catalogue holds, and any model file of a user, is held to them.

In a test file, `TestMine = contract("path/to/mine.py")` gives all tests for one model at its smallest preset;
`TestMine = contract("mine.py", data=("events.h5",))` trains on files instead of the default data.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from bitsearch.cli import main
from bitsearch.core.assignment import Assignment
from bitsearch.core.precision import Precision
from bitsearch.core.strategy import Configuration
from bitsearch.network import catalogue, loop, measuring, quant
from bitsearch.network.loop import train
from bitsearch.network.quant import BitLinear
from bitsearch.network.spec import Spec
from bitsearch.network.trial import Trial
from bitsearch.onnxfile.runtime import open_session

LAYER_TOLERANCE = 1e-4
AGREEING_EVENTS = 0.5
SEED = 1


class _InterruptedError(Exception):
    """Stand for a kill."""


@dataclass(frozen=True)
class Exports:
    """Every graph of one network."""

    network: nn.Module
    configuration: Configuration
    models: Mapping[str, onnx.ModelProto]


class Contract:
    """What every model keeps; subclasses come from `contract`."""

    model: ClassVar[str]
    dataset: ClassVar[str | None]
    data: ClassVar[tuple[Path, ...]]

    @pytest.fixture(scope="class")
    @classmethod
    def trial(cls, tmp_path_factory: pytest.TempPathFactory) -> Trial:
        """Set the model up at its smallest preset."""
        entry = catalogue.find(cls.model)
        preset = entry.presets[0]
        dataset = entry.task(cls.dataset, preset).dataset
        folder = tmp_path_factory.mktemp("contract")
        return Trial(Spec(cls.model, dataset, preset, cls.data, folder, SEED))

    @pytest.fixture(scope="class")
    @classmethod
    def spec(cls, trial: Trial) -> Spec:
        """Give the task and the data of the trial."""
        return trial.spec

    @pytest.fixture(scope="class")
    @classmethod
    def configurations(cls, spec: Spec) -> dict[str, Configuration]:
        """Give the float reference, and the same with every layer quantised."""
        entry = catalogue.find(cls.model)
        layers = entry.space(spec.task).layers
        options = entry.options_of_reference(spec.preset)
        return {
            "float": Configuration(Assignment.of(layers), options),
            "ternary": Configuration(Assignment.of(layers, layers), options),
            "binary": Configuration(Assignment.of(layers, layers, Precision.BINARY), options),
        }

    @pytest.fixture(scope="class")
    @classmethod
    def reference(cls, trial: Trial, configurations: Mapping[str, Configuration]) -> nn.Module:
        """Train the float reference shortly."""
        return trial.trainer.reference(configurations["float"].options).network.eval()

    @pytest.fixture(scope="class", params=("float", "ternary", "binary"))
    @classmethod
    def exported(
        cls,
        request: pytest.FixtureRequest,
        trial: Trial,
        configurations: Mapping[str, Configuration],
    ) -> Exports:
        """Export every graph in one precision, with the network and the configuration that they came from."""
        configuration = configurations[request.param]
        network = trial.trainer.reference(configuration.options).network
        quant.apply(network, configuration.assignment).eval()
        graphs = trial.spec.task.graphs(network)
        models = {name: trial.exporter.export(network, configuration, name) for name in graphs}
        return Exports(network, configuration, models)

    def test_builds_the_same_network_from_the_same_seed(
        self, spec: Spec, configurations: Mapping[str, Configuration]
    ) -> None:
        """Structure and initial weights follow from the seed; the paper's size is built without memory."""
        options = configurations["float"].options
        one, other = (spec.network(options).state_dict() for _ in range(2))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
        entry = catalogue.find(self.model)
        for preset in entry.presets:
            task = entry.task(spec.dataset, preset)
            assert catalogue.inventory(task, entry.options_of_reference(preset)).layers

    def test_networks_know_nothing_of_quantisation(
        self, spec: Spec, configurations: Mapping[str, Configuration]
    ) -> None:
        """An assignment is applied from outside, and leaves the names of the state as they are."""
        network = spec.network(configurations["float"].options)
        names = list(network.state_dict())
        assert not any(isinstance(module, BitLinear) for module in network.modules())
        quant.apply(network, configurations["ternary"].assignment)
        assert all(isinstance(module, BitLinear) for _, module in quant.linear_layers(network))
        assert list(network.state_dict()) == names

    @pytest.mark.parametrize("precision", ["float", "ternary"])
    def test_losses_reach_every_layer_that_runs(
        self,
        spec: Spec,
        configurations: Mapping[str, Configuration],
        reference: nn.Module,
        precision: str,
    ) -> None:
        """The loss is finite and reproducible, and its gradients of every layer are finite."""
        network = spec.network(configurations[precision].options)
        network.load_state_dict(reference.state_dict())
        quant.apply(network, configurations[precision].assignment).train()
        indices = torch.arange(min(16, spec.data.events))

        def loss() -> torch.Tensor:
            return spec.task.loss(network, spec.data, indices, torch.Generator().manual_seed(SEED))

        state = {name: value.clone() for name, value in network.state_dict().items()}
        with torch.no_grad():
            first = loss()
        network.load_state_dict(state)
        again = loss()
        assert torch.equal(first, again)
        again.backward()  # type: ignore[no-untyped-call]
        idle = {layer.name for layer in quant.inventory(network).layers if not layer.executed}
        for name, layer in quant.linear_layers(network):
            gradient = layer.weight.grad
            assert (gradient is None) == (name in idle), name
            assert gradient is None or bool(torch.isfinite(gradient).all()), name

    def test_training_goes_on_where_it_was_killed(
        self, spec: Spec, configurations: Mapping[str, Configuration], tmp_path: Path
    ) -> None:
        """A resumed training ends with the bits of an uninterrupted one."""
        recipe = spec.task.recipes.candidate
        calls = 0

        def kill(_text: str, _share: float) -> None:
            nonlocal calls
            calls += 1
            if calls > 1:
                raise _InterruptedError

        def trained(folder: Path, progress: Any = lambda _text, _share: None) -> nn.Module:
            network = spec.network(configurations["ternary"].options)
            spec.task.prepare(network, spec.data, torch.Generator().manual_seed(SEED))
            quant.apply(network, configurations["ternary"].assignment)
            path = folder / "checkpoint.pt"
            result = train(
                network,
                spec.task,
                spec.data,
                recipe,
                seed=SEED,
                checkpoint=path,
                progress=progress,
            )
            return result.network

        every_step = patch.multiple(loop, SECONDS_BETWEEN_CHECKPOINTS=-1.0, STEPS_BETWEEN_CHECKS=1)
        with every_step, pytest.raises(_InterruptedError):
            trained(tmp_path / "killed", kill)
        with every_step:
            resumed = trained(tmp_path / "killed").state_dict()
            whole = trained(tmp_path / "whole").state_dict()
        assert all(torch.equal(resumed[name], whole[name]) for name in whole)

    def test_exports_are_portable(self, spec: Spec, exported: Exports) -> None:
        """Every graph passes the full check, has the inputs and outputs that it declared, and takes any batch."""
        graphs = spec.task.graphs(exported.network)
        for name, model in exported.models.items():
            assert [item.name for item in model.graph.input] == list(graphs[name].inputs)
            assert [item.name for item in model.graph.output] == list(graphs[name].outputs)
            onnx.checker.check_model(model, full_check=True)
            assert {prop.key for prop in model.metadata_props} >= {
                "bitsearch.assignment",
                "bitsearch.model",
            }
            session = open_session(model)
            for batch in (1, 3):
                inputs = _inputs(session, batch)
                for output in session.run(None, inputs):
                    assert output.shape[0] == batch

    def test_served_graph_agrees_with_torch(self, spec: Spec, exported: Exports) -> None:
        """Each layer tightly; whole outputs statistically, since 8-bit activations may flip a rounding."""
        parity = measuring.parity(spec, exported.models, exported.network)
        assert parity.layers > 0
        assert parity.layer_max_error < LAYER_TOLERANCE
        assert parity.output_agreement >= AGREEING_EVENTS

    def test_served_graph_runs_without_the_library(self, spec: Spec, exported: Exports) -> None:
        """The function bodies in the file give what the kernels give, up to flipped roundings."""
        model = exported.models[spec.task.served]
        inputs = dict(spec.task.inputs(8, SEED))
        plain = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        ours, theirs = open_session(model).run(None, inputs)[0], plain.run(None, inputs)[0]
        scale = np.abs(ours).max() + 1e-12
        close = np.abs(ours - theirs).reshape(len(ours), -1).max(1) < 1e-3 * scale
        assert np.mean(close) >= AGREEING_EVENTS

    def test_metrics_come_from_exported_graphs(self, spec: Spec, exported: Exports) -> None:
        """`measure` gives finite numbers, the objective among them, all of them described."""
        task = spec.task
        sessions = {name: open_session(exported.models[name]) for name in task.measured}
        metrics = task.measure(sessions, spec.data)
        assert task.objective in metrics
        assert set(metrics) <= {metric.name for metric in task.metrics}
        assert all(np.isfinite(quantity.value) for quantity in metrics.values())
        for yardstick in task.yardsticks(spec.data):
            assert yardstick.metric in {metric.name for metric in task.metrics}

    def test_verbs_know_the_model(self, spec: Spec, capsys: pytest.CaptureFixture[str]) -> None:
        """`strategies` and `layers` print it, and bad names are refused in one line."""
        chosen = ["--model", self.model, "--dataset", spec.dataset, "--preset", spec.preset]
        for verb in ("strategies", "layers"):
            assert main([verb, *chosen, "--json"]) == 0
            assert json.loads(capsys.readouterr().out)["preset"] == spec.preset
            assert main([verb, *chosen]) == 0
            assert "preset" in capsys.readouterr().out
        assert main(["strategies", "--model", self.model, "--preset", "no such preset"]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


def contract(model: str, dataset: str | None = None, data: Sequence[str | Path] = ()) -> type[Contract]:
    """Make the tests of one model, for a test file to assign to a name that begins with `Test`."""
    members = {"model": model, "dataset": dataset, "data": tuple(Path(path) for path in data)}
    return type(f"Test{Path(model).stem.title()}", (Contract,), members)


def contracts() -> Iterator[tuple[str, type[Contract]]]:
    """Make the tests of every catalogued model, by class name."""
    for name in catalogue.names():
        made = contract(name)
        yield made.__name__, made


def _inputs(session: onnxruntime.InferenceSession, batch: int) -> dict[str, Any]:
    """Draw inputs between 0.1 and 1, which every graph can take."""
    rng = np.random.default_rng(SEED)
    return {
        item.name: rng.uniform(0.1, 1, [batch, *item.shape[1:]]).astype(np.float32)
        for item in session.get_inputs()
    }
