"""The JSON report: valid against its schema, whatever was measured; no NaN, same bytes."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from enum import Enum
from typing import Any

import jsonschema
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from gradscope.diagnosis import Diagnosis, Inspection
from gradscope.findings import Finding
from gradscope.measurements import Measurements
from gradscope.report import render
from gradscope.rules import all_rules
from tests.renew_golden import SCHEMA
from tests.report.examples import EXAMPLES, inspection

VALIDATOR = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))


def test_the_schema_is_a_schema_and_strict():
    jsonschema.Draft202012Validator.check_schema(VALIDATOR.schema)
    assert VALIDATOR.schema["additionalProperties"] is False
    assert all(d["additionalProperties"] is False for d in VALIDATOR.schema["$defs"].values())


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_are_valid(name: str):
    text = render("json", inspection(EXAMPLES[name]()))
    VALIDATOR.validate(json.loads(text))
    assert text == render("json", inspection(EXAMPLES[name]()))


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Anything that an annotation admits, NaN and infinity too."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*(values(a) for a in arguments))
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return st.lists(values(arguments[0]), max_size=2).map(tuple)
        return st.tuples(*(values(a) for a in arguments))
    if origin is Mapping:
        return st.dictionaries(st.text(max_size=3), values(arguments[1]), max_size=2)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        fields = {f.name: values(hints[f.name]) for f in dataclasses.fields(kind)}
        if kind is Finding:
            fields["code"] = st.sampled_from([r.code for r in all_rules()])
        return st.builds(kind, **fields)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return st.sampled_from(list(kind))
    plain = {
        str: st.text(max_size=6), int: st.integers(0, 10**6), float: st.floats(width=32),
        bool: st.booleans(), type(None): st.none(),
    }  # fmt: skip
    return plain[kind]


@settings(max_examples=40, deadline=None, phases=[Phase.generate])  # shrinking takes minutes
@given(values(Measurements), values(Diagnosis), st.lists(values(Finding), max_size=2).map(tuple))
def test_whatever_was_measured_can_be_shown(m, diagnosis, findings):
    found = Inspection(m, findings, diagnosis)
    text = render("json", found)
    VALIDATOR.validate(json.loads(text, parse_constant=lambda name: pytest.fail(name)))
    for unicode in (True, False):
        assert render("terminal", found, unicode=unicode)
    assert render("html", found).endswith("</html>\n")


def test_what_was_not_measured_is_null():
    report = json.loads(render("json", inspection(EXAMPLES["weights-only"]())))
    assert report["ledger"] is None
    assert report["parameters"][0]["gradient"] is None
    assert report["skipped"]
    broken = json.loads(render("json", inspection(EXAMPLES["broken"]())))
    assert broken["activations"][0]["output_gain"] is None
    assert not any(isinstance(v, float) and math.isnan(v) for v in broken.values())
