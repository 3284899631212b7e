"""What a run says that it would train, how long it would take, and how long it still takes."""

import json
from pathlib import Path

import pytest
from conftest import TRIALS, SmokeRun
from test_search import HANDMADE, make_space

from bitsearch.cli import main
from bitsearch.core.manifest import Costs, Stage
from bitsearch.core.space import SearchSpace
from bitsearch.core.task import Recipe, Recipes
from bitsearch.run import begin
from bitsearch.run.plan import Forecast, Work, plan, predict
from bitsearch.run.rehearsal import rehearse

STAGES = [
    "data",
    "float references",
    "baselines and search",
    "final training",
    "evaluation",
    "latency",
    "report",
]
COSTS = Costs(
    data=3.0,
    trace=10.0,
    reference=100.0,
    candidate=20.0,
    final=50.0,
    measure=2.0,
    sensitivities=1.0,
    evaluation=30.0,
    latency=0.5,
    report=12.0,
    checkpoint_bytes=1000,
    trace_bytes=300,
    model_bytes=200,
)


def recipe(steps: int, batch_size: int) -> Recipe:
    return Recipe(steps, batch_size, 1e-3, 0.0, 1e-8)


def small() -> tuple[SearchSpace, Recipes]:
    """Two options and one strategy; 40 trials earn five challengers beside it; three trainings each."""
    base = make_space(6)
    space = SearchSpace(base.layers, base.groups, base.options, (HANDMADE,))
    return space, Recipes(recipe(100, 10), recipe(20, 10), recipe(50, 30), finalists=3, repetitions=3)


def test_work_by_hand() -> None:
    assert plan(*small(), 40) == (
        Work("float references", 6, 600, 6_000),
        Work("candidates", 40, 800, 8_000),
        Work("finals", 18, 900, 27_000),
    )


def test_times_by_hand() -> None:
    """Two references, four more for repeated trainings, 40 candidates, and six finalists of three trainings each."""
    found = predict(*small(), 40, COSTS, workers=1)
    assert [item.name for item in found.stages] == STAGES
    assert [item.seconds for item in found.stages] == [
        3.0,
        2 * (100 + 10),
        4 * 100 + 1 + 40 * (20 + 2),
        6 * 3 * (50 + 2),
        6 * 30,
        6 * 0.5,
        12.0,
    ]
    assert found.seconds == sum(item.seconds for item in found.stages)
    # Weights of 6 references and 18 finals, twice more for the optimiser of one that is under way.
    assert found.disk_bytes == (6 + 18 + 2) * 1000 + 2 * 300 + 18 * 200


def test_times_of_several_processes_and_of_a_search_that_is_cut_short() -> None:
    seconds = {item.name: item.seconds for item in predict(*small(), 40, COSTS, 4, timeout=100.0).stages}
    assert seconds["float references"] == 3 + 110  # each process reads the data
    assert seconds["baselines and search"] == 100 + 1 + 100
    assert seconds["final training"] == 2 * 3 * (50 + 2)
    assert seconds["report"] == 3.0


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_time_left_of_a_run_that_goes_as_predicted(clock: Clock) -> None:
    forecast = Forecast([Stage("search", 100.0), Stage("finals", 300.0)], clock)
    assert forecast.seconds == 400
    forecast.begin("search")
    for share in (0.25, 0.5, 0.75, 1.0):
        clock.now += 25
        forecast.advance(share)
        assert forecast.seconds == pytest.approx(400 - clock.now)
    forecast.begin("finals")
    assert forecast.seconds == pytest.approx(300)
    clock.now += 60  # nothing is done yet: time goes by all the same
    assert forecast.seconds == pytest.approx(240)


def test_time_left_follows_what_is_measured(clock: Clock) -> None:
    """Everything takes three times as long as was predicted."""
    forecast = Forecast([Stage("search", 100.0), Stage("finals", 100.0)], clock)
    forecast.begin("search")
    clock.now += 150
    forecast.advance(0.5)
    assert 3 * 150 * 0.8 < forecast.seconds < 3 * 150
    clock.now += 150
    forecast.advance(1.0)
    forecast.begin("finals")
    assert 300 * 0.8 < forecast.seconds < 300


def test_what_is_found_on_disk_says_nothing_of_the_rest(clock: Clock) -> None:
    """References come from disk in a second, and half of the search is done: the other half takes its time."""
    forecast = Forecast([Stage("references", 1000.0), Stage("search", 100.0)], clock)
    forecast.begin("references", counts=False)
    clock.now += 1
    forecast.advance(1.0)
    forecast.begin("search")
    forecast.resume(0.5)
    assert forecast.seconds == pytest.approx(50)
    clock.now += 10
    forecast.advance(0.6)
    assert forecast.seconds == pytest.approx(40)


def test_a_stage_of_another_size_than_predicted(clock: Clock) -> None:
    forecast = Forecast([Stage("finals", 100.0), Stage("report", 7.0)], clock)
    forecast.begin("finals")
    forecast.resume(0.0, size=0.25)
    assert forecast.seconds == pytest.approx(25 + 7)


def test_time_left_is_never_negative(clock: Clock) -> None:
    forecast = Forecast([], clock)
    forecast.begin("report")
    clock.now += 50
    assert forecast.seconds == 0


def test_a_dry_run_times_and_keeps_nothing(
    tmp_path: Path, smoke: SmokeRun, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(begin, "rehearse", rehearse)
    words = ["run", "--model", "caloinn", "--preset", "smoke", "--trials", str(TRIALS), "--dry-run", "--json"]
    words += ["--data", str(smoke.data)]
    assert main([*words, "--min-fraction", "0.9999"]) == 2
    assert "cannot be reached" in capsys.readouterr().err
    assert main(words) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [item["trainings"] for item in printed["trainings"] if item["kind"] == "candidates"] == [TRIALS]
    assert "blockcentral" in printed["strategies"]
    assert [item["name"] for item in printed["stages"]] == STAGES
    assert all(item["seconds"] > 0 for item in printed["stages"])
    assert printed["seconds"] == pytest.approx(sum(item["seconds"] for item in printed["stages"]))
    on_disk = sum(
        file.stat().st_size for file in smoke.folder.path.rglob("*") if file.suffix in (".pt", ".onnx")
    )
    assert 0.5 < printed["disk_bytes"] / on_disk < 2
    assert list(tmp_path.iterdir()) == []


def test_a_run_says_its_plan_first_and_keeps_it(smoke: SmokeRun) -> None:
    manifest = smoke.folder.manifest()
    assert [item.name for item in manifest.predicted] == STAGES
    assert manifest.costs is not None
    assert smoke.errors.index("predicted: ") < smoke.errors.index("float references\n")


def test_every_long_stage_says_how_far_it_is(smoke: SmokeRun) -> None:
    for words in ("references and traces ready", "finally trained", "evaluated"):
        lines = [line.split() for line in smoke.errors.splitlines() if f" {words}" in line]
        done, whole = lines[-1][0].split("/")
        assert [line[0] for line in lines] == [f"{number}/{whole}" for number in range(1, int(whole) + 1)]
        assert done == whole
        assert all(line[-4] == "about" and line[-1] == "left" for line in lines)
    assert "layer sensitivities" in smoke.errors


def test_status_of_a_run_under_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from synthetic_run import begin

    from bitsearch.core.manifest import Pulse

    folder = begin(tmp_path / "run")
    folder.update(stage="final training")
    folder.write_pulse(Pulse("final training", 0.25, 321.4))
    assert main(["status", str(folder.path), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["stage"], printed["share_of_stage"], printed["seconds_left"]) == (
        "final training",
        0.25,
        321,
    )
    assert 0 <= printed["seconds_since_last_write"] < 60
