"""`bitsearch.search`: a network of one's own in a script, with the run folder of the command line."""

import re
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import bitsearch
from bitsearch.cli import main
from bitsearch.core.errors import BitsearchError, ConfigurationError, DataError
from bitsearch.network.own import Events, gather

EXAMPLE = Path(__file__).parents[1] / "examples" / "tagger.py"


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Run the example as it stands, in an empty folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("example"))
        found = runpy.run_path(str(EXAMPLE), run_name="__main__")
        found["result"] = bitsearch.SearchResult.open(Path("runs/tagger").resolve())
    return found


def test_the_example_is_short() -> None:
    assert len(EXAMPLE.read_text().splitlines()) <= 40


def test_the_front_is_a_table_of_files(example: dict[str, Any]) -> None:
    result = example["result"]
    table = result.table()
    assert len(table) == len(result.front) > 0
    values = [row["roc_auc_score"] for row in table]
    assert values == sorted(values, reverse=True)
    assert {"float32", "ternary"} <= set(result.files)
    for path in result.files.values():
        model = onnx.load(path)
        assert [item.name for item in model.graph.input] == ["input"]
        assert [item.name for item in model.graph.output] == ["score"]
    assert result.report.is_file()
    assert "<td>" in result._repr_html_()


def test_metrics_are_those_of_the_served_files_on_test_events(example: dict[str, Any]) -> None:
    """The spread is that of three trainings; the first one's file gives its value again."""
    result, events = example["result"], Events.of((example["features"], example["labels"]), None, None, 1)
    for item in result.run.baselines:
        session = bitsearch.ops.session(result.file(item))
        (scores,) = session.run(None, {"input": events.test[0].numpy()})
        found = item.metrics["roc_auc_score"]
        auc = roc_auc_score(events.test[1].numpy(), scores)
        assert found.n == 3
        assert abs(auc - found.value) <= 2 * found.std + 1e-9  # of three values, none is farther


def test_best_keeps_to_its_limits(example: dict[str, Any]) -> None:
    result = example["result"]
    best = result.best(min_fraction=0.8)
    assert best.executed_fraction >= 0.8
    others = [item for item in result.run.measured if item.executed_fraction >= 0.8]
    assert best.metrics["roc_auc_score"].value == max(i.metrics["roc_auc_score"].value for i in others)
    with pytest.raises(
        ConfigurationError, match=r"no configuration has a fraction of 0\.8 or more and 10 bytes"
    ):
        result.best(0.8, max_size_bytes=10)


def test_plot_is_a_figure(example: dict[str, Any]) -> None:
    assert "ROC" in example["result"].plot().axes[0].get_ylabel().upper()


def test_the_command_line_reads_the_folder(
    example: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(example["result"].run.folder.path)
    assert main(["status", folder]) == 0
    assert main(["report", folder]) == 0
    capsys.readouterr()


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1))


X = torch.randn(60, 2, generator=torch.Generator().manual_seed(1))
Y = (X[:, :1] > 0).float()


def mistake(targets: np.ndarray[Any, Any], outputs: np.ndarray[Any, Any]) -> float:
    return float(np.abs(targets - outputs).mean())


def small(out: Path, **changes: Any) -> bitsearch.SearchResult:
    arguments: dict[str, Any] = {
        "network": net(),
        "data": (X, Y),
        "loss": nn.functional.mse_loss,
        "metric": mistake,
        "direction": "minimize",
        "trials": 2,
        "epochs": 1,
        "out": out,
    }
    return bitsearch.search(**{**arguments, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"workers": 2}, "workers=2: other processes cannot build a network that lives in this one"),
        ({"direction": "up"}, "direction 'up'; expected 'maximize' or 'minimize'"),
        ({"name": "pdat"}, "'pdat' is the name of another model"),
        ({"groups": {"a": "9"}}, "no layer matches '9'; the network has 0, 2"),
        ({"groups": {"a": "0", "b": "*"}}, "layer 0 is in the groups a and b"),
        ({"strategies": {"half": {"1": "ternary"}}}, "no layer matches '1'"),
        ({"data": (X, Y[:5])}, "with the same number of events"),
        ({"data": X}, "found data of type Tensor"),
        ({"validation": (X[:, :1], Y)}, r"the validation set has 60 events of shapes \[\(1,\), \(1,\)\]"),
        ({"network": lambda: 3}, "the network is int; expected a torch.nn.Module"),
    ],
)
def test_what_does_not_fit_is_told_before_any_work(changes: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(BitsearchError, match=message):
        small(tmp_path / "run", **changes)
    assert not (tmp_path / "run" / "run.json").exists()


def test_an_object_goes_on_where_it_stopped_and_groups_change_together(tmp_path: Path) -> None:
    network = net()
    torch.manual_seed(5)
    groups = {"all": ["0", "2"]}
    first = small(tmp_path, network=network, groups=groups, strategies={})
    lines = (tmp_path / "results.jsonl").read_text()
    torch.manual_seed(6)
    again = small(tmp_path, network=network, groups=groups, strategies={})
    assert (tmp_path / "results.jsonl").read_text() == lines
    assert again.table() == first.table()
    assert {len(item.configuration.assignment.quantized) for item in first.run.results} == {0, 2}
    with pytest.raises(ConfigurationError, match="choose another --out"):
        small(tmp_path, network=net(), groups=groups, strategies={})
    with pytest.raises(ConfigurationError, match="choose another --out"):
        small(tmp_path, network=network, groups=groups, strategies={}, data=(X + 1, Y))


def test_data_come_in_any_form() -> None:
    loader = DataLoader(TensorDataset(X, Y), batch_size=7, shuffle=True)
    for data in ((X, Y), [X.numpy(), Y.numpy()], loader, lambda: loader, [X.double(), Y]):
        assert all(torch.equal(found, true) for found, true in zip(gather(data), (X, Y), strict=True))
    with pytest.raises(DataError, match="found data of type str"):
        gather("events.h5")


def test_sets_are_disjoint_and_follow_from_the_seed() -> None:
    numbered = torch.arange(100), torch.zeros(100)
    events, again = Events.of(numbered, None, None, 3), Events.of(numbered, None, None, 3)
    sets = [events.training[0], events.validation[0], events.test[0]]
    assert [len(item) for item in sets] == [80, 10, 10]
    assert torch.cat(sets).sort().values.equal(numbered[0])
    assert events.identity == again.identity
    assert Events.of(numbered, None, None, 4).identity != events.identity


def test_no_page_mentions_a_paper(example: dict[str, Any]) -> None:
    page = example["result"].report.read_text().lower()
    text = re.sub(r"<(style|svg|script).*?</\1>|<[^>]*>", " ", page, flags=re.DOTALL)
    assert "roc auc score" in text
    assert "paper" not in text
    assert "published" not in text
