"""Checkpoints of the authors' CaloDREAM: the state dicts of its two networks, merged into one.

The networks' names do not collide. Beside them stand `means` and `stds` `(voxels + layers,)`, which the authors
keep as .npy files beside the shape network.
"""

import re
from collections.abc import Mapping

from torch import Tensor

from bitsearch.core.errors import CheckpointError, few

ATTENTION = {"self_attn": "attention", "multihead_attn": "cross_attention"}
NORMS = {
    "encoder": ("attention_norm", "feed_forward.norm"),
    "decoder": ("attention_norm", "cross_attention_norm", "feed_forward.norm"),
}
RENAMED = (
    (r"transformer\.(encoder|decoder)\.norm\.(\w+)", r"energy.\1_norm.\2"),
    (r"t_embed\.0\.W", r"energy.frequencies"),
    (r"t_embed\.1\.(\w+)", r"energy.time.\1"),
    (r"x_embedder\.(?:1\.)?(weight|bias)", r"shape.embedding.\1"),
    (r"pos_embed_freqs", r"shape.frequencies"),
    (r"t_embedder\.mlp\.([02]\.\w+)", r"shape.time.\1"),
    (r"c_embedder\.([02]\.\w+)", r"shape.condition.\1"),
    (r"blocks\.(\d+)\.attn\.qkv\.(\w+)", r"shape.blocks.\1.attention.qkv.\2"),
    (r"blocks\.(\d+)\.attn\.proj\.(\w+)", r"shape.blocks.\1.attention.projection.\2"),
    (r"blocks\.(\d+)\.mlp\.(fc[12]\.\w+)", r"shape.blocks.\1.\2"),
    (r"blocks\.(\d+)\.adaLN_modulation\.1\.(\w+)", r"shape.blocks.\1.modulation.\2"),
    (r"final_layer\.linear\.(\w+)", r"shape.final.linear.\1"),
    (r"final_layer\.adaLN_modulation\.1\.(\w+)", r"shape.final.modulation.\1"),
    (r"means", r"standardization.mean"),
    (r"stds", r"standardization.std"),
)
# Tables that the authors keep in their state: of positions, which are not used, and of patches.
FILES = {
    "energy": ("the energy network", "energy.pt"),
    "shape": ("the shape network", "shape.pt"),
    "standardization": ("means and stds", "means.npy stds.npy"),
}
IGNORED = r"positional_encoding\.pe|[lar]grid"


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Turn the merged state dicts of the authors' networks into ours.

    Raises:
        CheckpointError: keys are not of these networks; the first are listed.
    """
    converted: dict[str, Tensor] = {}
    unknown = []
    subnet: dict[int, dict[str, Tensor]] = {}
    for key, value in state.items():
        name = re.sub(r"^(?:module\.|model\.|net\.)+", "", key)
        if match := re.fullmatch(r"subnet\.(\d+)\.(\w+)", name):
            subnet.setdefault(int(match[1]), {})[match[2]] = value
        elif match := re.fullmatch(r"transformer\.(encoder|decoder)\.layers\.(\d+)\.(\w+)\.?(.*)", name):
            converted |= _transformer_layer(match[1], match[2], match[3], match[4], value)
        elif re.fullmatch(IGNORED, name) is None:
            found = [re.sub(old, new, name) for old, new in RENAMED if re.fullmatch(old, name)]
            unknown += [] if found else [key]
            converted |= dict.fromkeys(found, value)
    if unknown:
        raise CheckpointError(
            f"unknown keys: {few(unknown)}; expected keys such as transformer.encoder.layers.0.linear1.weight "
            "and subnet.0.weight of the energy network, blocks.0.attn.qkv.weight and final_layer.linear.weight of "
            "the shape network, means and stds"
        )
    converted |= _velocity([part for _, part in sorted(subnet.items())])
    parts = {name.partition(".")[0] for name in converted}
    if lacking := [f"{what} ({file})" for part, (what, file) in FILES.items() if part not in parts]:
        raise CheckpointError(
            f"the checkpoint lacks {', '.join(lacking)}; give all files: "
            f"bitsearch export {' '.join(file for _, file in FILES.values())} ..."
        )
    return converted


def _transformer_layer(stack: str, index: str, module: str, rest: str, value: Tensor) -> dict[str, Tensor]:
    """Rename one parameter of torch's transformer; attention to one token has its three inputs apart."""
    layer = f"energy.{stack}.{index}"
    if module in ATTENTION:
        attention = f"{layer}.{ATTENTION[module]}"
        role = rest.rpartition("_")[2]
        if not rest.startswith("in_proj_"):
            return {f"{attention}.projection.{rest.rpartition('.')[2]}": value}
        if stack == "decoder" and module == "self_attn":
            return {f"{attention}.qkv.{role}": value}
        parts = zip(("query", "key", "value"), value.chunk(3), strict=True)
        return {f"{attention}.{name}.{role}": part.clone() for name, part in parts}
    number = int(module[-1]) - 1 if module[-1].isdigit() else 0
    if module.startswith("norm"):
        return {f"{layer}.{NORMS[stack][number]}.{rest}": value}
    return {f"{layer}.feed_forward.{('first', 'second')[number]}.{rest}": value}


def _velocity(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Name the parts of a sequence of linear layers (matrices) and normalisations (vectors)."""
    linears = [part for part in parts if any(value.dim() == 2 for value in part.values())]
    norms = [part for part in parts if all(value.dim() != 2 for value in part.values())]
    names = ["first", *(f"central.{index}" for index in range(len(linears) - 2)), "last"]
    named = [
        *zip(names, linears, strict=False),
        *((f"norms.{index}", norm) for index, norm in enumerate(norms)),
    ]
    return {f"energy.velocity.{name}.{role}": value for name, part in named for role, value in part.items()}
