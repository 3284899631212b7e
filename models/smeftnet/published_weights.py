"""Checkpoints of the authors' SMEFTNet, whose perceptrons are those of the library PyTorch Geometric."""

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from bitsearch.core.errors import CheckpointError, few

# Theirs and ours. The library wraps torch's BatchNorm in a `module`; one without it is plain.
KEYS = (
    (r"EC\.(\d+)\.mlp\.lins\.(\d+)\.(\w+)", r"convolutions.\1.mlp.linears.\2.\3"),
    (r"EC\.(\d+)\.mlp\.norms\.(\d+)\.(?:module\.)?(\w+)", r"convolutions.\1.mlp.norms.\2.\3"),
    (r"mlp\.lins\.(\d+)\.(\w+)", r"readout.linears.\1.\2"),
    (r"mlp\.norms\.(\d+)\.(?:module\.)?(\w+)", r"readout.norms.\1.\2"),
    (r"scalar_batch_norm\.(\w+)", r"scalar_norm.\1"),
)
WRAPPER = "module."


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the state dict of the authors' SMEFTNet to ours; the layouts are the same.

    Raises:
        CheckpointError: keys are not the network's, of which the first are listed.
    """
    renamed = {key: _rename(key.removeprefix(WRAPPER)) for key in state}
    if unknown := sorted(key for key, name in renamed.items() if name is None):
        raise CheckpointError(f"unknown keys: {few(unknown)}; expected keys such as EC.0.mlp.lins.0.weight")
    return {name: state[key] for key, name in renamed.items() if name is not None}


def strategy_of(state: Iterable[str]) -> str | None:
    """Tell by its names what the authors' scripts quantised; None for other names.

    Their low-bit script has the edge networks in low bits alone, since its readout is the library's own perceptron:
    a network made by it is `bit30`, and what its switches call 70 % is `regular`.
    """
    names = [key.removeprefix(WRAPPER) for key in state]
    if any(re.match(r"EC\.\d+\.mlp\.layers\.", name) for name in names):
        return "bit30"
    return "regular" if any(re.match(r"EC\.\d+\.mlp\.norms\.", name) for name in names) else None


def _rename(key: str) -> str | None:
    # Their low-bit edge networks are sequences, whose odd places are activations.
    if match := re.fullmatch(r"EC\.(\d+)\.mlp\.layers\.(\d*[02468])\.(\w+)", key):
        return f"convolutions.{match[1]}.mlp.linears.{int(match[2]) // 2}.{match[3]}"
    for theirs, ours in KEYS:
        if match := re.fullmatch(theirs, key):
            return match.expand(ours)
    return None
