"""SMEFTNet: equal to its graph form, symmetric where it should be, counted and named as published."""

import copy
import itertools
import json
import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import wz_toy
from torch import Tensor, nn

from bitsearch import ops
from bitsearch.cli import main
from bitsearch.core.assignment import Assignment
from bitsearch.core.errors import CheckpointError
from bitsearch.models.leaves.messages import Perceptron, Style, unit
from bitsearch.models.smeftnet import task
from bitsearch.models.smeftnet.data import TARGET, columns
from bitsearch.models.smeftnet.graphs import Angle
from bitsearch.models.smeftnet.message_passing import Convolution, length, rotate
from bitsearch.models.smeftnet.network import (
    EDGE_STYLES,
    LAUNCH_SCRIPT,
    READOUT_STYLES,
    Architecture,
    SMEFTNet,
)
from bitsearch.network import catalogue, checkpoint, export, parity, quant
from bitsearch.onnxfile.backends import rewrite
from bitsearch.onnxfile.inspect import LOW_BIT, layer_contents

ENTRY = catalogue.find("smeftnet")
STRATEGIES = ("regular", "bit", "bit70", "bit30")
CODED = Architecture(12, "polar_as_coded", "uniform_as_coded")
SOUND = Architecture(12)
FORMS = {
    "sound": SOUND,
    "as coded": CODED,
    "as coded, bit": replace(CODED, edge_style=EDGE_STYLES["bit"], readout_style=READOUT_STYLES["bit"]),
    "polar, pt": replace(SOUND, coords="polar_as_coded"),
    "three layers": replace(SOUND, convolutions=((8, 4), (6, 5), (7, 3)), readout=(9,)),
    "no scalar": replace(SOUND, scalar=False),
    "vector left out": replace(SOUND, vector_to_readout=False),
}
Jets = tuple[Tensor, Tensor, Tensor, Tensor]


def trained(architecture: Architecture = SOUND, quantized: str = "regular", seed: int = 1) -> SMEFTNet:
    """Make a network none of whose parameters or statistics is left at its initial value."""
    torch.manual_seed(seed)
    network = SMEFTNet(architecture).eval()
    for name, value in network.state_dict().items():
        if "running" in name or ("norm" in name and value.is_floating_point()):
            value.copy_(torch.rand_like(value) + 0.5)
    if network.scalar_norm is not None:
        network.scalar_norm.load_state_dict(
            {**network.scalar_norm.state_dict(), "running_mean": torch.tensor([550.0])}
        )
    layers = [name for name, _ in quant.linear_layers(network)]
    chosen = {strategy.name: strategy for strategy in ENTRY.search_space.strategies(layers, "laptop")}
    quant.apply(network, chosen[quantized].configuration.assignment)
    return network


def toy(count: int = 9, particles: int = 12, seed: int = 0) -> Jets:
    """Give jets as the network takes them; the last slots of most are empty."""
    made = columns(wz_toy.jets(count, particles, seed), particles)
    return tuple(torch.from_numpy(made[name]) for name in ("pt", "theta", "phi", "jet_pt"))  # type: ignore[return-value]


def perceptron(block: Perceptron, x: Tensor) -> Tensor:
    steps = [nn.Sequential(linear) for linear in block.linears]
    for index, step in enumerate(steps[:-1]):
        step.extend([block.norms[index]] if block.norms else [])
        step.append(block.activation)
    result: Tensor = nn.Sequential(*steps)(x)
    return result


def graph_form(
    network: SMEFTNet, pt: Tensor, theta: Tensor, phi: Tensor, jet_pt: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute SMEFTNet from a list of particles and a list of edges, as a graph library does."""
    a = network.architecture
    jet, slot = torch.nonzero(pt, as_tuple=True)
    p, theta, phi = pt[jet, slot], theta[jet, slot], phi[jet, slot]
    cartesian = a.coords == "cartesian"
    z = torch.polar(theta, phi) if cartesian else torch.complex(theta, phi)
    h = z.abs()[:, None]
    for convolution in network.convolutions:
        near = (jet[:, None] == jet) & ((z[:, None] - z).detach().abs() <= a.radius)
        i, j = near.nonzero(as_tuple=True)
        turn = z[i] / z[i].abs() * (z[j] / z[j].abs()).conj()
        rows = torch.cat([h[i], h[j], h[j] - h[i], turn.real[:, None], turn.imag[:, None]], 1)
        assert isinstance(convolution, Convolution)
        m = perceptron(convolution.mlp, rows)
        w = p[j] if a.edge_weight == "pt" else p[i]
        w = w / torch.zeros_like(p).index_add(0, i, w)[i]
        pooled = torch.zeros(len(p), m.shape[1]).index_add(0, i, w[:, None] * m)
        h, z = pooled[:, :-1], z * torch.exp(2j * math.pi * pooled[:, -1])
    w = p / torch.zeros(len(pt)).index_add(0, jet, p)[jet]
    rows = torch.cat([h, z.real[:, None], z.imag[:, None]], 1)
    pooled = torch.zeros(len(pt), rows.shape[1]).index_add(0, jet, w[:, None] * rows)
    inputs = pooled if a.vector_to_readout else pooled[:, :-2]
    if network.scalar_norm is not None:
        inputs = torch.cat([network.scalar_norm(jet_pt), inputs], 1)
    return perceptron(network.readout, inputs)[:, 0], pooled[:, -2:]


@pytest.mark.parametrize("quantized", STRATEGIES)
@pytest.mark.parametrize("architecture", FORMS.values(), ids=FORMS)
def test_dense_form_equals_the_graph_form_in_evaluation(architecture: Architecture, quantized: str) -> None:
    network = trained(architecture, quantized)
    jets = toy(20)
    with torch.no_grad():
        dense, graph = network(*jets), graph_form(network, *jets)
    # A rounding of an 8-bit activation may fall the other way.
    tolerance = 2e-5 if quantized == "regular" else 2e-2
    for found, expected in zip(dense, graph, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=tolerance)


@pytest.mark.parametrize("architecture", FORMS.values(), ids=FORMS)
def test_dense_form_equals_the_graph_form_in_training(architecture: Architecture) -> None:
    network = trained(architecture).train()
    other = copy.deepcopy(network)
    jets = toy(20)
    for form in (network, lambda *columns: graph_form(other, *columns)):
        angle, vector = form(*jets)
        loss = torch.sin(angle - 1).square().mean() + vector.square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(network(*jets)[0], graph_form(other, *jets)[0], rtol=1e-3, atol=1e-4)
    gradients = [{name: p.grad for name, p in form.named_parameters()} for form in (network, other)]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4)
    buffers = [dict(form.named_buffers()) for form in (network, other)]
    torch.testing.assert_close(*buffers, rtol=1e-4, atol=1e-5)


def test_normalisation_sees_real_edges_alone() -> None:
    """Padding slots change neither outputs nor statistics of a training step."""
    jets, network = toy(20), trained().train()
    padded = tuple(torch.cat([x, torch.zeros(20, 5)], 1) for x in jets[:3])
    other = copy.deepcopy(network)
    torch.testing.assert_close(network(*jets), other(*padded, jets[3]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(dict(network.named_buffers()), dict(other.named_buffers()))


@pytest.mark.parametrize("quantized", STRATEGIES)
def test_padding_changes_nothing(quantized: str) -> None:
    jets, network = toy(20), trained(quantized=quantized)
    padded = [torch.cat([x, torch.zeros(20, 5)], 1) for x in jets[:3]]
    # What stands in an empty slot is not read, whatever it is.
    padded[1][:, -2:], padded[2][:, -2:] = 0.1, -2.0
    with torch.no_grad():
        torch.testing.assert_close(network(*padded, jets[3]), network(*jets), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", [SOUND, CODED], ids=["sound", "as coded"])
def test_order_of_particles_changes_nothing(architecture: Architecture) -> None:
    jets, network = toy(20), trained(architecture)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        shuffled = network(*(x[:, order] for x in jets[:3]), jets[3])
        torch.testing.assert_close(shuffled, network(*jets), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("angle", [0.5, -2.2])
def test_vector_rotates_with_the_particles(angle: float) -> None:
    (pt, theta, phi, jet_pt), network = toy(20), trained()
    with torch.no_grad():
        vector = network(pt, theta, phi, jet_pt)[1]
        rotated = network(pt, theta, phi + angle, jet_pt)[1]
        torch.testing.assert_close(rotated, rotate(vector, torch.full((20, 1), angle)), rtol=1e-4, atol=1e-5)
    coded = trained(CODED)
    with torch.no_grad():
        vector, rotated = (coded(pt, theta, phi + shift, jet_pt)[1] for shift in (0.0, angle))
    assert (rotated - rotate(vector, torch.full((20, 1), angle))).abs().max() > 0.1


def with_soft_particle(jets: Jets, share: float) -> Jets:
    """Put a particle between the prongs of each jet, with that share of its momentum."""
    pt, theta, phi, jet_pt = jets
    extra = torch.full((len(pt), 1), 1.0)
    return (
        torch.cat([pt, share * jet_pt * extra], 1),
        torch.cat([theta, 0.05 * extra], 1),
        torch.cat([phi, 0.3 * extra], 1),
        jet_pt,
    )


def with_split_particle(jets: Jets) -> Jets:
    """Split the hardest particle of each jet into two parallel ones."""
    pt, theta, phi, jet_pt = jets
    hardest = pt[:, :1]
    split = torch.cat([0.3 * hardest, pt[:, 1:], 0.7 * hardest], 1)
    return split, torch.cat([theta, theta[:, :1]], 1), torch.cat([phi, phi[:, :1]], 1), jet_pt


@pytest.mark.parametrize("change", ["soft", "collinear"])
def test_soft_and_collinear_particles_change_nothing(change: str) -> None:
    jets = toy(20)
    changed = with_soft_particle(jets, 1e-7) if change == "soft" else with_split_particle(jets)
    network = trained()
    with torch.no_grad():
        torch.testing.assert_close(network(*changed), network(*jets), rtol=1e-4, atol=1e-4)
    coded = trained(replace(SOUND, edge_weight="uniform_as_coded"))
    with torch.no_grad():
        difference = (coded(*changed)[1] - coded(*jets)[1]).abs()
    assert difference.max() > 1e-3


def test_uniform_weights_ignore_the_neighbours_momenta() -> None:
    """As published, messages carry the receiver's pT, which cancels: seven times a neighbour's changes none."""
    (pt, theta, phi, _), convolution = toy(20), trained(CODED).convolutions[0]
    position = torch.stack([theta, phi], -1)
    changed = pt.clone()
    changed[:, 0] *= 7
    with torch.no_grad():
        one, two = (convolution(p, length(position), position) for p in (pt, changed))
        torch.testing.assert_close(one, two)
        weighted = trained(replace(CODED, edge_weight="pt")).convolutions[0]
        one, two = (weighted(p, length(position), position) for p in (pt, changed))
        assert (one[0] - two[0]).abs().max() > 1e-3


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_gradients_stay_finite_where_there_is_no_direction(mode: str) -> None:
    """Central particles, empty slots and a whole empty jet."""
    pt, theta, phi, jet_pt = toy(20)
    theta[:, 1] = phi[:, 1] = 0.0
    pt[3] = theta[3] = phi[3] = 0.0
    network = trained().train(mode == "train")
    positions = [theta.requires_grad_(), phi.requires_grad_()]
    angle, vector = network(pt, *positions, jet_pt)
    (angle.sum() + vector.sum()).backward()
    for value in (angle, vector, *(x.grad for x in positions), *(p.grad for p in network.parameters())):
        assert value is not None
        assert torch.isfinite(value).all()


def test_directions() -> None:
    vectors = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    torch.testing.assert_close(length(vectors), torch.tensor([[5.0], [0.0]]))
    torch.testing.assert_close(unit(vectors), torch.tensor([[0.6, 0.8], [0.0, 0.0]]))
    torch.testing.assert_close(
        rotate(vectors, torch.full((2, 1), math.pi / 2)), torch.tensor([[-4.0, 3.0], [0.0, 0.0]])
    )
    with pytest.raises(KeyError):
        Perceptron([1, 1], Style(True, "tanh"))


# Edge layers; scalar; vector to readout; parameters float and bit; edge and readout weights + biases.
COUNTS = [
    (((10, 10),) * 2, True, True, 2339, 2299, 632, 1537),
    (((10, 10),) * 2, False, True, 2305, 2265, 632, 1505),
    (((10, 10),) * 2, True, False, 2275, 2235, 632, 1473),
    (((10, 10),) * 2, False, False, 2241, 2201, 632, 1441),
    (LAUNCH_SCRIPT, True, True, 4329, 4249, 2262, 1857),
    (((20, 20),), True, True, 2588, 2548, 561, 1857),
    (((10, 10), (20, 20)), True, True, 3329, 3269, 1282, 1857),
    (((10, 10),), True, True, 1868, 1848, 181, 1537),
]


@pytest.mark.parametrize(("sizes", "scalar", "vector", "total", "total_bit", "edges", "readout"), COUNTS)
def test_parameters_are_those_of_the_published_code(
    sizes: Any, scalar: bool, vector: bool, total: int, total_bit: int, edges: int, readout: int
) -> None:
    architecture = replace(CODED, convolutions=sizes, scalar=scalar, vector_to_readout=vector)
    bit = replace(architecture, edge_style=EDGE_STYLES["bit"], readout_style=READOUT_STYLES["bit"])
    for form, expected in ((architecture, total), (bit, total_bit)):
        inventory = quant.inventory(SMEFTNet(form))
        assert inventory.total_parameters == expected
        found = {True: 0, False: 0}
        for layer in inventory.layers:
            found[layer.name.startswith("readout.")] += layer.parameters
        assert found == {True: readout, False: edges}


@pytest.mark.parametrize(
    ("preset", "quantized", "total"),
    [
        ("paper", {"regular": 0, "bit": 2169, "bit70": 1537, "bit30": 632}, (2339, 2299, 2339, 2299)),
        (
            "launch-script",
            {"regular": 0, "bit": 4119, "bit70": 1857, "bit30": 2262},
            (4329, 4249, 4329, 4249),
        ),
        ("laptop", {"regular": 0, "bit": 2169, "bit70": 1537, "bit30": 632}, (2339,) * 4),
    ],
)
def test_strategies_quantise_what_the_paper_says(
    preset: str, quantized: dict[str, int], total: tuple[int, ...]
) -> None:
    made = ENTRY.task("wz", preset)
    strategies = ENTRY.space(made).strategies
    assert tuple(strategy.name for strategy in strategies) == STRATEGIES
    for strategy, expected in zip(strategies, total, strict=True):
        inventory = catalogue.inventory(made, strategy.configuration.options)
        fractions = inventory.fractions(strategy.configuration.assignment)
        assert (fractions.quantized_parameters, fractions.total_parameters) == (
            quantized[strategy.name],
            expected,
        )
        assert fractions.executed_fraction == fractions.fraction


def test_shares_of_the_linear_layers_are_those_of_the_names() -> None:
    of_linears = {"bit70": 1537 / 2169, "bit30": 632 / 2169}
    assert {name: f"{share:.1%}" for name, share in of_linears.items()} == {
        "bit70": "70.9%",
        "bit30": "29.1%",
    }
    printed = {item.strategy: item for item in ENTRY.published_fractions("wz")}
    assert "70.9 %" in printed["bit70"].note
    assert "45.1 %" in printed["bit70"].note
    assert {item.strategy for item in ENTRY.published("wz")} == set(STRATEGIES)


def original(network: SMEFTNet, wrapped: bool = True) -> dict[str, Tensor]:
    """Name a state dict as the authors' network does."""
    state = {}
    for key, value in network.state_dict().items():
        name = key.replace("convolutions.", "EC.").replace("readout.", "mlp.").replace("linears.", "lins.")
        name = name.replace("scalar_norm.", "scalar_batch_norm.")
        head, norms, tail = name.partition(".norms.")
        if norms and wrapped:
            index, _, field = tail.partition(".")
            name = f"{head}.norms.{index}.module.{field}"
        state[name] = value
    return state


@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("form", ["as coded", "as coded, bit"])
def test_original_checkpoints_give_the_same_outputs(form: str, wrapped: bool) -> None:
    network, other = trained(FORMS[form]), trained(FORMS[form], seed=7)
    foreign = original(network, wrapped)
    assert "EC.1.mlp.lins.0.weight" in foreign
    assert ("mlp.norms.1.module.running_mean" in foreign) == wrapped
    checkpoint.load_state(other, task("wz", "paper").convert(foreign))
    for one, two in zip(network(*toy()), other(*toy()), strict=True):
        assert torch.equal(one, two)


def test_unknown_and_missing_keys_are_listed() -> None:
    network = trained(CODED)
    convert = task("wz", "paper").convert
    state = original(network)
    with pytest.raises(
        CheckpointError, match=r"unknown keys: \['EC.0.bias', 'epoch'\]; expected keys such as"
    ):
        convert({**state, "epoch": torch.zeros(1), "EC.0.bias": torch.zeros(1)})
    del state["EC.0.mlp.lins.1.bias"]
    with pytest.raises(CheckpointError, match=r"missing keys: \['convolutions.0.mlp.linears.1.bias'\]"):
        checkpoint.load_state(network, convert(state))
    with pytest.raises(CheckpointError, match=r"unknown keys: \['convolutions.0.mlp.norms.0.bias'"):
        checkpoint.load_state(trained(FORMS["as coded, bit"]), convert(original(network)))


def published_bit_script(seed: int = 5) -> dict[str, Tensor]:
    """Write a state dict by the names that the published low-bit script gives, at [10, 10] twice, by hand.

    Its edge networks are sequences with activations at odd places, its readout is the graph library's perceptron.
    """
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}

    def linear(name: str, outputs: int, inputs: int) -> None:
        state[f"{name}.weight"] = torch.randn(outputs, inputs, generator=generator) * 0.4
        state[f"{name}.bias"] = torch.randn(outputs, generator=generator) * 0.4

    def norm(name: str, size: int) -> None:
        state[f"{name}.weight"], state[f"{name}.bias"] = torch.ones(size), torch.zeros(size)
        state[f"{name}.running_mean"], state[f"{name}.running_var"] = torch.zeros(size), torch.ones(size)
        state[f"{name}.num_batches_tracked"] = torch.tensor(3)

    for layer, sizes in enumerate(((5, 10, 11), (32, 10, 11))):
        for place, (inputs, outputs) in zip((0, 2), itertools.pairwise(sizes), strict=True):
            linear(f"EC.{layer}.mlp.layers.{place}", outputs, inputs)
    for index, (inputs, outputs) in enumerate(itertools.pairwise((13, 32, 32, 1))):
        linear(f"mlp.lins.{index}", outputs, inputs)
    for index in (0, 1):
        norm(f"mlp.norms.{index}.module", 32)
    norm("scalar_batch_norm", 1)
    return state


def test_checkpoints_of_the_published_bit_script_are_bit30(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """632 of 2,299 parameters are quantised, those of the edge networks: other strategies are refused by name."""
    state, file, out = published_bit_script(), tmp_path / "bit.pt", tmp_path / "bit.onnx"
    torch.save(state, file)
    command = ["export", str(file), "--out", str(out), "--preset", "paper", "--model", "smeftnet", "--json"]
    for wrong in ("bit", "bit70", "regular"):
        assert main([*command, "--strategy", wrong]) == 2
        error = capfd.readouterr().err
        assert (
            f"was trained as strategy bit30, as its keys tell, not {wrong}; expected --strategy bit30"
            in error
        )
    assert not out.exists()
    assert main([*command, "--strategy", "bit30"]) == 0
    printed = json.loads(capfd.readouterr().out)
    assert printed["quantised"] == "4 of 7 layers"
    metadata = ops.session(out).get_modelmeta().custom_metadata_map
    assert float(metadata["bitsearch.fraction"]) == pytest.approx(632 / 2299)
    made = ENTRY.task("wz", "paper")
    network = made.network(ENTRY.strategy(made, "bit30").configuration.options, 0)
    checkpoint.load_state(network, made.convert(state))
    ours = network.state_dict()
    assert torch.equal(ours["convolutions.1.mlp.linears.1.weight"], state["EC.1.mlp.layers.2.weight"])
    assert torch.equal(ours["readout.linears.2.bias"], state["mlp.lins.2.bias"])
    with pytest.raises(CheckpointError, match=r"unknown keys: \['EC.0.mlp.layers.1.weight'\]"):
        made.convert({**state, "EC.0.mlp.layers.1.weight": torch.zeros(1)})


@cache
def _trace(preset: str, architecture: Architecture) -> onnx.ModelProto:
    return export.trace(ENTRY.task("wz", preset).graphs(SMEFTNet(architecture))["angle"])


@pytest.mark.parametrize("preset", ["smoke", "paper"])
@pytest.mark.parametrize("name", STRATEGIES)
def test_export_equals_the_network(preset: str, name: str) -> None:
    made = ENTRY.task("wz", preset)
    configuration = ENTRY.strategy(made, name).configuration
    torch.manual_seed(0)
    built = made.network(configuration.options, 0)
    assert isinstance(built, SMEFTNet)
    network = trained(built.architecture)
    layers = [layer for layer, _ in quant.linear_layers(network)]
    quant.apply(network, Assignment.of(layers, configuration.assignment.quantized))
    graph = made.graphs(network)["angle"]
    template = _trace(preset, network.architecture)
    metadata = export.Metadata("0", "smeftnet", "wz", 0.0, {})
    model = export.lower(template, network.state_dict(), configuration.assignment, metadata)
    kinds = [node.op_type for node in model.graph.node]
    contents = {layer.name: layer.precision for layer in layer_contents(model)}
    assert set(contents) == set(layers)
    assert {layer for layer, kind in contents.items() if kind in LOW_BIT} == {
        *configuration.assignment.quantized
    }
    # The one of the jet's momentum stands alone; those behind linear layers are folded.
    assert kinds.count("BatchNormalization") <= 1
    found = parity.compare(model, graph, made.inputs(64, 3))
    assert found.layers == 7
    assert found.layer_max_error < 1e-5
    assert found.output_agreement > (0.98 if name == "regular" else 0.8)
    for backend in ("int2", "nbits"):  # rounded a block of inputs at a time, here a row: a step of 127 apart
        others = parity.compare(rewrite(model, backend), graph, made.inputs(64, 3))
        assert others.layers == 7
        assert others.layer_max_error < 2 / 127
    session = ops.session(model.SerializeToString())
    for batch in (1, 3):
        assert session.run(["angle"], dict(made.inputs(batch, 1)))[0].shape == (batch,)


def test_export_of_an_original_checkpoint(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Names are the same in float and low-bit networks: the strategy must be given, and is kept in the file."""
    file, out = tmp_path / "authors.pt", tmp_path / "authors.onnx"
    bit30 = replace(task("wz", "paper").architecture, edge_style=EDGE_STYLES["bit"])
    network = trained(bit30, "bit30")
    torch.save(original(network), file)
    command = ["export", str(file), "--out", str(out), "--preset", "paper", "--model", "smeftnet", "--json"]
    assert main(command) == 2
    assert "--strategy" in capfd.readouterr().err
    assert main([*command, "--strategy", "regular"]) == 2
    assert "missing keys: ['convolutions.0.mlp.norms.0.bias'" in capfd.readouterr().err
    assert main([*command, "--strategy", "bit30"]) == 0
    assert json.loads(capfd.readouterr().out)["parity"]["layer_max_error"] < 1e-5
    session = ops.session(out)
    assert session.get_modelmeta().custom_metadata_map["bitsearch.strategy"] == "bit30"
    inputs = task("wz", "paper").inputs(40, 1)
    with torch.no_grad():
        expected = Angle(network)(*(torch.from_numpy(array) for array in inputs.values())).numpy()
    close = np.isclose(session.run(["angle"], dict(inputs))[0], expected, rtol=1e-3, atol=1e-3)
    assert close.mean() > 0.9


def test_inputs_are_jets_and_follow_from_the_seed() -> None:
    made = task("wz", "laptop")
    inputs, again, other = (made.inputs(300, seed) for seed in (4, 4, 5))
    assert {name: array.shape for name, array in inputs.items()} == {
        "pt": (300, 20), "theta": (300, 20), "phi": (300, 20), "jet_pt": (300, 1)
    }  # fmt: skip
    assert all(array.dtype == np.float32 for array in inputs.values())
    assert all(np.array_equal(inputs[name], again[name]) for name in inputs)
    assert not np.array_equal(inputs["pt"], other["pt"])
    pt = inputs["pt"]
    assert (np.diff(pt) <= 0).all()
    assert 0.5 < (pt > 0).mean() < 0.95
    np.testing.assert_allclose(pt.sum(1), inputs["jet_pt"][:, 0], rtol=1e-4)


def test_presets() -> None:
    smoke, laptop, paper, launched = (task("wz", preset) for preset in ENTRY.presets)
    assert smoke.architecture.coords == laptop.architecture.coords == "cartesian"
    assert smoke.architecture.edge_weight == laptop.architecture.edge_weight == "pt"
    assert smoke.architecture.particles < laptop.architecture.particles < paper.architecture.particles == 40
    assert (paper.architecture.coords, paper.architecture.edge_weight) == (
        "polar_as_coded",
        "uniform_as_coded",
    )
    assert paper.architecture.convolutions == ((10, 10), (10, 10))
    assert launched.architecture == replace(paper.architecture, convolutions=LAUNCH_SCRIPT)
    assert paper.recipes.final.accumulate == 200
    for made in (smoke, laptop, paper, launched):
        assert json.loads(json.dumps(made.settings)).keys() == {
            "architecture", "jets", "held_out_fraction", "recipes",
        }  # fmt: skip


def test_served_graph_is_the_network() -> None:
    network = trained()
    assert torch.equal(Angle(network)(*toy()), network(*toy())[0])
    assert TARGET not in task("wz", "smoke").inputs(1, 0)
