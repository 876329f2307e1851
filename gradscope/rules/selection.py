"""Rules chosen by code, prefix of a code or name."""

from __future__ import annotations

from collections.abc import Iterable

from gradscope.errors import OptionError
from gradscope.rules.limits import find_rule
from gradscope.rules.registry import all_rules


def codes_of(key: str, where: str) -> frozenset[str]:
    """The codes that a code (``GS201``), a prefix (``GS2``) or a name (``dead-relu``) means.

    Raises:
        OptionError: it means none; the nearest is named.
    """
    prefix = key.strip().upper()
    found = frozenset(r.code for r in all_rules() if prefix and r.code.startswith(prefix))
    return found or frozenset({find_rule(key, where).code})


def selected(
    select: Iterable[str], ignore: Iterable[str], where: tuple[str, str]
) -> frozenset[str] | None:
    """Codes of the rules that are looked at; None: all.

    Args:
        select: codes, prefixes or names as of ``--select``, also with commas between; none: all.
        ignore: those taken off again, as of ``--ignore``.
        where: what to name in the message, for each of the two.

    Raises:
        OptionError: a code that means nothing, or no rule is left.
    """
    chosen, dropped = _union(select, where[0]), _union(ignore, where[1])
    if not chosen and not dropped:
        return None
    left = (chosen or frozenset(r.code for r in all_rules())) - dropped
    if not left:
        what = f"leaves no rule of those that {where[0]} names"
        raise OptionError(what, where=where[1], hint="'gradscope rule' lists them.")
    return left


def _union(keys: Iterable[str], where: str) -> frozenset[str]:
    every = (part for key in keys for part in key.split(","))
    return frozenset().union(*(codes_of(part, where) for part in every))
