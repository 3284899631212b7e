"""Exported files: portable, free of traces of the machine, small, and equal to torch in every runtime."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import Bench
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

import bitsearch
from bitsearch import ops
from bitsearch.core.assignment import Assignment
from bitsearch.core.errors import ExportError
from bitsearch.core.precision import Precision
from bitsearch.core.rounding import Rounding, round_rows
from bitsearch.core.task import Graph
from bitsearch.network import catalogue, export, quant
from bitsearch.network.export import Metadata, Normalization, fold
from bitsearch.onnxfile import chains
from bitsearch.ops.reference import unpack

STRATEGIES = ["default", "exchange-permutation", "nncentral", "blockcentral", "all"]
METADATA = Metadata("0", "toy", "toys", 0.5, {})


def initializers(model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    return {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}


def nodes(model: onnx.ModelProto, op_type: str) -> list[onnx.NodeProto]:
    """List nodes of one kind; chains count as their layers."""
    return [node for node in chains.unchained(model).graph.node if node.op_type == op_type]


def session(model: onnx.ModelProto, library: bool = True) -> onnxruntime.InferenceSession:
    content = model.SerializeToString()
    return (
        ops.session(content)
        if library
        else onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    )


# --- the networks of the catalogue -----------------------------------------------------------------------------


# The opsets that brought `num_outputs` of Split and `allowzero` of Reshape, the youngest that the graphs hold.
OPSETS = {"sampler": 18, "density": 14}


@pytest.mark.parametrize("graph", ["sampler", "density"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_makes_a_valid_file(bench: Bench, strategy: str, graph: str) -> None:
    _, model = bench.export(strategy, graph)
    onnx.checker.check_model(model, full_check=True)
    assignment = bench.strategy(strategy).assignment
    quantized = nodes(model, "TernaryMatMul")
    assert {node.name for node in quantized} == set(assignment.quantized)
    assert {node.domain for node in quantized} <= {"com.bithep"}
    assert {node.name for node in nodes(model, "Gemm")} == set(assignment) - set(assignment.quantized)
    assert not nodes(model, "BatchNormalization")
    assert not nodes(model, "Linear")
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    assert (opsets[""], opsets["com.bithep"]) == (OPSETS[graph], 1)
    function = next(item for item in model.functions if item.name == "TernaryMatMul")
    assert {entry.domain: entry.version for entry in function.opset_import} == {"": OPSETS[graph]}


def test_inputs_and_outputs_are_named_and_the_batch_is_free(bench: Bench) -> None:
    _, model = bench.export("all", "sampler")
    assert [item.name for item in model.graph.input] == ["z", "incident_energy"]
    assert [item.name for item in model.graph.output] == ["showers"]
    for item in (*model.graph.input, *model.graph.output):
        assert item.type.tensor_type.shape.dim[0].dim_param
    assert [item.type.tensor_type.shape.dim[1].dim_value for item in model.graph.input] == [373, 1]


@pytest.mark.parametrize("batch", [1, 2, 7])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_any_batch_in_every_runtime(bench: Bench, strategy: str, batch: int) -> None:
    """The library, plain ONNX Runtime and the reference evaluator serve the same file."""
    _, model = bench.export(strategy, "sampler")
    inputs = dict(bench.task.inputs(batch, batch))
    (found,) = session(model).run(None, inputs)
    assert found.shape == (batch, 368)
    (plain,) = session(model, library=False).run(None, inputs)
    results = [plain]
    if batch == 2:
        with np.errstate(all="ignore"):
            (evaluated,) = ReferenceEvaluator(model).run(None, inputs)
        results.append(evaluated)
    scale = found.max(1, keepdims=True)
    for other in results:
        # A quantised activation on a rounding edge may flip with the last bit of what comes before.
        agree = (np.abs(other - found) <= 1e-3 * scale).all(1).mean()
        assert agree == 1.0 if strategy in STRATEGIES[:2] else agree >= 0.5
        assert np.median(np.abs(other - found) / scale) < 1e-4


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_density_agrees_with_torch(bench: Bench, strategy: str) -> None:
    network, model = bench.export(strategy, "density")
    data = bench.spec.data
    x, condition = data.columns[:64] + 2e-6, data.condition[:64]
    (found,) = session(model).run(None, {"x": x.numpy(), "condition": condition.numpy()})
    graph = bench.task.graphs(network)["density"]
    with torch.no_grad():
        expected = graph.module(x, condition).numpy()
    error = np.abs(found - expected) / np.abs(expected)
    assert np.median(error) < 1e-4
    assert error.max() < (1e-4 if strategy in STRATEGIES[:2] else 0.05)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_file_says_what_it_is(bench: Bench, strategy: str) -> None:
    _, model = bench.export(strategy, "sampler")
    found = {item.key: item.value for item in model.metadata_props}
    configuration = bench.strategy(strategy)
    assert found.keys() == {
        f"bitsearch.{name}"
        for name in ("version", "model", "dataset", "strategy", "assignment", "fraction", "config")
    }
    assert found["bitsearch.version"] == bitsearch.__version__ == model.producer_version
    assert (found["bitsearch.model"], found["bitsearch.dataset"]) == ("caloinn", "ds1-photon")
    assert found["bitsearch.strategy"] == strategy
    assert Assignment(json.loads(found["bitsearch.assignment"])) == configuration.assignment
    inventory = catalogue.inventory(bench.task, configuration.options)
    assert float(found["bitsearch.fraction"]) == inventory.fractions(configuration.assignment).fraction
    config = json.loads(found["bitsearch.config"])
    assert (config["preset"], config["options"]) == ("smoke", dict(configuration.options))
    assert config["architecture"]["blocks"] == 5
    assert config["recipe"] == config["recipes"]["name"] == "improved"
    assert config["rounding"] == dict.fromkeys(configuration.assignment.quantized, "optimal")


def test_strategy_is_left_out_where_there_is_none(bench: Bench) -> None:
    configuration = bench.strategy("nncentral")
    model = bench.trial.exporter.export(bench.trained(configuration), configuration, "sampler")
    assert "bitsearch.strategy" not in {item.key for item in model.metadata_props}


@pytest.mark.parametrize("graph", ["sampler", "density"])
def test_file_names_no_path_of_the_machine(bench: Bench, graph: str) -> None:
    content = bench.export("blockcentral", graph)[1].SerializeToString()
    here = Path(__file__).resolve().parents[1]
    for trace in (str(here), str(Path.home()), "site-packages", "pkg.torch", ".py", "pickle"):
        assert trace.encode() not in content, trace
    template = bench.trial.exporter.template({"permutation": "random"}, graph).SerializeToString()
    assert b"site-packages" not in template
    assert str(here).encode() not in template


@pytest.mark.parametrize("strategy", ["nncentral", "all"])
def test_codes_are_those_of_the_latent_weights(bench: Bench, strategy: str) -> None:
    network, model = bench.export(strategy, "sampler")
    arrays, rounding = initializers(model), quant.roundings(network)
    for node in nodes(model, "TernaryMatMul"):
        weight = network.get_submodule(node.name).weight
        assert isinstance(weight, Tensor)
        codes, _ = round_rows(weight.detach().numpy(), rounding[node.name])
        packed, scale = arrays[node.input[1]], arrays[node.input[2]]
        attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
        assert attributes == {"K": weight.shape[1], "act_qmax": 127.0}
        np.testing.assert_array_equal(unpack(packed, weight.shape[1]), codes)
        assert packed.shape == (weight.shape[0], -(-weight.shape[1] // 4))
        assert scale.shape == (weight.shape[0],)
        assert f"{node.name}.weight" not in arrays


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_added_constants_survive(bench: Bench, strategy: str) -> None:
    """An optimiser's rule takes an added 1e-8 or 1e-10 for zero: it would turn 0/(0 + 1e-10) into NaN."""

    def added(model: onnx.ModelProto, operators: tuple[str, ...]) -> set[float]:
        arrays = initializers(model)
        names = [name for node in model.graph.node if node.op_type in operators for name in node.input]
        scalars = [arrays[name] for name in names if name in arrays and arrays[name].size == 1]
        return {float(value.reshape(())) for value in scalars}

    sampler, density = bench.export(strategy, "sampler")[1], bench.export(strategy, "density")[1]
    assert any(value == pytest.approx(1e-10) for value in added(sampler, ("Add",)))
    assert any(abs(value) == pytest.approx(1e-8) for value in added(sampler, ("Add", "Sub")))
    assert any(value == pytest.approx(1e-8) for value in added(density, ("Add",)))
    data = bench.spec.data
    x = np.zeros_like(data.validation_columns)
    (nll,) = session(density).run(None, {"x": x, "condition": data.validation_condition})
    assert np.isfinite(nll).all()


def test_no_data_dependent_shapes_and_no_dense_permutations(bench: Bench) -> None:
    _, model = bench.export("default", "sampler")
    kinds = {node.op_type for node in model.graph.node}
    assert not kinds & {"NonZero", "ScatterND", "GatherND", "Loop", "If", "RandomNormal", "Compress"}
    assert len(nodes(model, "SelectColumns")) >= 5
    assert max(array.size for array in initializers(model).values()) == max(
        parameter.numel() for parameter in bench.export("default", "sampler")[0].parameters()
    )


def test_quantised_files_are_smaller(bench: Bench) -> None:
    sizes = {name: bench.export(name, "sampler")[1].ByteSize() for name in STRATEGIES}
    assert sizes["all"] < sizes["blockcentral"] < sizes["default"]
    assert sizes["nncentral"] < sizes["default"]


@pytest.mark.slow
def test_all_of_the_published_photon_network_is_twelve_times_smaller(tmp_path: Path) -> None:
    entry = catalogue.find("caloinn")
    task = entry.task("ds1-photon", "paper")
    network = task.network({"permutation": "random"}, 0).eval()
    template = export.trace(task.graphs(network)["sampler"])
    sizes = {}
    for name in ("default", "all"):
        assignment = entry.strategy(task, name).configuration.assignment
        model = export.lower(template, network.state_dict(), assignment, METADATA)
        onnx.save(model, tmp_path / f"{name}.onnx")
        sizes[name] = (tmp_path / f"{name}.onnx").stat().st_size
    assert sizes["default"] > 4 * 18_000_000
    assert sizes["all"] * 12 <= sizes["default"]


# --- toys ------------------------------------------------------------------------------------------------------


class Toy(nn.Module):
    """A network with a layer of every kind: normalised, bare, without bias, of rank three, twice read."""

    def __init__(self) -> None:
        super().__init__()
        self.normalized = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.SiLU())
        self.unbiased = nn.Linear(6, 6, bias=False)
        self.shared = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6))
        self.tokens = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.unbiased(self.normalized(x)) + 1e-8
        raw = self.shared[0](h)
        h = raw + self.shared[1](raw)
        y: Tensor = self.tokens(h.reshape(-1, 2, 3))
        return y


class Wrapped(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.network(x)
        return y


LAYERS = ["normalized.0", "unbiased", "shared.0", "tokens"]


def toy() -> Toy:
    torch.manual_seed(3)
    network = Toy().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d):
            for tensor in (module.weight, module.bias, module.running_mean):
                assert tensor is not None
                nn.init.normal_(tensor)
            assert module.running_var is not None
            nn.init.uniform_(module.running_var, 0.1, 3.0)
    return network


def graph_of(module: nn.Module) -> Graph:
    return Graph(module, {"x": torch.randn(2, 5)}, ("y",), "a toy")


@pytest.fixture(scope="module")
def template() -> onnx.ModelProto:
    return export.trace(graph_of(Wrapped(toy())))


@pytest.mark.parametrize("precision", [item for item in Precision if item is not Precision.INT8])
@pytest.mark.parametrize("act_qmax", [127.0, 128.0])
@pytest.mark.parametrize("kind", Rounding)
def test_layers_of_every_kind(
    template: onnx.ModelProto, kind: Rounding, precision: Precision, act_qmax: float
) -> None:
    assignment, rounding = Assignment.of(LAYERS, LAYERS, precision), dict.fromkeys(LAYERS, kind)
    network = quant.apply(toy(), assignment, act_qmax, rounding).eval()
    model = export.lower(template, network.state_dict(), assignment, METADATA, act_qmax, rounding)
    onnx.checker.check_model(model, full_check=True)
    x = torch.randn(50, 5)
    with torch.no_grad():
        expected = network(x).numpy()
    for library in (True, False):
        (found,) = session(model, library).run(None, {"x": x.numpy()})
        close = np.isclose(found, expected, rtol=1e-4, atol=1e-5).all((1, 2))
        assert close.mean() > 0.85 if precision.is_quantized else close.all()
    quantized = nodes(model, "TernaryMatMul")
    assert len(quantized) == (4 if precision.is_quantized else 0)
    # The BatchNorm whose input is read twice cannot be folded.
    assert len(nodes(model, "BatchNormalization")) == 1
    assert (len(nodes(model, "Gemm")), len(nodes(model, "MatMul"))) == (
        (0, 0) if precision.is_quantized else (3, 1)
    )
    if precision is Precision.BINARY:
        arrays = initializers(model)
        codes = [
            unpack(arrays[node.input[1]], node.attribute[0].i or 1)
            for node in quantized
            if node.name == "unbiased"
        ]
        assert all((np.abs(item) == 1).all() for item in codes)


def test_one_trace_serves_every_assignment_and_every_state(template: onnx.ModelProto) -> None:
    before = template.SerializeToString()
    for quantized in ([], LAYERS[:1], LAYERS[1:]):
        assignment = Assignment.of(LAYERS, quantized)
        torch.manual_seed(len(quantized))
        network = Toy().eval()
        model = export.lower(template, network.state_dict(), assignment, METADATA)
        quant.apply(network, assignment)
        x = torch.randn(20, 5)
        (found,) = session(model).run(None, {"x": x.numpy()})
        close = np.isclose(found, network(x).detach().numpy(), rtol=1e-4, atol=1e-5).all((1, 2))
        assert close.mean() > 0.85
    assert template.SerializeToString() == before


def test_tracing_leaves_the_network_alone() -> None:
    network = toy().train()
    kinds = [type(module) for module in network.modules()]
    state = copy.deepcopy(network.state_dict())
    export.trace(graph_of(Wrapped(network)))
    assert [type(module) for module in network.modules()] == kinds
    assert network.training
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


def test_assignment_must_cover_the_trace(template: onnx.ModelProto) -> None:
    with pytest.raises(ExportError, match=re.escape("the assignment lacks ['tokens']")):
        export.lower(template, toy().state_dict(), Assignment.of(LAYERS[:-1]), METADATA)


def test_parameters_outside_of_the_network_are_refused() -> None:
    class Outside(Wrapped):
        def __init__(self, network: nn.Module) -> None:
            super().__init__(network)
            self.shift = nn.Parameter(torch.ones(4))

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + self.shift

    with pytest.raises(ExportError, match="parameter shift lies outside of the module's `network`"):
        export.trace(graph_of(Outside(toy())))


# --- folding ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize("precision", Precision)
def test_folding_is_exact_to_a_few_ulp(precision: Precision, normalized: bool, bias: bool) -> None:
    """Against float64: the folded layer loses nothing but the rounding of its own constants."""
    torch.manual_seed(4)
    linear, norm = nn.Linear(7, 5, bias=bias), nn.BatchNorm1d(5).eval()
    assert norm.running_mean is not None
    assert norm.running_var is not None
    for tensor in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(tensor)
    nn.init.uniform_(norm.running_var, 1e-3, 10.0)
    behind = Normalization(
        norm.weight.detach(), norm.bias.detach(), norm.running_mean, norm.running_var, norm.eps
    )
    folded = fold(
        linear.weight.detach(),
        None if linear.bias is None else linear.bias.detach(),
        precision,
        behind if normalized else None,
    )
    codes, beta = quant.round_rows(linear.weight.detach(), Rounding.PAPER, precision)
    if precision.is_quantized:
        assert folded.scale is not None
        assert folded.scale.dtype == np.float32
        np.testing.assert_array_equal(folded.weight, codes.numpy())
        gain = folded.scale.astype(np.float64) * np.ones(5)
        weight = folded.weight * gain[:, None]
        true = (codes * beta).double() if precision.is_quantized else linear.weight.double()
    else:
        assert folded.scale is None
        weight, true = folded.weight.astype(np.float64), linear.weight.detach().double()
    x = torch.randn(20, 7).double()
    expected = nn.functional.linear(x, true, None if linear.bias is None else linear.bias.detach().double())
    if normalized:
        expected = norm.double()(expected)
    found = x.numpy() @ weight.T + folded.bias
    np.testing.assert_allclose(
        found, expected.detach().numpy(), rtol=0, atol=4e-7 * float(expected.detach().abs().max())
    )
