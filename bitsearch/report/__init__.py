"""The report of a run: one HTML page, figures and tables, made from the files of a run folder alone."""

import re
import shlex
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from functools import partial
from importlib.resources import files
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup, escape
from matplotlib import rc_context

from bitsearch.core import pareto
from bitsearch.core.atomic import write_atomically
from bitsearch.core.errors import ConfigurationError
from bitsearch.core.manifest import Manifest
from bitsearch.core.names import safe_name
from bitsearch.core.rundir import RunFolder
from bitsearch.report import figures, numbers, physics, tables, verdict, view
from bitsearch.report.sheets import sheets
from bitsearch.report.style import STYLE, Draw, draw, publish

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def build(folder: RunFolder, executor: Executor | None = None) -> Path:
    """Write report/index.html, its figures and CSV files, whatever state the run is in; give its path.

    With an executor, figures are written side by side.
    """
    run = view.read(folder)
    for name, text in sheets(run).items():
        write_atomically(folder.report / name, text)
    with rc_context(STYLE):
        side_by_side = executor.map if executor else map
        drawings = {name: drawn for name, make in _drawings(run) if (drawn := draw(make))}
        where = repeat(folder.report / "figures")
        pictures = list(side_by_side(publish, drawings.values(), drawings, where))
    page = folder.report / "index.html"
    write_atomically(page, _template().render(_content(run), pictures=pictures))
    return page


def predicted_seconds(folder: RunFolder) -> float:
    """Predict how long `build` draws in one process, from the first and the last figure that it has."""
    drawings = list(_drawings(view.read(folder)))
    with rc_context(STYLE):
        publish(
            draw(drawings[0][1]) or "", "first", folder.report
        )  # what is imported and cached is not timed
        began = time.monotonic()
        for name, make in (drawings[0], drawings[-1]):
            publish(draw(make) or "", name, folder.report)
    return (time.monotonic() - began) / 2 * len(drawings)


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


def _content(run: view.Run) -> dict[str, Any]:
    """Collect what the page says beside its figures."""
    manifest = run.manifest
    return {
        "run": run,
        "manifest": manifest,
        "command": shlex.join(manifest.command),
        "title": _title(manifest),
        "verdict": verdict.verdict(run),
        "front": tables.performance(run, run.front),
        "front_serving": tables.serving(run, run.front),
        "baselines": tables.performance(run, run.baselines),
        "baselines_serving": tables.serving(run, run.baselines),
        "comparison": verdict.comparison_table(run) if run.searched else None,
        "published": tables.published(run),
        "alone": tables.alone(run),
        "failures": tables.failures(run) if run.failures else None,
        "evaluated": run.shown(),
        "drawn": physics.DRAWN,
        "few": physics.FEW,
        "attempts": len({item.digest for item in run.results}),
        "resolved": dict(_flatten(manifest.settings)),
        "predicted": {stage.name: stage.seconds for stage in manifest.predicted},
        "seconds": sum(stage.seconds for stage in manifest.stages),
        "numbers": numbers,
        "training": view.TRAINING,
    }


def _title(manifest: Manifest) -> str:
    """Say which data the run has seen, and that they are generated if they are."""
    title = manifest.title or f"{manifest.model} on {manifest.dataset}"
    generated = manifest.data is not None and manifest.data.generated
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
    environment.filters["code"] = _code
    return environment.get_template("page.html.jinja")


def _code(text: str) -> Markup:
    """Escape a text and set as code what stands between backticks."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))
