"""What pytest loads by itself: the fixture ``assert_healthy``, and a summary of its models.

Imports nothing of gradscope before a test asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

_KEY = "gradscope"
"""Of the properties that a test's report carries, across processes and into JUnit's XML."""


@pytest.fixture(name="assert_healthy")
def _assert_healthy(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """``gradscope.testing.assert_healthy``, whose models the end of the run tells of."""
    from gradscope import testing

    def assert_healthy(
        model: Any,
        sample: Any = None,
        *,
        fail_on: str = "error",
        select: Iterable[str] = (),
        ignore: Iterable[str] = (),
        **options: Any,
    ) -> Any:
        __tracebackhide__ = True
        report, check = testing.examine(model, sample, fail_on, select, ignore, **options)
        said = f"{report.verdict.value}: {testing.figures(report)}; {testing.counts(report)}"
        # And not record_property, which warns of the XML that pytest writes by default.
        request.node.user_properties.append((_KEY, said))
        if check.exit_status:
            raise testing.UnhealthyModelError(testing.failure(report, check, fail_on), report)
        return report

    return assert_healthy


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line a model."""
    lines = [
        f"{report.nodeid}  {value}"
        for reports in terminalreporter.stats.values()
        for report in reports
        if isinstance(report, pytest.TestReport) and report.when == "call"
        for key, value in report.user_properties
        if key == _KEY
    ]
    if lines:
        terminalreporter.write_sep("=", "models")
        for line in sorted(lines):
            terminalreporter.write_line(line)
