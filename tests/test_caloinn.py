"""CaloINN as published: checkpoints of the original authors, presets, and what the task promises."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Bench, SmokeRun
from torch import Tensor, nn

from bitsearch import ops
from bitsearch.cli import main
from bitsearch.core.errors import CheckpointError
from bitsearch.models.caloinn import task
from bitsearch.models.caloinn.coupling import CouplingBlock
from bitsearch.models.caloinn.graphs import Density, Sampler
from bitsearch.models.caloinn.network import CaloINN
from bitsearch.network import checkpoint, quant

SMOKE = task("ds1-photon", "smoke")
convert = SMOKE.convert
# Odd like ds1-photon's, and small enough for dense permutation matrices.
ARCHITECTURE = replace(SMOKE.architecture, boundaries=(0, 3, 8), blocks=6, linears=4, hidden=5)


def trained(architecture: Any = ARCHITECTURE, permutation: str = "random", seed: int = 1) -> CaloINN:
    """Make a network none of whose parameters or statistics is left at its initial value."""
    torch.manual_seed(seed)
    network = CaloINN(architecture, permutation, seed).eval()
    for name, value in network.state_dict().items():
        if "permutation" not in name and value.is_floating_point():
            value.copy_(
                torch.rand_like(value) + 0.5 if "running_var" in name else 0.1 * torch.randn_like(value)
            )
    return network


def original(network: CaloINN, prefix: str = "model.", actnorm_rank: int = 2) -> dict[str, Tensor]:
    """Write a state dict as the authors' FrEIA graph does: Log, Block_0, then ActNorm_i (if any), Block_i."""
    state, node = {}, 1
    for block in network.blocks:
        assert isinstance(block, CouplingBlock)
        if block.actnorm is not None:
            for name, value in block.actnorm.state_dict().items():
                state[f"{prefix}module_list.{node}.{name}"] = value[None] if actnorm_rank == 2 else value
            node += 1
        for name, value in block.subnet.state_dict().items():
            state[f"{prefix}module_list.{node}.subnet.{name}"] = value
        matrix = torch.zeros(len(block.permutation), len(block.permutation))
        for row, column in enumerate(block.permutation.tolist()):
            matrix[row, column] = 1.0
        state[f"{prefix}module_list.{node}.w_perm"] = matrix
        state[f"{prefix}module_list.{node}.w_perm_inv"] = matrix.T.contiguous()
        node += 1
    return state


@pytest.mark.parametrize("actnorm_rank", [1, 2])
@pytest.mark.parametrize("prefix", ["model.", "", "module.model."])
@pytest.mark.parametrize("permutation", ["random", "exchange"])
def test_original_checkpoints_give_the_same_outputs(permutation: str, prefix: str, actnorm_rank: int) -> None:
    network = trained(permutation=permutation)
    foreign = original(network, prefix, actnorm_rank)
    nodes = {int(key.split("module_list.")[1].split(".")[0]) for key in foreign}
    assert nodes == set(range(1, 1 + 6 + (5 if permutation == "random" else 2)))
    other = CaloINN(ARCHITECTURE, permutation, seed=99).eval()
    checkpoint.load_state(other, convert(dict(reversed(list(foreign.items())))))
    x, condition = torch.rand(9, ARCHITECTURE.dimension), torch.rand(9, 1)
    for one, two in zip(network(x, condition), other(x, condition), strict=True):
        assert torch.equal(one, two)
    assert torch.equal(network.inverse(x, condition), other.inverse(x, condition))


def test_dense_permutations_multiply_as_index_vectors_select() -> None:
    """y[i] = v[π(i)] for the matrix whose row i has its 1 in column π(i)."""
    foreign, ours = original(trained()), trained()
    block, v = ours.blocks[0], torch.randn(4, ARCHITECTURE.dimension)
    assert isinstance(block, CouplingBlock)
    assert torch.equal(v @ foreign["model.module_list.1.w_perm"].T, v.index_select(1, block.permutation))
    assert torch.equal(
        v @ foreign["model.module_list.1.w_perm_inv"].T, v.index_select(1, block.inverse_permutation)
    )


def test_unknown_and_missing_keys_are_listed() -> None:
    network, state = trained(), original(trained())
    with pytest.raises(
        CheckpointError, match=r"unknown keys: \['epoch', 'model.head.weight'\]; expected keys such as"
    ):
        convert({**state, "model.head.weight": torch.zeros(1), "epoch": torch.zeros(1)})
    removed = ["model.module_list.1.subnet.layers.0.bias", "model.module_list.1.w_perm"]
    changed = {key: value for key, value in state.items() if key not in removed}
    changed["model.module_list.1.subnet.layers.0.mask"] = torch.zeros(1)
    changed["model.module_list.2.offset"] = torch.zeros(1)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load_state(network, convert(changed))
    for name in (
        "blocks.0.subnet.layers.0.bias",
        "blocks.0.permutation",
        "blocks.0.subnet.layers.0.mask",
        "offset",
    ):
        assert name in str(caught.value)


@pytest.mark.parametrize("permutation", ["random", "exchange"])
def test_checkpoint_of_another_scheme_is_refused(permutation: str) -> None:
    other = "exchange" if permutation == "random" else "random"
    with pytest.raises(CheckpointError, match=r"(missing|unknown) keys: \['blocks"):
        checkpoint.load_state(trained(permutation=other), convert(original(trained(permutation=permutation))))


@pytest.mark.parametrize(
    "matrix",
    [torch.ones(10, 10), 2 * torch.eye(10), torch.eye(10)[[0] * 10], torch.eye(10)[:9], torch.ones(10)],
    ids=["ones", "twos", "a row twice", "not square", "vector"],
)
def test_permutations_that_are_none_are_refused(matrix: Tensor) -> None:
    state = original(trained()) | {"model.module_list.1.w_perm": matrix}
    with pytest.raises(CheckpointError, match=r"block 0 w_perm of shape .* is no permutation matrix"):
        convert(state)


def test_export_of_an_original_checkpoint(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    network = trained(SMOKE.architecture, "exchange")
    file, out = tmp_path / "authors.pt", tmp_path / "authors.onnx"
    torch.save({"epoch": 450, "net": original(network)}, file)
    command = [
        "export",
        str(file),
        "--out",
        str(out),
        "--json",
        "--preset",
        "smoke",
        "--dataset",
        "ds1-photon",
    ]
    assert main(command) == 2
    assert "expected --model and --strategy" in capfd.readouterr().err
    command += ["--model", "caloinn"]
    assert main([*command, "--strategy", "all"]) == 2
    errors = capfd.readouterr().err
    assert errors.count("\n") == 1
    assert "missing keys: ['blocks.1.actnorm.bias'" in errors
    assert not out.exists()
    assert main([*command, "--strategy", "blockcentral"]) == 0
    printed = json.loads(capfd.readouterr().out)
    assert printed["bytes"] == out.stat().st_size
    assert printed["parity"]["layer_max_error"] < 1e-5
    inputs = SMOKE.inputs(40, 1)
    quantized = quant.apply(network, _strategy("blockcentral"))
    assert isinstance(quantized, CaloINN)
    with torch.no_grad():
        expected = Sampler(quantized)(*(torch.from_numpy(inputs[name]) for name in ("z", "incident_energy")))
    (found,) = ops.session(out).run(None, dict(inputs))
    close = np.isclose(
        found, expected.numpy(), rtol=1e-3, atol=1e-3 * expected.numpy().max(1, keepdims=True)
    ).all(1)
    assert close.mean() > 0.5


def _strategy(name: str) -> Any:
    from bitsearch.network import catalogue

    entry = catalogue.find("caloinn")
    return entry.strategy(entry.task("ds1-photon", "smoke"), name).configuration.assignment


@pytest.mark.parametrize("permutation", ["random", "exchange"])
def test_float_export_inverts_the_density(permutation: str) -> None:
    """What the sampler generates has a finite likelihood, and the latent vector that it was made from."""
    network = trained(permutation=permutation).double()
    z, condition = 0.3 * torch.randn(50, ARCHITECTURE.dimension).double(), torch.rand(50, 1).double()
    x = network.inverse(z, condition)
    back, _ = network(x, condition)
    torch.testing.assert_close(back, z, rtol=1e-6, atol=1e-6)


def test_sampler_is_inverse_then_postprocessing() -> None:
    network = trained()
    sampler = Sampler(network)
    z, energy = torch.randn(6, ARCHITECTURE.dimension), torch.tensor([[256.0], [1000.0], [4e6]] * 2)
    condition = torch.log10(energy / 1000)
    torch.testing.assert_close(
        sampler(z, energy),
        sampler.denormalization(network.inverse(z, condition), energy),
        rtol=1e-4,
        atol=1e-2,
    )


@pytest.mark.parametrize("dataset", ["ds1-photon", "ds1-pion", "ds2"])
def test_presets_grow(dataset: str) -> None:
    made = [task(dataset, preset) for preset in ("smoke", "laptop", "paper")]
    for small, large in pairwise(made):
        assert small.architecture.blocks <= large.architecture.blocks
        assert small.architecture.hidden < large.architecture.hidden
        assert small.recipes.reference.steps < large.recipes.reference.steps
    assert [item.architecture.out_of_bounds for item in made] == ["scalar", "scalar", "event"]
    for item in made:
        assert item.architecture.boundaries == made[-1].architecture.boundaries
        assert json.loads(json.dumps(item.settings)).keys() == {
            "architecture",
            "selection",
            "validation_fraction",
            "recipes",
            "evaluation",
        }


def test_inputs_are_realistic_and_follow_from_the_seed() -> None:
    inputs = SMOKE.inputs(500, 4)
    again, other = SMOKE.inputs(500, 4), SMOKE.inputs(500, 5)
    assert {name: (array.shape, array.dtype.name) for name, array in inputs.items()} == {
        "z": ((500, SMOKE.architecture.dimension), "float32"),
        "incident_energy": ((500, 1), "float32"),
    }
    assert all(np.array_equal(inputs[name], again[name]) for name in inputs)
    assert not np.array_equal(inputs["z"], other["z"])
    assert 1e3 <= inputs["incident_energy"].min() < inputs["incident_energy"].max() <= 1e6


class FixedDensity:
    """A session that returns the first column, to see what `measure` makes of it."""

    def __init__(self) -> None:
        self.seen: list[Mapping[str, Any]] = []

    def run(self, outputs: Any, inputs: Mapping[str, Any]) -> list[Any]:
        self.seen.append(inputs)
        return [inputs["x"][:, 0]]


def test_validation_likelihood_uses_the_same_noise_every_time(bench: Bench) -> None:
    density = FixedDensity()
    data, width = bench.spec.data, SMOKE.architecture.noise
    found = [bench.task.measure({"density": density}, data)["nll"] for _ in range(2)]
    assert found[0] == found[1]
    x = np.concatenate([item["x"] for item in density.seen[: len(density.seen) // 2]])
    noise = (x - data.validation_columns) / width
    assert -0.1 < noise.min() < noise.max() < 1.1
    assert found[0].n == len(data.validation_columns)
    assert found[0].value == pytest.approx(float(x[:, 0].mean()), rel=1e-5)
    assert found[0].std == pytest.approx(float(x[:, 0].std(ddof=1)) / math.sqrt(len(x)), rel=1e-5)


def test_loss_is_the_mean_likelihood_with_noise_of_the_generator(bench: Bench) -> None:
    network = bench.trained(bench.strategy("default"))
    data, indices = bench.spec.data, torch.arange(20)
    one, same, other = (
        bench.task.loss(network, data, indices, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    noise = torch.rand(20, data.columns.shape[1], generator=torch.Generator().manual_seed(1))
    x = data.columns[:20] + SMOKE.architecture.noise * noise
    expected = Density(network)(x, data.condition[:20]).mean()
    torch.testing.assert_close(one, expected)


def test_networks_know_nothing_of_quantisation() -> None:
    network = SMOKE.network({"permutation": "random"}, 0)
    kinds = {type(module) for module in network.modules() if isinstance(module, nn.Linear)}
    assert kinds == {nn.Linear}


def test_generated_showers_fit_the_data_set(smoke: SmokeRun, bench: Bench) -> None:
    session = ops.session(smoke.folder.models / "default.onnx")
    inputs = bench.task.inputs(50, 3)
    (showers,) = session.run(["showers"], dict(inputs))
    assert showers.shape == (50, 368)
    assert np.isfinite(showers).all()
    assert (showers >= 0).all()
