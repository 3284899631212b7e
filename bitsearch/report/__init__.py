"""The report of a run: one HTML page, figures and tables, made from the files of a run folder alone."""

import json
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib import rc_context

from bitsearch.core import pareto
from bitsearch.core.atomic import write_atomically
from bitsearch.core.errors import ConfigurationError
from bitsearch.core.names import safe_name
from bitsearch.core.rundir import RunFolder
from bitsearch.report import cards, figures, numbers, physics, sheets, tables, verdict, view
from bitsearch.report.style import STYLE, Draw, Drawing, Picture, draw, inline, publish
from bitsearch.report.template import fill

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CONTENTS = {
    "decision": "Decision",
    "front": "The front",
    "strategies": "",
    "layers": "Layers",
    "physics": "Physics",
    "published": "The paper's numbers",
    "configurations": "Configurations",
    "measurements": "Every measurement",
    "health": "Health of the search",
    "again": "Reproducing this run",
}
"""Sections of the page, by id; strategies are called what they are."""
LIGHT = ("pareto", "layers", "hypervolume")
"""Figures that a page has while its run goes on: drawing all takes time that trainings want."""


def build(folder: RunFolder, executor: Executor | None = None) -> Path:
    """Write report/index.html, its figures and CSV files, whatever state the run is in; give its path.

    With an executor, figures are written side by side.
    """
    run = view.read(folder)
    for name, text in sheets.texts(run).items():
        write_atomically(folder.report / name, text)
    for item in run.carded.values():
        content = json.dumps(dict(item.assignment), indent=1)
        write_atomically(folder.report / cards.assignment_file(item), content)
    with rc_context(STYLE):
        side_by_side = executor.map if executor else map
        drawings = _drawn(dict(_drawings(run)))
        where = repeat(folder.report / "figures")
        pictures = list(side_by_side(publish, drawings.values(), drawings, where))
    page = folder.report / "index.html"
    write_atomically(page, _page(run, pictures))
    return page


def predicted_seconds(folder: RunFolder) -> float:
    """Predict how long `build` draws in one process, from the first and the last figure that it has."""
    drawings = list(_drawings(view.read(folder)))
    with rc_context(STYLE):
        # What is imported and cached is not timed.
        publish(draw(drawings[0][1]) or "", "first", folder.report)
        began = time.monotonic()
        for name, make in (drawings[0], drawings[-1]):
            publish(draw(make) or "", name, folder.report)
    return (time.monotonic() - began) / 2 * len(drawings)


def render(run: view.Run, stamp: str = "") -> str:
    """Give the page as it stands, with the figures of `LIGHT` alone, and write nothing.

    A page with a stamp looks for a new one beside it and loads itself again.
    """
    makers = {name: make for name, make in _drawings(run) if name in LIGHT}
    with rc_context(STYLE):
        return _page(run, [inline(drawing, name) for name, drawing in _drawn(makers).items()], stamp)


def front(run: view.Run) -> "Figure":
    """Draw the objective against the quantised fraction; raises ConfigurationError before anything is measured."""
    if not run.measured:
        raise ConfigurationError(f"{run.folder.path} holds no measurement yet; expected one at least")
    with rc_context(STYLE):
        return figures.performance(run, run.objective, run.measured, run.front).figure


def _drawings(run: view.Run) -> Iterator[tuple[str, Draw]]:
    """Name every figure that the records allow, and how it is drawn."""
    if measured := run.measured:
        yield "pareto", partial(figures.performance, run, run.objective, measured, run.front)
        for metric in run.metrics.values():
            if metric != run.objective and any(metric.name in item.metrics for item in measured):
                name = f"metric-{safe_name(metric.name)}"
                yield name, partial(figures.performance, run, metric, measured, run.front)
    if run.search_fidelity != run.fidelity and (candidates := run.candidates):
        front = pareto.front(candidates, run.objective)
        yield "search", partial(figures.performance, run, run.objective, candidates, front)
    yield "layers", partial(figures.layers, run)
    yield "hypervolume", partial(figures.hypervolume, run)
    yield from physics.figures(run)


def _drawn(makers: Mapping[str, Draw]) -> dict[str, Drawing | str]:
    return {name: drawn for name, make in makers.items() if (drawn := draw(make))}


def _page(run: view.Run, pictures: Sequence[Picture], stamp: str = "") -> str:
    return fill("page.html.jinja", pictures=pictures, stamp=stamp, **_content(run))


def _content(run: view.Run) -> dict[str, Any]:
    """Collect what the page says beside its figures."""
    manifest = run.manifest
    return {
        "run": run,
        "cards": cards.cards(run),
        "manifest": manifest,
        "command": shlex.join(manifest.command),
        "title": run.title,
        "verdict": verdict.verdict(run),
        "front": tables.performance(run, run.front),
        "front_serving": tables.serving(run, run.front),
        "baselines": tables.performance(run, run.baselines),
        "baselines_serving": tables.serving(run, run.baselines),
        "rank_agreement": verdict.rank_agreement(run),
        "comparison": verdict.comparison_table(run) if run.searched else None,
        "published": tables.published(run),
        "measured": tables.measurements(run),
        "alone": tables.alone(run),
        "failures": tables.failures(run) if run.failures else None,
        "contents": [
            (name, title or run.rivals.capitalize()) for name, title in CONTENTS.items() if _has(run, name)
        ],
        "evaluated": run.shown(),
        "drawn": physics.DRAWN,
        "few": physics.FEW,
        "attempts": len({item.digest for item in run.results}),
        "resolved": run.settings,
        "predicted": {stage.name: stage.seconds for stage in manifest.predicted},
        "seconds": sum(stage.seconds for stage in manifest.stages),
        "numbers": numbers,
        "training": view.TRAINING,
    }


def _has(run: view.Run, section: str) -> bool:
    """Tell whether a page has a section: files that nothing was trained for have no physics, own networks no paper."""
    if section == "published":
        return bool(run.manifest.published.results)
    return section != "physics" or bool(run.shown()) or run.fidelity != "untrained"
