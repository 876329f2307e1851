"""What ``gradscope fix`` says to programs, and the JSON Schema of that.

``docs/fix.schema.json`` is what :func:`fix_schema` returns; ``make golden`` renews it.
"""

from __future__ import annotations

from typing import Any

from gradscope.diagnosis import Verdict
from gradscope.findings import Cause
from gradscope.measurements import ModelInfo
from gradscope.report.json_ import document, plain
from gradscope.report.schema import Builder, document_schema, object_schema
from gradscope.treatment import Contestant, Outcome, Planned, Stage, Treatment

SCHEMA = "gradscope.fix/1"


def as_json(t: Treatment, folder: str | None = None) -> str:
    """One object; ``folder`` holds its run."""
    content = {
        "model": plain(t.before.measurements.model),
        "outcome": t.outcome.value,
        "summary": t.summary,
        "verdict": {
            "before": t.before.diagnosis.verdict.value,
            "after": t.after.diagnosis.verdict.value if t.after is not None else None,
        },
        "causes": [c.value for c in t.before.diagnosis.causes],
        "plan": plain(t.plan),
        "chosen": t.chosen,
        "metric": t.metric,
        "chance": plain(t.chance),
        "held_out": t.held_out,
        "samples": t.samples,
        "recipe": t.recipe,
        "warnings": list(t.warnings),
        "race": plain(t.race),
        "stages": plain(t.stages),
        "history": {"steps": list(t.steps), "scores": plain(t.scores), "losses": plain(t.losses)},
        "stopped": t.stopped,
        "resumed": t.resumed,
        "gain": plain(t.gain),
        "error": plain(t.error),
        "written": t.written,
        "run": folder,
    }
    return document(SCHEMA, content)


def fix_schema() -> dict[str, Any]:
    """JSON Schema 2020-12; strict: nothing missing, nothing more."""
    builder = Builder(())
    text, number = {"type": "string"}, builder.of(float | None)
    words, numbers = builder.of(tuple[str, ...]), {"type": "array", "items": number}
    perhaps = builder.of(str | None)
    properties: dict[str, Any] = {
        "model": builder.of(ModelInfo),
        "outcome": builder.of(Outcome),
        "summary": text,
        "verdict": object_schema(
            {"before": builder.of(Verdict), "after": builder.of(Verdict | None)}
        ),
        "causes": {"type": "array", "items": builder.of(Cause)},
        "plan": builder.of(tuple[Planned, ...]),
        "chosen": perhaps,
        "metric": perhaps,
        "chance": number,
        "held_out": perhaps,
        "samples": {"type": "integer"},
        "recipe": perhaps,
        "warnings": words,
        "race": builder.of(tuple[Contestant, ...]),
        "stages": builder.of(tuple[Stage, ...]),
        "history": object_schema(
            {"steps": builder.of(tuple[int, ...]), "scores": numbers, "losses": numbers}
        ),
        "stopped": perhaps,
        "resumed": builder.of(int | None),
        "gain": number,
        "error": number,
        "written": perhaps,
        "run": perhaps,
    }
    about = "A number that was not measured is null."
    return document_schema(SCHEMA, "gradscope fix", about, properties, builder)
