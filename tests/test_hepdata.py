"""Figures as data: what YAML readers get is what was drawn, and HEPData's own rules hold."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from synthetic_run import complete, evaluation

from bitsearch.core.measurement import Curve, Histogram, Quantity
from bitsearch.report import figures, hepdata, numbers, physics, style, view
from bitsearch.report.hepdata import Column

FIRST = evaluation("0" * 12, 0.1, np.random.default_rng(1))
KINDS = {"low", "high", "value", "errors"}


def table(text: str) -> dict[str, Any]:
    """Read a table and hold it to the schema of HEPData's data files."""
    found: dict[str, Any] = yaml.safe_load(text)
    assert set(found) == {"independent_variables", "dependent_variables"}
    lengths = set()
    for variable in (*found["independent_variables"], *found["dependent_variables"]):
        assert set(variable) <= {"header", "qualifiers", "values"}
        assert set(variable["header"]) <= {"name", "units"}
        lengths.add(len(variable["values"]))
        for value in variable["values"]:
            assert set(value) <= KINDS
            assert "value" in value or {"low", "high"} <= set(value)
            for error in value.get("errors", []):
                assert len({"symerror", "asymerror"} & set(error)) == 1
                assert error.get("symerror") != 0
    assert len(lengths) == 1
    return found


@pytest.mark.parametrize(
    "text",
    ["", "a: b", "# c", "- d", "yes", "1e5", "\N{GREEK SMALL LETTER SIGMA}", "\U0001f600", "\x7f\x00\n\"'\\"],
)
def test_words_stay_words(text: str) -> None:
    found = table(hepdata.text([Column(f"{text} [MeV]", [text])], [Column("y", [1.0])]))
    variable = found["independent_variables"][0]
    assert variable["values"] == [{"value": text}]
    assert variable["header"] == {"name": text, "units": "MeV"}


@pytest.mark.parametrize("number", [0.0, 1e-5, -2.5e-300, 1e22, 123456789.0, 3])
def test_numbers_stay_numbers(number: float) -> None:
    """YAML 1.1, which HEPData reads, takes 1e-05 for a word."""
    (value,) = table(hepdata.text([Column("x", [number])], [Column("y", [1.0])]))["independent_variables"][0][
        "values"
    ]
    assert value == {"value": number}
    assert isinstance(value["value"], int | float)


def test_what_is_not_finite_is_left_out() -> None:
    found = table(hepdata.text([Column("x", [float("nan")])], [Column("y", [float("inf")])]))
    assert found["dependent_variables"][0]["values"] == [{"value": "-"}]


def test_histogram_has_bins_counts_and_poisson_errors() -> None:
    plot = Histogram("e", "$E$ [GeV]", (0.0, 1.0, 2.0), (4.0, 0.0), (9.0, 1.0), Quantity(0.5, 0.1, 3))
    found = table(hepdata.histogram({"float": plot}))
    assert found["independent_variables"] == [
        {
            "header": {"name": "$E$", "units": "GeV"},
            "values": [{"low": 0.0, "high": 1.0}, {"low": 1.0, "high": 2.0}],
        }
    ]
    reference, generated = found["dependent_variables"]
    assert reference["values"] == [
        {"value": 4.0, "errors": [{"symerror": 2.0, "label": "stat"}]},
        {"value": 0.0},
    ]
    assert generated["values"][0]["errors"][0]["symerror"] == 3.0
    assert {"name": "separation power", "value": "0.50(10)"} in generated["qualifiers"]


def test_bands_are_asymmetric_errors() -> None:
    plot = Curve("roc", "b", "s", (0.0, 1.0), (0.5, 0.6), (0.4, 0.6), (0.8, 0.6))
    bare = Curve("roc", "b", "s", (0.0,), (0.1,))
    found = table(hepdata.curve({"float": plot, "most": bare}))
    first, second, last = found["dependent_variables"][0]["values"]
    assert first["errors"][0]["asymerror"] == {"plus": pytest.approx(0.3), "minus": pytest.approx(-0.1)}
    assert "errors" not in second
    assert last == {"value": 0.1}


def test_maps_and_profiles() -> None:
    (plot,) = FIRST.maps
    found = table(hepdata.density({"float": plot}))
    cells = found["dependent_variables"][0]["values"]
    assert [cell["value"] for cell in cells] == [count for row in plot.counts for count in row]
    (line,) = FIRST.profiles
    found = table(hepdata.profile({"float": line}))
    assert [item["value"] for item in found["dependent_variables"][1]["values"]] == list(line.generated)


def test_every_figure_of_a_run_has_data(tmp_path: Path) -> None:
    run = view.read(complete(tmp_path / "run"))
    drawing = figures.performance(run, run.objective, run.measured, run.front)
    points = table(drawing.data)
    values = points["dependent_variables"][0]["values"]
    assert [item["value"] for item in values] == [item.metrics["nll"].value for item in run.measured]
    assert values[0]["errors"][0]["symerror"] == run.measured[0].metrics["nll"].std
    for make in (figures.layers, figures.hypervolume):
        found = make(run)
        assert found is not None
        assert table(found.data)
    name, draw = next(iter(physics.figures(run)))
    physical = draw()
    assert physical is not None
    assert table(physical.data)
    style.publish(physical, name, tmp_path / "figures")
    assert {path.suffix for path in (tmp_path / "figures").iterdir()} == {".pdf", ".png", ".yaml"}


def test_a_legend_that_the_page_has_once_stays_in_the_files(tmp_path: Path) -> None:
    run = view.read(complete(tmp_path / "run"))
    _, draw = next(iter(physics.figures(run)))
    drawing = draw()
    assert drawing is not None
    picture = style.publish(drawing, "h", tmp_path)
    labels = [f"{kind}" for kind, _ in run.shown()]
    assert [key.label for key in picture.keys] == labels
    assert all(label not in picture.svg for label in labels)
    assert all(key.note.startswith("S = ") for key in picture.keys)
    top = float(str(picture.svg).split('viewBox="0 ')[1].split()[0])
    assert top > 0


@pytest.mark.parametrize(("last", "unit", "edge"), [(5e3, "MeV", 5e3), (1e5, "GeV", 1e2), (2e7, "TeV", 20.0)])
def test_large_energies_have_large_units(last: float, unit: str, edge: float) -> None:
    plot = Histogram("e", "Energy in layer 1 [MeV]", (0.0, last), (1.0,), (1.0,), Quantity(0.0))
    found = physics.scaled(plot)
    assert found.label == f"Energy in layer 1 [{unit}]"
    assert found.edges[-1] == pytest.approx(edge)


def test_numbers_that_nobody_would_pay_are_not_given() -> None:
    assert numbers.estimate(1000) == "about 1\N{NARROW NO-BREAK SPACE}000"
    assert numbers.estimate(37_215) == "more than 1000"
    assert numbers.sigmas(351.0) == "more than 10 \N{GREEK SMALL LETTER SIGMA}"
    assert numbers.number(-1e6) == "\N{MINUS SIGN}1 \N{MULTIPLICATION SIGN} 10⁶"
