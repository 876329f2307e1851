"""A comparison for programs: a versioned interface; its schema is ``docs/compare.schema.json``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gradscope.comparing import Change, Comparison, Refused, Row, Subject, Trend
from gradscope.report.base import Canvas
from gradscope.report.json_ import commands, document, plain
from gradscope.report.schema import COMMANDS, Builder, document_schema

SCHEMA = "gradscope.compare/1"


class CompareJson:
    """Deterministic: same comparison, same bytes. No NaN, no infinity: null."""

    name = "json"
    document = True

    def render(self, comparison: Comparison, canvas: Canvas) -> str:
        """The comparison, indented, ending with a newline."""
        return document(SCHEMA, as_dict(comparison))


def as_dict(comparison: Comparison) -> dict[str, Any]:
    """The comparison as plain data, in the order of the schema."""
    c = comparison
    return {
        "regression": c.is_regression,
        "exit_status": c.exit_status,
        "subjects": plain(c.subjects),
        "refused": plain(c.refused),
        "changes": plain(c.changes),
        "ledger": plain(c.rows),
        "trends": plain(c.trends),
        "notes": plain(c.notes),
        "next": commands(c.next),
    }


def compare_schema(codes: Sequence[str]) -> dict[str, Any]:
    """JSON Schema 2020-12; strict: nothing missing, nothing more.

    Args:
        codes: of all rules.
    """
    builder, text = Builder(codes), {"type": "string"}
    properties: dict[str, Any] = {
        "regression": {"type": "boolean"},
        "exit_status": {"enum": [0, 1, 2, 3]},
        "subjects": {"type": "array", "minItems": 2, "items": builder.of(Subject)},
        "refused": {"type": "array", "items": builder.of(Refused)},
        "changes": {"type": "array", "minItems": 1, "items": builder.of(Change)},
        "ledger": {"type": "array", "items": builder.of(Row)},
        "trends": {"type": "array", "items": builder.of(Trend)},
        "notes": {"type": "array", "items": text},
        "next": COMMANDS,
    }
    about = "Models, checkpoints or saved reports; the first is what the others are compared with."
    return document_schema(SCHEMA, "gradscope compare", about, properties, builder)


FORMAT = CompareJson()
