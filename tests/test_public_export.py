"""`bitsearch.export_onnx`: any network to a file that both runtimes serve under the declared names, or a reason."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import bitsearch
from bitsearch.core.errors import ExportError
from bitsearch.onnxfile import graph


class Several(nn.Module):
    """Two inputs; outputs: a layer's result, the same again, its sum with another layer, and an input."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(4, 3), nn.Linear(5, 3)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        y = self.one(x)
        return y, y, y + self.other(mask), x


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.recurrent, self.head = nn.LSTM(4, 8, batch_first=True), nn.Linear(8, 2)

    def forward(self, sequence: Tensor) -> Tensor:
        y: Tensor = self.head(self.recurrent(sequence)[0][:, -1])
        return y


class Normed(nn.Module):
    """BatchNorms that must not be folded: over tokens, without parameters, behind a value that is put out."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.plain, self.raw = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.norms = nn.ModuleList([nn.BatchNorm1d(4), nn.BatchNorm1d(4, affine=False), nn.BatchNorm1d(4)])
        for norm in self.norms:
            nn.init.uniform_(norm.running_mean)  # type: ignore[arg-type]
            nn.init.uniform_(norm.running_var, 1, 2)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.norms[0](self.tokens(x)).mean(1)
        raw = self.raw(self.norms[1](self.plain(x)))
        return raw, self.norms[2](raw)


def transformer() -> nn.Module:
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), 2)


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


CASES: dict[
    str, tuple[Any, tuple[tuple[int, ...], ...], dict[str, str], tuple[str, ...], tuple[str, ...]]
] = {
    "mlp": (mlp, ((4,),), {"*": "ternary"}, ("input",), ("y",)),
    "float": (mlp, ((4,),), {}, ("input",), ("scores",)),
    "mixed": (mlp, ((4,),), {"3": "binary"}, ("input",), ("3",)),
    "several": (Several, ((4,), (5,)), {"one": "ternary"}, ("x", "mask"), ("a", "b", "c", "d")),
    "layer": (lambda: nn.Linear(4, 2), ((4,),), {}, ("input",), ("y",)),
    "transformer": (transformer, ((7, 16),), {"*": "ternary"}, ("src",), ("encoded",)),
    "float transformer": (transformer, ((7, 16),), {}, ("src",), ("encoded",)),
    "pointwise": (
        lambda: nn.Sequential(nn.Conv1d(3, 8, 1), nn.BatchNorm1d(8), nn.ReLU(), nn.Conv1d(8, 2, 1)),
        ((3, 9),),
        {"*": "ternary"},
        ("input",),
        ("y",),
    ),
    "recurrent": (Recurrent, ((5, 4),), {"head": "ternary"}, ("sequence",), ("y",)),
    "normed": (Normed, ((4, 4),), {"*": "ternary"}, ("x",), ("raw", "normed")),
    "float normed": (Normed, ((4, 4),), {}, ("x",), ("raw", "normed")),
}


@pytest.mark.parametrize("case", CASES)
def test_any_network_is_served_under_its_declared_names(case: str, tmp_path: Path) -> None:
    make, shapes, patterns, inputs, outputs = CASES[case]
    torch.manual_seed(1)
    network = make()
    if patterns:
        bitsearch.quant.apply(network, patterns)
    network.train()
    examples = tuple(torch.randn(40, *shape) for shape in shapes)
    made = bitsearch.export_onnx(network, examples, tmp_path / "net.onnx", outputs)
    assert network.training
    assert (made.inputs, made.outputs) == (inputs, outputs)
    model = onnx.load(made.path)
    onnx.checker.check_model(model, full_check=True)
    assert [item.name for item in model.graph.input] == list(inputs)
    assert [item.name for item in model.graph.output] == list(outputs)
    assert {item.key: item.value for item in model.metadata_props}["bitsearch.model"] == type(
        network
    ).__name__
    assert made.size_bytes == made.path.stat().st_size
    assert made.parity.layers == len(made.assignment)
    assert made.parity.layer_max_error < 1e-5
    assert made.parity.output_agreement >= (0.8 if patterns else 1.0)
    plain = onnxruntime.InferenceSession(made.path, providers=["CPUExecutionProvider"])
    for session in (bitsearch.ops.session(made.path), plain):
        for batch in (1, 3):
            feed = {name: x[:batch].numpy() for name, x in zip(inputs, examples, strict=True)}
            found = session.run(list(outputs), feed)
            with torch.no_grad():
                expected = network.eval()(*(x[:batch] for x in examples))
            expected = expected if isinstance(expected, tuple) else (expected,)
            for ours, theirs in zip(found, expected, strict=True):
                scale = float(theirs.abs().max())
                if not patterns:
                    np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=1e-5 * scale)
                assert np.median(np.abs(ours - theirs.numpy())) < 1e-2 * scale


def test_layers_keep_their_own_largest_code(tmp_path: Path) -> None:
    network = mlp()
    bitsearch.quant.apply(network, {"0": "ternary"}, 128.0)  # applies to what it changes
    network[3] = bitsearch.quant.BitLinear(8, 2, act_qmax=7.0)
    made = bitsearch.export_onnx(network, torch.randn(9, 4), tmp_path / "net.onnx")
    nodes = [node for node in graph.read(made.path).graph.node if node.op_type == "TernaryMatMul"]
    found = {n.name: next(a.f for a in n.attribute if a.name == "act_qmax") for n in nodes}
    assert found == {"0": 128.0, "3": 7.0}
    assert made.parity.layer_max_error < 1e-5


def test_inputs_by_name_and_names_without_any(tmp_path: Path) -> None:
    examples = {"mask": torch.randn(3, 5), "x": torch.randn(3, 4)}
    made = bitsearch.export_onnx(Several(), examples, tmp_path / "net.onnx")
    assert made.inputs == ("x", "mask")
    assert made.outputs == ("output_0", "output_1", "output_2", "output_3")


def test_one_example_event_leaves_the_batch_free(tmp_path: Path) -> None:
    made = bitsearch.export_onnx(mlp(), torch.randn(1, 4), tmp_path / "net.onnx")
    (found,) = bitsearch.ops.session(made.path).run(None, {"input": np.zeros((5, 4), np.float32)})
    assert found.shape == (5, 2)
    assert made.parity.events == 1


def test_declined_modules_are_named(tmp_path: Path) -> None:
    made = bitsearch.export_onnx(Recurrent(), torch.randn(3, 5, 4), tmp_path / "net.onnx")
    assert list(made.declined) == ["recurrent"]
    assert "no low-bit form" in made.declined["recurrent"]


class Fixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        return y if len(x) == 2 else y + 1


class Past(nn.Module):
    """A network that reads a layer's weight past the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.layer.weight)


class Returning(nn.Module):
    def __init__(self, made: Any) -> None:
        super().__init__()
        self.made = made

    def forward(self, x: Tensor) -> Any:
        return self.made(x)


class Clash(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.x


X = torch.randn(4, 4)
WRONG: dict[str, tuple[nn.Module, Any, Any, str]] = {
    "fixed": (Fixed(), X, None, "tracing fixed the batch of input x to"),
    "past": (bitsearch.quant.apply(Past(), {"*": "ternary"}), X, None, "the forward pass never calls layer"),
    "string": (Returning(lambda x: "x"), X, None, "the network returns str; expected a tensor"),
    "no batch": (Returning(lambda x: x.sum()), X, None, r"output output has shape \(\); expected the batch"),
    "clash": (Clash(), X, None, "input or output x has the name of a parameter"),
    "output": (mlp(), X, ("3.weight",), "input or output 3.weight has the name of a parameter"),
    "names": (mlp(), X, ("a", "b"), r"found outputs \['a', 'b'\]; expected 1 different names"),
    "input's name": (mlp(), X, ("input",), "none of an input"),
    "unknown": (Several(), {"y": X}, None, "the network takes no 'y'; expected names among"),
    "skipped": (Several(), {"mask": X}, None, r"found inputs \['mask'\]; expected the first ones of"),
    "array": (mlp(), np.zeros((3, 4)), None, "example input input is"),
    "empty": (mlp(), torch.zeros(0, 4), None, r"example input input is \(0, 4\); expected a tensor"),
    "lengths": (Several(), (X, torch.randn(3, 5)), None, r"example inputs have \[3, 4\] events"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_exported_is_told_and_leaves_no_file(case: str, tmp_path: Path) -> None:
    network, inputs, outputs, message = WRONG[case]
    with pytest.raises(ExportError, match=message):
        bitsearch.export_onnx(network, inputs, tmp_path / "net.onnx", outputs)
    assert not list(tmp_path.iterdir())


def test_importing_bitsearch_imports_no_torch() -> None:
    code = "import sys, bitsearch; bitsearch.ops.library_path(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        bitsearch.nothing  # noqa: B018
