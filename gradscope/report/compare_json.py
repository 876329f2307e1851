"""A comparison for programs: a versioned interface; its schema is ``docs/compare.schema.json``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from gradscope import __version__
from gradscope.comparing import Change, Comparison, Refused, Row, Subject, Trend
from gradscope.report.base import Canvas
from gradscope.report.json_ import plain
from gradscope.report.schema import Builder, object_schema

SCHEMA = "gradscope.compare/1"


class CompareJson:
    """Deterministic: same comparison, same bytes. No NaN, no infinity: null."""

    name = "json"
    document = True

    def render(self, comparison: Comparison, canvas: Canvas) -> str:
        """The comparison, indented, ending with a newline."""
        content = as_dict(comparison)
        return json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def as_dict(comparison: Comparison) -> dict[str, Any]:
    """The comparison as plain data, in the order of the schema."""
    c = comparison
    return {
        "schema": SCHEMA,
        "tool": {"name": "gradscope", "version": __version__},
        "regression": c.is_regression,
        "exit_status": c.exit_status,
        "subjects": plain(c.subjects),
        "refused": plain(c.refused),
        "changes": plain(c.changes),
        "ledger": plain(c.rows),
        "trends": plain(c.trends),
        "notes": plain(c.notes),
        "next": [{"command": plain(command), "why": plain(why)} for command, why in c.next],
    }


def compare_schema(codes: Sequence[str]) -> dict[str, Any]:
    """JSON Schema 2020-12; strict: nothing missing, nothing more.

    Args:
        codes: of all rules.
    """
    builder, text = Builder(codes), {"type": "string"}
    properties: dict[str, Any] = {
        "schema": {"const": SCHEMA},
        "tool": object_schema({"name": {"const": "gradscope"}, "version": text}),
        "regression": {"type": "boolean"},
        "exit_status": {"enum": [0, 1, 2, 3]},
        "subjects": {"type": "array", "minItems": 2, "items": builder.of(Subject)},
        "refused": {"type": "array", "items": builder.of(Refused)},
        "changes": {"type": "array", "minItems": 1, "items": builder.of(Change)},
        "ledger": {"type": "array", "items": builder.of(Row)},
        "trends": {"type": "array", "items": builder.of(Trend)},
        "notes": {"type": "array", "items": text},
        "next": {"type": "array", "items": object_schema({"command": text, "why": text})},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "gradscope compare",
        "description": "Models, checkpoints or saved reports; the first is what the others are "
        "compared with.",
        **object_schema(properties),
        "$defs": dict(sorted(builder.definitions.items())),
    }


FORMAT = CompareJson()
