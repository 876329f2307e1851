"""Finds the rules: every class in a file of this folder that is a :class:`Rule`."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from functools import cache
from pathlib import Path

from gradscope.findings import Finding
from gradscope.measurements import Measurements
from gradscope.rules.base import Rule


@cache
def all_rules() -> tuple[Rule, ...]:
    """One of each, by code."""
    package = __name__.rpartition(".")[0]
    found: dict[str, Rule] = {}
    for info in pkgutil.iter_modules([str(Path(__file__).parent)]):
        module = importlib.import_module(f"{package}.{info.name}")
        for _, cls in inspect.getmembers(module, inspect.isclass):
            if issubclass(cls, Rule) and not inspect.isabstract(cls):
                found[cls.code] = cls()
    return tuple(found[code] for code in sorted(found))


def run_rules(measured: Measurements) -> tuple[Finding, ...]:
    """Findings of all rules, the severest first, then by code and place in the model."""
    findings = [f for rule in all_rules() for f in rule.check(measured)]
    return tuple(sorted(findings, key=lambda f: (-f.severity.rank, f.code)))
