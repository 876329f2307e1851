"""A gate on trained models: what is counted of what was found, and the exit status."""

from gradscope.checking.baseline import Baseline, Entry, read_baseline
from gradscope.checking.counting import count_findings, refusal, without_path
from gradscope.checking.ignores import unused
from gradscope.checking.next_steps import next_steps
from gradscope.checking.paths import local, matches, model_files
from gradscope.checking.results import (
    CheckResult,
    Fixed,
    Ignored,
    Known,
    ModelCheck,
    RuleInfo,
    Summary,
)
from gradscope.checking.summary import first_status, summarise

__all__ = [
    "Baseline",
    "CheckResult",
    "Entry",
    "Fixed",
    "Ignored",
    "Known",
    "ModelCheck",
    "RuleInfo",
    "Summary",
    "count_findings",
    "first_status",
    "local",
    "matches",
    "model_files",
    "next_steps",
    "read_baseline",
    "refusal",
    "summarise",
    "unused",
    "without_path",
]
