"""Findings that the settings set aside, each with a reason."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from gradscope.checking.paths import matches
from gradscope.checking.results import ModelCheck
from gradscope.config import CheckSettings, Ignore
from gradscope.findings import Finding


def reason_to_ignore(finding: Finding, path: str, settings: CheckSettings) -> str | None:
    """The reason of the first ignore that is about this finding of this model."""
    for ignore, codes in settings.ignores:
        if _is_about(ignore, codes, finding) and _concerns(ignore, path):
            return ignore.reason
    return None


def unused(settings: CheckSettings, models: Sequence[ModelCheck]) -> Iterator[str]:
    """A sentence for each ignore that models of this run could have needed, and none did."""
    for ignore, codes in settings.ignores:
        mine = [m for m in models if m.error is None and _concerns(ignore, m.path)]
        looked_at = any(settings.selects(code) for code in codes)
        found = (i.finding for m in mine for i in m.ignored)
        if mine and looked_at and not any(_is_about(ignore, codes, f) for f in found):
            places = [ignore.rule, ignore.where, ignore.model]
            what = ", ".join(f"'{place}'" for place in places if place is not None)
            yield f"the ignore of {what} matches no finding; remove it"


def _is_about(ignore: Ignore, codes: frozenset[str], finding: Finding) -> bool:
    if finding.code not in codes:
        return False
    # Places hold brackets (`0/relu[3, 5]`), which a glob reads otherwise.
    place = ignore.where
    return place is None or place == finding.where or fnmatchcase(finding.where, place)


def _concerns(ignore: Ignore, path: str) -> bool:
    return ignore.model is None or matches(path, ignore.model)
