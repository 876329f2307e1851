"""Options on what is done to data, the same for every command that takes some."""

from __future__ import annotations

from typing import Annotated

import typer

from gradscope.errors import OptionError

_PANEL = "Data"

LabelColumn = Annotated[
    str | None,
    typer.Option(
        "--label-column",
        metavar="NAME|NUMBER",
        help="The column of labels, by name or number (from 0; -1 is the last). Without it: the "
        "one called y, label(s) or target(s).",
        rich_help_panel=_PANEL,
    ),
]
Standardise = Annotated[
    bool,
    typer.Option(
        "--standardise",
        "--standardize",
        help="Feed (x - mean) / sd, each column or channel by itself, with the mean and sd of the "
        "samples of --data. Without it data are fed as they are.",
        rich_help_panel=_PANEL,
    ),
]
InputShape = Annotated[
    list[str] | None,
    typer.Option(
        "--input-shape",
        metavar="[NAME=]3x32x32",
        help="Shape of an input, without the sample axis: of a made-up one, or how to lay out the "
        "columns of a file. Repeatable.",
        rich_help_panel=_PANEL,
    ),
]


def check_data_options(data: str | None, label_column: str | None, standardise: bool) -> None:
    """Raises :class:`OptionError` for what is said of data that are not there."""
    given = {"--label-column": label_column is not None, "--standardise": standardise}
    for option, is_given in given.items():
        if is_given and data is None:
            raise OptionError("means nothing without --data", where=option)
