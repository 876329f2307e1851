"""Options on how a model is opened, the same for every command that takes one."""

from __future__ import annotations

from typing import Annotated

import typer

from gradscope.cli.options import parse_arch, parse_arch_args, parse_input_values
from gradscope.config import LoadSettings
from gradscope.errors import OptionError

_PANEL = "Model"

Model = Annotated[str, typer.Argument(metavar="MODEL", help="The saved model.")]
Arch = Annotated[
    str | None,
    typer.Option(
        "--arch",
        metavar="FILE.py:FACTORY",
        help="What builds the model of a state_dict; also package.module:FACTORY. It is run.",
        rich_help_panel=_PANEL,
    ),
]
ArchArgs = Annotated[
    str | None,
    typer.Option(
        "--arch-args",
        metavar="JSON",
        help="Keyword arguments for the factory, as an object.",
        rich_help_panel=_PANEL,
    ),
]
Allow = Annotated[
    list[str] | None,
    typer.Option(
        "--allow",
        metavar="CLASS",
        help="Admit module classes beyond torch's own: package.module, or "
        "__main__.Net=FILE.py:Net. Repeatable.",
        rich_help_panel=_PANEL,
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        "--key",
        metavar="NAME",
        help="Which state_dict (or module) of a checkpoint, e.g. ema or model.state_dict.",
        rich_help_panel=_PANEL,
    ),
]
TrustModel = Annotated[
    bool,
    typer.Option(
        "--trust-model",
        help="Run whatever the file contains. Only for files of your own.",
        rich_help_panel=_PANEL,
    ),
]
InputValue = Annotated[
    list[str] | None,
    typer.Option(
        "--input-value",
        metavar="NAME=VALUE",
        help="An argument of forward that is no tensor, e.g. sr=16000. Repeatable.",
        rich_help_panel=_PANEL,
    ),
]


def load_settings(
    arch: str | None,
    arch_args: str | None,
    allow: list[str] | None,
    trust_model: bool,
    key: str | None,
    input_value: list[str] | None = None,
) -> LoadSettings:
    """The options together.

    Raises:
        OptionError: one of them makes no sense.
    """
    if arch_args is not None and arch is None:
        raise OptionError("means nothing without --arch", where="--arch-args")
    return LoadSettings(
        arch=parse_arch(arch),
        arch_args=parse_arch_args(arch_args),
        allow=tuple(allow or ()),
        trust_model=trust_model,
        key=key,
        values=parse_input_values(input_value or ()),
    )
