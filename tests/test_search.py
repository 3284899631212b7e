"""The search with a measure that costs nothing: what is proposed, what is recorded, what survives a crash."""

import json
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock

import optuna
import pytest
from optuna.trial import TrialState

from bitsearch.core.budget import Budget
from bitsearch.core.errors import ConfigurationError
from bitsearch.core.measurement import Direction, Measurement, Metric, Quantity
from bitsearch.core.precision import Precision
from bitsearch.core.space import Group, SearchSpace
from bitsearch.core.strategy import Configuration, Strategy
from bitsearch.run.samplers import CLASSES, SAMPLERS
from bitsearch.run.search import search
from bitsearch.run.study import FRACTION, INSTEAD_OF, Study

NLL = Metric("nll", "NLL", "nats", "minimize", "made up")


def make_space(groups: int, choices: tuple[str, ...] = ("random", "exchange")) -> SearchSpace:
    layers = tuple(f"l{index}" for index in range(groups))
    return SearchSpace(
        layers, tuple(Group(f"group {name}", (name,), "") for name in layers), {"permutation": choices}, ()
    )


SPACE = make_space(6)
BASELINES = [
    SPACE.configuration([], {"permutation": "random"}),
    SPACE.configuration([], {"permutation": "exchange"}),
    SPACE.configuration([group.name for group in SPACE.groups], {"permutation": "random"}),
]
ORIGINS = {item.digest: f"baseline:b{index}" for index, item in enumerate(BASELINES)}


class Killed(BaseException):
    """What a crash looks like from inside."""


@dataclass
class World:
    """A fake measure and a fake `results.jsonl`."""

    fail: Callable[[Configuration], bool] = lambda _configuration: False
    measured: list[str] = field(default_factory=list)
    recorded: list[Measurement] = field(default_factory=list)
    lock: Lock = field(default_factory=Lock)

    def measure(self, configuration: Configuration, origin: str) -> Measurement:
        with self.lock:
            self.measured.append(configuration.digest)
        share = len(configuration.assignment.quantized) / len(configuration.assignment)
        failure = "the loss became nan" if self.fail(configuration) else None
        assignment = {name: str(value) for name, value in configuration.assignment.items()}
        return Measurement(
            configuration.digest,
            origin,
            assignment,
            dict(configuration.options),
            share,
            share,
            share,
            "finetuned",
            1,
            {} if failure else {"nll": Quantity(share**2)},
            failure=failure,
        )

    @property
    def results(self) -> dict[str, Measurement]:
        return {item.digest: item for item in self.recorded}

    def run(self, study: Study, trials: int, record: Callable[[Measurement], None] | None = None) -> None:
        search(study, self.measure, trials, self.results, record or self.recorded.append, ORIGINS)


def memory(space: SearchSpace = SPACE, sampler: str = "mask", seed: int = 1) -> Study:
    return Study.open(space, NLL, "sqlite:///:memory:", "study", seed, sampler)


def on_disk(folder: Path, space: SearchSpace = SPACE, objective: Metric = NLL) -> Study:
    return Study.open(space, objective, f"sqlite:///{folder / 'study.db'}", "study", 1)


def states(study: Study) -> dict[TrialState, int]:
    found = [trial.state for trial in study.optuna.get_trials()]
    return {state: found.count(state) for state in set(found)}


def test_every_configuration_is_measured_once_baselines_first() -> None:
    world, study = World(), memory()
    study.enqueue(BASELINES)
    world.run(study, 16)
    assert world.measured[:3] == [item.digest for item in BASELINES]
    assert len(set(world.measured)) == len(world.measured) == len(world.recorded) == 16
    origins = [item.origin for item in world.recorded]
    assert origins[:3] == ["baseline:b0", "baseline:b1", "baseline:b2"]
    assert set(origins[3:]) == {"search"}
    assert {item.configuration for item in world.recorded[:3]} == set(BASELINES)


def test_optuna_knows_every_measurement() -> None:
    """The study stays an ordinary Optuna study: named objectives, parameters and attributes that people can read."""
    world, study = World(), memory()
    study.enqueue(BASELINES)
    world.run(study, 12)
    assert study.optuna.metric_names == ["nll", FRACTION]
    assert [item.name for item in study.optuna.directions] == ["MINIMIZE", "MAXIMIZE"]
    told = {study.configuration(trial.params).digest: trial for trial in study.optuna.get_trials()}
    assert told.keys() >= world.results.keys()
    for digest, item in world.results.items():
        assert told[digest].values == [item.metrics["nll"].value, item.executed_fraction]
        assert study.measurement(told[digest]) == item
        assert all(len(json.dumps(value)) < 200 for value in told[digest].user_attrs.values())
    everything = {group.name: "ternary" for group in SPACE.groups}
    assert told[BASELINES[2].digest].params == {**everything, "permutation": "random"}


def test_parameters_invert_configurations() -> None:
    study = memory()
    for configuration in BASELINES:
        assert study.configuration(study.parameters(configuration)) == configuration


def test_same_seed_gives_the_same_search() -> None:
    runs = []
    for seed in (1, 1, 2):
        world = World()
        world.run(memory(seed=seed), 11)
        runs.append(world.measured)
    assert runs[0] == runs[1] != runs[2]


def test_trials_are_a_total(tmp_path: Path) -> None:
    world = World()
    for trials, expected in ((4, 4), (3, 4), (6, 6)):
        study = on_disk(tmp_path)
        study.recover(world.results)
        study.enqueue(BASELINES)
        world.run(study, trials)
        assert len(world.measured) == expected
    assert len(set(world.measured)) == 6


@pytest.mark.parametrize("when", ["before record", "between record and tell"])
def test_crash_loses_nothing_and_repeats_nothing(tmp_path: Path, when: str) -> None:
    world = World()
    study = on_disk(tmp_path)
    study.enqueue(BASELINES)

    def record(measurement: Measurement) -> None:
        if len(world.recorded) < 5:
            world.recorded.append(measurement)
            return
        if when == "between record and tell":
            world.recorded.append(measurement)
        raise Killed

    with pytest.raises(Killed):
        world.run(study, 9, record)
    lost = world.measured[-1] if when == "before record" else None
    before = list(world.recorded)
    assert states(study)[TrialState.RUNNING] == 1

    study = on_disk(tmp_path)
    study.recover(world.results)
    study.enqueue(BASELINES)
    again = len(world.measured)
    world.run(study, 9)
    assert world.recorded[: len(before)] == before
    assert len(world.results) == len(world.recorded) == 9
    if lost:
        assert world.measured[again] == lost
        assert world.measured.count(lost) == 2
    counts = [world.measured.count(digest) for digest in world.results if digest != lost]
    assert counts == [1] * len(counts)
    assert TrialState.RUNNING not in states(study)
    complete = {
        study.configuration(trial.params).digest
        for trial in study.optuna.get_trials(states=(TrialState.COMPLETE,))
    }
    assert complete == world.results.keys()


def test_baseline_survives_a_crash_while_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trial exists in the storage, but no parameter of it does."""
    study = on_disk(tmp_path)
    study.enqueue(BASELINES)

    def killed(*_: object, **__: object) -> int:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(optuna.Trial, "suggest_categorical", killed)
        with pytest.raises(Killed):
            study.ask()
    world, study = World(), on_disk(tmp_path)
    study.recover({})
    study.enqueue(BASELINES)
    world.run(study, 4)
    assert {item.digest for item in BASELINES} <= set(world.measured)


def test_results_without_a_study_are_not_measured_again(tmp_path: Path) -> None:
    """`results.jsonl` was kept, `study.db` was lost."""
    world = World()
    study = on_disk(tmp_path)
    study.enqueue(BASELINES)
    world.run(study, 6)
    (tmp_path / "study.db").unlink()
    study = on_disk(tmp_path)
    study.recover(world.results)
    study.enqueue(BASELINES)
    world.run(study, 10)
    assert len(world.measured) == len(set(world.measured)) == 10
    assert len(study.optuna.get_trials(states=(TrialState.COMPLETE,))) >= 4 + len(BASELINES)


def test_failed_measurements_do_not_stop_the_study() -> None:
    world, study = World(fail=lambda configuration: "l0" in configuration.assignment.quantized), memory()
    study.enqueue(BASELINES)
    world.run(study, 12)
    failed = [item for item in world.recorded if item.failure]
    assert len(world.measured) == len(set(world.measured)) == 12
    assert failed
    failures = study.optuna.get_trials(states=(TrialState.FAIL,))
    assert {study.configuration(trial.params).digest for trial in failures} >= {
        item.digest for item in failed
    }


def test_space_where_everything_fails_ends() -> None:
    world = World(fail=lambda _: True)
    world.run(memory(make_space(2)), 100)
    assert len(world.measured) == len(set(world.measured)) == 8


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize(("groups", "choices"), [(1, ("only",)), (3, ("random", "exchange"))])
def test_tiny_space_is_exhausted(groups: int, choices: tuple[str, ...], workers: int) -> None:
    space, world = make_space(groups, choices), World()
    study = memory(space)
    with ThreadPoolExecutor(workers) as pool:
        executor = None if workers == 1 else pool
        search(study, world.measure, 1000, {}, world.recorded.append, {}, executor, workers)
    assert len(world.measured) == len(set(world.measured)) == len(world.recorded) == 2**groups * len(choices)


@pytest.mark.parametrize("trials", [1, 2, 7])
def test_workers_side_by_side(tmp_path: Path, trials: int) -> None:
    world, study = World(), on_disk(tmp_path)
    study.enqueue(BASELINES)
    with ThreadPoolExecutor(2) as pool:
        search(study, world.measure, trials, {}, world.recorded.append, ORIGINS, pool, 2)
    assert len(world.measured) == len(set(world.measured)) == len(world.recorded) == trials
    assert set(world.measured[:3]) >= {item.digest for item in BASELINES[:trials]}
    assert TrialState.RUNNING not in states(study)


def test_workers_are_never_idle_nor_too_many() -> None:
    running, most, lock = 0, 0, Lock()
    world, inner = World(), World().measure

    def measure(configuration: Configuration, origin: str) -> Measurement:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        made = inner(configuration, origin)
        with lock:
            running -= 1
        return made

    with ThreadPoolExecutor(8) as pool:
        search(memory(), measure, 12, {}, world.recorded.append, {}, pool, 3)
    assert 1 <= most <= 3


@pytest.mark.parametrize("sampler", sorted({*SAMPLERS, *CLASSES} - {"gp", "GPSampler"}))
def test_samplers_by_name(sampler: str) -> None:
    world, study = World(), memory(sampler=sampler)
    study.enqueue(BASELINES)
    world.run(study, 6)
    assert type(study.optuna.sampler) is {**SAMPLERS, **CLASSES}[sampler]
    assert len(set(world.measured)) == 6


@pytest.mark.parametrize(
    "sampler", ["Foo", "BaseSampler", "GridSampler", "PartialFixedSampler", "", "__doc__"]
)
def test_unknown_samplers_are_refused(sampler: str) -> None:
    with pytest.raises(
        ConfigurationError, match=f"there is no sampler '{sampler}'; expected one of mask, .*tpe"
    ):
        memory(sampler=sampler)


@pytest.mark.parametrize(
    ("space", "objective"),
    [
        (make_space(5), NLL),
        (make_space(6, ("random",)), NLL),
        (SPACE, Metric("auc", "AUC", "", "minimize", "")),
    ],
    ids=["groups", "options", "objective"],
)
def test_study_of_another_space_is_refused(tmp_path: Path, space: SearchSpace, objective: Metric) -> None:
    on_disk(tmp_path)
    on_disk(tmp_path)
    with pytest.raises(
        ConfigurationError, match=r"study study in sqlite:.* searched .*, expected .*choose another"
    ):
        on_disk(tmp_path, space, objective)


def test_maximised_objectives() -> None:
    study = Study.open(SPACE, Metric("auc", "AUC", "", "maximize", ""), "sqlite:///:memory:", "s", 1)
    assert [item.name for item in study.optuna.directions] == ["MAXIMIZE", "MAXIMIZE"]


SIZES = dict(zip((group.name for group in SPACE.groups), (0.1, 0.1, 0.2, 0.2, 0.2, 0.2), strict=True))
SCORES = dict(zip(SIZES, (5.0, 1.0, 60.0, 4.0, 20.0, 1e9), strict=True))
HANDMADE = Strategy("third", SPACE.configuration(["group l2", "group l0"], {"permutation": "random"}), "")


def seeded(trials: int) -> list[Configuration]:
    space = replace(SPACE, strategies=(HANDMADE,))
    study = Study.open(space, NLL, "sqlite:///:memory:", "study", 1, gains=SIZES)
    study.learn(SCORES)
    return study.ladder(trials)


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_smoothed_measurements_keep_their_direction_and_leave_failures_out(direction: Direction) -> None:
    objective, world = replace(NLL, direction=direction), World()
    study = Study.open(SPACE, objective, "sqlite:///:memory:", "study", 1)
    configurations = [
        SPACE.configuration([f"group l{i}" for i in range(count)], BASELINES[0].options) for count in range(7)
    ]
    sign = 1 if direction == "minimize" else -1
    items = [
        replace(item, metrics={"nll": Quantity(sign * item.executed_fraction)})
        for item in (world.measure(configuration, "search") for configuration in configurations)
    ]
    failed = replace(items[3], metrics={}, failure="the loss became nan")
    found = study.smoothed([*items[:3], failed, *items[4:]])
    assert found.keys() == {item.digest for item in items} - {failed.digest}
    for item in items[:3]:
        assert found[item.digest].metrics["nll"].value == pytest.approx(item.metrics["nll"].value, abs=0.1)
    few = study.smoothed(items[:2])
    assert list(few.values()) == items[:2]


def test_ladder_quantises_what_suffers_least_for_its_size() -> None:
    # Scores for their sizes: 50, 10, 300, 20, 100, 5e9.
    order = [f"group l{index}" for index in (1, 3, 0, 4, 2, 5)]
    rungs = seeded(60)
    assert len(set(rungs)) == len(rungs) <= 20
    for rung in rungs:
        chosen = SPACE.quantized_groups(rung)
        assert set(chosen) == set(order[: len(chosen)])


def test_ladder_holds_the_ends_and_what_lies_just_above_the_handmade_under_every_option() -> None:
    rungs = seeded(60)
    everything = [rung.options["permutation"] for rung in rungs if len(SPACE.quantized_groups(rung)) == 6]
    assert sorted(everything) == ["exchange", "random"]
    assert {rung.options["permutation"] for rung in rungs if len(SPACE.quantized_groups(rung)) < 6} == {
        "exchange",
        "random",
    }
    # The handmade one quantises 0.3: so do the two groups that suffer least.
    assert set(SPACE.quantized_groups(rungs[2])) == {"group l1", "group l3"}


def test_ladder_has_the_precision_of_the_handmade() -> None:
    """Ternary and binary weights take the same bits."""
    space = SPACE.among([Precision.FLOAT32, Precision.BINARY, Precision.TERNARY])
    study = Study.open(space, NLL, "sqlite:///:memory:", "study", 1, gains=SIZES)
    study.learn(SCORES)
    assert {value for rung in study.ladder(60) for value in rung.assignment.values()} == {
        "float32",
        "ternary",
    }


@pytest.mark.parametrize(("trials", "most"), [(3, 1), (12, 4), (1000, 20)])
def test_ladder_leaves_trials_to_the_search(trials: int, most: int) -> None:
    assert 1 <= len(seeded(trials)) <= most


def test_interrupted_configuration_is_taken_up_first(tmp_path: Path) -> None:
    """What was being measured when the process was killed does not go behind what is queued."""
    study = on_disk(tmp_path)
    study.enqueue(BASELINES)
    _, asked = study.ask()
    world, study = World(), on_disk(tmp_path)
    study.recover({})
    study.enqueue(BASELINES)
    world.run(study, len(BASELINES))
    assert asked == BASELINES[0]
    assert world.measured == [item.digest for item in BASELINES]
    assert not study.optuna.get_trials(states=(TrialState.RUNNING,))


def limited(least: float, keep: tuple[str, ...], sampler: str = "mask") -> Study:
    space = replace(SPACE, strategies=(HANDMADE,))
    return Study.open(space, NLL, "sqlite:///:memory:", "study", 1, sampler, SIZES, least, keep)


@pytest.mark.parametrize("sampler", ["mask", "stratified", "ladder"])
def test_limits_hold_for_all_but_the_handmade(sampler: str) -> None:
    """Of the groups l2 to l5, 0.2 each, three or four reach 0.55: five masks under two options."""
    world, study = World(), limited(0.55, ("group l[01]",), sampler)
    study.learn(SCORES)
    assert not study.allows(HANDMADE.configuration)
    rungs = study.ladder(60)
    study.enqueue([HANDMADE.configuration, *rungs])
    world.run(study, 60)
    proposed = {item.digest: item for item in world.recorded if item.digest != HANDMADE.configuration.digest}
    assert len(rungs) > 2
    assert len(proposed) == 10
    assert len(world.recorded) == 11
    for item in proposed.values():
        chosen = SPACE.quantized_groups(item.configuration)
        assert {"group l0", "group l1"}.isdisjoint(chosen)
        assert sum(SIZES[name] for name in chosen) >= 0.55


@pytest.mark.parametrize(
    ("least", "keep", "words"),
    [
        (1.2, (), r"--min-fraction 1\.2: expected 0 to 1"),
        (float("nan"), (), "--min-fraction nan: expected 0 to 1"),
        (0.9, ("group l[01]",), r"--min-fraction 0\.9 cannot be reached: .* but those of --keep .* 0\.8000"),
        (0.0, ("l0",), "--keep l0: no group matches; there are group l0, group l1, .*group l5"),
        (0.0, ("*",), "every group"),
    ],
)
def test_limits_that_nothing_keeps_are_refused(least: float, keep: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        limited(least, keep)


def test_samplers_that_know_no_limits_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"--sampler tpe knows neither .* mask, stratified, ladder"):
        limited(0.5, (), "tpe")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_search_that_is_over_leaves_nothing_open(workers: int) -> None:
    """What is under way is still measured and told; the same study goes on to its total afterwards."""
    world, study = World(), memory()
    study.enqueue(BASELINES)
    with ThreadPoolExecutor(workers) as executor:
        search(
            study, world.measure, 12, world.results, world.recorded.append, ORIGINS, executor, workers,
            lambda: len(world.measured) < 4,
        )  # fmt: skip
        assert 4 <= len(world.recorded) <= 4 + workers
        assert states(study) == {TrialState.COMPLETE: len(world.recorded)}
    world.run(study, 12)
    assert len(set(world.measured)) == len(world.measured) == 12


def test_proposals_that_came_too_late_are_withdrawn() -> None:
    """Another run put a neighbour in the queue while this one measured the last that was wanted."""
    world, study = World(), memory()
    study.enqueue(BASELINES)

    def record(measurement: Measurement) -> None:
        world.recorded.append(measurement)
        if len(world.recorded) == 5:
            parameters = {**study.parameters(BASELINES[0]), "permutation": "exchange"}
            study.optuna.enqueue_trial(parameters, {INSTEAD_OF: 0})

    world.run(study, 5, record)
    assert states(study) == {TrialState.COMPLETE: 5, TrialState.FAIL: 1}


def sized(most: float, max_loss: float = math.inf, sampler: str = "mask") -> Study:
    """Give a study whose files lose 100 bytes a quantised group, of 1000 with random permutations and 950 else."""
    study = memory(sampler=sampler)
    base: dict[tuple[str, ...], float] = {("random",): 1000.0, ("exchange",): 950.0}
    study.limit([Budget("--max-size", most, base, dict.fromkeys(SIZES, (0.0, -100.0)))], max_loss)
    return study


@pytest.mark.parametrize("sampler", ["mask", "stratified", "ladder"])
def test_budgets_hold_for_all_that_is_proposed(sampler: str) -> None:
    """Five groups of six reach 500 bytes with random permutations; 450 with the others need as many."""
    world, study = World(), sized(500, sampler=sampler)
    study.learn(SCORES)
    study.enqueue(BASELINES)
    world.run(study, 60)
    proposed = [item for item in world.recorded if item.origin == "search"]
    assert [item.origin for item in world.recorded].count("search") == len(proposed)
    assert {len(SPACE.quantized_groups(item.configuration)) for item in proposed} == {5, 6}
    # Under each option 6 masks of five groups and the one of all; one of these is a baseline.
    assert len(proposed) == 13


def test_budgets_that_nothing_keeps_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"--max-size 300 cannot be reached: the least is about 350"):
        sized(300)


def test_proposals_are_lowered_to_what_the_model_expects_to_be_allowed() -> None:
    """The loss is the squared share of quantised groups: 0.3 allows three of six."""
    space = make_space(6, ("random",))
    counts = []
    for most in (math.inf, 0.3):
        study = Study.open(space, NLL, "sqlite:///:memory:", "study", 1)
        study.limit([], most)
        world = World()
        study.enqueue(
            space.configuration([group.name for group in space.groups[:count]], {"permutation": "random"})
            for count in range(7)
        )
        world.run(study, 27)
        proposed = world.recorded[9:]
        counts.append([len(item.configuration.assignment.quantized) for item in proposed])
    free, held = counts
    assert sum(count > 3 for count in held) < sum(count > 3 for count in free) / 2


def test_trials_added_by_hand_are_no_measurements(tmp_path: Path) -> None:
    """The study is an ordinary one: what somebody adds teaches the sampler, and is measured if it comes to that."""
    study = on_disk(tmp_path)
    study.optuna.add_trial(
        optuna.create_trial(
            values=[0.0, 0.5], params=study.parameters(BASELINES[0]), distributions=study.problem.space
        )
    )
    world = World()
    study.recover({})
    study.enqueue(BASELINES)
    world.run(study, 4)
    assert BASELINES[0].digest in world.measured
    assert len(world.recorded) == 4
