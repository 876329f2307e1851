"""States and roles: the words that measurements are told in."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """What a statistic of a tensor stands for; a value only where state is ``value``."""

    VALUE = "value"
    ZERO = "zero"
    NONFINITE = "nonfinite"
    NO_PATH = "no-path"


class Role(StrEnum):
    """What an activation is for. Only ``hidden`` ones enter the ledger and the verdict."""

    HIDDEN = "hidden"
    GATE = "gate"
    OUTPUT = "output"
    PART = "part"
