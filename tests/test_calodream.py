"""CaloDREAM: counts of the paper, causality and symmetries, the generator as it is exported."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

from bitsearch import ops
from bitsearch.cli import main
from bitsearch.core.errors import CheckpointError
from bitsearch.models.calodream import task
from bitsearch.models.calodream.graphs import Generator
from bitsearch.models.calodream.network import CaloDREAM
from bitsearch.models.calodream.published_weights import convert
from bitsearch.models.showers import generator as made
from bitsearch.network import catalogue, export, parity, quant
from bitsearch.network.checkpoint import load_state
from bitsearch.onnxfile import chains
from bitsearch.onnxfile.backends import rewrite
from bitsearch.onnxfile.portable import portable

SMOKE = task("ds2", "smoke")
GRID = SMOKE.architecture.grid
LAYERS, VOXELS = SMOKE.architecture.layers, SMOKE.architecture.voxels
METADATA = export.Metadata("1", "calodream", "ds2", 0.0, {})


def network(seed: int = 0) -> CaloDREAM:
    """Build a smoke network that returns no zeros and standardises."""
    torch.manual_seed(seed)
    made = SMOKE.network({}, 0).eval()
    for parameter in made.shape.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.3)
    made.standardization.mean.normal_(-6, 2)
    made.standardization.std.uniform_(0.5, 3)
    return made.requires_grad_(False)


@pytest.mark.parametrize(
    ("strategy", "quantized", "layers"),
    [
        ("regular", 0, 0),
        ("energy-quantized", 1_575_936, 6),
        ("shape-no-embedding", 16_614_720, 24),
        ("energy-quantized+shape-no-embedding", 18_190_656, 30),
        ("shape-full", 17_269_008, 30),
        ("energy-quantized+shape-full", 18_844_944, 36),
    ],
)
def test_counts_of_the_paper(strategy: str, quantized: int, layers: int) -> None:
    entry = catalogue.find("calodream")
    paper = entry.task("ds2", "paper")
    assignment = entry.strategy(paper, strategy).configuration.assignment
    fractions = catalogue.inventory(paper, {}).fractions(assignment)
    assert (fractions.quantized_parameters, fractions.total_parameters) == (quantized, 28_427_393)
    assert len(assignment.quantized) == layers
    # Queries and keys of attention to one token: 8 times two layers of 64 x 64 with bias never run.
    assert fractions.executed_fraction == pytest.approx(quantized / (28_427_393 - 16 * 64 * 65))


def test_parameters_of_each_network() -> None:
    with torch.device("meta"):
        paper = task("ds2", "paper").network({}, 0)
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in paper.named_children()}
    assert counts == {"standardization": 0, "energy": 2_384_705, "shape": 26_042_688}
    assert sum(p.numel() for p in paper.energy.encoder.parameters()) == 4 * 83_008
    assert sum(p.numel() for p in paper.energy.velocity.central.parameters()) == 1_575_936
    assert sum(p.numel() for p in paper.shape.blocks.parameters()) - 8_311_680 == 16_614_720


def test_full_keeps_the_final_linear_layer_in_float_outside_of_the_paper_preset() -> None:
    entry = catalogue.find("calodream")
    for preset in ("paper", "laptop"):
        made = entry.task("ds2", preset)
        quantized = entry.strategy(made, "shape-full").configuration.assignment.quantized
        assert ("shape.final.linear" in quantized) == (preset == "paper")
        assert not any("modulation" in name or name.startswith("energy") for name in quantized)
    text = entry.task("ds2", "paper")
    layers = [name for name in quantized if name.startswith("shape")]
    assert len(layers) == 5 + 4 * task("ds2", "laptop").architecture.shape.blocks
    counted = catalogue.inventory(text, {})
    names = [
        layer.name
        for layer in counted.layers
        if layer.name.startswith("shape")
        and not layer.name.startswith("shape.final")
        and "modulation" not in layer.name
    ]
    assert sum(layer.parameters for layer in counted.layers if layer.name in names) == 17_245_920


def test_published_numbers() -> None:
    entry = catalogue.find("calodream")
    published = {(item.strategy, item.metric): (item.value, item.std) for item in entry.published("ds2")}
    assert published["shape-full", "auc_high"] == (0.942, 0.002)
    assert published["energy-quantized+shape-no-embedding", "auc_low"] == (0.61, 0.005)
    strategies = {strategy.name for strategy in entry.space(entry.task("ds2", "smoke")).strategies}
    assert {name for name, _ in published} == strategies
    assert {item.strategy for item in entry.published_fractions("ds2")} == strategies


def test_networks_know_nothing_of_quantisation() -> None:
    kinds = {type(module) for module in network().modules() if isinstance(module, nn.Linear)}
    assert kinds == {nn.Linear}


@pytest.mark.parametrize("changed", range(LAYERS))
def test_energy_velocity_depends_on_earlier_layers_alone(changed: int) -> None:
    energy = network().energy
    values, x, t = torch.randn(4, LAYERS), torch.randn(4, LAYERS), torch.rand(4, LAYERS)
    other = values.clone()
    other[:, changed] += 1
    condition = torch.rand(4, 1)
    one, two = energy(condition, values, x, t), energy(condition, other, x, t)
    assert torch.equal(one[:, : changed + 1], two[:, : changed + 1])
    assert changed == LAYERS - 1 or not torch.isclose(one[:, changed + 1 :], two[:, changed + 1 :]).any()


def test_layers_that_never_run_change_nothing() -> None:
    one, two = network(), network()
    for name in two.never_run:
        for parameter in two.get_submodule(name).parameters():
            parameter.add_(1)
    inputs = (
        torch.rand(5, VOXELS + LAYERS),
        torch.rand(5, 1),
        torch.rand(5, LAYERS + 1),
        torch.randn(5, VOXELS + LAYERS),
    )
    assert len(two.never_run) == 4
    assert torch.equal(one.losses(*inputs), two.losses(*inputs))


def test_fresh_shape_network_returns_zero() -> None:
    fresh = SMOKE.network({}, 0).shape
    assert not fresh(torch.randn(3, VOXELS), torch.rand(3, 1), torch.randn(3, 1 + LAYERS)).any()


def test_shape_network_knows_tokens_apart_by_position_vectors_alone() -> None:
    shape = network().shape
    x, t, condition = torch.randn(3, VOXELS), torch.rand(3, 1), torch.randn(3, 1 + LAYERS)
    order = torch.randperm(math.prod(shape.patches))
    permuted = shape.to_voxels(shape.to_tokens(x)[:, order])

    def differs() -> bool:
        expected = shape.to_tokens(shape(x, t, condition))[:, order]
        return not torch.allclose(shape.to_tokens(shape(permuted, t, condition)), expected, atol=1e-5)

    assert differs()
    shape.frequencies.zero_()
    assert not differs()


def test_patches_span_layers_angles_and_radii() -> None:
    """Token = layer block * radii + radius; inside a patch layers are slowest."""
    with torch.device("meta"):
        shape = task("ds2", "paper").network({}, 0).shape
    voxels = torch.arange(6480).reshape(1, 45, 16, 9)
    tokens = shape.to_tokens(voxels.flatten(1))
    assert tokens.shape == (1, 135, 48)
    assert torch.equal(tokens[0, 2 * 9 + 4].reshape(3, 16), voxels[0, 6:9, :, 4])
    assert torch.equal(shape.to_voxels(tokens), voxels.flatten(1))


def test_losses_are_those_of_straight_paths() -> None:
    made = network()
    columns, condition = torch.rand(6, VOXELS + LAYERS), 3 * torch.rand(6, 1)
    t, noise = torch.rand(6, LAYERS + 1), torch.randn(6, VOXELS + LAYERS)
    found = made.losses(columns, condition, t, noise)
    data = made.standardization(columns)
    x, u = data[:, :VOXELS], data[:, VOXELS:]
    x0, u0 = noise[:, :VOXELS], noise[:, VOXELS:]
    energy = made.energy(condition / 3, u, (1 - t[:, :-1]) * u0 + t[:, :-1] * u, t[:, :-1])
    shape = made.shape((1 - t[:, -1:]) * x0 + t[:, -1:] * x, t[:, -1:], torch.cat([condition / 3, u], 1))
    torch.testing.assert_close(found[:, 0], ((energy - (u - u0)) ** 2).mean(1), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[:, 1], ((shape - (x - x0)) ** 2).mean(1), rtol=1e-4, atol=1e-4)


class Traces:
    """Traces of the smoke network's graphs, made once each."""

    def __init__(self) -> None:
        self.made: dict[str, onnx.ModelProto] = {}

    def export(self, graph: str, strategy: str) -> tuple[CaloDREAM, onnx.ModelProto]:
        if graph not in self.made:
            self.made[graph] = export.trace(SMOKE.graphs(network())[graph])
        assignment = assignment_of(strategy)
        quantized = network()
        quant.apply(quantized, assignment)
        return quantized, export.lower(self.made[graph], quantized.state_dict(), assignment, METADATA)


@pytest.fixture(scope="module")
def traces() -> Traces:
    """Trace each graph at most once."""
    return Traces()


def assignment_of(strategy: str) -> Any:
    entry = catalogue.find("calodream")
    return entry.strategy(entry.task("ds2", "smoke"), strategy).configuration.assignment


STRATEGIES = ("regular", "energy-quantized+shape-full")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_exported_generator_solves_inside(traces: Traces, strategy: str) -> None:
    """The same showers from torch, the operator library, the function bodies and onnx's reference evaluator."""
    quantized, model = traces.export("generator", strategy)
    onnx.checker.check_model(model, full_check=True)
    assert [item.name for item in model.graph.input] == ["incident_energy", "noise_energy", "noise_shape"]
    assert sum(node.op_type == "Scan" for node in model.graph.node) == 2
    inputs = dict(SMOKE.inputs(9, 3))
    (found,) = ops.session(model.SerializeToString()).run(["showers"], inputs)
    expected = Generator(quantized).eval()(*(torch.from_numpy(value) for value in inputs.values())).numpy()
    tolerance = 1e-4 * expected.max(1, keepdims=True)
    assert np.isfinite(found).all()
    assert (found >= 0).all()
    assert ((found == 0) | (found >= SMOKE.architecture.threshold_mev)).all()
    close = (abs(found - expected) <= tolerance).all(1)
    assert close.mean() > 0.7  # an activation on a rounding edge may flip
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    (portable,) = onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, inputs)
    (reference,) = ReferenceEvaluator(model).run(None, inputs)
    for other in (portable, reference):
        assert (abs(found - other) <= tolerance).all(1).mean() > 0.7
    (single,) = ops.session(model.SerializeToString()).run(
        None, {name: value[4:5] for name, value in inputs.items()}
    )
    np.testing.assert_allclose(single[0], found[4], rtol=1e-4, atol=tolerance[4, 0])


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("graph", ["losses", "energy_context", "energy_velocity", "shape_velocity"])
def test_every_exported_layer_computes_what_torch_does(traces: Traces, graph: str, strategy: str) -> None:
    quantized, model = traces.export(graph, strategy)
    onnx.checker.check_model(model, full_check=True)
    rng = np.random.default_rng(5)
    described = SMOKE.graphs(quantized)[graph]
    inputs = {
        name: rng.random((50, *value.shape[1:]), np.float32) for name, value in described.inputs.items()
    }
    found = parity.compare(model, described, inputs)
    assert found.layer_max_error < 2e-6
    assert found.output_agreement > 0.9
    if graph == "losses":
        assert found.layers == len(list(quant.linear_layers(quantized))) - len(quantized.never_run)


@pytest.mark.parametrize("backend", ["int2", "nbits"])
def test_other_kernels(traces: Traces, backend: str) -> None:
    """Rounded a block of inputs at a time there, a row at a time in torch: a step of 127 apart."""
    entry = catalogue.find("calodream")
    for strategy in entry.space(entry.task("ds2", "smoke")).strategies:
        for graph in ("energy_velocity", "shape_velocity"):
            quantized, model = traces.export(graph, strategy.name)
            described = SMOKE.graphs(quantized)[graph]
            rng = np.random.default_rng(5)
            inputs = {
                name: rng.random((50, *value.shape[1:]), np.float32)
                for name, value in described.inputs.items()
            }
            found = parity.compare(rewrite(model, backend), described, inputs)
            assert found.layer_max_error < 2 / 127
        _, model = traces.export("generator", strategy.name)
        rewritten = rewrite(model, backend)
        (showers,) = onnxruntime.InferenceSession(rewritten.SerializeToString()).run(
            None, dict(SMOKE.inputs(4, 3))
        )
        assert np.isfinite(showers).all()


def test_the_portable_generator_makes_the_same_showers(traces: Traces) -> None:
    """In standard operators without loops."""
    _, model = traces.export("generator", "regular")
    inputs = dict(SMOKE.inputs(4, 3))
    found, expected = (
        onnxruntime.InferenceSession(item.SerializeToString()).run(None, inputs)[0]
        for item in (portable(model), model)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * expected.max())


def test_ternary_layers_inside_loops_share_constants_of_the_main_graph(traces: Traces) -> None:
    _, model = traces.export("generator", "energy-quantized+shape-full")
    chains.unchain(model)
    main = {item.name for item in model.graph.initializer}
    bodies = [
        attribute.g
        for node in model.graph.node
        for attribute in node.attribute
        if node.op_type == "Scan" and attribute.name == "body"
    ]
    inside = [node for body in bodies for node in body.node if node.op_type == "TernaryMatMul"]
    assert inside
    assert all(name in main for node in inside for name in node.input[1:])
    assert not any(body.initializer for body in bodies)


def test_generator_is_its_parts() -> None:
    """The served graph against a plain loop over layers and stages with contexts and velocities."""
    made = network()
    inputs = {name: torch.from_numpy(value) for name, value in SMOKE.inputs(5, 2).items()}
    generator = Generator(made)
    condition = torch.log10(inputs["incident_energy"] / 1000) / 3
    values = torch.zeros(5, LAYERS)
    for layer in range(LAYERS):
        context = made.energy.decode(made.energy.encode(condition), values)[:, layer]

        def velocity(x: Tensor, t: float, context: Tensor = context) -> Tensor:
            return made.energy.move(x, made.energy.embed_time(torch.full((5, 1), t)), context)

        values[:, layer : layer + 1] = three_eighths(
            velocity, inputs["noise_energy"][:, layer : layer + 1], 2
        )
    voxels = three_eighths(
        lambda x, t: made.shape(x, torch.full((5, 1), t), torch.cat([condition, values], 1)),
        inputs["noise_shape"],
        2,
    )
    columns = made.standardization.invert(torch.cat([voxels, values], 1))
    expected = generator.postprocessing(columns, inputs["incident_energy"])
    torch.testing.assert_close(generator(*inputs.values()), expected, rtol=1e-3, atol=1e-2)


def three_eighths(velocity: Any, x: Tensor, steps: int) -> Tensor:
    """Integrate as textbooks write Kutta's 3/8-rule."""
    h = 1 / steps
    for step in range(steps):
        t = step * h
        k1 = velocity(x, t)
        k2 = velocity(x + h * k1 / 3, t + h / 3)
        k3 = velocity(x + h * (k2 - k1 / 3), t + 2 * h / 3)
        k4 = velocity(x + h * (k1 - k2 + k3), t + h)
        x = x + h * (k1 + 3 * k2 + 3 * k3 + k4) / 8
    return x


class Stock(nn.Module):
    """The energy network's parts as torch has them, under the names of the authors' public class."""

    def __init__(self) -> None:
        super().__init__()
        sizes = SMOKE.architecture.energy
        self.transformer = nn.Transformer(
            sizes.width, sizes.heads, sizes.stack, sizes.stack, sizes.feed_forward, 0.0, batch_first=True
        )
        self.fourier = nn.Module()
        self.W = nn.Parameter(30 * torch.randn(sizes.time // 2), requires_grad=False)
        self.fourier.register_parameter("W", self.W)
        self.t_embed = nn.Sequential(self.fourier, nn.Linear(sizes.time, sizes.time))
        parts: list[nn.Module] = [nn.Linear(1 + sizes.time + sizes.width, sizes.hidden), nn.SiLU()]
        for _ in range(sizes.linears - 2):
            parts += [
                nn.Linear(sizes.hidden, sizes.hidden),
                nn.LayerNorm(sizes.hidden),
                nn.Dropout(0.0),
                nn.SiLU(),
            ]
        self.subnet = nn.Sequential(*parts, nn.Linear(sizes.hidden, 1))
        self.positional_encoding = nn.Module()
        self.positional_encoding.register_buffer("pe", torch.zeros(1, LAYERS + 1, sizes.width))

    def forward(self, condition: Tensor, values: Tensor, x: Tensor, t: Tensor) -> Tensor:
        width = SMOKE.architecture.energy.width
        source = torch.zeros(len(condition), 1, width)
        source[:, 0, 0], source[:, 0, 1] = condition[:, 0], 1
        target = torch.zeros(len(condition), LAYERS, width)
        for layer in range(LAYERS):
            target[:, layer, 0] = values[:, layer - 1] if layer else 0
            target[:, layer, 1 + layer] = 1
        mask = torch.ones(LAYERS, LAYERS, dtype=torch.bool).triu(1)
        context = self.transformer(source, target, tgt_mask=mask)
        angle = 2 * math.pi * t.unsqueeze(2) * self.W
        time = self.t_embed[1](torch.cat([angle.sin(), angle.cos()], 2))
        velocity: Tensor = self.subnet(torch.cat([x.unsqueeze(2), time, context], 2)).squeeze(2)
        return velocity


def original(made: CaloDREAM, stock: Stock) -> dict[str, Tensor]:
    """Write both state dicts as the authors' classes would, into one."""
    renamed = {
        "embedding.": "x_embedder.",
        "time.": "t_embedder.mlp.",
        "condition.": "c_embedder.",
        "frequencies": "pos_embed_freqs",
        "final.linear.": "final_layer.linear.",
        "final.modulation.": "final_layer.adaLN_modulation.1.",
    }
    state = {name: value for name, value in stock.state_dict().items() if name not in ("W", "fourier.W")}
    for name, value in made.shape.state_dict().items():
        for ours, theirs in renamed.items():
            if name.startswith(ours):
                state[theirs + name.removeprefix(ours)] = value
        if name.startswith("blocks."):
            for ours, theirs in {
                "attention.qkv": "attn.qkv",
                "attention.projection": "attn.proj",
                "fc": "mlp.fc",
                "modulation": "adaLN_modulation.1",
            }.items():
                name = name.replace(ours, theirs)
            state[name] = value
    grids = {"lgrid": torch.zeros(3), "agrid": torch.zeros(1), "rgrid": torch.zeros(3)}
    statistics = {"means": made.standardization.mean, "stds": made.standardization.std}
    return {**state, **grids, **statistics}


def test_original_checkpoints_give_the_same_outputs() -> None:
    torch.manual_seed(1)
    stock, source, ours = Stock().eval(), network(1), network(2)
    state = original(source, stock)
    load_state(ours, convert(state))
    condition, values, x, t = (
        torch.rand(5, 1),
        *(torch.randn(5, LAYERS) for _ in range(2)),
        torch.rand(5, LAYERS),
    )
    with torch.no_grad():
        torch.testing.assert_close(ours.energy(condition, values, x, t), stock(condition, values, x, t))
    arguments = torch.randn(5, VOXELS), torch.rand(5, 1), torch.randn(5, 1 + LAYERS)
    assert torch.equal(ours.shape(*arguments), source.shape(*arguments))
    prefixed = {f"module.net.{name}" if "." in name else name: value for name, value in state.items()}
    assert all(torch.equal(value, convert(state)[name]) for name, value in convert(prefixed).items())


def test_unknown_and_missing_keys_are_listed() -> None:
    state = original(network(), Stock())
    with pytest.raises(
        CheckpointError, match=r"unknown keys: \['c_embed.0.weight', 'epoch'\]; expected keys such"
    ):
        convert({**state, "epoch": torch.zeros(1), "c_embed.0.weight": torch.zeros(1)})
    for gone in ("means", "transformer.decoder.layers.0.multihead_attn.in_proj_bias", "subnet.0.bias"):
        del state[gone]
    with pytest.raises(CheckpointError) as caught:
        load_state(network(), convert(state))
    for name in (
        "standardization.mean",
        "energy.decoder.0.cross_attention.query.bias",
        "energy.velocity.first.bias",
    ):
        assert name in str(caught.value)


def test_export_of_an_original_checkpoint_in_parts(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The authors keep both networks and their moments apart; one alone is told what it lacks, in one line."""
    state = original(network(), Stock())
    moments = {name: state.pop(name) for name in ("means", "stds")}
    shape = {
        name: value
        for name, value in state.items()
        if re.match("[xtc]_embedder|blocks|final|pos_embed", name)
    }
    energy = {name: value for name, value in state.items() if name not in shape}
    for name, part in (("energy.pt", energy), ("shape.pt", shape)):
        torch.save(part, tmp_path / name)
    for name, value in moments.items():
        np.save(tmp_path / f"{name}.npy", value.numpy())
    files = [str(tmp_path / name) for name in ("energy.pt", "shape.pt", "means.npy", "stds.npy")]
    out = tmp_path / "authors.onnx"
    rest = f"--out {out} --json --preset smoke --model calodream --strategy shape-full".split()
    assert main(["export", files[0], *rest]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "the checkpoint lacks the shape network (shape.pt), means and stds (means.npy stds.npy)" in line
    assert main(["export", *files, files[2], *rest]) == 2
    assert "means.npy holds keys that another file holds too: ['means']" in capfd.readouterr().err
    assert main(["export", *files, *rest]) == 0, capfd.readouterr().err
    assert json.loads(capfd.readouterr().out)["parity"]["layer_max_error"] < 1e-5
    metadata = {item.key: item.value for item in onnx.load(out).metadata_props}
    assert metadata["bitsearch.strategy"] == "shape-full"
    assert json.loads(metadata["bitsearch.assignment"])["shape.embedding"] == "ternary"


def test_presets_grow() -> None:
    presets = [task("ds2", preset) for preset in ("smoke", "laptop", "paper")]
    for small, large in pairwise(presets):
        assert small.architecture.voxels < large.architecture.voxels
        assert small.architecture.shape.width < large.architecture.shape.width
        assert small.architecture.energy.hidden < large.architecture.energy.hidden
        assert small.recipes.reference.stages[-1].steps < large.recipes.reference.stages[-1].steps
    for item in presets:
        assert item.architecture.voxels == item.geometry.voxels
        assert item.architecture.energy.width >= item.architecture.layers + 2
        assert json.loads(json.dumps(item.settings))["architecture"]["grid"] == list(item.architecture.grid)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Load 120 generated showers with the smoke preset."""
    path = made.make("ds2", 120, 3, tmp_path_factory.mktemp("data") / "electrons.h5", workers=1)
    return replace(SMOKE, validation_fraction=0.3).load((path,), 1, lambda _what, _share: None)


def test_data_are_sums_of_voxels(small: Any) -> None:
    assert small.columns.shape == (42, VOXELS + LAYERS)
    assert small.identity.statement.endswith("voxels summed to 3 x 4 x 3.")
    assert small.reference(10, 1).showers_mev.shape == (10, VOXELS)


def test_loss_uses_times_and_noise_of_the_generator(small: Any) -> None:
    made, indices = network(), torch.arange(8)
    SMOKE.prepare(made, small, torch.Generator())
    one, same, other = (
        SMOKE.loss(made, small, indices, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.isfinite(one)


def test_networks_in_training_alone_make_the_loss(small: Any) -> None:
    """Published are two trainings with nothing in common, so `paper` trains one network after the other."""
    made, indices = network().requires_grad_(True), torch.arange(8)
    SMOKE.prepare(made, small, torch.Generator())

    def loss() -> Tensor:
        return SMOKE.loss(made, small, indices, torch.Generator().manual_seed(1))

    parts = {}
    for stage, other in zip(task("ds2", "paper").recipes.reference.stages, ("shape", "energy"), strict=True):
        made.get_submodule(other).requires_grad_(False)
        parts[stage.part] = loss()
        made.get_submodule(other).requires_grad_(True)
    assert list(parts) == ["energy.", "shape."]
    torch.testing.assert_close(sum(parts.values()), loss())


def test_paper_trains_as_published() -> None:
    energy, shape = task("ds2", "paper").recipes.reference.stages
    assert (energy.steps, energy.batch_size, energy.max_learning_rate, energy.weight_decay) == (
        12_500,
        4000,
        2e-3,
        0.0,
    )
    assert (shape.steps, shape.batch_size, shape.max_learning_rate, shape.clip) == (1_250_400, 64, 1e-3, 100)


class FixedLosses:
    """A session that returns noise of its inputs, to see what `measure` makes of it."""

    def __init__(self) -> None:
        self.seen: list[Mapping[str, Any]] = []

    def run(self, _outputs: Any, inputs: Mapping[str, Any]) -> list[Any]:
        self.seen.append(inputs)
        return [inputs["noise"][:, :2]]


def test_validation_losses_use_the_same_times_and_noise_every_time(small: Any) -> None:
    session = FixedLosses()
    one, two = (SMOKE.measure({"losses": session}, small) for _ in range(2))
    assert one == two
    values = session.seen[0]["noise"][:, :2]
    assert one["loss"].value == pytest.approx(float(values.sum(1).mean()), rel=1e-4)
    assert one["loss"].value == pytest.approx(one["loss_energy"].value + one["loss_shape"].value)
    assert one["loss_shape"].std == pytest.approx(
        float(values[:, 1].std(ddof=1)) / math.sqrt(len(values)), rel=1e-4
    )
    assert {array.shape for array in (session.seen[0]["t"],)} == {(len(values), LAYERS + 1)}
