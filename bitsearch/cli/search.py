"""`search`: the precisions of a finished ONNX file's layers."""

import argparse
import json
import sys
from pathlib import Path

from bitsearch.cli.files import add_backend
from bitsearch.cli.output import add_json, add_seed

SEARCH = """\
Search which layers of an ONNX file survive two bits, which need eight and which stay in float32. Nothing is trained:
files are run on every second batch of --data and held to what the original puts out, or to --labels; on the other
batches weights are rounded. First the whole file in each precision and every layer alone are measured, then --trials
further choices. The run folder and its report are those of `bitsearch run`; run again with the same --out, it goes on.

  bitsearch search model.onnx --data events.npz --trials 50 --out runs/model
  bitsearch search model.onnx --data events.npz --labels classes.npy --trials 50 --out runs/model
  bitsearch export runs/model --min-fraction 0.5 --out small.onnx

Takes one run over half of the data a layer, and one a trial.
"""


def search_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of `search`."""
    verb.add_argument("file", type=Path, metavar="FILE.onnx", help="any ONNX file")
    verb.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="DATA",
        help="inputs of the model: an .npz file or a folder of them",
    )
    verb.add_argument(
        "--labels",
        type=Path,
        metavar="LABELS",
        help="an .npy or .npz file with the class of every row of --data",
    )
    verb.add_argument(
        "--trials",
        type=int,
        default=50,
        metavar="N",
        help="choices to measure beside single layers (default: 50)",
    )
    verb.add_argument(
        "--metric",
        metavar="NAME",
        help="what to optimise: output_error, agreement, cross_entropy or accuracy (default: output_error, with "
        "--labels cross_entropy)",
    )
    verb.add_argument(
        "--precisions",
        nargs="+",
        choices=("float32", "int8", "ternary", "binary"),
        default=("float32", "int8", "ternary"),
        metavar="P",
        help="what a layer may have (default: float32 int8 ternary); of more than two the bits a weight "
        "count; binary is the other choice",
    )
    add_backend(verb)
    verb.add_argument(
        "--max-bits", type=float, metavar="B", help="propose only B bits a weight or less in the mean"
    )
    verb.add_argument(
        "--keep",
        action="append",
        default=[],
        metavar="GLOB",
        help="layers that proposals keep in float32; may be given several times",
    )
    verb.add_argument("--sampler", default="mask", metavar="NAME", help="as for run (default: mask)")
    verb.add_argument(
        "--timeout", type=float, metavar="SECONDS", help="propose nothing more so long after the start"
    )
    verb.add_argument("--storage", metavar="URL", help="an Optuna storage (default: study.db in --out)")
    verb.add_argument(
        "--out", type=Path, metavar="DIR", help="the run folder (default: runs/NAME of the file)"
    )
    add_seed(verb)
    add_json(verb)


def search(arguments: argparse.Namespace) -> None:
    """Search and print the path of the report."""
    from bitsearch.core.precision import Precision
    from bitsearch.core.records import encode
    from bitsearch.core.rundir import RunFolder
    from bitsearch.run import files
    from bitsearch.run.terminal import Terminal

    out = arguments.out or Path("runs") / arguments.file.stem
    request = files.FileRequest(
        file=arguments.file,
        data=arguments.data,
        labels=arguments.labels,
        trials=arguments.trials,
        out=out,
        seed=arguments.seed,
        sampler=arguments.sampler,
        precisions=tuple(map(Precision, arguments.precisions)),
        metric=arguments.metric,
        backend=arguments.backend,
        batches=tuple(arguments.batch),
        keep=tuple(arguments.keep),
        max_bits=arguments.max_bits,
        timeout=arguments.timeout,
        storage=arguments.storage,
    )
    with Terminal() as terminal:
        page = files.run(request, terminal).resolve()
    if arguments.json:
        front = RunFolder(out).front()
        content = {
            "folder": str(out),
            "report": str(page),
            "front": json.loads(encode(front)) if front else None,
        }
        sys.stdout.write(json.dumps(content) + "\n")
    else:
        sys.stdout.write(f"{page}\n")
