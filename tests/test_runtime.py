"""Latencies: in turns with the float file, on a machine whose load is known, with the kernel that ran."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from test_bench import mlp

from bitsearch.core.precision import Precision
from bitsearch.onnxfile import graph, runtime
from bitsearch.onnxfile.ternarize import ternarize


@pytest.fixture
def float_file(tmp_path: Path) -> Path:
    return mlp(tmp_path / "float.onnx")


def ternary(float_file: Path) -> onnx.ModelProto:
    return ternarize(graph.read(float_file), lambda _: Precision.TERNARY)[0]


def test_a_kernel_is_named_where_it_runs(float_file: Path, tmp_path: Path) -> None:
    low_bit = ternary(float_file)
    onnx.save(low_bit, tmp_path / "ternary.onnx")
    chosen = runtime.chosen_kernel()
    assert runtime.kernel_of(low_bit) == runtime.kernel_of(tmp_path / "ternary.onnx") == chosen
    assert runtime.kernel_of(float_file) == ""


def test_a_kernel_that_runs_inside_of_a_branch_is_named_and_a_body_alone_is_not(float_file: Path) -> None:
    low_bit = ternary(float_file)
    del low_bit.graph.node[:]  # the function that other runtimes need stays in the file
    assert low_bit.functions
    assert runtime.kernel_of(low_bit) == ""
    node = helper.make_node("TernaryMatMul", ["x", "w", "s"], ["y"], domain="com.bithep", K=4)
    branch = helper.make_graph([node], "b", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
    low_bit.graph.node.append(helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch))
    assert runtime.kernel_of(low_bit) == runtime.chosen_kernel()


class Session:
    """A session whose runs take a time of their own, on a clock that the tests hold."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def run(self, _outputs: None, _feed: object) -> "Session":
        return self


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let a block take what its session says, three times that in the second turn, and note who ran."""
    ran: list[float] = []

    def block(run: Callable[[], Session], repeats: int) -> list[float]:
        seconds = run().seconds
        ran.append(seconds)
        slow = 3.0 if len(ran) in (5, 6) else 1.0  # the first two runs say how many make a block
        return [slow * seconds] * min(repeats, 4)

    monkeypatch.setattr(runtime, "block", block)
    return ran


def test_files_take_turns_and_their_ratio_does_not_feel_a_slow_moment(order: list[float]) -> None:
    feed = {"x": np.zeros((5, 2), np.float32)}
    found = runtime.time_session(Session(0.002), feed, 1, 0.0, "avx2", beside=Session(0.008))
    assert order[2:] == [0.002, 0.008] * 3
    assert found.ratio == pytest.approx(0.25)
    assert found.median_us == pytest.approx(2000)
    assert (found.batch, found.threads, found.kernel, found.repeats) == (5, 1, "avx2", 12)
    alone = runtime.time_session(Session(0.002), feed, 1, 0.0)
    assert (alone.ratio, alone.kernel) == (None, "")


@pytest.mark.parametrize(
    ("busy", "every", "load"),
    [
        (25, 100, 0.0),  # ours alone: one core of four
        (50, 100, 1 / 3),
        (100, 100, 1.0),
        (20, 100, 0.0),  # we have waited ourselves
        (5, 10, None),  # too few ticks to tell
    ],
)
def test_load_of_the_other_cores(
    busy: float, every: float, load: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = iter([(1000.0, 4000.0), (1000.0 + busy, 4000.0 + every)])
    monkeypatch.setattr(runtime, "_ticks", lambda: next(ticks))
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    assert runtime.Load().share() == (None if load is None else pytest.approx(load))


def test_a_busy_machine_is_told_from_an_idle_one() -> None:
    assert [runtime.is_busy(load) for load in (None, 0.0, 0.2, 0.4, 1.0)] == [False, False, False, True, True]


def test_ticks_of_this_machine_grow() -> None:
    before = runtime._ticks()
    assert before is not None
    assert before[0] <= before[1]
