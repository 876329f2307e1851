"""A check for programs: an interface, versioned; its schema is ``docs/check.schema.json``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gradscope.checking import CheckResult, Entry, ModelCheck, Summary
from gradscope.checking.baseline import SCHEMA as BASELINE_SCHEMA
from gradscope.report.base import Canvas
from gradscope.report.json_ import commands, document, plain
from gradscope.report.schema import COMMANDS, Builder, document_schema, object_schema

SCHEMA = "gradscope.check/1"


class CheckJson:
    """Deterministic: same result, same bytes. No NaN, no infinity: null."""

    name = "json"
    document = True

    def render(self, result: CheckResult, canvas: Canvas) -> str:
        """The result, indented, ending with a newline."""
        return document(SCHEMA, as_dict(result))


def as_dict(result: CheckResult) -> dict[str, Any]:
    """The result as plain data, in the order of the schema."""
    return {
        "fail_on": result.fail_on,
        "summary": plain(result.summary),
        "models": plain(result.models),
        "notes": plain(result.notes),
        "next": commands(result.next),
    }


def check_schema(codes: Sequence[str]) -> dict[str, Any]:
    """JSON Schema 2020-12; strict: nothing missing, nothing more.

    Args:
        codes: of all rules.
    """
    builder, text = Builder(codes), {"type": "string"}
    properties: dict[str, Any] = {
        "fail_on": {"enum": ["error", "warning", "undetermined", "never"]},
        "summary": builder.of(Summary),
        "models": {"type": "array", "items": builder.of(ModelCheck)},
        "notes": {"type": "array", "items": text},
        "next": COMMANDS,
    }
    about = "What counts of what was found in saved models, and the exit status."
    return document_schema(SCHEMA, "gradscope check", about, properties, builder)


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
