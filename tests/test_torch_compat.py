"""The private parts of torch that are used are still there, and still needed."""

import subprocess
import sys

import onnx
import pytest
import torch
from torch import Tensor, nn

from bitsearch.network import torch_compat


class Repeated(nn.Module):
    """Three symbolic nodes of one operator, in a loop."""

    def __init__(self) -> None:
        super().__init__()
        self.symbolic = torch_compat.traced(torch.onnx.ops.symbolic)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = self.symbolic("test::Same", (x,), {}, dtype=x.dtype, shape=x.shape, version=1)
        return x


# Of torch's own making.
@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
def test_symbolic_nodes_are_traced() -> None:
    program = torch.onnx.export(Repeated().eval(), (torch.ones(2, 3),), dynamo=True, verbose=False)
    assert program is not None
    nodes: list[onnx.NodeProto] = list(program.model_proto.graph.node)
    assert [(node.domain, node.op_type) for node in nodes] == [("test", "Same")] * 3


def test_the_compiler_is_imported() -> None:
    code = (
        "import sys, torch; from bitsearch.network import torch_compat; torch_compat.import_compiler();"
        "before = set(sys.modules); torch.optim.AdamW([torch.ones(1, requires_grad=True)]);"
        "sys.exit(bool([name for name in set(sys.modules) - before if name.startswith('torch._dynamo')]))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


class Summed(nn.Module):
    """The sum of the rows of a table."""

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        return torch_compat.scan(lambda state, row: [state[0] + row[0]], [x], [table])[0]


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
def test_a_scan_stays_a_loop() -> None:
    program = torch.onnx.export(
        Summed().eval(), (torch.ones(2), torch.ones(7, 2)), dynamo=True, verbose=False
    )
    assert program is not None
    assert "Scan" in {node.op_type for node in program.model_proto.graph.node}
