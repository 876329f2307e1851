"""The JSON report: an interface, versioned; its schema is ``docs/report.schema.json``."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

from gradscope import __version__
from gradscope.diagnosis import Inspection
from gradscope.findings import Finding
from gradscope.measurements import Ledger
from gradscope.report.base import Canvas

SCHEMA = "gradscope.report/1"


class Json:
    """Deterministic: same inspection, same bytes. No NaN, no infinity: null."""

    name = "json"

    def render(self, inspection: Inspection, canvas: Canvas) -> str:
        """The report, indented, ending with a newline."""
        return document(SCHEMA, as_dict(inspection))


def document(schema: str, content: Mapping[str, Any]) -> str:
    """A JSON document of ours, ending with a newline: which schema it follows, who wrote it, and
    plain data. Its schema is :func:`gradscope.report.schema.document_schema`'s."""
    who = {"schema": schema, "tool": {"name": "gradscope", "version": __version__}}
    return json.dumps({**who, **content}, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def commands(steps: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    """What to type next."""
    return [{"command": plain(command), "why": plain(why)} for command, why in steps]


def as_dict(inspection: Inspection) -> dict[str, Any]:
    """The report as plain data, in the order of the schema."""
    m, diagnosis = inspection.measurements, inspection.diagnosis
    return {
        "model": plain(m.model),
        "sample": plain(m.sample),
        "verdict": diagnosis.verdict.value,
        "provisional": diagnosis.provisional,
        "summary": diagnosis.summary,
        "causes": [c.value for c in diagnosis.causes],
        "evidence": plain(diagnosis.evidence),
        "settle": diagnosis.settle,
        "advice": diagnosis.advice,
        "otherwise": plain(diagnosis.otherwise),
        "skill": plain(m.skill),
        "sample_skill": plain(m.sample_skill),
        "reference": plain(m.reference),
        "trial": plain(m.trial),
        "run": plain(m.run),
        "inputs": plain(m.inputs),
        "outputs": [_head(plain(h), h.ledger) for h in m.heads],
        "ledger": _ledger(m.ledger),
        "layers": plain(m.layers),
        "activations": plain(m.sites),
        "attention": plain(m.attention),
        "parameters": plain(m.parameters),
        "first_nonfinite": plain(m.first_nonfinite),
        "findings": plain(inspection.findings),
        "skipped": plain(m.skipped),
    }


def _head(head: dict[str, Any], ledger: Ledger) -> dict[str, Any]:
    return {**head, "ledger": _ledger(ledger)}


def _ledger(ledger: Ledger | None) -> dict[str, Any] | None:
    if ledger is None:
        return None
    fields: dict[str, Any] = plain(ledger)
    return {"gain": plain(ledger.gain), **fields}


def plain(value: Any) -> Any:
    """Dataclasses, enums and tuples as JSON knows them; NaN and infinity become None, and a
    finding gets its fingerprint."""
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return (
            {**fields, "fingerprint": value.fingerprint} if isinstance(value, Finding) else fields
        )
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    return value
