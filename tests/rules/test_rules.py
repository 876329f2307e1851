"""Every rule's own examples, and what all rules have in common."""

from __future__ import annotations

import re

import pytest

from gradscope.findings import Severity
from gradscope.rules import all_rules, run_rules

RULES = all_rules()


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.code)
def test_examples(rule):
    assert rule.passes()
    assert rule.fails()
    for good in rule.passes():
        assert list(rule.check(good)) == []
    for bad in rule.fails():
        found = list(rule.check(bad))
        assert found
        assert {f.code for f in found} == {rule.code}
        assert all(f.message and f.where and len(f.fingerprint) == 16 for f in found)


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.code)
def test_it_explains_itself(rule):
    assert re.fullmatch(r"GS\d{3}", rule.code)
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", rule.name)
    assert len(rule.explanation) > 80
    assert all(t.evidence for t in rule.thresholds.values())


def test_codes_and_names_are_unique_and_the_first_six_are_there():
    names = {r.code: r.name for r in RULES}
    assert len(names) == len(RULES) == len(set(names.values()))
    assert names == {
        "GS101": "vanishing-gradient",
        "GS201": "saturated-activation",
        "GS202": "saturated-unit",
        "GS301": "oversized-weight",
        "GS401": "non-finite",
        "GS901": "coverage",
    }


def test_the_severest_come_first():
    for rule in RULES:
        for bad in rule.fails():
            ranks = [f.severity.rank for f in run_rules(bad)]
            assert ranks == sorted(ranks, reverse=True)
    assert Severity.ERROR.rank > Severity.WARNING.rank > Severity.INFORMATION.rank
