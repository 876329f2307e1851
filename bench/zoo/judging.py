"""Verdicts on measured models, and the rates that come of them. Imports no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.zoo.measuring import BARE, FAILED, LABELLED, TRIED
from bench.zoo.rates import shared, table
from bench.zoo.record import read
from gradscope.diagnosis import diagnose
from gradscope.measurements import Measurements
from gradscope.rules import run_rules
from gradscope.rules.registry import all_rules

MODES = {"with labels": LABELLED, "without labels": BARE, "with labels and a trial": TRIED}
VERDICTS = ("unhealthy", "warning", "undetermined", "healthy", "error")
KINDS = {
    "mlp": "MLP", "cnn": "CNN", "cnn1d": "CNN", "rnn": "RNN", "lstm": "LSTM", "gru": "GRU",
    "resmlp": "residual", "rescnn": "residual", "transformer": "transformer", "ae": "MLP",
    "unet1d": "CNN", "gruseq": "GRU", "mixer": "residual", "postln": "transformer",
    "dropmlp": "MLP", "bare": "transformer",
}  # fmt: skip


INTERVALS = (
    "95 % intervals: Wilson's, with models counted as independent, then from drawing whole "
    "families, since models of one family are alike."
)


@dataclass(frozen=True)
class Judged:
    """One model, its truth, and what was said about it."""

    record: dict[str, Any]
    verdict: str
    causes: tuple[str, ...]
    numbers: str
    broken: bool = False

    @property
    def truth(self) -> str:
        return str(self.record["truth"])

    @property
    def planted(self) -> bool:
        return bool(self.record["planted"])

    @property
    def first(self) -> str | None:
        return self.causes[0] if self.causes else None

    @property
    def asked(self) -> bool:
        """Whether the planted cause should be named: it was one, and it did harm."""
        return self.truth == "faulty" and bool(self.planted_causes)

    @property
    def planted_causes(self) -> tuple[str, ...]:
        """Those of the condition; a model that has run into NaN since is ``nonfinite``."""
        return ("nonfinite",) if self.broken else tuple(self.record["causes"])

    @property
    def named(self) -> bool:
        return self.first in self.planted_causes

    @property
    def near(self) -> bool:
        return self.named or self.first in self.record["near"]


def judge(record: dict[str, Any], suffix: str) -> Judged | None:
    """What the rules as they are now say of a model; None if it has not been measured yet."""
    path = Path(record["path"] + suffix)
    why = Path(record["path"] + suffix + FAILED)
    if why.is_file():
        return Judged(record, "error", (), why.read_text())
    if not path.is_file():
        return None
    m = read(path)
    found = diagnose(m, run_rules(m))
    causes = tuple(c.value for c in found.causes)
    broken = any(p.weight.nonfinite_fraction for p in m.parameters)
    return Judged(record, found.verdict.value, causes, _numbers(m), broken)


def _numbers(m: Measurements) -> str:
    """The few measurements that explain most verdicts."""
    ledger = m.ledger
    parts: list[tuple[str, float | None]] = [
        ("skill", m.skill.value if m.skill else None),
        ("acc", m.skill.accuracy if m.skill else None),
        ("sat", m.hidden_saturation),
        ("g", ledger.gain if ledger else None),
        ("total", ledger.total if ledger else None),
    ]
    return " ".join(f"{name} {value:.2f}" for name, value in parts if value is not None)


def report(judged: dict[str, list[Judged]], *, names: bool) -> list[str]:
    """Markdown lines: rates, confusion, families, conditions and the cases that fail."""
    lines = ["## Zoo", "", *_contents(next(iter(judged.values())))]
    lines += ["## Rates", "", INTERVALS, ""]
    lines += table(("", *judged), [(k, *v) for k, v in _rates(judged).items()])
    for mode, rows in judged.items():
        lines += [f"## Confusion, {mode}", "", *_confusion(rows)]
    for mode, rows in judged.items():
        lines += [f"## By kind of network, {mode}", "", *_groups(rows, lambda r: KINDS[r["kind"]])]
    mode, rows = next(iter(judged.items()))
    lines += [f"## By condition, {mode}", "", *_groups(rows, lambda r: r["condition"])]
    lines += [f"## By family, {mode}", "", *_groups(rows, lambda r: r["family"])]
    lines += ["## Thresholds judged with", "", *_thresholds()]
    if names:
        for mode, rows in judged.items():
            lines += [f"## Failures, {mode}", "", *_failures(rows)]
    return lines


def _contents(rows: list[Judged]) -> list[str]:
    kinds = list(dict.fromkeys(KINDS.values()))
    body = []
    for kind in kinds:
        them = [j for j in rows if KINDS[j.record["kind"]] == kind]
        counts = Counter((j.truth, j.planted) for j in them)
        families = len({j.record["family"] for j in them})
        truths = (("faulty", True), ("faulty", False), ("healthy", False), ("healthy", True))
        other = len(them) - sum(counts[t] for t in truths)
        body.append((kind, families, *(counts[t] for t in truths), other))
    total = [sum(int(row[i]) for row in body) for i in range(1, 7)]
    head = ("", "families", "faulty, planted", "faulty, not planted", "healthy, nothing planted",
            "healthy, planted but harmless", "ambiguous or without reference")  # fmt: skip
    return table(head, [*body, ("all", *total)])


def _rates(judged: dict[str, list[Judged]]) -> dict[str, list[str]]:
    questions: dict[str, tuple[Callable[[Judged], bool], Callable[[Judged], bool]]] = {
        "faulty called unhealthy": (lambda j: j.truth == "faulty", _unhealthy),
        "faulty called healthy": (
            lambda j: j.truth == "faulty",
            lambda j: j.verdict == "healthy",
        ),
        "healthy called unhealthy": (lambda j: j.truth == "healthy", _unhealthy),
        "- nothing planted": (lambda j: j.truth == "healthy" and not j.planted, _unhealthy),
        "- planted, harmless": (lambda j: j.truth == "healthy" and j.planted, _unhealthy),
        "healthy called healthy": (
            lambda j: j.truth == "healthy",
            lambda j: j.verdict == "healthy",
        ),
        "planted cause named first": (lambda j: j.asked, lambda j: j.named),
        "- or a near one": (lambda j: j.asked, lambda j: j.near),
        "- of those called unhealthy": (lambda j: j.asked and _unhealthy(j), lambda j: j.named),
    }
    found: dict[str, list[str]] = {}
    for what, (which, hit) in questions.items():
        found[what] = []
        for rows in judged.values():
            chosen = [(j.record["family"], hit(j)) for j in rows if which(j)]
            found[what].append(shared(chosen))
    return found


def _unhealthy(j: Judged) -> bool:
    return j.verdict == "unhealthy"


def _confusion(rows: list[Judged]) -> list[str]:
    counts = Counter((j.truth, j.verdict) for j in rows)
    truths = ("faulty", "healthy", "ambiguous", "no-reference")
    body = [(t, *(counts[t, v] for v in VERDICTS)) for t in truths]
    return table(("truth", *VERDICTS), body)


def _groups(rows: list[Judged], key: Callable[[dict[str, Any]], str]) -> list[str]:
    groups: dict[str, list[Judged]] = {}
    for j in rows:
        groups.setdefault(key(j.record), []).append(j)
    body = []
    for name, members in groups.items():
        faulty = [j for j in members if j.truth == "faulty"]
        healthy = [j for j in members if j.truth == "healthy"]
        asked = [j for j in faulty if j.asked]
        cells = (
            (sum(map(_unhealthy, faulty)), len(faulty)),
            (sum(map(_unhealthy, healthy)), len(healthy)),
            (sum(j.named for j in asked), len(asked)),
        )
        other = len(members) - len(faulty) - len(healthy)
        body.append((name, *(f"{a}/{n}" if n else "-" for a, n in cells), other or "-"))
    head = ("", "faulty: unhealthy", "healthy: unhealthy", "cause named first", "not counted")
    return table(head, body)


def _thresholds() -> list[str]:
    body = [
        (rule.code, rule.name, name, f"{t.value:g} {t.unit}", t.evidence)
        for rule in all_rules()
        for name, t in rule.thresholds.items()
    ]
    return table(("rule", "", "threshold", "value", "evidence"), body)


def _failures(rows: list[Judged]) -> list[str]:
    wanted = {
        "Missed": lambda j: j.truth == "faulty" and not _unhealthy(j),
        "False alarms": lambda j: j.truth == "healthy" and _unhealthy(j),
        "Another cause first": lambda j: j.asked and _unhealthy(j) and not j.named,
    }
    lines: list[str] = []
    for title, which in wanted.items():
        chosen = [j for j in rows if which(j)]
        body = [
            (
                j.record["id"],
                j.verdict,
                ", ".join(j.causes) or "-",
                ", ".join(j.planted_causes) or "-",
                f"{j.record['saved']:.2f} {j.record['untreated']:.2f} {j.record['twin']:.2f}",
                j.numbers,
            )
            for j in chosen
        ]
        head = ("model", "verdict", "causes", "planted", "saved, untreated, twin", "measured")
        lines += [f"{title}: {len(chosen)}", "", *(table(head, body) if body else [])]
    return lines
