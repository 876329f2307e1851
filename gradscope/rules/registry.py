"""Finds the rules: every class in a file of this folder that is a :class:`Rule`."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

from gradscope.attribution import works
from gradscope.findings import Finding
from gradscope.measurements import Measurements
from gradscope.rules.base import Command, Rule, usual

Limits = Mapping[str, Mapping[str, float]]
"""Thresholds that the user has set: code -> name -> number."""


@cache
def all_rules() -> tuple[Rule, ...]:
    """One of each, by code, at its default thresholds."""
    package = __name__.rpartition(".")[0]
    found: dict[str, Rule] = {}
    for info in pkgutil.iter_modules([str(Path(__file__).parent)]):
        module = importlib.import_module(f"{package}.{info.name}")
        for _, cls in inspect.getmembers(module, inspect.isclass):
            if issubclass(cls, Rule) and not inspect.isabstract(cls):
                found[cls.code] = cls()
    return tuple(found[code] for code in sorted(found))


def run_rules(
    measured: Measurements, limits: Limits | None = None, command: Command | None = usual
) -> tuple[Finding, ...]:
    """Findings of all rules, the severest first, then by code and place in the model.

    Args:
        measured: of one model.
        limits: thresholds other than the defaults.
        command: that makes this report again, for the remedies; None: there is none, nor are they.
    """
    set_by_user = limits or {}
    rules = (type(r)(set_by_user.get(r.code)) for r in all_rules())
    findings = []
    for rule in rules:
        remedies = () if command is None else (rule.remedy.command(measured, command),)
        findings += [replace(found, remedies=remedies) for found in _of(rule, measured)]
    return tuple(sorted(findings, key=lambda f: (-f.severity.rank, f.code)))


def _of(rule: Rule, measured: Measurements) -> list[Finding]:
    """A rule's findings; milder where the model works all the same, or the input is made up."""
    found = list(rule.check(measured))
    if not rule.eased or not (works(measured) or measured.sample.synthetic):
        return found
    return [replace(f, severity=f.severity.milder) for f in found]
