"""Thresholds as the user sets them: by code or name, from a settings file or a flag."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping

from gradscope.errors import OptionError
from gradscope.rules.base import Rule
from gradscope.rules.registry import Limits, all_rules


def check_limits(given: Mapping[str, object], where: str) -> Limits:
    """Thresholds by code, from a table whose keys are codes or names of rules.

    Args:
        given: ``{"GS101": {"total": -4}}``; each rule a table of its thresholds.
        where: file or option, for the message.

    Raises:
        OptionError: a rule or threshold that does not exist, or a value that is no number.
    """
    found: dict[str, dict[str, float]] = {}
    for key, table in given.items():
        rule = find_rule(key, where)
        if not isinstance(table, Mapping):
            first = next(iter(rule.thresholds), "THRESHOLD")
            what = f"'{key}' needs the name of a threshold"
            raise OptionError(what, where=where, hint=f"For example: {rule.code}.{first} = 1.")
        for name, value in table.items():
            found.setdefault(rule.code, {})[_known(rule, str(name), where)] = _number(
                value, f"{key}.{name}", where
            )
    return found


def parse_limit(text: str, where: str) -> Limits:
    """``GS101.total=-4`` as a flag gives it."""
    key, equals, value = text.partition("=")
    rule, dot, name = key.strip().partition(".")
    if not equals or not dot:
        hint = "Give it as CODE.THRESHOLD=NUMBER, e.g. GS101.total=-4."
        raise OptionError(f"'{text}' sets no threshold", where=where, hint=hint)
    try:
        number: object = float(value)
    except ValueError:
        number = value
    return check_limits({rule: {name.strip(): number}}, where)


def joined(every: Iterable[Limits]) -> Limits:
    """Later ones override earlier ones, threshold by threshold."""
    found: dict[str, dict[str, float]] = {}
    for limits in every:
        for code, table in limits.items():
            found.setdefault(code, {}).update(table)
    return found


def find_rule(key: str, where: str) -> Rule:
    """The rule of this code or name.

    Raises:
        OptionError: there is none; the nearest is named.
    """
    rules = {r.code.lower(): r for r in all_rules()} | {r.name: r for r in all_rules()}
    found = rules.get(key.strip().lower())
    if found is None:
        raise OptionError(f"there is no rule '{key}'", where=where, hint=_nearest_rule(key, rules))
    return found


def _nearest_rule(key: str, rules: Mapping[str, Rule]) -> str:
    close = difflib.get_close_matches(key.lower(), rules, 1, 0.6)
    if not close:
        return "'gradscope rule' lists them."
    return f"Did you mean {rules[close[0]].code} ({rules[close[0]].name})?"


def _known(rule: Rule, name: str, where: str) -> str:
    if name in rule.thresholds:
        return name
    close = difflib.get_close_matches(name, rule.thresholds, 1, 0.6)
    there = ", ".join(rule.thresholds) or "none"
    hint = f"Did you mean '{close[0]}'?" if close else f"It has: {there}."
    raise OptionError(f"{rule.code} has no threshold '{name}'", where=where, hint=hint)


def _number(value: object, key: str, where: str) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(float(str(value))):
        raise OptionError(f"{key} must be a finite number, not {value!r}", where=where)
    return float(str(value))
