"""Report formats: an inspection in, text out. They compute nothing."""

from __future__ import annotations

from gradscope.diagnosis import Inspection
from gradscope.report.base import Canvas, Format
from gradscope.report.check_formats import CHECK_FORMATS, check_format
from gradscope.report.compare_formats import COMPARE_FORMATS, compare_format
from gradscope.report.run_folder import result_of, run_files
from gradscope.treatment import Treatment

__all__ = [
    "CHECK_FORMATS",
    "COMPARE_FORMATS",
    "FORMATS",
    "Canvas",
    "check_format",
    "compare_format",
    "render",
    "render_treatment",
    "result_of",
    "run_files",
    "write_events",
]

FORMATS = ("terminal", "json", "html")


def render(
    name: str,
    inspection: Inspection,
    *,
    width: int = 80,
    colour: bool = False,
    unicode: bool = True,
    all_layers: bool = False,
) -> str:
    """The report in one of :data:`FORMATS`.

    Args:
        name: of the format.
        inspection: what to show.
        width: columns, for formats that have columns.
        colour: whether escape sequences are understood.
        unicode: whether block characters can be shown.
        all_layers: fold nothing.
    """
    return _format(name).render(inspection, Canvas(width, colour, unicode, all_layers))


def render_treatment(
    name: str, treatment: Treatment, width: int = 80, folder: str | None = None
) -> str:
    """What ``gradscope fix`` did, in one of :data:`FORMATS`; ``folder`` holds its run."""
    if name == "json":
        from gradscope.report.treatment_json import as_json

        return as_json(treatment, folder)
    from gradscope.report.treatment import as_text

    return as_text(treatment, width, folder)


def write_events(inspection: Inspection, folder: str) -> None:
    """For TensorBoard, whose package must be installed: a run in ``folder``."""
    from gradscope.report import tensorboard

    tensorboard.write_events(inspection, folder)


def _format(name: str) -> Format:
    """Imported on use: rich is not needed for JSON, nor jinja and plotly for the terminal."""
    if name == "json":
        from gradscope.report.json_ import Json

        return Json()
    if name == "html":
        from gradscope.report.html import Html

        return Html()
    if name == "terminal":
        from gradscope.report.terminal import Terminal

        return Terminal()
    raise ValueError(f"unknown format {name!r}")
