"""1x1 convolutions and attention as linear layers give what torch's own modules give; the rest is declined by name."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bitsearch.core.assignment import Assignment
from bitsearch.core.errors import ConfigurationError
from bitsearch.core.precision import Precision
from bitsearch.core.strategy import Configuration
from bitsearch.network import catalogue, quant
from bitsearch.network.checkpoint import load_network
from bitsearch.network.convert import Attention, Pointwise, convert, declined
from bitsearch.network.quant import BitLinear
from bitsearch.network.spec import Spec
from bitsearch.network.trial import Trial
from bitsearch.onnxfile import graph


def attention(**options: Any) -> nn.MultiheadAttention:
    torch.manual_seed(1)
    made = nn.MultiheadAttention(12, 3, batch_first=options.pop("batch_first", True), **options).eval()
    if made.in_proj_bias is not None:
        nn.init.normal_(made.in_proj_bias)
        nn.init.normal_(made.out_proj.bias)
    return made


PADDING = torch.tensor([[False] * 5, [False, False, True, True, True]])
MASKS: dict[str, dict[str, Tensor]] = {
    "none": {},
    "padding": {"key_padding_mask": PADDING},
    "causal": {"attn_mask": torch.ones(5, 5).triu(1).bool()},
    "additive, one a head": {"attn_mask": torch.randn(6, 5, 5, generator=torch.Generator().manual_seed(2))},
}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("masks", MASKS)
def test_attention_is_torchs(masks: str, batch_first: bool, bias: bool) -> None:
    theirs = attention(bias=bias, batch_first=batch_first)
    ours = convert(nn.Sequential(copy.deepcopy(theirs)))[0]
    assert isinstance(ours, Attention)
    q, k, v = torch.randn(3, 2, 5, 12) if batch_first else torch.randn(3, 5, 2, 12)
    for arguments in ((q, k, v), (q, k, k), (q, q, q)):
        for averaged in (True, False):
            expected = theirs(*arguments, average_attn_weights=averaged, **MASKS[masks])
            found = ours(*arguments, average_attn_weights=averaged, **MASKS[masks])
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        assert ours(*arguments, need_weights=False)[1] is None


@pytest.mark.parametrize(
    ("convolution", "shape"),
    [
        (nn.Conv1d(3, 8, 1), (2, 3, 7)),
        (nn.Conv2d(3, 8, (1, 1), bias=False), (2, 3, 4, 5)),
        (nn.Conv3d(3, 8, 1, dilation=2, padding="same"), (2, 3, 2, 3, 4)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_pointwise_convolution_is_torchs(convolution: nn.Conv1d, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    ours = convert(nn.Sequential(copy.deepcopy(convolution)))
    assert isinstance(ours[0], Pointwise)
    torch.testing.assert_close(ours(x), convolution(x), rtol=1e-5, atol=1e-6)
    assert [name for name, _ in quant.linear_layers(ours)] == ["0.linear"]


def encoder() -> nn.TransformerEncoder:
    torch.manual_seed(1)
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), 2)


def test_a_transformer_runs_its_low_bit_layers_in_evaluation_too() -> None:
    """torch's own fast path would read the float weights past the layers."""
    network = quant.apply(encoder(), {"*": "ternary"}).eval()
    layers = [module for module in network.modules() if isinstance(module, BitLinear)]
    assert len(layers) == 8
    called: list[nn.Module] = []
    for layer in layers:
        layer.register_forward_pre_hook(lambda module, _: called.append(module))
    x, padding = torch.randn(2, 5, 16), PADDING
    with torch.no_grad():
        network(x, src_key_padding_mask=padding)
    assert called == layers


def test_a_converted_transformer_is_torchs() -> None:
    network = encoder().eval()
    ours = convert(copy.deepcopy(network))
    x = torch.randn(2, 5, 16)
    torch.testing.assert_close(
        ours(x, src_key_padding_mask=PADDING)[~PADDING],
        network(x, src_key_padding_mask=PADDING)[~PADDING],
        rtol=1e-4,
        atol=1e-5,
    )


class Masked(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.linear(input, self.weight * torch.tril(torch.ones_like(self.weight)), self.bias)


DECLINED = {
    "recurrent": (nn.LSTM(4, 4), "LSTM applies its weights step by step"),
    "cell": (nn.GRUCell(4, 4), "GRUCell applies its weights step by step"),
    "wide": (nn.Conv1d(4, 4, 3), r"Conv1d has kernel size \(3,\)"),
    "strided": (nn.Conv1d(4, 4, 1, stride=2), "Conv1d has a stride, groups or padding"),
    "grouped": (nn.Conv2d(4, 4, 1, groups=2), "Conv2d has a stride, groups or padding"),
    "padded": (nn.Conv2d(4, 4, 1, padding=1), "Conv2d has a stride, groups or padding"),
    "transposed": (nn.ConvTranspose1d(4, 4, 1), "ConvTranspose1d is no plain convolution"),
    "cross": (attention(kdim=8), "kdim or vdim"),
    "extra": (attention(add_zero_attn=True), "add_zero_attn"),
    "bilinear": (nn.Bilinear(4, 4, 4), "Bilinear multiplies two activations"),
    "masked": (Masked(4, 4), "Masked is a linear layer with a forward pass of its own"),
    "normed": (nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), "is computed in every pass"),
    "precise": (nn.Linear(4, 4, dtype=torch.float64), "torch.float64, expected torch.float32"),
}


@pytest.mark.parametrize("name", DECLINED)
def test_what_cannot_be_low_bit_is_declined_by_name(name: str) -> None:
    module, why = DECLINED[name]
    network = nn.ModuleDict({name: copy.deepcopy(module), "other": nn.Linear(4, 4)})
    ((found, _),) = declined(network)
    assert found == name
    with pytest.raises(ConfigurationError, match=f"{name} stays in float32: .*{why}"):
        quant.apply(network, {name: "ternary"})
    kind = type(network[name])
    quant.apply(network, {"*": "ternary"})
    assert type(network[name]) is kind
    assert dict(quant.precisions(network)) == {"other": Precision.TERNARY}


MODEL_FILE = """
import numpy as np, torch
from torch import nn
from bitsearch.core.measurement import Metric, Quantity
from bitsearch.core.task import DataIdentity, Recipe, Recipes
from bitsearch.models.base import Sample, TaskBase

DATASETS, PRESETS = ("any",), ("smoke",)
RECIPE = Recipe(3, 16, 1e-3, 0.0, 1e-8)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Conv1d(3, 12, 1), nn.Linear(12, 1)
        self.attention = nn.MultiheadAttention(12, 3, batch_first=True)

    def forward(self, x):
        x = self.embedding(x).transpose(1, 2)
        return self.head(self.attention(x, x, x, need_weights=False)[0].mean(1))

class task(TaskBase):
    metrics = (Metric("loss", "Loss", "", "minimize", "mean over events"),)
    recipes = Recipes(RECIPE, RECIPE, RECIPE, finalists=1, repetitions=1)
    latency_batches = (1,)

    def network(self, options, seed):
        return Net()

    def load(self, paths, seed, progress):
        x = np.random.default_rng(seed).standard_normal((100, 3, 5), np.float32)
        return Sample.split({"x": x}, DataIdentity(True, "noise", ()), seed)

    def loss(self, network, data, indices, generator):
        return (network(data.training["x"][indices]) - 1).square().mean()

    def inputs(self, batch, seed):
        return {"x": np.random.default_rng(seed).standard_normal((batch, 3, 5), np.float32)}

    def measure(self, sessions, data):
        y = sessions["network"].run(None, {"x": data.validation["x"]})[0]
        return {"loss": Quantity(float(np.square(y - 1).mean()), None, len(y))}
"""


def test_layers_of_model_files_are_converted(tmp_path: Path) -> None:
    """As those of the Python API; also weights that are named as the file's own network names them fit."""
    model = tmp_path / "mixed.py"
    model.write_text(MODEL_FILE)
    entry = catalogue.find(str(model))
    layers = entry.space(entry.task(preset="smoke")).layers
    assert set(layers) == {"embedding.linear", "head", "attention.in_proj", "attention.out_proj"}
    spec = Spec(str(model), "any", "smoke", (), tmp_path, 1)
    configuration = Configuration(Assignment.of(layers, layers))
    measured = Trial(spec).measure(configuration, "search", keep="mixed")
    assert measured.failure is None
    nodes = graph.read(tmp_path / "models" / "mixed.onnx").graph.node
    assert [node.op_type for node in nodes].count("TernaryMatMul") == 4
    raw = spec.task.network({}, 1)
    loaded = load_network(spec, configuration, raw.state_dict())
    weight = loaded.get_parameter("attention.in_proj.weight")
    assert torch.equal(weight, raw.get_parameter("attention.in_proj_weight"))
    assert (
        load_network(spec, configuration, loaded.state_dict()).state_dict().keys()
        == loaded.state_dict().keys()
    )
