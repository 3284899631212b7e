"""Checkpoints of P-DAT's authors, whose pointwise layers are convolutions."""

import re
from collections.abc import Mapping

from torch import Tensor

from bitsearch.core.errors import CheckpointError, few

_NUMBERED = range(1, 4)
_ATTENTION = {
    **{name: name for name in ("query", "key", "value", "fcx", "fc1", "fc2")},
    **{f"ln{number}": f"norm{number}" for number in range(1, 5)},
}
MODULES = {
    **{
        f"conv{edge}.{theirs}{number}": f"edge{edge}.pointwise.{ours}.{number - 1}"
        for edge in (1, 2)
        for theirs, ours in (("conv", "linears"), ("bn", "norms"))
        for number in _NUMBERED
    },
    **{f"att1.{theirs}": f"particle.{ours}" for theirs, ours in _ATTENTION.items()},
    **{f"att1.conv{number}": f"particle.bias_net.linears.{number - 1}" for number in _NUMBERED},
    **{f"att1.bn{number}": f"particle.bias_net.norms.{number - 1}" for number in _NUMBERED},
    **{f"att2.{theirs}": f"channel.{ours}" for theirs, ours in _ATTENTION.items()},
    **{f"att2.conv{number}": f"channel.conv{number}" for number in _NUMBERED},
    **{f"att2.{name}": f"channel.{name}" for name in ("bn", "bn1", "bn2", "bn3")},
    "conv0": "pooled",
    "mlp.fc1": "head.0",
    "mlp.bn1": "head.1",
    "mlp.fc2": "head.4",
    "fc": "linear",
    "bn": "bn",
}
"""Their modules and ours: edge convolutions, particle (`att1`) and channel attention (`att2`), the pointwise layer
before the mean, the head, and what is never called."""


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a state dict to ours; weights of 1x1 convolutions `(O, I, 1, 1)` and `(O, I, 1)` become `(O, I)`.

    Wrappers such as `module.` or `model.` in front of every key are taken off.

    Raises:
        CheckpointError: keys are of no known module; the first are listed.
    """
    converted, unknown = {}, []
    for key, value in state.items():
        module, _, name = re.sub(r"^((module|model)\.)+", "", key).rpartition(".")
        ours = MODULES.get(module)
        if ours is None:
            unknown.append(key)
            continue
        if name == "weight" and value.ndim > 2 and set(value.shape[2:]) == {1}:
            value = value.flatten(1)
        converted[f"{ours}.{name}"] = value
    if unknown:
        raise CheckpointError(
            f"unknown keys: {few(unknown)}; expected weights of modules such as {few(MODULES)}"
        )
    return converted
