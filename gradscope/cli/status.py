"""From an inspection to an exit status."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gradscope.cli.options import FailOn
    from gradscope.diagnosis import Inspection

CLEAN = 0
FINDINGS = 1
REFUSED = 2
NOTHING_MEASURED = 3
INTERRUPTED = 130
"""As a shell reports a command that Ctrl-C ended."""

BUG = 70
"""As EX_SOFTWARE: never to be taken for findings."""


def exit_status(inspection: Inspection, fail_on: FailOn) -> int:
    """0, 1 or 3.

    ``undetermined`` fails on error findings too: who does not accept a doubt accepts no error.
    """
    from gradscope.findings import Severity  # here: --help needs the numbers above, and no more

    if inspection.measurements.is_empty:
        return NOTHING_MEASURED
    if fail_on.value == "never":
        return CLEAN
    if fail_on.value == "undetermined" and inspection.diagnosis.verdict.value == "undetermined":
        return FINDINGS
    limit = Severity.WARNING if fail_on.value == "warning" else Severity.ERROR
    return FINDINGS if _worst(inspection) >= limit.rank else CLEAN


def _worst(inspection: Inspection) -> int:
    """Rank of the worst finding; the verdict counts as one."""
    from gradscope.findings import Severity

    verdict = {"unhealthy": Severity.ERROR, "warning": Severity.WARNING}.get(
        inspection.diagnosis.verdict.value, Severity.INFORMATION
    )
    return max([verdict.rank, *(finding.severity.rank for finding in inspection.findings)])
