"""Checkpoints of the authors' CaloINN, whose flow is a graph of the FrEIA library."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from bitsearch.core.errors import CheckpointError, few

PERMUTATIONS = {"w_perm": "permutation", "w_perm_inv": "inverse_permutation"}


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Turn the state dict of the authors' FrEIA graph into ours: same weights, permutations as index vectors.

    Their list of nodes is the logarithm, then blocks and ActNorms in order; an ActNorm stands before its block.

    Raises:
        CheckpointError: keys are not the graph's, of which the first are listed, or a permutation matrix is none.
    """
    nodes: dict[int, dict[str, Tensor]] = {}
    unknown = []
    for key, value in state.items():
        match = re.fullmatch(r"(?:.*\.)?module_list\.(\d+)\.(.+)", key)
        if match is None:
            unknown.append(key)
        else:
            nodes.setdefault(int(match[1]), {})[match[2]] = value
    if unknown:
        raise CheckpointError(
            f"unknown keys: {few(unknown)}; expected keys such as model.module_list.1.subnet.layers.0.weight"
        )
    converted: dict[str, Tensor] = {}
    block = 0
    for _, node in sorted(nodes.items()):
        if node.keys() <= {"scale", "bias"}:
            converted |= {f"blocks.{block}.actnorm.{name}": value.flatten() for name, value in node.items()}
            continue
        for name, value in node.items():
            if name in PERMUTATIONS:
                converted[f"blocks.{block}.{PERMUTATIONS[name]}"] = _index(
                    value, f"module_list block {block} {name}"
                )
            else:
                converted[f"blocks.{block}.{name}"] = value
        block += 1
    return converted


def _index(matrix: Tensor, name: str) -> Tensor:
    """Read the index vector of a permutation matrix, a row at a time: row i has its only entry, 1, in index[i]."""
    size = len(matrix) if matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1] else 0
    index = torch.zeros(size, dtype=torch.int64)
    for number, row in enumerate(matrix[:size]):
        (places,) = torch.nonzero(row, as_tuple=True)
        if len(places) != 1 or row[places[0]] != 1:
            raise CheckpointError(
                f"{name} of shape {tuple(matrix.shape)} is no permutation matrix: row {number} has "
                f"{len(places)} entries; expected one, 1"
            )
        index[number] = places[0]
    if not size or not torch.equal(index.sort().values, torch.arange(size)):
        raise CheckpointError(f"{name} of shape {tuple(matrix.shape)} is no permutation matrix")
    return index
