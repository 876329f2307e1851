"""Rules: measurements in, findings out. Know thresholds, no tensors."""

from gradscope.rules.registry import all_rules, run_rules

__all__ = ["all_rules", "run_rules"]
