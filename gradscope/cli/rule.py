"""``gradscope rule``: what a rule means, its thresholds, its evidence, its remedy."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer

from gradscope.cli.output import canvas, emit
from gradscope.cli.status import CLEAN
from gradscope.settings_file import find_settings


class Form(StrEnum):
    """For people or for programs."""

    TEXT = "text"
    JSON = "json"


def rule(
    code: Annotated[
        str | None, typer.Argument(metavar="CODE", help="A rule's code or name; none: all rules.")
    ] = None,
    form: Annotated[Form, typer.Option("--format", help="For people or for programs.")] = Form.TEXT,
) -> int:
    """Explain a rule: what it means, its thresholds, its evidence, its remedy."""
    from gradscope.rules import all_rules, check_limits, find_rule
    from gradscope.rules.describe import as_dict, explain, listing

    file = find_settings()
    limits = check_limits(file.rules, file.path or "rules")
    chosen = all_rules() if code is None else (find_rule(code, "CODE"),)
    width = canvas(None).width
    if form is Form.JSON:
        every = [as_dict(r, limits.get(r.code, {})) for r in chosen]
        emit(json.dumps(every if code is None else every[0], indent=2, ensure_ascii=False), None)
    elif code is None:
        emit(listing(chosen, width), None)
    else:
        emit(explain(chosen[0], limits.get(chosen[0].code, {}), file.path, width), None)
    return CLEAN
