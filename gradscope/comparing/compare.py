"""What changed between the first subject and each later one, and over all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from string import ascii_uppercase

from gradscope.checking import Known, RuleInfo
from gradscope.checking.baseline import compare as beside_baseline
from gradscope.checking.baseline import entry_of
from gradscope.comparing.results import Change, Comparison, Figures, Refused, Row, Subject, Trend
from gradscope.diagnosis import Verdict
from gradscope.findings import Finding

_GRAVITY = {
    Verdict.HEALTHY: 0,
    Verdict.UNDETERMINED: 1,
    Verdict.WARNING: 1,
    Verdict.UNHEALTHY: 2,
}
TREND_FROM = 3


def compare(
    given: Sequence[Subject | Refused],
    tolerance: float,
    *,
    fails: bool = False,
    rules: Mapping[str, RuleInfo] | None = None,
) -> Comparison:
    """Subjects side by side.

    Args:
        given: two subjects or more, the first of which is what the others are compared with; among
            them what could not be served.
        tolerance: as a baseline takes it: by how much a number may get worse, as a share of it or
            of its threshold, whichever is larger.
        fails: whether a regression makes the exit status 1.
        rules: of every code.
    """
    lettered = [dataclasses.replace(s, letter=_letter(i)) for i, s in enumerate(given)]
    refused = tuple(one for one in lettered if isinstance(one, Refused))
    named = [one for one in lettered if isinstance(one, Subject)]
    changes = tuple(_change(named[0], later, tolerance) for later in named[1:])
    trends = tuple(_trends(named, tolerance)) if len(named) >= TREND_FROM else ()
    return Comparison(
        tuple(named), changes, _rows(named), trends, fails,
        (*_stand_in(lettered[0], named[0]), *_notes(named)), tuple(_next(named, changes)),
        rules or {}, refused,
    )  # fmt: skip


def _letter(index: int) -> str:
    """A, B, ..., Z, AA, AB, ..."""
    text, index = "", index + 1
    while index:
        index, rest = divmod(index - 1, 26)
        text = ascii_uppercase[rest] + text
    return text


def _change(first: Subject, later: Subject, tolerance: float) -> Change:
    """The findings of the first one are a baseline for those of the later one."""
    found = beside_baseline(later.findings, (), map(entry_of, first.findings), tolerance)
    graver = _GRAVITY[later.verdict] - _GRAVITY[first.verdict]
    reasons = [f"{later.verdict.value} after {first.verdict.value}"] if graver > 0 else []
    reasons += [f"new {_told(f)}" for f in found.new if f.severity.rank]
    reasons += [f"worse {_told(k.finding)}" for k in found.worse if k.finding.severity.rank]
    new = sorted(found.new, key=_order)
    worse = sorted(found.worse, key=lambda k: _order(k.finding))
    return Change(
        later.letter, graver > 0, graver < 0, tuple(new), tuple(worse), _known(found.known),
        found.fixed, tuple(reasons),
    )  # fmt: skip


def _known(known: Sequence[Known]) -> tuple[Known, ...]:
    return tuple(sorted(known, key=lambda k: _order(k.finding)))


def _order(finding: Finding) -> tuple[int, str, str]:
    return -finding.severity.rank, finding.code, finding.where


def _told(finding: Finding) -> str:
    return f"{finding.severity.value} {finding.code} {finding.name}, {finding.where}"


def _rows(subjects: Sequence[Subject]) -> tuple[Row, ...]:
    """Places of all ledgers in one order; two are the same if their sites are.

    A place that earlier subjects do not have stands behind the one that it follows in its own.
    """
    following: dict[str | None, str | None] = {None: None}  # a linked list, its start under None
    labels: dict[str, str] = {}
    for subject in subjects:
        at: str | None = None
        for place in subject.places:
            if place.site not in labels:
                labels[place.site] = place.label
                following[place.site], following[at] = following[at], place.site
            at = place.site
    found = [{p.site: p for p in s.places} for s in subjects]
    return tuple(
        Row(
            labels[site],
            tuple(f[site].left if site in f else None for f in found),
            tuple(f[site].gain if site in f else None for f in found),
        )
        for site in _walk(following)
    )


def _walk(following: Mapping[str | None, str | None]) -> Iterator[str]:
    at = following[None]
    while at is not None:
        yield at
        at = following[at]


def _trends(subjects: Sequence[Subject], tolerance: float) -> Iterator[Trend]:
    for field in dataclasses.fields(Figures):
        values = tuple(getattr(s.figures, field.name) for s in subjects)
        known = [v for v in values if v is not None]
        if len(known) >= TREND_FROM:
            yield Trend(field.name, values, _word(known, tolerance))


def _word(values: Sequence[float], tolerance: float) -> str:
    """Steps below the tolerance, as a share of the largest size (1 at least), do not count."""
    least = tolerance * max(1.0, *map(abs, values))
    up = max(b - a for i, a in enumerate(values) for b in values[i:])
    down = max(a - b for i, a in enumerate(values) for b in values[i:])
    if up > least and down > least:
        return "turns"
    return "rises" if up > least else "falls" if down > least else "steady"


def _stand_in(first: Subject | Refused, served: Subject) -> Iterator[str]:
    if isinstance(first, Refused):
        yield (
            f"{first.letter} could not be served: the others are compared with {served.letter}, "
            "the first that could"
        )


def _notes(subjects: Sequence[Subject]) -> Iterator[str]:
    """Subjects that were not measured as the first one was."""
    first = subjects[0]
    for later in subjects[1:]:
        differ = [
            f"{what} ({first.setup[what]}; {value})"
            for what, value in later.setup.items()
            if value != first.setup[what]
        ]
        if differ:
            yield (
                f"{later.letter} was not measured as {first.letter} was, and what changed may come "
                f"of that: {', '.join(differ)}"
            )


def _next(subjects: Sequence[Subject], changes: Sequence[Change]) -> Iterator[tuple[str, str]]:
    worse = [c for c in changes if c.regressions]
    if not worse:
        return
    subject = next(s for s in subjects if s.letter == worse[0].letter)
    if subject.inspect is not None:
        yield subject.inspect, f"the whole report of {subject.letter}"
    grave = [*worse[0].new, *(k.finding for k in worse[0].worse)]
    if grave and grave[0].severity.rank:
        yield f"gradscope rule {grave[0].code}", "what this means and how sure it is"
