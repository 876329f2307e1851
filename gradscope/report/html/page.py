"""Puts the page together: one file, no request to anywhere, same inspection, same bytes."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template
from plotly.offline import get_plotlyjs

from gradscope import __version__
from gradscope.counterfactual import SAID, outcome
from gradscope.diagnosis import Inspection
from gradscope.report.base import Canvas
from gradscope.report.commands import next_commands
from gradscope.report.html import charts, sections
from gradscope.report.html.bounded import MOST_PLACES, bounded
from gradscope.report.html.parameters import activation_table, no_loss, parameter_table
from gradscope.report.html.tables import signed, why
from gradscope.report.text import safe

_SCRIPTS = ("drawing.js", "charts.js", "tables.js", "page.js")


class Html:
    """A page for people. All text from outside is escaped: by jinja, as JSON, or set as text."""

    name = "html"

    def render(self, inspection: Inspection, canvas: Canvas) -> str:
        """The whole document, ending with a newline."""
        return rendered("page.html.j2", _content(inspection))


def rendered(template: str, content: dict[str, Any]) -> str:
    """A document, ending with a newline."""
    text = _template(template).render(**_style(), **content)
    # A file name need not be text: what no encoding takes is shown as a replacement.
    return text.encode("utf-8", "replace").decode("utf-8") + "\n"


def _style() -> dict[str, str]:
    """What style.html.j2 needs, and every page."""
    return {"css": _resource("page.css"), "dark": _resource("dark.css"), "version": __version__}


@cache
def _template(name: str) -> Template:
    environment = Environment(
        loader=FunctionLoader(_resource),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    environment.filters["safe_text"] = safe
    environment.filters["signed"] = signed
    environment.filters["capitalise"] = lambda text: text[:1].upper() + text[1:]
    return environment.get_template(name)


@cache
def _scripts() -> tuple[tuple[str, str], ...]:
    """(hash, script), in the order in which they run."""
    own = "\n".join(map(_resource, _SCRIPTS))
    return tuple((_hash(s), s) for s in (_plain_newlines(get_plotlyjs()), own))


def _content(inspection: Inspection) -> dict[str, Any]:
    m = inspection.measurements
    less, left_out = bounded(inspection)
    detail = less.measurements
    return {
        "inspection": inspection,
        "m": m,
        "diagnosis": inspection.diagnosis,
        "figures": list(sections.figures(m)),
        "evidence": sections.evidence(inspection),
        "commands": next_commands(inspection),
        "groups": sections.findings(inspection),
        "ledgers": [
            sections.ledger_table(h, i) for i, h in enumerate(detail.heads) if h.ledger.entries
        ],
        "outputs": sections.other_outputs(m.heads),
        "trial": sections.trial_table(m.trial),
        "trial_said": SAID[outcome(m.trial)] if m.trial is not None else "",
        "time": sections.time_table(m),
        "parameters": parameter_table(less),
        "activations": activation_table(detail),
        "no_ledger": why(m, "total of", "ledger", otherwise="fewer than two hidden activations"),
        "no_loss": no_loss(m),
        "no_gradients": why(m, "gradient", otherwise="no backward pass was run"),
        "notes": [*m.model.notes, *m.sample.notes],
        "facts": sections.facts(inspection),
        "charts": charts.chart_data(less),
        "left_out": left_out,
        "most_places": MOST_PLACES,
        "scripts": _scripts(),
    }


def _resource(name: str) -> str:
    file = resources.files("gradscope.report.html").joinpath(name)
    return _plain_newlines(file.read_text(encoding="utf-8"))


def _plain_newlines(text: str) -> str:
    """As a browser reads them: the hash of a script is of this form."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _hash(script: str) -> str:
    """For the page's Content-Security-Policy: these scripts run and no other."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
