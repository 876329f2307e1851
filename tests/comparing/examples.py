"""Comparisons made by hand, one for each thing that a format must be able to say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from gradscope.comparing import Comparison, Figures, Place, Refused, Subject, compare
from gradscope.diagnosis import Verdict
from gradscope.findings import Finding
from tests.report.check_examples import HOSTILE, LARGE, LOST, RULES, UNDERFLOW

SETUP = {"data": "digits.npz", "samples": "512", "seed": "0"}


def subject(verdict: Verdict = Verdict.HEALTHY, *findings: Finding, **given: object) -> Subject:
    """One of them; ``left`` makes its ledger, from the output's side."""
    left = given.pop("left", ())
    assert isinstance(left, tuple)
    places = tuple(
        Place(f"{2 * i}/tanh", f"{2 * i}/tanh", value, value)
        for i, value in zip(reversed(range(len(left))), left, strict=True)
    )
    plain = Subject(
        "", "runs/a.pt", "runs/a.pt", "PyTorch module", 4522, verdict, "It works: skill 0.95.", (),
        Figures(), SETUP, places, findings, inspect="gradscope inspect runs/a.pt",
    )  # fmt: skip
    return replace(plain, **given)


def alike() -> Comparison:
    figures = Figures(-0.3, -0.3, 0.02, 0.95, 0.97, 0.11)
    first = subject(figures=figures, left=(0.0, -0.1, -0.3))
    return compare([first, replace(first, path="runs/b.pt", model="runs/b.pt")], 0.1, rules=RULES)


def worse() -> Comparison:
    """New, graver, the same and gone, and one measured on other data."""
    first = subject(
        Verdict.WARNING, replace(LOST, value=-3.0), UNDERFLOW, LARGE,
        figures=Figures(-3.0, None, 0.4, 0.5, 0.7, 1.0), left=(0.0, -1.0, -3.0),
    )  # fmt: skip
    new = replace(LARGE, where="layers.5.weight")
    last = subject(
        Verdict.UNHEALTHY, LOST, UNDERFLOW, new, path="reports/b.json", saved=True,
        model="runs/b.pt", figures=Figures(-6.0, -6.1, 0.4, -0.01, 0.1, 2.3),
        left=(0.0, -2.0, -6.0, -6.5), setup=SETUP | {"data": "other.npz", "seed": "1"},
        inspect=None,
    )  # fmt: skip
    return compare([first, last], 0.1, fails=True, rules=RULES)


def better() -> Comparison:
    """As after a repair; both were measured anew."""
    first = subject(Verdict.UNHEALTHY, LOST, LARGE, figures=Figures(-6.0, -6.0), left=(0.0, -6.0))
    last = subject(path="fixed.pt", figures=Figures(-0.1, -0.1), left=(0.0, -0.1))
    return compare([first, last], 0.1, fails=True, rules=RULES)


def checkpoints() -> Comparison:
    """More than fit side by side, and deeper than fits a screen."""
    every = []
    for step in range(30):
        left = tuple(-0.01 * step * i for i in range(40))
        figures = Figures(left[-1], left[-1], step / 40, min(step / 20, 0.9), None, 2.0)
        grave = step > 20
        found = (replace(LOST, value=left[-1], where="0/tanh ... 78/tanh"),) if grave else ()
        verdict = Verdict.UNHEALTHY if grave else Verdict.HEALTHY
        every.append(
            subject(verdict, *found, path=f"run/step{step}.pt", figures=figures, left=left)
        )
    return compare(every, 0.1, rules=RULES)


def refused() -> Comparison:
    """The first one and another could not be served."""
    lost = Refused("", "runs/a.pt", "does not exist. Check the path.", 2)
    empty = Refused("", "runs/c.pt", "nothing could be measured", 3)
    first = subject(path="runs/b.pt", figures=Figures(-0.1, -0.1), left=(0.0, -0.1))
    last = subject(Verdict.UNHEALTHY, LOST, path="runs/d.pt", figures=Figures(-6.0, -6.1))
    return compare([lost, first, empty, last], 0.1, fails=True, rules=RULES)


def nothing() -> Comparison:
    """Weights alone: no ledger, no score."""
    first = subject(Verdict.UNDETERMINED)
    return compare([first, first], 0.1)


def hostile() -> Comparison:
    """Every text is hostile."""
    bad = HOSTILE
    finding = Finding(LOST.code, LOST.name, LOST.severity, bad, bad, None, None)
    first = subject(Verdict.HEALTHY, replace(finding, where=f"{bad}2"))
    last = subject(
        Verdict.UNHEALTHY, finding, path=f"m/{bad}.pt", model=bad, format=bad, summary=bad,
        setup={"data": bad}, inspect=bad, places=(Place(bad, bad, -1.0, -1.0),), saved=True,
    )  # fmt: skip
    return compare([replace(first, setup={"data": "x"}), last], 0.1, fails=True, rules=RULES)


COMPARISONS: dict[str, Callable[[], Comparison]] = {
    f.__name__: f for f in (alike, worse, better, checkpoints, refused, nothing, hostile)
}
