"""SARIF 2.1.0, for code scanning and for whatever else collects results of analysers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from gradscope import __version__
from gradscope.checking import CheckResult, RuleInfo
from gradscope.findings import Severity
from gradscope.report.base import Canvas
from gradscope.report.check_entries import VERDICT, Entry, Kind, entries, relative
from gradscope.report.text import safe

SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
_ROOT = "%SRCROOT%"
_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFORMATION: "note"}
_STATES = {Kind.NEW: "new", Kind.VERDICT: "new", Kind.WORSE: "updated", Kind.KNOWN: "unchanged"}


class Sarif:
    """One run: every rule, every finding. What is ignored is suppressed, with its reason."""

    name = "sarif"
    document = True

    def render(self, result: CheckResult, canvas: Canvas) -> str:
        """The log, indented, ending with a newline."""
        log = {"$schema": SCHEMA, "version": "2.1.0", "runs": [_run(result)]}
        return json.dumps(log, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def _run(result: CheckResult) -> dict[str, Any]:
    found = entries(result)
    rules = [*(_rule(info) for _, info in sorted(result.rules.items())), _VERDICT_RULE]
    places = {rule["id"]: i for i, rule in enumerate(rules)}
    paths = dict.fromkeys(relative(m.path) for m in result.models)
    models = {path: i for i, path in enumerate(paths)}
    # Against a baseline every result has a state, without one none has.
    s = result.summary
    compared = bool(s.known or s.worse or s.fixed)
    return {
        "tool": {
            "driver": {
                "name": "gradscope",
                "semanticVersion": __version__,
                "rules": rules,
            }
        },
        "automationDetails": {"id": "gradscope/"},
        "originalUriBaseIds": {_ROOT: {"description": _message("the working directory")}},
        "invocations": [_invocation(result, found, models)],
        "artifacts": [{"location": _artifact(path, None)} for path in models],
        "results": [
            _result(e, places, models, compared) for e in found if e.kind is not Kind.REFUSED
        ],
        "columnKind": "unicodeCodePoints",
    }


def _rule(info: RuleInfo) -> dict[str, Any]:
    text = f"{info.explanation} {info.advice} See: gradscope rule {info.code}"
    markdown = (
        f"{info.explanation}\n\n**What to do.** {info.advice}\n\n"
        f"`gradscope rule {info.code}` shows its thresholds and their evidence."
    )
    return {
        "id": info.code,
        "name": info.name,
        "shortDescription": _message(info.summary),
        "fullDescription": _message(info.explanation),
        "help": {**_message(text), "markdown": _braces(markdown)},
    }


_VERDICT_RULE: dict[str, Any] = {
    "id": VERDICT,
    "name": VERDICT,
    "shortDescription": {"text": "The judgement of the whole model."},
    "help": {
        "text": "What the model can do comes first; then the findings. See gradscope inspect."
    },
}


def _result(
    entry: Entry, places: Mapping[str, int], models: Mapping[str, int], compared: bool
) -> dict[str, Any]:
    found: dict[str, Any] = {"ruleId": entry.code}
    if entry.code in places:
        found["ruleIndex"] = places[entry.code]
    found |= {
        "level": _LEVELS[entry.severity],
        "message": _message(f"{entry.where}: {entry.message}"),
        "locations": [_location(entry, models)],
        # The first is the only one that GitHub reads.
        "partialFingerprints": {
            "primaryLocationLineHash": f"{entry.fingerprint[:16]}:1",
            "gradscope/v1": entry.fingerprint,
        },
    }
    if compared:
        found["baselineState"] = _STATES.get(entry.kind, "unchanged")
    # Suppressed or not has to be said of every result or of none.
    suppressed = {"kind": "external", "status": "accepted", "justification": entry.reason}
    found["suppressions"] = [suppressed] if entry.kind is Kind.IGNORED else []
    return found


def _location(entry: Entry, models: Mapping[str, int]) -> dict[str, Any]:
    place = {"fullyQualifiedName": entry.where}
    return {**_file(entry.path, models), "logicalLocations": [place]}


def _file(path: str, models: Mapping[str, int]) -> dict[str, Any]:
    artifact = _artifact(path, models[path])
    region = {"startLine": 1}  # without a line GitHub shows nothing
    return {"physicalLocation": {"artifactLocation": artifact, "region": region}}


def _artifact(path: str, index: int | None) -> dict[str, Any]:
    location: dict[str, Any] = {"uri": quote(path), "uriBaseId": _ROOT}
    return location if index is None else {**location, "index": index}


def _invocation(
    result: CheckResult, found: tuple[Entry, ...], models: Mapping[str, int]
) -> dict[str, Any]:
    """How it went; refusals and what was not measured are told here: they are no results."""
    told = [
        {"level": "error", "message": _message(e.message), "locations": [_location(e, models)]}
        for e in found
        if e.kind is Kind.REFUSED
    ]
    told += [
        {
            "level": "note",
            "message": _message(f"not measured: {s.what}: {s.reason}"),
            "locations": [_file(relative(model.path), models)],
        }
        for model in result.models
        for s in model.skipped
    ]
    told += [{"level": "note", "message": _message(note)} for note in result.notes]
    return {
        "executionSuccessful": not result.summary.refused,
        "exitCode": result.summary.exit_status,
        "toolExecutionNotifications": told,
    }


def _message(text: str) -> dict[str, str]:
    return {"text": _braces(safe(text)).replace("](", "]\\(")}


def _braces(text: str) -> str:
    """Single braces would stand for arguments."""
    return text.replace("{", "{{").replace("}", "}}")


FORMAT = Sarif()
