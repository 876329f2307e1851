"""The next commands to type after a check. Each one works as printed."""

from __future__ import annotations

from collections.abc import Iterator

from gradscope.checking.results import FINDINGS, CheckResult, ModelCheck


def next_steps(result: CheckResult, command: str, *, baseline: bool) -> Iterator[tuple[str, str]]:
    """(command, what it is good for), the most useful first.

    Args:
        result: of the check.
        command: that repeats it, without formats.
        baseline: whether it has a baseline.
    """
    failed = [m for m in result.models if m.exit_status == FINDINGS]
    if failed:
        yield from _about(failed[0], len(failed), result)
        if baseline:
            why = "accepts all that is found now"
            yield f"{command} --write-baseline", why
        else:
            why = "accepts what is found now: from then on only new and worse findings fail"
            yield f"{command} --baseline gradscope-baseline.json --write-baseline", why
    if result.summary.fixed and baseline:
        yield f"{command} --prune-baseline", "takes what is fixed out of the baseline"


def _about(model: ModelCheck, failed: int, result: CheckResult) -> Iterator[tuple[str, str]]:
    if model.inspect is not None:
        which = "the first model that failed" if failed > 1 else "the model that failed"
        yield model.inspect, f"the whole report of {which}"
    failing = [f for f in model.counted if result.fails(f.severity)]
    if failing:
        yield f"gradscope rule {failing[0].code}", "what this means and how sure it is"
