"""How figures look, and how one is published: PNG and PDF beside the page, SVG inside it."""

import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.cbook import is_math_text
from matplotlib.figure import Figure
from matplotlib.mathtext import MathTextParser
from matplotlib.text import Text

INK: Final = "#1b1d21"
PAPER: Final = "#fffffe"
MUTED: Final = "#8a8f98"
FAINT: Final = "#d9dce1"
BLUE: Final = "#0072b2"
ORANGE: Final = "#d55e00"
GREEN: Final = "#009e73"
PURPLE: Final = "#a6518a"
"""After Okabe and Ito: told apart by colour-blind readers and in grey print."""

NAMES: Final[Mapping[str, str]] = {
    INK: "ink",
    PAPER: "paper",
    MUTED: "muted",
    FAINT: "faint",
    BLUE: "blue",
    ORANGE: "orange",
    GREEN: "green",
    PURPLE: "purple",
}

STYLE: Final[Any] = {
    "font.family": "STIXGeneral",  # comes with matplotlib, so figures look the same on every machine
    "mathtext.fontset": "stix",
    "font.size": 12,
    "axes.labelsize": 13,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.linewidth": 0.9,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.prop_cycle": "cycler('color', ['#0072b2', '#d55e00', '#009e73', '#a6518a'])",
    "figure.facecolor": PAPER,
    "text.color": INK,
    "xaxis.labellocation": "right",
    "yaxis.labellocation": "top",
    "xtick.direction": "in",
    "ytick.direction": "in",
    "xtick.top": True,
    "ytick.right": True,
    "xtick.minor.visible": True,
    "ytick.minor.visible": True,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "xtick.major.size": 6,
    "ytick.major.size": 6,
    "xtick.minor.size": 3,
    "ytick.minor.size": 3,
    "legend.frameon": False,
    "legend.fontsize": 10.5,
    "legend.handletextpad": 0.5,
    "lines.linewidth": 1.5,
    "errorbar.capsize": 2,
    "svg.hashsalt": "bitsearch",
    "pdf.fonttype": 42,
    "savefig.dpi": 180,
}


@dataclass
class Drawing:
    """A figure, what it shows in one line, and the texts its artists show under the pointer, by their gid."""

    figure: Figure
    description: str
    hover: dict[str, str] = field(default_factory=dict)


Draw = Callable[[], Drawing | None]


@dataclass(frozen=True)
class Picture:
    """A figure inside the page: `svg` takes its colours from the page; a paragraph where it could not be drawn."""

    name: str
    description: str
    svg: Markup
    drawn: bool = True


def stamp(axes: Axes, text: str) -> None:
    """Say along the right edge which data a figure shows, so that it says so wherever it is copied to."""
    axes.text(1.015, 0, text, transform=axes.transAxes, rotation=90, va="bottom", fontsize=9, color=MUTED)


def draw(make: Draw) -> Drawing | str | None:
    """Draw a figure, or say why it cannot be drawn (records may hold any number); None where there is none yet."""
    try:
        return make()
    except (ArithmeticError, IndexError, ValueError) as error:
        return _reason(error)


@rc_context(STYLE)
def publish(drawing: Drawing | str, name: str, folder: Path) -> Picture:
    """Write `name`.png and `name`.pdf into `folder` and give the SVG to embed, or the reason why there is none."""
    if isinstance(drawing, str):
        return Picture(name, "", Markup('<p class="warning">{}</p>').format(drawing), drawn=False)
    try:
        return _publish(drawing, name, folder)
    except (ArithmeticError, IndexError, ValueError) as error:
        for suffix in ("png", "pdf"):
            (folder / f"{name}.{suffix}").unlink(missing_ok=True)
        return publish(_reason(error), name, folder)


def _reason(error: Exception) -> str:
    return f"This figure cannot be drawn: {' '.join(str(error).split())[:200]}"


def _publish(drawing: Drawing, name: str, folder: Path) -> Picture:
    folder.mkdir(parents=True, exist_ok=True)
    figure = drawing.figure
    _show_bad_formulas_as_text(figure)
    figure.savefig(folder / f"{name}.png")
    figure.set_layout_engine("none")
    # Not `savefig`, which draws everything a second time for a layout that now stands.
    pdf: Any = FigureCanvasPdf(figure)
    pdf.print_pdf(folder / f"{name}.pdf", metadata={"CreationDate": None})
    figure.patch.set_visible(False)
    buffer = io.StringIO()
    svg: Any = FigureCanvasSVG(figure)
    svg.print_svg(buffer, metadata={"Date": None})
    return Picture(name, drawing.description, _embeddable(buffer.getvalue(), name, drawing))


def _show_bad_formulas_as_text(figure: Figure) -> None:
    """Labels come from records: a `$` in them need not begin a formula."""
    parser = MathTextParser("path")
    for text in figure.findobj(Text):
        if "$" not in text.get_text():
            continue
        try:
            for line in filter(is_math_text, text.get_text().split("\n")):
                parser.parse(line)
        except ValueError:
            text.set_parse_math(False)


def _embeddable(svg: str, name: str, drawing: Drawing) -> Markup:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    for gid, text in drawing.hover.items():
        svg = svg.replace(f'<g id="{gid}">', f'<g id="{gid}"><title>{escape(text)}</title>')
    # Many figures share one page, so their ids must not meet.
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    for colour, variable in NAMES.items():
        svg = svg.replace(colour, f"var(--{variable})")
    width, height = 72 * drawing.figure.get_size_inches()  # points
    head = (
        f'<svg viewBox="0 0 {width:g} {height:g}" style="max-width: {width:g}pt" role="img" '
        f'aria-label="{escape(drawing.description)}">'
    )
    return Markup(re.sub(r"<svg.*?>", lambda _: head, svg, count=1, flags=re.DOTALL))
