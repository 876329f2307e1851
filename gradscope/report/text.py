"""Words and numbers as the terminal shows them. File and layer names are hostile text."""

from __future__ import annotations

import math
import re
import textwrap

_LAST_PLACE = re.compile(r"(.*), (?!\.\.\.)[^,\]]+?(?:, \.\.\.)?(\]?(?: and \d+ more)?)")
_MOST_PLACES = 16


def safe(text: str) -> str:
    """Control characters, which could rewrite a terminal, made visible."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def shorten(text: str, width: int) -> str:
    """``text`` in at most ``width`` columns, its middle left out."""
    text = safe(text)
    if len(text) <= width:
        return text
    head = max((width - 3) // 2, 1)
    tail = max(width - 3 - head, 0)
    return f"{text[:head]}...{text[len(text) - tail :] if tail else ''}"[: max(width, 1)]


def shorten_places(text: str, width: int) -> str:
    """A list of places (``0/relu[3, 4, ...]``) in at most ``width`` columns, its end left out."""
    text = safe(text)
    for _ in range(_MOST_PLACES):
        found = _LAST_PLACE.fullmatch(text) if len(text) > width else None
        if found is None:
            break
        text = f"{found[1]}, ...{found[2]}"
    return shorten(text, width)


def lines_of(text: str, width: int) -> list[str]:
    """A sentence on as many lines as it takes; a word that fits on none goes on in the next."""
    return textwrap.wrap(text, max(width, 8), break_on_hyphens=False) or [""]


def number(value: float | None, digits: int = 2) -> str:
    """A number for a table: three significant digits, or a dash for one that was not measured."""
    if value is None or not math.isfinite(value):
        return "-"
    if value == 0:
        return "0"
    size = abs(value)
    return f"{value:.1e}" if size < 1e-3 or size >= 1e5 else f"{value:.{digits + 1}g}"


def decades(value: float | None) -> str:
    """``-5.8``, never ``-0.0``; a dash if not measured."""
    return "-" if value is None or not math.isfinite(value) else f"{round(value, 1) + 0.0:.1f}"


def share(value: float | None) -> str:
    """A share as ``.96``; a dash if not measured."""
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:.2f}".removeprefix("0") if value < 1 else f"{value:.2f}"


def count(number: int, noun: str) -> str:
    """``1 sample``, ``2 samples``, ``1,797 samples``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
