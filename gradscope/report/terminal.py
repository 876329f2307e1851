"""The report for people: where, why, does it matter, what now, on one screen."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from gradscope.counterfactual import SAID, outcome
from gradscope.diagnosis import Inspection
from gradscope.findings import grouped, places
from gradscope.measurements import Head, Measurements, Parameter, Role, SampleInfo, Site
from gradscope.report.base import Canvas
from gradscope.report.commands import next_commands
from gradscope.report.profile import Row, rows
from gradscope.report.terminal_page import COLOURS, Page, show_commands, show_finding
from gradscope.report.text import count, decades, number, share, shorten

_BARS = {True: ("█", "▓", "░"), False: ("#", "=", "-")}  # weights, slope, derivative
_HEAT = {True: " ▁▂▃▄▅▆▇█", False: " .:-=+*#@"}
_MAX_NOTES, _MAX_FINDINGS, _MAX_SKIPPED, _MAX_PARAMETERS = 4, 6, 3, 3


class Terminal:
    """One screen for a 20-layer model, at 80 columns, with or without colour."""

    name = "terminal"

    def render(self, inspection: Inspection, canvas: Canvas) -> str:
        """The report, ending with a newline."""
        page = Page(canvas)
        m = inspection.measurements
        _header(page, m)
        _verdict(page, inspection)
        _trial(page, m)
        for head in m.heads[:1]:
            _ledger(page, head)
        _other_heads(page, m.heads[1:])
        _saturation(page, m)
        _gates(page, m)
        _time(page, m)
        _parameters(page, m)
        _findings(page, inspection)
        _skipped(page, m)
        _commands(page, inspection)
        _coverage(page, m)
        return page.text()


def _header(page: Page, m: Measurements) -> None:
    sample = m.sample
    if sample.synthetic:
        page.line(("made-up input: no verdict rests on it alone", "bold yellow"))
    hidden = [s for s in m.sites if s.role is Role.HIDDEN]
    kinds = ", ".join(dict.fromkeys(s.kind for s in hidden))
    layers = f"{count(len(hidden), 'hidden activation')} ({kinds}), " if hidden else ""
    model = f"{m.model.format}, {layers}{count(m.model.parameters, 'parameter')}"
    name = shorten(m.model.path, 34)
    data = shorten(sample.path or "no --data", 34)
    width = max(len(name), len(data)) + 2
    page.wrapped(name.ljust(width), "bold", model)
    how, notes = _chosen(sample)
    if m.was_run:
        total = (
            f" of {sample.available:,}" if sample.available not in (None, sample.samples) else ""
        )
        labels = ", labels" if sample.labels else ", no labels"
        if how:
            labels = f", {how}" if "by label" in how else f", {how}{labels}"
        held = f"; held out {m.skill.samples:,}" if m.skill and m.skill.held_out else ""
        draws = count(m.run.draws, "draw") if m.run.draws else "no gradients"
        run = f"{m.run.mode} mode, seed {m.run.seed}, {draws}"
        text = f"{sample.samples:,}{total} samples{labels}{held}; {run}"
        page.wrapped(data.ljust(width), "", text)
    told = [*m.model.notes, *(n for n in notes if not n.startswith("synthesised"))]
    shown = told if page.canvas.all_layers else told[:_MAX_NOTES]
    for note in shown:
        page.wrapped("note  ", "dim", note)
    if len(told) > len(shown):
        page.line((f"note  and {len(told) - len(shown)} more (--all)", "dim"))


def _chosen(sample: SampleInfo) -> tuple[str, list[str]]:
    """How the samples were chosen, which stands beside their number, and what else is noted."""
    lead = f"{sample.samples} of {sample.available} samples, "
    said = [n for n in sample.notes if n.startswith(lead)]
    how = said[0].removeprefix(lead).partition(", seed ")[0] if said else ""
    return how, [n for n in sample.notes if n not in said]


def _verdict(page: Page, inspection: Inspection) -> None:
    diagnosis = inspection.diagnosis
    page.line("")
    word = f"{diagnosis.verdict.value.upper()}  "
    page.wrapped(word, COLOURS[diagnosis.verdict], diagnosis.summary)
    numbers = _numbers(inspection.measurements)
    indent = " " * len(word)
    for start in range(0, len(numbers), 2):
        page.line(indent, "".join(n.ljust(32) for n in numbers[start : start + 2]))
    if diagnosis.settle:
        page.wrapped(indent, "", f"What would settle it: {diagnosis.settle}")
    shown = diagnosis.otherwise if page.canvas.all_layers else diagnosis.otherwise[:1]
    for text in shown:
        page.wrapped(f"{indent}Otherwise: ", "dim", text)


def _numbers(m: Measurements) -> list[str]:
    """The few measurements that most verdicts rest on."""
    found = []
    if m.ledger is not None and m.ledger.total is not None:
        error = f" +-{m.ledger.total_error:.2f}" if m.ledger.total_error is not None else ""
        found.append(f"total {decades(m.ledger.total)}{error} decades")
        found.append(f"median {decades(m.ledger.median)}")
    elif m.heads and m.heads[0].input_gain is not None:
        found.append(f"output to first layer {decades(m.heads[0].input_gain)}")
    if m.skill is not None:
        found.append(f"skill {number(m.skill.value)} +-{number(m.skill.error)}")
        if m.skill.accuracy is not None:
            chance = f" (guessing {share(m.skill.chance)})" if m.skill.chance is not None else ""
            found.append(f"accuracy {share(m.skill.accuracy)}{chance}")
    if m.hidden_saturation is not None:
        found.append(f"saturated {share(m.hidden_saturation)}")
    return found


def _trial(page: Page, m: Measurements) -> None:
    trial = m.trial
    if trial is None:
        return
    page.title("Trial on copies", f"{trial.metric} on {trial.samples:,} held-out samples")
    untreated = [("untreated", arm) for arm in (trial.untreated, *trial.others)]
    for name, arm in (*untreated, ("repaired", trial.repaired)):
        points = [s for s in arm.score if s is not None]
        first, last = share(points[0] if points else None), share(arm.last)
        curve = _strip(list(arm.score), page)
        rate = f"  {arm.how}" if trial.others else ""
        ended = f"  {arm.stopped}" if arm.stopped else ""
        page.line(f"  {name:<10} [", (curve, "blue"), "]", f"  {first} to {last}{rate}{ended}")
    arms = (trial.untreated, *trial.others, trial.repaired)
    marks = ", ".join(map(str, max(arms, key=lambda a: len(a.steps)).steps))
    page.wrapped("  scored at steps ", "dim", marks)
    page.wrapped("  so: ", "dim", SAID[outcome(trial)])
    page.wrapped("  repaired = ", "dim", f"{trial.repair}; {trial.how}; {trial.held_out}")


def _ledger(page: Page, head: Head) -> None:
    ledger = head.ledger
    if len(ledger.entries) < 2:
        gain = head.input_gain
        if gain is not None:
            page.title("Where the gradient goes")
            text = f"{decades(gain)} decades from the output to the first hidden activation"
            page.wrapped("  ", "", f"{text}; too few of them for a ledger")
        return
    weights, slope, derivative = _BARS[page.canvas.unicode]
    legend = f"decades left   weights {weights}  slope {slope}  derivative {derivative}"
    page.title("Where the gradient goes", legend)
    shown = rows(ledger, fold=not page.canvas.all_layers)
    label = min(max(len(r.label) for r in shown), page.width // 3)
    noted = any(r.folded or r.note for r in shown)
    room = page.width - label - (28 if noted else 14)
    longest = max((r.weight + r.slope + r.activation for r in shown), default=0.0)
    scale = room / max(longest, 3.0)
    for row in shown:
        page.line(*_bar(row, label, scale, (weights, slope, derivative)))


def _bar(
    row: Row, label: int, scale: float, marks: tuple[str, str, str]
) -> list[str | tuple[str, str]]:
    name = shorten(row.label, label)
    lead = f"  {':' if row.folded else ' '} {name.ljust(label)} {decades(row.left):>6}  "
    parts: list[str | tuple[str, str]] = [lead]
    ends = [0.0]
    for value in (row.weight, row.slope, row.activation):
        ends.append(ends[-1] + value)
    styles = ("magenta", "yellow", "blue")
    for i, (mark, style) in enumerate(zip(marks, styles, strict=True)):
        parts.append((mark * (round(ends[i + 1] * scale) - round(ends[i] * scale)), style))
    if row.folded:
        parts.append((f" {precise(row.gain)} each", "dim"))
    elif row.note:
        parts.append((f"  {row.note}", "dim"))
    return parts


def precise(value: float | None) -> str:
    """Decades with two digits, for a mean over many layers."""
    return "-" if value is None else f"{value:+.2f}"


def _other_heads(page: Page, heads: Sequence[Head]) -> None:
    for head in heads:
        before = f", before its {head.entered_before}" if head.entered_before else ""
        page.line(f"  {head.name}{before}: total {decades(head.ledger.total)}")


def _saturation(page: Page, m: Measurements) -> None:
    bounded = [s for s in m.sites if s.role is Role.HIDDEN and s.saturated_fraction is not None]
    if bounded:
        strip = _strip([s.saturated_fraction for s in bounded], page)
        lead = "Saturated, first to last layer  "
        page.line("")
        most = share(max(_clamped(s.saturated_fraction) for s in bounded))
        page.line((lead, "bold"), "[", (strip, "red"), "]", f"  at most {most}")
        full = sum(s.units.saturated_count or 0 for s in bounded if s.units)
        if full:
            units = sum(s.units.count for s in bounded if s.units)
            text = f"{full:,} of {units:,}, in over 95% of samples"
            page.line(("Saturated units  ", "bold"), text)
    dead = [s for s in m.sites if s.units and s.units.dead_count]
    if dead:
        total = sum(s.units.dead_count or 0 for s in dead if s.units)
        of = sum(s.units.count for s in m.sites if s.units and s.units.dead_count is not None)
        if not bounded:
            page.line("")
        page.line(("Dead units  ", "bold"), f"{total:,} of {of:,}, most in {_most_dead(dead)}")


def _most_dead(sites: Sequence[Site]) -> str:
    return max(sites, key=lambda s: (s.units.dead_count or 0) if s.units else 0).id


def _strip(values: Sequence[float | None], page: Page) -> str:
    """One character a site; more sites than room share one, which then shows the largest."""
    heat = _HEAT[page.canvas.unicode]
    room = page.width - 56
    per = max(1, -(-len(values) // max(room, 8)))
    shares = [_clamped(v) for v in values]
    cells = [max(shares[i : i + per]) for i in range(0, len(shares), per)]
    return "".join(heat[round(v * (len(heat) - 1))] for v in cells)


def _clamped(share: float | None) -> float:
    """Between 0 and 1, whatever was measured."""
    return min(max(share, 0.0), 1.0) if share is not None and math.isfinite(share) else 0.0


def _gates(page: Page, m: Measurements) -> None:
    gates = [s for s in m.sites if s.role is Role.GATE and s.saturated_fraction is not None]
    cells: dict[str, list[str]] = {}
    for site in gates:
        cell = site.id.rpartition("/")[0] or site.id
        cells.setdefault(cell, []).append(
            f"{site.gate or site.kind} {share(site.saturated_fraction)}"
        )
    if not cells:
        return
    page.title("Gates, share saturated", "often meant to be shut: no verdict")
    shown = cells if page.canvas.all_layers else dict(list(cells.items())[:4])
    label = min(max(len(c) for c in shown), page.width // 3)
    for cell, gate in shown.items():
        page.packed(f"  {shorten(cell, label).ljust(label)}  ", gate)
    if len(cells) > len(shown):
        page.line((f"  and {len(cells) - len(shown)} more (--all)", "dim"))


def _time(page: Page, m: Measurements) -> None:
    ledger = m.ledger
    if ledger is None or not ledger.time:
        return
    page.title("Gradient through time", "decades")
    shown = ledger.time if page.canvas.all_layers else ledger.time[:4]
    for entry in shown:
        per = "-" if entry.decades_per_step is None else f"{entry.decades_per_step:+.3f} a step"
        peak = entry.output_at[1] + 1
        span = f"{decades(entry.total)} from step {peak} back to step 1, {per}"
        text = span if peak > 1 else f"largest at step 1 of {entry.steps}: nothing is lost"
        page.line(f"  {entry.site}  {text}")


def _parameters(page: Page, m: Measurements) -> None:
    if not m.parameters:
        return
    measured = [p for p in m.parameters if p.gradient is not None and p.gradient.rms is not None]
    key: Callable[[Parameter], float]
    if measured:
        ranked = sorted(measured, key=lambda p: p.gradient.rms or 0.0 if p.gradient else 0.0)
        title = "Smallest gradients"
    else:
        key = lambda p: -(p.weight.init_ratio or 0.0)  # noqa: E731
        ranked = sorted(m.parameters, key=key)
        title = "Largest weights"
    shown = ranked if page.canvas.all_layers else ranked[:_MAX_PARAMETERS]
    longest = max(len(title), *(len(p.name) + 2 for p in shown))
    label = min(longest, page.width - 46) - 2
    head = f"{'grad rms':>9} {'loss':>9} {'max |w|':>9} {'init ratio':>11}"
    page.line("")
    page.line((title.ljust(label + 4), "bold"), (head, "dim"))
    for p in shown:
        rms = p.gradient.rms if p.gradient else None
        loss = p.loss_gradient.rms if p.loss_gradient else None
        values = f"{number(rms):>9} {number(loss):>9} {number(p.weight.max_abs):>9}"
        page.line(
            f"  {shorten(p.name, label).ljust(label)}  {values} {number(p.weight.init_ratio):>11}"
        )


def _findings(page: Page, inspection: Inspection) -> None:
    """Grouped by rule, the gravest first; --all shows each, and what to do about it."""
    page.title("Findings")
    groups = grouped(inspection.findings)
    every = page.canvas.all_layers
    shown = groups if every else groups[:_MAX_FINDINGS]
    if not shown:
        page.line("  none")
    for group in shown:
        if not every:
            show_finding(page, group[0], places(group))
            continue
        for f in group:
            show_finding(page, f, f.where)
        page.wrapped(" " * 15 + "> ", "dim", group[0].advice)
    rest = len(inspection.findings) - sum(len(group) for group in shown)
    if rest > 0:
        page.line((f"  and {rest} more (--all, or --format json)", "dim"))


def _skipped(page: Page, m: Measurements) -> None:
    if not m.skipped:
        return
    page.title("Not measured")
    shown = m.skipped if page.canvas.all_layers else m.skipped[:_MAX_SKIPPED]
    for s in shown:
        page.wrapped("  ", "", f"{s.what}: {s.reason}")
    if len(m.skipped) > len(shown):
        page.line((f"  and {len(m.skipped) - len(shown)} more (--all)", "dim"))


def _commands(page: Page, inspection: Inspection) -> None:
    page.title("What now")
    if inspection.diagnosis.advice:
        page.wrapped("  ", "", inspection.diagnosis.advice)
    show_commands(page, next_commands(inspection, all_shown=page.canvas.all_layers))


def _coverage(page: Page, m: Measurements) -> None:
    reached = sum(p.gradient is not None and p.gradient.state != "no-path" for p in m.parameters)
    sites = sum(s.gradient_state not in (None, "no-path") for s in m.sites)
    page.line("")
    page.line(
        f"Measured: gradients of {sites} of {len(m.sites)} activations, {reached} of "
        f"{len(m.parameters)} parameters."
    )
    parity = m.run.parity
    if parity is not None:
        sizes = " and ".join(str(s) for s in parity.samples)
        text = f"outputs differ from {parity.runtime}'s by at most {number(parity.max_error)}"
        page.wrapped("Parity: ", "", f"{text} (batches of {sizes}).")
