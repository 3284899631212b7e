"""Generators in the form that Geant4's example Par04 calls: its sequence in C++ gives the sampler's showers."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from cpp_program import ROOT, build, needs_cpp, run
from numpy.typing import NDArray
from onnx import TensorProto, helper

from bitsearch import ops
from bitsearch.cli import main
from bitsearch.core.errors import ExportError
from bitsearch.models.calodream.network import Architecture
from bitsearch.models.calodream.shape import ShapeSizes
from bitsearch.models.calodream.solver import Solver
from bitsearch.network import catalogue, export
from bitsearch.onnxfile.par04 import macro, par04

LARGEST_MEV, CELLS = 1_024_000, (9, 16, 45)  # of Par04's inference setup and of its macros
GENERATORS = {
    "caloinn": ("sampler", "all", ["z"]),
    "calodream": ("generator", "shape-full", ["noise_energy", "noise_shape"]),
}
SHOWERS = 5
Array = NDArray[Any]


def exported(name: str) -> onnx.ModelProto:
    """Export a small generator with random weights; CaloDREAM on the grid of ds2 rather than on sums of voxels."""
    graph, strategy, _ = GENERATORS[name]
    entry = catalogue.find(name)
    task: Any = entry.task("ds2", "smoke")
    if name == "calodream":
        a = task.architecture
        shape = ShapeSizes((3, 16, 1), 12, 1, 2, 2, Solver("kutta", 1))
        energy = replace(a.energy, solver=Solver("kutta", 1))
        task = replace(task, architecture=Architecture((45, 16, 9), a.threshold_mev, energy, shape))
    (configuration,) = (s.configuration for s in entry.space(task).strategies if s.name == strategy)
    torch.manual_seed(1)
    network = task.network(configuration.options, seed=0).eval()
    with torch.no_grad():
        for parameter in network.parameters():  # some start as zeros
            parameter.add_(0.02 * torch.randn_like(parameter))
    metadata = export.Metadata("0", name, "ds2", 0.5, {})
    template = export.trace(task.graphs(network)[graph])
    return export.lower(template, network.state_dict(), configuration.assignment, metadata)


@dataclass(frozen=True)
class Case:
    """A generator, its file, and showers that it is asked for."""

    model: onnx.ModelProto
    path: Path
    latent: dict[str, Array]
    energies_mev: Array

    @property
    def width(self) -> int:
        return sum(values.shape[1] for values in self.latent.values())

    def expected(self, library: bool) -> Array:
        """Let the sampler itself make the showers, as Par04 lets onnxruntime run; by radius, angle and layer."""
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        if library:
            ops.register(options)
        session = onnxruntime.InferenceSession(self.model.SerializeToString(), options)
        fraction = (self.energies_mev / LARGEST_MEV).astype(np.float32)
        feed = {**self.latent, "incident_energy": fraction[:, None] * np.float32(LARGEST_MEV)}
        rows = [
            session.run(None, {key: value[i : i + 1] for key, value in feed.items()})[0]
            for i in range(SHOWERS)
        ]
        return np.concatenate(rows).reshape(SHOWERS, *CELLS[::-1]).transpose(0, 3, 2, 1)


@pytest.fixture(
    scope="module",
    params=[
        "caloinn",
        pytest.param("calodream", marks=[pytest.mark.hosts, pytest.mark.xdist_group("par04")]),
    ],
)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    model, path = exported(request.param), tmp_path_factory.mktemp("model") / "generator.onnx"
    onnx.save(model, path)
    rng = np.random.default_rng(2)
    widths = {value.name: value.type.tensor_type.shape.dim[1].dim_value for value in model.graph.input}
    latent = {
        key: rng.standard_normal((SHOWERS, widths[key]), np.float32) for key in GENERATORS[request.param][2]
    }
    return Case(model, path, latent, 10 ** rng.uniform(3.3, 5.9, SHOWERS))


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT / "tests/native/par04.cc", tmp_path_factory.mktemp("par04"))


def simulate(program: Path, case: Case, model: Path, *library: Path, **environment: str) -> Array:
    """Let the program make the showers; give energies in MeV by radius, angle and layer."""
    rows = np.concatenate([*case.latent.values(), case.energies_mev[:, None]], axis=1)
    asked, out = model.with_suffix(".asked"), model.with_suffix(".energies")
    rows.astype(np.float64).tofile(asked)
    done = run(program, model, asked, out, case.width, *library, **environment)
    assert done.returncode == 0, done.stderr
    return np.fromfile(out).reshape(SHOWERS, *CELLS)


@needs_cpp
@pytest.mark.parametrize("portable", [False, True])
@pytest.mark.slow
def test_par04_deposits_the_energy_of_the_sampler(
    program: Path, case: Case, portable: bool, tmp_path: Path
) -> None:
    if portable and "noise_shape" in case.latent:
        pytest.skip("loops over 45 layers are thousands of nodes")
    model = tmp_path / "shower.onnx"
    words = ["export", str(case.path), "--interface", "par04", "--out", str(model)]
    assert main([*words, "--portable"] if portable else words) == 0
    (given,) = onnx.load(model).graph.input
    assert [d.dim_value for d in given.type.tensor_type.shape.dim][1] == case.width + 4
    bare = case.expected(library=False)
    assert (bare.sum((1, 2, 3)) > 100).all()
    found = {"bare": simulate(program, case, model)}
    if not portable:
        found["registered"] = simulate(program, case, model, ops.library_path())
        found["preloaded"] = simulate(program, case, model, LD_PRELOAD=str(ops.preload_path()))
        np.testing.assert_array_equal(found["preloaded"], found["registered"])
    for name, energies in found.items():
        expected = bare if name == "bare" else case.expected(library=True)
        np.testing.assert_allclose(energies.sum((1, 2, 3)), expected.sum((1, 2, 3)), rtol=1e-5)
        np.testing.assert_allclose(energies, expected, rtol=1e-4, atol=1e-5 * expected.max())


def test_calodit_draws_its_own_numbers(case: Case) -> None:
    """Eight conditions in, GeV out; the numbers are normal, others in every call, and the sampler's showers follow."""
    dressed = par04(case.model, "par04-calodit")
    for name in case.latent:
        dressed.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    session = ops.session(dressed.SerializeToString())
    asked = np.array([[64, 1.5, np.pi / 2, 1, 0, 0, 0, 0]], np.float32)
    (energies, *drawn), (others, *_) = (session.run(None, {"conditions": asked}) for _ in range(2))
    assert energies.shape == (1, 6480)
    assert (energies != others).any()
    numbers = np.concatenate(drawn, 1)
    assert abs(numbers.mean()) < 5 / np.sqrt(numbers.size)
    assert abs(numbers.std() - 1) < 5 / np.sqrt(2 * numbers.size)
    feed = {
        **dict(zip(case.latent, drawn, strict=True)),
        "incident_energy": np.full((1, 1), 64000, np.float32),
    }
    (showers,) = ops.session(case.model.SerializeToString()).run(None, feed)
    expected = showers.reshape(CELLS[::-1]).T.ravel() / 1000
    np.testing.assert_allclose(energies[0], expected, rtol=1e-4, atol=1e-5 * expected.max())


def test_the_macro_says_what_the_file_takes(case: Case, tmp_path: Path) -> None:
    model = tmp_path / "shower.onnx"
    assert main(["export", str(case.path), "--interface", "par04", "--out", str(model)]) == 0
    lines = model.with_suffix(".mac").read_text().splitlines()
    assert all(line.startswith(("/", "# ")) for line in lines)
    commands = {
        words[0].rpartition("/")[2]: words[-1] for line in lines if len(words := line.split(" ", 1)) > 1
    }
    assert commands["setSizeLatentVector"] == str(case.width)
    assert commands["setSizeConditionVector"] == "4"
    assert commands["setModelPathName"] == str(model)
    cells = [int(commands[f"setNbOf{axis}Cells"]) for axis in ("Rho", "Phi", "Z")]
    assert tuple(cells) == CELLS
    assert "CaloDiT-2" in macro(par04(case.model, "par04-calodit"), "par04-calodit", model)


@pytest.mark.parametrize("voxels", [368, 533, 432])
def test_other_meshes_are_refused(case: Case, voxels: int) -> None:
    """Those of ds1, and sums of voxels."""
    other = onnx.ModelProto()
    other.CopyFrom(case.model)
    other.graph.output[0].type.tensor_type.shape.dim[1].dim_value = voxels
    with pytest.raises(ExportError, match=f"showers of {voxels} voxels; Par04's mesh takes the 6480 of ds2"):
        par04(other)


def test_what_is_no_generator_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = '<ir_version: 8, opset_import: ["": 18]> g (float[n, 4] x) => (float[n, 4] y) { y = Relu(x) }'
    path, out = tmp_path / "relu.onnx", tmp_path / "shower.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    assert main(["export", str(path), "--interface", "par04", "--out", str(out)]) == 2
    expected = "found the inputs x and outputs y; Par04 expects a generator from incident_energy"
    assert expected in capsys.readouterr().err
    assert not list(tmp_path.glob("shower*"))
