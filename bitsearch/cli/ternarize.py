"""`ternarize`: layers of any ONNX file to two bits."""

import argparse
import fnmatch
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitsearch.cli.files import add_backend, add_file, guard_of
from bitsearch.cli.output import show
from bitsearch.core.errors import ConfigurationError

if TYPE_CHECKING:
    from onnx import ModelProto

    from bitsearch.core.measurement import Quantity
    from bitsearch.core.precision import Precision
    from bitsearch.onnxfile.edit import Outcome

TERNARIZE = """\
Turn linear layers of any ONNX file (MatMul, Gemm, Conv of kernel size 1, Einsum) into TernaryMatMul. Each output gets
the codes and the scale of least squared error; weights that are ternary already are kept exactly. Nothing is trained:
accuracy falls, less with --data, and re-training with `bitsearch train` or `run` wins it back. Without --assignment
and --layers every layer that can be converted is. Layers are named by node, or by weights where the node has no name.

  bitsearch ternarize model.onnx --out small.onnx --layers 'encoder.*' 'head.0'
  bitsearch ternarize model.onnx --out small.onnx --data events.npz
  bitsearch ternarize model.onnx --out small.onnx --data events.npz --max-error 0.1

Takes seconds; with --data the time of the model on the data besides. With --max-error or --max-drop every layer is
measured alone, then they are taken in the order of their harm for the bytes they save, as long as all together keep to
the limit on every second batch of the data, which weights are not rounded on: two runs over the data a layer.
"""


def ternarize_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of `ternarize`."""
    add_file(verb)
    verb.add_argument("--out", type=Path, required=True, metavar="OUT.onnx", help="the file to write")
    which = verb.add_mutually_exclusive_group()
    which.add_argument("--assignment", type=Path, metavar="FILE", help="JSON: layer to precision")
    which.add_argument(
        "--layers", nargs="+", metavar="GLOB", help="names or patterns of layers to make ternary"
    )
    verb.add_argument(
        "--exclude",
        nargs="+",
        default=[],
        metavar="GLOB",
        help="names or patterns of layers to leave as they are",
    )
    verb.add_argument(
        "--least-size", type=int, default=0, metavar="N", help="leave layers with fewer weights as they are"
    )
    add_backend(verb)
    survive = verb.add_mutually_exclusive_group()
    survive.add_argument(
        "--max-error",
        type=float,
        metavar="E",
        help="take layers as long as outputs differ by this share of the original's or less (needs --data)",
    )
    survive.add_argument(
        "--max-drop",
        metavar="METRIC=X",
        help="take layers as long as agreement, or with --labels accuracy or cross_entropy, is worse by X or less",
    )
    verb.add_argument(
        "--labels",
        type=Path,
        metavar="LABELS",
        help="an .npy or .npz file with the class of every row of --data",
    )
    how = verb.add_mutually_exclusive_group()
    how.add_argument(
        "--data",
        type=Path,
        metavar="DATA",
        help="inputs of the model in .npz files: weights are rounded for the least error of what layers put out",
    )
    how.add_argument(
        "--rounding",
        choices=("optimal", "mean", "paper"),
        default="optimal",
        help="optimal: least error an output; mean: by each output's mean; paper: BitHEP Eq. (1), one scale a layer",
    )


def ternarize(arguments: argparse.Namespace) -> None:
    """Convert and say what became of every layer."""
    from dataclasses import asdict

    from bitsearch.onnxfile import backends, calibrate, graph, ternarize, upgrade

    _check_survival(arguments)
    guard = guard_of(arguments)
    model = graph.read(arguments.file)
    before = graph.size_on_disk(arguments.file, model)
    with graph.refusals(arguments.file):
        model = upgrade.prepare(model)
        choose = _chooser(arguments, ternarize.layer_sizes(model))
        if guard is not None:
            choose = guard.limit(model, choose)
        survival = _survival(arguments, model, choose)
        if survival is not None:
            converted, outcomes = survival.made
        else:
            if arguments.data is None:
                round_weights = ternarize.rounder(arguments.rounding)
            else:
                round_weights = calibrate.rounder(model, choose, arguments.data)
            converted, outcomes = ternarize.ternarize(model, choose, round_weights)
            converted = backends.rewrite(converted, arguments.backend)
        graph.write(converted, arguments.out)
    size = graph.size_on_disk(arguments.out, converted)
    fraction = float(graph.metadata(converted)["bitsearch.fraction"])
    content: dict[str, Any] = {
        "file": str(arguments.out),
        "bytes": size,
        "bytes_before": before,
        "fraction": fraction,
        "retrained": False,
        "layers": [asdict(item) for item in outcomes],
        "slower": {} if guard is None else guard.kept,
    }
    if survival is not None:
        _show_survival(arguments.json, content, survival)
    rows = [
        {
            "layer": item.layer,
            "op": item.op,
            "shape": " x ".join(map(str, item.shape)),
            "zeros": "" if item.zeros is None else f"{item.zeros:.3f}",
            "weight error": ""
            if item.error is None
            else "lossless"
            if item.lossless
            else f"{item.error:.3f}",
            "result": f"declined: {item.reason}"
            if item.reason
            else "; ".join(filter(None, (str(item.precision), item.note))),
        }
        for item in outcomes
    ]
    rows += [{"layer": name, "result": f"float32: {reason}"} for name, reason in content["slower"].items()]
    change = f"{before:,} to {size:,} bytes"
    show(arguments.json, content, f"{arguments.out}: {change}, fraction {fraction:.4f}", rows)
    if size > before:
        kept = [f"{item.layer} ({item.note})" for item in outcomes if item.note]
        reason = "; ".join(kept[:3]) or "the operator's function body is larger than what the layers save"
        sys.stderr.write(f"bitsearch ternarize: the file grew from {change}: {reason}\n")
    exact = all(item.lossless for item in outcomes if item.reason is None)
    sys.stderr.write(
        "bitsearch ternarize: weights are kept exactly, activations are rounded to 8 bits\n"
        if exact
        else "bitsearch ternarize: weights were rounded and nothing was re-trained; check the accuracy before use\n"
    )


@dataclass(frozen=True)
class _Survival:
    """The file of the layers that survive, what every layer does alone, and what all of them do together."""

    made: "tuple[ModelProto, tuple[Outcome, ...]]"
    metric: str
    alone: "Mapping[str, Mapping[str, Quantity]]"
    chosen: "Mapping[str, Precision]"
    together: "Mapping[str, Quantity]"


def _check_survival(arguments: argparse.Namespace) -> None:
    limited = arguments.max_error is not None or arguments.max_drop is not None
    if (limited or arguments.labels is not None) and arguments.data is None:
        raise ConfigurationError("--max-error, --max-drop and --labels need --data, inputs of the model")
    if arguments.labels is not None and not limited:
        raise ConfigurationError(
            "--labels tell how good a file is: expected --max-drop accuracy=X or cross_entropy=X"
        )


def _survival(
    arguments: argparse.Namespace, model: "ModelProto", choose: "Callable[[str], Precision]"
) -> "_Survival | None":
    """Choose the layers that survive; None where no limit was given."""
    from bitsearch.onnxfile import calibrate, survive
    from bitsearch.onnxfile.candidates import Candidates
    from bitsearch.onnxfile.judge import Judge
    from bitsearch.run.terminal import Terminal

    if arguments.max_error is None and arguments.max_drop is None:
        return None
    judge = Judge(model, arguments.data, arguments.labels)
    limit = survive.Limit.of(judge, arguments.max_error, arguments.max_drop)
    round_weights = calibrate.rounder(model, choose, arguments.data, judge.seen)
    candidates = Candidates(model, round_weights, arguments.backend)
    names = candidates.layers.inventory.names
    wanted = {name: choose(name) for name in names if choose(name).is_quantized}
    if not wanted:
        raise ConfigurationError(
            f"of the chosen layers none can be converted; expected one of {', '.join(names[:20])}"
        )
    with Terminal() as terminal:
        alone = survive.alone(candidates, judge, wanted, terminal.progress)
        chosen, together = survive.survivors(candidates, judge, wanted, limit, alone, terminal.progress)
    return _Survival(candidates.make(chosen), limit.metric.name, alone, chosen, together)


def _show_survival(as_json: bool, content: dict[str, Any], survival: _Survival) -> None:
    """Add to the JSON what was measured, or print it."""
    alone = {name: {key: item.value for key, item in found.items()} for name, found in survival.alone.items()}
    together = {key: item.value for key, item in survival.together.items()}
    content |= {"alone": alone, "together": together, "survivors": list(survival.chosen)}
    if as_json:
        return
    order = sorted(alone, key=lambda name: alone[name].get("output_error", float("inf")))
    rows: list[dict[str, object]] = [
        {
            "layer": name,
            **{key: f"{value:.4g}" for key, value in alone[name].items()},
            "survives": "yes" if name in survival.chosen else "no",
        }
        for name in order
    ]
    rows.append({"layer": "together", **{key: f"{value:.4g}" for key, value in together.items()}})
    show(
        False,
        {},
        f"Each layer alone in few bits, and those that survive together, by {survival.metric}",
        rows,
    )


def _chooser(arguments: argparse.Namespace, sizes: Mapping[str, int]) -> "Callable[[str], Precision]":
    """Tell which precision each layer shall have; raises ConfigurationError for layers that are not there."""
    from bitsearch.core.assignment import Assignment
    from bitsearch.core.precision import Precision

    layers = tuple(sizes)
    left = {name for pattern in arguments.exclude for name in _matching(layers, pattern)}
    _require([pattern for pattern in arguments.exclude if not _matching(layers, pattern)], layers)
    left.update(name for name, size in sizes.items() if size < arguments.least_size)
    chosen: dict[str, Precision] = dict.fromkeys(layers, Precision.TERNARY)
    if arguments.assignment is not None:
        assignment = Assignment.read(arguments.assignment)
        _require([name for name in assignment.quantized if name not in layers], layers)
        chosen = dict(assignment)
    elif arguments.layers is not None:
        patterns = arguments.layers
        _require([pattern for pattern in patterns if not _matching(layers, pattern)], layers)
        names = [name for pattern in patterns for name in _matching(layers, pattern)]
        chosen = dict.fromkeys(names, Precision.TERNARY)
    default = (
        Precision.TERNARY if arguments.assignment is None and arguments.layers is None else Precision.FLOAT32
    )
    return lambda name: Precision.FLOAT32 if name in left else chosen.get(name, default)


def _matching(layers: tuple[str, ...], pattern: str) -> list[str]:
    """Give the layer of that very name, or those that fit the pattern: names may hold brackets."""
    return [pattern] if pattern in layers else fnmatch.filter(layers, pattern)


def _require(missing: list[str], layers: tuple[str, ...]) -> None:
    if missing:
        known = ", ".join(layers[:20]) + (f" and {len(layers) - 20} more" if len(layers) > 20 else "")
        raise ConfigurationError(
            f"no linear layer is named {', '.join(missing)}; expected one of {known or 'none'}"
        )
