"""The form in which leaf modules are exported: a node of our operators, or what onnxruntime does faster than torch."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bitsearch import ops
from bitsearch.models.leaves import (
    Fold,
    MessagePassing,
    MonotoneSpline,
    PairByPair,
    Perceptron,
    RowByRow,
    SelectLast,
)
from bitsearch.models.leaves.rows import Function
from bitsearch.network import torch_compat
from bitsearch.network.convert import reason

LINEAR = "Linear"
MESSAGES = "MessagePassing"


class LinearNode(nn.Module):
    """One `com.bithep::Linear` node, which lowering gives a precision; it knows its layer by name."""

    def __init__(self, name: str, linear: nn.Linear) -> None:
        super().__init__()
        self.name = name
        self.weight, self.bias = linear.weight, linear.bias
        self.symbolic = torch_compat.traced(torch.onnx.ops.symbolic)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(..., in_features)` to `(..., out_features)`."""
        inputs = (x, self.weight) if self.bias is None else (x, self.weight, self.bias)
        return self.symbolic(
            f"{ops.DOMAIN}::{LINEAR}",
            inputs,
            {"name": self.name},
            dtype=x.dtype,
            shape=(*x.shape[:-1], len(self.weight)),
            version=ops.VERSION,
        )


class SplineNode(nn.Module):
    """One `com.bithep::MonotoneSpline` node."""

    def __init__(self, _name: str, spline: MonotoneSpline) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {
            "kind": spline.kind,
            "bins": spline.bins,
            "bound": float(spline.bound),
        }
        self.out_of_bounds = spline.out_of_bounds

    def forward(self, x: Tensor, theta: Tensor, inverse: bool = False) -> tuple[Tensor, Tensor]:
        """Map as the spline does; the inverse gives no log-determinant, since what has a name is computed."""
        name, inputs, version = f"{ops.DOMAIN}::MonotoneSpline", (x, theta), ops.VERSION
        settings = {**self.settings, "inverse": int(inverse), "out_of_bounds": self.out_of_bounds}
        if inverse:
            moved = torch.onnx.ops.symbolic(
                name, inputs, settings, dtype=x.dtype, shape=x.shape, version=version
            )
            return moved, moved.new_zeros(())
        shapes, types = (x.shape, x.shape[:-1]), (x.dtype, x.dtype)
        moved, log_slope = torch.onnx.ops.symbolic_multi_out(
            name, inputs, settings, dtypes=types, shapes=shapes, version=version
        )
        return moved, log_slope


class MessagesNode(nn.Module):
    """One `com.bithep::MessagePassing` node, which lowering gives the layers of its perceptron."""

    def __init__(self, name: str, messages: MessagePassing) -> None:
        super().__init__()
        self.name, self.squared_radius, self.weighted = name, messages.radius**2, int(messages.weighted)
        self.dense = messages.forward

    def forward(self, pt: Tensor, features: Tensor, position: Tensor, mlp: Perceptron) -> Tensor:
        """Map as the leaf does; perceptrons of other than two layers stay in standard operators."""
        if len(mlp.linears) != 2:
            return self.dense(pt, features, position, mlp)
        inputs = [pt, features, position]
        for linear in mlp.linears:
            inputs += [linear.get_parameter("weight"), linear.get_parameter("bias")]
        settings: dict[str, Any] = {
            "name": self.name,
            "layers": [linear.name for linear in mlp.linears],
            "squared_radius": self.squared_radius,
            "weighted": self.weighted,
            "slope": float(getattr(mlp.activation, "negative_slope", 0.0)),
        }
        for norm in mlp.norms:
            inputs += [norm.get_parameter("weight"), norm.get_parameter("bias")]
            inputs += [norm.get_buffer("running_mean"), norm.get_buffer("running_var")]
            settings["epsilon"] = norm.eps
        return torch.onnx.ops.symbolic(
            f"{ops.DOMAIN}::{MESSAGES}",
            inputs,
            settings,
            dtype=pt.dtype,
            shape=(*pt.shape, inputs[5].shape[0]),
            version=ops.VERSION,
        )


class SelectRows(nn.Module):
    """Gather whole rows, which onnxruntime does fifteen times faster than single numbers of each row."""

    def __init__(self, _name: str, _select: SelectLast) -> None:
        super().__init__()

    def forward(self, x: Tensor, order: Tensor) -> Tensor:
        """Map `(..., n)` and `(m,)` to `(..., m)`."""
        rows = x.flatten(0, -2).T.index_select(0, order)
        return rows.T if x.ndim == 2 else rows.T.reshape(*x.shape[:-1], len(order))


class DistinctRows(nn.Module):
    """Compute the slots of an event up to the first empty one, and copy that."""

    def __init__(self, _name: str, _rows: RowByRow) -> None:
        super().__init__()

    def forward(self, function: Function, x: Tensor, filled: Tensor, _real: Tensor | None) -> Tensor:
        """Map `(batch, slots, ...)`."""
        slot = torch.arange(x.shape[1])
        kept = slot <= filled[:, None]
        y = function(x.flatten(0, 1).index_select(0, torch_compat.places(kept.flatten())[:, 0]))
        count = kept.sum(1)
        place = (count.cumsum(0) - count)[:, None] + torch.minimum(slot, filled[:, None])
        return y.index_select(0, place.flatten()).reshape(x.shape[0], x.shape[1], *y.shape[1:])


class DistinctPairs(nn.Module):
    """Compute pairs of different slots up to the first empty one, one of two empty slots, and a slot with itself."""

    def __init__(self, _name: str, _pairs: PairByPair) -> None:
        super().__init__()

    def forward(
        self, function: Function, features: Tensor, entries: Tensor, filled: Tensor, _real: Tensor | None
    ) -> Tensor:
        """Map `(batch, pairs, features)` to `(batch, slots, slots, ...)`."""
        batch, size = features.shape[:2]
        slots = math.isqrt(len(entries))
        slot = torch.arange(slots)
        itself = slot[:, None] == slot
        # In the place of the first empty slot with itself stands the pair of the last two slots, both empty then.
        source = torch.where(itself.flatten(), entries[-slots - 1], entries)
        kept = slot <= filled[:, None]
        both = (kept[:, :, None] & kept[:, None]).flatten(1)
        event, entry = torch_compat.places(both).unbind(1)
        rows = event * size + source.index_select(0, entry)
        alone = torch.ones(1, features.shape[2])
        values = function(torch.cat([features.flatten(0, 1).index_select(0, rows), alone]))
        count = kept.sum(1)
        begin = (count * count).cumsum(0) - count * count
        first = torch.minimum(slot, filled[:, None])
        place = (begin[:, None] + first * count[:, None])[:, :, None] + first[:, None]
        table = values.index_select(0, place.flatten()).reshape(batch, slots, slots, -1)
        return torch.where(itself[:, :, None], values[-1], table)


class ScanNode(nn.Module):
    """One Scan node instead of as many copies of the step as the tables have rows."""

    def __init__(self, _name: str, _fold: Fold) -> None:
        super().__init__()

    def forward(
        self,
        step: Callable[[Sequence[Tensor], Sequence[Tensor]], list[Tensor]],
        state: list[Tensor],
        rows: Sequence[Tensor],
    ) -> list[Tensor]:
        """Give the last state."""
        return torch_compat.scan(step, state, rows)


FORMS: dict[type[nn.Module], Callable[[str, Any], nn.Module]] = {
    nn.Linear: LinearNode,
    MessagePassing: MessagesNode,
    MonotoneSpline: SplineNode,
    PairByPair: DistinctPairs,
    RowByRow: DistinctRows,
    SelectLast: SelectRows,
    Fold: ScanNode,
}


def replace_leaves(module: nn.Module, prefix: str) -> None:
    """Put the exported form of every leaf in its place; the leaves of submodule `prefix` keep their names there."""
    made: dict[nn.Module, nn.Module] = {}
    for root in (module.get_submodule(prefix), module):
        for name, leaf in list(root.named_modules(remove_duplicate=False)):
            form = next((form for kind, form in FORMS.items() if isinstance(leaf, kind)), None)
            if form is None or (isinstance(leaf, nn.Linear) and reason(leaf) is not None):
                continue
            if leaf not in made:
                made[leaf] = form(name, leaf)
            parent, _, child = name.rpartition(".")
            setattr(root.get_submodule(parent), child, made[leaf])
