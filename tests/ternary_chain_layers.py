"""One `TernaryChain` as numpy arrays and as an ONNX model."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from ternary_layer import Layer

from bitsearch.ops import DOMAIN, add_functions
from bitsearch.ops.reference import Float, Link, ternary_chain
from bitsearch.ops.ternary_chain.reference import Activation


@dataclass(frozen=True)
class Chain:
    links: tuple[Link, ...]
    activation: Activation = "silu"
    alpha: float = 0.01
    act_qmax: float = 127.0
    epsilon: float = 1e-5

    @classmethod
    def random(cls, *sizes: int, seed: int = 0, normal: bool = False, **settings: Any) -> Chain:
        """Draw layers between so many features; scales keep the size of activations near one."""
        links = []
        rng = np.random.default_rng(seed)
        for index, (k, n) in enumerate(pairwise(sizes)):
            layer = Layer.random(k, n, seed=seed + index)
            assert layer.bias is not None
            hidden = normal and index + 2 < len(sizes)
            norm = [rng.normal(size=n).astype(np.float32) if hidden else None for _ in range(2)]
            links.append(Link(layer.W, layer.scale / np.float32(np.sqrt(k)), layer.bias, k, *norm))
        return cls(tuple(links), **settings)

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """Inputs behind X by their names."""
        named: dict[str, np.ndarray] = {}
        for index, link in enumerate(self.links):
            named |= {f"W{index}": link.W, f"scale{index}": link.scale, f"bias{index}": link.bias}
            if link.gain is not None and link.shift is not None:
                named |= {f"gain{index}": link.gain, f"shift{index}": link.shift}
        return named

    @property
    def attributes(self) -> dict[str, Any]:
        """Attributes of the node."""
        sizes = {f"K{index}": link.K for index, link in enumerate(self.links)}
        return {
            **sizes,
            "activation": self.activation,
            "alpha": float(self.alpha),
            "act_qmax": float(self.act_qmax),
            **({"epsilon": float(self.epsilon)} if self.normal else {}),
        }

    @property
    def normal(self) -> bool:
        """Whether a normalisation stands behind each layer but the last."""
        return self.links[0].gain is not None

    def expect(self, x: Float) -> Float:
        return ternary_chain(
            x,
            self.links,
            activation=self.activation,
            alpha=self.alpha,
            act_qmax=self.act_qmax,
            epsilon=self.epsilon,
        )

    def model(
        self, rank: int = 2, *, fed: tuple[str, ...] = (), portable: bool = True, opset: int = 20
    ) -> onnx.ModelProto:
        """Build a model with X and the inputs named in `fed` given at run time, the others constant."""
        arrays = self.arrays
        node = helper.make_node(
            f"Ternary{'Norm' if self.normal else ''}Chain{len(self.links)}",
            ["X", *arrays],
            ["Y"],
            "chain",
            domain=DOMAIN,
            **self.attributes,
        )
        free = [None] * (rank - 1)
        graph = helper.make_graph(
            [node],
            "one_chain",
            [
                helper.make_tensor_value_info("X", TensorProto.FLOAT, [*free, self.links[0].K]),
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
