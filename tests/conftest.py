"""What many tests share: a small data file, one smoke run, and the networks and traces that it left."""

import os

# Before torch is imported: two threads give other roundings than one, and tests share their cores.
os.environ["OMP_NUM_THREADS"] = "1"

import fcntl
import io
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import onnx
import pytest
from hypothesis import settings
from sqlalchemy import Engine, event
from torch import nn

from bitsearch.cli import main
from bitsearch.core.manifest import Costs
from bitsearch.core.measurement import Measurement
from bitsearch.core.rundir import RunFolder
from bitsearch.core.space import SearchSpace
from bitsearch.core.strategy import Configuration
from bitsearch.core.task import Task
from bitsearch.models.caloinn.network import CaloINN
from bitsearch.models.showers import generator
from bitsearch.network import catalogue, quant
from bitsearch.network.spec import Spec
from bitsearch.network.trial import Trial
from bitsearch.onnxfile import runtime
from bitsearch.run import begin

settings.register_profile("bitsearch", deadline=None, derandomize=True)
settings.load_profile("bitsearch")

EVENTS, TRIALS = 600, 7
COSTS = Costs(
    data=0.1,
    trace=8.0,
    reference=1.0,
    candidate=0.5,
    final=1.0,
    measure=1.0,
    sensitivities=0.1,
    evaluation=2.0,
    latency=0.1,
    report=5.0,
    checkpoint_bytes=1_000_000,
    trace_bytes=1_000_000,
    model_bytes=1_000_000,
)
"""About those of the smoke run."""
TERMINAL = (
    "COLUMNS",
    "LINES",
    "NO_COLOR",
    "FORCE_COLOR",
    "CLICOLOR_FORCE",
    "TTY_COMPATIBLE",
    "TTY_INTERACTIVE",
)


@pytest.fixture(scope="session", autouse=True)
def _no_settings_of_the_caller() -> Iterator[None]:
    """Let nothing that is printed or chosen hang on the shell from which the tests are run."""
    with pytest.MonkeyPatch.context() as patch:
        for name in (*TERMINAL, *(name for name in os.environ if name.startswith("BITSEARCH_"))):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_power_cut() -> Iterator[None]:
    """Let SQLite not wait for the disk: what a process has written outlives it all the same."""

    def set_up(connection: sqlite3.Connection, _: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous = OFF")

    event.listen(Engine, "connect", set_up)
    yield
    event.remove(Engine, "connect", set_up)


@pytest.fixture(scope="session", autouse=True)
def _known_costs() -> Iterator[None]:
    """Let runs know beforehand what they cost, and time files shortly; test_plan.py rehearses."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(begin, "rehearse", lambda *_: COSTS)
        patch.setattr(runtime, "TIMING_SECONDS", 0.02)
        yield


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder that all processes of this session share."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@contextmanager
def once(folder: Path, name: str) -> Iterator[Path | None]:
    """Give a folder to fill to the first process, which others wait for; None when it is filled."""
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        place = folder / name
        if (place / "whole").exists():
            yield None
            return
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        yield place
        (place / "whole").touch()


@pytest.fixture(scope="session")
def shower_file(shared: Path) -> Path:
    """Make 600 generated ds1-photon showers."""
    with once(shared, "data") as folder:
        if folder:
            generator.make("ds1-photon", EVENTS, 3, folder / "photon.h5", workers=1)
    return shared / "data" / "photon.h5"


@dataclass(frozen=True)
class SmokeRun:
    """A finished smoke run; tests read it, and copy it before they write."""

    folder: RunFolder
    data: Path
    arguments: tuple[str, ...]
    output: str
    errors: str

    @cached_property
    def results(self) -> list[Measurement]:
        return self.folder.results()

    def copy(self, to: Path, *left_out: str) -> RunFolder:
        shutil.copytree(self.folder.path, to, ignore=shutil.ignore_patterns(*left_out))
        return RunFolder(to)

    def begun(self, to: Path) -> RunFolder:
        """Give a folder with the plan, float references and traces of the run, and nothing that was measured."""
        folder = RunFolder(to)
        folder.work.mkdir(parents=True)
        for pattern in ("run.json", "work/reference-*", "work/trace-*"):
            for file in self.folder.path.glob(pattern):
                shutil.copy(file, to / file.relative_to(self.folder.path))
        folder.update(stages=(), timed=(), ended=None)
        return folder

    def flags(self, out: Path, *more: str) -> list[str]:
        """Give the run's own flags with another folder; what comes later wins."""
        return [*self.arguments, "--out", str(out), *more]


@pytest.fixture(scope="session")
def smoke(shower_file: Path, shared: Path) -> SmokeRun:
    """Run `bitsearch run --preset smoke` once for all tests of all processes."""
    words = "run --model caloinn --preset smoke --device cpu --workers 1 --trials"
    arguments = (*words.split(), str(TRIALS), "--data", str(shower_file))
    texts = [shared / "smoke" / name for name in ("output", "errors")]
    with once(shared, "smoke") as folder:
        if folder:
            with redirect_stdout(io.StringIO()) as printed, redirect_stderr(io.StringIO()) as errors:
                status = main([*arguments, "--out", str(folder / "run"), "--json"])
            assert status == 0, errors.getvalue()
            for file, text in zip(texts, (printed, errors), strict=True):
                file.write_text(text.getvalue())
    return SmokeRun(
        RunFolder(shared / "smoke" / "run"), shower_file, arguments, *(file.read_text() for file in texts)
    )


@dataclass(frozen=True)
class Bench:
    """The spec of the smoke run with its trained float references and traces: everything that costs seconds."""

    trial: Trial
    space: SearchSpace

    @property
    def spec(self) -> Spec:
        return self.trial.spec

    @property
    def task(self) -> Task:
        return self.spec.task

    def strategy(self, name: str) -> Configuration:
        return next(item.configuration for item in self.space.strategies if item.name == name)

    def trained(self, configuration: Configuration) -> CaloINN:
        """Give the float reference's weights in the configuration's precisions."""
        network = self.trial.trainer.reference(configuration.options).network
        quant.apply(
            network, configuration.assignment, rounding=self.task.recipes.roundings(configuration.assignment)
        )
        assert isinstance(network, CaloINN)
        return network.cpu().eval()

    @cached_property
    def export(self) -> Callable[[str, str], tuple[nn.Module, onnx.ModelProto]]:
        """Give the network and the exported graph of a strategy, once each."""

        @cache
        def export(strategy: str, graph: str) -> tuple[nn.Module, onnx.ModelProto]:
            configuration = self.strategy(strategy)
            network = self.trained(configuration)
            return network, self.trial.exporter.export(network, configuration, graph, strategy)

        return export


@pytest.fixture(scope="session")
def bench(smoke: SmokeRun, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Set up on a copy of the smoke run's work."""
    folder = smoke.copy(
        tmp_path_factory.mktemp("bench") / "run", "report", "models", "evaluation", "study.db"
    )
    entry = catalogue.find("caloinn")
    task = entry.task("ds1-photon", "smoke")
    spec = Spec(
        model="caloinn",
        dataset=task.dataset,
        preset="smoke",
        paths=(smoke.data,),
        folder=folder.path,
        seed=1,
    )
    return Bench(Trial(spec), entry.space(task))
