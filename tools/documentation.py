"""Pages of the documentation site that are made from the program itself: mkdocs calls these hooks."""

import json
import os
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
COPIES = {
    "operators.md": "ops/README.md",
    "ternary_matmul.md": "ops/ternary_matmul/README.md",
    "ternary_chain.md": "ops/ternary_chain/README.md",
    "monotone_spline.md": "ops/monotone_spline/README.md",
    "message_passing.md": "ops/message_passing/README.md",
    "select_columns.md": "ops/select_columns/README.md",
    "reproducible_operators.md": "ops/reproducible/README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
}
"""Pages of the site that are files of the repository elsewhere."""
WIDTH = 80
"""Characters of a line of help, as wide as a page shows without scrolling."""


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages that stand in no file of `docs`."""
    pages = {name: (ROOT / source).read_text() for name, source in COPIES.items()}
    pages["command_line.md"] = command_line()
    pages["bitnet_weights.svg"], pages["bitnet_step.svg"] = figures()
    for notebook in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        pages[f"notebooks/{notebook.stem}.md"] = notebook_page(notebook)
    for name, content in pages.items():
        files.append(File.generated(config, name, content=content))
    for file in [*files]:
        if file.src_uri.endswith(".ipynb"):
            files.remove(file)
    return files


def on_page_markdown(markdown: str, *, page: Page, files: Files, **_: Any) -> str:
    """Turn links to the repository's files into links to their pages, or into their names where they have none."""
    uri = page.file.src_uri
    source = ROOT / COPIES.get(uri, f"docs/{uri}")
    sites = {(ROOT / path).resolve(): name for name, path in COPIES.items()}

    def replaced(match: re.Match[str]) -> str:
        text, target = match["text"], match["target"]
        if re.match(r"\w+:|#", target):
            return match[0]
        path, _, anchor = target.partition("#")
        found = (source.parent / path).resolve()
        name = sites.get(found)
        if name is None and found.is_relative_to(ROOT / "docs"):
            name = found.relative_to(ROOT / "docs").as_posix()
        if name is not None and files.get_file_from_path(name):
            here = os.path.relpath(name, Path(uri).parent)
            return f"{match['mark']}[{text}]({here}{'#' + anchor if anchor else ''})"
        if not found.exists():
            raise PluginError(f"{source.relative_to(ROOT)}: the link {target} leads nowhere")
        return text if "`" in text else f"`{found.relative_to(ROOT)}`"

    return re.sub(r"(?P<mark>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)", replaced, markdown)


def command_line() -> str:
    """Write the reference of all verbs from the parser."""
    os.environ["COLUMNS"] = str(WIDTH)
    from bitsearch.cli import parser
    from bitsearch.cli.table import VERBS

    lines = ["# The command line", "", f"```text\n{parser().format_help()}```", ""]
    children = dict(_children(parser()))
    for verb in VERBS:
        needs = f" Needs `bitsearch[{verb.extra}]`." if verb.extra else ""
        lines += [f"## bitsearch {verb.name}", "", f"{verb.help[0].upper()}{verb.help[1:]}.{needs}", ""]
        lines += [f"```text\n{children[verb.name].format_help()}```", ""]
    return "\n".join(lines)


def _children(of: Any, name: str = "") -> Any:
    for action in of._actions:
        for verb, child in (action.choices or {}).items() if hasattr(action, "_choices_actions") else ():
            yield f"{name} {verb}".strip(), child
            yield from _children(child, f"{name} {verb}".strip())


def notebook_page(path: Path) -> str:
    """Write a notebook's cells as a page."""
    parts = []
    for cell in json.loads(path.read_text())["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    return "\n\n".join(parts) + "\n"


def figures() -> tuple[str, str]:
    """Draw what rounding does to one row of weights, and what the straight-through estimator does to its gradient."""
    import io

    import numpy as np
    from matplotlib.figure import Figure

    from bitsearch.core.rounding import Rounding, round_rows

    weight = np.random.default_rng(1).normal(0, 0.1, (1, 4000)).astype(np.float32)
    drawn = Figure(figsize=(7, 2.8), layout="constrained")
    axes = drawn.subplots(1, 2, sharey=True)
    for axis, rounding in zip(axes, (Rounding.PAPER, Rounding.OPTIMAL), strict=True):
        codes, scale = round_rows(weight, rounding)
        error = float(np.mean((codes * scale[:, None] - weight) ** 2) / np.mean(weight**2))
        for code, color in ((-1, "#3b6fb6"), (0, "#9a9a9a"), (1, "#c8553d")):
            axis.hist(
                weight[codes == code],
                80,
                (-0.4, 0.4),
                color=color,
                label=f"code {code:+d}" if code else "code 0",
            )
        for side in (-1, 1):
            axis.axvline(side * float(scale[0]), color="black", linestyle="--", linewidth=1)
        axis.set_title(f"{rounding}: squared error {error:.0%}", fontsize="medium")
        axis.set_xlabel("weight")
    axes[0].set_ylabel("weights")
    axes[1].legend(frameon=False)
    step = Figure(figsize=(7, 2.4), layout="constrained")
    axis = step.subplots()
    x = np.linspace(-1.6, 1.6, 801)
    axis.plot(x, np.clip(np.rint(x), -1, 1), label="forward: clip(round(w / β), -1, 1)", color="#3b6fb6")
    axis.plot(x, x, "--", label="backward: as if it were w / β", color="#c8553d")
    axis.set(xlabel="w / β", ylabel="code")
    axis.legend(frameon=False)
    texts = []
    for figure in (drawn, step):
        stream = io.StringIO()
        figure.savefig(stream, format="svg")
        texts.append(stream.getvalue())
    return texts[0], texts[1]
