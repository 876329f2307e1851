"""The JSON Schema of the JSON report, derived from the dataclasses that it shows.

``docs/report.schema.json`` is what this returns; ``make golden`` renews it, a test compares.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

from gradscope.diagnosis import Evidence, Verdict
from gradscope.findings import Cause, Finding, Skipped
from gradscope.measurements import (
    Attention,
    FirstNonfinite,
    Head,
    InputStats,
    Layer,
    Ledger,
    ModelInfo,
    Parameter,
    Reference,
    RunInfo,
    SampleInfo,
    Site,
    Skill,
    Trial,
)
from gradscope.report.json_ import SCHEMA

_NULL = {"type": "null"}


def report_schema(codes: Sequence[str]) -> dict[str, Any]:
    """JSON Schema 2020-12; strict: nothing missing, nothing more.

    Args:
        codes: of all rules.
    """
    builder = Builder(codes)
    text = {"type": "string"}
    properties: dict[str, Any] = {
        "model": builder.of(ModelInfo),
        "sample": builder.of(SampleInfo),
        "verdict": builder.of(Verdict),
        "provisional": {"type": "boolean"},
        "summary": text,
        "causes": {"type": "array", "items": builder.of(Cause)},
        "evidence": {"type": "array", "items": builder.of(Evidence)},
        "settle": {"anyOf": [text, _NULL]},
        "advice": {"anyOf": [text, _NULL]},
        "otherwise": {"type": "array", "items": text},
        "skill": {"anyOf": [builder.of(Skill), _NULL]},
        "sample_skill": {"anyOf": [builder.of(Skill), _NULL]},
        "reference": {"anyOf": [builder.of(Reference), _NULL]},
        "trial": {"anyOf": [builder.of(Trial), _NULL]},
        "run": builder.of(RunInfo),
        "inputs": {"type": "array", "items": builder.of(InputStats)},
        "outputs": {"type": "array", "items": builder.of(Head)},
        "ledger": {"anyOf": [builder.of(Ledger), _NULL]},
        "layers": {"type": "array", "items": builder.of(Layer)},
        "activations": {"type": "array", "items": builder.of(Site)},
        "attention": {"type": "array", "items": builder.of(Attention)},
        "parameters": {"type": "array", "items": builder.of(Parameter)},
        "first_nonfinite": {"anyOf": [builder.of(FirstNonfinite), _NULL]},
        "findings": {"type": "array", "items": builder.of(Finding)},
        "skipped": {"type": "array", "items": builder.of(Skipped)},
    }
    about = "A number that was not measured is null, with its reason under skipped."
    return document_schema(SCHEMA, "gradscope report", about, properties, builder)


def document_schema(
    schema: str, title: str, about: str, properties: Mapping[str, Any], builder: Builder
) -> dict[str, Any]:
    """The schema of what :func:`gradscope.report.json_.document` writes.

    Args:
        schema: name and version of the form.
        title, about: for people.
        properties: of the content, built by ``builder``, which holds the definitions.
    """
    version = {"type": "string"}
    who = {
        "schema": {"const": schema},
        "tool": object_schema({"name": {"const": "gradscope"}, "version": version}),
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        "description": about,
        **object_schema({**who, **properties}),
        "$defs": dict(sorted(builder.definitions.items())),
    }


def object_schema(properties: dict[str, Any]) -> dict[str, Any]:
    """An object with these keys, all of them and no other."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


_TEXT = {"type": "string"}
COMMANDS = {"type": "array", "items": object_schema({"command": _TEXT, "why": _TEXT})}
"""Of :func:`gradscope.report.json_.commands`."""


class Builder:
    """Collects one definition a dataclass."""

    def __init__(self, codes: Sequence[str]) -> None:
        self.definitions: dict[str, Any] = {}
        self._codes = list(codes)

    def of(self, kind: Any) -> dict[str, Any]:
        """Schema of a type as it stands in an annotation."""
        origin, arguments = typing.get_origin(kind), typing.get_args(kind)
        if origin in (typing.Union, types.UnionType):
            return {"anyOf": [self.of(a) for a in arguments]}
        if origin is tuple:
            return self._tuple(arguments)
        if origin is Mapping:
            return {"type": "object", "additionalProperties": self._item(arguments[1])}
        if dataclasses.is_dataclass(kind):
            return self._reference(kind)
        if isinstance(kind, type) and issubclass(kind, Enum):
            return {"enum": [member.value for member in kind]}
        names = {str: "string", int: "integer", float: "number", bool: "boolean"}
        return _NULL if kind is type(None) else {"type": names[kind]}

    def _item(self, kind: Any) -> dict[str, Any]:
        """A number that is not finite is null, also where none should be."""
        return self.of(float | None) if kind is float else self.of(kind)

    def _tuple(self, arguments: tuple[Any, ...]) -> dict[str, Any]:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return {"type": "array", "items": self._item(arguments[0])}
        items = [self._item(a) for a in arguments]
        n = len(items)
        return {"type": "array", "prefixItems": items, "minItems": n, "maxItems": n}

    def _reference(self, kind: Any) -> dict[str, Any]:
        name = kind.__name__
        if name not in self.definitions:
            self.definitions[name] = {}  # a placeholder, against endless recursion
            hints = typing.get_type_hints(kind)
            fields = {f.name: self._item(hints[f.name]) for f in dataclasses.fields(kind)}
            if kind is Ledger:
                fields = {"gain": self.of(float | None), **fields}
            if kind is Finding:
                fields["code"] = {"enum": self._codes}
                fields["fingerprint"] = {"type": "string", "pattern": "^[0-9a-f]{16}$"}
            summary = (kind.__doc__ or "").strip().split("\n\n")[0]
            described = {"description": " ".join(summary.split())}
            self.definitions[name] = {**described, **object_schema(fields)}
        return {"$ref": f"#/$defs/{name}"}
