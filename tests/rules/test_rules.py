"""Every rule's own examples, and what all rules have in common."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from gradscope.cli.main import main
from gradscope.commandline import command_for, next_command
from gradscope.config import DataSettings, ProbeSettings, Settings
from gradscope.findings import Severity
from gradscope.measurements import LedgerEntry, Measurements, Skill, Units
from gradscope.rules import all_rules, find_rule, run_rules
from gradscope.rules.describe import explain
from gradscope.rules.examples import measured, parameter, site, weight
from tests.renew_rule_pages import PAGES, rule_pages

RULES = all_rules()
of_all = pytest.mark.parametrize("rule", RULES, ids=lambda r: r.code)
LIMITS = [(rule, name) for rule in RULES for name in rule.thresholds]

CODES = {
    "GS101": "vanishing-gradient",
    "GS102": "exploding-gradient",
    "GS103": "no-gradient-path",
    "GS104": "vanishing-through-time",
    "GS105": "gradient-imbalance",
    "GS106": "gradient-underflow",
    "GS107": "dead-branch",
    "GS108": "narrow-gradient",
    "GS201": "saturated-activation",
    "GS202": "saturated-unit",
    "GS203": "dead-relu",
    "GS204": "forward-collapse",
    "GS205": "saturated-gate",
    "GS206": "confident-output",
    "GS207": "saturated-attention",
    "GS301": "oversized-weight",
    "GS302": "outlier-weight",
    "GS303": "dead-parameter",
    "GS304": "small-weights",
    "GS401": "non-finite",
    "GS501": "input-scale",
    "GS901": "coverage",
}
"""A code is never used again: this table only grows."""


def test_codes_and_names_stay():
    assert {r.code: r.name for r in RULES} == CODES


@of_all
def test_examples(rule):
    assert rule.passes()
    assert rule.fails()
    for good in rule.passes():
        assert list(rule.check(good)) == []
    for bad in rule.fails():
        found = list(rule.check(bad))
        assert found
        assert {(f.code, f.name) for f in found} == {(rule.code, rule.name)}
        assert all(f.where and len(f.fingerprint) == 16 for f in found)
        assert all(f.cause is None or f.cause in rule.causes for f in found)


@of_all
def test_a_fingerprint_does_not_rest_on_a_list_of_places(rule):
    for bad in rule.fails():
        found = list(rule.check(bad))
        assert len({f.fingerprint for f in found}) >= len({f.where for f in found})
        for one in found:
            assert one.about or not re.search(r", |\.\.\.", one.where), one.where


def _dead(count: int) -> Measurements:
    units = Units(8, None, None, count, (), tuple(range(count)))
    return measured(site("0/relu", kind="relu", saturated_fraction=None, units=units))


def _lost(layers: int) -> Measurements:
    entry = LedgerEntry("0/tanh", "0/tanh", "tanh", -2.0, -2.0, 0.0, 0.0, -2.0, -6.0)
    entries = tuple(replace(entry, label=f"{i}/tanh") for i in range(layers))
    return measured(site("0/tanh"), total=-6.0, entries=entries)


def _small(layers: int) -> Measurements:
    weights = [parameter(f"{i}.weight", weight=weight(init_ratio=0.1)) for i in range(layers)]
    return measured(*(site(f"{i}/tanh") for i in range(layers)), parameters=tuple(weights))


@pytest.mark.parametrize(("code", "make"), [("GS101", _lost), ("GS203", _dead), ("GS304", _small)])
def test_a_fingerprint_outlives_one_more_layer_or_unit(code: str, make):
    (rule,) = [r for r in RULES if r.code == code]
    (before,), (after,) = list(rule.check(make(3))), list(rule.check(make(4)))
    assert before.where != after.where
    assert before.fingerprint == after.fingerprint


@of_all
def test_it_explains_itself(rule):
    assert re.fullmatch(r"GS[1-9]\d\d", rule.code)
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", rule.name)
    assert rule.summary.endswith(".")
    assert len(rule.explanation) > 80
    assert rule.remedy.advice.endswith(".")
    assert all(t.evidence and t.unit for t in rule.thresholds.values())


@of_all
def test_every_severity_that_it_can_give_has_an_example(rule):
    """A rule that warns and errs shows both; information alone is shown as such."""
    source = Path(__file__).parent.parent.parent / "gradscope" / "rules"
    texts = [path.read_text() for path in source.glob("*.py")]
    text = next(t for t in texts if f'code = "{rule.code}"' in t)
    named = {s for s in Severity if f"Severity.{s.name}" in text.replace("is Severity.", "")}
    if "self.graver(" in text:
        named.add(Severity.ERROR)
    if "self.graver(measured)" in text:
        named.add(Severity.WARNING)
    assert {f.severity for bad in rule.fails() for f in rule.check(bad)} == named


def shown(number: float) -> list[str]:
    """Forms in which a message may print a number."""
    forms = ["{:.0%}", "{:.1f}", "{:+.1f}", "{:.0f}", "{:.0e}", "{:.2g}", "{:.3g}", "{:.2%}"]
    return [form.format(number) for form in forms]


@of_all
def test_value_and_threshold_are_printed(rule):
    for bad in rule.fails():
        for found in rule.check(bad):
            if found.threshold is None or rule.code == "GS401":
                continue  # not finite is no number to compare
            assert any(f"limit {text}" in found.message for text in shown(found.threshold))
            if found.value is not None:
                assert any(text in found.message for text in shown(found.value)), found.message


def results(m: Measurements, code: str, name: str, value: float):
    found = run_rules(m, {code: {name: value}})
    return [(f.severity, f.where, f.threshold) for f in found if f.code == code]


@pytest.mark.parametrize(("rule", "name"), LIMITS, ids=lambda v: getattr(v, "code", v))
def test_thresholds_can_be_set_and_do_something(rule, name):
    """Far out on one side and far out on the other, some example is judged differently."""
    examples = [*rule.fails(), *rule.passes()]
    low, high = -1e9, 1e9
    assert any(
        results(m, rule.code, name, low) != results(m, rule.code, name, high) for m in examples
    )


@of_all
def test_milder_where_the_model_works_and_on_a_made_up_input(rule):
    skill = Skill(0.95, 0.01, 0.1, "cross-entropy", "integer labels", 0.98, True, 450)
    for bad in rule.fails():
        made_up = replace(bad, sample=replace(bad.sample, synthetic=True))
        for other in (replace(bad, skill=skill), made_up):
            raw = [f.severity for f in rule.check(other)]
            after = [f.severity for f in run_rules(other) if f.code == rule.code]
            expected = [s.milder for s in raw] if rule.eased else raw
            assert sorted(after) == sorted(expected)


def test_the_severest_come_first():
    for rule in RULES:
        for bad in rule.fails():
            ranks = [f.severity.rank for f in run_rules(bad)]
            assert ranks == sorted(ranks, reverse=True)
    assert Severity.ERROR.rank > Severity.WARNING.rank > Severity.INFORMATION.rank


@of_all
def test_the_remedy_is_a_command_that_exists(rule, capsys: pytest.CaptureFixture[str]):
    """Its options are those of the command line: only the files are missing."""
    command = next_command(Settings("no.pt", data=DataSettings("no.npz")), rule.remedy.options)
    assert command.startswith("gradscope ")
    assert main(command.split()[1:]) == 2
    assert "no.pt" in capsys.readouterr().err


def test_the_remedy_holds_the_user_s_own_command():
    m = RULES[0].fails()[0]
    (found, *_) = run_rules(m, command=partial(next_command, Settings("a {b}.pt")))
    assert found.remedies[0].startswith("gradscope inspect 'a {b}.pt'")
    assert run_rules(m, command=None)[0].remedies == ()


def remedies(code: str, **sample: bool) -> set[str]:
    """What the rule tells to do next of its examples, on such a sample."""
    every = (replace(m, sample=replace(m.sample, **sample)) for m in find_rule(code, "").fails())
    found = (f for m in every for f in run_rules(m, command=str.strip) if f.code == code)
    return {r for f in found for r in f.remedies}


def test_the_remedy_asks_for_nothing_that_is_not_there():
    """A trial trains on labels, and a made-up input has no scale of its own."""
    assert remedies("GS201", labels=True) == {"--trial 400"}
    assert remedies("GS201", labels=False) == {"--all"}
    assert remedies("GS501", synthetic=False) == {"--standardise"}
    assert remedies("GS501", synthetic=True) == {"--all"}


def test_a_trial_is_asked_for_without_what_excludes_it():
    probe = ProbeSettings(trial=800, gradients=False, dtype="fp16", device_map="auto")
    settings = Settings("a.pt", data=DataSettings("b.npz"), probe=probe)
    assert (
        next_command(settings, "--trial 400") == "gradscope inspect a.pt --data b.npz --trial 400"
    )
    kept = "gradscope inspect a.pt --data b.npz --no-gradients --dtype fp16 --device-map auto --all"
    assert next_command(settings, "--all") == kept


def test_a_device_map_says_where_the_model_runs():
    """What it chose is no option to be given beside it."""
    probe = ProbeSettings(device_map="auto", device="cuda:0")
    assert command_for(Settings("a.pt", probe=probe)) == "gradscope inspect a.pt --device-map auto"


def test_the_pages_are_those_of_the_rules():
    pages = rule_pages()
    assert set(PAGES.iterdir()) == set(pages)
    for path, text in pages.items():
        assert path.read_text(encoding="utf-8") == text, "make docs-rules renews them"


def test_limits_are_numbers():
    for rule in RULES:
        assert all(math.isfinite(t.value) for t in rule.thresholds.values())


@of_all
def test_what_to_do_fills_the_width(rule):
    lines = explain(rule, {}, None, 100).splitlines()
    first = next(n for n, line in enumerate(lines) if line.startswith("What to do"))
    longest = max(len(line) for line in lines[first : lines.index("", first) - 1])
    assert 90 < longest <= 100
