"""The next command to type. Each one works as printed."""

from __future__ import annotations

import shlex

from gradscope.diagnosis import Inspection
from gradscope.measurements import Measurements


def next_commands(inspection: Inspection) -> list[tuple[str, str]]:
    """(command, what it is good for), the most useful first."""
    m = inspection.measurements
    base = command_for(m)
    if not m.heads:
        return [
            (f"gradscope inspect {_quoted(m.model.path)} --arch FILE.py:factory --data SAMPLE.npz",
             "with the code that builds the model: activations, gradients and the ledger")
        ]  # fmt: skip
    found = []
    if m.sample.synthetic:
        found.append(
            (f"{base} --data SAMPLE.npz", "with real samples (x, and labels y): a verdict")
        )
    elif not m.sample.labels:
        why = "with labels y: tells converged from stuck"
        found.append((f"{command_for(m, data='LABELLED.npz')}", why))
    elif m.skill is not None and not m.skill.held_out:
        found.append((f"{base} --val HELD_OUT.npz", "skill on data that it was not trained on"))
    found.append((f"{base} --all", "every layer, gate, parameter and finding"))
    if len(found) < 2:
        found.append((f"{base} --format json", "all numbers, for a script"))
    return found


def command_for(m: Measurements, data: str | None = None) -> str:
    """The command that made this report, with other data if given."""
    words = ["gradscope", "inspect", _quoted(m.model.path)]
    arch = m.model.format.partition(" + ")[2].partition(",")[0]
    if arch:
        words += ["--arch", _quoted(arch)]
    if data is not None or m.sample.path is not None:
        words += ["--data", _quoted(data or m.sample.path or "")]
    if m.sample.validation is not None:
        words += ["--val", _quoted(m.sample.validation)]
    return " ".join(words)


def _quoted(text: str) -> str:
    return shlex.quote(text)
