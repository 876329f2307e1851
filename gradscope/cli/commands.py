"""The commands by name, each imported when it is called, or its own help is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup


@dataclass(frozen=True)
class Command:
    """``help``: the first line of its help, as its module says it (a test compares them)."""

    module: str
    help: str


COMMANDS: Mapping[str, Command] = {
    "inspect": Command(
        "gradscope.cli.inspect",
        "Examine a saved model: where its gradient goes, why, whether it matters, and what now.",
    ),
    "check": Command(
        "gradscope.cli.check",
        "Examine saved models for CI: findings only, one summary, an exit status.",
    ),
    "compare": Command(
        "gradscope.cli.compare",
        "Compare models, checkpoints of one run or saved reports: what changed, what got worse.",
    ),
    "fix": Command(
        "gradscope.cli.fix",
        "Repair a saved model: rescale, fine-tune, verify, and write it back as it came.",
    ),
    "rule": Command(
        "gradscope.cli.rule",
        "Explain a rule: what it means, its thresholds, its evidence, its remedy.",
    ),
}
"""In the order in which ``gradscope --help`` lists them."""


class LazyGroup(TyperGroup):
    """A group that knows its commands by name, and builds the one that is wanted.

    typer builds all of them, which imports settings, rules and reports before the first line of
    help. What typer looks names up in, to suggest one for a misspelt one, holds commands without
    parameters.
    """

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.commands = {n: TyperCommand(n, help=known.help) for n, known in COMMANDS.items()}

    def list_commands(self, ctx: Any) -> list[str]:
        """Names, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command, imported now; None if there is none of this name."""
        return _built(cmd_name) if cmd_name in COMMANDS else None

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The list in the help: from the table above, nothing imported."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, known.help) for name, known in COMMANDS.items()])


@cache  # what typer and pydantic make of its options is never freed: half a megabyte a call
def _built(name: str) -> Any:
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(name)(getattr(import_module(COMMANDS[name].module), name))
    return typer.main.get_command(app)
