"""Write docs/performance.md: peaks of this processor, networks, operators, league table, training, in one run.

    python benchmarks/performance.py > docs/performance.md
    python benchmarks/performance.py peaks networks > part.md

One thread, processor time, contestants in turns; takes about half an hour on two cores that are free.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import end_to_end
import kernels
import ternary_limits

from bitsearch import ops
from bitsearch.network import catalogue
from bitsearch.onnxfile import bench, runtime

HERE = Path(__file__).parent
HEAD = """# Performance

Written by `python benchmarks/performance.py > docs/performance.md`; `python benchmarks/performance.py SECTION` writes
one section. {processor}, {cores} cores, kernel `{kernel}`, onnxruntime {onnxruntime}, {date}.

Everything is one thread's processor time and contestants take turns, so that other work on the machine, of which the
last line tells, does little to ratios: medians for networks, minima for operators and kernels. Who shares the caches
and memory still costs: differences below 10 % say nothing.
"""
PEAKS = """
## Peaks of this core

`python benchmarks/ternary_limits.py`. Kernels below are given as shares of these, so that another processor can be
judged by its own page.
"""
NETWORKS = """
## Served networks, end to end

What a user gets who replaces the float file by the ternary one, at the publication's sizes with random weights, which
change no time: `python benchmarks/end_to_end.py MODEL/DATASET/GRAPH --batch … --profile`. *float32* is the network as
any exporter writes it; *float32, as exported* is ours, with splines and messages in operators of their own and equal
slots computed once, so that low bits get no credit for layout. x is how many times faster than float32; memory is how
far a process rises from opening the file to its peak at the largest batch. "Every layer" quantises all that a search
may choose.
"""
TARGETS_TEXT = """
### Targets

x against float32 as any exporter writes it; memory against half of float32's.
"""
OPERATORS = """
## `TernaryMatMul` alone

`python benchmarks/kernels.py`: without onnxruntime, quantising included, as shares of the peaks above: of the
kernel's own instructions (lookups for `avx512permute`, with the shifts of one row where there is one; multiplication
otherwise), of `vpdpbusd`, which no kernel of 8-bit products can pass, and of what reading the packed weights from L2
allows.
"""
CHAINS = """
### Layers one after the other

`python benchmarks/ternary_matmul.py --chains`: 24 layers of 256 x 256 inside onnxruntime, µs a layer: minimum
(median) and how many times as long as three `TernaryChain8` (`fused`); `ternary` is a node a layer. Results are
checked first, ours bit for bit.
"""
LEAGUE = """
## League table

`pip install openvino litespark-inference`, then `python benchmarks/league.py`: the same ternary weights for every
ternary or 2-bit product that installs from PyPI, and the 4 and 8 bits that compete with them. Results are checked
first; the error in brackets is that of quantising rows. `bnn-lab` has ternary weights for activations of ±1 alone, so
it cannot take part; the kernels of ggml and BitNet are reached through whole language models alone.
"""
SPLINE = """
## `MonotoneSpline` alone

`python benchmarks/monotone_spline.py`: against the same in standard operators; rows, splines a row.
"""
TRAINING = """
## Training and export

`python benchmarks/networks.py`. A step is loss, gradients and optimiser for one batch; tracing is done once a run,
lowering once a candidate.
"""
NOTES = """
## What bounds it, and what was tried

On an AMD EPYC (Zen 4, AVX-512) that was shared, December 2026:

- **CaloDREAM, shape.** At batch 1, TernaryMatMul takes 9.8 of 16.7 ms (230 products/ns, two thirds of the lookups'
  peak) and attention's two float products 2.1 ms (50 of 58 multiply-adds/ns): 4 times float32 would leave 0.7 ms for
  softmax, normalisation, GELU and transposes, which take 4.8. Attention in one pass would save the transposes and a
  part of the softmax, about 1 ms; it is not written. fc1, GELU and fc2 in one call give 2 %.
- **CaloDREAM, energy.** Normalised layers in one call (TernaryNormChain) give 1.16 at batch 1 and nothing at 100. A
  call of `session.run` from Python that does nothing takes 5 of the 31 to 36 µs, TernaryMatMul of 512 x 512 1.4 a
  layer, normalisation and SiLU 0.75. At batch 100 the products take nine tenths.
- **CaloINN.** SiLU inside of chains gives 1.16 at batch 1, SelectColumns 1.26 more, and 1.03 at 1000, where
  TernaryChain and MonotoneSpline (18 ns a value) take 95 % and SelectColumns 3.
- **P-DAT.** `bit` leaves the convolutions in float: Gemm takes four tenths at batch 100 and runs at its peak (54 of
  58 multiply-adds/ns while rows fit the cache). The rest is some five hundred small operators. In the cache a layer
  of 128 x 128 with its GELU takes 1.15 µs for three layers and row, out of memory 1.5: rows that stay in the cache
  would save a tenth of the file. Not written.
- **Chains of 256 x 256.** Of 0.64 µs a layer and row the kernel takes 0.44. At 16 and 64 rows kernels reach 195
  products/ns, 83 % of `vpdpbusd`, and onnxruntime's int8 170: no kernel of 8-bit products can be 1.2 times as fast
  there by more than a little. The other kernel for all of these layers (`BITSEARCH_KERNEL=avx512permute`) gave 1.10
  and 1.04 in the chain and was slower in CaloINN at one row.
- **Training.** A quantised layer makes four more passes over its inputs and two over its outputs; torch's other ways
  to the largest magnitude of a row (`vector_norm`, `aminmax`) take 2 to 12 times as long. Networks of narrow layers
  (SMEFTNet's have ten inputs) pay most.
"""

GRAPHS: Mapping[str, tuple[tuple[int, ...], int]] = {
    "caloinn/ds1-photon/sampler": ((1, 100, 1000), 3),
    "caloinn/ds2/sampler": ((1, 10), 3),
    "calodream/ds2/energy_velocity": ((1, 100), 15),
    "calodream/ds2/shape_velocity": ((1, 10), 7),
    "pdat/quark-gluon/classifier": ((1, 100), 5),
    "smeftnet/wz/angle": ((1, 100, 1000), 5),
}
"""Batches, and blocks of runs."""


@dataclass(frozen=True)
class Target:
    """How many times as fast a file, known by a part of its name, should be at a batch."""

    graph: str
    file: str
    batch: int
    times: float


TARGETS = (
    Target("pdat/quark-gluon/classifier", "bit", 1, 2),
    Target("pdat/quark-gluon/classifier", "bit", 100, 2),
    Target("pdat/quark-gluon/classifier", "every", 1, 3.5),
    Target("pdat/quark-gluon/classifier", "every", 100, 3.5),
    Target("smeftnet/wz/angle", "bit", 100, 3),
    Target("smeftnet/wz/angle", "bit", 1000, 3),
    Target("calodream/ds2/energy_velocity", "energy-quantized", 1, 5),
    Target("calodream/ds2/shape_velocity", "shape-full", 1, 4),
    Target("caloinn/ds1-photon/sampler", "all", 1, 14),
    Target("caloinn/ds1-photon/sampler", "all", 1000, 9),
    Target("caloinn/ds2/sampler", "all", 1, 15),
)
KERNEL_SHAPES = (
    *("1,256,256", "1,256,5760", "1,480,1920", "1,2560,6912", "16,256,256", "64,256,256"),
    *("64,256,5760", "135,480,1920", "512,512,512"),
)
OWN_PEAK = {
    "avx512permute": ("lookups of one row, with shifts", "8 vpermw, then 8 vpaddw 512"),
    "avx512vnni": ("vpandd + vpdpbusd 512", "vpdpbusd 512"),
    "avx2": ("vpmaddubsw + vpaddw 256", "vpaddw from memory 256 (table)"),
}
"""What bounds a kernel at one row, and at more."""


def rates() -> dict[str, float]:
    """Measure products a nanosecond by instruction, and GB/s read by size."""
    text = ternary_limits.measured()
    found = {
        name.strip(): float(value) for name, value in re.findall(r"^(.{34}).*?(\d+) G products/s", text, re.M)
    }
    return found | {
        f"{size} KB": float(value) for size, value in re.findall(r"(\d+) KB: read +([\d.]+)", text)
    }


def show_peaks(found: Mapping[str, float]) -> None:
    """Print peaks as two tables."""
    print(PEAKS)
    print("| instruction | products/ns |\n|---|---|")
    for name, value in found.items():
        if not name.endswith("KB"):
            print(f"| {name} | {value:.0f} |")
    print("\n| reads of | GB/s |\n|---|---|")
    for name, value in found.items():
        if name.endswith("KB"):
            print(f"| {name} | {value:.0f} |")


def show_networks(graphs: Collection[str]) -> None:
    """Print a table and the profiles of every graph, then what became of the targets."""
    print(NETWORKS)
    measured = {}
    for name in graphs:
        batches, blocks = GRAPHS[name]
        model, dataset, graph = name.split("/")
        entry = catalogue.find(model)
        task = entry.task(dataset, "paper")
        known = partial(end_to_end.own_inputs, task)
        with tempfile.TemporaryDirectory() as folder:
            files = end_to_end.contenders(entry, task, graph, Path(folder))
            measured[name] = bench.bench(files, batches, 1, blocks, known=known, clock=time.thread_time)
            end_to_end.show(name, "paper", measured[name])
            print()
            for item in files:
                end_to_end.show_profile(item, max(batches), 1, Path(folder), known)
    print(TARGETS_TEXT)
    print("| network, file | batch | target | found | |\n|---|---|---|---|---|")
    for target in (item for item in TARGETS if item.graph in measured):
        found = next(
            item.speedup
            for item in measured[target.graph].timings
            if item.batch == target.batch and item.name.startswith("ternary") and target.file in item.name
        )
        verdict = "reached" if found >= target.times else "missed"
        print(
            f"| {target.graph}, {target.file} | {target.batch} | {target.times:g} | {found:.2f} | {verdict} |"
        )
    for name, table in measured.items():
        first, *others = (item for item in table.footprints if item.peak_memory_bytes)
        if first.peak_memory_bytes and others and others[-1].peak_memory_bytes:
            share = others[-1].peak_memory_bytes / first.peak_memory_bytes
            verdict = "reached" if share <= 1 / 2 else "missed"
            file = others[-1].name.partition(", ")[2]
            print(f"| {name}, {file}, memory | {max(GRAPHS[name][0])} | ≤ 0.5 | {share:.2f} | {verdict} |")


def show_operators(found: Mapping[str, float]) -> None:
    """Print kernels as shares of the peaks, then chains."""
    print(OPERATORS)
    usable = [item.name for item in ops.kernels() if item.usable and item.name != "portable"]
    print(
        "| M, K, N | kernel | µs | products/ns | of its own peak | of vpdpbusd | of L2 |\n|---|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as folder:
        trees = {"": kernels.built(kernels.OPS, Path(folder) / "kernels.so")}
        for shape in KERNEL_SHAPES:
            m, k, n = map(int, shape.split(","))
            least = kernels.compare(kernels.prepared(trees, usable, m, k, n), 1)
            kernel, us = min(least.items(), key=lambda pair: pair[1])
            rate = m * k * n / us / 1e3
            own = found.get(OWN_PEAK.get(kernel, ("", ""))[m > 1])
            dot = found.get("vpdpbusd 512")
            cells = [f"{100 * rate / peak:.0f} %" if peak else "" for peak in (own, dot)]
            level = f"{100 * k * n / 4 / us / 1e3 / found['256 KB']:.0f} %"
            print(
                f"| {shape.replace(',', ', ')} | `{kernel}` | {us:.3g} | {rate:.0f} | {' | '.join(cells)} | {level} |"
            )
    print(CHAINS)
    embed("ternary_matmul.py", "--chains", "--blocks", "9")


def run(script: str, *arguments: str) -> str:
    """Run a benchmark; give what it prints."""
    command = [sys.executable, str(HERE / script), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def embed(script: str, *arguments: str) -> None:
    """Print a benchmark's lines as they are."""
    print(f"```\n{run(script, *arguments).rstrip()}\n```")


def show_league() -> None:
    """Print the league table."""
    print(LEAGUE)
    print(run("league.py"))


def show_spline() -> None:
    """Print the splines' lines."""
    print(SPLINE)
    embed("monotone_spline.py", "--blocks", "5")


def show_training() -> None:
    """Print the steps of all networks."""
    print(TRAINING)
    print(run("networks.py", "--rounds", "7"))


def main() -> None:
    """Print the page, or some sections of it."""
    sections: dict[str, Callable[[], None]] = {
        "peaks": lambda: show_peaks(rates()),
        "networks": lambda: show_networks(arguments.graphs),
        "operators": lambda: show_operators(rates()),
        "league": show_league,
        "spline": show_spline,
        "training": show_training,
        "notes": lambda: print(NOTES),
    }
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(sections))
    parser.add_argument(
        "--graphs", nargs="+", default=list(GRAPHS), choices=GRAPHS, help="some networks alone"
    )
    arguments = parser.parse_args()
    if unknown := set(arguments.sections).difference(sections):
        parser.error(f"found {', '.join(sorted(unknown))}, expected some of {', '.join(sections)}")
    load = runtime.Load()
    print(HEAD.format(date=datetime.now(UTC).strftime("%d %B %Y"), **runtime.environment()))
    for name in arguments.sections or sections:
        sections[name]()
        sys.stdout.flush()
    share = load.share()
    if share is not None:
        print(f"\nMeanwhile other work took {100 * share:.0f} % of the cores that this page left free.")


if __name__ == "__main__":
    main()
