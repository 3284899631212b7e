"""Several runs on one page: held to numbers worked out by hand, and to everything that keeps runs apart."""

import dataclasses
import json
import random
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, browser
from synthetic_run import BASELINES, baselines, begin, complete, configuration, measure, search

from bitsearch.cli import main
from bitsearch.core.difference import between
from bitsearch.core.errors import ConfigurationError
from bitsearch.core.measurement import Fidelity, Metric, Quantity
from bitsearch.report import compare, compare_page

RIVAL = configuration("exchange", lambda block, part: True)


def run(
    path: Path, values: Mapping[str, Sequence[float]], fidelity: Fidelity = "full", **changes: Any
) -> Path:
    """Make a run whose strategies, and `rival`, have the losses given, one a training."""
    folder, rng = begin(path), random.Random(1)
    folder.update(ended="2026-05-01T10:31:12+00:00", **changes)
    for name, losses in values.items():
        origin = "final" if name == "rival" else f"baseline:{name}"
        item = measure(RIVAL if name == "rival" else BASELINES[name], origin, fidelity, rng)
        std = statistics.stdev(losses) if len(losses) > 1 else None
        quantity = Quantity(statistics.mean(losses), std, len(losses), tuple(losses))
        folder.append(dataclasses.replace(item, metrics={"nll": quantity}))
    return path


def test_hypervolumes_share_one_box(tmp_path: Path) -> None:
    """The poorest strategy of any run, 5, bounds both: from 1 to 1 + 1.1 * 4 = 5.4."""
    one = run(tmp_path / "one", {"default": [1.0], "all": [5.0]})
    other = run(tmp_path / "other", {"default": [1.5], "all": [3.0]}, sampler="tpe")
    found = compare.read([one, other])
    share = found.sides[0].front[-1].executed_fraction
    assert found.volume(found.sides[0]) == pytest.approx(0.4 * share / 4.4)
    assert found.volume(found.sides[1]) == pytest.approx(2.4 * share / 4.4)
    assert found.differing == {"sampler": ("", "tpe")}
    assert "nobody knows" in compare_page.headline(found)


def test_repetitions_are_averaged_and_paired_by_their_seeds(tmp_path: Path) -> None:
    """The losses of `all` with one sampler and with the other, seed by seed: gains of 0.5, 0.7 and 0.6 in 4.4."""
    paths = []
    for sampler, losses in (("tpe", (3.0, 4.0, 5.0)), ("mask", (2.5, 3.3, 4.4))):
        for seed, loss in enumerate(losses, 1):
            values = {"default": [1.0], "all": [loss]}
            paths.append(run(tmp_path / f"{sampler}{seed}", values, sampler=sampler, seed=seed))
    found = compare.read(paths)
    best, second = found.repeated
    assert (best.name, second.name) == ("sampler mask", "sampler tpe")
    share = found.sides[0].front[-1].executed_fraction / 4.4
    gap = found.gain(best, second)
    assert gap.pairs == 3
    assert gap.gain == pytest.approx(0.6 * share)
    assert gap.error == pytest.approx(0.1 / 3**0.5 * share)
    mean = found.mean(second)
    assert mean.value == pytest.approx(1.4 * share)
    assert mean.std == pytest.approx(1 / 3**0.5 * share)
    assert "3 common seeds" in compare_page.headline(found)


def test_other_seeds_are_not_paired(tmp_path: Path) -> None:
    values = [({"default": [1.0], "all": [4.0]}, 1), ({"default": [1.0], "all": [5.0]}, 2)]
    paths = [
        run(tmp_path / f"{sampler}{number}", item, sampler=sampler, seed=seed + 10 * (sampler == "tpe"))
        for sampler in ("mask", "tpe")
        for number, (item, seed) in enumerate(values)
    ]
    found = compare.read(paths)
    gap = found.gain(*found.repeated)
    share = found.sides[0].front[-1].executed_fraction / 4.4
    # Each mean has the standard error 0.5 in units of the loss.
    assert gap.pairs == 0
    assert gap.error == pytest.approx(0.5 * 2**0.5 * share)


@pytest.mark.parametrize(
    ("changes", "pairs", "error"), [({"recipe": "paper"}, 3, 0.1 / 3**0.5), ({"seed": 2}, 0, None)]
)
def test_configurations_are_paired_where_seed_and_data_are_the_same(
    tmp_path: Path, changes: dict[str, Any], pairs: int, error: float | None
) -> None:
    one = run(tmp_path / "one", {"default": [1.0, 2.0, 3.0], "all": [5.0]})
    other = run(tmp_path / "other", {"default": [0.5, 1.3, 2.4], "all": [5.0]}, **changes)
    found = compare.read([one, other])
    items = found.shared()[BASELINES["default"].digest]
    assert found.difference(items, 0) is None
    gap = found.difference(items, 1)
    assert gap is not None
    quadrature = (1.0 + statistics.variance([0.5, 1.3, 2.4])) ** 0.5
    assert gap.pairs == pairs
    assert gap.gain == pytest.approx(0.6)
    assert gap.error == pytest.approx(error or quadrature)


def test_between_turns_the_sign_of_what_is_maximised() -> None:
    metric = Metric("accuracy", "accuracy", "", "maximize", "")
    assert between(Quantity(0.9), Quantity(0.8), metric, paired=False).gain == pytest.approx(0.1)


def test_short_and_full_trainings_are_never_compared(tmp_path: Path) -> None:
    """A run under way has short trainings: of the finished one they are taken too."""
    finished = complete(tmp_path / "finished").path
    going_on, rng = begin(tmp_path / "going"), random.Random(7)
    baselines(going_on, "finetuned", rng)
    search(going_on, 9, rng)
    found = compare.read([finished, going_on.path])
    assert found.fidelity == "finetuned"
    assert {item.fidelity for side in found.sides for item in (*side.measured, *side.front)} == {"finetuned"}
    warnings = list(compare_page._warnings(found))
    assert any("Not ended yet: going" in text for text in warnings)
    assert any("more find more" in text for text in warnings)
    only_full = run(tmp_path / "full", {"default": [1.0], "all": [5.0]})
    with pytest.raises(ConfigurationError, match="nothing after short training"):
        compare.read([only_full, going_on.path])


def refused(capsys: pytest.CaptureFixture[str], *paths: Path) -> str:
    assert main(["compare", *map(str, paths), "--out", str(paths[0].parent / "page")]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("bitsearch compare: ")
    assert printed.err.count("\n") == 1
    assert not (paths[0].parent / "page").exists()
    return printed.err


def test_what_cannot_be_compared_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = {"default": [1.0], "all": [5.0]}
    one = run(tmp_path / "one", values)
    other = run(tmp_path / "other", values, model="pdat")
    assert "found 1 run folder, expected two or more" in refused(capsys, one)
    assert "twice, expected different run folders" in refused(capsys, one, tmp_path / "other" / ".." / "one")
    assert "holds no run.json" in refused(capsys, one, tmp_path / "missing")
    assert "has the model pdat, expected caloinn as in " in refused(capsys, one, other)
    assert "data set ds2, expected ds1-photon" in refused(
        capsys, one, run(tmp_path / "ds2", values, dataset="ds2")
    )
    third = run(tmp_path / "third", values, objective="auc_low")
    assert "holds no measurement yet" in refused(capsys, one, third)
    assert "holds no measurement yet" in refused(capsys, one, begin(tmp_path / "empty").path)
    (other / "results.jsonl").write_text("{}\n")
    assert "results.jsonl, line 1 is damaged" in refused(capsys, one, other)


def test_the_page_escapes_what_records_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = {"default": [1.0], "all": [5.0]}
    one = run(tmp_path / "<b>one", values, sampler="<script>alert(1)</script>", seed=3)
    other = run(tmp_path / "other", values)
    assert main(["compare", str(one), str(other), "--out", str(tmp_path / "page"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    text = Path(printed["page"]).read_text()
    assert "<script>alert" not in text
    assert "<b>one" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert printed["differing"] == {"sampler": ["<script>alert(1)</script>", ""], "seed": ["3", "1"]}
    assert [item["label"] for item in printed["runs"]] == ["<b>one", "other"]
    assert {path.name for path in (tmp_path / "page" / "figures").glob("fronts.*")} == {
        "fronts.pdf",
        "fronts.png",
        "fronts.yaml",
    }


def test_folders_of_one_name_are_told_apart(tmp_path: Path) -> None:
    paths = [run(tmp_path / place / "run", {"default": [1.0], "all": [5.0]}) for place in ("a", "b")]
    assert [side.label for side in compare.read(paths).sides] == list(map(str, paths))
    assert "only the machines differ" in compare_page.headline(compare.read(paths))


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: the page was not opened")
def test_the_page_answers_in_a_browser(tmp_path: Path) -> None:
    paths = [complete(tmp_path / name).path for name in ("one", "other")]
    page = compare_page.build(compare.read(paths), tmp_path / "page")
    with browser() as chromium:
        for width in (420, 1400):
            chromium.look(width)
            chromium.open(page.as_uri())
            assert chromium.run("document.documentElement.scrollWidth") <= width
        chromium.point("#figure-fronts a.point")
        assert chromium.run("document.querySelectorAll('tr.lit').length") >= 2
        chromium.point("#figure-fronts a.point", click=True)
        assert chromium.run("document.querySelector(location.hash).tagName") == "TR"
        assert chromium.errors == []
