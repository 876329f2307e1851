"""The few numbers by which a model is known, in words."""

from __future__ import annotations

from gradscope.measurements import Measurements
from gradscope.report.text import decades, number, share


def figures(m: Measurements) -> list[str]:
    """``total -5.9 decades``, ``skill 0.94``, ``accuracy .97``, ``saturated .02``: as far as
    measured."""
    found = []
    if m.ledger is not None and m.ledger.total is not None:
        found.append(f"total {decades(m.ledger.total)} decades")
    if m.skill is not None:
        found.append(f"skill {number(m.skill.value)}")
        if m.skill.accuracy is not None:
            found.append(f"accuracy {share(m.skill.accuracy)}")
    if m.hidden_saturation is not None:
        found.append(f"saturated {share(m.hidden_saturation)}")
    return found
