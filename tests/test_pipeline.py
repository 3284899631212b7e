"""A smoke run from data to report: what it leaves, and how it goes on after an end, a kill, a change of mind."""

import json
import math
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
from conftest import EVENTS, TRIALS, SmokeRun

from bitsearch import ops
from bitsearch.cli import main
from bitsearch.core import pareto
from bitsearch.core.measurement import Measurement
from bitsearch.core.rundir import RunFolder
from bitsearch.models.showers import generator
from bitsearch.run import pipeline

STRATEGIES = ["default", "exchange-permutation", "nncentral", "blockcentral", "all"]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what continuing does not change: plots of the physics and the report."""

    def no_report(folder: RunFolder, _executor: Executor) -> Path:
        return folder.report / "index.html"

    monkeypatch.setattr("bitsearch.report.build", no_report)
    monkeypatch.setattr(pipeline, "_evaluate", lambda *_: None)


# --- what a run leaves -----------------------------------------------------------------------------------------


def test_run_folder_is_complete(smoke: SmokeRun) -> None:
    path = smoke.folder.path
    for name in ("run.json", "study.db", "results.jsonl", "front.json", "report/index.html"):
        assert (path / name).is_file(), name
    assert {file.stem for file in (path / "models").glob("*.onnx")} >= set(STRATEGIES)
    figures = path / "report" / "figures"
    assert (
        {file.stem for file in figures.glob("*.png")}
        == {file.stem for file in figures.glob("*.pdf")}
        != set()
    )
    assert list((path / "report").glob("*.csv"))


def test_run_file(smoke: SmokeRun) -> None:
    settings = json.loads((smoke.folder.path / "run.json").read_text())
    assert (settings["model"], settings["dataset"], settings["preset"]) == ("caloinn", "ds1-photon", "smoke")
    assert (settings["seed"], settings["trials"], settings["device"]) == (1, TRIALS, "cpu")
    assert settings["data"]["generated"] is True
    assert settings["data"]["files"][0]["events"] == EVENTS
    assert len(settings["data"]["files"][0]["sha256"]) == 64
    assert {"python", "torch", "onnxruntime", "optuna", "processor", "kernel"} <= settings[
        "environment"
    ].keys()
    assert settings["environment"]["kernel"] in {kernel.name for kernel in ops.kernels() if kernel.chosen}
    assert all(stage["seconds"] >= 0 for stage in settings["stages"])
    assert [stage["name"] for stage in settings["stages"]][-1] == "report"
    assert settings["started"] <= settings["ended"]


def test_every_strategy_and_every_trial_is_on_record(smoke: SmokeRun) -> None:
    short = [item for item in smoke.results if item.fidelity == "finetuned"]
    assert len(short) == len({item.digest for item in short}) == TRIALS
    assert [item.strategy for item in short[:5]] == STRATEGIES
    assert [item.origin for item in short[5:]] == ["ladder", "search"]
    full = {item.digest: item for item in smoke.results if item.fidelity == "full"}
    assert {item.strategy for item in full.values()} >= set(STRATEGIES)
    assert {item.origin for item in full.values() if item.strategy is None} <= {"ladder", "final"}


def test_records_hold_what_the_contract_lists(smoke: SmokeRun) -> None:
    names = "digest origin assignment options fraction weight_fraction executed_fraction metrics fidelity size_bytes"
    names += " latency_us parity train_seconds seed"
    for line in (smoke.folder.path / "results.jsonl").read_text().splitlines():
        raw = json.loads(line)
        assert set(names.split()) <= raw.keys()
        assert {"value", "std", "n", "values"} == raw["metrics"]["nll"].keys()
        assert {"median_us", "spread_us", "batch", "threads", "kernel"} <= raw["latency_us"][0].keys()
        assert raw["failure"] is None
    for item in smoke.results:
        assert item.digest == item.configuration.digest
        assert math.isfinite(item.metrics["nll"].value)
        assert item.size_bytes > 0
        assert item.parity is not None
        assert item.parity.layer_max_error < 1e-5
        assert 0 <= item.executed_fraction == item.fraction <= 1


def test_finalists_are_evaluated(smoke: SmokeRun) -> None:
    latest = {item.digest: item for item in smoke.results if item.fidelity == "full"}
    for item in latest.values():
        assert {"nll", "auc_low", "auc_high", "separation"} <= item.metrics.keys()
        assert 0.2 < item.metrics["auc_low"].value <= 1.0
        evaluation = smoke.folder.evaluation(item.digest)
        assert evaluation is not None
        assert evaluation.histograms


def test_finalists_are_timed_in_turns_with_the_float_file(smoke: SmokeRun) -> None:
    latest = {item.digest: item for item in smoke.results if item.fidelity == "full"}
    chosen = next(kernel.name for kernel in ops.kernels() if kernel.chosen)
    for item in latest.values():
        quantized = item.executed_fraction > 0
        for latency in item.latency_us:
            assert latency.ratio is not None
            assert latency.ratio > 0
            assert latency.kernel == (chosen if quantized else "")
            assert latency.busy == (latency.load is not None and latency.load > 0.25)


def test_front_is_the_front_of_the_final_trainings(smoke: SmokeRun) -> None:
    full = {item.digest: item for item in smoke.results if item.fidelity == "full"}
    front = smoke.folder.front()
    assert front is not None
    assert list(front.members) == pareto.front(full.values(), smoke.folder.manifest().objective_metric)
    assert front.members


def test_models_serve(smoke: SmokeRun) -> None:
    rng = np.random.default_rng(1)
    z, energy = rng.standard_normal((3, 373), np.float32), np.full((3, 1), 65536.0, np.float32)
    for item in smoke.results:
        if item.model is None:
            continue
        file = smoke.folder.path / item.model
        assert file.stat().st_size == item.size_bytes
        (showers,) = ops.session(file).run(None, {"z": z, "incident_energy": energy})
        assert showers.shape == (3, 368)
        assert np.isfinite(showers).all()


def test_study_is_an_ordinary_one(smoke: SmokeRun) -> None:
    storage = f"sqlite:///{smoke.folder.path / 'study.db'}"
    (summary,) = optuna.get_all_study_summaries(storage)
    study = optuna.load_study(study_name=summary.study_name, storage=storage)
    assert study.metric_names == ["nll", "executed_fraction"]
    # What the search was to begin with and has not come to stays queued.
    states = [trial.state.name for trial in study.trials]
    assert set(states) <= {"COMPLETE", "WAITING"}
    assert states.count("COMPLETE") == TRIALS


def test_report_names_the_data(smoke: SmokeRun) -> None:
    page = (smoke.folder.report / "index.html").read_text()
    assert "generated" in page
    for name in STRATEGIES:
        assert name in page


def test_result_is_on_stdout_and_progress_on_stderr(smoke: SmokeRun) -> None:
    printed = json.loads(smoke.output)
    assert Path(printed["report"]) == smoke.folder.report / "index.html"
    assert printed["front"] == json.loads((smoke.folder.path / "front.json").read_text())
    assert f"{TRIALS}/{TRIALS}" in smoke.errors
    assert "final training" in smoke.errors


def test_nothing_is_left_beside(smoke: SmokeRun) -> None:
    """No half-written file of an atomic write survives."""
    hidden = {path.name for path in smoke.folder.path.rglob(".*")}
    assert hidden <= {".lock"}


# --- going on --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick")
def test_same_command_again_measures_nothing(smoke: SmokeRun, tmp_path: Path) -> None:
    folder = smoke.copy(tmp_path / "run", "report")
    before, front = (folder.path / "results.jsonl").read_text(), folder.front()
    assert main(smoke.flags(folder.path)) == 0
    assert (folder.path / "results.jsonl").read_text() == before
    assert folder.front() == front
    assert folder.manifest().started == smoke.folder.manifest().started


@pytest.mark.usefixtures("quick")
def test_numbers_do_not_depend_on_the_number_of_workers(smoke: SmokeRun, tmp_path: Path) -> None:
    """What one process has trained two processes train again, and three configurations more."""
    folder = smoke.copy(tmp_path / "run", "report", "study.db", "results.jsonl")
    before = [item for item in smoke.results if item.fidelity == "full" or item.strategy == "default"]
    for item in before:
        folder.append(item)
    assert main(smoke.flags(folder.path, "--trials", str(TRIALS + 3), "--workers", "2")) == 0
    results = folder.results()
    assert results[: len(before)] == before
    assert folder.manifest().trials == TRIALS + 3
    short = {item.digest: item for item in results if item.fidelity == "finetuned"}
    assert len(short) == len([item for item in results if item.fidelity == "finetuned"]) == TRIALS + 3

    def numbers(item: Measurement) -> Measurement:
        return replace(item, train_seconds=0.0, latency_us=())

    known = [item for item in smoke.results if item.fidelity == "finetuned" and item.origin != "search"]
    assert len(known) > len(STRATEGIES)
    assert [numbers(short[item.digest]) for item in known] == [numbers(item) for item in known]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("--seed", "2"), "seed 1, now 2"),
        (("--preset", "laptop"), "preset smoke, now laptop"),
        (("--data",), r"data file 1 \w{64} .*, now \w{64} "),
    ],
    ids=str,
)
def test_other_settings_in_the_same_folder_are_refused(
    smoke: SmokeRun,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: tuple[str, ...],
    words: str,
) -> None:
    folder = smoke.copy(tmp_path / "run", "report", "work", "models", "evaluation")
    if change == ("--data",):
        change = ("--data", str(generator.make("ds1-photon", EVENTS, 4, tmp_path / "other.h5", workers=1)))
    content = (folder.path / "run.json").read_text()
    assert main(smoke.flags(folder.path, *change)) == 2
    errors = capsys.readouterr().err
    assert re.search(rf"with other settings or data \(.*{words}.*\); choose another --out", errors)
    assert (folder.path / "run.json").read_text() == content


@pytest.mark.usefixtures("quick")
def test_moved_data_go_on(smoke: SmokeRun, tmp_path: Path) -> None:
    """A run is what was measured with what, not where it lay."""
    folder = smoke.copy(tmp_path / "run", "report")
    moved = tmp_path / "moved.h5"
    moved.write_bytes(smoke.data.read_bytes())
    before = (folder.path / "results.jsonl").read_text()
    assert main(smoke.flags(folder.path, "--data", str(moved))) == 0
    assert (folder.path / "results.jsonl").read_text() == before


def test_a_typo_in_data_leaves_the_folder_free(
    smoke: SmokeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert main(smoke.flags(out, "--data", str(tmp_path / "typo.h5"))) == 2
    assert "typo.h5" in capsys.readouterr().err
    assert not (out / "run.json").exists()


@pytest.mark.usefixtures("quick")
def test_killed_run_goes_on_without_loss(
    smoke: SmokeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL in the middle of the search."""
    monkeypatch.setattr(pipeline, "train_finalists", lambda *_: [])
    folder = smoke.begun(tmp_path / "run")
    command = [
        sys.executable,
        "-P",
        "-c",
        "import sys; from bitsearch.cli import main; sys.exit(main(sys.argv[1:]))",
    ]
    with subprocess.Popen(
        [*command, *smoke.flags(folder.path)], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        while len(folder.results()) < 3:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    before = folder.results()
    assert 3 <= len(before) < TRIALS
    assert main(smoke.flags(folder.path)) == 0
    results = folder.results()
    assert results[: len(before)] == before
    short = [item for item in results if item.fidelity == "finetuned"]
    whole = [item for item in smoke.results if item.fidelity == "finetuned"]
    assert len(short) == len({item.digest for item in short}) == TRIALS
    # What is proposed last depends on which results were there when the sampler was asked.
    seeds = [item.digest for item in whole if item.origin != "search"]
    assert [item.digest for item in short if item.origin != "search"] == seeds
    known = {item.digest: item.metrics["nll"] for item in whole}
    assert all(item.metrics["nll"] == known[item.digest] for item in short if item.digest in known)


@pytest.mark.usefixtures("quick")
def test_second_run_in_the_same_folder_is_refused(
    smoke: SmokeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = smoke.copy(tmp_path / "run", "report", "work", "models", "evaluation")
    with folder.locked():
        assert main(smoke.flags(folder.path)) == 2
    assert "another run is writing to" in capsys.readouterr().err
