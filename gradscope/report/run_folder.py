"""The files of a run's folder: all that is needed to resume, to repeat and to check a repair."""

from __future__ import annotations

import csv
import io
import platform
import shlex
from collections.abc import Iterator

from gradscope.commandline import command_for, repeat_command
from gradscope.config import Settings
from gradscope.report.base import Canvas
from gradscope.report.json_ import Json
from gradscope.report.treatment import states_of
from gradscope.run_file import MARK, RunFile
from gradscope.treatment import Stage, Treatment

_MOST_SCALES = 50


def run_files(t: Treatment, run: RunFile, folder: str) -> Iterator[tuple[str, str]]:
    """(name, content), in the order in which they are written: the last one says that it ended.

    Args:
        t: a repair that is intended, or one that was done.
        run: its settings and hashes.
        folder: as the user would name it.
    """
    yield "before.json", Json().render(t.before, Canvas())
    if run.result is not None:
        yield "history.csv", _history(t)
        if t.after is not None:
            yield "after.json", Json().render(t.after, Canvas())
    yield "README.md", _readme(t, run, folder)
    versions = {"python": platform.python_version(), "torch": t.before.measurements.run.torch}
    yield MARK, run.text(versions)


def result_of(t: Treatment) -> dict[str, object]:
    """What ``run.toml`` says of how a repair ended."""
    return {"outcome": t.outcome.value, "remedy": t.chosen, "recipe": t.recipe,
            "steps": t.steps[-1] if t.steps else 0, "stopped": t.stopped}  # fmt: skip


def _history(t: Treatment) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["step", t.metric or "score", "loss", "training_loss"])
    for step, *values in zip(t.steps, t.scores, t.losses, t.trained_on, strict=True):
        rows.writerow([step, *("" if v is None else repr(v) for v in values)])
    return text.getvalue()


def _readme(t: Treatment, run: RunFile, folder: str) -> str:
    settings, repair = run.settings, run.repair
    again = Settings(str(repair.out), settings.load, settings.data, settings.probe)
    trust = " --trust-model" if settings.load.trust_model else ""
    state = _ended(t) if run.result is not None else _begun(t)
    return (
        f"# Repair of {settings.model}\n\n{state}"
        "Repeat it, and look at the result, in the folder in which it was made:\n\n"
        f"```\ngradscope fix --run {shlex.quote(folder)}{trust}\n{command_for(again)}\n```\n\n"
        "The first command goes on with a run that was broken off, and repeats one that has\n"
        "ended. It refuses inputs that have changed since. Elsewhere, say where they are now:\n"
        "`gradscope fix MODEL --run DIR --data FILE --val FILE --out FILE`. As one command of its\n"
        f"own it is\n\n```\n{repeat_command(settings, repair)}\n```\n\n"
        "On the same machine, with the same versions and number of threads and processes, it\n"
        "writes the same bytes again, broken off or not.\n\n"
        f"- `{MARK}`: every setting, versions, and the SHA-256 of every file\n"
        "- `before.json`, `after.json`: what was measured\n"
        "- `history.csv`: held-out scores and losses by step, and the training loss between them\n"
        "- `checkpoints/`: weights, optimiser and generators; `torch.load(FILE)` opens them\n"
    )


def _begun(t: Treatment) -> str:
    remedies = "".join(f"- {p.remedy}: {p.why}\n" for p in t.plan)
    return f"Not run to its end yet. Remedies that will be tried:\n\n{remedies}\n"


def _ended(t: Treatment) -> str:
    first, last = t.stages[0], t.stages[-1]
    before, after = ("-" if s.score is None else f"{s.score:.3f}" for s in (first, last))
    written = "" if t.written is not None else " Nothing was written."
    return (
        f"Remedy: {t.chosen}. Held-out {t.metric} ({t.held_out}): {before} before, "
        f"{after} after.{written}\nTrained with {t.recipe}.\n\n{_race(t)}"
        + "".join(_scales(stage) for stage in t.stages if stage.places)
    )


def _scales(stage: Stage) -> str:
    """Where the scales of a remedy went, all of them but for those that are many and alike."""
    rare = [p for p in stage.places if p.state != "folded"]
    lines = [f"- {p.where} {p.state}: {p.how}\n" for p in (rare or stage.places)[:_MOST_SCALES]]
    return f"Scales of {stage.name}: {states_of(stage)}.\n\n{''.join(lines)}\n"


def _race(t: Treatment) -> str:
    if not t.race:
        return ""
    lines = ["| tried | right after | best | steps | |", "|---|---|---|---|---|"]
    for c in t.race:
        scores = ("-" if s is None else f"{s:.3f}" for s in (c.right_after, c.best))
        steps = f"{c.steps:,}" if c.steps else "-"
        lines.append(f"| {c.remedy} | {' | '.join(scores)} | {steps} | {c.reason or ''} |")
    return f"Held-out {t.metric} of all that was tried:\n\n" + "\n".join(lines) + "\n\n"
