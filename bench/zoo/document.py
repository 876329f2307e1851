"""Puts the tables of ``bench/results`` into ``docs/evidence.md``, between their markers.

A marker line is ``<!-- FILE: SECTION -->``; what follows up to ``<!-- end -->`` is replaced by that
section of ``bench/results/FILE`` (with no SECTION: by all of it but its title). A file that is not
there yet is said to be missing.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "evidence.md"
RESULTS = ROOT / "bench" / "results"
BLOCK = re.compile(
    r"(<!-- (?P<file>[\w.-]+\.md)(?:: (?P<section>[^>]+?))? -->\n).*?(<!-- end -->)", re.S
)


def filled(page: str) -> str:
    """The page with its tables as the results files have them."""
    return BLOCK.sub(lambda m: m[1] + _section(m["file"], m["section"]) + m[4], page)


def _section(file: str, section: str | None) -> str:
    path = RESULTS / file
    if not path.is_file():
        return f"\nNot run yet (`bench/results/{file}`).\n\n"
    text = path.read_text(encoding="utf-8")
    parts = re.split(r"^## (.+)\n", text, flags=re.M)
    if section is None:
        body = text.split("\n", 1)[1]
    else:
        titles = dict(zip(parts[1::2], parts[2::2], strict=True))
        if section not in titles:
            raise SystemExit(f"{path}: no section '{section}'; it has {', '.join(titles)}")
        body = titles[section]
    source = "" if section is None else parts[0].split("\n", 1)[1].strip() + "\n\n"
    return f"\n{source}{body.strip()}\n\n"


def renew() -> None:
    """Write the page anew."""
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
