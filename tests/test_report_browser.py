"""The page in a real browser: it answers to pointer and keyboard, and everybody can read it."""

import dataclasses
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser, browser
from matplotlib import rc_context
from synthetic_run import baselines, begin, search

from bitsearch import report
from bitsearch.report import style, view

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on this machine: the page was not opened"
)
AXE = Path(__file__).parents[1] / "node_modules" / "axe-core" / "axe.min.js"
VIOLATIONS = "axe.run().then((found) => [found.passes.length, found.violations.map((item) => item.help)])"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = begin(tmp_path_factory.mktemp("browser")), random.Random(5)
    baselines(folder, "finetuned", rng)
    search(folder, 30, rng)
    page = folder.path / "page.html"
    run = view.read(folder)
    makers = {name: make for name, make in report._drawings(run) if name in report.LIGHT}
    with rc_context(style.STYLE):
        pictures = [style.inline(drawing, name) for name, drawing in report._drawn(makers).items()]
    # As in the report, whose files lie beside it.
    page.write_text(report._page(run, [dataclasses.replace(picture, files=True) for picture in pictures]))
    return page


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as found:
        yield found


@pytest.fixture
def page(chromium: Browser, path: Path) -> Browser:
    chromium.look(1400)
    chromium.errors.clear()
    chromium.open(path.as_uri())
    assert chromium.errors == []
    return chromium


def column(page: Browser, name: str, place: int) -> list[float]:
    found: list[float] = page.run(
        f"[...document.querySelectorAll('table[data-name={name}] tbody tr')].filter((row) => !row.hidden)"
        f".map((row) => Number(row.cells[{place}].dataset.value))"
    )
    return found


def test_a_point_says_what_it_is_and_lights_its_rows(page: Browser) -> None:
    page.point("#figure-pareto a.point[href^='#c-']")
    label = page.run(
        "document.querySelector('#figure-pareto a.point[href^=\"#c-\"]').getAttribute('aria-label')"
    )
    assert page.run("document.querySelector('.tip').textContent") == label
    assert not page.run("document.querySelector('.tip').hidden")
    assert page.run("document.querySelectorAll('tr.lit').length") >= 1
    page.point("h1")
    assert page.run("document.querySelector('.tip').hidden")


def test_a_click_opens_the_card_and_its_address_does_again(page: Browser, path: Path) -> None:
    anchor = page.run("document.querySelector('#figure-pareto a.point[href^=\"#c-\"]').getAttribute('href')")
    page.point(f"#figure-pareto a.point[href='{anchor}']", click=True)
    assert page.run("location.hash") == anchor
    assert page.run(
        "new Promise((done) => setTimeout(() => done(document.querySelector(location.hash).open), 50))"
    )
    page.open("about:blank")
    page.open(path.as_uri() + anchor)
    assert page.run(f"document.querySelector('{anchor}').open")


def test_keyboard_reaches_points_and_opens_them(page: Browser) -> None:
    page.run("document.querySelector('#figure-pareto a.point[href^=\"#c-\"]:not([tabindex])').focus()")
    assert not page.run("document.querySelector('.tip').hidden")
    page.press("Tab")
    assert page.run("document.activeElement.matches('a.point')")
    page.press("Enter")
    assert page.run(
        "new Promise((done) => setTimeout(() => done(document.querySelector(location.hash).open), 50))"
    )


def test_tables_sort_both_ways_by_their_full_digits(page: Browser) -> None:
    head = "table[data-name=m] thead th:nth-child(3) button"
    before = column(page, "m", 2)
    assert before != sorted(before)
    page.point(head, click=True)
    assert column(page, "m", 2) == sorted(before)
    assert page.run("document.querySelector('table[data-name=m] th:nth-child(3)').ariaSort") == "ascending"
    page.point(head, click=True)
    assert column(page, "m", 2) == sorted(before, reverse=True)


def test_tables_filter_and_copy_what_is_left(page: Browser) -> None:
    bar = "document.querySelector('table[data-name=m]').parentElement.previousElementSibling"
    page.run(f"{bar}.querySelector('input').value = 'nncentral'")
    page.run(f"{bar}.querySelector('input').dispatchEvent(new Event('input'))")
    assert len(column(page, "m", 2)) == 1
    page.run("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    page.run(f"{bar}.querySelector('button').click()")
    titles, row = page.run("window.copied").split("\n")
    assert titles.split("\t")[0] == "configuration"
    assert row.split("\t")[0] == "nncentral"


def test_text_of_figures_can_be_selected(page: Browser) -> None:
    page.run("getSelection().selectAllChildren(document.querySelector('#figure-pareto svg'))")
    assert "quantised fraction of the executed parameters" in page.run("getSelection().toString()")


@pytest.mark.parametrize("width", [420, 1400, 3840])
def test_no_width_makes_the_page_scroll_sideways(page: Browser, width: int) -> None:
    page.look(width)
    assert page.run("document.documentElement.scrollWidth") <= width


def test_records_cannot_run_scripts(page: Browser) -> None:
    """The policy refuses what the page did not come with, even where markup got in."""
    page.run(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = 1'}))"
    )
    assert page.run("window.ran === undefined")


@pytest.mark.skipif(not AXE.is_file(), reason="axe-core is not here (npm install --no-save axe-core)")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [420, 1400])
def test_nothing_keeps_anybody_from_reading(page: Browser, path: Path, scheme: str, width: int) -> None:
    page.look(width, scheme=scheme)
    page.open(path.as_uri())
    page.run("document.querySelectorAll('details').forEach((item) => { item.open = true; })")
    page.run(AXE.read_text() + "; 0")
    passes, violations = page.run(VIOLATIONS)
    assert passes > 20
    assert violations == []
