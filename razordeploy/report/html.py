"""The page: one file, no network; its script only adds convenience."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from razordeploy.report import wording
from razordeploy.report.schema import Report
from razordeploy.report.view import page_view

_CODES = {"int8": "i", "simulated": "s", "fused": "u", "moves": "m", "float": "f"}
"""State of an operation -> its class in the style sheet: short, as there may be thousands."""
_MARKS = {"ok": "✓ ", "bad": "✗ "}


def render_html(report: Report, directory: Path) -> str:
    """Return the page for ``report``; ``directory`` is where the commands on it point to.

    Parts that were not measured say so, a backend that failed shows its error. Every name is escaped. The content
    security policy forbids every request and every script but the page's own, which it knows by its hash.
    """
    from markupsafe import Markup

    script = source("script.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return str(
        environment()
        .get_template("page.html.jinja")
        .render(
            page_view(report, directory),
            style=Markup(source("style.css")),
            script=Markup(script),
            script_hash=f"sha256-{digest}",
        )
    )


@cache
def environment() -> Any:
    """The templates, with the words that they use."""
    from jinja2 import ChainableUndefined, Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("razordeploy.report"),
        autoescape=True,
        undefined=ChainableUndefined,
        finalize=_plain_unless_markup,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(breaks=_breaks, lines=_lines)
    environment.globals.update(fixed=wording.fixed, ratio=wording.ratio, codes=_CODES, marks=_MARKS)
    return environment


def source(name: str) -> str:
    """Text of a file that lies beside the templates."""
    return resources.files("razordeploy.report").joinpath("templates", name).read_text(encoding="utf-8")


def _plain_unless_markup(value: Any) -> Any:
    return value if hasattr(value, "__html__") else wording.plain(value)


def _breaks(text: object) -> Any:
    """Let a dotted path break behind its dots."""
    from markupsafe import Markup

    return Markup("<wbr>").join(re.split(r"(?<=[._])", wording.plain(text)))


def _lines(text: str) -> Any:
    """Keep the line breaks of a command."""
    from markupsafe import Markup

    return Markup("\n").join(wording.plain(line) for line in text.splitlines())
