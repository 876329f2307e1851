"""Models, checkpoints and saved reports side by side: what changed, and whether it got worse."""

from gradscope.comparing.as_check import as_check
from gradscope.comparing.compare import compare
from gradscope.comparing.results import (
    Change,
    Comparison,
    Figures,
    Place,
    Refused,
    Row,
    Subject,
    Trend,
)
from gradscope.comparing.saved import ReportError, read_report
from gradscope.comparing.subjects import subject_of

__all__ = [
    "Change",
    "Comparison",
    "Figures",
    "Place",
    "Refused",
    "ReportError",
    "Row",
    "Subject",
    "Trend",
    "as_check",
    "compare",
    "read_report",
    "subject_of",
]
