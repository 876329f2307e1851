"""``assert_healthy`` for the tests of a project that trains models: the gate of ``check``.

With pytest nothing has to be set up: ``from gradscope.testing import assert_healthy``, or the
fixture of the same name, which tells of its models at the end of the run and in JUnit's XML too.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gradscope.api import Report, inspect
from gradscope.checking import ModelCheck, count_findings
from gradscope.config import CheckSettings
from gradscope.errors import OptionError
from gradscope.findings import Severity
from gradscope.report.figures import figures as told
from gradscope.report.text import count, safe
from gradscope.rules import codes_of, selected
from gradscope.settings_file import find_settings

FAIL_ON = ("error", "warning", "undetermined")
_MOST = 12  # findings shown


class UnhealthyModelError(AssertionError):
    """A model that fails; ``report`` has everything that was found."""

    def __init__(self, message: str, report: Report) -> None:
        super().__init__(message)
        self.report = report


def assert_healthy(
    model: Any,
    sample: Any = None,
    *,
    fail_on: str = "error",
    select: Iterable[str] = (),
    ignore: Iterable[str] = (),
    **options: Any,
) -> Report:
    """Examine a model, and fail as ``gradscope check`` would.

    Thresholds and ignores of the settings file in the working directory or above hold here too.

    Args:
        model, sample: as :func:`gradscope.inspect` takes them: in memory, or paths.
        fail_on: ``error``, ``warning``, or ``undetermined``: on errors, and if no verdict could be
            reached.
        select: only these rules: codes, prefixes (``GS2``) or names.
        ignore: not these rules.
        options: everything else that :func:`gradscope.inspect` takes: ``val``, ``limits``, ...

    Returns:
        The report of a model that passes.

    Raises:
        UnhealthyModelError: an ``AssertionError`` with the verdict, the findings and what to do.
        GradscopeError: the model or the sample cannot be used.
    """
    __tracebackhide__ = True
    report, check = examine(model, sample, fail_on, select, ignore, **options)
    if check.exit_status:
        raise UnhealthyModelError(failure(report, check, fail_on), report)
    return report


def examine(
    model: Any,
    sample: Any,
    fail_on: str,
    select: Iterable[str],
    ignore: Iterable[str],
    **options: Any,
) -> tuple[Report, ModelCheck]:
    """The report, and what counts of it."""
    if fail_on not in FAIL_ON:
        hint = f"Choose {', '.join(FAIL_ON)}."
        raise OptionError(f"there is no {fail_on!r}", where="fail_on", hint=hint)
    file = find_settings()
    settings = CheckSettings(
        fail_on,
        selected(tuple(select), tuple(ignore), ("select", "ignore")),
        tuple((i, codes_of(i.rule, f"{file.path}: ignore")) for i in file.ignores),
    )
    report = inspect(model, sample, **options)
    path = report.measurements.model.path
    return report, count_findings(path, report.inspection, settings)


def failure(report: Report, check: ModelCheck, fail_on: str) -> str:
    """The message: verdict, the findings that count, the numbers, and what to do."""
    if check.error is not None:
        return f"{safe(check.path)}: {check.error}"
    counted = check.counted
    lines = [f"{safe(check.path)} is {report.verdict.value} (fail_on={fail_on!r})", ""]
    lines += [safe(report.summary), f"  {figures(report)}", ""]
    for finding in counted[:_MOST]:
        lead = f"  {finding.severity.value:<11}  {finding.code} {finding.name}"
        lines += [f"{lead}  {safe(finding.where)}", f"{'':15}{safe(finding.message)}"]
    if len(counted) > _MOST:
        lines.append(f"  and {len(counted) - _MOST} more")
    if check.advice:
        lines += ["", check.advice]
    grave = next((f for f in counted if f.severity is not Severity.INFORMATION), None)
    if grave is not None:
        lines.append(f"What this means and how sure it is: gradscope rule {grave.code}")
    if check.settle:
        lines.append(f"What would settle it: {check.settle}")
    return "\n".join(lines)


def figures(report: Report) -> str:
    """What was measured, in one line."""
    return ", ".join(told(report.measurements)) or "nothing measured on labelled data"


def counts(report: Report) -> str:
    """``1 error, 2 warnings``."""
    return f"{count(len(report.errors), 'error')}, {count(len(report.warnings), 'warning')}"
