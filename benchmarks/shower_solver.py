"""Quality of CaloDREAM's showers against the evaluations of its velocities, a front of its own.

    .venv/bin/python benchmarks/shower_solver.py [--folder .build/solvers] [--strategies regular ...] [--solvers ...]

Networks are trained once, at the preset's size, and kept in the folder. A solver is METHOD-STEPS for both networks, or
one for energies and one for voxels by a slash; the first one is what the others are held to. Every row generates the
same showers (incident energies and noise) and says: evaluations of the velocities (each layer's energy, then all
voxels), milliseconds a shower alone and in batches of 100 on one thread, all solvers in turns, what moved against the
first solver (total energy, root mean square; energy in other voxels, median share of a shower), and the classifiers'
AUCs and the mean separation power of the features against the reference showers, with standard deviations.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from bitsearch.core.measurement import Quantity
from bitsearch.core.strategy import Configuration
from bitsearch.models.calodream.solver import Solver
from bitsearch.network import catalogue
from bitsearch.network.exporter import Exporter
from bitsearch.network.spec import Spec
from bitsearch.network.trainer import Trainer
from bitsearch.onnxfile import bench, runtime
from bitsearch.onnxfile.bench import Contender
from bitsearch.onnxfile.inputs import Feed, Known

SOLVERS = (
    "kutta-20",
    "kutta-10",
    "kutta-4",
    "kutta-2",
    "midpoint-8",
    "midpoint-4",
    "adams-16",
    "adams-8",
    "euler-8",
)
BATCHES = (1, 100)
MOVED = 500


def main() -> None:
    """Print a table for each strategy."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path(".build/solvers"))
    parser.add_argument("--preset", default="laptop")
    parser.add_argument("--strategies", nargs="+", metavar="NAME", help="default: all")
    parser.add_argument("--solvers", nargs="+", default=SOLVERS, metavar="METHOD-STEPS")
    parser.add_argument("--moved-only", action="store_true", help="leave out the classifiers")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    spec = Spec("calodream", "ds2", arguments.preset, (), arguments.folder, 0)
    spec.work("traces", {}, "").parent.mkdir(parents=True, exist_ok=True)
    entry = catalogue.find("calodream")
    print(f"preset {arguments.preset}, {runtime.environment()}")
    for strategy in entry.space(spec.task).strategies:
        if arguments.strategies is None or strategy.name in arguments.strategies:
            print(f"\n{strategy.name}\n")
            table(spec, strategy.configuration, arguments.solvers, arguments.moved_only)


def table(spec: Spec, configuration: Configuration, solvers: list[str], moved_only: bool) -> None:
    """Print one strategy's rows."""
    network = Trainer(spec).finally_train(configuration, 1)[0].network.cpu().eval()
    exporter, files = Exporter(spec), {}
    for solver in solvers:
        solved = Configuration(configuration.assignment, {"solver": solver})
        path = spec.work(f"generator-{configuration.digest}", solved.options, ".onnx")
        path.write_bytes(exporter.export(network, solved, spec.task.served).SerializeToString())
        files[solver] = path
    timed = bench.bench([Contender(*item) for item in files.items()], BATCHES, blocks=5, known=known(spec))
    times = {(item.name, item.batch): item.minimum_us / item.batch / 1e3 for item in timed.timings}
    showers = {
        solver: runtime.open_session(path).run(None, spec.task.inputs(MOVED, 1))[0].astype(np.float64)
        for solver, path in files.items()
    }
    head = "solver | evaluations | ms, batch 1 | batch 100 | total moved | in other voxels"
    print(f"| {head} | AUC, voxels | AUC, features | separation |\n{'|---' * 9}|")
    for solver, path in files.items():
        energy, _, shape = solver.partition("/")
        counts = [Solver.parse(item).evaluations for item in (energy, shape or energy)]
        metrics = {} if moved_only else quality(spec, path, configuration.digest)
        cells = [
            solver,
            " + ".join(map(str, counts)),
            *(f"{times[solver, batch]:.3g}" for batch in BATCHES),
            *moved(showers[solver], showers[solvers[0]]),
            *(shown(metrics.get(name)) for name in ("auc_low", "auc_high", "separation")),
        ]
        print(f"| {' | '.join(cells)} |", flush=True)


def known(spec: Spec) -> Known:
    """Draw what the task draws."""

    def draw(_metadata: Mapping[str, str], batch: int, seed: int) -> Feed:
        return dict(spec.task.inputs(batch, seed))

    return draw


def moved(found: np.ndarray, expected: np.ndarray) -> tuple[str, str]:
    """Compare showers of the same noise: total energies, and the share of energy that lies in other voxels."""
    totals = expected.sum(1)
    total = np.sqrt(np.mean((found.sum(1) / totals - 1) ** 2))
    share = np.median(np.abs(found - expected).sum(1) / totals / 2)
    return f"{100 * total:.2f} %", f"{100 * share:.2f} %"


def quality(spec: Spec, path: Path, digest: str) -> Mapping[str, Quantity]:
    """Evaluate as a run does its finals."""
    session = runtime.open_session(path)
    metrics, _ = spec.task.evaluate([session], [session], spec.data, digest, 0, spec.progress)
    return metrics


def shown(quantity: Quantity | None) -> str:
    """Write a value with its standard deviation."""
    if quantity is None:
        return ""
    return f"{quantity.value:.4f}" + ("" if quantity.std is None else f" ± {quantity.std:.4f}")


if __name__ == "__main__":
    main()
