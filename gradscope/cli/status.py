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
    """0, 1 or 3, as a check of this model alone would end."""
    from gradscope.checking import count_findings  # here: --help needs the numbers above, no more
    from gradscope.config import CheckSettings

    return count_findings("", inspection, CheckSettings(fail_on.value)).exit_status
