"""What a run says that it would train."""

import json
from pathlib import Path

import pytest
from test_search import HANDMADE, make_space

from bitsearch.cli import main
from bitsearch.core.space import SearchSpace
from bitsearch.core.task import Recipe, Recipes
from bitsearch.run.plan import Work, plan


def recipe(steps: int, batch_size: int) -> Recipe:
    return Recipe(steps, batch_size, 1e-3, 0.0, 1e-8)


def test_work_by_hand() -> None:
    """Two options; 40 trials earn five challengers beside one strategy; three trainings each."""
    base = make_space(6)
    space = SearchSpace(base.layers, base.groups, base.options, (HANDMADE,))
    recipes = Recipes(recipe(100, 10), recipe(20, 10), recipe(50, 30), finalists=3, repetitions=3)
    assert plan(space, recipes, 40) == [
        Work("float references", 6, 600, 6_000),
        Work("candidates", 40, 800, 8_000),
        Work("finals", 18, 900, 27_000),
    ]


def test_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["run", "--model", "caloinn", "--preset", "smoke", "--trials", "9", "--dry-run", "--json"]
    assert main(words) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [item["trainings"] for item in printed["trainings"] if item["kind"] == "candidates"] == [9]
    assert "blockcentral" in printed["strategies"]
    assert list(tmp_path.iterdir()) == []
    assert main([*words, "--min-fraction", "0.9999"]) == 2
    assert "cannot be reached" in capsys.readouterr().err
