"""Options of ``--trial``, and what does not go together."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from gradscope.config import ProbeSettings
from gradscope.errors import OptionError

_PANEL = "Measuring"


class Trained(StrEnum):
    """What trains the copies."""

    ADAM = "adam"
    ADAMW = "adamw"
    SGD = "sgd"
    RMSPROP = "rmsprop"


TrialOptimizer = Annotated[
    Trained | None,
    typer.Option(
        "--trial-optimizer",
        help="Of --trial (default: the checkpoint's where it keeps one, else adam).",
        rich_help_panel=_PANEL,
    ),
]
TrialLr = Annotated[
    float | None,
    typer.Option(
        "--trial-lr",
        metavar="RATE",
        help="Learning rate of --trial (default: the checkpoint's, else the untreated copy is "
        "tried at three).",
        rich_help_panel=_PANEL,
    ),
]
TrialMomentum = Annotated[
    float | None,
    typer.Option(
        "--trial-momentum",
        metavar="M",
        help="Of sgd (default .9, or the checkpoint's) or rmsprop.",
        rich_help_panel=_PANEL,
    ),
]


def check_trial(probe: ProbeSettings) -> None:
    """Raises :class:`OptionError` for numbers that make no sense, and without a trial."""
    rate, momentum = probe.trial_rate, probe.trial_momentum
    given = {"--trial-optimizer": probe.trial_optimizer, "--trial-lr": rate,
             "--trial-momentum": momentum}  # fmt: skip
    for name, value in given.items():
        if value is not None and not probe.trial:
            raise OptionError("has no meaning without --trial", where=name, hint="Add --trial 400.")
    if rate is not None and not 0 < rate < 1e3:
        where, hint = "--trial-lr", "For example: 1e-3."
        raise OptionError(f"{rate} is no learning rate", where=where, hint=hint)
    if momentum is not None and not 0 <= momentum < 1:
        hint = "For example: 0.9."
        raise OptionError(f"{momentum} is no momentum", where="--trial-momentum", hint=hint)
    if momentum is not None and probe.trial_optimizer not in (None, "sgd", "rmsprop"):
        hint = "Leave one of them out."
        what = f"{probe.trial_optimizer} has none of its own"
        raise OptionError(what, where="--trial-momentum", hint=hint)
