"""Findings that are known and accepted, kept in a file: a ratchet that only tightens.

The file is meant to be committed: paths are relative to it, numbers rounded, everything sorted.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import PurePath

from gradscope.checking.json_file import read_json
from gradscope.checking.results import Fixed, Known, ModelCheck
from gradscope.errors import GradscopeError
from gradscope.findings import Finding, Severity

SCHEMA = "gradscope.baseline/1"
_MOST_BYTES = 16 << 20
_DIGITS = 4


class BaselineError(GradscopeError):
    """A baseline that cannot be read."""


@dataclass(frozen=True)
class Entry:
    """One known finding.

    Attributes:
        fingerprint: of the finding.
        code, name, where: as they were, for people who read the file.
        severity: one above this is worse.
        value: the number that was compared, to four digits; None where there was none.
    """

    fingerprint: str
    code: str
    name: str
    where: str
    severity: str
    value: float | None

    @property
    def order(self) -> tuple[str, str, str]:
        """Entries of a file are sorted by this."""
        return self.code, self.where, self.fingerprint


@dataclass(frozen=True)
class Baseline:
    """Known findings by model, whose path is relative to the file's folder, with slashes."""

    models: Mapping[str, tuple[Entry, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Sorted:
    """Findings of one model beside its entries."""

    new: tuple[Finding, ...]
    worse: tuple[Known, ...]
    known: tuple[Known, ...]
    fixed: tuple[Fixed, ...]


def key_of(model: str, baseline: str) -> str:
    """The model's key in a baseline file: its path from there."""
    return PurePath(os.path.relpath(model, os.path.dirname(baseline) or ".")).as_posix()


def entry_of(finding: Finding) -> Entry:
    """What is remembered of a finding."""
    f = finding
    return Entry(f.fingerprint, f.code, f.name, f.where, f.severity.value, _rounded(f.value))


def _rounded(value: float | None) -> float | None:
    """As the file keeps it."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.{_DIGITS}g}")


def compare(
    found: Iterable[Finding], ignored: Iterable[Finding], entries: Iterable[Entry], tolerance: float
) -> Sorted:
    """Which findings are new, worse or known, and which entries are no longer found.

    Args:
        found: findings that are looked at.
        ignored: those that are set aside: neither new nor fixed.
        entries: of the baseline, of rules that are looked at.
        tolerance: as :func:`is_worse` takes it.
    """
    before = {e.fingerprint: e for e in entries}
    new: list[Finding] = []
    worse: list[Known] = []
    known: list[Known] = []
    there = {f.fingerprint for f in ignored}
    for finding in found:
        entry = before.get(finding.fingerprint)
        there.add(finding.fingerprint)
        if entry is None:
            new.append(finding)
            continue
        group = worse if is_worse(finding, entry, tolerance) else known
        group.append(Known(finding, entry.value, Severity(entry.severity)))
    gone = sorted((e for e in before.values() if e.fingerprint not in there), key=lambda e: e.order)
    fixed = tuple(Fixed(e.code, e.name, e.where, e.fingerprint, e.value) for e in gone)
    return Sorted(tuple(new), tuple(worse), tuple(known), fixed)


def is_worse(finding: Finding, entry: Entry, tolerance: float) -> bool:
    """Whether a known finding is graver than it was.

    It is if its severity rose, if its number went further beyond the threshold by more than
    ``tolerance`` x max(\\|number in the baseline\\|, \\|threshold\\|), or if there is no number any
    more (nothing arrives at all). Without a threshold only the severity counts.
    """
    if finding.severity.rank > Severity(entry.severity).rank:
        return True
    value, limit = _rounded(finding.value), finding.threshold  # as its entry would be
    if entry.value is None or limit is None:
        return False
    if value is None:
        return True
    further = entry.value - value if value < limit else value - entry.value
    return further > tolerance * max(abs(entry.value), abs(limit))


def accepted(baseline: Baseline, models: Sequence[ModelCheck], path: str) -> Baseline:
    """A baseline that knows all that was found; models that were not judged stay as they are."""
    found = dict(baseline.models)
    for model in models:
        if model.error is None:
            key = key_of(model.path, path)
            findings = [*model.findings, *(k.finding for k in (*model.worse, *model.known))]
            gone = {f.fingerprint for f in model.fixed}
            gone |= {i.finding.fingerprint for i in model.ignored}
            mine = {e.fingerprint: e for e in found.get(key, ()) if e.fingerprint not in gone}
            found[key] = tuple((mine | {f.fingerprint: entry_of(f) for f in findings}).values())
    return Baseline(found)


def pruned(baseline: Baseline, models: Sequence[ModelCheck], path: str) -> Baseline:
    """Without what is fixed; what got better is held to its better number. Models whose file is
    gone are dropped."""
    folder = os.path.dirname(path)
    found = {k: v for k, v in baseline.models.items() if os.path.lexists(os.path.join(folder, k))}
    for model in models:
        key = key_of(model.path, path)
        if model.error is None and key in found:
            gone = {f.fingerprint for f in model.fixed}
            now = {k.finding.fingerprint: k.finding for k in model.known}
            left = (e for e in found[key] if e.fingerprint not in gone)
            found[key] = tuple(_tightened(e, now.get(e.fingerprint)) for e in left)
    return Baseline(found)


def _tightened(entry: Entry, now: Finding | None) -> Entry:
    """The entry with the finding's number and severity, where they are no worse."""
    if now is None or is_worse(now, entry, 0.0):
        return entry
    fresh = entry_of(now)
    return replace(fresh, value=entry.value if fresh.value is None else fresh.value)


def as_text(baseline: Baseline) -> str:
    """The file's content, ending with a newline; same baseline, same bytes."""
    models = {
        key: [asdict(entry) for entry in sorted(entries, key=lambda e: e.order)]
        for key, entries in sorted(baseline.models.items())
        if entries
    }
    content = {"schema": SCHEMA, "models": models}
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def read_baseline(path: str) -> Baseline:
    """The baseline in a file.

    Raises:
        BaselineError: it cannot be read, or is no baseline.
    """
    try:
        return _parsed(read_json(path, _MOST_BYTES))
    except FileNotFoundError as error:
        hint = "--write-baseline makes one."
        raise BaselineError("there is no such baseline", where=path, hint=hint) from error
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        said = getattr(error, "strerror", None) or str(error) or type(error).__name__
        hint = "--write-baseline makes a new one, once the file is moved away."
        raise BaselineError(f"is no baseline ({said[:120]})", where=path, hint=hint) from error


def _parsed(content: object) -> Baseline:
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise ValueError(f'"schema" is not "{SCHEMA}"')
    if set(content) != {"schema", "models"} or not isinstance(content["models"], dict):
        raise ValueError('it needs "schema" and "models", an object, and nothing more')
    found = {}
    for key, entries in content["models"].items():
        if not isinstance(entries, list):
            raise ValueError(f"the findings of '{key[:60]}' are no list")
        found[key] = tuple(_entry(entry) for entry in entries)
    return Baseline(found)


def _entry(given: object) -> Entry:
    names = ("fingerprint", "code", "name", "where", "severity", "value")
    if not isinstance(given, dict) or set(given) != set(names):
        raise ValueError(f"a finding needs {', '.join(names)}, and nothing more")
    for name in names[:-1]:
        if not isinstance(given[name], str):
            raise ValueError(f"{name} is no string")
    if given["severity"] not in {s.value for s in Severity}:
        raise ValueError(f"'{given['severity'][:60]}' is no severity")
    value = given["value"]
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise ValueError("value is no number")
    if value is not None and not abs(value) <= sys.float_info.max:
        raise ValueError("value is not finite")
    texts = {name: given[name] for name in names[:-1]}
    return Entry(**texts, value=None if value is None else float(value))
