"""Checkpoints without pickled objects, and clear words for those that do not fit."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Bench
from torch import nn

from bitsearch.cli import main
from bitsearch.core.assignment import Assignment
from bitsearch.core.errors import CheckpointError
from bitsearch.core.rounding import Rounding
from bitsearch.core.strategy import Configuration
from bitsearch.network import catalogue, checkpoint, quant
from bitsearch.network.checkpoint import Checkpoint, load_network
from bitsearch.network.spec import Spec

STATE = {"a.weight": torch.randn(3, 2), "a.bias": torch.randn(3)}
CONFIGURATION = Configuration(Assignment({"a": "ternary"}), {"permutation": "random"})


@pytest.mark.parametrize("strategy", ["all", None])
def test_comes_back(tmp_path: Path, strategy: str | None) -> None:
    saved = Checkpoint(
        "caloinn", "ds2", "smoke", CONFIGURATION, strategy, 7, STATE, "improved", {"a": Rounding.MEAN}
    )
    saved.save(tmp_path / "new" / "c.pt")
    found = checkpoint.read(tmp_path / "new" / "c.pt")
    assert isinstance(found, Checkpoint)
    assert (found.model, found.dataset, found.preset, found.seed) == ("caloinn", "ds2", "smoke", 7)
    assert (found.configuration, found.strategy) == (CONFIGURATION, strategy)
    assert (found.recipe, found.rounding) == ("improved", {"a": Rounding.MEAN})
    assert found.state.keys() == STATE.keys()
    assert all(torch.equal(found.state[name], value) for name, value in STATE.items())


def test_without_a_recipe_it_was_trained_by_the_papers(tmp_path: Path) -> None:
    Checkpoint("caloinn", "ds2", "smoke", CONFIGURATION, None, 7, STATE).save(tmp_path / "c.pt")
    content = torch.load(tmp_path / "c.pt", weights_only=True)
    del content["recipe"], content["rounding"]
    torch.save(content, tmp_path / "c.pt")
    found = checkpoint.read(tmp_path / "c.pt")
    assert isinstance(found, Checkpoint)
    assert (found.recipe, found.rounding) == ("paper", {})


@pytest.mark.parametrize("content", [STATE, {"epoch": 3, "net": STATE}, {"net": STATE, "opt": {"lr": 1.0}}])
def test_foreign_state_dicts(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "foreign.pt")
    found = checkpoint.read(tmp_path / "foreign.pt")
    assert isinstance(found, dict)
    assert found.keys() == STATE.keys()


@pytest.mark.parametrize(
    "content",
    [{}, [1], STATE["a.bias"], {"net": STATE, "ema": STATE}, {"epoch": 3}],
    ids=lambda value: str(type(value)),
)
def test_files_without_one_state_dict_are_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "odd.pt")
    with pytest.raises(CheckpointError, match=r"odd\.pt holds .*; expected one state dict of tensors"):
        checkpoint.read(tmp_path / "odd.pt")


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("evil"),)


def test_nothing_in_a_file_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError, match="cannot be read as a torch checkpoint of tensors"):
        checkpoint.read(tmp_path / "evil.pt")
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoint.read(tmp_path / "pickle.pt")
    assert not (tmp_path / "evil").exists()


def test_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        checkpoint.read(tmp_path / "none.pt")
    (tmp_path / "broken.pt").write_bytes(b"PK\x03\x04 not a checkpoint")
    for path in (tmp_path / "broken.pt", tmp_path):
        with pytest.raises(CheckpointError, match="cannot be read"):
            checkpoint.read(path)


def test_everything_that_does_not_fit_is_listed() -> None:
    network = nn.Linear(2, 3)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load_state(
            network, {"weight": torch.zeros(3, 5), "x": torch.zeros(1), "y": torch.zeros(1)}
        )
    message = str(caught.value)
    assert "missing keys: ['bias']" in message
    assert "unknown keys: ['x', 'y']" in message
    assert "weight: found (3, 5), expected (3, 2)" in message
    assert "\n" not in message
    state = {"weight": torch.ones(3, 2), "bias": torch.ones(3)}
    checkpoint.load_state(network, state)
    assert torch.equal(network.weight, state["weight"])


def ours(**changes: Any) -> dict[str, Any]:
    content = {
        "format": 1, "model": "caloinn", "dataset": "ds2", "preset": "smoke", "assignment": {"a": "ternary"},
        "options": {}, "strategy": None, "seed": 7, "state": STATE,
    }  # fmt: skip
    return {**content, **changes}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": 3}, "damaged .*Expected `str`, got `int`"),
        ({"seed": "7"}, "damaged .*Expected `int`"),
        ({"options": [1]}, "damaged"),
        ({"assignment": {"a": "quaternary"}}, "layer a has precision 'quaternary'"),
        ({"assignment": {"a": {"a": {}}}}, "damaged"),
        ({"rounding": {"a": "odd"}}, "'odd' is not a valid"),
        ({"format": 9}, "has format 9; expected 1"),
        ({"state": {"a.weight": 1.0}}, "holds no state dict"),
        ({"state": {"a.weight": torch.ones(2, dtype=torch.complex64)}}, "a.weight is torch.complex64"),
        ({"state": {"a.weight": torch.tensor([1.0, float("nan")])}}, "a.weight holds NaN or infinity"),
        ({"state": {3: torch.ones(2)}}, "has the key 3"),
    ],
    ids=str,
)
def test_wrong_content_is_one_line(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    torch.save(ours(**changes), tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match=words):
        checkpoint.read(tmp_path / "c.pt")


@pytest.mark.parametrize(
    "key", ["model", "dataset", "preset", "assignment", "options", "strategy", "seed", "state"]
)
def test_missing_keys_are_one_line(tmp_path: Path, key: str) -> None:
    content = ours()
    del content[key]
    torch.save(content, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match=f"`{key}`|no state dict"):
        checkpoint.read(tmp_path / "c.pt")


def test_a_path_inside_of_a_checkpoint_is_never_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("evil.py", "evil_space.py"):
        (tmp_path / name).write_text("open('executed', 'w')")
    torch.save(ours(model="evil.py"), "x.pt")
    assert main(["export", "x.pt", "--out", "x.onnx"]) == 2
    errors = capsys.readouterr().err
    assert "there is no model 'evil.py'" in errors
    assert "only where you name it yourself" in errors
    assert not (tmp_path / "executed").exists()


def test_weights_that_do_not_fit_are_refused(bench: Bench) -> None:
    configuration = bench.strategy("blockcentral")
    state = bench.spec.network({"permutation": "random"}).state_dict()
    with pytest.raises(CheckpointError, match="unknown keys"):
        load_network(bench.spec, configuration, state)
    state = bench.spec.network(configuration.options).state_dict()
    network = load_network(bench.spec, configuration, state)
    assert not network.training


def test_a_checkpoint_rounds_as_it_was_trained(tmp_path: Path) -> None:
    spec = Spec("caloinn", "ds1-photon", "smoke", (), tmp_path, 1)
    configuration = catalogue.find("caloinn").strategy(spec.task, "all").configuration
    state = spec.network(configuration.options).state_dict()
    kinds = spec.task.recipes.roundings(configuration.assignment)
    assert set(kinds.values()) == {Rounding.OPTIMAL}
    assert quant.roundings(load_network(spec, configuration, state, kinds)) == kinds
    older = load_network(spec, configuration, state)
    assert quant.roundings(older) == dict.fromkeys(kinds, Rounding.PAPER)
