"""What every drawing of a comparison needs: ledger rows folded, findings in one list."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from gradscope.comparing import Change, Comparison, Figures, Row, Subject
from gradscope.findings import Finding, Severity
from gradscope.report.text import count, decades, number, share

FOLD_FROM = 16
_KEEP = 2

COLUMNS: tuple[tuple[str, Callable[[Figures], str]], ...] = (
    ("total", lambda f: decades(f.total)),
    ("median", lambda f: decades(f.median)),
    ("saturated", lambda f: share(f.saturated)),
    ("skill", lambda f: _score(f.skill)),
    ("accuracy", lambda f: share(f.accuracy)),
    ("loss", lambda f: number(f.loss)),
)
"""(title, cell) of the table of subjects."""


@dataclass(frozen=True)
class Told:
    """A finding that changed, and where.

    Attributes:
        state: new, worse or gone.
        severity: as it is now; None for one that is gone.
        rule: code and name.
        where: the place.
        message: with the number it had, if it is worse; "" if it is gone.
        letters: of the subjects in which it is so.
        code: of the rule.
    """

    state: str
    severity: Severity | None
    rule: str
    where: str
    message: str
    letters: tuple[str, ...]
    code: str


def _score(value: float | None) -> str:
    """Two decimals; less of what is far below guessing."""
    if value is None or abs(value) >= 10:
        return number(value)
    return f"{round(value, 2) + 0.0:.2f}"


def figure(name: str, value: float | None) -> str:
    """A number as the table of subjects shows it."""
    return dict(COLUMNS)[name](Figures(**{name: value}))


def columns(comparison: Comparison) -> list[tuple[str, Callable[[Figures], str]]]:
    """Those in which any subject has a number."""
    return [
        (title, cell)
        for title, cell in COLUMNS
        if any(cell(s.figures) != "-" for s in comparison.subjects)
    ]


def counts(subject: Subject) -> str:
    """``2 errors``, ``1 warning``, by their first letters: ``2E 1W``."""
    severities = [f.severity for f in subject.findings]
    found = [(severities.count(s), s.value[0].upper()) for s in Severity]
    return " ".join(f"{n}{letter}" for n, letter in found if n) or "none"


def told(comparison: Comparison) -> list[Told]:
    """Each finding that changed once, new ones first; of several subjects the last one's words."""
    found: dict[tuple[str, str], Told] = {}
    for change in comparison.changes:
        for fingerprint, item in _of(change):
            key = item.state, fingerprint
            before = found[key].letters if key in found else ()
            found[key] = replace(item, letters=(*before, change.letter))
    states = ("new", "worse", "gone")
    return sorted(
        found.values(),
        key=lambda t: (states.index(t.state), -(t.severity.rank if t.severity else 0), t.code),
    )


def _of(change: Change) -> Iterator[tuple[str, Told]]:
    """(fingerprint, finding) of everything that changed in one subject."""
    for f in change.new:
        yield f.fingerprint, _told("new", f)
    for known in change.worse:
        more = f"; it was {number(known.value)}"
        yield known.finding.fingerprint, _told("worse", known.finding, more)
    for gone in change.gone:
        rule = f"{gone.code} {gone.name}"
        yield gone.fingerprint, Told("gone", None, rule, gone.where, "", (), gone.code)


def grouped(found: Sequence[Told]) -> list[list[Told]]:
    """By change, severity, rule and subjects: a layer's finding is rarely alone."""
    groups: dict[tuple[object, ...], list[Told]] = {}
    for item in found:
        groups.setdefault((item.state, item.severity, item.rule, item.letters), []).append(item)
    return list(groups.values())


def outcome(change: Change) -> str:
    """What got worse, counted: ``unhealthy after healthy, 4 new errors, 1 warning graver``."""
    parts = list(change.regressions[:1]) if change.verdict_worse else []
    for how, findings in (
        ("new", change.new),
        ("graver", tuple(k.finding for k in change.worse)),
    ):
        for severity in (Severity.ERROR, Severity.WARNING):
            n = sum(f.severity is severity for f in findings)
            parts += [count(n, f"{how} {severity.value}")] if n else []
    return ", ".join(parts)


def spans(letters: Sequence[str], comparison: Comparison) -> str:
    """``B, D...G``: neighbours drawn together."""
    every = [s.letter for s in comparison.subjects]
    runs: list[list[str]] = []
    for letter in letters:
        if runs and every.index(letter) == every.index(runs[-1][-1]) + 1:
            runs[-1].append(letter)
        else:
            runs.append([letter])
    return ", ".join(", ".join(r) if len(r) < 3 else f"{r[0]}...{r[-1]}" for r in runs)


def headline(comparison: Comparison) -> str:
    """What happened, in some words: what was refused comes first, as in the exit status."""
    if comparison.refused:
        return f"{len(comparison.refused)} could not be compared"
    return "something got worse" if comparison.is_regression else "nothing got worse"


def outcomes(comparison: Comparison) -> list[tuple[str, str]]:
    """(letters, what got worse), those of whom the same is to be told together."""
    told = [(c.letter, outcome(c)) for c in comparison.changes if c.regressions]
    return _together(told, comparison)


def improvements(comparison: Comparison) -> list[tuple[str, str]]:
    """(letters, what got better), of those that did not get worse."""
    first = comparison.subjects[0]
    later = zip(comparison.subjects[1:], comparison.changes, strict=True)
    told = []
    for subject, change in later:
        verdicts = f"{subject.verdict.value} after {first.verdict.value}"
        gone = count(len(change.gone), "finding") + " gone"
        parts = [verdicts] * change.verdict_better + [gone] * bool(change.gone)
        if parts and not change.regressions:
            told.append((change.letter, ", ".join(parts)))
    return _together(told, comparison)


def _together(told: Sequence[tuple[str, str]], comparison: Comparison) -> list[tuple[str, str]]:
    found: dict[str, list[str]] = {}
    for letter, text in told:
        found.setdefault(text, []).append(letter)
    return [(spans(letters, comparison), text) for text, letters in found.items()]


def _told(state: str, f: Finding, more: str = "") -> Told:
    return Told(state, f.severity, f"{f.code} {f.name}", f.where, f"{f.message}{more}", (), f.code)


def folded(rows: Sequence[Row], *, fold: bool) -> Iterator[tuple[Row, int]]:
    """(row, number of places that it stands for): both ends and what differs most, in order.

    A run of places that is folded has numbers of the same subjects, and is shown by its last one.
    """
    if not fold or len(rows) <= FOLD_FROM:
        yield from ((row, 1) for row in rows)
        return
    middle = range(_KEEP, len(rows) - _KEEP)
    most = sorted(middle, key=lambda i: (-_spread(rows[i]), i))[: FOLD_FROM - 2 * _KEEP - 4]
    kept = {*range(_KEEP), *range(len(rows) - _KEEP, len(rows)), *most}
    run: list[Row] = []
    for i, row in enumerate(rows):
        if run and (i in kept or _known(row) != _known(run[-1])):
            yield _run(run)
            run = []
        if i in kept:
            yield row, 1
        else:
            run.append(row)


def _run(run: Sequence[Row]) -> tuple[Row, int]:
    last, n = run[-1], len(run)
    return (last, 1) if n == 1 else (Row(f"{n} places", last.left, last.gain), n)


def _known(row: Row) -> tuple[bool, ...]:
    return tuple(v is not None for v in row.left)


def _spread(row: Row) -> float:
    """By how much subjects differ in what this place does to the gradient."""
    known = [g for g in row.gain if g is not None]
    return max(known) - min(known) if len(known) > 1 else 0.0
