"""How figures look, and how one is published: PNG, PDF and data beside the page, SVG inside it."""

import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.cbook import is_math_text
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.mathtext import MathTextParser
from matplotlib.text import Text

from bitsearch.core.atomic import write_atomically

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

SVG: Final = "{http://www.w3.org/2000/svg}"
TYPEFACE: Final = "'STIX Two Text', STIXGeneral, 'Times New Roman', 'Liberation Serif', Tinos, serif"
"""What browsers have of the proportions that figures are laid out in, those of STIX: Times and its kin."""
ElementTree.register_namespace("", SVG.strip("{}"))
ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")

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
    "svg.fonttype": "none",  # text that can be selected, searched and read aloud
    "pdf.fonttype": 42,
    "savefig.dpi": 180,
}


@dataclass(frozen=True)
class Point:
    """What an artist of a figure says under the pointer, which configuration it is and where a click leads.

    The keyboard stops at it with `tab`.
    """

    text: str
    digest: str
    anchor: str
    tab: bool = True


@dataclass(frozen=True)
class Key:
    """One line of a legend: what it is called, its colour, and what is said of it in this figure alone."""

    label: str
    colour: str
    note: str = ""

    @property
    def name(self) -> str:
        """The page's name of the colour."""
        return NAMES[self.colour]


@dataclass
class Drawing:
    """A figure, what it shows in one line, and its artists that answer to the pointer, by their gid.

    `data` is a table for HEPData. A legend that the page has once for many figures stands in `keys`: inside the page
    the shares `above` and `below` of the height, where the figure's own legend is, are cut off; files keep them.
    """

    figure: Figure
    description: str
    points: dict[str, Point] = field(default_factory=dict)
    data: str = ""
    keys: tuple[Key, ...] = ()
    above: float = 0.0
    below: float = 0.0


Draw = Callable[[], Drawing | None]


@dataclass(frozen=True)
class Picture:
    """A figure inside the page: `svg` takes its colours from the page; a paragraph where it could not be drawn.

    `files` says whether PDF, PNG and YAML lie beside the page.
    """

    name: str
    description: str
    svg: Markup
    keys: tuple[Key, ...] = ()
    files: bool = True


def stamp(axes: Axes, text: str) -> None:
    """Say along the right edge which data a figure shows, so that it says so wherever it is copied to."""
    axes.text(1.015, 0, text, transform=axes.transAxes, rotation=90, va="bottom", fontsize=9, color=MUTED)


def draw(make: Draw) -> Drawing | str | None:
    """Draw a figure, or say why it cannot be drawn (records may hold any number); None where there is none yet."""
    try:
        if drawing := make():
            _show_bad_formulas_as_text(drawing.figure)
        return drawing
    except (ArithmeticError, IndexError, ValueError) as error:
        return _reason(error)


@rc_context(STYLE)
def publish(drawing: Drawing | str, name: str, folder: Path) -> Picture:
    """Write `name`.png, .pdf and .yaml into `folder`; give the SVG to embed, or the reason why there is none."""
    if not isinstance(drawing, str):
        try:
            _write(drawing, name, folder)
        except (ArithmeticError, IndexError, ValueError) as error:
            for suffix in ("png", "pdf", "yaml"):
                (folder / f"{name}.{suffix}").unlink(missing_ok=True)
            drawing = _reason(error)
    return replace(inline(drawing, name), files=not isinstance(drawing, str))


@rc_context(STYLE)
def inline(drawing: Drawing | str, name: str) -> Picture:
    """Give the SVG to embed, or the reason why there is none, and write no file."""
    if isinstance(drawing, str):
        return Picture(name, "", Markup('<p class="warning">{}</p>').format(drawing), files=False)
    drawing.figure.patch.set_visible(False)
    if drawing.above or drawing.below:
        for legend in drawing.figure.findobj(Legend):
            legend.set_visible(False)
    buffer = io.StringIO()
    svg: Any = FigureCanvasSVG(drawing.figure)
    try:
        svg.print_svg(buffer, metadata={"Date": None})
    except (ArithmeticError, IndexError, ValueError) as error:
        return inline(_reason(error), name)
    svg_text = _embeddable(buffer.getvalue(), name, drawing)
    return Picture(name, drawing.description, svg_text, drawing.keys, files=False)


def _reason(error: Exception) -> str:
    return f"This figure cannot be drawn: {' '.join(str(error).split())[:200]}"


def _write(drawing: Drawing, name: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    figure = drawing.figure
    figure.savefig(folder / f"{name}.png")
    figure.set_layout_engine("none")
    # Not `savefig`, which draws everything a second time for a layout that now stands.
    pdf: Any = FigureCanvasPdf(figure)
    pdf.print_pdf(folder / f"{name}.pdf", metadata={"CreationDate": None})
    write_atomically(folder / f"{name}.yaml", drawing.data)


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
    """Take a figure into the page: links for its points, ids of its own, the page's colours and a fitting typeface."""
    root = ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag == f"{SVG}metadata":
                parent.remove(child)
            elif point := drawing.points.get(child.get("id", "")):
                _link(child, point)
    svg = ElementTree.tostring(root, encoding="unicode")
    # Many figures share one page, so their ids must not meet.
    svg = re.sub(r'(\bid="|href="#(?!c-|m-)|url\(#)', rf"\g<1>{name}-", svg)
    for colour, variable in NAMES.items():
        svg = svg.replace(colour, f"var(--{variable})")
    svg = re.sub(r"'?(?:STIXGeneral|DejaVu Serif)'?", TYPEFACE, svg)
    width, height = 72 * drawing.figure.get_size_inches()  # points
    top, height = drawing.above * height, (1 - drawing.above - drawing.below) * height
    # An image has no inside for a screen reader: a figure with links is a group instead.
    role = "group" if drawing.points else "img"
    head = (
        f'<svg viewBox="0 {top:g} {width:g} {height:g}" style="max-width: {width / 12:g}rem" role="{role}" '
        f'aria-label="{escape(drawing.description)}">'
    )
    return Markup(re.sub(r"<svg.*?>", lambda _: head, svg, count=1, flags=re.DOTALL))


def _link(element: ElementTree.Element, point: Point) -> None:
    """Make a group of shapes a link that says its text to pointers and screen readers alike."""
    element.tag = f"{SVG}a"
    element.attrib |= {"href": f"#{point.anchor}", "class": "point", "data-digest": point.digest}
    element.attrib |= {"aria-label": point.text} | ({} if point.tab else {"tabindex": "-1"})
    title = ElementTree.Element(f"{SVG}title")
    title.text = point.text
    element.insert(0, title)
