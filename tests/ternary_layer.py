"""One `TernaryMatMul` as numpy arrays and as an ONNX model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bitsearch.ops import DOMAIN, add_functions
from bitsearch.ops.reference import Float, pack, ternary_matmul


@dataclass(frozen=True)
class Layer:
    K: int
    W: NDArray[np.uint8]
    scale: Float
    bias: Float | None = None
    act_qmax: float = 127.0

    @classmethod
    def random(
        cls,
        k: int,
        n: int,
        seed: int = 0,
        *,
        bias: bool = True,
        per_output: bool = True,
        act_qmax: float = 127.0,
    ) -> Layer:
        rng = np.random.default_rng(seed)
        weights = rng.integers(-1, 2, (n, k)).astype(np.int8)
        scale = np.asarray(rng.normal(size=(n,) if per_output else ()), np.float32)
        return cls(k, pack(weights), scale, rng.normal(size=n).astype(np.float32) if bias else None, act_qmax)

    def expect(self, x: Float) -> Float:
        return ternary_matmul(x, self.W, self.scale, self.bias, K=self.K, act_qmax=self.act_qmax)

    def model(
        self, rank: int = 2, *, fed: tuple[str, ...] = (), portable: bool = True, opset: int = 20
    ) -> onnx.ModelProto:
        """Build a model with X and the inputs named in `fed` given at run time, the others constant."""
        arrays: dict[str, NDArray[Any]] = {"W": self.W, "scale": self.scale}
        if self.bias is not None:
            arrays["bias"] = self.bias
        node = helper.make_node(
            "TernaryMatMul",
            ["X", *arrays],
            ["Y"],
            "layer",
            domain=DOMAIN,
            K=self.K,
            act_qmax=float(self.act_qmax),
        )
        free = [None] * (rank - 1)
        graph = helper.make_graph(
            [node],
            "one_layer",
            [
                helper.make_tensor_value_info("X", TensorProto.FLOAT, [*free, self.K]),
                *(
                    helper.make_tensor_value_info(
                        name, helper.np_dtype_to_tensor_dtype(arrays[name].dtype), [None] * arrays[name].ndim
                    )
                    for name in fed
                ),
            ],
            [helper.make_tensor_value_info("Y", TensorProto.FLOAT, [*free, None])],
            [numpy_helper.from_array(array, name) for name, array in arrays.items() if name not in fed],
        )
        opsets = [helper.make_opsetid("", opset), helper.make_opsetid(DOMAIN, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        if portable:
            add_functions(model)
        return model


def dense(k: int) -> onnx.ModelProto:
    """Build one MatMul with a constant weight, which `ternarize` can convert."""
    text = f'<ir_version: 8, opset_import: ["": 18]> g (float[n, {k}] x) => (float[n, {k}] y) {{ y = MatMul(x, w) }}'
    model = onnx.parser.parse_model(text)
    model.graph.initializer.append(numpy_helper.from_array(np.eye(k, dtype=np.float32), "w"))
    return model
