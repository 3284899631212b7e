"""`bench` times what it says it times, on inputs that fit."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from bitsearch.cli import main
from bitsearch.core.errors import ConfigurationError, ExportError
from bitsearch.core.precision import Precision
from bitsearch.onnxfile import bench, graph, inputs, runtime
from bitsearch.onnxfile.bench import contenders, quantized_to_int8
from bitsearch.onnxfile.ternarize import ternarize

FLOAT = TensorProto.FLOAT


def mlp(path: Path, batch: int | str = "batch", scale: float = 1.0, columns: int = 16) -> Path:
    weight = np.random.default_rng(0).normal(size=(24, columns)).astype(np.float32) * np.float32(scale)
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w"], ["y"], "fc", transB=1)],
        "g",
        [helper.make_tensor_value_info("x", FLOAT, [batch, columns])],
        [helper.make_tensor_value_info("y", FLOAT, [batch, 24])],
        [numpy_helper.from_array(weight, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "BLOCK_SECONDS", 1e-4)


@pytest.mark.usefixtures("quick")
def test_times_files_side_by_side(tmp_path: Path) -> None:
    given = mlp(tmp_path / "float.onnx")
    model, _ = ternarize(graph.read(given), lambda _: Precision.TERNARY)
    graph.write(model, tmp_path / "ternary.onnx")
    files = contenders([tmp_path / "ternary.onnx", given])
    files.append(quantized_to_int8(files, tmp_path))
    found = bench.bench(files, batches=(1, 3), blocks=3)
    names = ["ternary", "float", "float int8"]
    assert [(item.name, item.batch) for item in found.timings] == [(n, b) for b in (1, 3) for n in names]
    for item in found.timings:
        assert 0 < item.minimum_us <= item.median_us
        assert item.spread_us >= 0
        assert item.events_per_second == pytest.approx(item.batch / item.median_us * 1e6)
        assert (item.finite, item.blocks, item.threads) == (1.0, 3, 1)
    assert [item.speedup for item in found.timings[::3]] == [1.0, 1.0]
    assert [item.size_bytes for item in found.footprints[:2]] == [
        path.stat().st_size for path in (tmp_path / "ternary.onnx", given)
    ]
    assert all(item.peak_memory_bytes for item in found.footprints)
    chosen = runtime.chosen_kernel()
    assert [item.kernel for item in found.footprints] == [chosen, "", ""]
    assert {"processor", "kernel", "onnxruntime", "bitsearch"} <= found.environment.keys()


@pytest.mark.usefixtures("quick")
def test_says_when_outputs_are_not_finite(tmp_path: Path) -> None:
    found = bench.bench(contenders([mlp(tmp_path / "huge.onnx", scale=9e37)]), batches=(1,), blocks=1)
    assert found.timings[0].finite < 1


@pytest.mark.usefixtures("quick")
def test_fixed_batch_replaces_the_batches(tmp_path: Path) -> None:
    found = bench.bench(contenders([mlp(tmp_path / "fixed.onnx", batch=4)]), batches=(1, 9), blocks=1)
    assert [item.batch for item in found.timings] == [4]


def test_refuses_files_with_other_inputs(tmp_path: Path) -> None:
    files = contenders([mlp(tmp_path / "a.onnx"), mlp(tmp_path / "b.onnx", columns=8)])
    with pytest.raises(ConfigurationError, match=r"b takes .* and a takes .*; expected the same inputs"):
        bench.bench(files)


def test_names_files(tmp_path: Path) -> None:
    paths = [tmp_path / "a.onnx", tmp_path / "b" / "a.onnx", tmp_path / "c.onnx"]
    assert [item.name for item in contenders(paths)] == [str(paths[0]), str(paths[1]), "c"]
    with pytest.raises(ConfigurationError, match="found a file twice"):
        contenders([paths[0], paths[0]])


def session(inputs: list[tuple[str, int, list[int | str | None]]]) -> ort.InferenceSession:
    """Open a model that only looks at its inputs."""
    nodes = [helper.make_node("Shape", [name], [f"{name}_shape"]) for name, _, _ in inputs]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(*item) for item in inputs],
        [helper.make_tensor_value_info(f"{item[0]}_shape", TensorProto.INT64, [None]) for item in inputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def test_draws_inputs_that_fit() -> None:
    found = inputs.draw(
        session(
            [
                ("x", FLOAT, ["n", "sequence", 5]),
                ("mask", TensorProto.BOOL, [None, "sequence"]),
                ("incident_energy", TensorProto.DOUBLE, ["n", 1]),
                ("again", TensorProto.INT64, [2, "n", "other"]),
                ("scalar", FLOAT, []),
            ]
        ),
        batch=7,
        sizes={"sequence": 3},
    )
    shapes = {name: array.shape for name, array in found.items()}
    assert shapes == {
        "x": (7, 3, 5),
        "mask": (7, 3),
        "incident_energy": (7, 1),
        "again": (2, 7, 16),
        "scalar": (),
    }
    assert (found["incident_energy"] > 0).all()
    assert [str(found[name].dtype) for name in shapes] == ["float32", "bool", "float64", "int64", "float32"]


def test_refuses_inputs_that_it_cannot_draw() -> None:
    with pytest.raises(ConfigurationError, match=r"input x is a tensor\(string\); expected one of"):
        inputs.draw(session([("x", TensorProto.STRING, ["n"])]), 1)
    with pytest.raises(ConfigurationError, match="the file has no free axis m; expected one of n"):
        inputs.draw(session([("x", FLOAT, ["n"])]), 1, sizes={"m": 1})


def test_unreadable_file_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_text("no model")
    with pytest.raises(ExportError, match=r"onnxruntime refuses .*a\.onnx"):
        bench.bench(contenders([tmp_path / "a.onnx"]))


@pytest.mark.parametrize("verb", ["bench", "verify", "inspect"])
def test_names_in_a_file_never_run_code(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file may name any model; only the built-in ones are asked for inputs."""
    monkeypatch.chdir(tmp_path)
    for name in ("evil.py", "evil_space.py"):
        Path(name).write_text("from pathlib import Path\nPath('executed').touch()\n")
    model, _ = ternarize(graph.read(mlp(tmp_path / "float.onnx")), lambda _: Precision.TERNARY)
    onnx.helper.set_model_props(model, {"bitsearch.model": "evil.py", "bitsearch.config": "{}"})
    onnx.save(model, "named.onnx")
    main([verb, "named.onnx"])
    capsys.readouterr()
    assert not Path("executed").exists()
