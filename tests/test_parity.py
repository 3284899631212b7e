"""The comparison of ONNX Runtime with torch: tight layer by layer, statistical for whole flows."""

import dataclasses

import numpy as np
import onnx
import pytest
from conftest import Bench
from onnx import numpy_helper

from bitsearch.network import parity
from bitsearch.onnxfile.backends import rewrite

STRATEGIES = ["default", "exchange-permutation", "nncentral", "blockcentral", "all"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_layer_agrees(bench: Bench, strategy: str) -> None:
    network, model = bench.export(strategy, "sampler")
    graph = bench.task.graphs(network)["sampler"]
    found = parity.compare(model, graph, bench.task.inputs(64, 1))
    assert found.layers == len(bench.strategy(strategy).assignment)
    assert found.layer_max_error < 1e-5
    assert found.events == 64
    quantized = bool(bench.strategy(strategy).assignment.quantized)
    assert found.output_agreement >= (0.5 if quantized else 1.0)
    assert found.output_mean_difference is not None
    assert found.output_mean_difference < (0.05 if quantized else 1e-3)


@pytest.mark.parametrize("backend", ["int2", "nbits"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_layer_agrees_in_other_kernels(bench: Bench, strategy: str, backend: str) -> None:
    """Activations are rounded a block of inputs at a time there, a row at a time in torch: a step of 127 apart."""
    network, model = bench.export(strategy, "sampler")
    graph = bench.task.graphs(network)["sampler"]
    rewritten = rewrite(model, backend)
    assert "TernaryMatMul" not in {node.op_type for node in rewritten.graph.node}
    found = parity.compare(rewritten, graph, bench.task.inputs(64, 1))
    assert found.layers == len(bench.strategy(strategy).assignment)
    assert found.layer_max_error < 2 / 127
    assert found.output_mean_difference is not None
    assert found.output_mean_difference < 0.1


@pytest.mark.parametrize("strategy", ["default", "all"])
def test_one_wrong_layer_is_found(bench: Bench, strategy: str) -> None:
    """Scale one layer's bias: that layer disagrees, and so do the outputs."""
    network, original = bench.export(strategy, "sampler")
    model = onnx.ModelProto()
    model.CopyFrom(original)
    bias = next(
        item
        for item in model.graph.initializer
        if item.name.endswith("blocks.2.subnet.layers.3.bias")
        or item.name.endswith("blocks.2.subnet.layers.3.float.bias")
    )
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(0.5), bias.name))
    graph = bench.task.graphs(network)["sampler"]
    before = parity.compare(original, graph, bench.task.inputs(16, 1))
    found = parity.compare(model, graph, bench.task.inputs(16, 1))
    assert found.layer_max_error > 1e-3 > before.layer_max_error
    assert found.output_agreement < before.output_agreement


def test_comparing_changes_neither_side(bench: Bench) -> None:
    network, model = bench.export("nncentral", "sampler")
    content = model.SerializeToString()
    graph = bench.task.graphs(network)["sampler"]
    one, other = (parity.compare(model, graph, bench.task.inputs(8, 1)) for _ in range(2))
    assert one == other
    assert model.SerializeToString() == content
    assert all(value is not None for value in dataclasses.astuple(one))
