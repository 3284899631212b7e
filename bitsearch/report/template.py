"""How a page is filled: one frame, one style and one script for every page."""

import base64
import hashlib
import re
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup, escape


def fill(name: str, **content: Any) -> str:
    """Fill a template of this folder; everything from records is escaped."""
    script = _read("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_read), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["code"] = _code
    return environment.get_template(name).render(content, script=Markup(script), script_hash=digest)


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _code(text: str) -> Markup:
    """Escape a text and set as code what stands between backticks."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))
