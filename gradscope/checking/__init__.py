"""A gate on trained models: what is counted of what was found, and the exit status."""

from gradscope.checking.counting import count_findings, refusal
from gradscope.checking.results import (
    CheckResult,
    Fixed,
    Ignored,
    Known,
    ModelCheck,
    RuleInfo,
    Summary,
)
from gradscope.checking.summary import summarise

__all__ = [
    "CheckResult",
    "Fixed",
    "Ignored",
    "Known",
    "ModelCheck",
    "RuleInfo",
    "Summary",
    "count_findings",
    "refusal",
    "summarise",
]
