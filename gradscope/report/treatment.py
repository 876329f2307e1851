"""What ``gradscope fix`` prints: what was wrong, what was done, what it brought."""

from __future__ import annotations

import math
import shlex
import textwrap
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from gradscope.commandline import command_for, compare_command
from gradscope.report.text import count, safe
from gradscope.treatment import Outcome, Stage, Treatment

_MOST_SAID = 6


def as_text(t: Treatment, width: int, folder: str | None = None) -> str:
    """For people; no colour is needed to read it."""
    lines = _lines(t, max(60, min(width, 140)), folder)
    return "\n".join(safe(line).rstrip() for line in lines) + "\n"


def _lines(t: Treatment, width: int, folder: str | None) -> Iterator[str]:
    m = t.before.measurements
    yield f"{m.model.path}  {m.model.format}, {count(m.model.parameters, 'parameter')}"
    yield ""
    word = t.outcome.value
    said = t.summary.removeprefix(f"{word.capitalize()}: ")
    yield from _wrapped(f"{word.upper()}  ", said, width)
    before = t.before.diagnosis
    if before.summary not in t.summary or t.after is not None:
        yield ""
    if before.summary not in t.summary:
        yield from _wrapped("  before  ", f"{before.verdict.value}: {before.summary}", width)
    if t.after is not None:
        after = t.after.diagnosis
        yield from _wrapped("  after   ", f"{after.verdict.value}: {after.summary}", width)
    if t.plan:
        yield ""
        yield _planned(t)
        for planned in t.plan:
            mark = "*" if planned.remedy == t.chosen else " "
            yield from _wrapped(f" {mark} {planned.remedy:<12} ", planned.why, width)
    if t.race:
        yield ""
        yield from _race(t, width)
    for warning in t.warnings:
        yield ""
        yield from _wrapped("Warning  ", warning, width)
    if t.stages:
        yield ""
        yield from _table(t, width)
    if t.recipe:
        yield ""
        yield from _wrapped("Trained  ", _training(t), width)
    yield ""
    yield from _ending(t, folder)


def _planned(t: Treatment) -> str:
    """What the list of remedies is a list of."""
    if t.chosen is None:
        return "Plan"
    if len(t.plan) == 1:
        return "Remedy"
    return "Remedies tried, each for a while" if t.steps else "Remedies tried"


def _table(t: Treatment, width: int) -> Iterator[str]:
    yield f"{'Stage':<14}{t.metric or 'score':>9}{'loss':>10}{'drift':>10}"
    for stage in t.stages:
        if stage.name == "fine-tuned" and not t.steps:
            continue
        yield _row(stage)
        if stage.places:
            yield from _wrapped("                ", f"scales: {states_of(stage)}", width)
        for said in stage.said[:_MOST_SAID]:
            yield from _wrapped("                ", said, width)
        if len(stage.said) > _MOST_SAID:
            yield f"                and {len(stage.said) - _MOST_SAID} more (--format json)"


def _race(t: Treatment, width: int) -> Iterator[str]:
    """Who was tried for how long, and how well each did; the best first."""
    ran = {c.steps for c in t.race if c.steps}
    steps = max(ran, default=0)
    best_of = f"best of {steps:,} steps" if len(ran) == 1 else "best on the way" if ran else ""
    yield f"{'Race':<17}{'right after':>12}{best_of:>20}"
    for c in t.race:
        mark = "*" if c.remedy == t.chosen else " "
        best = f"{_score(c.best):>20}" if steps else " " * 20
        lead = f" {mark} {c.remedy:<14}{_score(c.right_after):>12}{best}"
        yield from _wrapped(f"{lead}  ", c.reason, width) if c.reason else [lead]


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def states_of(stage: Stage) -> str:
    """How many scales were folded, stand in the file, or were left out."""
    counts = Counter(p.state for p in stage.places)
    known = {
        "folded": "folded exactly",
        "explicit": "explicit in the file",
        "left": "left as it is",
    }
    return ", ".join(f"{counts[state]} {text}" for state, text in known.items() if counts[state])


def _row(stage: Stage) -> str:
    score = _score(stage.score)
    loss = "-" if stage.loss is None else f"{stage.loss:.3g}"
    drift = "-" if stage.drift is None or math.isnan(stage.drift) else f"{stage.drift:.2g}"
    return f"{stage.name:<14}{score:>9}{loss:>10}{drift:>10}"


def _training(t: Treatment) -> str:
    held = f"{t.samples:,} held-out samples ({t.held_out})"
    if not t.steps:
        return f"not at all; scored on {held}"
    steps = f"{t.steps[-1]:,} steps"
    ended = f", {t.stopped}" if t.stopped else ", ended by the limit of --epochs"
    resumed = f", the last of them from step {t.resumed:,} on" if t.resumed is not None else ""
    return f"{steps}{resumed}, {t.recipe}{ended}; scored on {held}"


def _ending(t: Treatment, folder: str | None) -> Iterator[str]:
    settings = t.before.settings
    if t.written is not None:
        yield f"Written  {t.written}"
    elif t.outcome is Outcome.PLANNED:
        yield "Nothing was done: --plan."
    elif t.outcome is not Outcome.EMITTED:
        yield "Nothing was written."
    if folder is not None:
        yield f"The run  {folder}"
    if t.outcome is Outcome.EMITTED:
        yield from _launch(folder, settings is not None and settings.load.trust_model)
    elif t.written is not None and settings is not None and settings.data.data is not None:
        yield ""
        yield "What now"
        yield f"  {command_for(replace(settings, model=t.written))}"
        yield "      the whole report"
        if t.outcome is Outcome.IMPROVED:
            yield f"  {compare_command(settings, t.written)}"
            yield "      beside the original: what is gone, and whether anything got worse"


def _launch(folder: str | None, trusted: bool) -> Iterator[str]:
    if folder is None:
        yield "Nothing was written."
    else:
        yield ""
        yield "What now"
        yield f"  gradscope fix --run {shlex.quote(folder)}{' --trust-model' if trusted else ''}"
        yield "      trains, here or where the folder and the files are copied to"


def _wrapped(lead: str, text: str, width: int) -> list[str]:
    return textwrap.wrap(
        text, width, initial_indent=lead, subsequent_indent=" " * len(lead),
        break_long_words=False, break_on_hyphens=False,
    ) or [lead]  # fmt: skip
