"""From an inspection to what is compared of it."""

from __future__ import annotations

from gradscope import __version__
from gradscope.comparing.results import Figures, Place, Subject
from gradscope.diagnosis import Inspection
from gradscope.measurements import Ledger, Measurements, Skill


def subject_of(path: str, inspection: Inspection, inspect: str | None = None) -> Subject:
    """What is compared of a model that was just examined; its letter comes later.

    Args:
        path: as it was given.
        inspection: of it.
        inspect: the command that shows the whole report.
    """
    m, diagnosis = inspection.measurements, inspection.diagnosis
    return Subject(
        "", path, m.model.path, m.model.format, m.model.parameters, diagnosis.verdict,
        diagnosis.summary, diagnosis.causes, _figures(m), _setup(m), _places(m.ledger),
        inspection.findings, inspect=inspect,
    )  # fmt: skip


def _figures(m: Measurements) -> Figures:
    ledger = m.ledger
    skill = m.skill or Skill(None, None, None, "", "", None, False, 0)
    return Figures(
        None if ledger is None else ledger.total,
        None if ledger is None else ledger.median,
        m.hidden_saturation, skill.value, skill.accuracy, skill.loss,
    )  # fmt: skip


def _places(ledger: Ledger | None) -> tuple[Place, ...]:
    if ledger is None:
        return ()
    median = reads_median(ledger.total, ledger.median)
    return tuple(
        Place(e.site, e.label, e.cumulative_median if median else e.cumulative, e.gain)
        for e in ledger.entries
    )


def reads_median(total: float | None, median: float | None) -> bool:
    """Whether the median sample lost more, so that the verdict reads it."""
    return median is not None and (total is None or median <= total)


def _setup(m: Measurements) -> dict[str, str]:
    return setup(
        data=m.sample.path, held_out=m.sample.validation, samples=m.sample.samples,
        mode=m.run.mode, seed=m.run.seed, draws=m.run.draws, version=__version__,
    )  # fmt: skip


def setup(
    *, data: str | None, held_out: str | None, samples: int, mode: str, seed: int, draws: int,
    version: str,
) -> dict[str, str]:  # fmt: skip
    """How a subject was measured: what differs between two is told."""
    return {
        "data": data or "a made-up input",
        "held-out data": held_out or "none",
        "samples": str(samples),
        "mode": mode,
        "seed": str(seed),
        "draws": str(draws),
        "version of gradscope": version,
    }
