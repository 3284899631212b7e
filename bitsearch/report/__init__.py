"""The report of a run: one HTML page, figures and tables, made from the files of a run folder alone."""

from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from importlib.resources import files
from itertools import repeat
from pathlib import Path
from typing import Any

import jinja2
from matplotlib import rc_context

from bitsearch.core import pareto
from bitsearch.core.rundir import RunFolder, write_atomically
from bitsearch.report import figures, numbers, physics, tables, verdict, view
from bitsearch.report.sheets import sheets
from bitsearch.report.style import STYLE, Drawing, publish


def build(folder: RunFolder, executor: Executor | None = None) -> Path:
    """Write report/index.html, its figures and CSV files, whatever state the run is in; give its path.

    With an executor, figures are written side by side.
    """
    run = view.read(folder)
    for name, text in sheets(run).items():
        write_atomically(folder.report / name, text)
    with rc_context(STYLE):
        side_by_side = executor.map if executor else map
        drawings = dict(_drawings(run))
        where = repeat(folder.report / "figures")
        pictures = list(side_by_side(publish, drawings.values(), drawings, where))
    page = folder.report / "index.html"
    write_atomically(page, _template().render(_content(run), pictures=pictures))
    return page


def _drawings(run: view.Run) -> Iterator[tuple[str, Drawing]]:
    """Draw every figure that the records allow."""
    if measured := run.measured:
        yield "pareto", figures.performance(run, run.objective, measured, run.front)
        for metric in run.metrics.values():
            if metric != run.objective and any(metric.name in item.metrics for item in measured):
                yield f"metric-{metric.name}", figures.performance(run, metric, measured, run.front)
    if run.search_fidelity != run.fidelity and (candidates := run.candidates):
        front = pareto.front(candidates, run.objective)
        yield "search", figures.performance(run, run.objective, candidates, front)
    optional = {"layers": figures.layers(run), "hypervolume": figures.hypervolume(run)}
    yield from ((name, drawing) for name, drawing in optional.items() if drawing)
    yield from physics.figures(run)


def _content(run: view.Run) -> dict[str, Any]:
    """Collect what the page says beside its figures."""
    settings = run.settings
    seconds = sum(stage["seconds"] for stage in settings.get("stages", []))
    return {
        "run": run,
        "settings": settings,
        "title": _title(settings),
        "data": settings.get("data", {}),
        "verdict": verdict.verdict(run),
        "front": tables.performance(run, run.front),
        "front_serving": tables.serving(run, run.front),
        "baselines": tables.performance(run, run.baselines),
        "baselines_serving": tables.serving(run, run.baselines),
        "comparison": verdict.comparison_table(run) if run.searched else None,
        "published": tables.published(run),
        "failures": tables.failures(run) if run.failures else None,
        "evaluated": run.shown(),
        "drawn": physics.DRAWN,
        "attempts": len({item.digest for item in run.results}),
        "resolved": dict(_flatten(settings.get("settings", {}))),
        "seconds": seconds,
        "numbers": numbers,
        "training": view.TRAINING,
    }


def _title(settings: Mapping[str, Any]) -> str:
    """Say which data the run has seen, and that they are generated if they are."""
    model, dataset = settings.get("model", "Network"), settings.get("dataset", "unknown data")
    title = str(settings.get("title") or f"{model} on {dataset}")
    generated = settings.get("data", {}).get("generated", False)
    return f"{title} (generated data)" if generated and "generated" not in title.lower() else title


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _template() -> jinja2.Template:
    here = files(__package__)
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: here.joinpath(name).read_text(encoding="utf-8")),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.jinja")
