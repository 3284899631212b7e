"""Checkpoints of P-DAT's authors, whose pointwise layers are convolutions."""

import re
from collections.abc import Mapping

from torch import Tensor

from bitsearch.core.errors import CheckpointError

_EDGE = {"conv": "pointwise.linears", "bn": "pointwise.norms"}
_SHARED = {
    **{f"LN{number}": f"norm{number}" for number in range(1, 5)},
    "q": "query",
    "k": "key",
    "v": "value",
    "fc1": "fc1",
    "fc2": "fc2",
}
_NUMBERED = range(1, 4)
MODULES = {
    **{
        f"edgeconv{edge}.{theirs}{number}": f"edge{edge}.{ours}.{number - 1}"
        for edge in (1, 2)
        for theirs, ours in _EDGE.items()
        for number in _NUMBERED
    },
    **{f"PA.{theirs}": f"particle.{ours}" for theirs, ours in _SHARED.items()},
    "PA.fcx": "particle.fcx",
    **{f"PA.conv{number}": f"particle.bias_net.linears.{number - 1}" for number in _NUMBERED},
    **{f"PA.bn{number}": f"particle.bias_net.norms.{number - 1}" for number in _NUMBERED},
    **{f"CA.{theirs}": f"channel.{ours}" for theirs, ours in _SHARED.items()},
    **{f"CA.{name}": f"channel.{name}" for name in ("fcx", "bn", "bn1", "bn2", "bn3")},
    **{f"CA.conv{number}": f"channel.conv{number}" for number in _NUMBERED},
    "conv1d": "pooled",
    "linear1": "head.0",
    "bn1": "head.1",
    "linear2": "head.4",
    "linear": "linear",
    "bn": "bn",
}
"""Their modules and ours, upper or lower case: edge convolutions, particle (PA) and channel attention (CA), the
pointwise layer before the mean, the head, and what is never called."""


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a state dict to ours; weights of 1x1 convolutions `(O, I, 1, 1)` and `(O, I, 1)` become `(O, I)`.

    Wrappers such as `module.` or `model.` in front of every key are taken off.

    Raises:
        CheckpointError: keys are of no known module; all of them are listed.
    """
    known = {theirs.lower(): ours for theirs, ours in MODULES.items()}
    converted, unknown = {}, []
    for key, value in state.items():
        module, _, name = re.sub(r"^((module|model|net)\.)+", "", key).rpartition(".")
        ours = known.get(module.lower())
        if ours is None:
            unknown.append(key)
            continue
        if name == "weight" and value.ndim > 2 and set(value.shape[2:]) == {1}:
            value = value.flatten(1)
        converted[f"{ours}.{name}"] = value
    if unknown:
        raise CheckpointError(
            f"unknown keys: {sorted(unknown)}; expected weights of the modules {', '.join(MODULES)}"
        )
    return converted
