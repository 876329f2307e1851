"""A check for programs: an interface, versioned; its schema is ``docs/check.schema.json``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from gradscope import __version__
from gradscope.checking import CheckResult, Entry, ModelCheck, Summary
from gradscope.checking.baseline import SCHEMA as BASELINE_SCHEMA
from gradscope.report.base import Canvas
from gradscope.report.json_ import plain
from gradscope.report.schema import Builder, object_schema

SCHEMA = "gradscope.check/1"


class CheckJson:
    """Deterministic: same result, same bytes. No NaN, no infinity: null."""

    name = "json"
    document = True

    def render(self, result: CheckResult, canvas: Canvas) -> str:
        """The result, indented, ending with a newline."""
        return json.dumps(as_dict(result), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def as_dict(result: CheckResult) -> dict[str, Any]:
    """The result as plain data, in the order of the schema."""
    return {
        "schema": SCHEMA,
        "tool": {"name": "gradscope", "version": __version__},
        "fail_on": result.fail_on,
        "summary": plain(result.summary),
        "models": plain(result.models),
        "notes": plain(result.notes),
        "next": [{"command": plain(command), "why": plain(why)} for command, why in result.next],
    }


def check_schema(codes: Sequence[str]) -> dict[str, Any]:
    """JSON Schema 2020-12; strict: nothing missing, nothing more.

    Args:
        codes: of all rules.
    """
    builder, text = Builder(codes), {"type": "string"}
    properties: dict[str, Any] = {
        "schema": {"const": SCHEMA},
        "tool": object_schema({"name": {"const": "gradscope"}, "version": text}),
        "fail_on": {"enum": ["error", "warning", "undetermined", "never"]},
        "summary": builder.of(Summary),
        "models": {"type": "array", "items": builder.of(ModelCheck)},
        "notes": {"type": "array", "items": text},
        "next": {"type": "array", "items": object_schema({"command": text, "why": text})},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "gradscope check",
        "description": "What counts of what was found in saved models, and the exit status.",
        **object_schema(properties),
        "$defs": dict(sorted(builder.definitions.items())),
    }


def baseline_schema() -> dict[str, Any]:
    """JSON Schema of a baseline file, as strict as its reader is."""
    builder = Builder([])
    entries = {"type": "array", "items": builder.of(Entry)}
    properties: dict[str, Any] = {
        "schema": {"const": BASELINE_SCHEMA},
        "models": {"type": "object", "additionalProperties": entries},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "gradscope baseline",
        "description": "Known findings by model, whose path is relative to the file's folder.",
        **object_schema(properties),
        "$defs": builder.definitions,
    }


FORMAT = CheckJson()
