"""The words of a page: verdict, evidence, commands, findings, settings."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gradscope import __version__
from gradscope.commandline import command_for
from gradscope.diagnosis import Inspection
from gradscope.findings import Finding, grouped
from gradscope.measurements import Head, Measurements, Role, RunInfo, Trial
from gradscope.report.html.tables import Cell, Column, Table, percent, signed, why
from gradscope.report.text import count, number, safe
from gradscope.rules import all_rules
from gradscope.rules.limits import check_limits, joined, parse_limit
from gradscope.rules.registry import Limits


@dataclass(frozen=True)
class Figure:
    """One number at the top; without a ``value``, ``beside`` says why it was not measured."""

    label: str
    value: str | None
    beside: str


def figures(m: Measurements) -> Iterator[Figure]:
    """The few numbers that most verdicts rest on."""
    ledger, head = m.ledger, m.heads[0] if m.heads else None
    gain = ledger.gain if ledger is not None else None
    if gain is not None and ledger is not None:
        parts = f"rms {signed(ledger.total)}, median {signed(ledger.median)}"
        yield Figure("Decades from last to first layer", signed(gain), parts)
    elif head is not None and head.input_gain is not None:
        reason = why(m, "total of", otherwise="too few layers for a ledger")
        yield Figure("Decades from output to first layer", signed(head.input_gain), reason)
    else:
        reason = why(m, "ledger", "total of", otherwise="no gradient was measured")
        yield Figure("Decades from last to first layer", None, reason)
    skill = m.skill
    no_labels = why(m, "skill", "loss", otherwise="the data have no labels")
    if skill is None:
        yield Figure("Skill", None, no_labels)
    else:
        where = "held-out data" if skill.held_out else "this sample"
        error = "" if skill.error is None else f"±{number(skill.error)}, "
        value = None if skill.value is None else number(skill.value)
        yield Figure("Skill", value, f"{error}{where}; 1 is perfect, 0 is guessing")
        if skill.accuracy is not None:
            chance = "" if skill.chance is None else f"guessing {percent(skill.chance)}"
            yield Figure("Accuracy", f"{100 * skill.accuracy:.1f}%", chance or where)
    sat = m.hidden_saturation
    reason = why(m, "activations", otherwise="no hidden activation that can saturate")
    shown = None if sat is None or not math.isfinite(sat) else percent(sat)
    yield Figure("Saturated", shown, reason if shown is None else "mean of the hidden activations")


def evidence(inspection: Inspection) -> Table:
    """What the verdict rests on."""
    columns = (
        Column("What", numeric=False), Column("Measured"), Column("Limit"),
    )  # fmt: skip
    table = Table("evidence", "Evidence", columns)
    for e in inspection.diagnosis.evidence:
        limit = "none" if e.threshold is None else number(e.threshold)
        value = table.number(e.value, _no_evidence(inspection.measurements, e.statement))
        table.add(Cell(safe(e.statement)), value, Cell(limit))
    return table


def _no_evidence(m: Measurements, statement: str) -> str:
    if statement.startswith("saturated"):
        return why(m, "activations", otherwise="no hidden activation that can saturate")
    if statement.startswith(("g, decades", "decades")):
        otherwise = "no gradient was measured between two hidden activations"
        return why(m, "total of", "ledger", otherwise=otherwise)
    return "the rule compares no number, or it was not finite"


@dataclass(frozen=True)
class RuleGroup:
    """Findings of one rule, and what the rule says of itself.

    ``thresholds``: (name, value and unit, evidence).
    """

    code: str
    name: str
    severity: str
    summary: str
    explanation: str
    advice: str
    thresholds: Sequence[tuple[str, str, str]]
    remedies: Sequence[str]
    findings: Sequence[Finding]


def findings(inspection: Inspection) -> list[RuleGroup]:
    """By rule and severity, in the order of the report: the gravest first."""
    rules = {rule.code: rule for rule in all_rules()}
    in_force = _limits(inspection)
    found = []
    for mine in grouped(inspection.findings):
        code, severity = mine[0].code, mine[0].severity
        rule = rules[code]
        limits = [
            (
                f"{code}.{name}",
                f"{in_force.get(code, {}).get(name, t.value):g} {t.unit}",
                t.evidence,
            )
            for name, t in rule.thresholds.items()
        ]
        remedies = list(dict.fromkeys(r for f in mine for r in f.remedies))
        found.append(
            RuleGroup(
                code,
                rule.name,
                severity.value,
                rule.summary,
                rule.explanation,
                mine[0].advice,
                limits,
                remedies,
                mine,
            )
        )
    return found


def _limits(inspection: Inspection) -> Limits:
    """Thresholds that the user has set."""
    settings = inspection.settings
    if settings is None:
        return {}
    flags = (parse_limit(text, "--limit") for text in settings.limits)
    return joined([check_limits(settings.rules, "settings file"), *flags])


def trial_table(trial: Trial | None) -> Table | None:
    """Scores of all copies, at the steps at which they were scored."""
    if trial is None:
        return None
    untreated = (trial.untreated, *trial.others)
    names = [f"as it is, {safe(a.how)}" if trial.others else "as it is" for a in untreated]
    names, arms = [*names, "repaired"], (*untreated, trial.repaired)
    scores = [Column(f"{trial.metric} {name}") for name in names]
    losses = [Column(f"Loss {name}") for name in names]
    table = Table("trial", "Scores while training", (Column("Step"), *scores, *losses))
    longer = max(arms, key=lambda arm: len(arm.steps))
    for i, step in enumerate(longer.steps):
        numbers = [_at(a.score, i) for a in arms] + [_at(a.loss, i) for a in arms]
        reasons = [a.stopped or "it was not finite" for a in arms] * 2
        cells = (table.number(v, why) for v, why in zip(numbers, reasons, strict=True))
        table.add(str(step), *cells)
    return table


def _at(values: Sequence[float | None], index: int) -> float | None:
    return values[index] if index < len(values) else None


def ledger_table(head: Head, index: int) -> Table:
    """The chart's numbers, from the output to the input, as the gradient goes."""
    columns = (
        Column("Layer", numeric=False), Column("Decades left"), Column("Of the median sample"),
        Column("Change here"), Column("Weights"), Column("Slope"), Column("Derivative"),
        Column("Path", numeric=False),
    )  # fmt: skip
    table = Table(f"ledger-{index}", f"Ledger of {safe(head.name)}, in decades", columns)
    first = "the gradient is counted from here"
    none = "no gradient, or a block that is measured as a whole"
    for e in head.ledger.entries:
        reason = first if e is head.ledger.entries[0] else none
        path = [f"{b.site} {signed(b.gain)}" for b in e.branches if len(e.branches) > 1 or e.bypass]
        notes = (["skip connection"] if e.bypass else []) + path
        parts = (e.gain, e.weight, e.slope, e.activation)
        table.add(
            e.label,
            table.decades(e.cumulative, "no gradient arrived"),
            table.decades(e.cumulative_median, "no gradient arrived, or samples are coupled"),
            *(table.decades(v, reason) for v in parts),
            ", ".join(notes) or "straight",
        )
    return table


def time_table(m: Measurements) -> Table | None:
    """Gradient through time, one recurrent site a row."""
    if m.ledger is None or not m.ledger.time:
        return None
    columns = (
        Column("Site", numeric=False), Column("Steps"), Column("Largest at step"),
        Column("Decades from there to step 1"), Column("A step"),
        Column("Decades to the last step"),
    )  # fmt: skip
    table = Table("time", "Gradient through time", columns)
    for t in m.ledger.time:
        table.add(
            t.site, str(t.steps), str(t.output_at[1] + 1),
            table.decades(t.total, "no gradient at one of the ends"),
            table.number(t.decades_per_step, "too few steps with a gradient for a line"),
            table.decades(t.growth, "no gradient at one of the ends"),
        )  # fmt: skip
    return table


def other_outputs(heads: Sequence[Head]) -> Table | None:
    """Every output that was probed, if there are several or something was left out of one."""
    if len(heads) < 2 and not any(h.entered_before for h in heads):
        return None
    columns = (
        Column("Output", numeric=False), Column("Shape", numeric=False),
        Column("Entered before", numeric=False), Column("Total, decades"),
        Column("Output to first layer"),
    )  # fmt: skip
    table = Table("outputs", "Outputs", columns)
    for h in heads:
        table.add(
            h.name, "×".join(map(str, h.shape)), h.entered_before or "nothing",
            table.decades(h.ledger.total, "fewer than two hidden activations on the way"),
            table.decades(h.input_gain, "no gradient arrived"),
        )  # fmt: skip
    return table


def facts(inspection: Inspection) -> list[tuple[str, str]]:
    """Data, settings and versions, as (what, value)."""
    m, run = inspection.measurements, inspection.measurements.run
    sample = m.sample
    hidden = [s for s in m.sites if s.role is Role.HIDDEN]
    kinds = ", ".join(dict.fromkeys(s.kind for s in hidden))
    found = [
        ("Model", m.model.path),
        ("Form", m.model.format + (f", {m.model.class_name}" if m.model.class_name else "")),
        ("Size", f"{count(m.model.parameters, 'parameter')}, {m.model.trainable:,} trainable"),
        ("Hidden activations", f"{len(hidden)} ({kinds})" if hidden else "none"),
        ("Data", _data(m)),
        ("Held-out data", sample.validation or "none"),
        ("Inputs", "; ".join(f"{k}: {'×'.join(map(str, v))}" for k, v in sample.inputs.items())),
        ("Run", _run(run)),
        ("Outputs", ", ".join(h.name for h in m.heads) or "none"),
    ]
    if run.batch_statistics:
        found.append(("Batch statistics used in", ", ".join(run.batch_statistics)))
    if run.parity is not None:
        at_most = f"outputs differ by at most {number(run.parity.max_error)}"
        found.append(("Compared with", f"{run.parity.runtime}: {at_most}"))
    settings = inspection.settings
    if settings is not None:
        if settings.rules:
            rules = json.dumps(settings.rules, sort_keys=True)
            found.append((f"Thresholds of {settings.rules_from}", rules))
        found.append(("Command", command_for(settings)))
    found.append(("Versions", f"gradscope {__version__}, torch {run.torch}"))
    return [(what, safe(value)) for what, value in found if value]


def _data(m: Measurements) -> str:
    sample = m.sample
    if sample.synthetic:
        return f"made up, {count(sample.samples, 'sample')}: no verdict rests on it alone"
    if sample.path is None:
        return "none"
    of = f" of {sample.available:,}" if sample.available not in (None, sample.samples) else ""
    labels = "labels" if sample.labels else "no labels"
    return f"{sample.path}, {sample.samples:,}{of} samples, {labels}"


def _run(run: RunInfo) -> str:
    return (
        f"{run.mode} mode, seed {run.seed}, {count(run.draws, 'draw')}, batches of "
        f"{run.batch_size}, {run.device}, {run.dtype}; {run.forward_passes} forward and "
        f"{run.backward_passes} backward passes"
    )
