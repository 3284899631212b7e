"""`evaluate` and `suggest` on the shared smoke run."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from conftest import SmokeRun
from ternary_layer import Layer

from bitsearch.cli import main
from bitsearch.core.assignment import Assignment
from bitsearch.core.errors import ConfigurationError
from bitsearch.core.measurement import Evaluation, Metric, Quantity, Yardstick
from bitsearch.core.space import Group, Inventory
from bitsearch.core.space import Layer as Linear
from bitsearch.core.strategy import Configuration
from bitsearch.core.task import DataFile, DataIdentity
from bitsearch.models.showers import classifier, generator
from bitsearch.network import catalogue
from bitsearch.network.checkpoint import Checkpoint
from bitsearch.run.suggest import suggest

Capture = pytest.CaptureFixture[str]
METRICS = {"separation", "auc_low", "auc_high"}


def call(*arguments: str | Path) -> int:
    return main([str(item) for item in arguments])


def refusal(capsys: Capture, *arguments: str | Path) -> str:
    capsys.readouterr()
    assert call(*arguments) == 2
    found = capsys.readouterr()
    assert not found.out
    return found.err.splitlines()[-1]


def test_evaluate(smoke: SmokeRun, tmp_path: Path, capsys: Capture) -> None:
    """A perfect generator, the training program itself, is harder to tell from the reference than a smoke model."""
    perfect = generator.make("ds1-photon", 600, 9, tmp_path / "perfect.hdf5", workers=1)
    model = smoke.folder.models / "default.onnx"
    assert call("evaluate", "--model", "caloinn", "--data", smoke.data, model, perfect, "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert (content["dataset"], content["preset"], content["protocol"]) == ("ds1-photon", "smoke", "fast")
    assert (content["reference"]["name"], content["reference"]["events"]) == (smoke.data.name, 600)
    ours, theirs = content["files"]
    assert set(ours["metrics"]) == {*METRICS, "lost_events"}
    assert set(theirs["metrics"]) == METRICS
    for name in METRICS:
        assert theirs["metrics"][name]["value"] < ours["metrics"][name]["value"]
    assert len(theirs["separations"]) > 20
    assert theirs["events"] == 600


def test_evaluate_table_says_which_data(
    smoke: SmokeRun, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(classifier.PROTOCOLS, "fast", replace(classifier.FAST, epochs=1, nodes=8))
    assert call("evaluate", "--model", "caloinn", "--data", smoke.data, smoke.data) == 0
    printed = capsys.readouterr().out
    for text in (smoke.data.name, "not Geant4 and not CaloChallenge data", "Fast protocol", "Classifier AUC"):
        assert text in " ".join(printed.split())


@dataclass(frozen=True)
class Settled:
    """A task that takes every file and measures nothing, so that a test sees what it was set up as."""

    dataset: str
    preset: str
    evaluation: str = "fast"
    model: str = "toy"
    metrics: tuple[Metric, ...] = (
        Metric("auc", "AUC", "", "maximize", ""),
        Metric("mse", "MSE", "", "minimize", ""),
    )

    def inputs(self, batch: int, _seed: int = 0, seed: int = 0) -> dict[str, Any]:
        return {"X": np.zeros((batch, 8), np.float32)}

    def load(self, *_: Any) -> Any:
        return SimpleNamespace(identity=DataIdentity(True, "Toys.", (DataFile("test", "toys.h5", 20, ""),)))

    def evaluate(self, *_: Any) -> Any:
        return {"auc": Quantity(0.75)}, Evaluation("digest", 20)

    def yardsticks(self, _data: Any) -> tuple[Yardstick, ...]:
        return (Yardstick("a constant", "mse", Quantity(0.25)),)


class Entry(SimpleNamespace):
    name, presets = "toy", ("smoke", "laptop", "paper")

    def task(self, dataset: str | None, preset: str) -> Settled:
        return Settled(dataset or "first", preset, "published" if preset == "paper" else "fast")


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a file that says it is of data set `second` at preset smoke."""
    monkeypatch.setattr(catalogue, "find", lambda _: Entry())
    model = Layer.random(8, 3).model()
    config = json.dumps({"preset": "smoke"})
    onnx.helper.set_model_props(model, {"bitsearch.dataset": "second", "bitsearch.config": config})
    onnx.save(model, tmp_path / "toy.onnx")
    return tmp_path / "toy.onnx"


@pytest.mark.parametrize(
    ("flags", "dataset", "preset", "protocol"),
    [
        ([], "second", "smoke", "fast"),
        (["--preset", "laptop"], "second", "laptop", "fast"),
        (["--preset", "paper", "--dataset", "third"], "third", "paper", "full"),
        (["--full"], "second", "smoke", "full"),
    ],
)
def test_evaluate_takes_the_preset_from_the_file(
    toy: Path, capsys: Capture, flags: list[str], dataset: str, preset: str, protocol: str
) -> None:
    assert call("evaluate", "--model", "toy", toy, *flags, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["dataset"], found["preset"], found["protocol"]) == (dataset, preset, protocol)
    assert found["reference"]["statement"] == "Toys."


def test_evaluate_puts_each_number_under_its_own_title(toy: Path, capsys: Capture) -> None:
    """A simple estimator has no number of events and another metric: columns are the union of both."""
    assert call("evaluate", "--model", "toy", toy) == 0
    title, header, model, constant = capsys.readouterr().out.splitlines()
    assert title.startswith("Against toys.h5, 20 events. Toys.")
    assert header.split() == ["file", "events", "AUC", "MSE"]
    assert model.split() == ["toy.onnx", "20", "0.7500"]
    assert constant.split() == ["a", "constant", "alone", "0.2500"]
    assert constant.index("0.2500") == header.index("MSE")


def test_evaluate_refuses_files_of_two_presets(toy: Path, tmp_path: Path, capsys: Capture) -> None:
    other = onnx.load(toy)
    onnx.helper.set_model_props(other, {"bitsearch.config": json.dumps({"preset": "paper"})})
    onnx.save(other, tmp_path / "other.onnx")
    message = refusal(capsys, "evaluate", "--model", "toy", toy, tmp_path / "other.onnx")
    assert "the files are of preset smoke and paper; choose one with --preset" in message


def test_evaluate_has_one_protocol_for_jets(capsys: Capture, tmp_path: Path) -> None:
    onnx.save(Layer.random(8, 3).model(), tmp_path / "any.onnx")
    message = refusal(capsys, "evaluate", "--model", "pdat", "--full", tmp_path / "any.onnx")
    assert "--full: pdat has one protocol at every preset; leave the flag out" in message


def test_evaluate_refuses(smoke: SmokeRun, tmp_path: Path, capsys: Capture) -> None:
    begin = ("evaluate", "--model", "caloinn")
    assert "there is no file" in refusal(capsys, *begin, tmp_path / "missing.onnx")
    onnx.save(Layer.random(8, 3).model(), tmp_path / "other.onnx")
    assert "takes {'X': (8,)} for each event; expected" in refusal(capsys, *begin, tmp_path / "other.onnx")
    (tmp_path / "text.hdf5").write_text("no showers")
    message = refusal(capsys, *begin, "--data", smoke.data, tmp_path / "text.hdf5")
    assert "cannot be read as HDF5" in message


def suggested(capsys: Capture, *arguments: str | Path) -> tuple[Assignment, str]:
    capsys.readouterr()
    assert call("suggest", "--model", "caloinn", *arguments) == 0
    found = capsys.readouterr()
    return Assignment(json.loads(found.out)), found.err


@pytest.mark.parametrize("target", ["0.1", "0.5", "0.9"])
def test_suggest_from_a_run(smoke: SmokeRun, capsys: Capture, target: str) -> None:
    assignment, said = suggested(capsys, "--target-fraction", target, "--run", smoke.folder.path)
    task = catalogue.find("caloinn").task("ds1-photon", "smoke")
    found = catalogue.inventory(task, {}).fractions(assignment).executed_fraction
    assert float(target) <= found < 1
    assert f"{found:.4f} of what runs (target {target})" in said


def save(smoke: SmokeRun, path: Path, quantized: tuple[str, ...] = ()) -> Path:
    """Write the smoke run's float reference as `bitsearch train` would."""
    options = {"permutation": "random"}
    task = catalogue.find("caloinn").task("ds1-photon", "smoke")
    layers = catalogue.inventory(task, options).names
    configuration = Configuration(Assignment.of(layers, quantized), options)
    network = task.network(options, 1)
    Checkpoint("caloinn", "ds1-photon", "smoke", configuration, "default", 1, network.state_dict()).save(path)
    return path


def test_suggest_from_a_checkpoint(smoke: SmokeRun, tmp_path: Path, capsys: Capture) -> None:
    path = save(smoke, tmp_path / "float.pt")
    flags = ("--target-fraction", "0.3", "--checkpoint", path, "--data", smoke.data)
    assignment, _ = suggested(capsys, *flags)
    assert 0 < len(assignment.quantized) < len(assignment)


REFUSED: dict[str, tuple[list[str], str]] = {
    "nothing": ([], "give --run, the folder of a `bitsearch run`, or --checkpoint"),
    "target": (["--run", "RUN", "--target-fraction", "1.5"], "1.5: expected a number above 0, at most 1"),
    "all": (["--run", "RUN", "--target-fraction", "1"], "all linear layers together hold 0.9"),
    "folder": (["--run", "nowhere"], "nowhere holds no run.json"),
    "dataset": (["--run", "RUN", "--dataset", "ds2"], "is of caloinn on ds1-photon; expected one of caloinn on ds2"),
    "missing": (["--checkpoint", "nothing.pt"], "there is no checkpoint nothing.pt"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_suggest_refuses(smoke: SmokeRun, capsys: Capture, case: str) -> None:
    flags, message = REFUSED[case]
    flags = [str(smoke.folder.path) if flag == "RUN" else flag for flag in flags]
    begin = ("suggest", "--model", "caloinn", "--target-fraction", "0.5")
    assert message in refusal(capsys, *begin, *flags)


def test_suggest_refuses_quantised_and_foreign_checkpoints(
    smoke: SmokeRun, tmp_path: Path, capsys: Capture
) -> None:
    begin = ("suggest", "--model", "caloinn", "--target-fraction", "0.5", "--checkpoint")
    path = save(smoke, tmp_path / "low.pt", ("blocks.0.subnet.layers.0",))
    assert "has 1 quantised layers; expected a float network" in refusal(capsys, *begin, path)
    torch.save({"w": torch.ones(2)}, tmp_path / "foreign.pt")
    assert "is not one of ours" in refusal(capsys, *begin, tmp_path / "foreign.pt")


def test_suggest_refuses_a_run_without_sensitivities(
    smoke: SmokeRun, tmp_path: Path, capsys: Capture
) -> None:
    copy = smoke.copy(tmp_path / "run", "sensitivities.json", "report", "models")
    copy.update(sensitivities=None)
    message = refusal(capsys, "suggest", "--model", "caloinn", "--target-fraction", "0.5", "--run", copy.path)
    assert "has not computed its sensitivities; continue it" in message


def groups(*sizes: int) -> tuple[list[Group], Inventory]:
    names = [f"l{index}" for index in range(len(sizes))]
    layers = tuple(Linear(name, size, 1, bias=False) for name, size in zip(names, sizes, strict=True))
    return [Group(name, (name,), "role") for name in names], Inventory(layers, sum(sizes), sum(sizes))


def best(sizes: tuple[int, ...], scores: list[float], target: float) -> float:
    """Try all sets."""
    found = float("inf")
    for chosen in range(2 ** len(sizes)):
        inside = [i for i in range(len(sizes)) if chosen >> i & 1]
        if sum(sizes[i] for i in inside) >= target * sum(sizes):
            found = min(found, sum(scores[i] for i in inside))
    return found


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("target", [0.2, 0.5, 0.75, 1.0])
def test_suggestion_is_the_best_set(seed: int, target: float) -> None:
    generator_ = torch.Generator().manual_seed(seed)
    sizes = tuple(int(n) * 100 for n in torch.randint(1, 40, (8,), generator=generator_))
    values: list[Any] = torch.rand(8, generator=generator_).tolist()
    made, inventory = groups(*sizes)
    found = suggest(made, inventory, {f"l{i}": value for i, value in enumerate(values)}, target)
    assert found.fractions.executed_fraction >= target
    assert found.loss_increase <= best(sizes, values, min(target * 1.002, 1.0)) + 1e-9


def test_suggestion_ignores_layers_that_never_run() -> None:
    made, inventory = groups(10, 30)
    idle = Linear("idle", 60, 1, bias=False, executed=False)
    inventory = Inventory((*inventory.layers, idle), 100, 40)
    made.append(Group("idle", ("idle",), "role"))
    found = suggest(made, inventory, {"l0": 1.0, "l1": 2.0, "idle": 0.0}, 0.5)
    assert "l1" in found.assignment.quantized
    assert found.fractions.executed_fraction == 0.75


def test_unreachable_target() -> None:
    made, inventory = groups(10, 30)
    with pytest.raises(ConfigurationError, match=r"together hold 0\.8000 of the parameters"):
        suggest(made, Inventory(inventory.layers, 50, 50), {"l0": 1.0, "l1": 2.0}, 0.9)
