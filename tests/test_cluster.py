"""Several runs, real processes, join one study: nothing is lost, nothing is measured twice."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import optuna
import postgresql
import pytest
import shared_study
from conftest import SmokeRun
from optuna.trial import FrozenTrial, TrialState

from bitsearch.core.errors import ConfigurationError
from bitsearch.core.measurement import Measurement
from bitsearch.core.strategy import Configuration
from bitsearch.run.search import search
from bitsearch.run.storage import close_storage, open_storage
from bitsearch.run.study import Study

KILLS = int(os.environ.get("BITSEARCH_KILLS", "6"))


@pytest.fixture(scope="module")
def server() -> Iterator[postgresql.Cluster]:
    if postgresql.programs() is None:
        pytest.skip(postgresql.MISSING)
    with postgresql.cluster() as running:
        yield running


@pytest.fixture(params=["postgresql", "sqlite", "journal"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    match request.param:
        case "sqlite":
            return f"sqlite:///{tmp_path / 'study.db'}"
        case "journal":
            return f"journal:{tmp_path / 'study.log'}"
    url: str = request.getfixturevalue("server").database()
    return url


class Runs:
    """Processes that share a study."""

    def __init__(self, storage: str, folder: Path, trials: int, seconds: float) -> None:
        self.storage, self.folder, self.trials, self.seconds = storage, folder, trials, seconds
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, workers: int = 1) -> None:
        words = (self.storage, self.folder / name, self.trials, self.seconds, workers)
        self.running[name] = subprocess.Popen([sys.executable, shared_study.__file__, *map(str, words)])

    def kill(self, name: str) -> None:
        process = self.running.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def wait(self) -> None:
        assert [process.wait(240) for process in self.running.values()] == [0] * len(self.running)

    def begun(self) -> list[str]:
        return [line for file in self.folder.glob("*/begun") for line in shared_study.read(file)]

    def until(self, ready: Callable[[], bool]) -> None:
        while not ready():
            assert all(process.poll() in (None, 0) for process in self.running.values())
            time.sleep(0.02)

    def has_begun_more(self, name: str, than: int) -> bool:
        ended = self.running[name].poll() is not None
        return ended or len(shared_study.read(self.folder / name / "begun")) > than

    def results(self, name: str) -> dict[str, Measurement]:
        lines = shared_study.read(self.folder / name / "results.jsonl")
        results = [Measurement.from_json(line) for line in lines]
        assert len({item.digest for item in results}) == len(results)
        return {item.digest: item for item in results}


@contextmanager
def sharing(storage: str, folder: Path, trials: int, seconds: float) -> Iterator[Runs]:
    runs = Runs(storage, folder, trials, seconds)
    try:
        yield runs
    finally:
        for name in list(runs.running):
            runs.kill(name)


def measured(study: Study) -> list[FrozenTrial]:
    """Give the trials that carry a measurement or its failure."""
    trials = study.optuna.get_trials()
    return [t for t in trials if t.state == TrialState.COMPLETE or "failure" in t.user_attrs]


def check(runs: Runs, names: list[str], interrupted: int) -> None:
    """Hold that all is measured once: in the study, and in what every run has written."""
    study = shared_study.open_study(runs.storage, runs.folder / "looker")
    trials = measured(study)
    digests = [study.configuration(trial.params).digest for trial in trials]
    assert len(digests) == len(set(digests)) == runs.trials
    assert {item.digest for item in shared_study.SEEDS} <= set(digests)
    assert not study.optuna.get_trials(states=(TrialState.RUNNING, TrialState.WAITING))
    for name in names:
        results = runs.results(name)
        assert results.keys() == set(digests)
        for trial, digest in zip(trials, digests, strict=True):
            assert results[digest] == study.measurement(trial)
    study.close()
    begun = Counter(runs.begun())
    assert begun.keys() == set(digests)
    assert sum(begun.values()) - len(begun) <= interrupted


def test_runs_that_begin_together_share_the_trials(storage: str, tmp_path: Path) -> None:
    with sharing(storage, tmp_path, 24, 0.2) as runs:
        runs.start("a")
        runs.start("b", workers=2)
        runs.wait()
        check(runs, ["a", "b"], interrupted=0)
        assert all(shared_study.read(tmp_path / name / "begun") for name in "ab")


def test_one_killed_one_late(server: postgresql.Cluster, tmp_path: Path) -> None:
    """The late one leaves alone what the living run measures, and takes up what the killed one left."""
    with sharing(server.database(), tmp_path, 24, 0.4) as runs:
        runs.start("killed")
        runs.start("living", workers=2)
        runs.until(lambda: len(shared_study.read(tmp_path / "killed" / "begun")) >= 3)
        runs.kill("killed")
        runs.start("late")
        runs.wait()
        check(runs, ["living", "late"], interrupted=1)
        assert shared_study.read(tmp_path / "late" / "begun")


def test_runs_killed_at_random(server: postgresql.Cluster, tmp_path: Path) -> None:
    """BITSEARCH_KILLS sets how often; a run that is begun again goes on."""
    rng, names = random.Random(KILLS), ["a", "b", "c"]
    with sharing(server.database(), tmp_path, 10 + 4 * KILLS, 0.4) as runs:
        for name in names:
            runs.start(name)
        kills = 0
        while kills < KILLS:
            name = rng.choice(names)
            # Not while it starts: what is killed then measures nothing.
            begun = len(shared_study.read(tmp_path / name / "begun"))
            runs.until(partial(runs.has_begun_more, name, begun))
            time.sleep(rng.uniform(0, 0.3))
            if runs.running[name].poll() is not None:
                break
            runs.kill(name)
            kills += 1
            runs.start(name)
        runs.wait()
        assert kills >= KILLS // 2
        sys.stderr.write(f"{kills} kills, {len(runs.begun()) - runs.trials} measurements begun again\n")
        check(runs, names, interrupted=kills)


def test_an_orderly_end_queues_its_trial_at_once(tmp_path: Path) -> None:
    """What is interrupted gives its trials back, and others need not wait for them."""
    study = shared_study.open_study(f"sqlite:///{tmp_path / 'study.db'}", tmp_path / "a")
    study.enqueue(shared_study.SEEDS)
    _, configuration = study.ask()
    study.let_go({})
    (waiting, *_) = sorted(study.optuna.get_trials(states=(TrialState.WAITING,)), key=lambda t: -t.number)
    assert waiting.user_attrs == {"replaces": 0, "deaths": 0}
    assert study.configuration(waiting.system_attrs["fixed_params"]) == configuration
    assert not study.optuna.get_trials(states=(TrialState.RUNNING,))


def test_what_ends_every_run_that_measures_it_counts_as_failed(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    results: dict[str, Measurement] = {}
    hopeless = shared_study.SEEDS[0]
    for _ in range(5):
        study = shared_study.open_study(storage, tmp_path / "a")
        study.recover(results)
        study.enqueue([hopeless])
        assert study.ask()[1] == hopeless
    study = shared_study.open_study(storage, tmp_path / "a")
    study.recover(results)

    def failed(configuration: Configuration, origin: str, reason: str) -> Measurement:
        measurement = shared_study.made_up(configuration, origin)
        return replace(measurement, metrics={}, failure=reason)

    search(study, shared_study.made_up, 4, results, lambda _: None, {}, failed=failed)
    assert results[hopeless.digest].failure == "the run that measured it has died 5 times"
    assert len(results) == 4


def test_a_run_taken_for_dead_adds_its_result_or_leaves_it(tmp_path: Path) -> None:
    """A run that was only stopped for a while comes back: its result counts unless there is one already."""
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    slow = shared_study.open_study(storage, tmp_path / "slow")
    slow.enqueue(shared_study.SEEDS[:1])
    for late in (False, True):
        trial, configuration = slow.ask()
        quick = shared_study.open_study(storage, tmp_path / "quick")
        quick._requeue(slow.optuna.get_trials()[trial.number])
        measurement = shared_study.made_up(configuration, "search")
        if late:
            other, again = quick.ask()
            assert again == configuration
            quick.tell(other, measurement)
        slow.tell(trial, measurement)
        assert [study.digest for study in map(slow.measurement, measured(slow))].count(
            configuration.digest
        ) == 1
        slow.enqueue(shared_study.SEEDS[1:2])
        if not late:
            # The trial in its place is a duplicate now.
            duplicate, _ = quick.ask()
            assert configuration.digest in quick.before(duplicate)
            quick.drop(duplicate, measurement)


@pytest.mark.parametrize(
    ("url", "extra", "module"),
    [
        ("postgresql://u:secret@host/db", "postgresql", "psycopg"),
        ("mysql://u:secret@host/db", "mysql", "pymysql"),
        ("mariadb://u:secret@host/db", "mysql", "pymysql"),
        ("grpc://host:13000", "grpc", "grpc"),
    ],
)
def test_a_missing_driver_names_its_extra(
    monkeypatch: pytest.MonkeyPatch, url: str, extra: str, module: str
) -> None:
    monkeypatch.setattr("bitsearch.run.storage.find_spec", lambda name: None if name == module else name)
    expected = f"the storage needs {module}, not installed here: pip install 'bitsearch\\[{extra}\\]'"
    with pytest.raises(ConfigurationError, match=expected):
        Study.open(shared_study.SPACE, shared_study.NLL, url, "study", 1)


def test_passwords_stay_out_of_messages() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Study.open(shared_study.SPACE, shared_study.NLL, "postgresql://u:sec/ret@127.0.0.1:1/db", "study", 1)
    assert "postgresql://u:***@127.0.0.1:1/db" in str(caught.value)
    assert "ret" not in str(caught.value).replace("returned", "")


def test_grpc_proxy(tmp_path: Path) -> None:
    """The proxy serves a storage of its own; runs know its address alone."""
    pytest.importorskip("grpc")
    from optuna.storages._grpc.server import make_server

    backend = optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 'study.db'}")
    with socket.socket() as found:
        found.bind(("localhost", 0))
        port = found.getsockname()[1]
    proxy = make_server(backend, "localhost", port)
    proxy.start()
    try:
        with sharing(f"grpc://localhost:{port}", tmp_path, 8, 0.1) as runs:
            runs.start("a")
            runs.start("b")
            runs.wait()
            check(runs, ["a", "b"], interrupted=0)
    finally:
        proxy.stop(None)


QUICK = """
import sys
from bitsearch import report
from bitsearch.cli import main
from bitsearch.run import pipeline
report.build = lambda folder, _executor: folder.report / "index.html"
pipeline._evaluate = lambda *_: None
sys.exit(main(sys.argv[1:]))
"""
"""A run without plots of the physics and without report, which sharing does not change."""


@pytest.mark.slow
def test_real_runs_share_search_and_finals(
    server: postgresql.Cluster, smoke: SmokeRun, tmp_path: Path
) -> None:
    """Two runs in folders of their own: every training is one run's, and both end with everything."""
    url = server.database()
    folders = [smoke.begun(tmp_path / name) for name in "ab"]
    commands = [
        [sys.executable, "-P", "-c", QUICK, *smoke.flags(folder.path, "--storage", url, "--trials", "9")]
        for folder in folders
    ]
    with subprocess.Popen(commands[0]) as first, subprocess.Popen(commands[1]) as second:
        assert [first.wait(), second.wait()] == [0, 0]
    for fidelity in ("finetuned", "full"):
        one, other = (
            {item.digest: item for item in folder.results() if item.fidelity == fidelity}
            for folder in folders
        )
        assert one.keys() == other.keys()
        assert all(item.metrics == other[digest].metrics for digest, item in one.items())
        assert len(one) == 9 or fidelity == "full"
    for folder in folders:
        front = folder.front()
        assert front is not None
        full = [item for item in folder.results() if item.fidelity == "full"]
        assert {item.strategy for item in full} >= {"default", "all"}
        assert all(folder.model_file(item) for item in full)
        assert all(item.digest in folder.manifest().timed for item in full)
    opened = open_storage(url)
    searched, finals = sorted(optuna.get_all_study_names(opened))
    assert finals == f"{searched}-finals"
    for name, count in ((searched, 9), (finals, len({item.digest for item in full}))):
        study = optuna.load_study(study_name=name, storage=opened)
        complete = study.get_trials(states=(TrialState.COMPLETE,))
        assert len({str(trial.params) for trial in complete}) == len(complete) == count
        assert {trial.user_attrs["folder"] for trial in complete} == {str(folder.path) for folder in folders}
    close_storage(opened)
