"""Tables: no word and no number is broken, whatever the width."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import pytest
from ternary_layer import Layer, dense

from bitsearch.cli import main
from bitsearch.cli.output import show

ROWS: Sequence[dict[str, Any]] = [
    {
        "name": f"shape.blocks.{index}.feed_forward.2",
        "parameters": 12_345_678,
        "fraction": 0.0625,
        "with spread": "0.8325 ± 0.0031",
        "executed": True,
        "description": "every layer of all but the outer four blocks, which exchange",
        "sets": "ds1-photon, ds1-pion, ds2",
    }
    for index in range(3)
]


def printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int | None, rows: Any = ROWS
) -> list[str]:
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", str(columns))
    show(False, {}, "A title that is rather long and goes on for more than sixty characters in all", rows)
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("columns", [44, 60, 80, 120, 400])
def test_nothing_is_broken(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    lines = printed(capsys, monkeypatch, columns)
    assert max(map(len, lines)) <= columns
    text = "\n".join(lines)
    for row in ROWS:
        assert row["name"] in text
    words = {word for line in lines for word in line.split()}
    prose = "every layer of all but the outer four blocks, which exchange ds1-photon, ds1-pion, ds2"
    assert {"12,345,678", "0.0625", "yes", *prose.split()} <= words
    assert text.count("0.8325 ± 0.0031") == len(ROWS)


def test_columns_that_do_not_fit_go_on_below_with_the_first_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = printed(capsys, monkeypatch, 60)
    assert sum(ROWS[0]["name"] in line for line in lines) > 1
    assert [line for line in lines if line.startswith("name")]


def test_a_pipe_has_one_line_a_row(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    title, header, *lines = printed(capsys, monkeypatch, None)
    assert title.startswith("A title")
    assert header.split()[:2] == ["name", "parameters"]
    assert len(lines) == len(ROWS)


def test_columns_are_the_union_of_keys(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"file": "a.onnx", "events": 10, "auc": "0.9"}, {"file": "constant alone", "auc": "0.5"}]
    _, header, first, second = printed(capsys, monkeypatch, None, rows)
    assert header.split() == ["file", "events", "auc"]
    assert first.split() == ["a.onnx", "10", "0.9"]
    assert second.index("0.5") == header.index("auc")


def test_a_word_wider_than_the_terminal_stays_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = "0123456789abcdef" * 4
    lines = printed(capsys, monkeypatch, 40, [{"": "sha256", " ": digest}, {"": "events", " ": "20"}])
    assert any(digest in line for line in lines)


def test_no_rows(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert printed(capsys, monkeypatch, None, []) == [
        "A title that is rather long and goes on for more than sixty characters in all"
    ]


@pytest.mark.parametrize("columns", [60, 80])
@pytest.mark.parametrize(
    "command",
    [
        "list",
        "strategies --model caloinn",
        "strategies --model calodream",
        "layers --model calodream",
        "layers --model smeftnet",
        "inspect layer.onnx",
        "verify layer.onnx",
        "ternarize float.onnx --out small.onnx",
    ],
)
def test_verbs_print_the_same_words_at_every_width(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    command: str,
    columns: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(Layer.random(12, 8).model(), "layer.onnx")
    onnx.save(dense(8), "float.onnx")

    def words(width: int) -> set[str]:
        monkeypatch.setenv("COLUMNS", str(width))
        assert main(command.split()) == 0
        lines = capsys.readouterr().out.splitlines()
        longest = max(len(word) for line in lines for word in line.split())
        assert max(map(len, lines)) <= max(width, longest + 30)
        return {word for line in lines for word in line.split()}

    assert words(columns) == words(10_000)
