"""Every verb through `main`: tables, JSON, and one clear line for whatever cannot be."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TRIALS, Bench, SmokeRun

from bitsearch import ops
from bitsearch.cli import main, parser
from bitsearch.cli.table import VERBS as TABLE
from bitsearch.models.showers import files, generator
from bitsearch.network import checkpoint
from bitsearch.network.checkpoint import Checkpoint
from bitsearch.network.exporter import Exporter

Capture = pytest.CaptureFixture[str]
MODEL = ["--model", "caloinn", "--preset", "smoke"]
VERBS = {verb.name.split()[0] for verb in TABLE}


def call(capsys: Capture, *arguments: object) -> str:
    assert main([str(item) for item in arguments]) == 0
    return capsys.readouterr().out


def read(capsys: Capture, *arguments: object) -> dict[str, Any]:
    printed = call(capsys, *arguments, "--json")
    assert printed.count("\n") == 1
    return dict(json.loads(printed))


def refused(capsys: Capture, *arguments: object) -> str:
    """Expect exit status 2, nothing on stdout and one line on stderr behind those of progress; give the line."""
    try:
        status: object = main([str(item) for item in arguments])
    except SystemExit as exit_:
        status = exit_.code
    printed = capsys.readouterr()
    assert status == 2, printed.err
    assert printed.out == ""
    (line,) = [item for item in printed.err.splitlines() if not item.startswith("· ")]
    assert line.startswith(
        f"bitsearch {arguments[0]}" if arguments and arguments[0] in VERBS else "bitsearch: "
    )
    return line


def test_list(capsys: Capture) -> None:
    found = read(capsys, "list")
    model = next(item for item in found["models"] if item["model"] == "caloinn")
    assert model["datasets"] == ["ds1-photon", "ds1-pion", "ds2"]
    assert model["presets"] == ["smoke", "laptop", "paper"]
    assert model["strategies"] == ["default", "exchange-permutation", "nncentral", "blockcentral", "all"]
    assert [kernel["name"] for kernel in found["kernels"]] == [kernel.name for kernel in ops.kernels()]
    table = call(capsys, "list")
    assert "caloinn" in table
    assert "portable" in table


def test_strategies_as_in_the_contract(capsys: Capture) -> None:
    found = read(capsys, "strategies", "--model", "caloinn", "--preset", "paper")
    assert {name: found[name] for name in ("model", "dataset", "preset")} == {
        "model": "caloinn",
        "dataset": "ds1-photon",
        "preset": "paper",
    }
    nncentral = next(item for item in found["strategies"] if item["name"] == "nncentral")
    assert (nncentral["quantized_parameters"], nncentral["total_parameters"]) == (1_579_008, 18_821_350)
    for name, value in (
        ("fraction", 0.083895),
        ("weight_fraction", 0.084017),
        ("executed_fraction", 0.083895),
    ):
        assert nncentral[name] == pytest.approx(value, abs=5e-7)
    assert len(nncentral["quantized_layers"]) == 24
    table = call(capsys, "strategies", "--model", "caloinn", "--preset", "paper")
    assert "1,579,008" in table
    assert "0.0839" in table


def test_layers(capsys: Capture) -> None:
    found = read(capsys, "layers", "--model", "caloinn", "--dataset", "ds2", "--preset", "paper")
    assert found["dataset"] == "ds2"
    assert len(found["layers"]) == 42
    first = found["layers"][0]
    assert (first["out_features"], first["in_features"], first["parameters"]) == (256, 3264, 835_840)
    assert first["share"] == pytest.approx(835_840 / 270_999_370)
    assert first["group"] == "block 0 first"
    assert "block 0 first" in call(capsys, "layers", *MODEL)


def test_data_make_and_check(capsys: Capture, tmp_path: Path) -> None:
    file = tmp_path / "new" / "made.h5"
    made = read(capsys, "data", "make", "ds1-photon", "--events", 20, "--seed", 5, "--out", file)
    assert (made["dataset"], made["events"], made["label"]["seed"]) == ("ds1-photon", 20, 5)
    assert read(capsys, "data", "check", file) == made
    assert "ds1-photon" in call(capsys, "data", "check", file)
    again = read(
        capsys, "data", "make", "ds1-photon", "--events", 20, "--seed", 5, "--out", tmp_path / "again.h5"
    )
    first, second = (files.read(path, files.identify(path)) for path in (file, tmp_path / "again.h5"))
    np.testing.assert_array_equal(first.showers_mev, second.showers_mev)
    assert again["mean_response"] == made["mean_response"]


def test_status(smoke: SmokeRun, capsys: Capture) -> None:
    found = read(capsys, "status", smoke.folder.path)
    expected = {"model": "caloinn", "measured": TRIALS, "trials": TRIALS, "failed": 0, "preset": "smoke"}
    assert {name: found[name] for name in expected} == expected
    front = smoke.folder.front()
    assert front is not None
    assert found["front"] == len(front.members)
    assert found["ended"]
    assert "caloinn" in call(capsys, "status", smoke.folder.path)


def test_status_of_a_run_that_is_being_written(smoke: SmokeRun, tmp_path: Path, capsys: Capture) -> None:
    """Looking at a run changes none of its files, even where a line is half written."""
    folder = smoke.copy(tmp_path / "run", "report", "work", "models")
    with (folder.path / "results.jsonl").open("a") as file:
        file.write('{"half')
    content = (folder.path / "results.jsonl").read_text()
    with folder.locked():
        (folder.path / "results.jsonl").write_text(content)
        assert read(capsys, "status", folder.path)["measured"] == TRIALS
    assert (folder.path / "results.jsonl").read_text() == content


def test_report(smoke: SmokeRun, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    from bitsearch import report

    built: list[Path] = []

    def build(folder: Any) -> Path:
        built.append(folder.path)
        page: Path = folder.report / "index.html"
        return page

    monkeypatch.setattr(report, "build", build)
    page = str(smoke.folder.report / "index.html")
    assert Path(page).is_absolute()
    monkeypatch.chdir(smoke.folder.path.parent)
    assert call(capsys, "report", smoke.folder.path.name) == page + "\n"
    assert read(capsys, "report", smoke.folder.path) == {"report": page}
    assert [path.resolve() for path in built] == [smoke.folder.path] * 2


def test_train_then_export(
    smoke: SmokeRun, bench: Bench, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "trained.pt"
    flags = ["train", *MODEL, "--data", smoke.data, "--device", "cpu", "--out", out]
    assert call(capsys, *flags, "--strategy", "nncentral") == f"{out}\n"
    first = checkpoint.read(out)
    assert isinstance(first, Checkpoint)
    assert (first.model, first.dataset, first.preset, first.strategy) == (
        "caloinn",
        "ds1-photon",
        "smoke",
        "nncentral",
    )
    assert first.configuration == bench.strategy("nncentral")

    # Another configuration, then the first again, at the same path: each gets its own weights.
    assignment = tmp_path / "assignment.json"
    changed = {
        **dict(first.configuration.assignment),
        "blocks.0.subnet.layers.3": "float32",
        "blocks.0.subnet.layers.0": "ternary",
    }
    assignment.write_text(json.dumps(changed))
    call(capsys, *flags, "--assignment", assignment, "--option", "permutation=random")
    second = checkpoint.read(out)
    assert isinstance(second, Checkpoint)
    assert second.strategy is None
    assert dict(second.configuration.assignment) == changed
    name = "blocks.0.subnet.layers.0.weight"
    assert not bool((first.state[name] == second.state[name]).all())
    call(capsys, *flags, "--strategy", "nncentral")
    third = checkpoint.read(out)
    assert isinstance(third, Checkpoint)
    assert all(bool((first.state[key] == third.state[key]).all()) for key in first.state)

    template = bench.trial.exporter.template
    monkeypatch.setattr(Exporter, "template", lambda _, *what: template(*what))
    model = tmp_path / "served.onnx"
    printed = read(capsys, "export", out, "--out", model)
    assert printed["bytes"] == model.stat().st_size
    assert printed["parity"]["layer_max_error"] < 1e-5
    session = ops.session(model)
    assert session.get_modelmeta().custom_metadata_map["bitsearch.strategy"] == "nncentral"
    (showers,) = session.run(None, dict(bench.task.inputs(2, 1)))
    assert np.isfinite(showers).all()
    assert str(model) in call(capsys, "export", out, "--out", model)


FOLDER = "{folder}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--model", "calo"], "no model 'calo'; expected one of"),
        (["run", "--model", "none.py"], "there is no file none.py"),
        (["run", *MODEL, "--dataset", "ds9"], "no dataset 'ds9'"),
        (["run", "--model", "caloinn", "--preset", "huge"], "no preset 'huge'"),
        (["run", *MODEL, "--trials", "0"], "expected 1 or more"),
        (["run", *MODEL, "--workers", "0"], "expected 1 or more"),
        (["run", *MODEL, "--trials", "many"], "invalid int value: 'many'"),
        (["run", *MODEL, "--seed", "-1"], "expected a whole number from 0 on"),
        (["run", *MODEL, "--sampler", "Best"], "no sampler 'Best'"),
        (["run", *MODEL, "--timeout", "0"], "--timeout 0: expected more than 0 seconds"),
        (["run", *MODEL, "--timeout", "nan"], "--timeout nan: expected more than 0 seconds"),
        (["run", *MODEL, "--min-fraction", "1.5"], "--min-fraction 1.5: expected 0 to 1"),
        (["run", *MODEL, "--min-fraction", "nan"], "--min-fraction nan: expected 0 to 1"),
        (["run", *MODEL, "--min-fraction", "0.9", "--keep", "*"], "nothing is left to search"),
        (["run", *MODEL, "--keep", "head"], "--keep head: no group matches; there are "),
        (["run", *MODEL, "--keep", "*", "--sampler", "tpe"], "expected one of mask, stratified, ladder"),
        (["run", *MODEL, "--device", "tpu"], "invalid choice: 'tpu'"),
        (["run", *MODEL, "--data", "none.h5"], "there is no such file"),
        (["run", *MODEL, "--data", "{text}"], "cannot be read as HDF5"),
        (["run", *MODEL, "--data", "{data}", "{data}", "{data}"], "got 3 data files"),
        (["run", *MODEL, "--dataset", "ds2", "--data", "{data}"], "showers have 368 voxels; expected 6480"),
        (["run", *MODEL, "--out", "{text}"], "{text}"),
        (["run"], "the following arguments are required: --model"),
        (["fly"], "there is no verb 'fly'; expected one of run, "),
        (["lsit"], "did you mean list?"),
        (["data", "mkae"], "there is no verb 'mkae'; expected one of make, check; did you mean make?"),
        (["run", "--model", "calo"], "did you mean caloinn?"),
        (["run", *MODEL, "--dataset", "photon"], "did you mean ds1-photon?"),
        (["run", *MODEL, "--sampler", "masks"], "did you mean mask?"),
        (["layers", "--model", "caloinn", "--preset", "labtop"], "did you mean laptop?"),
        (["train", *MODEL, "--strategy", "NNcentral", "--out", "{new}"], "did you mean nncentral?"),
        (["data", "make", "quarkgluon", "--out", "{new}"], "did you mean quark-gluon?"),
        ([], "the following arguments are required: VERB"),
        (["strategies", "--model", "caloinn", "--fast"], "found --fast; expected one of"),
        (["strategies", "--model", "calo"], "no model 'calo'"),
        (["layers", "--model", "caloinn", "--dataset", "ds9"], "no dataset 'ds9'"),
        (["data", "make", "ds9", "--out", "{new}"], "ds9"),
        (["data", "make", "ds2", "--events", "0", "--out", "{new}"], "expected 1 event or more"),
        (["data", "make", "ds2", "--seed", "-3", "--out", "{new}"], "expected a whole number from 0 on"),
        (["data", "make", "ds1-photon", "--events", "1", "--out", "{folder}"], "{folder}"),
        (["data", "check", "none.h5"], "there is no such file"),
        (["data", "check", "{text}"], "cannot be read as HDF5"),
        (["data", "check", "{folder}"], "cannot be read as HDF5"),
        (["status", "{folder}"], "holds no run.json"),
        (["report", "none"], "holds no run.json"),
        (["train", *MODEL, "--out", "{new}"], "one of the arguments --strategy --assignment is required"),
        (["train", *MODEL, "--strategy", "most", "--out", "{new}"], "no strategy 'most'"),
        (["train", *MODEL, "--assignment", "none.json", "--out", "{new}"], "none.json"),
        (["train", *MODEL, "--assignment", "{text}", "--out", "{new}"], "expected JSON that maps layers"),
        (["train", *MODEL, "--assignment", "{list}", "--out", "{new}"], "expected JSON that maps layers"),
        (["train", *MODEL, "--assignment", "{odd}", "--out", "{new}"], "layer a has precision 'int3'"),
        (["train", *MODEL, "--assignment", "{part}", "--out", "{new}"], "that the network does not have"),
        (["export", "none.pt", "--out", "{new}"], "there is no checkpoint none.pt"),
        (["export", "{text}", "--out", "{new}"], "cannot be read as a torch checkpoint"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_bad_input_is_one_line(
    capsys: Capture,
    tmp_path: Path,
    shower_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"data": shower_file, "new": tmp_path / "new", "folder": tmp_path / "folder"}
    names["folder"].mkdir()
    for name, content in (
        ("text", "text"),
        ("list", "[1]"),
        ("odd", '{"a": "int3"}'),
        ("part", '{"a": "ternary"}'),
    ):
        names[name] = tmp_path / f"{name}.txt"
        names[name].write_text(content)
    assert message.format(**names) in refused(capsys, *(item.format(**names) for item in arguments))
    assert not names["new"].exists()


def test_file_with_too_few_events(capsys: Capture, tmp_path: Path) -> None:
    file = generator.make("ds1-photon", 6, 1, tmp_path / "few.h5")
    line = refused(capsys, "run", *MODEL, "--workers", "1", "--data", file, "--out", tmp_path / "run")
    assert "3 events are left for training and validation; expected at least 4" in line


def test_unknown_option_of_a_model(capsys: Capture, bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "assignment.json"
    file.write_text(json.dumps(dict(bench.strategy("all").assignment)))
    for option in ("permutation=other", "colour=red", "permutation"):
        line = refused(
            capsys, "train", *MODEL, "--assignment", file, "--option", option, "--out", tmp_path / "x.pt"
        )
        assert f"--option {option}: expected one of" in line


@pytest.mark.parametrize("url", ["nonsense", "sqlite:////nowhere/at/all.db", "mystery://host/db"])
def test_unusable_storage(smoke: SmokeRun, tmp_path: Path, capsys: Capture, url: str) -> None:
    folder = smoke.copy(tmp_path / "run", "report", "models", "evaluation")
    assert main(smoke.flags(folder.path, "--storage", url)) == 2
    errors = capsys.readouterr().err
    assert f"the storage {url} cannot be opened" in errors.splitlines()[-1]
    assert "Traceback" not in errors


def test_interrupt_says_how_to_go_on(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bitsearch.network.catalogue.find", interrupt)
    assert main(["run", "--model", "caloinn"]) == 130
    assert capsys.readouterr().err == "bitsearch run: interrupted; the same command continues\n"


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["data", "make", "--help"]], ids=" ".join
)
def test_help_is_on_stdout(capsys: Capture, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("usage: bitsearch")
    assert printed.err == ""
    assert parser().format_help().count("bitsearch")
