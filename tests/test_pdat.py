"""P-DAT: counts, symmetries of the sound form, what each published deviation does, checkpoints, export."""

import itertools
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from quark_gluon_toy import toy
from torch import Tensor, nn
from torch.nn import functional

from bitsearch.core.assignment import Assignment
from bitsearch.core.errors import CheckpointError
from bitsearch.core.space import Inventory
from bitsearch.core.task import DataIdentity
from bitsearch.models.leaves.rows import RowByRow
from bitsearch.models.pdat import data as prepared
from bitsearch.models.pdat import published_weights as authors_pdat
from bitsearch.models.pdat import task
from bitsearch.models.pdat.edge_convolution import Pointwise
from bitsearch.models.pdat.graphs import Classifier, preparation
from bitsearch.models.pdat.network import PDAT, Architecture
from bitsearch.models.pdat.pair_features import Inputs
from bitsearch.models.pdat.tasks import PDATTask, classify
from bitsearch.network import catalogue, checkpoint, export, parity, quant
from bitsearch.onnxfile.backends import rewrite
from bitsearch.onnxfile.runtime import open_session

SMALL: dict[str, Any] = {
    "particles": 12,
    "neighbours": 4,
    "feature_neighbours": 3,
    "edge_width": 8,
    "width": 8,
    "heads": 2,
    "slots": 40,
}
SOUND = Architecture(**SMALL, pair_widths=(6,))
AS_CODED = replace(task(preset="paper").architecture, **SMALL, pair_widths=(6, 5))
FORMS = pytest.mark.parametrize("architecture", [SOUND, AS_CODED], ids=["sound", "as coded"])
ENTRY = catalogue.find("pdat")


def sound(**changes: Any) -> Architecture:
    return replace(SOUND, **changes)


def trained(architecture: Architecture = SOUND, seed: int = 1) -> PDAT:
    """Make a network none of whose parameters or statistics is left at its initial value."""
    torch.manual_seed(seed)
    network = PDAT(architecture).eval()
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            value.copy_(
                torch.rand_like(value) + 0.5 if "running_var" in name else 0.4 * torch.randn_like(value)
            )
    return network


def constituents(jets: int = 30, seed: int = 3, slots: int = 40) -> tuple[Tensor, ...]:
    """Give pT, rapidity, azimuth and PDG id of toy jets, the first with fewer particles than neighbours."""
    table = toy(jets, seed)
    table.constituents[0, 2:] = 0
    return tuple(torch.from_numpy(x) for x in prepared.served(table, slots).columns)


def inputs(architecture: Architecture = SOUND, jets: int = 30) -> Inputs:
    found: Inputs = preparation(architecture)(*constituents(jets))
    return found


def probability(network: PDAT, *columns: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = Classifier(network).eval()(*columns)
    return found


# -- counts and the search space -----------------------------------------------------------------------------------


@cache
def inventory(preset: str) -> Inventory:
    return catalogue.inventory(ENTRY.task(None, preset), {})


def assignment_of(strategy: str, model_task: Any) -> Assignment:
    return ENTRY.strategy(model_task, strategy).configuration.assignment


def test_published_counts() -> None:
    """BitHEP's network: 498k parameters, of which 63 % in the attentions' layers, and 21 % of those that run."""
    found = inventory("paper")
    assert found.total_parameters == 497_678
    assert found.executed_parameters == 214_728
    bit = assignment_of("bit", task(preset="paper"))
    counts = found.fractions(bit)
    assert counts.quantized_parameters == 312_000
    assert round(100 * counts.fraction, 1) == 62.7
    assert counts.executed_fraction == pytest.approx(45_760 / 214_728)
    weights = sum(layer.weights for layer in found.layers if bit[layer.name].is_quantized)
    assert weights == 307_200
    assert counts.weight_fraction == pytest.approx(
        307_200 / (489_563 - 27)
    )  # the channel attention's 3x3 kernels
    regular = assignment_of("regular", task(preset="paper"))
    assert found.fractions(regular).quantized_parameters == 0


@pytest.mark.parametrize(
    ("modules", "parameters"),
    [
        (("edge1",), 34_560),
        (("edge2",), 16_768),
        (("particle",), 26_472),
        (("channel",), 21_342 + 266_374),
        (("pooled",), 82_176),
        (("head",), 33_410),
        (("linear", "bn"), 16_576),
    ],
)
def test_published_blocks(modules: tuple[str, ...], parameters: int) -> None:
    with torch.device("meta"):
        network = task(preset="paper").network({}, 0)
    counted = sum(p.numel() for name in modules for p in network.get_submodule(name).parameters())
    assert counted == parameters


@pytest.mark.parametrize("preset", ["smoke", "laptop"])
def test_sound_presets_hold_nothing_that_never_runs(preset: str) -> None:
    found = inventory(preset)
    assert found.total_parameters == found.executed_parameters
    assert found.total_parameters == {"smoke": 12_388, "laptop": 47_380}[preset]


def test_paper_prints_what_is_counted() -> None:
    (_, bit) = ENTRY.published_fractions("quark-gluon")
    assert bit.printed == "63 %"
    assert "never called" in bit.note
    metrics = {metric.name for metric in task().metrics}
    assert {result.metric for result in ENTRY.published("quark-gluon")} <= metrics
    assert task().objective in metrics


def test_every_layer_is_in_a_group_with_a_meaning() -> None:
    groups = {group.name: group.layers for group in ENTRY.space(ENTRY.task(None, "paper")).groups}
    assert groups["particle attention projections"] == ("particle.query", "particle.key", "particle.value")
    assert groups["channel attention block"] == ("channel.fc1", "channel.fc2")
    assert groups["channel attention unused"] == ("channel.fcx",)
    assert groups["linear unused"] == ("linear",)
    assert len(groups["pair bias"]) == 3
    assert not [name for name in ENTRY.space(ENTRY.task()).groups if "unused" in name.name]


# -- symmetries of the sound form ----------------------------------------------------------------------------------


def test_order_of_constituents_does_not_matter() -> None:
    network, columns = trained(), constituents()
    order = torch.randperm(columns[0].shape[1], generator=torch.Generator().manual_seed(0))
    expected = probability(network, *columns)
    torch.testing.assert_close(probability(network, *(x[:, order] for x in columns)), expected)
    assert expected.std() > 1e-3  # the outputs do differ


def test_order_of_tokens_does_not_matter() -> None:
    """Also without sorting: the network itself is invariant."""
    network, x = trained(), inputs()
    order = torch.randperm(SOUND.particles, generator=torch.Generator().manual_seed(1))
    pairs = x.pairs[:, network.pairs.entries].reshape(-1, SOUND.particles, SOUND.particles, 6)
    permuted = pairs[:, order][:, :, order].flatten(1, 2)
    permuted = permuted[:, network.pairs.first * SOUND.particles + network.pairs.second]
    shuffled = Inputs(x.neighbours[:, order], permuted, x.jet, x.real[:, order], x.filled)
    with torch.no_grad():
        torch.testing.assert_close(network(shuffled), network(x), rtol=1e-4, atol=1e-5)


def test_padding_does_not_matter() -> None:
    """More empty slots in the input and more tokens in the network change nothing."""
    network, columns = trained(), constituents()
    expected = probability(network, *columns)
    longer = tuple(functional.pad(x, (0, 25)) for x in columns)
    torch.testing.assert_close(probability(network, *longer), expected)
    few = tuple(torch.where(torch.arange(x.shape[1]) < SOUND.particles, x, 0.0) for x in columns)
    wide = trained(replace(SOUND, particles=20))
    wide.load_state_dict(network.state_dict())
    torch.testing.assert_close(probability(wide, *few), probability(network, *few), rtol=1e-4, atol=1e-5)


def test_what_lies_in_empty_slots_does_not_matter() -> None:
    network, x = trained(), inputs()
    empty = ~x.real
    assert empty.any()
    changed = x.neighbours.clone()
    changed[empty] = 7.0
    both = x.real[:, network.pairs.first] & x.real[:, network.pairs.second]
    pairs = torch.where(both[:, :, None], x.pairs, -3.0)
    with torch.no_grad():
        torch.testing.assert_close(network(Inputs(changed, pairs, x.jet, x.real, x.filled)), network(x))


def test_a_turn_of_the_azimuth_does_not_matter() -> None:
    network, (pt, eta, phi, pdg_id) = trained(), constituents()
    turned = torch.where(phi > 1.0, phi - 2 * math.pi, phi)
    torch.testing.assert_close(
        probability(network, pt, eta, turned, pdg_id),
        probability(network, pt, eta, phi, pdg_id),
        rtol=1e-3,
        atol=1e-5,
    )


def test_hostile_jets_give_finite_probabilities() -> None:
    columns = [x.clone() for x in constituents(4)]
    for x in columns:
        x[0], x[1, 1:] = 0, 0  # no particle, one particle
    columns[1][2], columns[2][2] = 0.3, 0.1  # all at one place
    columns[3][3] = 99999
    for architecture in (SOUND, AS_CODED):
        assert torch.isfinite(probability(trained(architecture), *columns)).all()


def test_empty_slots_enter_no_batch_statistics() -> None:
    torch.manual_seed(0)
    net = Pointwise((3, 4)).train()
    x, real = torch.randn(5, 6, 2, 3), torch.rand(5, 6) < 0.5
    rows, filled = RowByRow(), torch.full((5,), 6)
    y = rows(net, x, filled, real)
    torch.testing.assert_close(y[real], net(x[real]))
    assert not y[~real].any()
    net.eval()
    torch.testing.assert_close(rows.eval()(net, x, filled, real), net(x))


@FORMS
def test_every_parameter_that_runs_learns(architecture: Architecture) -> None:
    network = trained(architecture).train()
    loss = functional.cross_entropy(network(inputs(architecture)), torch.arange(30) % 2)
    loss.backward()  # type: ignore[no-untyped-call]
    idle = tuple(f"{name}." for name in network.never_run)
    for name, parameter in network.named_parameters():
        if name.startswith(idle) if idle else False:
            assert parameter.grad is None
        else:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0 or name.endswith("key.bias"), name


# -- what the deviations do ----------------------------------------------------------------------------------------


def test_pointwise_as_coded_knows_no_neighbours() -> None:
    """Changing particle 5 changes output 5 alone; with neighbours it changes those it is a neighbour of."""
    coded, knn = (trained(replace(SOUND, edgeconv2=form)).edge2 for form in ("pointwise_as_coded", "knn"))
    x = torch.randn(20, SOUND.particles, SOUND.edge_width)
    changed = x.clone()
    changed[:, 5] += 0.1
    full = torch.full((20,), SOUND.particles)
    with torch.no_grad():
        moved = (coded(changed, full, None) != coded(x, full, None)).any(2)
        assert moved[:, 5].all()
        assert not moved[:, torch.arange(SOUND.particles) != 5].any()
        torch.testing.assert_close(coded(x, full, None), coded.pointwise(x))
        assert (knn(changed, full, None) != knn(x, full, None)).any(2).sum(1).float().mean() > 1.5


def test_feature_neighbours_are_the_nearest() -> None:
    network = trained(SOUND).edge2
    x, real = torch.randn(6, 12, 8), torch.rand(6, 12) < 0.7
    real[0] = False
    real[0, :2] = True  # fewer than neighbours
    with torch.no_grad():
        found, pointwise = network(x, torch.full((6,), 12), real), network.pointwise(x)
    for jet in range(6):
        for particle in real[jet].nonzero()[:, 0].tolist():
            distance = (x[jet] - x[jet, particle]).square().sum(1)
            distance[~real[jet]] = math.inf
            nearest = distance.argsort()[: min(3, int(real[jet].sum()))]
            torch.testing.assert_close(found[jet, particle], pointwise[jet, nearest].mean(0))


def test_layout_as_coded_depends_on_the_order_of_particles() -> None:
    order = torch.randperm(SOUND.particles, generator=torch.Generator().manual_seed(0))
    h, bias = torch.randn(4, SOUND.particles, SOUND.width), torch.randn(4, SOUND.width, SOUND.width)
    for layout, equivariant in (("transpose", True), ("as_coded", False)):
        attention = trained(sound(layout=layout)).channel
        with torch.no_grad():
            one, other = attention(h[:, order], bias, None), attention(h, bias, None)[:, order]
        assert torch.allclose(one, other, atol=1e-5) == equivariant


def test_layout_as_coded_reads_runs_of_numbers() -> None:
    """Row-major (N, C) read as (C, N): channel c is the run of N numbers from c N on."""
    attention = trained(replace(SOUND, layout="as_coded")).channel
    x = torch.arange(SOUND.particles * SOUND.width).reshape(1, SOUND.particles, SOUND.width).float()
    expected = torch.arange(SOUND.particles * SOUND.width).reshape(1, SOUND.width, SOUND.particles).float()
    assert torch.equal(attention._channels(x), expected)


def test_double_softmax_cannot_go_below_its_minimum() -> None:
    data = prepared_toy(60)
    sure = nn.Module()
    sure.forward = lambda _: functional.one_hot(data.quark[:20], 2) * 50.0
    for loss, minimum in (("logits", 0.0), ("double_softmax", math.log(1 + 1 / math.e))):
        small = replace(task(preset="smoke"), architecture=sound(loss=loss))
        generator = torch.Generator().manual_seed(0)
        found = small.loss(sure, data, torch.arange(20), generator)  # type: ignore[arg-type]
        assert float(found) == pytest.approx(minimum, abs=1e-6)


@pytest.mark.parametrize("change", [{"unordered_pairs": False}, {"shared_bias": False}], ids=str)
def test_biases_computed_more_often_are_the_same(change: dict[str, Any]) -> None:
    network = trained()
    other = PDAT(replace(SOUND, **change)).eval()
    other.load_state_dict(network.state_dict())
    columns = constituents()
    torch.testing.assert_close(probability(other, *columns), probability(network, *columns))


def test_dead_layers_change_nothing() -> None:
    network, columns = trained(AS_CODED), constituents()
    expected = probability(network, *columns)
    for name in network.never_run:
        for parameter in network.get_submodule(name).parameters():
            parameter.data.fill_(math.nan)
    assert torch.equal(probability(network, *columns), expected)


def test_without_a_mask_empty_slots_matter() -> None:
    columns = tuple(torch.where(torch.arange(40) < 6, x, 0.0) for x in constituents())
    for mask in (True, False):
        network = trained(replace(SOUND, mask=mask))
        wide = PDAT(replace(network.architecture, particles=20)).eval()
        wide.load_state_dict(network.state_dict())
        same = torch.allclose(probability(wide, *columns), probability(network, *columns), atol=1e-4)
        assert same == mask


def test_shifted_images_are_the_convolution() -> None:
    attention = trained(replace(SOUND, pair_dropout=0.0)).channel
    jet = torch.randn(5, 11, 11)
    with torch.no_grad():
        expected = attention.eval().bias(jet)
        torch.testing.assert_close(attention.train().bias(jet), expected)
        stretched = functional.interpolate(jet[:, None], size=(8, 8), mode="bilinear", align_corners=False)
        by_torch = stretched
        for convolution in (attention.conv1, attention.conv2, attention.conv3):
            by_torch = functional.gelu(convolution(by_torch))
    torch.testing.assert_close(expected, by_torch[:, 0], rtol=1e-4, atol=1e-5)


# -- the authors' checkpoints --------------------------------------------------------------------------------------


def original(dead: bool = True) -> dict[str, Tensor]:
    """Write a state dict by the names of the authors' published modules, at the sizes of `AS_CODED`, by hand."""
    generator = torch.Generator().manual_seed(3)
    state: dict[str, Tensor] = {}

    def linear(name: str, outputs: int, inputs: int, *kernel: int, bias: bool = True) -> None:
        state[f"{name}.weight"] = torch.randn(outputs, inputs, *kernel, generator=generator) * 0.1
        if bias:
            state[f"{name}.bias"] = torch.randn(outputs, generator=generator) * 0.1

    def norm(name: str, size: int, batch: bool = True) -> None:
        state[f"{name}.weight"], state[f"{name}.bias"] = torch.ones(size) * 1.1, torch.ones(size) * 0.1
        if batch:
            state[f"{name}.running_mean"], state[f"{name}.running_var"] = torch.zeros(size), torch.ones(size)
            state[f"{name}.num_batches_tracked"] = torch.tensor(7)

    a = AS_CODED
    for edge, widths in (("conv1", (8, *[a.edge_width] * 3)), ("conv2", (a.edge_width, *[a.width] * 3))):
        for number, (inputs, outputs) in enumerate(itertools.pairwise(widths), 1):
            linear(f"{edge}.conv{number}", outputs, inputs, 1, 1, bias=False)
            norm(f"{edge}.bn{number}", outputs)
    for attention in ("att1", "att2"):
        for name in ("query", "key", "value", "fc1", "fc2"):
            linear(f"{attention}.{name}", a.width, a.width)
        for number in range(1, 5):
            norm(f"{attention}.ln{number}", a.width, batch=False)
    linear("att1.fcx", a.width, a.width)
    for number, (inputs, outputs) in enumerate(itertools.pairwise((6, *a.pair_widths, a.heads)), 1):
        linear(f"att1.conv{number}", outputs, inputs, 1, 1)
        norm(f"att1.bn{number}", outputs)
    for number in (1, 2, 3):
        linear(f"att2.conv{number}", 1, 1, 3, 3)
    linear("conv0", 4 * a.width, 5 * a.width, 1)
    linear("mlp.fc1", 2 * a.width, 4 * a.width)
    norm("mlp.bn1", 2 * a.width)
    linear("mlp.fc2", 2, 2 * a.width)
    if dead:
        linear("att2.fcx", a.width**2, a.width)
        for name, size in (("bn", a.width), ("bn1", 1), ("bn2", 1), ("bn3", 1)):
            norm(f"att2.{name}", size)
        linear("fc", a.width, 4 * a.width)
        norm("bn", a.width)
    return state


PLACES = {
    "conv1.conv2.weight": "edge1.pointwise.linears.1.weight",
    "conv2.bn3.running_var": "edge2.pointwise.norms.2.running_var",
    "att1.query.bias": "particle.query.bias",
    "att1.fcx.weight": "particle.fcx.weight",
    "att1.conv3.weight": "particle.bias_net.linears.2.weight",
    "att1.ln4.weight": "particle.norm4.weight",
    "att2.value.weight": "channel.value.weight",
    "att2.conv1.weight": "channel.conv1.weight",
    "conv0.weight": "pooled.weight",
    "mlp.fc1.weight": "head.0.weight",
    "mlp.bn1.bias": "head.1.bias",
    "mlp.fc2.bias": "head.4.bias",
    "fc.weight": "linear.weight",
}


def test_original_checkpoints_load_whole() -> None:
    """Every parameter of the published modules finds its place, pointwise convolutions as matrices."""
    state, network = original(), PDAT(AS_CODED)
    converted = task(preset="paper").convert({f"module.{key}": value for key, value in state.items()})
    assert len(converted) == len(state)
    checkpoint.load_state(network, converted)
    ours = network.state_dict()
    for theirs, name in PLACES.items():
        assert torch.equal(ours[name].flatten(), state[theirs].flatten()), theirs
    assert ours["edge1.pointwise.linears.1.weight"].ndim == 2


def statistics(state: Mapping[str, Tensor], name: str) -> dict[str, Any]:
    return {key: state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")}


def test_original_checkpoints_compute_as_published() -> None:
    """The first edge convolution by torch's own convolutions is the network's, as is the head."""
    state, network = original(), PDAT(AS_CODED).eval()
    checkpoint.load_state(network, authors_pdat.convert(state))
    x = torch.randn(2, AS_CODED.particles, AS_CODED.neighbours, 8)
    y = x.permute(0, 3, 1, 2)
    for number in (1, 2, 3):
        y = functional.conv2d(y, state[f"conv1.conv{number}.weight"])
        y = functional.gelu(functional.batch_norm(y, **statistics(state, f"conv1.bn{number}")))
    with torch.no_grad():
        torch.testing.assert_close(network.edge1(x), y.mean(3).transpose(1, 2), rtol=1e-4, atol=1e-5)
    pooled = torch.randn(3, 4 * AS_CODED.width)
    hidden = functional.linear(pooled, state["mlp.fc1.weight"], state["mlp.fc1.bias"])
    hidden = functional.gelu(functional.batch_norm(hidden, **statistics(state, "mlp.bn1")))
    with torch.no_grad():
        torch.testing.assert_close(
            network.head(pooled), functional.linear(hidden, state["mlp.fc2.weight"], state["mlp.fc2.bias"])
        )


def test_unknown_and_missing_keys_are_listed() -> None:
    network, state = trained(AS_CODED), original()
    with pytest.raises(CheckpointError, match=r"unknown keys: \['PA.q.weight', 'epoch'\]; expected"):
        authors_pdat.convert({**state, "PA.q.weight": torch.zeros(1), "epoch": torch.zeros(1)})
    many = {f"layer{number}.weight": torch.zeros(1) for number in range(28)}
    with pytest.raises(CheckpointError, match=r"'layer12.weight'\] and 23 more; expected"):
        authors_pdat.convert(many)
    del state["att1.query.weight"], state["att2.ln2.bias"]
    with pytest.raises(
        CheckpointError, match=r"missing keys: \['channel.norm2.bias', 'particle.query.weight'\]"
    ):
        checkpoint.load_state(network, authors_pdat.convert(state))


def test_checkpoints_without_dead_layers_are_no_paper_checkpoints() -> None:
    with pytest.raises(CheckpointError, match=r"missing keys: .*'channel.bn.bias'.* more"):
        checkpoint.load_state(trained(AS_CODED), authors_pdat.convert(original(dead=False)))


# -- export --------------------------------------------------------------------------------------------------------


def small_task(architecture: Architecture) -> PDATTask:
    return replace(task(preset="smoke"), architecture=architecture)


@cache
def exported(form: str, strategy: str) -> tuple[PDAT, onnx.ModelProto]:
    architecture = {"sound": SOUND, "as coded": AS_CODED}[form]
    small = small_task(architecture)
    network = trained(architecture)
    assignment = assignment_of(strategy, small)
    quant.apply(network, assignment)
    metadata = export.Metadata("0", "pdat", "quark-gluon", 0.0, {}, strategy)
    return network, export.lower(_trace(form), network.state_dict(), assignment, metadata)


@cache
def _trace(form: str) -> onnx.ModelProto:
    architecture = {"sound": SOUND, "as coded": AS_CODED}[form]
    return export.trace(small_task(architecture).graphs(trained(architecture))["classifier"])


@pytest.mark.parametrize("strategy", ["regular", "bit"])
@pytest.mark.parametrize("form", ["sound", "as coded"])
def test_export_computes_what_torch_does(form: str, strategy: str) -> None:
    network, model = exported(form, strategy)
    onnx.checker.check_model(model, full_check=True)
    small = small_task(network.architecture)
    found = parity.compare(model, small.graphs(network)["classifier"], small.inputs(64, 1))
    assert found.layer_max_error < 1e-5
    # Both attentions twice, edge convolutions, pair bias (once: its second use is found to be the same), head.
    assert found.layers == 2 * (6 + 5) + 3 + 3 + len(network.architecture.pair_widths) + 1 + 3
    assert found.output_agreement > (0.99 if strategy == "regular" else 0.8)
    assert found.output_mean_difference is not None
    assert found.output_mean_difference < 1e-3


@pytest.mark.parametrize("backend", ["int2", "nbits"])
@pytest.mark.parametrize("strategy", ["regular", "bit"])
def test_other_kernels(strategy: str, backend: str) -> None:
    """Rounded a block of inputs at a time there, a row at a time in torch: a step of 127 apart."""
    network, model = exported("as coded", strategy)
    small = small_task(network.architecture)
    found = parity.compare(rewrite(model, backend), small.graphs(network)["classifier"], small.inputs(64, 1))
    assert found.layers > 30
    assert found.layer_max_error < 2 / 127


@pytest.mark.parametrize("form", ["sound", "as coded"])
def test_exported_files_are_for_any_batch_and_fold_normalisations(form: str) -> None:
    network, model = exported(form, "regular")
    kinds = Counter(node.op_type for node in model.graph.node)
    assert not kinds.keys() & {"BatchNormalization", "ScatterND", "ScatterElements", "Resize"}
    # Slots that differ and pairs of them are looked for; the gathers of training stay out.
    assert kinds["NonZero"] == 2
    columns = constituents(7)
    expected = probability(network, *columns).numpy()
    session = open_session(model)
    found = classify(session, tuple(x.numpy() for x in columns))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    for rows in (1, 3):
        part = classify(session, tuple(x[:rows].numpy() for x in columns))
        np.testing.assert_allclose(part, expected[:rows], rtol=1e-4, atol=1e-6)


def test_layers_that_are_called_twice_are_stored_once() -> None:
    network, model = exported("as coded", "bit")
    names = [item.name for item in model.graph.initializer]
    assert len(names) == len(set(names))
    assert sum(name == "particle.query.packed" for name in names) == 1
    nodes = [node.name for node in model.graph.node if node.name.startswith("particle.query")]
    assert nodes == ["particle.query", "particle.query:1"]
    assert not [name for name in names if name.startswith(("channel.fcx", "linear."))]
    assert network.never_run


# -- the task ------------------------------------------------------------------------------------------------------


@cache
def prepared_toy(jets: int) -> prepared.PreparedJets:
    served = prepared.served(toy(jets, 5), SOUND.slots)
    identity = DataIdentity(True, "toy", ())
    return prepared.prepare(preparation(SOUND), identity, served, served, served, lambda *_: None)


def test_prepared_batches_are_what_the_served_graph_sees() -> None:
    data = prepared_toy(60)
    indices = torch.tensor([3, 11, 4])
    columns = [torch.from_numpy(x)[indices] for x in data.test.columns]
    for ours, served in zip(data.inputs(indices), preparation(SOUND)(*columns), strict=True):
        torch.testing.assert_close(ours, served)


def test_presets_draw_as_many_jets_as_they_name() -> None:
    data = task(preset="smoke").load([], 1, lambda *_: None)
    sizes = data.events, len(data.validation.quark), len(data.test.quark)
    assert sizes == (800, 100, 100)
    assert data.identity.generated
    assert data.particles.shape == (800, 24, 13)
    assert 0.4 < float(data.quark.float().mean()) < 0.6
    other = task(preset="smoke").load([], 2, lambda *_: None)
    assert not torch.equal(data.particles, other.particles)


def test_loss_follows_from_the_generator() -> None:
    small, data, network = small_task(replace(SOUND, dropout=0.3)), prepared_toy(60), trained().train()
    found = [
        float(small.loss(network, data, torch.arange(9), torch.Generator().manual_seed(seed)).detach())
        for seed in (1, 1, 2)
    ]
    assert found[0] == found[1] != found[2]


def test_measure_yardsticks_and_evaluation() -> None:
    data, small = prepared_toy(60), small_task(SOUND)
    session = open_session(exported("sound", "regular")[1])
    measured = small.measure({"classifier": session}, data)
    assert set(measured) == {metric.name for metric in small.metrics}
    sticks = {stick.metric: stick.quantity.value for stick in small.yardsticks(data)}
    assert 0.7 < sticks["auc"] < 0.98
    assert set(sticks) == {"auc", "rejection_50", "rejection_30"}
    found, evaluation = small.evaluate([session, session], [], data, "d", 0, lambda *_: None)
    assert found.keys() == measured.keys()
    assert small.measure({"classifier": session}, data.held_out) == small.measure(
        {"classifier": session}, replace(data, validation=data.test)
    )
    assert found["auc"].value == pytest.approx(measured["auc"].value)
    assert (found["auc"].std, found["auc"].n) == (0.0, 2)
    assert [curve.name for curve in evaluation.curves] == ["roc", "rejection", "calibration"]
    assert type(evaluation).from_json(evaluation.to_json()) == evaluation


def test_inputs_are_jets() -> None:
    drawn = task().inputs(5, 0)
    pt = drawn["pt"]
    assert pt.shape == (5, 128)
    assert (np.sort(pt, 1)[:, -1] > 0).all()
    np.testing.assert_allclose(pt.sum(1), 525, rtol=1e-4)
    assert all(not x[pt == 0].any() and x.dtype == np.float32 for x in drawn.values())
