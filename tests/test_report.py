"""The report of a synthetic run, in every state that a run can leave behind."""

import base64
import csv
import dataclasses
import hashlib
import json
import random
import re
import shlex
import statistics
import subprocess
import sys
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from synthetic_run import (
    BASELINES,
    METRICS,
    baselines,
    begin,
    complete,
    configuration,
    measure,
    search,
)

from bitsearch import report
from bitsearch.core.manifest import Published
from bitsearch.core.measurement import (
    Evaluation,
    Histogram,
    Latency,
    Measurement,
    Metric,
    Profile,
    Quantity,
    Yardstick,
)
from bitsearch.core.rundir import RunFolder
from bitsearch.report import cards, decision, numbers, physics, tables, verdict, view
from bitsearch.report.sheets import _csv, _flat


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = complete(tmp_path_factory.mktemp("runs") / "whole")
    report.build(folder)
    return folder


class Page(HTMLParser):
    """Collect what a page shows as text, its ids and everything that it refers to."""

    def __init__(self, source: Path | str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.words: list[str] = []
        self.feed(source.read_text() if isinstance(source, Path) else source)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.ids += [values["id"]] if "id" in values else []
        self.targets += [values[name] for name in ("href", "src", "xlink:href") if name in values]

    def handle_data(self, data: str) -> None:
        if self.lasttag not in ("script", "style"):
            self.words.append(data)


def page(folder: RunFolder) -> Page:
    return Page(report.render(view.read(folder)))


def test_page_is_self_contained(whole: RunFolder) -> None:
    """Nothing is loaded from elsewhere, and every link leads to an id or to a file of the run folder."""
    index = whole.report / "index.html"
    text, parsed = index.read_text(), Page(index)
    assert not re.search(r"https?://|<script[ /]|@import|url\((?!#)", text)
    assert text.count("<script") == 1
    assert len(parsed.ids) == len(set(parsed.ids))
    for target in parsed.targets:
        if target.startswith("#"):
            assert target[1:] in parsed.ids
        else:
            assert (index.parent / target).is_file(), target


def test_page_says_what_matters(whole: RunFolder) -> None:
    text = Page(whole.report / "index.html").text
    run = view.read(whole)
    assert "CaloINN on ds1-photon (generated data)" in text
    assert "Parametrised showers, generated; not Geant4, not CaloChallenge data." in text
    assert "The two are not comparable." in text
    assert "This run has not ended" not in text
    assert "loss became NaN in epoch 2" in text
    assert "bitsearch run --model caloinn --trials 60" in text
    for item in run.front:
        assert run.name(item) in text
        assert f"models/{item.digest}.onnx" in text


def test_simple_estimators_stand_beside_every_result(whole: RunFolder) -> None:
    text = Page(whole.report / "index.html").text
    assert "A constant alone reaches validation NLL" in text
    assert "every network shown is better" in text
    (beaten,) = (part for part in text.split("An oracle alone reaches")[1:])
    assert beaten.split(".")[0].endswith("which no network shown beats")
    assert text.count("an oracle alone") == 2  # below the front and below the strategies


def test_every_kind_of_plot_is_drawn(whole: RunFolder) -> None:
    names = {path.stem for path in (whole.report / "figures").glob("*.png")}
    assert {"curve-roc", "curve-calibration", "map-truth-prediction", "profile-energy"} <= names
    evaluation = next(item for _, item in view.read(whole).shown())
    assert Evaluation.from_json(evaluation.to_json()) == evaluation


def test_figures_take_their_colours_from_the_page(whole: RunFolder) -> None:
    text = (whole.report / "index.html").read_text()
    used = set(re.findall(r"var\(--([a-z]+)\)", text))
    assert used <= set(re.findall(r"--([a-z]+):", text))
    assert set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", text)) <= {"#000000", "#ffffff"}


def test_every_figure_lies_beside_the_page(whole: RunFolder) -> None:
    figures = whole.report / "figures"
    names = {path.stem for path in figures.glob("*.png")}
    assert names == {path.stem for path in figures.glob("*.pdf")}
    assert {"pareto", "search", "layers", "hypervolume", "metric-auc_low", "histogram-e_ratio"} <= names


def test_csv_holds_every_digit(whole: RunFolder) -> None:
    with (whole.report / "front.csv").open() as file:
        rows = list(csv.DictReader(file))
    final = whole.front()
    assert final is not None
    front = final.members
    assert [row["digest"] for row in rows] == [item.digest for item in front]
    assert [float(row["nll"]) for row in rows] == [item.metrics["nll"].value for item in front]
    assert float(rows[0]["latency_us batch 1, 1 thread"]) == front[0].latency_us[0].median_us


def test_histograms_can_be_read_by_others(whole: RunFolder) -> None:
    schema = pytest.importorskip("uhi.schema", reason="needs uhi, of the extra test")
    content = json.loads((whole.report / "histograms.json").read_text())
    schema.validate(content)
    shown = dict(view.read(whole).shown())
    assert len(content) == 2 * sum(len(item.histograms) for item in shown.values()) > 0
    for kind, evaluation in shown.items():
        for plot in evaluation.histograms:
            made = content[f"{kind}/{plot.name}/generated"]
            assert made["axes"][0]["edges"] == [*plot.edges]
            assert made["storage"]["values"] == [*plot.generated]
            assert content[f"{kind}/{plot.name}/reference"]["storage"]["values"] == [*plot.reference]


def test_building_again_gives_the_same_page(tmp_path: Path) -> None:
    folder = begin(tmp_path)
    baselines(folder, "full", random.Random(1))
    assert report.render(view.read(folder)) == report.render(view.read(folder))


def test_fidelities_are_never_mixed(whole: RunFolder) -> None:
    run = view.read(whole)
    assert {item.fidelity for item in [*run.front, *run.measured, *run.baselines]} == {"full"}
    assert {item.fidelity for item in run.candidates} == {"finetuned"}


def test_search_and_final_trainings_are_held_to_each_other(whole: RunFolder) -> None:
    short = {item.digest for item in whole.results() if item.fidelity == "finetuned"}
    both = short & {item.digest for item in whole.results() if item.fidelity == "full"}
    text = (whole.report / "index.html").read_text()
    assert f"order the {len(both)} configurations that went through both" in text


def test_run_that_has_only_begun(tmp_path: Path) -> None:
    text = page(begin(tmp_path)).text
    assert "This run has not ended" in text
    assert "Nothing has been measured yet" in text
    assert "The search has not begun" in text


def test_only_baselines(tmp_path: Path) -> None:
    folder = begin(tmp_path)
    baselines(folder, "finetuned", random.Random(1))
    text = page(folder).text
    assert "Only the handmade strategies have been measured" in text
    assert "the final training of the front has not ended" in text
    assert "No configuration shown here has been evaluated yet" in text


def test_only_failures(tmp_path: Path) -> None:
    folder = begin(tmp_path)
    folder.append(measure(BASELINES["all"], "baseline:all", "finetuned", random.Random(1), "loss became NaN"))
    text = page(folder).text
    assert "no usable result; 1 measurement failed" in text
    assert "loss became NaN" in text


def test_killed_half_way(tmp_path: Path) -> None:
    """A torn last line and a few full trainings do not hide what the search has found."""
    folder, rng = begin(tmp_path), random.Random(1)
    baselines(folder, "finetuned", rng)
    search(folder, 20, rng)
    folder.append(measure(BASELINES["default"], "baseline:default", "full", rng))
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write('{"digest": "torn')
    text = page(folder).text
    assert view.read(folder).fidelity == "finetuned"
    assert "This run has not ended" in text
    assert "These numbers come from short training" in text
    assert "No member has been timed" in text


def test_missing_float_reference_and_groups(tmp_path: Path) -> None:
    folder, rng = begin(tmp_path), random.Random(1)
    folder.update(groups=(), layers=(), published=Published(), stages=())
    folder.append(measure(BASELINES["all"], "baseline:all", "finetuned", rng))
    search(folder, 9, rng)
    text = page(folder).text
    assert "The float reference has not been measured" in text
    for described in (f"the paper's {name}" for name in sorted(BASELINES, key=len, reverse=True)):
        text = text.replace(described, "")
    assert "paper" not in text.replace("preset paper", "").replace("var(--paper)", "").replace(
        "--paper:", ""
    )  # a colour's name


def test_hostile_names_are_escaped(tmp_path: Path) -> None:
    folder = begin(tmp_path)
    folder.update(title="<script>alert(1)</script>", model='"><img src=x>')
    baselines(folder, "full", random.Random(1))
    written = report.render(view.read(folder))
    assert "<script>alert" not in written
    assert written.count("<script") == 1
    assert "<img" not in written


def test_only_the_script_of_the_page_may_run(whole: RunFolder) -> None:
    """The policy names its hash, so that a browser would run nothing else, whatever a record holds."""
    text = (whole.report / "index.html").read_text()
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text
    assert "default-src 'none'" in text
    assert "unsafe-inline" not in text.replace("style-src 'unsafe-inline'", "")


@pytest.mark.parametrize("name", ['x"><img src=x onerror=alert(3)>', "x/../../../../escaped"])
def test_names_of_metrics_choose_neither_markup_nor_paths(tmp_path: Path, name: str) -> None:
    folder, rng = begin(tmp_path / "run"), random.Random(1)
    folder.update(metrics=(*METRICS, Metric(name, name, "", "minimize", "")))
    item = measure(BASELINES["default"], "baseline:default", "full", rng)
    folder.append(dataclasses.replace(item, metrics={**item.metrics, name: Quantity(1.0, 0.1, 3)}))
    written = report.build(folder).read_text()
    assert "<img" not in written
    figures = {file.name for file in (tmp_path / "run" / "report" / "figures").glob("metric-x*")}
    assert len(figures) == 3
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


def test_label_that_is_no_formula_is_shown_as_text(tmp_path: Path) -> None:
    folder = begin(tmp_path)
    odd = dataclasses.replace(METRICS[1], label="$x^{ $")
    folder.update(metrics=(METRICS[0], odd, *METRICS[2:]))
    folder.append(measure(BASELINES["default"], "baseline:default", "full", random.Random(1)))
    written = report.build(folder).read_text()
    assert "cannot be drawn" not in written
    assert (folder.report / "figures" / "metric-auc_low.pdf").is_file()


def test_a_figure_that_fails_is_replaced_by_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("limits <beyond> all measure")

    monkeypatch.setattr("bitsearch.report.figures.performance", fail)
    folder = begin(tmp_path)
    baselines(folder, "full", random.Random(1))
    written = report.build(folder).read_text()
    assert "This figure cannot be drawn: limits &lt;beyond&gt; all measure" in written
    assert not (folder.report / "figures" / "pareto.pdf").exists()


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_numbers_at_the_end_of_the_range_do_not_end_the_report(tmp_path: Path) -> None:
    folder, rng = begin(tmp_path), random.Random(1)
    for name, value in (("default", -1e308), ("all", 1e308)):
        item = measure(BASELINES[name], f"baseline:{name}", "full", rng)
        folder.append(dataclasses.replace(item, metrics={"nll": Quantity(value, 1e308, 3)}))
    assert "Handmade strategies" in page(folder).text


@pytest.mark.parametrize(
    ("gain", "std", "headline"),
    [
        (1.0, 0.1, "The search beats all at equal or higher quantised fraction"),
        (0.1, 0.1, "No significant gain over the handmade strategies"),
        (1.0, None, "No significant gain over the handmade strategies"),
        (-1.0, 0.1, "No significant gain over the handmade strategies"),
    ],
)
def test_verdict(tmp_path: Path, gain: float, std: float | None, headline: str) -> None:
    """A gain counts only at equal or higher fraction, and only beyond its spread."""
    folder, rng = begin(tmp_path), random.Random(1)
    for name in ("default", "all"):
        item = measure(BASELINES[name], f"baseline:{name}", "full", rng)
        folder.append(
            dataclasses.replace(item, metrics={"nll": Quantity(1.0 if name == "default" else 5.0, std, 3)})
        )
    rival = configuration("exchange", lambda block, part: True)
    item = measure(rival, "final", "full", rng)
    folder.append(dataclasses.replace(item, metrics={"nll": Quantity(5.0 - gain, std, 3)}))
    found = verdict.verdict(view.read(folder))
    expected = headline.replace("beats all at", "beats all handmade strategies at")
    assert found.headline == expected


def test_verdict_names_what_a_simple_estimator_beats_once(tmp_path: Path) -> None:
    folder, rng = begin(tmp_path), random.Random(1)
    for name, value in (("default", 1.0), ("all", 5.0)):
        item = measure(BASELINES[name], f"baseline:{name}", "full", rng)
        metrics = {metric: Quantity(value, 0.1, 3) for metric in ("nll", "auc_low")}
        folder.append(dataclasses.replace(item, metrics=metrics))
    sticks = (Yardstick("an axis", metric, Quantity(3.0)) for metric in ("nll", "auc_low"))
    folder.update(yardsticks=tuple(sticks))
    (sentence,) = (
        text
        for text in verdict.verdict(view.read(folder)).sentences
        if text.startswith("An axis alone reaches")
    )
    assert sentence.count(" 3") == 2
    assert sentence.endswith("on the same events, which `all` did not beat.")


@pytest.mark.parametrize(("loss", "further"), [(1.05, True), (2.0, False)])
def test_verdict_on_what_costs_nothing(tmp_path: Path, loss: float, further: bool) -> None:
    """Where nothing is better than the float network, quantising more of it at no loss is the gain."""
    folder, rng = begin(tmp_path), random.Random(1)
    for name in ("default", "nncentral"):
        item = measure(BASELINES[name], f"baseline:{name}", "full", rng)
        folder.append(dataclasses.replace(item, metrics={"nll": Quantity(1.0, 0.1, 3)}))
    by_hand = numbers.percent(item.executed_fraction)
    rival = measure(configuration("exchange", lambda block, part: True), "final", "full", rng)
    folder.append(dataclasses.replace(rival, metrics={"nll": Quantity(loss, 0.1, 3)}))
    share = numbers.percent(rival.executed_fraction)
    assert verdict.verdict(view.read(folder)).headline == (
        f"The search quantises {share} without a measurable loss, the handmade strategies {by_hand}"
        if further
        else "No significant gain over the handmade strategies"
    )


def test_report_needs_no_heavy_library(whole: RunFolder) -> None:
    heavy = "'torch', 'onnxruntime', 'optuna', 'onnx'"
    code = (
        "import sys; from bitsearch import report; from bitsearch.core.rundir import RunFolder;"
        f"report.view.read(RunFolder({str(whole.path)!r}));"
        f"assert not {{{heavy}}} & set(sys.modules), sorted({{{heavy}}} & set(sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def colours(scheme: str) -> dict[str, str]:
    """Read the colours of the page in one scheme."""
    css = (Path(report.__file__).parent / "page.css").read_text()
    light, dark = re.findall(r":root \{(.*?)\}", css, re.DOTALL)[:2]
    return dict(re.findall(r"--(\w+): (#\w{6})", light if scheme == "light" else dark))


def contrast(one: str, other: str) -> float:
    """Compute the contrast ratio of WCAG 2.2 between two colours."""

    def luminance(colour: str) -> float:
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("ground", ["paper", "panel"])
@pytest.mark.parametrize("text", ["ink", "muted", "blue"])
def test_text_can_be_read(scheme: str, ground: str, text: str) -> None:
    found = colours(scheme)
    assert contrast(found[text], found[ground]) >= 4.5


def test_page_has_one_main_part(whole: RunFolder) -> None:
    text = (whole.report / "index.html").read_text()
    assert text.count("<main>") == text.count("</main>") == 1


def test_names_are_set_as_code(whole: RunFolder) -> None:
    text = (whole.report / "index.html").read_text()
    assert "<code>nncentral</code>" in text
    assert "`" not in Page(whole.report / "index.html").text


def test_verdict_names_the_file_to_deploy(whole: RunFolder) -> None:
    """It is linked, and what it gains in size and time and costs in performance stands beside it."""
    run = view.read(whole)
    found = verdict.verdict(run).deploy
    assert found is not None
    assert (whole.report / found.file.href).is_file()
    assert run.reference is not None
    facts = {fact.title: fact for fact in found.facts}
    assert numbers.smaller(found.item.size_bytes, run.reference.size_bytes) in facts["file size"].text
    speed = facts["speed, batch 1, 1 thread"]
    assert speed.note.startswith("310 µs")
    times = run.reference.latency_us[0].median_us / found.item.latency_us[0].median_us
    assert speed.text.startswith(f"{times:.2f} ± ")
    assert re.search(r"(worse|better) \(", facts["validation NLL"].text)


def test_spread_of_a_ratio_is_that_of_both_files() -> None:
    """10 % of the one and 20 % of the other in quadrature, from interquartile ranges of a normal distribution."""
    files = [
        Latency(1, 1, "avx2", median, 1.349 * share * median, 50)
        for median, share in ((50.0, 0.1), (100.0, 0.2))
    ]
    ratio = decision.Ratio(of=files[0], to=files[1])
    assert ratio.value == 2.0
    assert ratio.std == pytest.approx(2.0 * 0.05**0.5)


def test_a_ratio_that_scatters_by_more_than_itself_is_not_given(whole: RunFolder) -> None:
    run = view.read(whole)
    assert run.reference is not None
    loud = dataclasses.replace(run.reference.latency_us[0], spread_us=4000.0)
    (speed,) = decision.speeds(dataclasses.replace(run.front[-1], latency_us=(loud,)), run.reference)
    assert speed.text.startswith("not known")


def trained(name: str, values: Sequence[float], item: Measurement) -> Measurement:
    """Give a measurement the results of trainings with common seeds."""
    quantity = Quantity(statistics.mean(values), statistics.stdev(values), len(values), tuple(values))
    return dataclasses.replace(item, metrics={name: quantity})


RIVAL = configuration("exchange", lambda block, part: True)


def three(
    tmp_path: Path, default: Sequence[float], handmade: Sequence[float], rival: Sequence[float]
) -> view.Run:
    """Make a run of the float network, one strategy and one configuration of the search, trained several times."""
    folder, rng = begin(tmp_path), random.Random(1)
    folder.append(trained("nll", default, measure(BASELINES["default"], "baseline:default", "full", rng)))
    folder.append(trained("nll", handmade, measure(BASELINES["all"], "baseline:all", "full", rng)))
    folder.append(trained("nll", rival, measure(RIVAL, "final", "full", rng)))
    return view.read(folder)


def test_a_gain_of_every_seed_counts_however_much_seeds_scatter(tmp_path: Path) -> None:
    """Losses of 10, 20 and 30 and the same less 1, 1.1 and 0.9: each alone scatters ten times the gain."""
    run = three(tmp_path, (1.0, 2.0, 3.0), (10.0, 20.0, 30.0), (9.0, 18.9, 29.1))
    assert verdict.verdict(run).headline.startswith("The search beats all handmade strategies")


def test_nothing_is_claimed_that_trainings_could_not_have_shown(tmp_path: Path) -> None:
    """Two trainings that scatter by more than the whole range from float to the poorest strategy show nothing."""
    blind = three(tmp_path / "blind", (1.0, 1.0), (1.5, 1.5), (0.0, 2.1))
    found = verdict.verdict(blind)
    assert any("nothing is claimed" in text and "2 paired trainings" in text for text in found.sentences)
    assert "without a measurable loss" not in " ".join([found.headline, *found.sentences])
    assert found.deploy is not None
    assert "without a measurable loss" not in found.deploy.advice
    sharp = three(tmp_path / "sharp", (1.0, 1.0), (5.0, 5.0), (1.0, 1.01))
    text = " ".join(verdict.verdict(sharp).sentences)
    # (6.314 + 1.376) * 0.005, from tables of Student's t for one degree of freedom.
    assert "a loss of 0.038 nats" in text
    assert "80 % power at the 5 % level, 2 paired trainings" in text


def test_where_nothing_was_gained_the_page_says_what_it_would_take(tmp_path: Path) -> None:
    """A gain of 1 whose differences spread by 2 takes ((2 + 0.842) * 2)² = 32.3, and two more for Student's t."""
    run = three(tmp_path, (0.0, 0.1, 0.2), (10.0, 10.0, 10.0), (7.0, 9.0, 11.0))
    found = verdict.verdict(run)
    assert found.headline == "No significant gain over the handmade strategies"
    (trainings,) = (text for text in found.needed if text.startswith("Trainings"))
    assert "about 35 of each, 3 now" in trainings
    assert any(text.startswith("Trials: ") for text in found.needed)
    assert "What it would take to show a gain" in page(run.folder).text


def test_card_holds_layers_file_and_command(whole: RunFolder) -> None:
    run = view.read(whole)
    found = {card.item.digest: card for card in cards.cards(run)}
    assert set(found) == {item.digest for item in run.measured}
    for item in run.measured:
        card = found[item.digest]
        named = [name for layers in card.layers for name in layers.names]
        assert sorted(named) == sorted(run.groups)
        words = shlex.split(card.command)
        assert words[:2] == ["bitsearch", "train"]
        if "--assignment" in words:
            file = Path(words[words.index("--assignment") + 1])
            assert json.loads(file.read_text()) == dict(item.assignment)
        else:
            assert words[words.index("--strategy") + 1] == run.names[item.digest]


def test_every_point_leads_somewhere(whole: RunFolder) -> None:
    """What is on the front or handmade has a card; other points lead to their row."""
    parsed = Page(whole.report / "index.html")
    targets = {target[1:] for target in parsed.targets if target.startswith(("#c-", "#m-"))}
    assert any(target.startswith("m-") for target in targets)
    assert targets <= set(parsed.ids)


def test_a_busy_machine_and_a_kernel_that_did_not_run(whole: RunFolder) -> None:
    """Times that were taken in turns with the float file are held against it, and doubts stand beside them."""
    run = view.read(whole)
    assert run.reference is not None
    latency = dataclasses.replace(run.reference.latency_us[0], ratio=0.4, load=0.9, busy=True, kernel="")
    item = dataclasses.replace(run.front[-1], latency_us=(latency,))
    table = tables.serving(run, [item])
    assert "kernel" not in table.titles
    cell = table.rows[0][table.titles.index("batch 1,\n1 thread")]
    assert "0.4 of float, busy machine" in cell.note
    (speed,) = decision.speeds(item, run.reference)
    assert speed.text.startswith("2.50 ± ")
    assert speed.note.endswith(", busy machine")
    row = next(csv.DictReader(_csv([_flat(run, item)]).splitlines()))
    title = "latency_us batch 1, 1 thread"
    assert (row[f"{title}, of the float file"], row[f"{title}, busy"]) == ("0.4", "True")


def test_verdict_without_spread_claims_nothing(tmp_path: Path) -> None:
    """With one training each, no difference is known to lie within a standard deviation."""
    folder, rng = begin(tmp_path), random.Random(1)
    for name in ("default", "all"):
        item = measure(BASELINES[name], f"baseline:{name}", "full", rng)
        folder.append(dataclasses.replace(item, metrics={"nll": Quantity(1.0)}))
    rival = measure(configuration("exchange", lambda block, part: True), "final", "full", rng)
    folder.append(dataclasses.replace(rival, metrics={"nll": Quantity(1.0)}))
    found = verdict.verdict(view.read(folder))
    text = " ".join((found.headline, *found.sentences))
    assert "standard deviation of the float" not in text
    assert "without a measurable loss" not in text
    assert "No spread of the validation NLL was measured" in text


def test_points_of_other_fractions_have_no_significance(tmp_path: Path) -> None:
    """What quantises more and is worse is another trade, not a defeat by so many standard deviations."""
    folder, rng = begin(tmp_path), random.Random(1)
    for name, value in (("default", 1.0), ("nncentral", 2.0)):
        item = measure(BASELINES[name], f"baseline:{name}", "full", rng)
        folder.append(dataclasses.replace(item, metrics={"nll": Quantity(value, 0.1, 3)}))
    rival = measure(configuration("exchange", lambda block, part: True), "final", "full", rng)
    folder.append(dataclasses.replace(rival, metrics={"nll": Quantity(7.0, 0.1, 3)}))
    run = view.read(folder)
    (row,) = verdict.comparison_table(run).rows
    assert row[-1].text == "quantises more"
    assert any("`nncentral` quantises more and is worse" in text for text in verdict.verdict(run).sentences)


def drawn(
    reference: list[float], generated: list[float], logarithmic: bool = False
) -> physics.Drawn[Histogram]:
    edges = tuple(float(i) for i in range(len(reference) + 1))
    plot = Histogram("h", "h", edges, tuple(reference), tuple(generated), Quantity(0.0), logarithmic)
    return physics.Drawn("all", "#000000", 1.0, plot)


def test_ratios_have_errors_and_leave_out_what_is_nearly_empty() -> None:
    """Shares of 100 and 50 in 200 against 100 and 98 in 200 entries; their errors add in quadrature."""
    ratio, error = physics._compared(drawn([100, 98, 2], [100, 50, 50]).plot)
    assert ratio[0] == pytest.approx(1.0)
    assert error[0] == pytest.approx((1 / 100 + 1 / 100) ** 0.5)
    assert ratio[1] == pytest.approx(50 / 98)
    assert np.isnan(ratio[2])
    assert np.isnan(error[2])


def test_one_bin_that_holds_nearly_all_takes_a_logarithmic_axis() -> None:
    assert physics.histogram([drawn([900, 50, 50], [900, 60, 40])]).axes[0].get_yscale() == "log"
    assert physics.histogram([drawn([300, 400, 300], [300, 400, 300])]).axes[0].get_yscale() == "linear"


def test_labels_of_a_profile_stay_beside_their_panel() -> None:
    label = "Mean radius of the energy deposits of a layer [mm]"
    plot = Profile("r", label, "layer", (0.0, 1.0), (1.0, 2.0), (1.0, 2.0))
    figure = physics.profile([physics.Drawn("all", "#000000", 1.0, plot)])
    FigureCanvasAgg(figure).draw()  # type: ignore[no-untyped-call]
    main, ratio = figure.axes
    text = main.yaxis.label.get_window_extent()
    assert text.y0 > ratio.get_window_extent().y1
    assert text.x0 > 0


def test_numbers_of_the_two_panels_do_not_meet() -> None:
    figure = physics.histogram([drawn([300, 400, 300], [300, 400, 300])])
    FigureCanvasAgg(figure).draw()  # type: ignore[no-untyped-call]
    main, ratio = figure.axes
    lowest = min(label.get_window_extent().y0 for label in main.get_yticklabels() if label.get_text())
    highest = max(label.get_window_extent().y1 for label in ratio.get_yticklabels() if label.get_text())
    assert lowest > highest
