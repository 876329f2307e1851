"""Rules: measurements in, findings out. Know thresholds, no tensors."""

from gradscope.rules.limits import check_limits, find_rule, joined, parse_limit
from gradscope.rules.registry import Limits, all_rules, run_rules
from gradscope.rules.selection import codes_of, selected

__all__ = [
    "Limits",
    "all_rules",
    "check_limits",
    "codes_of",
    "find_rule",
    "joined",
    "parse_limit",
    "run_rules",
    "selected",
]
