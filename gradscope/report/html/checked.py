"""A check as a page: one small file without scripts, for an artifact of a job."""

from __future__ import annotations

from dataclasses import dataclass

from gradscope.checking import CheckResult, ModelCheck
from gradscope.report.base import Canvas
from gradscope.report.check_concise import summary_line
from gradscope.report.check_entries import Kind, of_model, relative
from gradscope.report.check_markdown import ENTRY_COLUMNS, MODEL_COLUMNS, entry_cells, model_cells
from gradscope.report.html.bounded import MOST_PLACES
from gradscope.report.html.page import rendered
from gradscope.report.html.tables import Column, Table

_STATES = {0: ("healthy", "Nothing fails"), 1: ("unhealthy", "Something fails")}
_REFUSED = "undetermined", "Not every model could be judged"
_NUMBERS = ("Errors", "Warnings", "Known", "Ignored")


class CheckPage:
    """All text from outside is escaped by jinja; the page's policy lets nothing run."""

    name = "html"
    document = True

    def render(self, result: CheckResult, canvas: Canvas) -> str:
        """The whole document, ending with a newline."""
        state, headline = _STATES.get(result.summary.exit_status, _REFUSED)
        content = {
            "state": state,
            "headline": headline,
            "summary": summary_line(result),
            "result": result,
            "models": _models(result),
            "details": [d for i, m in enumerate(result.models) if (d := _detail(result, m, i))],
        }
        return rendered("checked.html.j2", content)


@dataclass(frozen=True)
class Detail:
    """What is told of one model below the table of all.

    Attributes:
        model: the model.
        path: as reports name it.
        findings: those that count first; None: there are none.
        more: how many findings are left out.
    """

    model: ModelCheck
    path: str
    findings: Table | None
    more: int


def _models(result: CheckResult) -> Table:
    columns = [Column(title, title in _NUMBERS) for title in MODEL_COLUMNS]
    table = Table("models", "Models", columns)
    for model in result.models:
        *cells, outcome = model_cells(model)
        table.add(*cells, outcome.partition(" ")[2])  # a page has no marks that a font may lack
    return table


def _detail(result: CheckResult, model: ModelCheck, index: int) -> Detail | None:
    found = [e for e in of_model(result, model) if e.kind not in (Kind.VERDICT, Kind.REFUSED)]
    if not (found or model.fixed or model.skipped or model.exit_status == 1):
        return None
    columns = [Column(title, numeric=False) for title in ENTRY_COLUMNS]
    table = Table(f"findings-{index}", "Findings", columns)
    for entry in found[:MOST_PLACES]:
        table.add(*entry_cells(entry))
    more = max(len(found) - MOST_PLACES, 0)
    return Detail(model, relative(model.path), table if found else None, more)


FORMAT = CheckPage()
